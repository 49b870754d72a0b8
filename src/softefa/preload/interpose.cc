/* The C library functions that libibverbs finds in front of the C library's own.
 *
 * Owns: telling calls that concern a Soft EFA device from all others, and passing the others on at the cost of one test.
 * Refuses to know: what a device is (preload/registry, uverbs).
 *
 * What concerns us: open and stat of /dev/infiniband/uverbsN, fstat of a file whose inode is ours, ioctl with the one request
 * code of uverbs, close of an fd that we handed out (and close_range and closefrom, which meet our own), and the netlink socket that would make libibverbs skip sysfs.
 * mmap, read and poll are not here: the device node is a memfd, and channels are pipes.
 *
 * The originals are looked up once, in the constructor: dlsym may allocate and is not safe in a signal handler. A call before
 * that (another library's constructor) goes to the kernel directly.
 *
 * Invariants
 *   IPO-1  a call that is not ours behaves as without us: result, errno, cancellation, signal safety. One exception: a path that points to
 *          unmapped memory is read here before the kernel can say EFAULT.
 *   IPO-2  no file is opened and nothing is printed before a program lists devices: this library is in sh and mpirun too.
 *
 * Functions that are cancellation points in libc are not noexcept, as in libc's own headers: a cancelled thread unwinds
 * through them.
 */
#undef _FORTIFY_SOURCE // its inline open() would clash with ours

