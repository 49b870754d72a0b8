/* File descriptors that only we use, in a process that is not ours.
 *
 * Owns: a bit map over descriptor numbers, and which file was behind each: a program can close numbers by raw system calls and open others
 * there. A program that closes every descriptor it can count to must not close these: the engine would then write events and wake-ups into
 * whatever file gets the number next, and one close of the QPN table drops the locks that own the process's QPNs. preload's close() and
 * close_range() leave marked numbers alone.
 * Refuses to know: what a descriptor is for.
 */
#pragma once

namespace softefa::fabric {

constexpr int fd_mark_max = 65536; ///< higher numbers cannot be marked

/// Marked, and the file that was marked is still behind it (of eventfds and their like: some such file).
bool fd_is_private(int fd) noexcept;
/// False: the number was marked, and something else is behind it now. True also where nothing was marked, or the number is too high to be.
bool fd_may_be_ours(int fd) noexcept;
/// The lowest private number in [first, last], or -1.
int fd_next_private(int first, int last) noexcept;

/// Marks `fd` where it is; -1 passes through.
int fd_mark_private(int fd) noexcept;
/// Moves `fd` to a private number out of the application's way; the old number is closed. -1 and errno: `fd` is unchanged.
int fd_make_private(int fd) noexcept;
/// The same, but keeps `fd`.
int fd_duplicate_private(int fd) noexcept;
/// Moves `fd` if that is possible and marks it where it is otherwise; -1 passes through, errno preserved.
int fd_settle_private(int fd) noexcept;
/// Raw close, errno preserved; the number is the application's again. -1 is nothing; a number that is the application's already stays open.
void fd_close_private(int fd) noexcept;
/// The same for a field that a fork handler looks at: -1 before the number is given back, so that nobody closes it twice.
void fd_drop_private(int &fd) noexcept;

/// So many more could be opened now (at most 64 are tried, and given back). True as well where something else than their number is in the way.
bool fds_left(unsigned count) noexcept;

/// The number is somebody else's already: it was closed behind our back.
void fd_forget_private(int fd) noexcept;
/// Anything is marked, by this process: a vfork child shares the marks but not the descriptors.
bool fds_private_here() noexcept;

/// In a forked child nothing is private any more; what was inherited can still be closed as above.
void private_fds_forked() noexcept;

} // namespace softefa::fabric
