/* File descriptors: which numbers concern us, and which files they really are.
 *
 * Owns: a bit map over fd numbers. "handed out": close(2) of such a number deserves a closer look; everything else passes
 * at the cost of one bit test. Numbers that only we use are marked in fabric/private_fd.h.
 */
#pragma once

#include <cstdint>

#include "softefa/fabric/private_fd.h"

namespace softefa::uverbs {

struct inode;

using fabric::fd_close_private;
using fabric::fd_duplicate_private;
using fabric::fd_is_private;
using fabric::fd_make_private;
using fabric::fd_mark_max; // higher numbers are always looked at

bool fd_is_handed_out(int fd) noexcept;
/// The lowest such number in [first, last], or -1.
int fd_next_handed_out(int first, int last) noexcept;
void fd_mark_handed_out(int fd) noexcept;
void fd_clear_mark(int fd) noexcept;

/// Device and inode of the open file behind `fd`; false: not open. Not affected by our own fstat.
bool fd_identify(int fd, inode *identity_p) noexcept;
/// The same from st_dev and st_ino of an fstat.
inode inode_shown(std::uint64_t st_dev, std::uint64_t st_ino) noexcept;

/// In a forked child nothing is ours any more.
void fd_marks_forked() noexcept;

} // namespace softefa::uverbs
