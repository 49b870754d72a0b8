/* What an interface tells about itself: one line when it opens, files while it lives, a summary when it closes.
 *
 * Owns: the words of these, and which state is shown. Slow path only; nothing here changes an interface.
 * Refuses to know: UCP's criteria for lane classes (srd_lanes.h), and what is counted (srd_counters.h).
 *
 * Invariants
 *   REP-1: a file of UCX's VFS is read by another thread than the interface's: each shows one aligned word, or text that
 *          never changes; no list or table is walked.
 */
#pragma once

#include "uct/srd/srd_iface.h"

namespace srd {

/// At log level info: the lane classes of UCP that the interface qualifies for, and what the others lack.
void report_opened(iface *f) noexcept;

/// counters/ and state/ below the interface's folder in UCX's VFS.
void report_vfs(iface *f) noexcept;

/// The counters at log level info with UCX_SRD_STATS=y, and the bytes carried for `ucx-srd run --require`.
void report_closed(const iface *f) noexcept;

} // namespace srd
