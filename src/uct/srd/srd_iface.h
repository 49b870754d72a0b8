/* The interface: one queue pair, one completion queue, and everything that shares them.
 *
 * Owns: the objects below and their lifetime. Slow path only in srd_iface*.cc; the data path is srd_tx.cc and srd_rx.cc,
 * the exchange with peers srd_control.cc (out) and srd_hello.cc (in), endpoints srd_ep.cc. All of it runs under the user's lock: one thread at a time.
 *
 * Invariants
 *   IFC-1  every accepted work request has one record or receive descriptor, which is freed after its completion.
 *   IFC-2  sq_free + posted data sends == the data share of the send queue; control_free + posted control sends ==
 *          limits::control_slots: control can always be sent, so two interfaces with full queues still grant credits.
 *   IFC-3  rx.posted never falls below the low-water mark while memory can be had; below it messages are handed over in a
 *          way that makes the program copy them, and early ones are copied out: the missing message finds a receive.
 *   IFC-4  what active senders may send and what is kept back for control fits the receives posted, up to rx.queue_max.
 *   IFC-5  no callback of the user runs from inside a posting call.
 */
#pragma once

#include "base/clock.h"
#include "uct/srd/srd_ah.h"
#include "uct/srd/srd_buf.h"
#include "uct/srd/srd_config.h"
#include "uct/srd/srd_counters.h"
#include "uct/srd/srd_error.h"
#include "uct/srd/srd_event.h"
#include "uct/srd/srd_md.h"
#include "uct/srd/srd_op.h"
#include "uct/srd/srd_peer.h"
#include "uct/srd/srd_slab.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace srd {

struct iface;

/// Reasons why a post on an endpoint returned NO_RESOURCE; pending_add says BUSY only when all recorded ones are gone.
enum ep_reason : std::uint8_t {
    reason_queue  = 1u << 0, ///< no slot in the send queue
    reason_window = 1u << 1, ///< span or credits of the peer
    reason_buf    = 1u << 2, ///< no bounce buffer
    // Of one-sided operations, and of whatever follows a fence (srd_rma.h):
    reason_hello    = 1u << 3, ///< the peer has not answered hello
    reason_fence    = 1u << 4, ///< one-sided operations before a fence are not complete
    reason_consumed = 1u << 5, ///< active messages before a fence are not consumed
    reason_share    = 1u << 6, ///< the peer's share of the send queue is used up
};

/// What keeps the common post from being taken; all zero in the common case.
enum ep_gate : std::uint8_t {
    gate_pending = 1u << 0, ///< requests wait in the queue, and this is not their dispatch
    gate_failed  = 1u << 1, ///< the peer failed
};

struct ep;

/// What an endpoint needs only once it was refused, fenced or cancelled, or if its peer has more endpoints. From a slab, on first use, and its
/// own until it is destroyed. Read through ep::slow, which is never null; written through ep_slow_get and ep_slow_own.
struct ep_slow {
    uct_pending_req_t *pending_head = nullptr; ///< oldest request that waits; null = none
    uct_pending_req_t *pending_tail = nullptr;
    ep *pending_next                = nullptr; ///< ring of endpoints with requests
    ep *pending_prev                = nullptr;
    ep *peer_next                   = nullptr; ///< the next endpoint of the same peer
    op *cancel_markers              = nullptr; ///< flushes with CANCEL that wait for buffers in the send queue
    std::uint32_t cancel_count      = 0;       ///< zero-copy sends in the send queue that they wait for
    std::uint32_t turn_epoch        = 0;       ///< fence epoch when the request whose turn it is was queued
    std::uint32_t turn_total        = 0;       ///< sum of both fence epochs when its function was called: past it, that sum counts
    std::uint32_t fence_epoch       = 0;       ///< raised by ep_fence
    base::seq32 fence_psn{};                   ///< first psn after its latest fence
};
static_assert(sizeof(ep_slow) == 72);

