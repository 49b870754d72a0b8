/* See report.h. One write(2) a line, so that lines of several processes do not mix. Where standard error is a pipe that nobody reads, a line is
 * waited for no longer than a second, and lost: the process goes on. */
#include "softefa/preload/report.h"

#include "softefa/settings.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <ctime>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::preload {

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
        pollfd   room{STDERR_FILENO, POLLOUT, 0};
        timespec limit{1, 0};
        if (syscall(SYS_ppoll, &room, 1, &limit, nullptr, 0ul) != 0) { // not the function: that one is a cancellation point
            (void)!syscall(SYS_write, STDERR_FILENO, line, static_cast<std::size_t>(length));
        }
    }
    errno = saved_errno;
}

} // namespace softefa::preload
