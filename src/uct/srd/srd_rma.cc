/* One-sided operations: see srd_rma.h.
 *
 * A put or get of the user's memory is one work request with one piece; a short or buffered one goes through a bounce
 * buffer, in whose headroom a buffered get keeps the function that unpacks it. With a queue pair of 128-byte work requests, which older
 * devices and rdma-core lack, a short put is an inline write, whose bytes are kept in its record.
 *
 * ibv_wr_*, not ibv_post_send: the latter refuses one-sided work requests on EFA.
 */
#include "uct/srd/srd_rma.h"

#include <cerrno>
#include <cstring>

namespace srd {

namespace {

/// What a buffered get keeps in the headroom of its bounce buffer, where no header goes.
struct unpacking {
    uct_unpack_callback_t unpack;
    void *arg;
};
static_assert(sizeof(unpacking) <= sizeof(tx_buf::headroom));

/// How often status 14 is answered with another hello before it counts as an error: 50 us doubling to 13 ms, 5 s in all. The
/// answer needs the target's program, which may compute for a while.
constexpr std::uint16_t unknown_retries_max = 400;

constexpr bool is_read(op_kind kind) noexcept { return kind >= op_kind::get_buf; }
constexpr bool is_buffered(op_kind kind) noexcept { return kind == op_kind::put_buf || kind == op_kind::get_buf; }

/// The target's device takes one-sided operations of ours: it has answered us, or spoken first. RMA-3
inline bool rma_reaches(const peer *p) noexcept
{
    return p->state == peer_state::open || (p->state == peer_state::fresh && p->knows_us);
}

/// All that keeps a one-sided post off the common path.
inline bool rma_ready(const iface *f, const ep *e, const peer *p) noexcept
{
    return e->gate == 0 && e->fence_waits == 0 && e->fence_seen == f->fence_epoch + e->slow->fence_epoch &&
           rma_reaches(p) && p->slow != &peer_slow_idle && p->slow->rma_outstanding() < f->rma.per_peer &&
           f->tx.sq_free != 0 && f->ops.top() != nullptr;
}

/// Why the common path was not taken; UCS_OK if nothing of it holds any more.
[[gnu::noinline, gnu::cold]] ucs_status_t rma_admit(iface *f, ep *e, peer *p) noexcept
{
    if (e->gate & gate_failed) {
        return p->status();
    }
    if (e->gate & gate_pending) {
        return UCS_ERR_NO_RESOURCE; // what waits goes first
    }
    if (!rma_hello(f, p)) {
        return ep_refuse(f, e, reason_hello); // RMA-3, WIRE 4.8
    }
    if (!fence_observe(f, e)) {
        return UCS_ERR_NO_MEMORY;
    }
    if (!fence_rma_over(f, e)) {
        return ep_refuse(f, e, reason_fence);
    }
    if (!fence_consumed_over(f, e)) {
        return ep_refuse(f, e, reason_consumed);
    }
    if (f->peers.slow_get(p) == nullptr) {
        return UCS_ERR_NO_MEMORY;
    }
    if (p->slow->rma_outstanding() >= f->rma.per_peer) {
        return ep_refuse(f, e, reason_share);
    }
    if (f->tx.sq_free == 0 || (f->ops.top() == nullptr && !f->ops.grow())) {
        return ep_refuse(f, e, reason_queue);
    }
    return UCS_OK;
}

/// The top record, whose pieces are filled in, is used and posted. It cannot fail any more: what the device does not take waits.
inline void rma_commit(iface *f, ep *e, peer *p, op_kind kind, uct_rkey_t rkey, std::uint32_t size) noexcept
{
    op *o                = f->ops.top();
    peer_slow *s         = const_cast<peer_slow *>(p->slow); // its own: rma_ready or rma_admit has seen to that
    const std::uint8_t g = s->rma_turn & 1;

    o->owner       = p;
    o->imm         = uct_srd_rkey_key(rkey);
    o->length      = 0;
    o->kind        = kind;
    o->done        = false;
    o->waiting     = false;
    o->cancelled   = false;
    o->user        = true;
    o->retried     = false;
    o->rma_group   = g & 1;
    o->unused      = 0;
    o->ep          = e;

    f->ops.take(o);
    --f->tx.sq_free;
    ++f->tx.outstanding;
    ++s->rma_count[g];
    p->tx.push_marker(o);
    p->tx.hold(); // RMA-2
    count(f, is_read(kind) ? counter::tx_get : counter::tx_put);
    count(f, counter::rma_bytes, size);
    if (rma_post(f, p, o) != 0) [[unlikely]] {
        tx_post_deferred(f, o);
    }
}

/// An operation with one piece of local memory.
inline void rma_start(iface *f, ep *e, peer *p, op_kind kind, std::uint64_t remote, uct_rkey_t rkey, std::uint32_t size,
                      std::uint32_t lkey, uct_completion_t *comp) noexcept
{
    op *o          = f->ops.top();
    o->ref.comp    = comp;
    o->ref.address = remote;
    o->ref.size    = size;
    o->ref.lkey    = lkey;
    rma_commit(f, e, p, kind, rkey, size);
}

inline bool iov_is_one(const uct_iov_t *iov, size_t iovcnt) noexcept
{
    return iovcnt <= 1 && (iovcnt == 0 || iov[0].count <= 1);
}

/// Both zero-copy operations.
inline ucs_status_t rma_zcopy(uct_ep_h tl_ep, op_kind kind, const char *what, const uct_iov_t *iov, size_t iovcnt,
                              std::uint64_t remote, uct_rkey_t rkey, uct_completion_t *comp) noexcept
{
    iface *f = iface_of(tl_ep);
    ep *e    = ep_of(tl_ep);
    peer *p  = e->owner;

    if (!iov_is_one(iov, iovcnt)) [[unlikely]] {
        return tx_invalid_iov(iovcnt);
    }
    const size_t size = iovcnt == 0 ? 0 : iov[0].length * iov[0].count;
    if (size == 0) [[unlikely]] {
        return UCS_OK;
    }
    if (size > f->rma.zcopy_max) [[unlikely]] {
        return tx_invalid_length(what, size, f->rma.zcopy_max);
    }
    if (!rma_ready(f, e, p)) [[unlikely]] {
        const ucs_status_t status = rma_admit(f, e, p);
        if (status != UCS_OK) {
            return status;
        }
    }
    f->ops.top()->ref.local = reinterpret_cast<std::uintptr_t>(iov[0].buffer);
    rma_start(f, e, p, kind, remote, rkey, static_cast<std::uint32_t>(size), uct_srd_memh_lkey(iov[0].memh), comp);
    return UCS_INPROGRESS;
}

/// Resources and a bounce buffer for a buffered operation; the buffer stays in the free list until rma_start_buf.
inline ucs_status_t rma_admit_buf(iface *f, ep *e, peer *p, tx_buf *&buf) noexcept
{
    if (!rma_ready(f, e, p)) [[unlikely]] {
        const ucs_status_t status = rma_admit(f, e, p);
        if (status != UCS_OK) {
            return status;
        }
    }
    buf = tx_buf_top(f);
    return buf != nullptr ? UCS_OK : tx_no_buf(f, e);
}

inline void rma_start_buf(iface *f, ep *e, peer *p, op_kind kind, tx_buf *buf, std::uint64_t remote, uct_rkey_t rkey,
                          std::uint32_t size, uct_completion_t *comp) noexcept
{
    f->ops.top()->ref.buf = buf;
    f->tx.bufs            = buf->next;
    rma_start(f, e, p, kind, remote, rkey, size, buf->lkey, comp);
}

/// A short write that needs neither a buffer nor a read of memory by the device.
inline ucs_status_t rma_put_inline(iface *f, ep *e, peer *p, const void *buffer, unsigned length, std::uint64_t remote,
                                   uct_rkey_t rkey) noexcept
{
    if (!rma_ready(f, e, p)) [[unlikely]] {
        const ucs_status_t status = rma_admit(f, e, p);
        if (status != UCS_OK) {
            return status;
        }
    }
    op *o          = f->ops.top();
    o->put.address = remote;
    o->put.size    = length;
    base::copy_small(op_put_bytes(o), buffer, length);
    rma_commit(f, e, p, op_kind::put_inline, rkey, length);
    return UCS_OK;
}

/// The target's device has no address handle for us: the hello makes it create one. False: often enough.
bool rma_unknown(iface *f, op *o) noexcept
{
    peer *p = o->owner;

    if (o->length >= unknown_retries_max) {
        return false;
    }
    const unsigned doublings = o->length < 8 ? o->length : 8;
    ++o->length;
    o->waiting = true;
    ++p->waiting_count;
    ++f->peers.slow_get(p)->nonce; // a new question: the last one was answered
    control_want(f, p, want_hello);
    timer_arm(f, p, base::clock_now_ns() + (base::us(50) << doublings));
    return true;
}

} // namespace

// --- posting and completion ------------------------------------------------------------------------------------------------

int rma_post(iface *f, const peer *p, const op *o) noexcept
{
    ibv_qp_ex *qp = f->rma.qp;
    if (o->kind == op_kind::put_inline) {
        ibv_wr_start(qp);
        qp->wr_id    = reinterpret_cast<std::uintptr_t>(o);
        qp->wr_flags = IBV_SEND_SIGNALED;
        ibv_wr_rdma_write(qp, o->imm, o->put.address);
        ibv_wr_set_ud_addr(qp, p->ah, p->qpn, p->qkey);
        ibv_wr_set_inline_data(qp, op_put_bytes(const_cast<op *>(o)), o->put.size); // verbs takes it without const
        return ibv_wr_complete(qp);
    }
    const std::uint64_t local = is_buffered(o->kind) ? reinterpret_cast<std::uintptr_t>(o->ref.buf->payload) : o->ref.local;

    ibv_wr_start(qp);
    qp->wr_id    = reinterpret_cast<std::uintptr_t>(o);
    qp->wr_flags = IBV_SEND_SIGNALED;
    if (is_read(o->kind)) {
        ibv_wr_rdma_read(qp, o->imm, o->ref.address);
    } else {
        ibv_wr_rdma_write(qp, o->imm, o->ref.address);
    }
    ibv_wr_set_ud_addr(qp, p->ah, p->qpn, p->qkey);
    ibv_wr_set_sge(qp, o->ref.lkey, local, o->ref.size);
    return ibv_wr_complete(qp);
}

void rma_finish(iface *f, op *o, ucs_status_t status) noexcept
{
    const bool cancelled = o->cancelled;
    const bool counted   = holds_user(o->kind);
    ep *e                = o->ep;

    --f->peers.slow_get(o->owner)->rma_count[o->rma_group]; // RMA-1; it has one while the sum is not 0
    if (is_buffered(o->kind)) {
        tx_buf *buf = o->ref.buf;
        if (o->kind == op_kind::get_buf && status == UCS_OK) {
            unpacking u;
            std::memcpy(&u, buf->headroom, sizeof(u));
            u.unpack(u.arg, buf->payload, o->ref.size);
        }
        tx_buf_put(f, buf);
    }
    if (!counted) {
        return;
    }
    uct_completion_t *comp = o->ref.comp;
    o->ref.comp            = nullptr;
    complete_user(comp, cancelled && status != UCS_OK ? UCS_ERR_CANCELED : status);
    if (cancelled && e != nullptr && o->ep == e) [[unlikely]] { // the callback may have destroyed the endpoint
        cancel_step(f, e);
    }
}

ucs_status_t rma_error(iface *f, op *o, const error_meaning &e, std::uint32_t device_status) noexcept
{
    constexpr std::uint32_t status_unknown_initiator = 14; // HA-10
    peer *p                                          = o->owner;

    if (device_status == status_unknown_initiator && o->cancelled) {
        count(f, counter::tx_failed);
        return UCS_ERR_CANCELED; // certainly not done: nothing is lost, and the peer's other endpoints go on
    }
    if (device_status == status_unknown_initiator && rma_unknown(f, o)) {
        count(f, counter::rma_unknown);
        return UCS_INPROGRESS;
    }
    count(f, counter::tx_failed);
    // Only an operation with a completion can be reported by itself; the loss of any other would be silent.
    if (e.whose == fault::operation && holds_user(o->kind) && (o->ref.comp != nullptr || o->cancelled)) {
        ucs_debug("srd: a one-sided operation of %u bytes failed: %s (device status %u): %s", o->ref.size, e.meaning,
                  device_status, e.cause);
        return e.status;
    }
    peer_fail(f, p, e.status, e.meaning, e.cause, device_status);
    return p->status();
}

void rma_withdraw(iface *f, op *o, ucs_status_t status) noexcept
{
    peer *p = o->owner;

    if (o->waiting) {
        o->waiting = false;
        --p->waiting_count;
    }
    if (o->user) {
        o->user = false;
        --f->tx.outstanding;
    }
    o->done = true;
    control_want(f, p, want_repost); // leaves the FIFO from there: the caller walks it
    rma_finish(f, o, status);
    o->kind = op_kind::am_inline; // nothing of it is left: whoever walks the FIFO passes it
}

// --- gates -------------------------------------------------------------------------------------------------------------------

void rma_attached(iface *f, peer *p) noexcept
{
    if (f->rma.expected && (f->rma.put || f->rma.get)) {
        (void)rma_hello(f, p);
        control_hello_now(f, p); // a program that puts and gets may not call us for long, and the peer may have asked already
    }
}

bool rma_hello(iface *f, peer *p) noexcept
{
    if (p->state != peer_state::fresh || p->knows_us) {
        return true; // a failed peer: the post says so
    }
    if (p->slow->hello_due == 0) {
        const base::time_ns due = base::clock_now_ns() + f->hello_interval;
        if (peer_slow *s = f->peers.slow_get(p)) { // else no memory: timer_arm has it tried again
            s->hello_due = due;
        }
        timer_arm(f, p, due);
        control_want(f, p, want_hello);
    }
    return false;
}

bool fence_raise(ep *e) noexcept
{
    const peer *p = e->owner;
    ep_slow *s    = ep_slow_get(e);

    if (s == nullptr) {
        return false;
    }
    // A later fence waits for all that an earlier one waits for.
    e->fence_turn  = p->slow->rma_turn;
    s->fence_psn   = p->tx.next();
    e->fence_waits = fence_wait_rma | fence_wait_consumed;
    return true;
}

bool fence_observe(const iface *f, ep *e) noexcept
{
    const ep_slow *s          = e->slow;
    const std::uint32_t total = f->fence_epoch + s->fence_epoch;
    const std::uint32_t epoch = e->in_turn && total == s->turn_total ? s->turn_epoch : total; // a fence inside a turn is new

    if (e->fence_seen != epoch) {
        if (!fence_raise(e)) {
            return false;
        }
        e->fence_seen = epoch;
    }
    return true;
}

bool fence_rma_over(iface *f, ep *e) noexcept
{
    if (!(e->fence_waits & fence_wait_rma)) {
        return true;
    }
    peer *p = e->owner;
    if (p->slow->rma_outstanding() != 0) {
        peer_slow *s           = f->peers.slow_get(p); // it has one
        const unsigned current = s->rma_turn & 1;
        // Groups that were closed since; modulo 256, which can only make it wait for more.
        const auto ago = static_cast<std::uint8_t>(s->rma_turn - e->fence_turn);

        if (ago == 0 && s->rma_count[current] != 0) {
            if (s->rma_count[current ^ 1] == 0) {
                ++s->rma_turn; // closed: what is posted from now on is not waited for
            }
            return false;
        }
        if (ago <= 1 && s->rma_count[current ^ 1] != 0) {
            return false; // a group is closed only when the one before it is empty: older ones are
        }
    }
    e->fence_waits &= fence_wait_consumed;
    return true;
}

namespace {

/// Whether psn `a` is older than psn `b`, neither newer than `next`. Not is_before(): a fence may lie further back than half of
/// the number space, if only messages followed it.
bool is_older(base::seq32 next, base::seq32 a, base::seq32 b) noexcept
{
    return (next - a.raw()).raw() > (next - b.raw()).raw();
}

} // namespace

bool fence_consumed_over(iface *f, ep *e) noexcept
{
    if (!(e->fence_waits & fence_wait_consumed)) {
        return true;
    }
    peer *p                    = e->owner;
    const base::seq32 next     = p->tx.next();
    const base::seq32 consumed = p->tx.consumed(); // never further back than a window and a grant

    if (p->slow->asked && !is_older(next, consumed, p->slow->consumed_asked)) {
        f->peers.slow_get(p)->asked = false;
    }
    if (!is_older(next, consumed, e->slow->fence_psn)) {
        e->fence_waits &= fence_wait_rma;
        return true;
    }
    if (p->slow->asked && !is_older(next, p->slow->consumed_asked, e->slow->fence_psn)) {
        return false;
    }
    peer_slow *s = f->peers.slow_get(p);
    if (s != nullptr && p->state == peer_state::open && tx_send_nop(f, p, wire::imm_want_consumed)) { // WIRE 6.7
        s->consumed_asked = p->tx.next();
        s->asked          = true;
    }
    return false;
}

} // namespace srd

