/* Where the processes of one domain find each other.
 *
 * Owns: the private registry folder. Knows no connection and no QP.
 */
#pragma once

#include <cstdint>

namespace softefa::fabric {

/// A number that is the same for all processes that can meet in this folder and domain, and differs for all others. Makes the folder
/// (0700) if it is not there.
std::uint64_t domain_identity(const char *folder, const char *domain) noexcept;

} // namespace softefa::fabric
