/* What dev asks of the thing that connects processes: start and stop, and where to reach a destination.
 *
 * Owns: the seam between the engine and a fabric's control plane. The data plane is the channel (fabric/channel.h).
 */
#pragma once

#include "softefa/dev/device.h"

namespace softefa::dev {

/// First context: identity, self channel. Control lock held.
status fabric_start() noexcept;
/// Last context gone: leaves every peer, joins the helper thread, gives everything back. Control lock held, engine lock not held.
/// False: the process is ending, and everything stays as it is.
[[nodiscard]] bool fabric_stop() noexcept;
/// Between start and the end of stop.
bool fabric_up() noexcept;
/// In the handler of a fork, child side; and in a child that opens a device of its own (helper.h). Control lock held in the latter.
void fabric_forked() noexcept;
void fabric_revive() noexcept;
/// A QP can communicate from now on: others must be able to find us. Control lock held.
status fabric_publish() noexcept;

/// A QPN for a new QP whose low bits are free in `low_used` (bits of `low_mask + 1` values), owned until given back. Control lock held.
result<std::uint16_t> fabric_claim_qpn(unsigned device, std::uint16_t low_mask, const std::uint64_t *low_used) noexcept;
void fabric_release_qpn(unsigned device, std::uint16_t qpn) noexcept;

/// Parked work waits for its destination. Engine lock held; at most one system call.
void fabric_kick() noexcept;
/// Somebody will block on a completion channel: rings must be served without the application's polls.
void fabric_waiter() noexcept;

} // namespace softefa::dev
