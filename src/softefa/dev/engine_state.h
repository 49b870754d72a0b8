/* The engine's own state and the calls between its parts.
 *
 * Owns: the one engine of the process: its lock, the peers it is connected to, its lists of waiting work. Parts: engine.cc (lock and entry
 * points), pass.cc (one pass, and the poll), fetch.cc (send queues to ops), requester.cc (ops to their peers, answers to completions),
 * rdma_request.cc (reads and writes of our own), responder.cc (records that arrive), receive.cc (posted receives), rdma_service.cc (reads and writes
 * of peers), completion.cc (CQ entries and events).
 * Everything here needs the engine lock unless it says otherwise.
 *
 * The lock is only ever tried by the application's threads: whoever fails leaves a mark and the holder looks again before it lets go
 * (combining), so a signal handler or another thread never waits and never loses work.
 *   ENG-1  work left behind by a failed try is seen by the holder or by the one who left it.
 *   ENG-2  an op is in exactly the list that its state says.
 *   ENG-3  while the helper sleeps, whatever can go on without a peer has woken it.
 *   ENG-4  nothing that the application's threads do on the data path waits for the lock, arming included: a signal handler may have interrupted its
 *          holder. A wish to arm that found the lock taken is fulfilled by the holder before it is done.
 *   ENG-5  a command gets the lock beside any number of threads that poll: while one waits, a poll leaves the lock alone and offers its processor,
 *          but for one in limits::polls_per_pass, so that what polls goes on beside a command that does not get to run.
 */
#pragma once

#include "base/rng.h"
#include "softefa/dev/counters.h"
#include "softefa/dev/objects.h"
#include "softefa/dev/rude.h"
#include "softefa/dev/record.h"
#include "softefa/dev/wqe.h"
#include "softefa/fabric/channel.h"

namespace softefa::dev {

/// A read that a peer asked us to serve.
struct read_request {
    std::uint64_t op, address;
    std::uint32_t rkey, length, progress;
    std::uint16_t src_qpn, dst_qpn;
    std::uint8_t  src_device, dst_device;
    std::uint32_t qkey;
    bool          by_address, repeated; ///< may be granted; a grant was of no use
};

/// How the memory of a peer is read (single_copy.h).
struct memory_reader {
    int           pid = 0, pidfd = -1;  ///< as seen from here; not owned, -1: this process
    std::uint64_t identity_at = 0;      ///< in its memory
    bool          on = false;
};

/// A registration of a peer that reads are copied from without asking (kept.h). The first line is the key.
struct kept_grant {
    std::uint32_t rkey = 0, qkey = 0; ///< rkey 0: the place is free
    std::uint16_t dst_qpn = 0;
    std::uint8_t  device = 0, src_device = 0; ///< of the peer, and ours
    std::uint32_t slot = 0;
    std::uint64_t first = 0, length = 0, address = 0, epoch = 0; ///< as in wire::grant
};

/// A peer, as the engine sees it.
struct link {
    fabric::channel *channel = nullptr;
    unsigned         index   = 0;
    bool             rx_touched = false; ///< consumed something in this run: positions to publish
    bool             tx_touched = false; ///< published something in this run: the peer may sleep
    bool             failed  = false;    ///< broke the protocol: nothing is read from it any more
    bool             lingers = false;    ///< failed because we gave it up (cut.cc): acknowledgements still count
    wire::efa_status end_status = wire::efa_status::bad_response; ///< of work that ends because the link failed
    bool             gone    = false;    ///< its process ended; the rings hold its last words
    // requester
    op_list          pending;            ///< single-record work that waits for room
    op_list          pending_reads;      ///< reads beyond reads_per_link
    op_list          granted;            ///< reads whose bytes the engine copies by itself, the first one first
    op_list          writes;             ///< writes of several records; only the first one is being sent
    unsigned         reads_out = 0;      ///< read requests whose end has not arrived
    memory_reader    reader;
    // responder
    std::uint32_t    copied = 0;         ///< bytes of the record being served that were copied by address
    read_request     reads[limits::reads_per_link];
    unsigned         read_head = 0, read_count = 0;
    struct {
        std::uint64_t    op     = ~std::uint64_t{0}; ///< write in progress
        std::uint64_t    next   = 0;                 ///< bytes of it that arrived
        wire::efa_status status = wire::efa_status::ok;
    } write_in;
    // both, and behind what each pass looks at (kept.h)
    kept_grant       kept[limits::kept_grants];
    std::uint64_t    unasked = 0, unasked_told = 0; ///< reads by kept grants, and how many of them the peer was woken for
    struct {
        std::uint64_t reads, bytes, packets;
    } settled[limits::devices] = {}; ///< reads of the peer by kept grants that our counters have

