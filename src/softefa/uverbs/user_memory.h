/* Copies from and to memory that an application named in a command.
 *
 * Owns: reading and writing such memory so that a wild pointer is an error of the command (EFAULT, as from the kernel) and
 * never a signal in the host process. Slow path: one system call for each copy.
 */
#pragma once

#include <cstddef>
#include <cstdint>

namespace softefa::uverbs {

/// False: some of [address, address + size) is not readable; *destination is then undefined.
bool copy_from_user(void *destination, std::uint64_t address, std::size_t size) noexcept;

/// False: some of [address, address + size) is not writable; a part may have been written.
bool copy_to_user(std::uint64_t address, const void *source, std::size_t size) noexcept;

} // namespace softefa::uverbs