/// What every endpoint without an ep_slow of its own shows. Never written.
inline constinit const ep_slow ep_slow_idle{};

struct ep {
    uct_base_ep_t super{};
    struct peer *owner            = nullptr; ///< the life of the remote interface; never null
    const ep_slow *slow           = &ep_slow_idle;
    std::uint8_t gate             = 0;       ///< ep_gate bits
    std::uint8_t reasons          = 0;       ///< ep_reason bits of posts that failed since the last success of pending_add
    std::uint8_t fence_waits : 2  = 0;       ///< fence_wait bits: what its latest fence still waits for
    bool in_pending : 1           = false;   ///< in iface's ring
    bool reported : 1             = false;   ///< its failure was told to the user
    bool in_turn : 1              = false;   ///< inside a queued request's function: its posts are as old as turn_epoch
    bool in_hand : 1              = false;   ///< a call on it is calling callbacks: ep_hold
    bool gone : 1                 = false;   ///< destroyed meanwhile; that call frees it
    std::uint8_t fence_turn       = 0;       ///< group of one-sided operations that was current at its latest fence
    std::uint32_t fence_seen      = 0;       ///< sum of both fence epochs when it last looked
};
static_assert(sizeof(ep) == 32, "half a cache line");

/// What precedes the bytes of every receive buffer. The work request is built once; recycling is a store.
struct alignas(64) rx_desc {
    ibv_recv_wr wr;          ///< wr.next links the free list
    ibv_sge sge;             ///< names the bytes that the device fills
    uct_recv_desc_t release; ///< what the user calls for a descriptor it kept
    std::uint32_t imm;       ///< of the message, while it waits
    std::uint16_t size;      ///< bytes of the message, wire header included
    std::uint8_t header_size;
    bool heap;               ///< a copy in plain memory: freed, not posted
    iface *owner;
};
static_assert(offsetof(rx_desc, wr) == 0);

enum iface_attention : std::uint8_t {
    attend_work    = 1u << 0, ///< peers in the work list
    attend_pending = 1u << 1, ///< endpoints in the pending ring
    attend_stash   = 1u << 2, ///< completions in the stash
};

struct iface {
    uct_base_iface_t super; ///< first: UCX casts

    struct alignas(64) tx_half {
        ibv_qp *qp           = nullptr;
        union {
            std::uint64_t slots = 0;     ///< both in one addition: tx_slot_take, tx_slot_give
            struct {
                std::uint32_t sq_free;     ///< data slots of the send queue
                std::uint32_t outstanding; ///< user operations posted and not complete: 0 = flushed
            };
        };
        tx_buf *bufs         = nullptr;  ///< free bounce buffers
        std::uint32_t inline_payload = 0; ///< of am_short: bytes after its 8-byte header that one inline send carries
        std::uint16_t inline_max = 0;    ///< bytes that one inline send carries, wire header included
        std::uint16_t short_max  = 0;    ///< am.max_short
        std::uint16_t payload_max = 0;   ///< am.max_bcopy, am.max_zcopy
        std::uint16_t control_free = 0;  ///< control slots of the send queue
        tx_buf *control_bufs = nullptr;
        ibv_send_wr *bad_wr = nullptr;   ///< where verbs says which request it refused; posted one at a time, so not read
        ibv_sge inline_sge{};
        ibv_send_wr inline_wr{};         ///< one inline piece
        ibv_sge sge[2]{};
        ibv_send_wr wr{};                ///< one or two pieces in memory
    } tx;

    struct rma_part {
        ibv_qp_ex *qp            = nullptr; ///< the same queue pair, as one-sided requests are posted
        std::uint32_t zcopy_max  = 0;       ///< largest put and get of user memory
        std::uint16_t per_peer   = 0;       ///< one-sided operations that one peer may have in the send queue
        std::uint16_t short_max  = 0;       ///< put.max_short
        std::uint16_t bcopy_max  = 0;       ///< put.max_bcopy, get.max_bcopy
        std::uint16_t inline_max = 0;       ///< bytes that one inline write carries; 0: the queue pair takes none
        bool put                 = false;   ///< device and rdma-core can write
        bool get                 = false;   ///< they can read
        bool expected            = false;   ///< the user said that it will put or get
    } rma;

