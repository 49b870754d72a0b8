/* What a device counted.
 *
 * Single writer: the holder of the engine lock. Readers see each value whole, not a consistent set. Every record that reaches a process and is not
 * delivered increments exactly one of the reasons (drop_*), at the receiver; a work request that ends in error increments completion_errors, at
 * the sender (and rnr_exhausted or no_owner, where that is why).
 * One list gives the fields, their names and their meanings: `softefa status`, the sysfs tree and docs/device-abi.md, section 7, show the same.
 */
#pragma once

#include <cstdint>

// clang-format off
#define SOFTEFA_DEVICE_COUNTERS(X) \
    /* traffic */ \
    X(tx_messages,         "sends handed to the fabric, first tries only") \
    X(tx_bytes,            "bytes of these") \
    X(rx_messages,         "sends placed in a receive buffer") \
    X(rx_bytes,            "bytes of these") \
    X(read_ops,            "RDMA reads completed, at the requester") \
    X(read_bytes,          "bytes of these") \
    X(write_ops,           "RDMA writes completed, at the requester") \
    X(write_bytes,         "bytes of these") \
    X(served_read_ops,     "RDMA reads served, at the owner of the memory") \
    X(served_read_bytes,   "bytes of these") \
    X(served_write_ops,    "RDMA writes served, at the owner of the memory") \
    X(served_write_bytes,  "bytes of these") \
    X(tx_packets,          "records written to a ring: one for a send, one for each 32 KiB of RDMA") \
    X(tx_packet_bytes,     "payload bytes of these") \
    X(rx_packets,          "records taken from a ring") \
    X(rx_packet_bytes,     "payload bytes of these") \
    X(completions,         "completion entries written") \
    X(completion_errors,   "of these, with a status other than 0") \
    X(read_errors,         "RDMA reads completed in error") \
    X(write_errors,        "RDMA writes completed in error") \
    X(unresponsive,        "work requests completed with status 13 or 15: the other side did not answer") \
    X(events,              "completion events written") \
    X(async_events,        "asynchronous events written") \
    X(single_copy_bytes,   "bytes of RDMA copied once, straight from the other process, at the side that copied") \
    X(single_copy_unasked, "of these bytes, those of RDMA reads for which the owner of the memory was not asked again, at the requester") \
    X(single_copy_repeats, "RDMA done again through the ring, at the requester: the copy was refused, hit unmapped memory or came late") \
    /* retries */ \
    X(rnr_naks_sent,       "sends that found no receive posted, at the receiver") \
    X(rnr_retries,         "tries after an RNR, at the sender") \
    X(rnr_exhausted,       "sends that ended with status 10, at the sender: no receive was posted at any try") \
    X(no_owner,            "work requests that ended because nobody owns the QPN, or its owner cannot be reached, at the sender") \
    X(reorders,            "pairs swapped on purpose") \
    X(rude_delays,         "work requests delayed on request (SOFTEFA_DELAY)") \
    X(rude_failures,       "work requests made to fail on request (SOFTEFA_FAIL_STATUS)") \
    X(rude_rnrs,           "messages answered with RNR on request (SOFTEFA_RNR_EVERY, SOFTEFA_RNR_FOR)") \
    /* stalls */ \
    X(cq_overflows,        "completions that waited beside a full CQ") \
    X(cq_lost,             "completions thrown away because the CQ overran (SOFTEFA_CQ_OVERRUN=error)") \
    X(cq_stalls,           "looks for room in a CQ, by work that found none") \
    X(ring_stalls,         "looks for room in a ring, by work that found none") \
    /* drops and refusals, one reason each */ \
    X(drop_no_qp,          "nobody owns the QPN in this process") \
    X(drop_qp_state,       "the QP is not ready to receive") \
    X(drop_qkey,           "wrong qkey, or an SRD message for a UD QP or the reverse") \
    X(drop_ud_no_recv,     "datagram, no receive posted, or its CQ is full") \
    X(drop_ud_length,      "datagram, the receive is too short") \
    X(drop_ud_unreachable, "datagram, nobody there") \
    X(drop_recv_length,    "the posted receive is too short") \
    X(drop_recv_lkey,      "the posted receive names memory that is not registered") \
    X(drop_recv_malformed, "the posted receive is malformed") \
    X(drop_rkey,           "RDMA: rkey unknown, of another PD, out of range or without permission") \
    X(drop_no_ah,          "RDMA: the target's PD has no AH for the initiator") \
    X(drop_feature,        "write with immediate, and the two QPs disagree about unsolicited receive") \
    X(drop_fault,          "registered memory that is no longer mapped") \
    X(drop_stale,          "answer to an operation that is gone") \
    X(drop_protocol,       "record that the protocol between two Soft EFA instances does not allow") \
    X(bad_doorbell,        "doorbell value that no correct program writes") \
    /* commands */ \
    X(commands,            "commands of the kernel interface that reached the device") \
    X(command_errors,      "of these, refused") \
    X(context_errors,      "refused GET_CONTEXT") \
    X(pd_errors,           "refused ALLOC_PD") \
    X(mr_errors,           "refused REG_MR") \
    X(ah_errors,           "refused CREATE_AH") \
    X(cq_errors,           "refused CREATE_CQ") \
    X(qp_errors,           "refused CREATE_QP")
// clang-format on

namespace softefa::dev {

struct device_counters {
#define SOFTEFA_FIELD(name, text) std::uint64_t name;
    SOFTEFA_DEVICE_COUNTERS(SOFTEFA_FIELD)
#undef SOFTEFA_FIELD
};

inline constexpr unsigned device_counter_count = sizeof(device_counters) / sizeof(std::uint64_t);

struct counter_text {
    const char *name;
    const char *meaning;
};
/// In the order of the fields.
inline constexpr counter_text device_counter_texts[] = {
#define SOFTEFA_ROW(name, text) {#name, text},
    SOFTEFA_DEVICE_COUNTERS(SOFTEFA_ROW)
#undef SOFTEFA_ROW
};
static_assert(sizeof(device_counter_texts) / sizeof(device_counter_texts[0]) == device_counter_count);

/// Counters of device `index`; zeros for one that was never opened; null beyond the last possible device.
const device_counters *device_counters_get(unsigned index) noexcept;

/// Process-wide: peers that broke the protocol and were cut off, with the last reason (a static string).
struct fabric_counters {
    std::uint64_t peers_connected, peers_gone, peers_failed, peers_unresponsive;
    const char   *last_failure;
};
const fabric_counters *fabric_counters_get() noexcept;

} // namespace softefa::dev
