/* See segment.h. */
#include "softefa/fabric/segment.h"

#include "softefa/fabric/private_fd.h"

#include <cerrno>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace softefa::fabric {

using base::status;

namespace {
constexpr int wanted_seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
}

void *raw_mmap(std::size_t size, int prot, int flags, int fd, std::uint64_t offset) noexcept
{
    const long address = syscall(SYS_mmap, nullptr, size, prot, flags, fd, offset);
    return address == -1 ? nullptr : reinterpret_cast<void *>(address);
}

void raw_munmap(void *address, std::size_t size) noexcept
{
    if (address != nullptr)
        syscall(SYS_munmap, address, size);
}

void raw_close(int fd) noexcept
{
    fd_close_private(fd);
}

bool raw_may_write_to(std::uint64_t size) noexcept
{
    rlimit limit{};
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= size;
}

int raw_memfd(const char *name, bool sealing) noexcept
{
    const unsigned flags = MFD_CLOEXEC | (sealing ? MFD_ALLOW_SEALING : 0u);
    long           fd    = syscall(SYS_memfd_create, name, flags | MFD_NOEXEC_SEAL);
    if (fd == -1 && errno == EINVAL) // before Linux 6.3
        fd = syscall(SYS_memfd_create, name, flags);
    return fd_settle_private(static_cast<int>(fd));
}

base::result<segment> segment_create(std::uint64_t instance, std::uint32_t may_cut) noexcept
{
    segment s;
    if (!raw_may_write_to(segment_size))
        return status::limit;
    s.fd = raw_memfd("softefa-segment", true);
    if (s.fd < 0)
        return errno == EMFILE || errno == ENFILE ? status::limit : status::io_error;
    if (syscall(SYS_ftruncate, s.fd, segment_size) != 0 || syscall(SYS_fcntl, s.fd, F_ADD_SEALS, wanted_seals) != 0) {
        segment_close(s);
        return status::io_error;
    }
    s.base = static_cast<std::uint8_t *>(raw_mmap(segment_size, PROT_READ | PROT_WRITE, MAP_SHARED, s.fd, 0));
    if (s.base == nullptr) {
        segment_close(s);
        return status::no_memory;
    }
    s.control()->magic    = segment_magic;
    s.control()->version  = segment_version;
    s.control()->instance = instance;
    s.control()->may_cut  = may_cut;
    return s;
}

base::result<segment> segment_open_peer(int fd, std::uint64_t instance) noexcept
{
    segment     s{fd, nullptr};
    struct stat about;
    const long  seals = syscall(SYS_fcntl, fd, F_GET_SEALS);

    if (seals == -1 || (seals & wanted_seals) != wanted_seals || fstat(fd, &about) != 0 ||
        about.st_size != static_cast<off_t>(segment_size)) {
        segment_close(s);
        return status::protocol;
    }
    s.base = static_cast<std::uint8_t *>(raw_mmap(segment_size, PROT_READ, MAP_SHARED, fd, 0));
    if (s.base == nullptr) {
        segment_close(s);
        return status::no_memory;
    }
    const control_page *control = s.control();
    if (control->magic != segment_magic || control->version != segment_version || control->instance != instance) {
        segment_close(s);
        return status::protocol;
    }
    return s;
}

void segment_close(segment &s) noexcept
{
    raw_munmap(s.base, segment_size);
    fd_drop_private(s.fd);
    s = segment{};
}

} // namespace softefa::fabric