    struct alignas(64) rx_half {
        ibv_cq *cq               = nullptr;
        ibv_recv_wr *free_list   = nullptr; ///< descriptors not posted, nor spare
        std::uint32_t posted     = 0;       ///< receives in the queue
        std::uint32_t target     = 0;       ///< how many should be: queue_len, more while many senders are active
        std::uint32_t queue_len  = 0;       ///< how many are posted at least
        std::uint32_t queue_max  = 0;       ///< and at most: the depth of the queue
        std::uint32_t granted    = 0;       ///< credits that active senders had left at their last grants
        std::uint32_t active     = 0;       ///< those senders
        std::uint32_t refill_at  = 0;       ///< refill when fewer than this are posted
        std::uint32_t low_water  = 0;       ///< below this, nothing may be kept
        unsigned am_flags        = UCT_CB_PARAM_FLAG_DESC; ///< 0 below the low-water mark
        std::uint32_t headroom   = 0;       ///< bytes the user wants before the payload
        std::uint32_t held       = 0;       ///< descriptors the user keeps
        ibv_recv_wr *spare       = nullptr; ///< descriptors beyond those that the queue needs: used when free_list is empty
        std::uint32_t spare_count = 0;
        std::uint32_t away       = 0;       ///< descriptors neither posted nor free: kept by the user, or early; without copies
        std::uint32_t payload_offset = 0;   ///< from the descriptor to the payload after a short header
        std::uint32_t alignment  = 64;      ///< of every element
        bool realign             = false;   ///< the user wants an alignment that longer headers would break
        rx_ring<limits::window_size> *rings = nullptr; ///< free reorder rings
    } rx;

    alignas(64) std::uint8_t attention = 0; ///< iface_attention bits
    std::uint32_t tick       = limits::idle_tick; ///< progress calls until the clock is read
    /// A record is in hand or a list of them is walked, and a callback runs: no completion is taken, no record leaves a list.
    bool polling             = false;
    bool closing             = false;
    std::uint8_t activity    = 1;      ///< number of the current activity period, never 0
    base::time_ns activity_at = 0;     ///< when it began
    std::uint32_t fence_epoch = 0;     ///< raised by iface_fence
    peer_table::work_list work;        ///< peers that are owed something
    peer_table::work_list questions;   ///< peers that are owed only what waits until half of the control slots are free
    peer *timers    = nullptr;         ///< peers with an armed timer, in no order
    base::time_ns timer_min = 0;       ///< not after the earliest of them; means nothing without any
    std::uint32_t ep_count  = 0;       ///< endpoints
    event_source event;                ///< what a program sleeps on
    op *cancels_over = nullptr;        ///< flushes with CANCEL that are complete and being told
    ep *pending_ring = nullptr;        ///< the endpoint to be tried next
    std::uint32_t scan_slot  = 0;      ///< next peer that housekeeping looks at
    base::time_ns ticked_at  = 0;      ///< when housekeeping ran last
    base::time_ns ah_short_at = 0;     ///< when an address handle could not be had; 0 = never
    std::uint32_t window     = limits::window_size; ///< span towards one peer
    base::time_ns rnr_timeout = 0, hello_interval = 0, probe_interval = 0, keepalive_interval = 0, close_timeout = 0;
    bool print_stats         = false;
    ibv_wc *stash            = nullptr; ///< completions taken by rx_await_sends and rx_look, for the next progress call; `cqe` entries
    std::uint32_t stash_count = 0;
    std::uint32_t cqe        = 0;       ///< entries of the completion queue: the stash is never larger
    uct_srd_md_t *md         = nullptr;
    std::uint32_t qkey       = 0;
    gid_type gid{};
    double latency = 0, overhead = 0;

