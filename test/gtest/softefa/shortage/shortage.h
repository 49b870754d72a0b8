/* Calls of libc that fail on purpose, in this test's own program only.
 *
 * The linker sends every call that this program, and the copy of libsoftefa in it, makes of the functions in shortage.cc through a stand-in
 * (--wrap, named in softefa.am). What libc calls by itself is untouched. Armed, the stand-ins count the calls of all threads and fail one of them,
 * or that one and all behind it, as the kernel would: out of memory, of descriptors, of threads or of room.
 */
#pragma once

namespace shortage {

enum class extent { once, from_there };

/// The n-th call from now on fails, n = 1, 2...
void arm(unsigned n, extent how = extent::once);
/// Calls that failed since arm().
unsigned failed();
/// Calls that could have failed since arm().
unsigned seen();
/// Nothing fails any more. Calls that failed since arm().
unsigned lift();
/// Name of the first one that failed since arm(); "" for none.
const char *first();
/// pidfd_open fails as in a kernel or sandbox without it.
void no_pidfds(bool wanted);
/// The monotonic clock of this program is so many seconds ahead of the machine's.
void clock_ahead(unsigned seconds);
/// Called behind each close of a descriptor by a raw system call, on its thread; null: nothing is.
void at_close(void (*then)(int fd));

} // namespace shortage
