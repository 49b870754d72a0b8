/* See report.h. One write(2) a line, so that lines of several processes do not mix. */
#include "softefa/preload/report.h"

#include "softefa/settings.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
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
        (void)!write(STDERR_FILENO, line, static_cast<std::size_t>(length));
    }
    errno = saved_errno;
}

} // namespace softefa::preload
