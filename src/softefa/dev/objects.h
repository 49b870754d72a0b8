/* The objects of the device: plain structs, their links to each other, and who may touch what.
 *
 * Owns: layout. Every object is created and destroyed under the control lock; the fields that the engine uses change only under the engine lock.
 * Lock order: control, then engine. The engine lock is never held across an allocation, a mapping or a blocking call.
 */
#pragma once

#include "softefa/dev/device.h"
#include "softefa/dev/handle_table.h"
#include "softefa/dev/limits.h"
#include "softefa/dev/region_allocator.h"
#include "softefa/wire/pdu.h"

#include <atomic>

namespace softefa::dev {

struct qp;
struct link;

inline constexpr std::uint16_t ah_unknown     = 0xffff;
inline constexpr std::uint8_t  device_unknown = 0xff;

/// One address handle number of a context: shared by all handles of one (PD, GID) (DEV-3).
struct ah_entry {
    handle       pd     = 0; ///< 0: the number is free
    gid          to     = {};
    unsigned     users  = 0;
    std::uint8_t device = device_unknown; ///< index of the destination in this domain
};

struct context {
    handle           self   = 0;
    unsigned         device = 0;
    region_allocator regions;
    ah_entry        *ahs      = nullptr; ///< ah_room entries
    unsigned         ah_room  = 0;       ///< the limit max_ah
    unsigned         ah_next  = 0;       ///< where the search for a free number starts
    std::uint64_t   *low_used = nullptr; ///< bitmap over the low bits of QPNs in use (DEV-2)
    unsigned         pd_count = 0, cq_count = 0, qp_count = 0, mr_count = 0, ah_count = 0;
    std::uint64_t    pdn_used[limits::pds / 64] = {};
    int              async_fd = -1; ///< where asynchronous events go; not owned

