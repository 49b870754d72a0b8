/* The sending half of the data path: active messages out, completions in.
 *
 * Owns: building work requests, the four ways to send an active message, what happens when one completes, fails, or is
 * posted again. On the common way from a post to its return nothing allocates, locks or logs; off it pools grow, and a
 * caller's mistake is named.
 * Refuses to know: which receiver-side state a header leads to (srd_rx), control messages (srd_control), failure policy (srd_ep).
 *
 * How a post works: one test of four things (the endpoint's gate, the peer's window, a send queue slot, a record) takes
 * the common path. Anything else goes to tx_admit, which says why not, or which longer header the message needs: a peer
 * that has not answered hello, or is owed credits, holds its window (tx_window::hold) so that its sends come here.
 *
 * ibv_post_send and not ibv_wr_*: one indirect call and one prepared request against five to six indirect calls.
 */
#include "uct/srd/srd_rma.h"

#include <cerrno>
#include <endian.h>

namespace srd {

namespace {

/// The four shortages and states that keep a post off the common path.
inline bool tx_ready(const iface *f, const ep *e, const peer *p) noexcept
{
    return e->gate == 0 && p->tx.can_send() && f->tx.sq_free != 0 && f->ops.top() != nullptr;
}

/// Why the common path was not taken: an error, or UCS_OK and the flags of the header that is needed.
[[gnu::noinline, gnu::cold]] ucs_status_t tx_admit(iface *f, ep *e, peer *p, std::uint32_t &flags) noexcept
{
    if (e->gate & gate_failed) {
        return p->status();
    }
    if (e->gate & gate_pending) {
        return UCS_ERR_NO_RESOURCE; // what waits goes first
    }
    if (f->tx.sq_free == 0 || (f->ops.top() == nullptr && !f->ops.grow())) {
        e->reasons |= reason_queue;
        count(f, counter::tx_no_resource);
        return UCS_ERR_NO_RESOURCE;
    }
    const bool one_sided = p->slow->rma_outstanding() != 0;
    if (one_sided) {
        fence_observe(f, e);
        if (!fence_rma_over(f, e)) {
            e->reasons |= reason_fence;
            count(f, counter::tx_no_resource);
            return UCS_ERR_NO_RESOURCE;
        }
    }
    if (!tx_window_recheck(f, p)) {
        e->reasons |= reason_window;
        count(f, counter::tx_no_resource);
        if (!p->in_timers) { // with nothing outstanding, only a probe can tell that the grants will never come
            timer_arm(f, p, base::clock_now_ns() + limits::stall_probe_ns);
        }
        return UCS_ERR_NO_RESOURCE;
    }
    flags = p->state == peer_state::fresh ? wire::imm_long : (p->want & want_credit) ? wire::imm_credit : 0;
    if (flags == 0) {
        one_sided ? p->tx.admit_one() : (void)p->tx.refresh(); // RMA-2
    }
    return UCS_OK;
}

/// After a message with a longer header was posted.
[[gnu::noinline, gnu::cold]] void tx_posted_long(iface *f, peer *p, std::uint32_t flags) noexcept
{
    if (flags & wire::imm_credit) {
        p->want &= static_cast<std::uint8_t>(~want_credit); // renewed while the header was written
        if (p->slow->rma_outstanding() == 0) { // RMA-2
            p->tx.refresh();
        }
        return;
    }
    if (p->slow->hello_due == 0) { // the long header asks as a hello does; if nothing comes back, a hello follows
        const base::time_ns due = base::clock_now_ns() + f->hello_interval;
        timer_arm(f, p, due);
        if (p->slow != &peer_slow_idle) { // else the timer will set it
            f->peers.slow_get(p)->hello_due = due;
        }
    }
}

/// A caller's mistake: it is named, nothing is changed.
[[gnu::noinline, gnu::cold]] ucs_status_t tx_invalid_id(unsigned id) noexcept
{
    ucs_error("srd: invalid active message id %u: must be less than %u", id, static_cast<unsigned>(UCT_AM_ID_MAX));
    return UCS_ERR_INVALID_PARAM;
}

inline int tx_post_inline(iface *f, const peer *p, op *o, const void *bytes, unsigned size) noexcept
{
    ibv_send_wr &wr = f->tx.inline_wr;

    f->tx.inline_sge.addr   = reinterpret_cast<std::uintptr_t>(bytes);
    f->tx.inline_sge.length = size;
    wr.wr_id                = reinterpret_cast<std::uintptr_t>(o);
    wr.imm_data             = htobe32(o->imm);
    wr.wr.ud.ah             = p->ah;
    wr.wr.ud.remote_qpn     = p->qpn;
    wr.wr.ud.remote_qkey    = p->qkey;
    return ibv_post_send(f->tx.qp, &wr, &f->tx.bad_wr);
}

inline int tx_post_pieces(iface *f, const peer *p, op *o, const void *bytes, unsigned size, std::uint32_t lkey,
                          int piece_count) noexcept
{
    ibv_send_wr &wr = f->tx.wr;

    f->tx.sge[0].addr    = reinterpret_cast<std::uintptr_t>(bytes);
    f->tx.sge[0].length  = size;
    f->tx.sge[0].lkey    = lkey;
    wr.num_sge           = piece_count;
    wr.wr_id             = reinterpret_cast<std::uintptr_t>(o);
    wr.imm_data          = htobe32(o->imm);
    wr.wr.ud.ah          = p->ah;
    wr.wr.ud.remote_qpn  = p->qpn;
    wr.wr.ud.remote_qkey = p->qkey;
    return ibv_post_send(f->tx.qp, &wr, &f->tx.bad_wr);
}

inline void op_init(op *o, ep *e, peer *p, std::uint32_t imm, unsigned size, op_kind kind) noexcept
{
    o->owner     = p;
    o->imm       = imm;
    o->length    = static_cast<std::uint16_t>(size);
    o->kind      = kind;
    o->done      = false;
    o->sequenced = true;
    o->waiting   = false;
    o->cancelled = false;
    o->user      = true;
    o->retried   = false;
    o->rma_group = 0;
    o->unused    = 0;
    o->ep        = e;
}

/// The record, the psn and the slot are used; the post follows and cannot fail any more.
inline void tx_commit(iface *f, peer *p, op *o, unsigned payload_size, std::uint32_t flags) noexcept
{
    f->ops.take_top();
    --f->tx.sq_free;
    ++f->tx.outstanding;
    if (flags == 0) [[likely]] {
        p->tx.push(o);
    } else {
        p->tx.push_held(o);
    }
    count(f, counter::tx_am);
    count(f, counter::tx_bytes, payload_size);
}

/// The first piece of a buffered message: its header is written in front of the payload that is there already.
inline void tx_send_buf(iface *f, ep *e, peer *p, op *o, tx_buf *buf, std::uint8_t id, unsigned first_payload,
                                std::uint32_t flags, op_kind kind, int piece_count, unsigned payload_size) noexcept
{
    const std::uint32_t imm = wire::imm_make(id, p->tx.next(), flags);
    unsigned header_size    = wire::index_size;

    if (flags == 0) [[likely]] {
        base::store_le<std::uint32_t>(buf->payload - wire::index_size, p->index_remote);
    } else {
        header_size = tx_put_header(f, p, buf->payload, flags);
    }
    op_init(o, e, p, imm, header_size + first_payload, kind);
    o->ref.buf = buf;
    f->tx.bufs = buf->next;
    tx_commit(f, p, o, payload_size, flags);
    if (flags != 0) [[unlikely]] {
        tx_posted_long(f, p, flags);
    }
    if (tx_post_pieces(f, p, o, buf->payload - header_size, header_size + first_payload, buf->lkey, piece_count) != 0)
        [[unlikely]] {
        tx_post_deferred(f, o);
    }
}

/// Any short that is not inline after a short header: copied, with whatever header the peer needs.
template <class Fill>
[[gnu::noinline]] ucs_status_t tx_short_by_copy(iface *f, ep *e, std::uint8_t id, unsigned size, Fill fill) noexcept
{
    peer *p             = e->owner;
    std::uint32_t flags = 0;

    if (!tx_ready(f, e, p)) {
        const ucs_status_t status = tx_admit(f, e, p, flags);
        if (status != UCS_OK) {
            return status;
        }
    }
    tx_buf *buf = tx_buf_top(f);
    if (buf == nullptr) [[unlikely]] {
        return tx_no_buf(f, e);
    }
    fill(buf->payload);
    tx_send_buf(f, e, p, f->ops.top(), buf, id, size, flags, op_kind::am_buf, 1, size);
    return UCS_OK;
}

} // namespace

// --- helpers for the other halves --------------------------------------------------------------------------------------

[[gnu::cold]] ucs_status_t tx_invalid_length(const char *what, size_t length, size_t max) noexcept
{
    ucs_error("srd: invalid length of %s: %zu, at most %zu are possible", what, length, max);
    return UCS_ERR_INVALID_PARAM;
}

[[gnu::cold]] ucs_status_t tx_invalid_iov(size_t iovcnt) noexcept
{
    ucs_error("srd: invalid iov: %zu entries, at most one contiguous entry is possible", iovcnt);
    return UCS_ERR_INVALID_PARAM;
}

[[gnu::cold]] ucs_status_t tx_no_buf(iface *f, ep *e) noexcept
{
    e->owner->tx.hold(); // RMA-2: tx_admit may have let one through, and this was not it
    if (f->tx_bufs.total() == 0) {
        return UCS_ERR_NO_MEMORY; // there is none that could come back
    }
    e->reasons |= reason_buf;
    count(f, counter::tx_no_resource);
    return UCS_ERR_NO_RESOURCE;
}

[[gnu::cold]] void tx_post_deferred(iface *f, op *o) noexcept
{
    peer *p = o->owner;

    ++f->tx.sq_free;
    o->waiting = true;
    ++p->waiting_count;
    p->tx.hold();
    control_want(f, p, want_repost);
}

bool tx_window_recheck(iface *f, peer *p) noexcept
{
    if (tx_window_open(p)) {
        return true;
    }
    if (p->slow->rma_outstanding() == 0 || f->polling) { // a completion may be at work on one of the records
        return false;
    }
    p->tx.compact([f](op *o) { f->ops.put(o); });
    return tx_window_open(p);
}

bool tx_send_nop(iface *f, peer *p, std::uint32_t flags) noexcept
{
    if (f->tx.sq_free == 0 || (f->ops.top() == nullptr && !f->ops.grow()) || !tx_window_recheck(f, p)) {
        return false;
    }
    op *o = f->ops.top();
    op_init(o, nullptr, p, wire::imm_make(static_cast<unsigned>(wire::control::nop), p->tx.next(), wire::imm_control | flags),
            wire::index_size, op_kind::am_inline);
    o->user = false; // no flush waits for it
    base::store_le<std::uint32_t>(o->bytes, p->index_remote);
    f->ops.take_top();
    --f->tx.sq_free;
    p->tx.push_held(o);
    count(f, counter::tx_control);
    if (tx_post_inline(f, p, o, o->bytes, wire::index_size) != 0) {
        tx_post_deferred(f, o);
    }
    return true;
}

tx_buf *tx_buf_get(iface *f) noexcept
{
    if (f->tx.bufs == nullptr && (!f->tx_bufs.can_grow() || !f->tx_bufs.grow())) {
        return nullptr;
    }
    tx_buf *buf = f->tx.bufs;
    f->tx.bufs  = buf->next;
    return buf;
}

unsigned tx_put_header(iface *f, peer *p, unsigned char *payload, std::uint32_t flags) noexcept
{
    if ((flags & (wire::imm_long | wire::imm_credit)) == 0) {
        base::store_le<std::uint32_t>(payload - wire::index_size, p->index_remote);
        return wire::index_size;
    }
    // WIRE 6.3: whatever carries credits carries the newest ones.
    grant_renew(f, p);
    const wire::credit grant{p->rx.expected(), p->credit.limit()};
    if (flags & wire::imm_credit) {
        constexpr unsigned size = wire::index_size + wire::credit_size;
        base::store_le<std::uint32_t>(payload - size, p->index_remote);
        wire::put_credit(payload - wire::credit_size, grant);
        return size;
    }
    wire::long_header h;
    h.index       = p->index_remote;
    h.nonce       = p->slow->nonce;
    h.qkey        = f->qkey;
    h.epoch       = f->peers.epoch_local(p);
    h.known_epoch = p->epoch_remote;
    h.your_index  = p->index_local();
    h.gid         = f->gid;
    h.grant       = grant;
    wire::put_long(payload - wire::long_size, h);
    return wire::long_size;
}

int tx_post_control(iface *f, peer *p, op *o, const unsigned char *bytes, unsigned size) noexcept
{
    return size <= f->tx.inline_max ? tx_post_inline(f, p, o, bytes, size) :
                                      tx_post_pieces(f, p, o, bytes, size, o->ref.buf->lkey, 1);
}

// --- completions ---------------------------------------------------------------------------------------------------------

void tx_drain(iface *f, peer *p) noexcept
{
    while (op *o = p->tx.pop()) {
        if (o->kind == op_kind::marker) [[unlikely]] {
            uct_completion_t *comp = o->ref.comp;
            f->ops.put(o);
            complete_user(comp, p->status()); // may post, flush or destroy endpoints: nothing of `o` is used after it
        } else {
            f->ops.put(o);
        }
    }
}

namespace {

/// A refused message got through: the next refusal starts with a short delay again, and what else waits may follow.
[[gnu::noinline, gnu::cold]] void tx_rnr_over(iface *f, peer *p) noexcept
{
    if (p->waiting_count != 0) {
        control_want(f, p, want_repost);
    }
    if (p->slow != &peer_slow_idle) {
        peer_slow *s = f->peers.slow_get(p);
        s->rnr_since = 0;
        s->backoff   = 0;
        f->peers.slow_put_idle(p);
    }
}

inline void tx_finish(iface *f, op *o, ucs_status_t status) noexcept
{
    peer *p = o->owner;

    f->tx.outstanding -= o->user;
    o->done = true;
    if (is_one_sided(o->kind)) {
        rma_finish(f, o, status);
    } else if (o->kind != op_kind::am_inline) {
        tx_buf_put(f, o->ref.buf);
        if (o->kind == op_kind::am_zcopy) {
            uct_completion_t *comp = o->ref.comp;
            const bool cancelled   = o->cancelled;
            o->ref.comp            = nullptr;
            complete_user(comp, cancelled && status != UCS_OK ? UCS_ERR_CANCELED : status);
            if (cancelled && o->ep != nullptr) [[unlikely]] { // the callback may have destroyed the endpoint
                cancel_step(f, o->ep);
            }
        }
    }
    if (p->tx.head() == o) {
        tx_drain(f, p);
    }
}

} // namespace

void tx_complete_uncommon(iface *f, op *o) noexcept
{
    if (o->kind == op_kind::control) [[unlikely]] {
        control_complete(f, o);
        return;
    }
    ++f->tx.sq_free;
    if (o->retried) [[unlikely]] {
        tx_rnr_over(f, o->owner);
    }
    tx_finish(f, o, UCS_OK);
}

void tx_withdraw(iface *f, op *o, ucs_status_t status) noexcept
{
    if (is_one_sided(o->kind)) {
        rma_withdraw(f, o, status);
        return;
    }
    // WIRE 5.6: the psn must arrive, or everything behind it waits for ever. The header stays as it was; the payload goes.
    const std::uint32_t kept_flags = o->imm & (wire::imm_long | wire::imm_credit);
    const bool had_comp            = o->kind == op_kind::am_zcopy;
    uct_completion_t *comp         = had_comp ? o->ref.comp : nullptr;

    o->imm    = (o->imm & 0xffffu) | kept_flags | wire::imm_control |
                (static_cast<std::uint32_t>(wire::control::nop) << wire::imm_id_shift);
    o->length = (kept_flags & wire::imm_long) ? wire::long_size :
                (kept_flags & wire::imm_credit) ? wire::index_size + wire::credit_size : wire::index_size;
    if (had_comp) {
        o->kind     = op_kind::am_buf;
        o->ref.comp = nullptr;
    }
    if (o->user) {
        o->user = false;
        --f->tx.outstanding;
    }
    if (had_comp) {
        complete_user(comp, status);
    }
}

namespace {

void tx_not_ready(iface *f, op *o) noexcept
{
    peer *p                 = o->owner;
    const base::time_ns now = base::clock_now_ns();

    count(f, counter::tx_rnr);
    o->retried = true;
    peer_slow *s = f->peers.slow_get(p);
    if (s != nullptr && s->rnr_since == 0) {
        s->rnr_since = now;
    }
    if (o->cancelled) {
        tx_withdraw(f, o, UCS_ERR_CANCELED);
        o->cancelled = false;
        if (o->ep != nullptr) {
            cancel_step(f, o->ep);
        }
        if (p->state == peer_state::failed) { // by a callback: peer_fail took this one for held by the device
            tx_finish(f, o, p->status());
            return;
        }
    }
    o->waiting = true;
    ++p->waiting_count;
    if (f->rnr_timeout != 0 && p->slow->rnr_since != 0 && now - p->slow->rnr_since > f->rnr_timeout) {
        peer_fail(f, p, UCS_ERR_ENDPOINT_TIMEOUT, "receiver not ready",
                  "the peer posted no receive for longer than UCX_SRD_RNR_TIMEOUT", 10);
        return;
    }
    p->tx.hold(); // new sends would only be refused as well
    // One delay for all that are refused at about the same time.
    const base::time_ns due = now + (base::us(20) << p->slow->backoff);
    if (p->slow->timer_due == 0 || p->slow->timer_due > due) {
        timer_arm(f, p, due);
        peer_backoff(f, p);
    }
}

} // namespace

void tx_complete_error(iface *f, op *o, const ibv_wc &wc) noexcept
{
    const error_meaning e = error_of_completion(wc.status, wc.vendor_err);
    peer *p               = o->owner;

    if (o->kind == op_kind::control) {
        control_complete_error(f, o, e, wc.vendor_err);
        return;
    }
    ++f->tx.sq_free;
    if (p->state == peer_state::failed || (f->closing && e.whose != fault::not_ready)) {
        tx_finish(f, o, p->status() != UCS_OK ? p->status() : UCS_ERR_CANCELED);
        return;
    }
    if (is_one_sided(o->kind)) {
        const ucs_status_t status = rma_error(f, o, e, wc.vendor_err);
        if (status != UCS_INPROGRESS) {
            tx_finish(f, o, status);
        }
        return;
    }
    // Only a zero-copy send with a completion can be reported by itself; the loss of any other would be silent, and a NOP
    // that fails this way would fail for ever.
    const bool can_tell = o->kind == op_kind::am_zcopy && (o->ref.comp != nullptr || o->cancelled);
    const fault whose   = e.whose == fault::operation && !can_tell ? fault::peer : e.whose;
    switch (whose) {
    case fault::not_ready:
        tx_not_ready(f, o);
        return;
    case fault::operation: {
        count(f, counter::tx_failed);
        ucs_debug("srd: a send failed locally: %s (device status %u): %s", e.meaning, wc.vendor_err, e.cause);
        const bool cancelled = o->cancelled;
        tx_withdraw(f, o, cancelled ? UCS_ERR_CANCELED : e.status);
        o->cancelled = false;
        if (cancelled && o->ep != nullptr) {
            cancel_step(f, o->ep);
        }
        if (p->state == peer_state::failed) { // by a callback
            tx_finish(f, o, p->status());
            return;
        }
        o->waiting = true;
        ++p->waiting_count;
        control_want(f, p, want_repost);
        return;
    }
    default:
        count(f, counter::tx_failed);
        peer_fail(f, p, e.status, e.meaning, e.cause, wc.vendor_err);
        tx_finish(f, o, p->status());
        return;
    }
}

bool tx_repost(iface *f, peer *p) noexcept
{
    // While the peer has no receives, one message finds out whether it has again; the others follow a few at a time, as those
    // before them get through: else each delay would end in as many refusals as messages wait.
    unsigned most = p->slow->rnr_since != 0 ? 1 : limits::reposts_per_turn;
    tx_drain(f, p); // one-sided records that were withdrawn leave from here, not from the callback that withdrew them
    for (op *o = p->tx.head(); o != nullptr && p->waiting_count != 0; o = o->next) {
        if (!o->waiting) {
            continue;
        }
        if (most-- == 0) {
            timer_arm(f, p, base::clock_now_ns() + base::ms(10)); // should what was sent now end some other way
            break;
        }
        if (f->tx.sq_free == 0) {
            return false;
        }
        int rc;
        if (o->kind == op_kind::am_inline) {
            rc = tx_post_inline(f, p, o, o->bytes, o->length);
        } else if (is_one_sided(o->kind)) {
            rc = rma_post(f, p, o);
        } else {
            const unsigned header_size = (o->imm & wire::imm_long) ? wire::long_size :
                                         (o->imm & wire::imm_credit) ? wire::index_size + wire::credit_size :
                                                                       wire::index_size;
            int piece_count = 1;
            if (o->kind == op_kind::am_zcopy && o->ref.size != 0) {
                f->tx.sge[1] = {o->ref.address, o->ref.size, o->ref.lkey};
                piece_count  = 2;
            }
            rc = tx_post_pieces(f, p, o, o->ref.buf->payload - header_size, o->length, o->ref.buf->lkey, piece_count);
        }
        if (rc == EINVAL || rc == EIO) [[unlikely]] {
            peer_fail(f, p, UCS_ERR_IO_ERROR, "the device refused a send", "the queue pair is in error", 0);
            return true;
        }
        if (rc != 0) {
            return false;
        }
        --f->tx.sq_free;
        --p->waiting_count;
        o->waiting = false;
        o->retried = true; // its completion lets the others follow
        count(f, counter::tx_repost);
    }
    return true;
}

} // namespace srd