#include "softefa/preload/registry.h"
#include "softefa/preload/report.h"
#include "softefa/settings.h"
#include "softefa/uverbs/fd_marks.h"
#include "softefa/uverbs/file.h"
#include "softefa/uverbs/uncancelled.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/netlink.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace softefa::preload {
namespace {

constexpr unsigned major_number = 231;
constexpr unsigned minor_base   = 192;
constexpr char     node_prefix[] = "/dev/infiniband/uverbs";

// --- originals -----------------------------------------------------------------------------------------------------------

/// libc's function of that name, or null before the constructor ran.
template <class F> struct original {
    std::atomic<F *> function{nullptr};
    void             resolve(const char *name)
    {
        function.store(reinterpret_cast<F *>(dlsym(RTLD_NEXT, name)), std::memory_order_relaxed);
    }
    F *get() const { return function.load(std::memory_order_relaxed); }
};

original<int(const char *, int, ...)>                 real_open, real_open64;
original<int(const char *, int)>                      real_open_2, real_open64_2;
original<int(const char *, struct stat *)>            real_stat;
original<int(const char *, struct stat64 *)>          real_stat64;
original<int(int, struct stat *)>                     real_fstat;
original<int(int, struct stat64 *)>                   real_fstat64;
original<int(int, const char *, struct stat *)>       real_xstat;
original<int(int, const char *, struct stat64 *)>     real_xstat64;
original<int(int, int, struct stat *)>                real_fxstat;
original<int(int, int, struct stat64 *)>              real_fxstat64;
original<int(int, unsigned long, ...)>                real_ioctl;
original<int(int)>                                    real_close;
original<int(unsigned, unsigned, int)>                real_close_range;
original<void(int)>                                   real_closefrom;
original<int(int, int, int)>                          real_socket;

void resolve_all()
{
    real_open.resolve("open");
    real_open64.resolve("open64");
    real_open_2.resolve("__open_2");
    real_open64_2.resolve("__open64_2");
    real_stat.resolve("stat");
    real_stat64.resolve("stat64");
    real_fstat.resolve("fstat");
    real_fstat64.resolve("fstat64");
    real_xstat.resolve("__xstat");
    real_xstat64.resolve("__xstat64");
    real_fxstat.resolve("__fxstat");
    real_fxstat64.resolve("__fxstat64");
    real_ioctl.resolve("ioctl");
    real_close.resolve("close");
    real_close_range.resolve("close_range");
    real_closefrom.resolve("closefrom");
    real_socket.resolve("socket");
}

// --- what is ours --------------------------------------------------------------------------------------------------------

/// Joins the domain when a program looks for devices.
bool devices_available(look reason)
{
    const uverbs::uncancelled scope;
    return registry_join(reason);
}

/// The number behind /dev/infiniband/uverbs, or -1. Looks at the first character before anything else.
int node_index(const char *path)
{
    if (reinterpret_cast<std::uintptr_t>(path) < 4096 || path[0] != '/' ||
        strncmp(path, node_prefix, sizeof(node_prefix) - 1) != 0) {
        return -1;
    }
    const char *digits = path + sizeof(node_prefix) - 1;
    int         index  = 0;
    const char *p      = digits;
    for (; *p >= '0' && *p <= '9' && p - digits < 3; ++p) {
        index = index * 10 + (*p - '0');
    }
    return p != digits && *p == '\0' ? index : -1;
}

/// True if `path` is a device node of ours; then devices are available.
bool is_our_node(const char *path, unsigned *index_p)
{
    const int index = node_index(path);
    if (index < 0) [[likely]] {
        return false;
    }
    const int  saved_errno = errno;
    const bool ours        = devices_available(look::node) && static_cast<unsigned>(index) < settings_get(nullptr)->device_count;
    errno                  = saved_errno;
    *index_p               = static_cast<unsigned>(index);
    return ours;
}

template <class Stat> void describe_node(unsigned index, Stat *st)
{
    st->st_mode    = S_IFCHR | 0666;
    st->st_rdev    = makedev(major_number, minor_base + index);
    st->st_size    = 0;
    st->st_blocks  = 0;
    st->st_blksize = 4096;
    st->st_nlink   = 1;
}

template <class Stat> int stat_node(unsigned index, Stat *st)
{
    memset(st, 0, sizeof(*st));
    st->st_uid = geteuid();
    st->st_gid = getegid();
    describe_node(index, st);
    return 0;
}

/// After a successful fstat: a memfd of ours is shown as the device node that it stands for.
template <class Stat> int fstat_result(int result, int fd, Stat *st)
{
    unsigned index = 0;
    // A private fd is the engine's own, which wants to see the memfd.
    if (result == 0 && uverbs::file_any_open() && S_ISREG(st->st_mode) && !uverbs::fd_is_private(fd) &&
        uverbs::file_recognise(uverbs::inode_shown(st->st_dev, st->st_ino), &index)) [[unlikely]] {
        describe_node(index, st);
    }
    return result;
}

int open_node(unsigned index, int flags)
{
    const int fd = uverbs::file_open(index, flags);
    if (fd < 0) {
        errno = -fd;
        return -1;
    }
    return fd;
}

int kernel_stat(int folder_fd, const char *path, void *st, int flags)
{
#ifdef SYS_newfstatat
    return static_cast<int>(syscall(SYS_newfstatat, folder_fd, path, st, flags));
#else
    return static_cast<int>(syscall(SYS_fstatat64, folder_fd, path, st, flags));
#endif
}

mode_t mode_argument(int flags, va_list arguments)
{
    return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? static_cast<mode_t>(va_arg(arguments, int)) : 0;
}

// --- closing many ---------------------------------------------------------------------------------------------------------

int plain_close_range(unsigned first, unsigned last, int flags)
{
    auto *real = real_close_range.get();
    return real != nullptr ? real(first, last, flags) : static_cast<int>(syscall(SYS_close_range, first, last, flags));
}

/// Closes around our own descriptors, and tears down devices that are among the others. Only where this process has some of either: the
/// membership in the domain is there before the first device is opened and after the last one was closed.
int careful_close_range(unsigned first, unsigned last, int flags)
{
    // A call that the kernel refuses closes nothing, so it is asked first, about numbers that nobody has.
    if (const int result = plain_close_range(~0u, ~0u, flags); result != 0) {
        return result;
    }
    const bool unshared = (flags & static_cast<int>(CLOSE_RANGE_UNSHARE)) != 0; // done, and the other threads keep what is closed here
    flags &= ~static_cast<int>(CLOSE_RANGE_UNSHARE);
    const int marked = static_cast<int>(std::min<unsigned>(last, uverbs::fd_mark_max - 1));
    for (int fd = uverbs::fd_next_handed_out(static_cast<int>(std::min<unsigned>(first, uverbs::fd_mark_max)), marked); fd >= 0 && !unshared;
         fd     = uverbs::fd_next_handed_out(fd + 1, marked)) {
        (void)uverbs::file_closing(fd);
    }
    for (unsigned at = first; at <= last;) {
        const int      kept = at < static_cast<unsigned>(uverbs::fd_mark_max) ? fabric::fd_next_private(static_cast<int>(at), marked) : -1;
        const unsigned end  = kept >= 0 ? static_cast<unsigned>(kept) : last;
        if (kept < 0 || end > at) {
            const int result = plain_close_range(at, kept >= 0 ? end - 1 : last, flags);
            if (result != 0) {
                return result;
            }
        }
        if (kept < 0) {
            break;
        }
        at = end + 1;
    }
    return 0;
}

// --- constructor -----------------------------------------------------------------------------------------------------------

/// True if `path` is where some Soft EFA process put its tree: inherited from a parent, maybe of another domain.
bool is_soft_tree(const char *path)
{
    const char *last = strrchr(path, '/');
    return last != nullptr && strcmp(last + 1, sysfs_link_name) == 0;
}

/// Two variables, nothing else (IPO-2): where libibverbs finds the tree, and that libfabric must not bypass the verbs calls that
/// drive the engine, unless the helper thread stands in for them.
__attribute__((constructor)) void prepare_process()
{
    const int saved_errno = errno; // main begins with 0
    resolve_all();
    const settings *s = settings_get(nullptr);
    if (s == nullptr || getuid() != geteuid()) {
        errno = saved_errno;
        return; // complaints wait until somebody looks for a device
    }
    char path[160];
    registry_sysfs_path(*s, path, sizeof(path));
    const char *set = getenv("SYSFS_PATH");
    if (set == nullptr || (is_soft_tree(set) && strcmp(set, path) != 0)) {
        setenv("SYSFS_PATH", path, 1);
    } else if (strcmp(set, path) != 0) {
        report(severity::debug, "SYSFS_PATH=%s was set before and is kept; the devices are below %s", set, path);
    }
    if (s->direct == 0) {
        setenv("FI_EFA_USE_DATA_PATH_DIRECT", "0", 0);
    }
    errno = saved_errno;
}

} // namespace
} // namespace softefa::preload

