/* What an interface counts. Every message that arrives increments exactly one of the rx_* reasons. */
#pragma once

#include "base/counters.h"

namespace srd {

enum class counter : unsigned {
    tx_am,                 ///< active messages posted
    tx_bytes,              ///< their payload
    tx_control,            ///< control messages posted
    tx_no_resource,        ///< posts refused because something was used up
    tx_rnr,                ///< sends that found no receive buffer
    tx_repost,             ///< sends posted again
    tx_failed,             ///< sends that ended in an error other than that
    tx_put,                ///< one-sided writes posted
    tx_get,                ///< one-sided reads posted
    rma_bytes,             ///< of both
    rma_unknown,           ///< of both: refused because the target had forgotten us, and posted again
    rx_am,                 ///< active messages delivered
    rx_bytes,              ///< their payload
    rx_control,            ///< control messages taken
    rx_early,              ///< of those delivered: had to wait for an earlier one
    rx_copied,             ///< of those: copied to keep the receive queue full
    rx_dropped_short,      ///< shorter than their header
    rx_dropped_flags,      ///< unknown flags
    rx_dropped_version,    ///< no common version
    rx_dropped_foreign,    ///< source and claimed identity differ
    rx_dropped_stale,      ///< of a former life
    rx_dropped_duplicate,  ///< seen before
    rx_dropped_window,     ///< beyond the window: the peer is failed
    rx_dropped_uncredited, ///< beyond the credits that were granted: the peer is failed
    rx_dropped_credit,     ///< impossible credits: the peer is failed
    rx_dropped_control,    ///< unknown or malformed control message
    rx_dropped_no_peer,    ///< no room for another peer
    rx_dropped_closing,    ///< arrived while the interface closes
    rx_dropped_failed,     ///< waited for an earlier one, or should have, when the peer failed or the interface closed
    rx_error,              ///< receives that completed in error
    peers_created,
    peers_failed,
    peers_released,
    ah_failed,             ///< address handles that could not be created
    event_armed,           ///< times the program could go to sleep
    event_busy,            ///< times it could not, because something was left to do
    event_timer,           ///< timers set for that sleep
    count_
};

/// Name of a counter in VFS and in the summary; in the order of the enum.
inline constexpr const char *counter_names[] = {
    "tx_am", "tx_bytes", "tx_control", "tx_no_resource", "tx_rnr", "tx_repost", "tx_failed",
    "tx_put", "tx_get", "rma_bytes", "rma_unknown", "rx_am", "rx_bytes",
    "rx_control", "rx_early", "rx_copied", "rx_dropped_short", "rx_dropped_flags", "rx_dropped_version",
    "rx_dropped_foreign", "rx_dropped_stale", "rx_dropped_duplicate", "rx_dropped_window", "rx_dropped_uncredited",
    "rx_dropped_credit",
    "rx_dropped_control", "rx_dropped_no_peer", "rx_dropped_closing", "rx_dropped_failed", "rx_error", "peers_created", "peers_failed",
    "peers_released", "ah_failed", "event_armed", "event_busy", "event_timer",
};
static_assert(sizeof(counter_names) / sizeof(counter_names[0]) == static_cast<unsigned>(counter::count_));

} // namespace srd