// --- active messages -------------------------------------------------------------------------------------------------------

using namespace srd;

extern "C" ucs_status_t uct_srd_ep_am_short(uct_ep_h tl_ep, uint8_t id, uint64_t header, const void *payload,
                                            unsigned length) noexcept
{
    iface *f            = iface_of(tl_ep);
    ep *e               = ep_of(tl_ep);
    peer *p             = e->owner;
    const unsigned size = static_cast<unsigned>(sizeof(header)) + length;

    if (id >= UCT_AM_ID_MAX) [[unlikely]] {
        return tx_invalid_id(id);
    }
    if (length > f->tx.short_max - sizeof(header)) [[unlikely]] {
        return tx_invalid_length("a short active message", length + sizeof(header), f->tx.short_max);
    }
    if (size + wire::index_size > f->tx.inline_max || !tx_ready(f, e, p)) [[unlikely]] {
        return tx_short_by_copy(f, e, id, size, [=](unsigned char *to) {
            std::memcpy(to, &header, sizeof(header));
            base::copy_small(to + sizeof(header), payload, length);
        });
    }

    op *o = f->ops.top();
    op_init(o, e, p, wire::imm_make(id, p->tx.next(), 0), wire::index_size + size, op_kind::am_inline);
    base::store_le<std::uint32_t>(o->bytes, p->index_remote);
    std::memcpy(o->bytes + wire::index_size, &header, sizeof(header));
    base::copy_small(o->bytes + wire::index_size + sizeof(header), payload, length);
    tx_commit(f, p, o, size, 0);
    if (tx_post_inline(f, p, o, o->bytes, wire::index_size + size) != 0) [[unlikely]] {
        tx_post_deferred(f, o);
    }
    return UCS_OK;
}