// --- operations --------------------------------------------------------------------------------------------------------------

using namespace srd;

extern "C" ucs_status_t uct_srd_ep_put_short(uct_ep_h tl_ep, const void *buffer, unsigned length, uint64_t remote,
                                             uct_rkey_t rkey) noexcept
{
    iface *f = iface_of(tl_ep);
    ep *e    = ep_of(tl_ep);
    tx_buf *buf;

    if (length == 0) [[unlikely]] {
        return UCS_OK;
    }
    if (length > f->rma.short_max) [[unlikely]] {
        return tx_invalid_length("a short put", length, f->rma.short_max);
    }
    if (length <= f->rma.inline_max) {
        return rma_put_inline(f, e, e->owner, buffer, length, remote, rkey);
    }
    const ucs_status_t status = rma_admit_buf(f, e, e->owner, buf);
    if (status != UCS_OK) [[unlikely]] {
        return status;
    }
    base::copy_small(buf->payload, buffer, length);
    rma_start_buf(f, e, e->owner, op_kind::put_buf, buf, remote, rkey, length, nullptr);
    return UCS_OK;
}

extern "C" ssize_t uct_srd_ep_put_bcopy(uct_ep_h tl_ep, uct_pack_callback_t pack_cb, void *arg, uint64_t remote,
                                        uct_rkey_t rkey) noexcept
{
    iface *f = iface_of(tl_ep);
    ep *e    = ep_of(tl_ep);
    tx_buf *buf;

    const ucs_status_t status = rma_admit_buf(f, e, e->owner, buf);
    if (status != UCS_OK) [[unlikely]] {
        return status;
    }
    const size_t size = pack_cb(buf->payload, arg);
    if (size != 0) [[likely]] {
        rma_start_buf(f, e, e->owner, op_kind::put_buf, buf, remote, rkey, static_cast<std::uint32_t>(size), nullptr);
    }
    return static_cast<ssize_t>(size);
}

