/* File descriptors: which numbers concern us, and which files they really are.
 *
 * Owns: two bit maps over fd numbers. "handed out": close(2) of such a number deserves a closer look; everything else passes
 * at the cost of one bit test. "private": numbers that only we use; a program that closes every fd it can count to must not
 * close them, because the engine would then write events into whatever file gets the number next.
 */
#pragma once

namespace softefa::uverbs {

struct inode;

constexpr int fd_mark_max = 65536; ///< higher numbers are always looked at

bool fd_is_handed_out(int fd) noexcept;
bool fd_is_private(int fd) noexcept;
void fd_mark_handed_out(int fd) noexcept;
void fd_clear_mark(int fd) noexcept;

/// Device and inode of the open file behind `fd`; false: not open. Not affected by our own fstat.
bool fd_identify(int fd, inode *identity_p) noexcept;

/// Moves `fd` to a private number out of the application's way; the old number is closed. -1 and errno: `fd` is unchanged.
int fd_make_private(int fd) noexcept;
/// The same, but keeps `fd`.
int fd_duplicate_private(int fd) noexcept;
void fd_close_private(int fd) noexcept;

/// In a forked child nothing is ours any more.
void fd_marks_forked() noexcept;

} // namespace softefa::uverbs