extern "C" ucs_status_t uct_srd_ep_am_short_iov(uct_ep_h tl_ep, uint8_t id, const uct_iov_t *iov, size_t iovcnt) noexcept
{
    iface *f    = iface_of(tl_ep);
    ep *e       = ep_of(tl_ep);
    peer *p     = e->owner;
    size_t size = 0;

    if (id >= UCT_AM_ID_MAX) [[unlikely]] {
        return tx_invalid_id(id);
    }
    for (size_t i = 0; i < iovcnt; ++i) { // any count: they are copied (UCP passes more than max_iov, too)
        if (iov[i].length > f->tx.short_max || iov[i].count > f->tx.short_max) [[unlikely]] {
            return tx_invalid_length("a short active message", iov[i].length, f->tx.short_max);
        }
        size += iov[i].length * iov[i].count;
    }
    if (size > f->tx.short_max) [[unlikely]] {
        return tx_invalid_length("a short active message", size, f->tx.short_max);
    }
    const auto fill = [=](unsigned char *to) {
        for (size_t i = 0; i < iovcnt; ++i) {
            for (unsigned k = 0; k < iov[i].count; ++k) {
                base::copy_small(to, static_cast<const unsigned char *>(iov[i].buffer) + k * iov[i].stride, iov[i].length);
                to += iov[i].length;
            }
        }
    };
    if (size + wire::index_size > f->tx.inline_max || !tx_ready(f, e, p)) [[unlikely]] {
        return tx_short_by_copy(f, e, id, static_cast<unsigned>(size), fill);
    }

    op *o = f->ops.top();
    op_init(o, e, p, wire::imm_make(id, p->tx.next(), 0), static_cast<unsigned>(wire::index_size + size), op_kind::am_inline);
    base::store_le<std::uint32_t>(o->bytes, p->index_remote);
    fill(o->bytes + wire::index_size);
    tx_commit(f, p, o, static_cast<unsigned>(size), 0);
    if (tx_post_inline(f, p, o, o->bytes, static_cast<unsigned>(wire::index_size + size)) != 0) [[unlikely]] {
        tx_post_deferred(f, o);
    }
    return UCS_OK;
}