    slab<ep, limits::eps_per_chunk> eps;
    slab<ep_slow, limits::ep_slows_per_chunk> ep_slows;
    op_pool ops;
    reg_pool tx_bufs, control_pool, rx_bufs;
    ah_table ahs;
    peer_table peers;
    base::counters<counter> counters;

    iface(uct_srd_md_t *md, const uct_srd_iface_config_t &config, const uct_iface_params_t &params, std::uint64_t seed) noexcept;
    ~iface();
};
static_assert(offsetof(iface, super) == 0);

/// What a receive from this peer with a short header shows: index, the device's number for its address handle, its QPN.
constexpr std::uint64_t key_make(std::uint32_t index, std::uint32_t ah_number, std::uint32_t qpn) noexcept
{
    return index | (std::uint64_t{ah_number & 0xffffu} << 32) | (std::uint64_t{qpn & 0xffffu} << 48);
}

inline iface *iface_of(uct_iface_h h) noexcept { return reinterpret_cast<iface *>(h); }
inline iface *iface_of(uct_ep_h h) noexcept { return reinterpret_cast<iface *>(h->iface); }
inline ep *ep_of(uct_ep_h h) noexcept { return reinterpret_cast<ep *>(h); }

inline void count(iface *f, counter which, std::uint64_t n = 1) noexcept { f->counters.add(which, n); }

/// A user operation takes a slot of the send queue: sq_free, which is not 0, less one, outstanding one more. And back.
inline constexpr std::uint64_t tx_slot_step = (std::uint64_t{1} << 32) - 1;
inline void tx_slot_take(iface *f) noexcept { f->tx.slots += tx_slot_step; }
inline void tx_slot_give(iface *f) noexcept { f->tx.slots -= tx_slot_step; }

/// Whether the peer may be sent something sequenced: not refused at the moment, span and credits left.
inline bool tx_window_open(const peer *p) noexcept { return p->waiting_count == 0 && p->tx.may_send(); }

/// A completion of the user is told. After that neither `comp` nor what it belongs to may be touched.
inline void complete_user(uct_completion_t *comp, ucs_status_t status) noexcept
{
    if (comp == nullptr) {
        return;
    }
    if (status != UCS_OK && comp->status == UCS_OK) {
        comp->status = status;
    }
    if (--comp->count == 0) {
        comp->func(comp);
    }
}

// --- srd_iface.cc, srd_iface_ops.cc --------------------------------------------------------------------------------------
/// Destroys what there is of the queues.
void iface_close_queues(iface *f) noexcept;
uct_iface_ops_t iface_ops() noexcept;
uct_iface_internal_ops_t *iface_internal_ops() noexcept;
/// One-sided operations that the queue pair was made without.
void iface_drop_one_sided(iface *f) noexcept;

/// The queue pair takes so many bytes inline. At most what the records of this interface were made for.
void iface_set_inline(iface *f, std::uint32_t size) noexcept;

