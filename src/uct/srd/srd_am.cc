/* Active messages out: the four ways to send one.
 *
 * Owns: uct_srd_ep_am_short, _short_iov, _bcopy and _zcopy, and why the common way is not taken. On that way nothing
 * allocates, locks or logs; off it pools grow, and a caller's mistake is named.
 * Refuses to know: completions, and posting again (srd_tx); which receiver-side state a header leads to (srd_rx); control
 * messages (srd_control); failure policy (srd_ep).
 *
 * How a post works: one test of four things (the endpoint's gate, the peer's window, a send queue slot, a record) takes
 * the common path. Anything else goes to tx_admit, which says why not, or which longer header the message needs: a peer
 * that has not answered hello, or is owed credits, holds its window (tx_window::hold) so that its sends come here. While
 * one-sided operations are outstanding the window is held, too: what precedes a fence must be complete first (srd_rma.h).
 */
#include "uct/srd/srd_rma.h"
#include "uct/srd/srd_tx.h"

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
        return ep_refuse(f, e, reason_queue);
    }
    const bool one_sided = p->slow->rma_outstanding() != 0;
    if (one_sided) {
        if (!fence_observe(f, e)) {
            return UCS_ERR_NO_MEMORY;
        }
        if (!fence_rma_over(f, e)) {
            return ep_refuse(f, e, reason_fence);
        }
    }
    if (!tx_window_recheck(f, p)) {
        if (!p->in_timers) { // with nothing outstanding, only a probe can tell that the grants will never come
            timer_arm(f, p, base::clock_now_ns() + limits::stall_probe_ns);
        }
        return ep_refuse(f, e, reason_window);
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
        grant_told(p);
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
    if (tx_post_pieces(f, p, o, imm, buf->payload - header_size, header_size + first_payload, buf->lkey, piece_count) != 0)
        [[unlikely]] {
        tx_post_deferred(f, o);
    }
}

/// Any short off the common path, with whatever header the peer needs: inline if it fits, else through a bounce buffer.
template <class Fill>
[[gnu::noinline]] ucs_status_t tx_short_uncommon(iface *f, ep *e, std::uint8_t id, unsigned size, Fill fill) noexcept
{
    peer *p             = e->owner;
    std::uint32_t flags = 0;

    if (!tx_ready(f, e, p)) {
        const ucs_status_t status = tx_admit(f, e, p, flags);
        if (status != UCS_OK) {
            return status;
        }
    }
    const unsigned header_size = (flags & wire::imm_long) ? wire::long_size :
                                 (flags & wire::imm_credit) ? wire::index_size + wire::credit_size : wire::index_size;
    op *o                      = f->ops.top();
    if (header_size + size <= f->tx.inline_max) {
        const std::uint32_t imm = wire::imm_make(id, p->tx.next(), flags);
        (void)tx_put_header(f, p, o->bytes + header_size, flags);
        fill(o->bytes + header_size);
        op_init(o, e, p, imm, header_size + size, op_kind::am_inline);
        tx_commit(f, p, o, size, flags);
        if (flags != 0) {
            tx_posted_long(f, p, flags);
        }
        if (tx_post_inline(f, p, o, imm, o->bytes, header_size + size) != 0) [[unlikely]] {
            tx_post_deferred(f, o);
        }
        return UCS_OK;
    }
    tx_buf *buf = tx_buf_top(f);
    if (buf == nullptr) [[unlikely]] {
        return tx_no_buf(f, e);
    }
    fill(buf->payload);
    tx_send_buf(f, e, p, o, buf, id, size, flags, op_kind::am_buf, 1, size);
    return UCS_OK;
}

} // namespace

} // namespace srd

using namespace srd;

/// Whatever is wrong with a short message, or different about it.
[[gnu::noinline]] static ucs_status_t am_short_uncommon(uct_ep_h tl_ep, uint8_t id, uint64_t header, const void *payload,
                                      unsigned length) noexcept
{
    iface *f = iface_of(tl_ep);

    if (id >= UCT_AM_ID_MAX) {
        return tx_invalid_id(id);
    }
    if (length > f->tx.short_max - sizeof(header)) {
        return tx_invalid_length("a short active message", length + sizeof(header), f->tx.short_max);
    }
    return tx_short_uncommon(f, ep_of(tl_ep), id, static_cast<unsigned>(sizeof(header)) + length, [=](unsigned char *to) {
        std::memcpy(to, &header, sizeof(header));
        base::copy_small(to + sizeof(header), payload, length);
    });
}

extern "C" ucs_status_t uct_srd_ep_am_short(uct_ep_h tl_ep, uint8_t id, uint64_t header, const void *payload,
                                            unsigned length) noexcept
{
    iface *f = iface_of(tl_ep);
    ep *e    = ep_of(tl_ep);
    peer *p  = e->owner;
    op *o    = f->ops.top();

    if (id >= UCT_AM_ID_MAX || length > f->tx.inline_payload || !tx_ready(f, e, p)) [[unlikely]] {
        return am_short_uncommon(tl_ep, id, header, payload, length);
    }
    const unsigned size     = static_cast<unsigned>(wire::index_size + sizeof(header)) + length;
    const std::uint32_t imm = wire::imm_make(id, p->tx.next(), 0);
    op_init(o, e, p, imm, size, op_kind::am_inline);
    base::store_le<std::uint32_t>(o->bytes, p->index_remote);
    std::memcpy(o->bytes + wire::index_size, &header, sizeof(header));
    base::copy_small(o->bytes + wire::index_size + sizeof(header), payload, length);
    tx_commit(f, p, o, size - wire::index_size, 0);
    if (tx_post_inline(f, p, o, imm, o->bytes, size) != 0) [[unlikely]] {
        tx_post_deferred(f, tx_op_of(f->tx.inline_wr));
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
        return tx_short_uncommon(f, e, id, static_cast<unsigned>(size), fill);
    }

    op *o                   = f->ops.top();
    const std::uint32_t imm = wire::imm_make(id, p->tx.next(), 0);
    op_init(o, e, p, imm, static_cast<unsigned>(wire::index_size + size), op_kind::am_inline);
    base::store_le<std::uint32_t>(o->bytes, p->index_remote);
    fill(o->bytes + wire::index_size);
    tx_commit(f, p, o, static_cast<unsigned>(size), 0);
    if (tx_post_inline(f, p, o, imm, o->bytes, static_cast<unsigned>(wire::index_size + size)) != 0) [[unlikely]] {
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