    explicit context(int memfd = -1) noexcept : regions(memfd) {}
};

struct pd {
    handle        self  = 0;
    context      *owner = nullptr;
    std::uint16_t pdn   = 0;
    unsigned      users = 0;
    std::uint16_t ah_by_device[limits::devices]; ///< reverse lookup, ah_unknown where there is none
};

struct mr {
    handle        self = 0;
    pd           *domain = nullptr;
    std::uint64_t start = 0, length = 0, iova = 0;
    std::uint32_t access = 0; ///< IBV_ACCESS_*
    std::uint32_t rkey   = 0; ///< lkey is its low 24 bits
    bool          shown  = false; ///< a peer was given a window on it (single_copy.h); engine lock
};

struct ah {
    handle        self   = 0;
    pd           *domain = nullptr;
    std::uint16_t number = 0;
};

struct cqe_bytes {
    std::uint64_t words[4]; ///< word 0 carries the flags byte and is stored last
};

struct cq {
    // hot: writing an entry
    std::uint8_t              *ring       = nullptr;
    std::uint32_t              entry_size = 32;
    std::uint32_t              entries    = 0;       ///< power of two
    std::uint64_t              produced   = 0;       ///< entries ever written to the ring; engine_written() reads it without the lock
    std::uint64_t              believed   = 0;       ///< entries the application is known to have consumed
    std::atomic<std::uint64_t> consumed   = 0;       ///< told by engine_consumed(), any thread
    std::atomic<std::uint64_t> emptied    = 0;       ///< an empty poll showed that so much was consumed; told by engine_emptied(), any thread
    std::atomic<bool>          behind     = false;   ///< `consumed` may miss entries (CQ-5); set and cleared under the engine lock
    std::atomic<bool>          arm_wanted = false;   ///< ENG-4: somebody found the lock taken
    std::atomic<std::uint32_t> *doorbell  = nullptr; ///< consumer index by the provider; only with a channel
    std::uint32_t              reserved   = 0;       ///< entries owed to work in progress
    std::uint32_t              overflow_head = 0, overflow_count = 0, overflow_room = 0;
    cqe_bytes                 *overflow   = nullptr; ///< circular, overflow_room entries
    bool                       armed = false, event_owed = false, with_sgid = false;
    bool                       failed = false; ///< overran, and SOFTEFA_CQ_OVERRUN says that this is an error
    bool                       direct = false; ///< read without verbs calls (direct.cc): nobody tells what was consumed
    // slow
    int                        event_fd = -1;
    std::uint64_t              user_handle = 0;
    std::uint32_t              events = 0; ///< records written to event_fd
    std::uint32_t              async_events = 0; ///< records written to the context's async_fd
    handle                     self = 0;
    context                   *owner = nullptr;
    unsigned                   users = 0; ///< QPs, once per queue; changes under both locks
    static constexpr std::uint8_t never_fired = 0xff;
    std::uint8_t               fired_sequence = never_fired; ///< only if `direct`: in the doorbell at the last event
    std::uint32_t              doorbell_seen = 0; ///< only if `direct`: value that was acted upon last
    cq                        *direct_next = nullptr; ///< engine.direct_cqs
    std::uint32_t              overflow_wanted = 0; ///< WQEs of the queues that complete here; overflow_room never shrinks below it
    std::uint16_t              index = 0;
    mapped_region              ring_region, doorbell_region;
};

struct sge {
    std::uint32_t length, lkey;
    std::uint64_t address;
};

enum class op_kind : std::uint8_t { send, read, write };
enum class op_state : std::uint8_t {
    free,      ///< on the QP's free list
    parked,    ///< waits for its destination to be found (engine.parked)
    queued,    ///< waits for room towards its peer (a list of its link)
    in_flight, ///< the peer has it; ends by an acknowledgement, read data, or the peer's end
    rnr_wait,  ///< the peer had no receive; waits for its deadline (engine.rnr), and ends with the peer
    granted,   ///< a read that the engine copies by itself (a list of its link)
    held,      ///< not sent: delayed on request or on the modelled wire (engine.held)
    landed,    ///< answered with success: the completion is on the modelled way back (engine.held)
};

/// One work request between its fetch and its completion, decoded once (the ring slot may be reused meanwhile).
struct op {
    op           *next = nullptr, *prev = nullptr;
    struct op_list *list = nullptr; ///< where it is linked, if anywhere
    qp           *owner = nullptr;
    link         *to    = nullptr;
    op_state      state = op_state::free;
    op_kind       kind  = op_kind::send;
    std::uint8_t  flags = 0; ///< wire::pdu_flags
    std::uint8_t  device = 0;
    std::uint8_t  sge_count = 0;
    bool          is_inline = false;
    std::uint8_t  rnr_count = 0;
    bool          looked_up_twice = false;
    bool          by_ring = false; ///< could not be copied by address: through the ring, and with copies that report faults
    bool          lent    = false; ///< the peer may copy from our memory by address (write)
    bool          unasked = false; ///< granted by a grant that was kept (read)
    bool          must_ask = false; ///< a kept grant was of no use to it
    std::uint16_t dst_qpn = 0, ah_number = 0;
    std::uint16_t req_id = 0, req_id_middle = 0; ///< a wide id has 64 bits: 16, 16 and 32
    std::uint32_t req_id_high = 0;
    std::uint32_t generation = 0, slot = 0;
    std::uint32_t qkey = 0, imm = 0, rkey = 0, total = 0; ///< total: payload bytes of the operation
    std::uint64_t remote_address = 0;
    std::uint64_t progress = 0;   ///< bytes sent (write) or landed (read)
    std::uint64_t deadline_ns = 0;
    std::uint64_t sent_to = 0;    ///< end of its last record in the ring towards its peer
    union {
        std::uint64_t source_address = 0; ///< of the grant; only if granted
        std::uint64_t in_vain_since;      ///< only if parked: when its destination was first found not to be reached; 0: it waits
    };
    std::uint64_t source_epoch = 0; ///< of the grant; only if granted
    std::uint32_t source_slot = 0; ///< of the grant, or of what is lent
    std::uint32_t next_free = 0;
    union {
        sge          sges[2];
        std::uint8_t inline_bytes[limits::inline_max];
    };
    op() noexcept : sges{} {}
};

/// Intrusive FIFO of ops.
struct op_list {
    op *head = nullptr, *tail = nullptr;

