/* Stands in for the environment parser where a build has none: the defaults. */
#include "softefa/settings.h"

namespace softefa {

__attribute__((weak)) const settings *settings_get(const char **error_p) noexcept
{
    static const settings defaults;
    if (error_p != nullptr)
        *error_p = nullptr;
    return &defaults;
}

} // namespace softefa