// --- srd_tx.cc -----------------------------------------------------------------------------------------------------------
/// A caller's mistake: it is named, nothing is changed.
ucs_status_t tx_invalid_length(const char *what, size_t length, size_t max) noexcept;
ucs_status_t tx_invalid_iov(size_t iovcnt) noexcept;
/// A bounce buffer, not yet taken from the free list; null: tx_no_buf says what to answer.
inline tx_buf *tx_buf_top(iface *f) noexcept
{
    if (f->tx.bufs == nullptr && f->tx_bufs.can_grow()) [[unlikely]] {
        (void)f->tx_bufs.grow(); // what it made is in the list
    }
    return f->tx.bufs;
}
ucs_status_t tx_no_buf(iface *f, ep *e) noexcept;
/// The device did not take a request that was accepted: it waits and is posted again from progress, as after a refusal by
/// the receiver. So a post needs no way back once its record, psn and slot are used, and nothing of it is lost.
void tx_post_deferred(iface *f, op *o) noexcept;
/// tx_window_open(), after records that only wait behind a one-sided operation were taken out of the way.
bool tx_window_recheck(iface *f, peer *p) noexcept;
/// Sends an empty message in sequence. False: no slot, record, or place in the window now.
bool tx_send_nop(iface *f, peer *p, std::uint32_t flags) noexcept;
void tx_drain(iface *f, peer *p) noexcept;
void tx_complete_uncommon(iface *f, op *o) noexcept;
/// A send is complete. Here: an inline one that was never refused. Everything else is out of line.
inline void tx_complete(iface *f, op *o) noexcept
{
    if (is_plain_inline(o->shape)) [[likely]] {
        tx_slot_give(f);
        peer *p = o->owner;
        if (p->tx.complete(o)) [[likely]] {
            const bool more = p->tx.head_is_done();
            f->ops.put(o);
            if (more) [[unlikely]] {
                tx_drain(f, p);
            }
        }
        return;
    }
    tx_complete_uncommon(f, o);
}
void tx_complete_error(iface *f, op *o, const ibv_wc &wc) noexcept;
/// Posts every waiting record of the peer that finds a slot; false if some still wait.
bool tx_repost(iface *f, peer *p) noexcept;
/// Ends the user's part of a record that is not in the send queue: its psn is sent without the user's data.
void tx_withdraw(iface *f, op *o, ucs_status_t status) noexcept;
tx_buf *tx_buf_get(iface *f) noexcept;
inline void tx_buf_put(iface *f, tx_buf *buf) noexcept
{
    buf->next  = f->tx.bufs;
    f->tx.bufs = buf;
}
/// Writes the header that ends at `payload`; returns its size.
unsigned tx_put_header(iface *f, peer *p, unsigned char *payload, std::uint32_t flags) noexcept;
/// Posts a control message that ends `size` bytes after `bytes`. 0 or an errno.
int tx_post_control(iface *f, peer *p, op *o, const unsigned char *bytes, unsigned size) noexcept;

// --- srd_rx.cc -----------------------------------------------------------------------------------------------------------
unsigned rx_progress(iface *f) noexcept;
void rx_purge(iface *f, peer *p) noexcept;
void rx_set_attention(peer *p) noexcept;

// --- srd_stash.cc --------------------------------------------------------------------------------------------------------
/// Room for what rx_look and rx_await_sends take. False: no memory.
bool rx_stash_ready(iface *f) noexcept;
/// Whether anything has completed; it is kept for the next progress call. Only after rx_stash_ready, with an empty stash.
bool rx_look(iface *f) noexcept;
/// Waits, bounded by the close timeout, until the device has completed the zero-copy sends of an endpoint that goes. What
/// else completes meanwhile is kept for the next progress call: no handler runs from here. Returns how many are left.
std::uint32_t rx_await_sends(iface *f, const ep *e, std::uint32_t count) noexcept;

// --- srd_rx_queue.cc -----------------------------------------------------------------------------------------------------
void rx_refill(iface *f) noexcept;
/// How many receives shall be posted from now on, and when they are refilled.
void rx_set_target(iface *f, std::uint32_t target) noexcept;
/// A descriptor is free again.
inline void rx_recycle(iface *f, rx_desc *d) noexcept
{
    if (d->heap) [[unlikely]] {
        std::free(d);
        return;
    }
    d->wr.next      = f->rx.free_list;
    f->rx.free_list = &d->wr;
}
void rx_init_desc(void *arg, void *element, std::uint32_t lkey) noexcept;

