/* The one entry of libsoftefa.so that is not an interposed function: tools ask whether the SOFTEFA_* variables are in order.
 *
 * In a file of the library itself, not of the archive that unit tests link: symbols of archives are hidden at link time.
 */
#include "softefa/settings.h"

extern "C" int softefa_settings_check(const char **error_p) noexcept
{
    return softefa::settings_get(error_p) != nullptr ? 0 : 2;
}
