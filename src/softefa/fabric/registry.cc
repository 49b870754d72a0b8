/* See registry.h. */
#include "softefa/fabric/registry.h"

#include "softefa/fabric/private_fd.h"
#include "softefa/fabric/private_path.h"
#include "softefa/fabric/segment.h"
#include "softefa/observe/names.h"

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <dirent.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace softefa::fabric {

using base::status;

namespace {

constexpr unsigned qpns        = 65536;
constexpr off_t    hint_offset = qpns * 8;
constexpr off_t    table_size  = hint_offset + 8;
constexpr int      backlog     = 512;

std::uint64_t mix(std::uint64_t hash, const void *bytes, std::uint64_t size) noexcept // FNV-1a
{
    const auto *at = static_cast<const unsigned char *>(bytes);
    for (std::uint64_t i = 0; i < size; ++i)
        hash = (hash ^ at[i]) * 0x100000001b3u;
    return hash;
}

bool lock_word(int fd, off_t offset, short type) noexcept
{
    struct flock range {};
    range.l_type   = type;
    range.l_whence = SEEK_SET;
    range.l_start  = offset;
    range.l_len    = 8;
    return fcntl(fd, F_SETLK, &range) == 0;
}

/// Start of the search: the shared hint where nobody else is using it this moment, else the caller's own.
std::uint16_t take_hint(int fd, std::uint16_t fallback) noexcept
{
    std::uint64_t hint = fallback;
    if (lock_word(fd, hint_offset, F_WRLCK) && pread(fd, &hint, sizeof(hint), hint_offset) != sizeof(hint))
        getrandom(&hint, sizeof(hint), GRND_NONBLOCK); // a fresh table: start anywhere
    return static_cast<std::uint16_t>(hint);
}

void put_hint(int fd, std::uint16_t next) noexcept
{
    const std::uint64_t hint = next;
    (void)!pwrite(fd, &hint, sizeof(hint), hint_offset);
    lock_word(fd, hint_offset, F_UNLCK);
}

/// A socket that is about to be renamed refuses too: only one that has been about to for a long time is nobody's.
bool stale(int folder, const char *name) noexcept
{
    constexpr time_t young_max = 60; // seconds
    struct stat      about;
    timespec         now{};
    return fstatat(folder, name, &about, AT_SYMLINK_NOFOLLOW) == 0 && clock_gettime(CLOCK_REALTIME, &now) == 0 &&
           now.tv_sec - about.st_mtim.tv_sec > young_max;
}

/// "<instance>.<PID namespace>.proc", a link to /proc/<pid>/fd/<n>: its process has ended. False where that cannot be told from here.
bool names_the_dead(int folder, const char *name, const char *space_and_kind) noexcept
{
    unsigned long long space = 0;
    int                end = 0, pid = 0;
    struct stat        own{};
    char               target[64] = "";
    if (std::sscanf(space_and_kind, "%llx.proc%n", &space, &end) != 1 || end == 0 || space_and_kind[end] != '\0' ||
        ::stat("/proc/self/ns/pid", &own) != 0 || own.st_ino != space)
        return false;
    return readlinkat(folder, name, target, sizeof(target) - 1) > 0 && std::sscanf(target, "/proc/%d/fd/", &pid) == 1 && pid > 0 &&
           ::kill(pid, 0) == -1 && errno == ESRCH;
}

} // namespace

std::uint64_t domain_identity(const char *folder, const char *domain) noexcept
{
    const int     saved = errno;
    std::uint64_t hash  = mix(0xcbf29ce484222325u, domain, std::strlen(domain));
    const uid_t   user  = geteuid();
    hash = mix(hash, &user, sizeof(user));

    char      boot[64] = {};
    const int fd       = ::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, boot, sizeof(boot) - 1) < 0)
            boot[0] = '\0';
        ::close(fd);
    }
    hash = mix(hash, boot, std::strlen(boot));

    struct stat about;
    if (folder[0] != '\0') {
        (void)make_private_folder(folder);
        if (stat(folder, &about) == 0) {
            hash = mix(hash, &about.st_dev, sizeof(about.st_dev));
            hash = mix(hash, &about.st_ino, sizeof(about.st_ino));
        }
    }
    errno = saved;
    return hash;
}

registry::registry() noexcept
{
    for (auto &fd : tables_)
        fd.store(-1, std::memory_order_relaxed);
}

