/* Publishing what this process does: counters, queue pairs, peers and the recorder, where `softefa status` reads them.
 *
 * Owns: the sealed memfd of observe/published.h and its link in the domain's folder, and handing counters to whoever shows them elsewhere (the
 * sysfs tree). A process that cannot publish (no folder, no descriptor, RLIMIT_FSIZE) counts in private memory and works like any other.
 *
 *   PUB-3  single writer: counters, tables and records are written under the engine lock only.
 */
#pragma once

#include "base/clock.h"
#include "softefa/dev/engine_state.h"

namespace softefa::dev {

/// First context of the process, and last one gone. Control lock held, engine lock not held.
void publish_open(std::uint64_t instance) noexcept;
void publish_close() noexcept;
/// What is left to count or to tell, and the name; all else goes on until the process ends.
void publish_withdraw() noexcept;
/// In the handler of a fork, child side: the parent's memory is not written any more.
void publish_forked() noexcept;

/// One row. Engine lock held.
void publish_qp(const qp &q) noexcept;
void publish_qp_gone(const qp &q) noexcept;
void publish_contexts(unsigned count) noexcept;

/// Helper thread, whenever it was awake: brings tables and sinks up to date, at most once a second. Returns when it wants to be called again;
/// ~0: when something has happened.
base::time_ns publish_tick() noexcept;

/// Something happened that its user should hear of; `what` is a static string. The helper thread (publish_tick) then writes what the process
/// publishes to a file beside its link, once in the life of a process, and tells whoever asked. Engine lock held.
void publish_failure(const char *what) noexcept;
/// The same without a file: nothing failed here, and the one file stays for what does.
void publish_notice(const char *what) noexcept;
/// `path`: of the file, "" if there is none. Called on the helper thread, or by the thread that closes the last context.
using failure_teller = void (*)(const char *what, const char *path) noexcept;
void publish_failures_to(failure_teller teller) noexcept;

/// Shows the counters of one device elsewhere; called without locks, never by two threads at once. False: not now, but soon.
using counters_sink = bool (*)(unsigned device, const device_counters &now) noexcept;
void publish_to(counters_sink sink) noexcept;

} // namespace softefa::dev
