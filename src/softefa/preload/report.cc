/* See report.h. One write(2) a line, so that lines of several processes do not mix. Where standard error is a pipe that nobody reads, a line is
 * waited for no longer than a second, and lost; where it has no reader any more, the line is lost without a SIGPIPE: the process goes on. */
#include "softefa/preload/report.h"

#include "softefa/settings.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <ctime>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::preload {

namespace {

/// By system calls, because the functions are cancellation points.
void write_line(const char *line, std::size_t length) noexcept
{
    pollfd   room{STDERR_FILENO, POLLOUT, 0};
    timespec wait{1, 0}, now{0, 0};
    const long ready = syscall(SYS_ppoll, &room, 1ul, &wait, nullptr, 0ul); // where a sandbox refuses it, the line may have to wait
    if (ready == 0 || (ready > 0 && (room.revents & (POLLOUT | POLLERR)) != POLLOUT))
        return;
    // The reader may leave between the look and the write. A SIGPIPE of ours is taken back; one that the program had waiting stays.
    sigset_t pipe_only, before, waiting;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
    sigpending(&waiting);
    if (syscall(SYS_write, STDERR_FILENO, line, length) == -1 && errno == EPIPE && sigismember(&waiting, SIGPIPE) == 0)
        (void)!syscall(SYS_rt_sigtimedwait, &pipe_only, nullptr, &now, std::size_t{8});
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

} // namespace

void report(severity level, const char *format, ...) noexcept
{
    const int       saved_errno = errno;
    const settings *s           = settings_get(nullptr);
    const unsigned  shown       = s != nullptr ? s->log_level : static_cast<unsigned>(severity::error);
    if (static_cast<unsigned>(level) <= shown) {
        char    line[1800];
        va_list arguments;
        va_start(arguments, format);
        int length = snprintf(line, sizeof(line), "softefa: ");
        length += vsnprintf(line + length, sizeof(line) - 1 - static_cast<std::size_t>(length), format, arguments);
        va_end(arguments);
        length         = std::min(length, static_cast<int>(sizeof(line)) - 2);
        line[length++] = '\n';
        write_line(line, static_cast<std::size_t>(length));
    }
    errno = saved_errno;
}

} // namespace softefa::preload