// --- srd_control.cc ------------------------------------------------------------------------------------------------------
/// Something is owed to the peer; sent from the next progress call on.
void control_want(iface *f, peer *p, std::uint8_t want) noexcept;
/// A hello that is owed is sent at once, if a slot is free.
void control_hello_now(iface *f, peer *p) noexcept;
/// Whether any of it could be done now. All others wait for a completion or a timer.
bool control_can_go_on(iface *f) noexcept;
/// Returns how many endpoints were told of their failure.
unsigned control_run(iface *f) noexcept;
void control_complete(iface *f, op *o) noexcept;
void control_complete_error(iface *f, op *o, const error_meaning &e, std::uint32_t device_status) noexcept;

// --- srd_hello.cc --------------------------------------------------------------------------------------------------------
/// A long header arrived: the peer it belongs to, or null after counting why not. `reason`: of a NAK.
peer *control_resolve(iface *f, std::uint32_t imm, const wire::long_header &h, std::uint16_t qpn,
                      std::uint16_t ah_number, wire::nak_reason reason = wire::nak_reason::stale) noexcept;
/// What a long header of a known peer says besides its credits: which index it assigned, and whether it wants an answer.
void control_heard_long(iface *f, peer *p, std::uint32_t imm, const wire::long_header &h) noexcept;
/// An unsequenced control message of a known peer. False: malformed.
bool control_receive(iface *f, peer *p, std::uint32_t imm, const unsigned char *body, std::size_t size) noexcept;
/// Gives the peer its address handle. False: none to be had.
bool peer_address(iface *f, peer *p) noexcept;

// --- srd_housekeeping.cc -------------------------------------------------------------------------------------------------
void control_tick(iface *f) noexcept;
void timer_arm(iface *f, peer *p, base::time_ns due) noexcept;
/// One more refusal: the next delay is twice as long, up to a bound.
void peer_backoff(iface *f, peer *p) noexcept;

// --- srd_grant.cc --------------------------------------------------------------------------------------------------------
/// A new grant for what the peer's next header carries: its share of the receive queue. IFC-4
void grant_renew(iface *f, peer *p) noexcept;
/// The header with the newest grant is on its way: none is owed until the next one is due.
void grant_told(peer *p) noexcept;
/// The peer is not counted as an active sender any more.
void grant_leave(iface *f, peer *p) noexcept;
/// The receive queue shrinks again to what is granted.
void grant_settle(iface *f) noexcept;

// --- srd_ep.cc -----------------------------------------------------------------------------------------------------------
/// `tell`: the peer lives as far as we know, and is told with a NAK; not if the device says that it is gone.
void peer_fail(iface *f, peer *p, ucs_status_t status, const char *meaning, const char *cause,
               std::uint32_t device_status, bool tell = true) noexcept;
/// A callback may destroy the endpoint that it is called for: between these two it stays in memory. The second says whether it
/// did; then nothing of the endpoint may be touched any more. Within each other only the outermost pair counts. SEP-5
inline bool ep_hold(ep *e) noexcept 
{
    const bool was = e->in_hand;
    e->in_hand     = true;
    return was;
}
bool ep_is_gone(ep *e, bool held_before) noexcept;
/// Tells the endpoints of a failed peer; returns how many.
unsigned peer_report(iface *f, peer *p) noexcept;
/// A zero-copy send whose endpoint had cancelled it has left the send queue.
void cancel_step(iface *f, ep *e) noexcept;

// --- srd_pending.cc ------------------------------------------------------------------------------------------------------
unsigned pending_dispatch(iface *f) noexcept;
/// The endpoint's slow part, its own from now on. Null: no memory.
ep_slow *ep_slow_get(ep *e) noexcept;
/// The same, of an endpoint that has one for certain.
inline ep_slow *ep_slow_own(ep *e) noexcept
{
    assert(e->slow != &ep_slow_idle);
    return const_cast<ep_slow *>(e->slow);
}
/// The peer has an endpoint more. False: no memory, and it has not.
bool peer_attach(peer *p, ep *e) noexcept;
/// A post was refused for want of something that comes back: recorded for pending_add. What the post answers.
ucs_status_t ep_refuse(iface *f, ep *e, ep_reason reason) noexcept;
/// Whether every shortage that was recorded is gone; forgets those that are. SEP-2
bool ep_reasons_gone(iface *f, ep *e) noexcept;
/// The endpoint is in the ring no more; its requests stay until they are purged.
void pending_leave(iface *f, ep *e) noexcept;

} // namespace srd

