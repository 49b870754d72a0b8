/* Copies to and from memory that may have been unmapped under a registration.
 *
 * A NIC keeps registered pages pinned; we cannot. Work that a peer starts (RDMA read and write) must not bring the target process down
 * because the application unmapped memory it had registered, so these copies report the fault instead of raising it.
 */
#pragma once

#include <cstddef>

namespace softefa::dev {

/// False if some of the application's bytes cannot be accessed; how much was copied until then is unspecified.
bool copy_from_application(void *to, const void *application, std::size_t size) noexcept;
bool copy_to_application(void *application, const void *from, std::size_t size) noexcept;

} // namespace softefa::dev