    /// has_work() in one look; true, too, if all that waits are reads beyond the limit.
    bool has_lists() const noexcept
    {
        const auto head = [](const op_list &list) { return reinterpret_cast<std::uintptr_t>(list.head); };
        return (head(pending) | head(pending_reads) | head(granted) | head(writes) | read_count) != 0;
    }
    bool has_work() const noexcept
    {
        return !pending.empty() || !writes.empty() || !granted.empty() || read_count != 0 || (!pending_reads.empty() && reads_out < limits::reads_per_link);
    }
};

inline constexpr unsigned yield_never = ~0u - 1;
inline constexpr unsigned timer_polls = 16; ///< polls between two looks at the clock

inline constinit device_counters unpublished_counters[limits::devices] = {}; ///< before the first context, and where nothing can be published

inline constexpr std::uint32_t rare_timers = 1, rare_overflow = 2, rare_events = 4;

struct engine_state {
    alignas(64) std::atomic<std::uint32_t> lock  = 0; ///< 1: held
    std::atomic<std::uint32_t>             again = 0; ///< somebody failed the lock and left work
    std::atomic<bool>                      arms_wanted = false; ///< some cq::arm_wanted is set
    std::atomic<std::uint32_t>             waiters = 0; ///< threads in engine_guard that found it held (ENG-5)
    std::atomic<std::uint32_t>             gave_way = 0; ///< polls that met a waiter, ever; wraps
    std::atomic<bool>                      dead  = false; ///< forked child: nothing works any more
    alignas(64) std::atomic<std::uint64_t> dirty[limits::qps / 64] = {}; ///< QP slots with an unread doorbell
    std::atomic<std::uint64_t>             dirty_words = 0;              ///< which words of `dirty` may be non-zero
    alignas(64) link *links[limits::links] = {};
    unsigned      link_count = 0;
    op_list       rnr;    ///< in order of deadline: the pause is the same for all
    op_list       held;   ///< in order of deadline: delays on request and the modelled wire
    op_list       parked; ///< destination being looked up
    std::uint32_t op_generation = 0;
    std::uint32_t reorder = 0;       ///< chance per 65536; 0 = off
    std::uint32_t swap_in = 0;       ///< questions until swap_due() says yes; wraps
    std::uint32_t queues_swap_in = 0; ///< posts until receive queues are served before a send queue once; 0 = never
    bool          posts_held = false;  ///< fetched work goes through requester_submit_rudely()
    bool          wire_modelled = false;
    bool          cq_overrun_is_error = false;
    std::uint32_t single_copy_min = ~0u; ///< bytes of the smallest RDMA that goes by address; ~0: none does
    bool          record_data = false; ///< the recorder keeps every message
    std::uint64_t rnr_pause_ns = 0;
    rudeness      rude;
    wire_model    wire_out[limits::devices], wire_in[limits::devices];
    base::rng     random{1};
    link         *touched[limits::links] = {}; ///< links that something was published to since the last look at park words
    unsigned      touched_count = 0;
    unsigned      idle_polls = 0;    ///< polls in a row that found nothing
    unsigned      yield_after = yield_never; ///< idle polls before the processor is offered to others; set by the helper
    unsigned      timer_skip = 0;
    std::uint32_t rare = 0;          ///< rare_*: what a pass has to look at beside links; a bit may outlast its reason by a pass, it is never missing
    std::atomic<std::uint64_t> polls = 0; ///< ever; the helper sees by it whether the application polls
    std::atomic<bool> asleep = false;     ///< the helper waits for peers to wake it: park words are odd; set by it, cleared by a poll
    std::uint32_t     park_word = 0;      ///< last word stored in every own segment
    unsigned          polls_asleep = 0;   ///< polls since `asleep`, or since so many took too long
    std::uint64_t     polls_asleep_since = 0; ///< when the first of them was, in ns
    std::atomic<bool> waiter = false;     ///< somebody blocks on a channel: sleep at once
    std::atomic<bool> kept_given = false, kept_used = false; ///< there may be reads of peers, or our own, to be counted (kept.h)
    std::atomic<bool> unshown = false;    ///< posted to while `asleep`, and no snapshot since; written under the lock
    std::atomic<bool> lookup_wanted = false, failed_links = false; ///< reasons for a kick
    qp           *direct_qps = nullptr; ///< posted to without verbs calls
    cq           *direct_cqs = nullptr; ///< read without verbs calls, and with a doorbell
    std::atomic<bool> direct_any = false; ///< one of the two is not empty
    unsigned      cq_overflowing = 0; ///< CQs whose overflow list is in use
    unsigned      events_owed = 0;   ///< CQs whose event record did not fit the pipe
    bool          resolve_wanted = false; ///< parked work that the helper does not know of yet
    device_counters *counters = unpublished_counters; ///< in the memory that publish.cc publishes, if it does
    fabric_counters peers = {};
    std::uint16_t  *local_qps[limits::devices] = {}; ///< by QPN: slot + 1, 0 = not ours
    std::uint16_t  *routes[limits::devices] = {};    ///< by QPN: link index + 1, 0 = unknown

