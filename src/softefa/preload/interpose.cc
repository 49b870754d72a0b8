/* The C library functions that libibverbs finds in front of the C library's own: those that open and describe.
 *
 * Owns: telling calls that concern a Soft EFA device from all others, and passing the others on at the cost of one test.
 * Refuses to know: what a device is (preload/registry, uverbs).
 *
 * What concerns us: open and stat of /dev/infiniband/uverbsN, fstat of a file whose inode is ours, ioctl with the one request
 * code of uverbs, close of an fd that we handed out (interpose_close.cc), and the netlink socket that would make libibverbs skip sysfs.
 * mmap, read and poll are not here: the device node is a memfd, and channels are pipes.
 *
 * Invariants, of interpose_close.cc, too
 *   IPO-1  a call that is not ours behaves as without us: result, errno, cancellation, signal safety. One exception: a path that points to
 *          unmapped memory is read here before the kernel can say EFAULT.
 *   IPO-2  no file is opened and nothing is printed before a program lists devices: this library is in sh and mpirun too.
 *
 * Functions that are cancellation points in libc are not noexcept, as in libc's own headers: a cancelled thread unwinds
 * through them.
 */
#undef _FORTIFY_SOURCE // its inline open() would clash with ours

#include "softefa/fabric/private_fd.h"
#include "softefa/preload/original.h"
#include "softefa/preload/registry.h"
#include "softefa/preload/report.h"
#include "softefa/settings.h"
#include "softefa/uverbs/fd_marks.h"
#include "softefa/uverbs/file.h"
#include "softefa/uverbs/uncancelled.h"

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <fcntl.h>
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
constexpr unsigned fds_wanted   = 5; ///< of fewer, the next call that takes some may fail as well
constexpr char     node_prefix[] = "/dev/infiniband/uverbs";

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
original<int(int, int, int)>                          real_socket;

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

/// What a program says of a device that it cannot use names no reason. Once in the life of a process.
void tell_shortage(int error)
{
    static std::atomic<bool> told = false;
    if ((error == EMFILE || error == ENFILE || error == ENOMEM || error == EIO) && !told.load(std::memory_order_relaxed) && !fabric::fds_left(fds_wanted) &&
        !told.exchange(true, std::memory_order_relaxed)) {
        report(severity::error, "a call failed, and the process is out of file descriptors (ulimit -n): a device takes about 10, and 5 for each peer");
    }
}

int open_node(unsigned index, int flags)
{
    const int fd = uverbs::file_open(index, flags);
    if (fd < 0) {
        tell_shortage(-fd);
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

/// `large`: O_LARGEFILE where the function's name says so. `mode`: what the original takes behind the flags.
template <class F, class... Mode> int open_path(const original<F> &behind, const char *path, int flags, int large, Mode... mode)
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return open_node(index, flags);
    }
    auto *real = behind.get();
    return real != nullptr ? real(path, flags, mode...) : static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags | large, (mode_t{0} | ... | mode)));
}

/// `version`: what the original takes in front.
template <class F, class Stat, class... Version> int stat_path(const original<F> &behind, const char *path, Stat *st, Version... version)
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return stat_node(index, st);
    }
    auto *real = behind.get();
    return real != nullptr ? real(version..., path, st) : kernel_stat(AT_FDCWD, path, st, 0);
}

template <class F, class Stat, class... Version> int stat_open_file(const original<F> &behind, int fd, Stat *st, Version... version)
{
    auto *real = behind.get();
    return fstat_result(real != nullptr ? real(version..., fd, st) : kernel_stat(fd, "", st, AT_EMPTY_PATH), fd, st);
}

} // namespace

void resolve_opening()
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
    real_socket.resolve("socket");
}

} // namespace softefa::preload

using namespace softefa::preload;

SOFTEFA_EXPORT int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_argument(flags, arguments);
    va_end(arguments);
    return open_path(real_open, path, flags, 0, mode);
}

SOFTEFA_EXPORT int open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_argument(flags, arguments);
    va_end(arguments);
    return open_path(real_open64, path, flags, O_LARGEFILE, mode);
}

// What open becomes under _FORTIFY_SOURCE when the flags are not constant.
SOFTEFA_EXPORT int __open_2(const char *path, int flags) { return open_path(real_open_2, path, flags, 0); }
SOFTEFA_EXPORT int __open64_2(const char *path, int flags) { return open_path(real_open64_2, path, flags, O_LARGEFILE); }

SOFTEFA_EXPORT int stat(const char *path, struct stat *st) noexcept { return stat_path(real_stat, path, st); }
SOFTEFA_EXPORT int stat64(const char *path, struct stat64 *st) noexcept { return stat_path(real_stat64, path, st); }
SOFTEFA_EXPORT int fstat(int fd, struct stat *st) noexcept { return stat_open_file(real_fstat, fd, st); }
SOFTEFA_EXPORT int fstat64(int fd, struct stat64 *st) noexcept { return stat_open_file(real_fstat64, fd, st); }

// What stat and fstat were in programs linked against glibc before 2.33.
SOFTEFA_EXPORT int __xstat(int version, const char *path, struct stat *st) noexcept { return stat_path(real_xstat, path, st, version); }
SOFTEFA_EXPORT int __xstat64(int version, const char *path, struct stat64 *st) noexcept { return stat_path(real_xstat64, path, st, version); }
SOFTEFA_EXPORT int __fxstat(int version, int fd, struct stat *st) noexcept { return stat_open_file(real_fxstat, fd, st, version); }
SOFTEFA_EXPORT int __fxstat64(int version, int fd, struct stat64 *st) noexcept { return stat_open_file(real_fxstat64, fd, st, version); }

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
            if (error != 0) [[unlikely]] {
                tell_shortage(error);
            }
            errno = error != 0 ? error : saved_errno;
            return error != 0 ? -1 : 0;
        }
        errno = saved_errno;
    }
    auto *real = real_ioctl.get();
    return real != nullptr ? real(fd, request, argument) : static_cast<int>(syscall(SYS_ioctl, fd, request, argument));
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