using namespace softefa::preload;

#define SOFTEFA_EXPORT extern "C" __attribute__((visibility("default")))

SOFTEFA_EXPORT int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_argument(flags, arguments);
    va_end(arguments);
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return open_node(index, flags);
    }
    auto *real = real_open.get();
    return real != nullptr ? real(path, flags, mode) : static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

SOFTEFA_EXPORT int open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_argument(flags, arguments);
    va_end(arguments);
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return open_node(index, flags);
    }
    auto *real = real_open64.get();
    return real != nullptr ? real(path, flags, mode)
                           : static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode));
}

/// What open becomes under _FORTIFY_SOURCE when the flags are not constant.
SOFTEFA_EXPORT int __open_2(const char *path, int flags)
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return open_node(index, flags);
    }
    auto *real = real_open_2.get();
    return real != nullptr ? real(path, flags) : static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, 0));
}

SOFTEFA_EXPORT int __open64_2(const char *path, int flags)
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return open_node(index, flags);
    }
    auto *real = real_open64_2.get();
    return real != nullptr ? real(path, flags) : static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, 0));
}

SOFTEFA_EXPORT int stat(const char *path, struct stat *st) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return stat_node(index, st);
    }
    auto *real = real_stat.get();
    return real != nullptr ? real(path, st) : kernel_stat(AT_FDCWD, path, st, 0);
}

SOFTEFA_EXPORT int stat64(const char *path, struct stat64 *st) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return stat_node(index, st);
    }
    auto *real = real_stat64.get();
    return real != nullptr ? real(path, st) : kernel_stat(AT_FDCWD, path, st, 0);
}

SOFTEFA_EXPORT int fstat(int fd, struct stat *st) noexcept
{
    auto *real = real_fstat.get();
    return fstat_result(real != nullptr ? real(fd, st) : kernel_stat(fd, "", st, AT_EMPTY_PATH), fd, st);
}