    bool has_timers() const noexcept { return !rnr.empty() || !held.empty(); }
};
static_assert(limits::qps / 64 <= 64);

extern engine_state engine_instance; ///< in engine.cc; named by engine() alone
inline engine_state &engine() noexcept { return engine_instance; }

/// Draws when swap_due() next says yes; what it says now. In pass.cc.
bool swap_draw(engine_state &e) noexcept;
/// Whether a pair is to be swapped now: as often as SOFTEFA_REORDER says. Drawn as a distance, so that a question costs a subtraction.
inline bool swap_due(engine_state &e) noexcept
{
    return --e.swap_in == 0 && swap_draw(e);
}

/// Scope of the engine lock for slow paths: waits (the holder is another thread), then behaves like any holder on release.
class engine_guard {
public:
    engine_guard() noexcept;
    ~engine_guard();
    engine_guard(const engine_guard &)            = delete;
    engine_guard &operator=(const engine_guard &) = delete;
};
bool engine_try_lock() noexcept;
void engine_unlock() noexcept; ///< does what others left behind, then unlocks
// --- pass.cc
/// One pass over everything; true if anything moved.
bool engine_run() noexcept;
/// The part of a pass that concerns one link.
bool engine_run_link(link &l) noexcept;
// --- engine.cc
/// CH-1: after records were published, where the lock is not released next.
void engine_flush_wakes() noexcept;
/// When receive queue work next overtakes send queue work.
void engine_draw_queue_swap(engine_state &e) noexcept;

inline void qp_mark_dirty(const qp &q) noexcept // any thread
{
    engine_state &e = engine();
    e.dirty[q.slot / 64].fetch_or(std::uint64_t{1} << (q.slot % 64), std::memory_order_relaxed);
    e.dirty_words.fetch_or(std::uint64_t{1} << (q.slot / 64), std::memory_order_seq_cst);
}

inline void link_touch(link &l) noexcept
{
    if (l.tx_touched)
        return;
    l.tx_touched = true;
    engine_state &e = engine();
    e.touched[e.touched_count++] = &l;
}
/// The peer broke the protocol, or one side gave the other up: nothing is read from it any more, its work ends. `reason` is a static string.
void link_fail(link &l, const char *reason) noexcept;
/// The peer set its `cut` word. In pass.cc.
void link_given_up(link &l) noexcept;
// --- cut.cc: giving up a peer that does not move
void cut_begin(link &l) noexcept;                  ///< from here on nothing is sent to it and no record of it is taken
void cut_finish(link &l, bool ordered) noexcept;   ///< after a barrier for all processes, if it was `ordered`: ends what cannot land any more
bool cut_outstanding(link &l, std::uint64_t *progress_p) noexcept; ///< something waits for the peer; and how far both have come

// --- fetch.cc
bool requester_fetch(qp &q) noexcept;              ///< doorbell to operations; true if anything moved
// --- requester.cc
void requester_submit(op &o) noexcept;             ///< to its peer, or to a list
void requester_end(op &o, wire::efa_status status) noexcept; ///< completes it; a datagram always with success
void requester_ack(link &l, const wire::ack &a) noexcept;
bool requester_link_work(link &l) noexcept;        ///< waiting work of a link; true if anything moved
// --- rdma_request.cc
void requester_read_grant(link &l, const wire::header &h, const std::uint8_t *payload) noexcept; ///< where the bytes of a read are
void requester_read_data(link &l, const wire::header &h, const std::uint8_t *payload) noexcept;
// --- held.cc
void requester_submit_rudely(op &o) noexcept;      ///< the same where trouble or a slow wire was asked for
bool requester_hold_completion(op &o) noexcept;    ///< the modelled way back; true: the op completes later
bool requester_timers(std::uint64_t now_ns) noexcept;
std::uint64_t requester_next_deadline() noexcept;  ///< ~0: none
// --- fetch.cc
void requester_drop_qp(qp &q) noexcept;            ///< every op ends without a CQE
void requester_flush_qp(qp &q) noexcept;           ///< QP in error: what no peer has yet ends as flushed
// --- requester.cc
void requester_link_gone(link &l) noexcept;        ///< ends what only that peer could have ended
void requester_ah_gone(context &c, std::uint16_t number) noexcept;

// --- responder.cc
/// Serves one record. The link has room for its acknowledgement.
void responder_record(link &l, const wire::header &h, const std::uint8_t *payload) noexcept;
bool responder_reads(link &l) noexcept;            ///< sends data of reads asked for; true if anything moved
void responder_flush_qp(qp &q) noexcept;           ///< QP in error: posted receives end as flushed

// --- completion.cc
bool cq_has_room_now(cq &c, unsigned count) noexcept; ///< looks at what the application consumed
/// For more entries beyond those reserved.
inline bool cq_has_room(cq &c, unsigned count = 1) noexcept
{
    if (c.produced - c.believed + c.overflow_count + c.reserved + count <= std::uint64_t{c.entries} + c.overflow_room) [[likely]]
        return true;
    return cq_has_room_now(c, count);
}
void cq_write_uncommon(cq &c, const cqe_bytes &entry) noexcept;
bool cq_drain_overflow(cq &c) noexcept;
void cq_drop_qpn(cq &c, std::uint16_t qpn) noexcept; ///< CQ-4
void cq_user_gone(cq &c) noexcept;                 ///< a QP is destroyed, once per queue: its unread entries become nobody's (CQ-5)
void cq_settle_events() noexcept;                  ///< writes event records that did not fit before
bool cq_has_unconsumed(cq &c) noexcept;
void cq_fire(cq &c) noexcept;

/// IBV_EVENT_*
enum class async_event : std::uint32_t { cq_error = 0, device_fatal = 8 };
/// True if the record was written. `element`: what the application knows the object by.
bool async_write(const context &c, async_event type, std::uint64_t element) noexcept;

// --- shared checks
/// The bytes of a registration that [address, address + length) names, or null. `access`: IBV_ACCESS_* that must all be there.
inline std::uint8_t *mr_translate(std::uint32_t key, std::uint32_t key_mask, const pd *domain, std::uint64_t address, std::uint64_t length,
                                  std::uint32_t access) noexcept
{
    const mr *m = objects().mrs.at(key & (limits::mrs - 1));
    if (m == nullptr || m->rkey == 0 || ((m->rkey ^ key) & key_mask) != 0 || m->domain != domain || (m->access & access) != access) [[unlikely]]
        return nullptr;
    const std::uint64_t offset = address - m->iova;
    if (offset > m->length || length > m->length - offset) [[unlikely]]
        return nullptr;
    return reinterpret_cast<std::uint8_t *>(m->start + offset);
}
inline qp *qp_find_local(unsigned device, std::uint16_t qpn) noexcept
{
    const std::uint16_t *table = device < limits::devices ? engine().local_qps[device] : nullptr;
    const unsigned       slot  = table != nullptr ? table[qpn] : 0u;
    return slot != 0 ? objects().qps.at(slot - 1) : nullptr;
}
inline device_counters &counters_of(unsigned device) noexcept { return engine().counters[device % limits::devices]; }

/// Publishes a record that tx.reserve() gave room for; `fill` sets every field of its header but the commit word.
template <class Fill> [[gnu::always_inline]] inline void link_commit(link &l, unsigned src_device, std::uint32_t payload_size, Fill &&fill) noexcept
{
    device_counters &n = counters_of(src_device);
    ++n.tx_packets;
    n.tx_packet_bytes += payload_size;
    if (engine().record_data) [[unlikely]] {
        wire::header h;
        fill(h);
        record(record_kind::pdu_out, src_device, h.src_qpn, h.dst_qpn, 0, std::uint64_t{static_cast<unsigned>(h.kind)} << 32 | payload_size, h.op);
    }
    l.channel->tx.commit_in_place(payload_size, fill);
    link_touch(l);
}

// The application reads completion entries through a mapping of its own. The release and acquire of the entry meet in the same memory, which
// ThreadSanitizer cannot know: it is told.
#ifdef __SANITIZE_THREAD__
extern "C" void __tsan_acquire(void *);
extern "C" void __tsan_release(void *);
inline void tsan_published(cq *c) noexcept { __tsan_release(c); }
inline void tsan_observed(cq *c) noexcept { __tsan_acquire(c); }
#else
inline void tsan_published(cq *) noexcept {}
inline void tsan_observed(cq *) noexcept {}
#endif

/// The same for the entry that an op reserves. It has room if nothing waits beside the ring: there is room for one entry of every work request (CQ-3),
/// and the op is one that has not reserved any.
inline bool cq_has_room_for_op(cq &c) noexcept { return c.overflow_count == 0 || cq_has_room(c); }

/// CQ-1
inline void cq_store(cq &c, const cqe_bytes &entry) noexcept
{
    const bool    phase = (c.produced & c.entries) == 0; // a power of two: the bit is the parity of the lap; the first lap writes 1
    std::uint8_t *place = c.ring + (c.produced & (c.entries - 1)) * c.entry_size;
    auto         *words = reinterpret_cast<std::uint64_t *>(place);

    words[1] = entry.words[1];
    if (c.entry_size == 32) {
        words[2] = entry.words[2];
        words[3] = entry.words[3];
    }
    tsan_published(&c);
    const std::uint64_t first = phase ? entry.words[0] | wqe::cqe_phase : entry.words[0];
    reinterpret_cast<std::atomic<std::uint64_t> *>(place)->store(first, std::memory_order_release);
    std::atomic_ref(c.produced).store(c.produced + 1, std::memory_order_release);
}

/// An entry goes to the ring, and nobody has to be told. Room in the ring is room even for an entry that was not reserved: beside the ring there is
/// room for one entry of every work request (CQ-3), so for all that are reserved.
inline bool cq_is_plain(const cq &c) noexcept
{
    return ((c.armed | c.failed | engine().record_data) | c.overflow_count) == 0 && c.produced - c.believed < c.entries;
}
inline void cq_write(cq &c, const cqe_bytes &entry) noexcept
{
    if (cq_is_plain(c)) [[likely]]
        cq_store(c, entry);
    else
        cq_write_uncommon(c, cqe_bytes{entry}); // a copy: else every entry would be made in memory, for this call's sake
}

inline constexpr std::uint32_t access_local_write = 1, access_remote_write = 2, access_remote_read = 4;
inline constexpr std::uint32_t lkey_mask = 0xffffff, rkey_mask = 0xffffffff;

} // namespace softefa::dev