status registry::open(const char *folder, std::uint64_t instance) noexcept
{
    instance_ = instance;
    next_     = static_cast<std::uint16_t>(instance);
    if (folder[0] == '\0')
        return status::ok;
    (void)make_private_folder(folder);
    folder_ = fd_settle_private(::open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    struct stat about;
    if (folder_ < 0 || fstat(folder_, &about) != 0)
        return status::io_error;
    if (about.st_uid != geteuid() || (about.st_mode & 077) != 0) {
        close();
        return status::permission;
    }
    return status::ok;
}

void registry::close() noexcept
{
    for (auto &fd : tables_)
        fd_close_private(fd.exchange(-1));
    withdraw();
    fd_drop_private(folder_);
}

void registry::withdraw() noexcept
{
    if (listening_) {
        char name[32];
        std::snprintf(name, sizeof(name), "%016llx.sock", static_cast<unsigned long long>(instance_));
        unlinkat(folder_, name, 0);
    }
    listening_ = false;
}

void registry::forget() noexcept
{
    listening_ = false;
    pthread_mutex_init(&tables_lock_, nullptr);
    close();
}

int registry::table(unsigned device) noexcept
{
    if (folder_ < 0 || device >= devices)
        return -1;
    pthread_mutex_lock(&tables_lock_); // opened twice and closed once would drop every lock
    if (tables_[device] < 0) {
        char name[16];
        std::snprintf(name, sizeof(name), "qpn.%u", device);
        tables_[device] = fd_settle_private(open_private_file(folder_, name, O_RDWR)); // no lock is held yet
    }
    const int fd = tables_[device];
    pthread_mutex_unlock(&tables_lock_);
    return fd;
}

base::result<std::uint16_t> registry::claim(unsigned device, const std::uint16_t *own, std::uint16_t low_mask,
                                            const std::uint64_t *low_used, bool lowest) noexcept
{
    const int  fd     = table(device);
    const bool shared = folder_ >= 0;
    if (shared && !raw_may_write_to(table_size))
        return status::limit;
    if (shared && fd < 0)
        return errno == EMFILE || errno == ENFILE ? status::limit : status::io_error;
    std::uint16_t qpn   = lowest ? 1 : shared ? take_hint(fd, next_) : next_;
    bool          found = false;
    for (unsigned k = 0; k < qpns && !found; ++k, qpn = static_cast<std::uint16_t>(qpn + 1)) {
        const unsigned low = qpn & low_mask;
        if (qpn == 0 || qpn == 0xffff || own[qpn] != 0 || ((low_used[low / 64] >> (low % 64)) & 1) != 0)
            continue;
        if (shared && !lock_word(fd, off_t{qpn} * 8, F_WRLCK))
            continue; // another process has it
        if (shared && pwrite(fd, &instance_, sizeof(instance_), off_t{qpn} * 8) != sizeof(instance_)) {
            lock_word(fd, off_t{qpn} * 8, F_UNLCK);
            break;
        }
        found = true;
    }
    if (!lowest)
        next_ = qpn;
    if (shared && !lowest)
        put_hint(fd, qpn);
    return found ? base::result<std::uint16_t>(static_cast<std::uint16_t>(qpn - 1)) : status::limit;
}

void registry::release(unsigned device, std::uint16_t qpn) noexcept
{
    const int           fd   = table(device);
    const std::uint64_t none = 0;
    if (!fd_may_be_ours(fd))
        return;
    if (raw_may_write_to(table_size))
        (void)!pwrite(fd, &none, sizeof(none), off_t{qpn} * 8);
    lock_word(fd, off_t{qpn} * 8, F_UNLCK);
}

base::result<std::uint64_t> registry::owner(unsigned device, std::uint16_t qpn) noexcept
{
    if (folder_ < 0 || device >= devices)
        return std::uint64_t{0};
    const int     fd = table(device);
    std::uint64_t id = 0;
    struct flock  range {};
    range.l_type   = F_WRLCK;
    range.l_whence = SEEK_SET;
    range.l_start  = off_t{qpn} * 8;
    range.l_len    = 8;
    // Out of descriptors or of locks says nothing about the destination: its work waits.
    if (fd < 0 || fcntl(fd, F_GETLK, &range) != 0)
        return status::no_resource;
    if (range.l_type == F_UNLCK || pread(fd, &id, sizeof(id), off_t{qpn} * 8) != sizeof(id))
        return std::uint64_t{0};
    return id;
}

bool registry::address_of(std::uint64_t instance, const char *suffix, void *address, unsigned *size_p) const noexcept
{
    auto *a = static_cast<sockaddr_un *>(address);
    std::memset(a, 0, sizeof(*a));
    a->sun_family = AF_UNIX;
    // Through the folder's descriptor: a folder's name may be longer than a socket address.
    const int length = std::snprintf(a->sun_path, sizeof(a->sun_path), "/proc/self/fd/%d/%016llx%s", folder_,
                                     static_cast<unsigned long long>(instance), suffix);
    *size_p = static_cast<unsigned>(offsetof(sockaddr_un, sun_path) + static_cast<unsigned>(length) + 1);
    return length > 0 && static_cast<std::size_t>(length) < sizeof(a->sun_path);
}

base::result<int> registry::listen() noexcept
{
    sockaddr_un address;
    unsigned    size = 0;
    if (folder_ < 0 || !address_of(instance_, ".new", &address, &size))
        return status::unsupported;
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno == EMFILE || errno == ENFILE ? status::limit : status::io_error;
    char fresh[32], name[32];
    std::snprintf(fresh, sizeof(fresh), "%016llx.new", static_cast<unsigned long long>(instance_));
    std::snprintf(name, sizeof(name), "%016llx.sock", static_cast<unsigned long long>(instance_));
    // Bound and listening under another name first, so that a sweep never meets a socket that refuses only because it is young.
    bool ok = bind(fd, reinterpret_cast<sockaddr *>(&address), size) == 0 && permit(folder_, fresh, 0600) && ::listen(fd, backlog) == 0;
    if (ok)
        sweep(); // only now: the bind has shown that sockets of this folder can be reached
    ok = ok && renameat(folder_, fresh, folder_, name) == 0;
    if (!ok) {
        unlinkat(folder_, fresh, 0);
        ::close(fd);
        return status::io_error;
    }
    listening_ = true;
    return fd_settle_private(fd);
}

base::result<int> registry::connect(std::uint64_t instance) noexcept
{
    auto socket = connect_to(instance, ".sock");
    return socket ? base::result<int>(fd_settle_private(*socket)) : socket;
}

base::result<int> registry::connect_to(std::uint64_t instance, const char *suffix) noexcept
{
    sockaddr_un address;
    unsigned    size = 0;
    if (folder_ < 0 || !address_of(instance, suffix, &address, &size))
        return status::peer_gone;
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return status::no_resource;
    if (::connect(fd, reinterpret_cast<sockaddr *>(&address), size) == 0)
        return fd;
    const int why = errno;
    ::close(fd);
    if (why == EAGAIN)
        return status::busy;
    // Everything else (no memory, a sandbox's denial) says nothing about the peer.
    return why == ECONNREFUSED || why == ENOENT ? status::peer_gone : status::no_resource;
}

void registry::sweep() noexcept
{
    const int copy = openat(folder_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR      *dir  = copy >= 0 ? fdopendir(copy) : nullptr;
    if (dir == nullptr) {
        if (copy >= 0)
            ::close(copy);
        return;
    }
    while (const dirent *entry = readdir(dir)) {
        const observe::name_kind what = observe::name_in(folder_, entry->d_name); // NAM-1: the folder may hold files of others
        unsigned long long       id   = 0;
        int                      end  = 0;
        if ((what != observe::name_kind::process_link && what != observe::name_kind::socket) ||
            std::sscanf(entry->d_name, "%16llx.%n", &id, &end) != 1 || end == 0 || id == instance_)
            continue;
        if (what == observe::name_kind::process_link) {
            if (names_the_dead(folder_, entry->d_name, entry->d_name + end))
                unlinkat(folder_, entry->d_name, 0);
            continue;
        }
        const char *kind = entry->d_name + end - 1;
        if (std::strcmp(kind, ".new") == 0 && !stale(folder_, entry->d_name))
            continue;
        auto probe = connect_to(id, kind);
        if (probe)
            ::close(*probe);
        else if (probe.error() == status::peer_gone)
            unlinkat(folder_, entry->d_name, 0);
    }
    closedir(dir);
}

} // namespace softefa::fabric
