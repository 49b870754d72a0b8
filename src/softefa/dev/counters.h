/* What a device counted.
 *
 * Single writer: the holder of the engine lock. Readers see each value whole, not a consistent set. Every work request or record that is not
 * delivered increments exactly one of the reasons.
 */
#pragma once

#include <cstdint>

namespace softefa::dev {

struct device_counters {
    // traffic
    std::uint64_t tx_messages, tx_bytes; ///< SENDs handed to the fabric, first tries only
    std::uint64_t rx_messages, rx_bytes; ///< SENDs placed in a receive buffer
    std::uint64_t read_ops, read_bytes;  ///< requester: RDMA reads completed
    std::uint64_t write_ops, write_bytes; ///< requester: RDMA writes completed
    std::uint64_t served_read_ops, served_read_bytes; ///< responder
    std::uint64_t served_write_ops, served_write_bytes;
    std::uint64_t completions;        ///< CQEs written
    std::uint64_t completion_errors;  ///< of these, with a status other than 0
    std::uint64_t events;             ///< completion events written
    // retries
    std::uint64_t rnr_naks_sent;      ///< responder: nothing posted
    std::uint64_t rnr_retries;        ///< requester: tries after an RNR
    std::uint64_t reorders;           ///< pairs swapped on purpose
    std::uint64_t rude_delays, rude_failures, rude_rnrs; ///< made up on request (rude.h)
    // stalls
    std::uint64_t cq_overflows;       ///< CQEs that had to wait beside a full CQ
    std::uint64_t cq_stalls;          ///< work that waited for room in a CQ
    std::uint64_t ring_stalls;        ///< work that waited for room in a ring
    // drops and refusals, one reason each
    std::uint64_t drop_no_qp;
    std::uint64_t drop_qp_state;
    std::uint64_t drop_qkey;
    std::uint64_t drop_ud_no_recv;
    std::uint64_t drop_ud_length;
    std::uint64_t drop_ud_unreachable;
    std::uint64_t drop_recv_length;
    std::uint64_t drop_recv_lkey;
    std::uint64_t drop_recv_malformed;
    std::uint64_t drop_rkey;
    std::uint64_t drop_no_ah;
    std::uint64_t drop_feature;
    std::uint64_t drop_fault;         ///< registered memory that is no longer mapped
    std::uint64_t drop_stale;         ///< answer to an operation that is gone
    std::uint64_t drop_protocol;      ///< record that the protocol does not allow
    std::uint64_t bad_doorbell;       ///< doorbell value that no correct program writes
};

/// Counters of device `index`; zeros for one that was never opened; null beyond the last possible device.
const device_counters *device_counters_get(unsigned index) noexcept;

/// Process-wide: peers that broke the protocol and were cut off, with the last reason (a static string).
struct fabric_counters {
    std::uint64_t peers_connected, peers_gone, peers_failed, peers_unresponsive;
    const char   *last_failure;
};
const fabric_counters *fabric_counters_get() noexcept;

} // namespace softefa::dev