SOFTEFA_EXPORT int fstat64(int fd, struct stat64 *st) noexcept
{
    auto *real = real_fstat64.get();
    return fstat_result(real != nullptr ? real(fd, st) : kernel_stat(fd, "", st, AT_EMPTY_PATH), fd, st);
}

// What stat and fstat were in programs linked against glibc before 2.33.
SOFTEFA_EXPORT int __xstat(int version, const char *path, struct stat *st) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return stat_node(index, st);
    }
    auto *real = real_xstat.get();
    return real != nullptr ? real(version, path, st) : kernel_stat(AT_FDCWD, path, st, 0);
}

SOFTEFA_EXPORT int __xstat64(int version, const char *path, struct stat64 *st) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return stat_node(index, st);
    }
    auto *real = real_xstat64.get();
    return real != nullptr ? real(version, path, st) : kernel_stat(AT_FDCWD, path, st, 0);
}

SOFTEFA_EXPORT int __fxstat(int version, int fd, struct stat *st) noexcept
{
    auto *real = real_fxstat.get();
    return fstat_result(real != nullptr ? real(version, fd, st) : kernel_stat(fd, "", st, AT_EMPTY_PATH), fd, st);
}

SOFTEFA_EXPORT int __fxstat64(int version, int fd, struct stat64 *st) noexcept
{
    auto *real = real_fxstat64.get();
    return fstat_result(real != nullptr ? real(version, fd, st) : kernel_stat(fd, "", st, AT_EMPTY_PATH), fd, st);
}

SOFTEFA_EXPORT int ioctl(int fd, unsigned long request, ...) noexcept
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (request == RDMA_VERBS_IOCTL) [[unlikely]] {
        const int saved_errno = errno;
        int       error       = 0;
        if (softefa::uverbs::file_ioctl(fd, argument, &error)) {
            errno = error != 0 ? error : saved_errno;
            return error != 0 ? -1 : 0;
        }
        errno = saved_errno;
    }
    auto *real = real_ioctl.get();
    return real != nullptr ? real(fd, request, argument) : static_cast<int>(syscall(SYS_ioctl, fd, request, argument));
}

SOFTEFA_EXPORT int close(int fd)
{
    if (softefa::uverbs::file_closing(fd) == softefa::uverbs::close_verdict::refused) [[unlikely]] {
        errno = EBADF;
        return -1;
    }
    auto *real = real_close.get();
    return real != nullptr ? real(fd) : static_cast<int>(syscall(SYS_close, fd));
}

SOFTEFA_EXPORT int close_range(unsigned first, unsigned last, int flags) noexcept
{
    const bool closes = (flags & static_cast<int>(CLOSE_RANGE_CLOEXEC)) == 0 && first <= last;
    if (closes && softefa::fabric::fds_private_here()) [[unlikely]] {
        return careful_close_range(first, last, flags);
    }
    return plain_close_range(first, last, flags);
}

SOFTEFA_EXPORT void closefrom(int first) noexcept
{
    const auto from = static_cast<unsigned>(first < 0 ? 0 : first);
    if (softefa::fabric::fds_private_here()) [[unlikely]] {
        if (careful_close_range(from, ~0u, 0) == 0) {
            return;
        }
        for (int fd = static_cast<int>(from); fd < softefa::uverbs::fd_mark_max; ++fd) { // before Linux 5.9
            if (softefa::uverbs::file_closing(fd) == softefa::uverbs::close_verdict::pass) {
                syscall(SYS_close, fd);
            }
        }
        return;
    }
    if (auto *real = real_closefrom.get(); real != nullptr) {
        real(first);
    } else {
        (void)plain_close_range(from, ~0u, 0);
    }
}

SOFTEFA_EXPORT int socket(int domain, int type, int protocol) noexcept
{
    if (domain == AF_NETLINK && protocol == NETLINK_RDMA) [[unlikely]] {
        // libibverbs asks here first; only a refusal makes it read sysfs. The tree must be there when it does.
        (void)devices_available(look::list);
        errno = EPROTONOSUPPORT;
        return -1;
    }
    auto *real = real_socket.get();
    return real != nullptr ? real(domain, type, protocol) : static_cast<int>(syscall(SYS_socket, domain, type, protocol));
}