extern "C" ssize_t uct_srd_ep_am_bcopy(uct_ep_h tl_ep, uint8_t id, uct_pack_callback_t pack_cb, void *arg, unsigned) noexcept
{
    iface *f            = iface_of(tl_ep);
    ep *e               = ep_of(tl_ep);
    peer *p             = e->owner;
    std::uint32_t flags = 0;

    if (id >= UCT_AM_ID_MAX) [[unlikely]] {
        return tx_invalid_id(id);
    }
    if (!tx_ready(f, e, p)) [[unlikely]] {
        const ucs_status_t status = tx_admit(f, e, p, flags);
        if (status != UCS_OK) {
            return status;
        }
    }
    tx_buf *buf = tx_buf_top(f);
    if (buf == nullptr) [[unlikely]] {
        return tx_no_buf(f, e);
    }
    // Resources are certain now: pack_cb runs at most once, and only for a message that is sent.
    const size_t size = pack_cb(buf->payload, arg);
    tx_send_buf(f, e, p, f->ops.top(), buf, id, static_cast<unsigned>(size), flags, op_kind::am_buf, 1,
                static_cast<unsigned>(size));
    return static_cast<ssize_t>(size);
}

extern "C" ucs_status_t uct_srd_ep_am_zcopy(uct_ep_h tl_ep, uint8_t id, const void *header, unsigned header_length,
                                            const uct_iov_t *iov, size_t iovcnt, unsigned, uct_completion_t *comp) noexcept
{
    iface *f            = iface_of(tl_ep);
    ep *e               = ep_of(tl_ep);
    peer *p             = e->owner;
    std::uint32_t flags = 0;
    size_t size         = 0;

    if (id >= UCT_AM_ID_MAX) [[unlikely]] {
        return tx_invalid_id(id);
    }
    if (iovcnt > 1 || (iovcnt == 1 && iov[0].count > 1)) [[unlikely]] {
        return tx_invalid_iov(iovcnt); // a strided block would need a piece for each element
    }
    if (iovcnt == 1) {
        size = iov[0].length * iov[0].count;
    }
    if (header_length > f->tx.payload_max || size > f->tx.payload_max - header_length) [[unlikely]] {
        return tx_invalid_length("a zero-copy active message", header_length + size, f->tx.payload_max);
    }
    if (!tx_ready(f, e, p)) [[unlikely]] {
        const ucs_status_t status = tx_admit(f, e, p, flags);
        if (status != UCS_OK) {
            return status;
        }
    }
    tx_buf *buf = tx_buf_top(f);
    if (buf == nullptr) [[unlikely]] {
        return tx_no_buf(f, e);
    }
    base::copy_small(buf->payload, header, header_length); // null is fine for 0 bytes

    op *o           = f->ops.top();
    int piece_count = 1;
    o->ref.comp     = comp;
    o->ref.size     = static_cast<std::uint32_t>(size);
    if (size != 0) {
        o->ref.address = reinterpret_cast<std::uintptr_t>(iov[0].buffer);
        o->ref.lkey    = uct_srd_memh_lkey(iov[0].memh);
        f->tx.sge[1]   = {o->ref.address, o->ref.size, o->ref.lkey};
        piece_count    = 2;
    }
    tx_send_buf(f, e, p, o, buf, id, header_length, flags, op_kind::am_zcopy, piece_count,
                static_cast<unsigned>(header_length + size));
    return UCS_INPROGRESS;
}