extern "C" ucs_status_t uct_srd_ep_put_zcopy(uct_ep_h ep, const uct_iov_t *iov, size_t iovcnt, uint64_t remote,
                                             uct_rkey_t rkey, uct_completion_t *comp) noexcept
{
    return rma_zcopy(ep, op_kind::put_zcopy, "a zero-copy put", iov, iovcnt, remote, rkey, comp);
}

extern "C" ucs_status_t uct_srd_ep_get_bcopy(uct_ep_h tl_ep, uct_unpack_callback_t unpack_cb, void *arg, size_t length,
                                             uint64_t remote, uct_rkey_t rkey, uct_completion_t *comp) noexcept
{
    iface *f = iface_of(tl_ep);
    ep *e    = ep_of(tl_ep);
    tx_buf *buf;

    if (length == 0) [[unlikely]] {
        return UCS_OK;
    }
    if (length > f->rma.bcopy_max) [[unlikely]] {
        return tx_invalid_length("a buffered get", length, f->rma.bcopy_max);
    }
    const ucs_status_t status = rma_admit_buf(f, e, e->owner, buf);
    if (status != UCS_OK) [[unlikely]] {
        return status;
    }
    const unpacking u{unpack_cb, arg};
    std::memcpy(buf->headroom, &u, sizeof(u));
    rma_start_buf(f, e, e->owner, op_kind::get_buf, buf, remote, rkey, static_cast<std::uint32_t>(length), comp);
    return UCS_INPROGRESS;
}

extern "C" ucs_status_t uct_srd_ep_get_zcopy(uct_ep_h ep, const uct_iov_t *iov, size_t iovcnt, uint64_t remote,
                                             uct_rkey_t rkey, uct_completion_t *comp) noexcept
{
    return rma_zcopy(ep, op_kind::get_zcopy, "a zero-copy get", iov, iovcnt, remote, rkey, comp);
}
