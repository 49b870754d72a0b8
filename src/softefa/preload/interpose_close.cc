/* The C library functions that close descriptors, in front of the C library's own.
 *
 * Owns: what becomes of ours among them. An fd that a program was given for a device is torn down before its number goes; a descriptor of the engine
 * itself, which the program never saw, survives a close of everything.
 * Refuses to know: which are which (uverbs/fd_marks, uverbs/file). Its invariants are those of interpose.cc.
 */
#include "softefa/preload/original.h"
#include "softefa/uverbs/fd_marks.h"
#include "softefa/uverbs/file.h"

#include <algorithm>
#include <cerrno>
#include <linux/close_range.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::preload {
namespace {

original<int(int)>                     real_close;
original<int(unsigned, unsigned, int)> real_close_range;
original<void(int)>                    real_closefrom;

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

} // namespace

void resolve_closing()
{
    real_close.resolve("close");
    real_close_range.resolve("close_range");
    real_closefrom.resolve("closefrom");
}

} // namespace softefa::preload

using namespace softefa::preload;

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
