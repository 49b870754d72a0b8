/* See copy.h. */
#include "softefa/dev/copy.h"

#include <cerrno>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::dev {

namespace {

/// A copy that a fault cuts short reports what it did; the rest then fails by itself.
bool transfer(long number, int file, std::uint64_t offset, std::uint8_t *application, std::size_t size) noexcept
{
    const int saved = errno;
    while (size != 0) {
        const long done = syscall(number, file, application, size, offset);
        if (done <= 0 && !(done == -1 && errno == EINTR))
            break;
        if (done > 0) {
            application += done;
            offset += static_cast<std::uint64_t>(done);
            size -= static_cast<std::size_t>(done);
        }
    }
    errno = saved;
    return size == 0;
}

} // namespace

bool copy_from_application(int file, std::uint64_t offset, const void *application, std::size_t size) noexcept
{
    return transfer(SYS_pwrite64, file, offset, static_cast<std::uint8_t *>(const_cast<void *>(application)), size);
}

bool copy_to_application(void *application, int file, std::uint64_t offset, std::size_t size) noexcept
{
    return transfer(SYS_pread64, file, offset, static_cast<std::uint8_t *>(application), size);
}

} // namespace softefa::dev