    bool empty() const noexcept { return head == nullptr; }
    void push(op &o) noexcept
    {
        o.list = this;
        o.next = nullptr;
        o.prev = tail;
        (tail != nullptr ? tail->next : head) = &o;
        tail = &o;
    }
    void remove(op &o) noexcept
    {
        (o.prev != nullptr ? o.prev->next : head) = o.next;
        (o.next != nullptr ? o.next->prev : tail) = o.prev;
        o.next = o.prev = nullptr;
        o.list = nullptr;
    }
    /// Behind `before`; in front of all where that is null.
    void insert_behind(op *before, op &o) noexcept
    {
        o.list = this;
        o.prev = before;
        o.next = before != nullptr ? before->next : head;
        (before != nullptr ? before->next : head) = &o;
        (o.next != nullptr ? o.next->prev : tail) = &o;
    }
    op *pop() noexcept
    {
        op *o = head;
        if (o != nullptr)
            remove(*o);
        return o;
    }
};

struct qp {
    // hot
    std::uint8_t                send_flags = 0; ///< wire::pdu_flags of whatever it sends
    bool                        receives_plainly = false; ///< SRD with a receive queue, and no trouble asked for: serve_plainly() may be tried
    qp_state                    state = qp_state::reset;
    qp_type                     type  = qp_type::srd;
    std::uint8_t                device = 0, rnr_retry = 7;
    bool                        unsolicited = false;
    std::uint16_t               qpn = 0, slot = 0, sq_consumed = 0, rq_consumed = 0;
    std::uint32_t               qkey = 0, wqe_size = 64, sq_entries = 0, rq_entries = 0, max_recv_sge = 0, max_send_sge = 0,
                                inline_size = 0, send_max = 0; ///< bytes of an inline message; of any message
    std::uint8_t               *sq_ring = nullptr, *rq_ring = nullptr;
    std::atomic<std::uint32_t> *sq_doorbell = nullptr, *rq_doorbell = nullptr;
    op                         *ops = nullptr; ///< sq_entries of them
    std::uint32_t               free_op = 0, free_ops = 0;
    std::uint64_t               first_message_ns = 0; ///< only where RNR is made up; 0: none came yet
    cq                         *send_cq = nullptr, *recv_cq = nullptr;
    pd                         *domain = nullptr;
    context                    *owner = nullptr;
    // slow
    handle                      self = 0;
    bool                        direct = false; ///< posted to without verbs calls (direct.cc)
    bool                        shown  = false; ///< a peer keeps a grant that names it (kept.h); engine lock
    std::uint32_t               sq_seen = 0, rq_seen = 0; ///< only if `direct`: doorbells that were acted upon last
    qp                         *direct_next = nullptr; ///< engine.direct_qps
    qp_attr                     attr;
    qp_request                  caps;
    mapped_region               sq_region, sq_db_region, rq_region, rq_db_region;
};

using context_table = handle_table<context, object_kind::context, limits::contexts>;
using pd_table      = handle_table<pd, object_kind::pd, limits::pds>;
using mr_table      = handle_table<mr, object_kind::mr, limits::mrs, 1024>;
using ah_table      = handle_table<ah, object_kind::ah, 65536 * 4, 1024>;
using cq_table      = handle_table<cq, object_kind::cq, limits::cqs>;
using qp_table      = handle_table<qp, object_kind::qp, limits::qps>;

/// Everything that this process has of the device.
struct process_objects {
    context_table contexts;
    pd_table      pds;
    mr_table      mrs;
    ah_table      ahs;
    cq_table      cqs;
    qp_table      qps;
};
extern process_objects process_tables; ///< in process.cc; named by objects() alone
inline process_objects &objects() noexcept { return process_tables; }

/// Holds the control lock for a scope. `dead()` after a fork: nothing may be done.
class control_guard {
public:
    control_guard() noexcept;
    ~control_guard();
    control_guard(const control_guard &)            = delete;
    control_guard &operator=(const control_guard &) = delete;
    bool dead() const noexcept;
};

/// The same for who must not wait without end. False: not taken within that time.
bool control_try_lock(unsigned milliseconds) noexcept;
void control_unlock() noexcept;

const device_limits &device_limits_get() noexcept;
/// Index of the device that has this GID, device_unknown if nobody in this domain has.
std::uint8_t device_by_gid(const gid &g) noexcept;

// destroy without looking at users; control lock held
void qp_release(qp &q) noexcept;
void cq_release(cq &c) noexcept;
void mr_release(mr &m) noexcept;
void ah_release_all(context &c) noexcept;

} // namespace softefa::dev