extern "C" {
ucs_status_t uct_srd_iface_open(uct_md_h md, uct_worker_h worker, const uct_iface_params_t *params,
                                const uct_iface_config_t *config, uct_iface_h *iface_p) noexcept;
void uct_srd_iface_close(uct_iface_h iface) noexcept;
unsigned uct_srd_iface_progress(uct_iface_h iface) noexcept;

ucs_status_t uct_srd_ep_create(const uct_ep_params_t *params, uct_ep_h *ep_p) noexcept;
void uct_srd_ep_destroy(uct_ep_h ep) noexcept;
ucs_status_t uct_srd_ep_am_short(uct_ep_h ep, uint8_t id, uint64_t header, const void *payload, unsigned length) noexcept;
ucs_status_t uct_srd_ep_am_short_iov(uct_ep_h ep, uint8_t id, const uct_iov_t *iov, size_t iovcnt) noexcept;
ssize_t uct_srd_ep_am_bcopy(uct_ep_h ep, uint8_t id, uct_pack_callback_t pack_cb, void *arg, unsigned flags) noexcept;
ucs_status_t uct_srd_ep_am_zcopy(uct_ep_h ep, uint8_t id, const void *header, unsigned header_length,
                                 const uct_iov_t *iov, size_t iovcnt, unsigned flags, uct_completion_t *comp) noexcept;
ucs_status_t uct_srd_ep_put_short(uct_ep_h ep, const void *buffer, unsigned length, uint64_t remote, uct_rkey_t rkey) noexcept;
ssize_t uct_srd_ep_put_bcopy(uct_ep_h ep, uct_pack_callback_t pack_cb, void *arg, uint64_t remote, uct_rkey_t rkey) noexcept;
ucs_status_t uct_srd_ep_put_zcopy(uct_ep_h ep, const uct_iov_t *iov, size_t iovcnt, uint64_t remote, uct_rkey_t rkey,
                                  uct_completion_t *comp) noexcept;
ucs_status_t uct_srd_ep_get_bcopy(uct_ep_h ep, uct_unpack_callback_t unpack_cb, void *arg, size_t length, uint64_t remote,
                                  uct_rkey_t rkey, uct_completion_t *comp) noexcept;
ucs_status_t uct_srd_ep_get_zcopy(uct_ep_h ep, const uct_iov_t *iov, size_t iovcnt, uint64_t remote, uct_rkey_t rkey,
                                  uct_completion_t *comp) noexcept;
ucs_status_t uct_srd_ep_pending_add(uct_ep_h ep, uct_pending_req_t *req, unsigned flags) noexcept;
void uct_srd_ep_pending_purge(uct_ep_h ep, uct_pending_purge_callback_t cb, void *arg) noexcept;
ucs_status_t uct_srd_ep_flush(uct_ep_h ep, unsigned flags, uct_completion_t *comp) noexcept;
ucs_status_t uct_srd_ep_fence(uct_ep_h ep, unsigned flags) noexcept;
ucs_status_t uct_srd_ep_check(uct_ep_h ep, unsigned flags, uct_completion_t *comp) noexcept;
ucs_status_t uct_srd_ep_invalidate(uct_ep_h ep, unsigned flags) noexcept;
int uct_srd_ep_is_connected(uct_ep_h ep, const uct_device_addr_t *device, const uct_iface_addr_t *address) noexcept;
ucs_status_t uct_srd_iface_flush(uct_iface_h iface, unsigned flags, uct_completion_t *comp) noexcept;
ucs_status_t uct_srd_iface_fence(uct_iface_h iface, unsigned flags) noexcept;
}
