/* What Soft EFA has to say to the user: one line to standard error, at most as chatty as SOFTEFA_LOG_LEVEL. */
#pragma once

#include <cstdint>

namespace softefa::preload {

enum class severity : std::uint8_t { error = 1, warning = 2, notice = 3, debug = 4 };

/// "softefa: " and the formatted text; errno is preserved. Errors are shown even if the settings cannot be read.
__attribute__((format(printf, 2, 3))) void report(severity level, const char *format, ...) noexcept;

} // namespace softefa::preload
