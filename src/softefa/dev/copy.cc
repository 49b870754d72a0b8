/* See copy.h.
 *
 * The kernel makes the copy, so a fault is an error code. Rejected: a SIGSEGV handler (the host process's signals are not ours),
 * and mincore before memcpy (another thread may unmap in between).
 */
#include "softefa/dev/copy.h"

#include <cerrno>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace softefa::dev {

namespace {

bool transfer(long number, void *local, const void *remote, std::size_t size) noexcept
{
    const int  saved = errno;
    const iovec here{local, size}, there{const_cast<void *>(remote), size};
    const long done = syscall(number, getpid(), &here, 1ul, &there, 1ul, 0ul);
    errno = saved;
    return done == static_cast<long>(size);
}

} // namespace

bool copy_from_application(void *to, const void *application, std::size_t size) noexcept
{
    return transfer(SYS_process_vm_readv, to, application, size);
}

bool copy_to_application(void *application, const void *from, std::size_t size) noexcept
{
    return transfer(SYS_process_vm_writev, const_cast<void *>(from), application, size);
}

} // namespace softefa::dev
