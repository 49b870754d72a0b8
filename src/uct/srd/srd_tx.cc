/* The sending half of the data path after the post: completions, refusals, posting again; and what posters share off the
 * common way.
 *
 * Owns: the life of a record from its post to its leaving the FIFO; longer headers; empty messages in sequence.
 * Refuses to know: whose message it was (srd_am, srd_rma), control messages (srd_control), failure policy (srd_ep).
 */
#include "uct/srd/srd_rma.h"
#include "uct/srd/srd_tx.h"

#include <cerrno>
#include <endian.h>

namespace srd {

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
    return ep_refuse(f, e, reason_buf);
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
    const std::uint32_t imm =
        wire::imm_make(static_cast<unsigned>(wire::control::nop), p->tx.next(), wire::imm_control | flags);
    op_init(o, nullptr, p, imm, wire::index_size, op_kind::am_inline);
    o->user = false; // no flush waits for it
    base::store_le<std::uint32_t>(o->bytes, p->index_remote);
    f->ops.take(o);
    --f->tx.sq_free;
    p->tx.push_held(o);
    count(f, counter::tx_control);
    if (tx_post_inline(f, p, o, imm, o->bytes, wire::index_size) != 0) {
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
    return size <= f->tx.inline_max ? tx_post_inline(f, p, o, o->imm, bytes, size) :
                                      tx_post_pieces(f, p, o, o->imm, bytes, size, o->ref.buf->lkey, 1);
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
            rc = tx_post_inline(f, p, o, o->imm, o->bytes, o->length);
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
            rc = tx_post_pieces(f, p, o, o->imm, o->ref.buf->payload - header_size, o->length, o->ref.buf->lkey, piece_count);
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
