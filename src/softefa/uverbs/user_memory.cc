/* Fault-safe copies inside one process.
 *
 * Algorithm: process_vm_readv and process_vm_writev on the process itself report a bad address instead of raising a signal,
 * and need no permission for oneself. Some seccomp profiles forbid them; a pipe does the same job then: write() and read()
 * report EFAULT too. Others end the process for the call: with SOFTEFA_SINGLE_COPY=n it is never made.
 * Rejected: a SIGSEGV handler with a jump, because the host's signal handlers are not ours to touch.
 */
#include "softefa/uverbs/user_memory.h"

#include "softefa/settings.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace softefa::uverbs {
namespace {

constexpr std::size_t pipe_chunk = 4096; ///< bytes; a pipe holds this much without blocking

void close_quietly(int fd) { syscall(SYS_close, fd); }

/// Moves `size` bytes through a pipe. Exactly one side is the application's memory; the other is ours.
bool copy_through_pipe(std::uintptr_t destination, std::uintptr_t source, std::size_t size)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        return false;
    }
    bool ok = true;
    while (ok && size > 0) {
        const std::size_t part = size < pipe_chunk ? size : pipe_chunk;
        ok = write(ends[1], reinterpret_cast<const void *>(source), part) == static_cast<ssize_t>(part) &&
             read(ends[0], reinterpret_cast<void *>(destination), part) == static_cast<ssize_t>(part);
        destination += part;
        source += part;
        size -= part;
    }
    close_quietly(ends[0]);
    close_quietly(ends[1]);
    return ok;
}

bool transfer(std::uintptr_t destination, std::uintptr_t source, std::size_t size, bool user_is_source)
{
    if (size == 0) {
        return true;
    }
    const int       saved_errno = errno;
    const settings *s           = settings_get(nullptr);
    if (s != nullptr && s->single_copy == 0) {
        const bool moved = copy_through_pipe(destination, source, size);
        errno            = saved_errno;
        return moved;
    }
    iovec to{reinterpret_cast<void *>(destination), size};
    iovec from{reinterpret_cast<void *>(source), size};
    const ssize_t moved = user_is_source ? process_vm_readv(getpid(), &to, 1, &from, 1, 0)
                                         : process_vm_writev(getpid(), &from, 1, &to, 1, 0);
    bool ok = moved == static_cast<ssize_t>(size);
    if (moved < 0 && (errno == EPERM || errno == ENOSYS || errno == EACCES)) {
        ok = copy_through_pipe(destination, source, size);
    }
    errno = saved_errno;
    return ok;
}

} // namespace

bool copy_from_user(void *destination, std::uint64_t address, std::size_t size) noexcept
{
    return transfer(reinterpret_cast<std::uintptr_t>(destination), static_cast<std::uintptr_t>(address), size, true);
}

bool copy_to_user(std::uint64_t address, const void *source, std::size_t size) noexcept
{
    return transfer(static_cast<std::uintptr_t>(address), reinterpret_cast<std::uintptr_t>(source), size, false);
}

} // namespace softefa::uverbs
