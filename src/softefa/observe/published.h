/* What a process publishes about itself, for `softefa status` and `softefa dump`.
 *
 * Owns: the layout of one sealed memfd that the process alone writes and anybody of the same user may read, through a symbolic link
 * <instance>.<pid namespace>.proc -> /proc/<pid>/fd/<n> in the domain's folder. Nothing is asked of the process: it need not run, answer or be
 * well to be looked at, and when it dies the memory goes with it.
 * Rejected: a file in the folder. A full disk or a truncation would raise SIGBUS in the host process, and writing pages back would stall its
 * data path.
 *
 * Counters and the recorder are live: single stores by the holder of the engine lock. The tables of QPs and peers are brought up to date when
 * something is created, changed or destroyed, and once a second while there is traffic; `sequence` is odd meanwhile.
 *
 *   PUB-1  a reader takes a copy first and believes nothing in it: numbers are bounded by this layout, texts end within their fields.
 *   PUB-2  all fields are plain numbers and texts: no address of the process means anything.
 */
#pragma once

#include "softefa/dev/counters.h"
#include "softefa/dev/limits.h"
#include "softefa/observe/names.h"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace softefa::observe {

inline constexpr std::uint32_t magic            = 0x42555053; ///< "SPUB"
inline constexpr std::uint32_t version          = 3;
inline constexpr unsigned      record_count_max = 65536;
inline constexpr char          memfd_name[]     = "softefa-published";

// clang-format off
#define SOFTEFA_RECORDS(X) \
    X(none,            "-") \
    /* always recorded */ \
    X(context_open,    "context opened") \
    X(context_close,   "context closed") \
    X(cq_create,       "CQ created") \
    X(cq_destroy,      "CQ destroyed") \
    X(qp_create,       "QP created") \
    X(qp_state,        "QP state") \
    X(qp_destroy,      "QP destroyed") \
    X(command_refused, "command refused") \
    X(work_error,      "work completed in error") \
    X(bad_doorbell,    "bad doorbell") \
    X(cq_overrun,      "CQ overrun") \
    X(async_event,     "async event") \
    X(peer_up,         "peer connected") \
    X(peer_gone,       "peer gone") \
    X(peer_failed,     "peer broke the protocol") \
    X(single_copy,     "single copy from a peer") \
    X(no_owner,        "nobody owns the destination") \
    /* recorded with SOFTEFA_RECORD=data */ \
    X(doorbell,        "send doorbell") \
    X(pdu_out,         "record out") \
    X(pdu_in,          "record in") \
    X(ack_out,         "answer out") \
    X(ack_in,          "answer in") \
    X(cqe,             "completion")
// clang-format on

enum class record_kind : std::uint16_t {
#define SOFTEFA_KIND(name, text) name,
    SOFTEFA_RECORDS(SOFTEFA_KIND)
#undef SOFTEFA_KIND
    count_
};

/// One entry of the recorder. What a and b mean depends on the kind: dev/record.h.
struct record {
    std::uint64_t time_ns;  ///< CLOCK_MONOTONIC
    std::uint16_t kind;     ///< record_kind
    std::uint16_t qpn;      ///< of this process; 0 = none
    std::uint16_t peer_qpn; ///< 0 = none
    std::uint8_t  device;
    std::uint8_t  status;   ///< completion status or QP state
    std::uint64_t a, b;
};
static_assert(sizeof(record) == 32);

struct qp_row {
    std::uint16_t qpn;
    std::uint8_t  live;   ///< 0: the row is free
    std::uint8_t  device;
    std::uint8_t  type;   ///< dev::qp_type
    std::uint8_t  state;  ///< dev::qp_state
    std::uint16_t reserved;
    std::uint32_t send_size, send_used; ///< work requests; used: taken from the ring and not completed
    std::uint32_t recv_size, recv_used; ///< descriptors; used: posted and not consumed
};
static_assert(sizeof(qp_row) == 24);

struct link_row {
    std::uint64_t instance; ///< of the peer; 0: the row is free
    std::uint8_t  failed, is_self;
    std::uint16_t reads_out;    ///< read requests that the peer has not answered
    std::uint16_t reads_served; ///< read requests of the peer that wait here
    std::uint16_t waiting;      ///< work that waits for room towards the peer; 65535: that many or more
};
static_assert(sizeof(link_row) == 16);

struct published {
    std::uint32_t magic, version, size; ///< bytes of the whole layout
    std::uint32_t device_count;
    std::uint64_t instance;
    std::int32_t  pid;
    std::uint32_t record_mode;   ///< settings.record_mode
    std::uint32_t record_count;  ///< entries of the recorder; a power of two; 0 = off
    std::uint32_t contexts;      ///< open now
    std::uint64_t start_real_ns, start_mono_ns; ///< when it was published, in both clocks
    char          program[64];
    char          domain[40];
    char          profile[8];
    char          last_failure[64]; ///< why the last peer was cut off
    alignas(64) std::atomic<std::uint64_t> sequence; ///< odd: the tables below are being written
    std::uint64_t snapshot_mono_ns;
    std::uint64_t peers_connected, peers_gone, peers_failed;
    std::uint32_t parked; ///< work whose destination is being looked up
    std::uint32_t helper_asleep;
    alignas(64) std::atomic<std::uint64_t> record_head; ///< entries ever written
    alignas(4096) dev::device_counters counters[dev::limits::devices];
    alignas(4096) qp_row qps[dev::limits::qps];
    alignas(4096) link_row links[dev::limits::links];
    alignas(4096) record records[record_count_max]; ///< a file is only as long as record_count needs
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

constexpr std::size_t published_size(unsigned record_count) noexcept
{
    return offsetof(published, records) + ((record_count * sizeof(record) + 4095) & ~std::size_t{4095});
}

} // namespace softefa::observe
