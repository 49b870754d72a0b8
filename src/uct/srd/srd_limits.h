/* Every bound of the transport, in one place.
 *
 * A bound that two interfaces must agree on is part of the protocol (docs/transport-protocol.md, section 9) and may change
 * only with its version; the others are local.
 */
#pragma once

#include <cstddef>
#include <cstdint>

namespace srd::limits {

// --- agreed between peers ------------------------------------------------------------------------------------------------
/// Largest span of psns between the oldest unacknowledged and the next one. Also the size of a reorder ring.
/// 256 keeps 8-byte messages at 5 M/s busy over 50 us and 8.8 KiB messages over 200 Gb/s x 90 us.
inline constexpr std::uint32_t window_size = 256;
static_assert(2 * window_size <= 1u << 16, "a 16-bit psn must tell new from old");
static_assert((window_size & (window_size - 1)) == 0);

/// Psns that may be sent before the first grant arrives. Nobody has counted them: 64 senders that all begin at once must fit
/// into a receive queue of 128.
inline constexpr std::uint32_t initial_grant = 2;

/// Bits of the receiver-assigned index: slot below, generation above.
inline constexpr unsigned slot_bits       = 20;
inline constexpr unsigned generation_bits = 32 - slot_bits;

// --- local ---------------------------------------------------------------------------------------------------------------
/// Smallest grant: a peer that is one of very many may still keep this many messages in flight.
inline constexpr std::uint32_t min_grant = 4;

/// Grant of each sender while the receive queue can grow for it: fewer make a credit message for every other message.
inline constexpr std::uint32_t good_grant = 8;

/// A sender that uses its grants is granted so many times as much the next time, up to its share.
inline constexpr std::uint32_t grant_growth = 4;

/// How long a sender counts as active after a grant, at least; twice that at most. Longer than many busy processes on few
/// processors wait for their turn: one that is not counted comes back with what it was granted.
inline constexpr std::uint64_t activity_period_ns = 200'000'000;

/// Part of the receive queue that is not granted, besides one receive for each active sender: new senders come uncounted.
inline constexpr std::uint32_t reserve_divisor = 8;

/// Sends that are tried again at once when one that was refused got through.
inline constexpr unsigned reposts_per_turn = 8;

/// Work completions taken from the completion queue in one call.
inline constexpr unsigned poll_batch = 32;

/// Receives posted with one call.
inline constexpr unsigned refill_batch = 16;

/// Send queue slots and buffers that only control messages use: two senders with full queues still grant each other credits.
inline constexpr unsigned control_slots = 16;

/// Bytes of a control message, header included.
inline constexpr std::size_t control_size_max = 64;

/// Address handles created in one progress turn; each one is an admin command of the device.
inline constexpr unsigned ah_creations_per_turn = 4;

/// Peers whose debts are paid, and pending requests that are called, in one progress turn.
inline constexpr unsigned control_per_turn = 16;
inline constexpr unsigned pending_per_turn = 64;

/// Progress calls between two looks at the clock, with no timer armed and with one armed.
inline constexpr std::uint32_t idle_tick  = 4096;
inline constexpr std::uint32_t armed_tick = 64;

/// A sender that has used up its credits and has nothing outstanding asks this often whether the receiver still exists.
inline constexpr std::uint64_t stall_probe_ns = 100'000'000;

/// NAKs "no address handle", one each hello interval of the peer (100 ms), after which we give it up.
inline constexpr unsigned refusals_max = 50;

/// A failed peer is remembered longer than this, whole seconds.
inline constexpr unsigned failed_rest_s = 3;

/// A released slot keeps its index this long before another peer may get it.
inline constexpr std::uint64_t slot_quiet_ns = 1'000'000'000;

/// Peers whose memory is made at once (whole pages), and receive buffers registered at once.
inline constexpr std::uint32_t peers_per_chunk  = 512;
inline constexpr std::uint32_t slows_per_chunk  = 64;
inline constexpr std::uint32_t bufs_per_chunk   = 64;
inline constexpr std::uint32_t ops_per_chunk    = 128;
inline constexpr std::size_t eps_per_chunk      = 126; // with the chunk's link, a page
inline constexpr std::size_t ep_slows_per_chunk = 56;

} // namespace srd::limits
