/* The receiving half of the data path: completions polled, messages put in order and handed to the user.
 *
 * Owns: the one loop over work completions (both directions: one completion queue), the gate that every arriving byte
 * passes, and the order of delivery. After hello a message in order needs: one 64-bit compare that proves slot, generation,
 * address handle and queue pair at once, one compare of the psn, and the handler.
 * Refuses to know: what control messages mean (srd_hello), how receives are posted (srd_rx_queue).
 *
 * The device has acknowledged what arrives here, so dropping is loss: what is early is kept, what cannot be is an error of
 * the peer; only what belongs to another life, or repeats, is dropped, with a reason counted.
 *
 * A receive buffer: | rx_desc | ... | pointer slot | headroom | wire header | payload |. The device fills from the wire header of
 * the shortest kind; longer headers push the payload (and the headroom before it) up.
 */
#include "uct/srd/srd_iface.h"

#include <cstring>
#include <cstdlib>
#include <endian.h>
#include <new>

namespace srd {

namespace {

inline unsigned char *wire_bytes(rx_desc *d) noexcept { return reinterpret_cast<unsigned char *>(d->sge.addr); }

inline rx_desc *desc_of(ibv_recv_wr *wr) noexcept { return reinterpret_cast<rx_desc *>(wr); }

/// The user keeps the descriptor: it will come back through the pointer in front of the headroom.
[[gnu::noinline]] void rx_hold_desc(iface *f, rx_desc *d, unsigned char *payload) noexcept
{
    // The slot is as aligned as the payload, which follows headers of 4 bytes: a plain store would be undefined.
    uct_recv_desc_t *release = &d->release;
    std::memcpy(payload - f->rx.headroom - sizeof(release), &release, sizeof(release));
    ++f->rx.held;
    f->rx.away += !d->heap;
    if (f->rx.posted <= f->rx.low_water) {
        f->rx.am_flags = 0; // IFC-3 within a batch: what follows in it is copied
    }
}

/// The payload moves to where the user wants it aligned. Only for the longer headers, and only if alignment was asked for.
[[gnu::noinline, gnu::cold]] unsigned char *rx_realign(rx_desc *d, unsigned char *payload, unsigned size) noexcept
{
    unsigned char *wanted = wire_bytes(d) + wire::index_size;

    std::memmove(wanted, payload, size);
    return wanted;
}

/// Hands one message to its handler. The descriptor is gone afterwards.
inline void rx_deliver_am(iface *f, rx_desc *d, unsigned id, unsigned size, unsigned header_size) noexcept
{
    unsigned char *payload = wire_bytes(d) + header_size;
    const unsigned length  = size - header_size;

    if (header_size != wire::index_size && f->rx.realign) [[unlikely]] {
        payload = rx_realign(d, payload, length);
    }
    count(f, counter::rx_am);
    count(f, counter::rx_bytes, length);
    const unsigned am_flags   = f->rx.am_flags;
    const ucs_status_t status = uct_abi_invoke_am(&f->super, id, payload, length, am_flags);
    if (status == UCS_INPROGRESS && am_flags != 0) {
        rx_hold_desc(f, d, payload);
        return;
    }
    rx_recycle(f, d);
}

/// A sequenced message in its turn: for the user, or NOP and BYE.
void rx_deliver_any(iface *f, peer *p, rx_desc *d) noexcept
{
    if (!(d->imm & wire::imm_control)) [[likely]] {
        rx_deliver_am(f, d, wire::imm_id(d->imm), d->size, d->header_size);
        return;
    }
    count(f, counter::rx_control);
    if (wire::imm_id(d->imm) == static_cast<unsigned>(wire::control::bye)) {
        p->bye_received = true;
    }
    rx_recycle(f, d);
}

/// Attention is due: messages that waited, credits.
[[gnu::noinline]] void rx_attend(iface *f, peer *p) noexcept
{
    while (void *message = p->rx.pop()) {
        auto *d = static_cast<rx_desc *>(message);
        const bool wants = d->imm & wire::imm_want_consumed;
        f->rx.away -= !d->heap;
        rx_deliver_any(f, p, d);
        p->rx.advance();
        if (wants) {
            control_want(f, p, want_credit);
        }
        if (p->state == peer_state::failed) {
            return; // the handler invalidated the endpoint
        }
    }
    if (!p->credit.covers(p->rx.expected() - 1u)) [[unlikely]] { // attention comes before the limit does
        peer_fail(f, p, UCS_ERR_IO_ERROR, "protocol violation", "the peer sent beyond its credits", 0);
        return;
    }
    if (p->rx.held() == 0 && p->rx.has_ring()) {
        auto *ring        = p->rx.detach();
        ring->next_free   = f->rx.rings;
        f->rx.rings       = ring;
    }
    if (p->credit.is_due(p->rx.expected()) && !(p->want & want_credit)) {
        p->tx.hold(); // the next send takes the slow path and carries the credits
        control_want(f, p, want_credit);
    }
    rx_set_attention(p);
}

/// Copies an early message out of a receive buffer that is needed elsewhere. Null: no memory.
rx_desc *rx_copy_out(iface *f, rx_desc *d) noexcept
{
    const std::size_t before = f->rx.payload_offset - wire::index_size;
    const std::size_t align  = f->rx.alignment;
    auto *copy = static_cast<rx_desc *>(std::aligned_alloc(align, (before + d->size + align - 1) & ~(align - 1)));
    if (copy == nullptr) {
        return nullptr;
    }
    *copy          = *d;
    copy->heap     = true;
    copy->sge.addr = reinterpret_cast<std::uintptr_t>(copy) + before;
    std::memcpy(wire_bytes(copy), wire_bytes(d), d->size);
    rx_recycle(f, d);
    count(f, counter::rx_copied);
    return copy;
}

/// An early message is kept. RXW, IFC-3.
void rx_keep(iface *f, peer *p, rx_desc *d) noexcept
{
    count(f, counter::rx_early);
    if (!p->rx.has_ring()) {
        auto *ring = f->rx.rings;
        if (ring != nullptr) {
            f->rx.rings = ring->next_free;
        } else {
            ring = new (std::nothrow) rx_ring<limits::window_size>;
        }
        if (ring == nullptr) {
            count(f, counter::rx_dropped_failed);
            rx_recycle(f, d);
            peer_fail(f, p, UCS_ERR_NO_MEMORY, "out of memory", "no memory to keep an early message", 0);
            return;
        }
        p->rx.attach(ring);
    }
    if (f->rx.am_flags == 0 || f->rx.posted < f->rx.low_water) {
        rx_desc *copy = rx_copy_out(f, d);
        d             = copy != nullptr ? copy : d;
    } else if (f->rx.posted == f->rx.low_water) {
        f->rx.am_flags = 0; // as in rx_hold_desc
    }
    p->rx.insert(wire::imm_psn(d->imm), d);
    f->rx.away += !d->heap;
    rx_set_attention(p);
}

/// A message of a known peer whose header is understood.
void rx_sequenced(iface *f, peer *p, rx_desc *d) noexcept
{
    const std::uint16_t psn = wire::imm_psn(d->imm);

    switch (p->rx.classify(psn)) {
    case rx_verdict::deliver: {
        const bool wants = d->imm & wire::imm_want_consumed;
        rx_deliver_any(f, p, d);
        p->rx.advance();
        if (wants) {
            control_want(f, p, want_credit);
        }
        if (--p->attention == 0 && p->state != peer_state::failed) {
            rx_attend(f, p);
        }
        return;
    }
    case rx_verdict::buffered:
        if (!p->credit.covers(expand(p->rx.expected(), psn))) [[unlikely]] {
            count(f, counter::rx_dropped_uncredited);
            rx_recycle(f, d);
            peer_fail(f, p, UCS_ERR_IO_ERROR, "protocol violation", "the peer sent beyond its credits", 0);
            return;
        }
        rx_keep(f, p, d);
        return;
    case rx_verdict::duplicate:
    case rx_verdict::too_old:
        count(f, counter::rx_dropped_duplicate);
        rx_recycle(f, d);
        return;
    case rx_verdict::beyond_window:
        count(f, counter::rx_dropped_window);
        rx_recycle(f, d);
        peer_fail(f, p, UCS_ERR_IO_ERROR, "protocol violation", "the peer sent beyond the window", 0);
        return;
    }
}

inline void rx_drop(iface *f, rx_desc *d, counter reason) noexcept
{
    count(f, reason);
    rx_recycle(f, d);
}

/// Everything that is not a plain message in order from an open peer. The gate: after it, every field is checked.
[[gnu::noinline]] void rx_uncommon(iface *f, rx_desc *d, const ibv_wc &wc) noexcept
{
    const std::uint32_t imm = be32toh(wc.imm_data);
    const unsigned size     = wc.byte_len;
    unsigned char *bytes    = wire_bytes(d);
    wire::long_header h;
    peer *p                 = nullptr;

    if (f->closing) {
        return rx_drop(f, d, counter::rx_dropped_closing);
    }
    if (!(wc.wc_flags & IBV_WC_WITH_IMM) || (imm & wire::imm_flags_mask & ~wire::imm_flags_known) ||
        (imm & (wire::imm_long | wire::imm_credit)) == (wire::imm_long | wire::imm_credit)) {
        return rx_drop(f, d, counter::rx_dropped_flags);
    }
    d->imm  = imm;
    d->size = static_cast<std::uint16_t>(size);
    if (imm & wire::imm_long) {
        d->header_size = wire::long_size;
        if (size < wire::long_size) {
            return rx_drop(f, d, counter::rx_dropped_short);
        }
        if (!wire::get_long(bytes, size, h)) {
            return rx_drop(f, d, counter::rx_dropped_control);
        }
        const auto reason = size > wire::long_size ? static_cast<wire::nak_reason>(bytes[wire::long_size]) : wire::nak_reason{};
        p = control_resolve(f, imm, h, static_cast<std::uint16_t>(wc.src_qp), static_cast<std::uint16_t>(wc.slid), reason);
        if (p == nullptr) {
            return rx_recycle(f, d); // counted there
        }
    } else {
        d->header_size = (imm & wire::imm_credit) ? wire::index_size + wire::credit_size : wire::index_size;
        if (size < d->header_size) {
            return rx_drop(f, d, counter::rx_dropped_short);
        }
        const auto index = base::load_le<std::uint32_t>(bytes);
        p                = f->peers.at(index);
        if (p == nullptr || p->key != key_make(index, wc.slid, wc.src_qp)) {
            if (p != nullptr && p->state == peer_state::failed && p->index_local() == index && p->qpn == wc.src_qp) {
                control_want(f, p, want_nak);
            }
            return rx_drop(f, d, counter::rx_dropped_stale);
        }
        if (imm & wire::imm_credit) {
            h.grant = wire::get_credit(bytes + wire::index_size);
        }
    }
    if ((imm & (wire::imm_long | wire::imm_credit)) && !p->tx.credit(h.grant.consumed, h.grant.limit)) {
        // Numbers of a life that ended are caught by the epoch; these are nonsense.
        rx_drop(f, d, counter::rx_dropped_credit);
        peer_fail(f, p, UCS_ERR_IO_ERROR, "protocol violation", "the peer granted impossible credits", 0);
        return;
    }
    if (imm & wire::imm_long) {
        control_heard_long(f, p, imm, h);
    }
    if ((imm & wire::imm_control) && wire::imm_id(imm) < wire::control_first_sequenced) {
        const bool ok = control_receive(f, p, imm, bytes + d->header_size, size - d->header_size);
        return rx_drop(f, d, ok ? counter::rx_control : counter::rx_dropped_control);
    }
    if ((imm & wire::imm_control) && wire::imm_id(imm) > static_cast<unsigned>(wire::control::bye)) {
        rx_drop(f, d, counter::rx_dropped_control); // sequenced and unknown: its psn is lost
        peer_fail(f, p, UCS_ERR_IO_ERROR, "protocol violation", "unknown sequenced control message", 0);
        return;
    }
    rx_sequenced(f, p, d);
}

[[gnu::noinline, gnu::cold]] void rx_completion_error(iface *f, rx_desc *d, const ibv_wc &wc) noexcept
{
    // Not fatal for the interface: the message, if there was one, failed at its sender too.
    count(f, counter::rx_error);
    if (wc.status != IBV_WC_WR_FLUSH_ERR) {
        ucs_debug("srd: a receive failed: %s (device status %u)", ibv_wc_status_str(wc.status), wc.vendor_err);
    }
    rx_recycle(f, d);
}

/// Hands over a message with a short header that was just taken from the queue: rx_deliver_am() without what cannot be.
inline void rx_deliver_common(iface *f, rx_desc *d, std::size_t id, unsigned char *payload, unsigned length) noexcept
{
    count(f, counter::rx_am);
    count(f, counter::rx_bytes, length);
    // Only a message that came with the flag may be kept; the flag changes here alone, so it is read again if one is.
    if (uct_abi_invoke_am(&f->super, id, payload, length, f->rx.am_flags) == UCS_INPROGRESS) [[unlikely]] {
        if (f->rx.am_flags != 0) {
            rx_hold_desc(f, d, wire_bytes(d) + wire::index_size);
            return;
        }
    }
    d->wr.next      = f->rx.free_list;
    f->rx.free_list = &d->wr;
}

[[gnu::always_inline]] inline void rx_message(iface *f, const ibv_wc &wc) noexcept
{
    auto *d                 = reinterpret_cast<rx_desc *>(wc.wr_id - 1);
    const std::uint32_t imm = be32toh(wc.imm_data);

    --f->rx.posted;
    if (wc.status == IBV_WC_SUCCESS && (imm & wire::imm_flags_mask) == 0 && wc.byte_len >= wire::index_size &&
        (wc.wc_flags & IBV_WC_WITH_IMM)) [[likely]] {
        unsigned char *bytes = wire_bytes(d);
        const auto index     = base::load_le<std::uint32_t>(bytes);
        peer *p              = f->peers.at_any(index);
        if (p->key == key_make(index, wc.slid, wc.src_qp) && p->rx.is_expected(wire::imm_psn(imm))) [[likely]] {
            // No flags: nothing is above the id.
            rx_deliver_common(f, d, imm >> wire::imm_id_shift, bytes + wire::index_size, wc.byte_len - wire::index_size);
            p->rx.advance();
            if (--p->attention == 0) [[unlikely]] {
                rx_attend(f, p);
            }
            return;
        }
    }
    if (wc.status != IBV_WC_SUCCESS) [[unlikely]] {
        rx_completion_error(f, d, wc);
        return;
    }
    rx_uncommon(f, d, wc);
}

} // namespace

void rx_set_attention(peer *p) noexcept
{
    // A grant that is due stays due until it is sent: with it owed, only a sender beyond its limit is left to be noticed.
    const std::int32_t left = distance(p->rx.expected(), (p->want & want_credit) ? p->credit.limit() : p->credit.due_at());
    std::uint32_t deliveries = left < 1 ? 1 : static_cast<std::uint32_t>(left);

    if (p->rx.held() != 0) { // with the expected one itself waiting, the next look takes it
        const std::uint32_t until = p->rx.until_held() < 1 ? 1 : p->rx.until_held();
        deliveries                = until < deliveries ? until : deliveries;
    }
    p->attention = deliveries;
}

void rx_purge(iface *f, peer *p) noexcept
{
    while (void *message = p->rx.purge()) {
        auto *d = static_cast<rx_desc *>(message);
        count(f, counter::rx_dropped_failed);
        f->rx.away -= !d->heap;
        rx_recycle(f, d);
    }
    if (p->rx.has_ring()) {
        auto *ring      = p->rx.detach();
        ring->next_free = f->rx.rings;
        f->rx.rings     = ring;
    }
}

namespace {

[[gnu::always_inline]] inline void rx_dispatch(iface *f, const ibv_wc *wc, unsigned count) noexcept
{
    const ibv_wc *const end = wc + count;

    f->polling = true;
    do {
        if (wc->wr_id & 1) {
            rx_message(f, *wc);
        } else if (wc->status == IBV_WC_SUCCESS) [[likely]] {
            tx_complete(f, reinterpret_cast<op *>(wc->wr_id));
        } else {
            tx_complete_error(f, reinterpret_cast<op *>(wc->wr_id), *wc);
        }
    } while (++wc != end);
    f->polling = false;
}

[[gnu::noinline, gnu::cold]] unsigned rx_unstash(iface *f) noexcept
{
    const std::uint32_t count = f->stash_count;

    f->stash_count = 0;
    f->attention &= static_cast<std::uint8_t>(~attend_stash);
    if (count != 0) {
        rx_dispatch(f, f->stash, count); // nothing stashes meanwhile: it is polling
    }
    return count;
}

/// Takes one batch of completions.
[[gnu::always_inline]] inline unsigned rx_poll(iface *f) noexcept
{
    ibv_wc wc[limits::poll_batch];

    const int polled = ibv_poll_cq(f->rx.cq, limits::poll_batch, wc);
    if (polled <= 0) {
        if (f->rx.posted < f->rx.refill_at) [[unlikely]] {
            rx_refill(f); // users may have given descriptors back
        }
        return 0; // a negative count is a completion of a queue pair that is gone: nothing that we could tell
    }
    rx_dispatch(f, wc, static_cast<unsigned>(polled));
    if (f->rx.posted < f->rx.refill_at) {
        rx_refill(f);
    }
    return static_cast<unsigned>(polled);
}

} // namespace

unsigned rx_progress(iface *f) noexcept
{
    if (f->attention & attend_stash) [[unlikely]] {
        return rx_unstash(f);
    }
    return rx_poll(f);
}

namespace {

/// A progress call with more to do than poll: what waits from earlier calls, and pending requests.
[[gnu::noinline]] unsigned rx_progress_busy(iface *f) noexcept
{
    unsigned events = 0;

    if (f->attention & attend_work) {
        events = control_run(f);
    }
    if (f->attention & attend_stash) {
        events += rx_unstash(f); // a program that sleeps once progress says 0 must hear of these, too
    }
    events += rx_progress(f);
    if (--f->tick == 0) [[unlikely]] {
        control_tick(f);
    }
    if (f->attention & attend_pending) {
        events += pending_dispatch(f);
    }
    return events;
}

} // namespace

} // namespace srd

extern "C" unsigned uct_srd_iface_progress(uct_iface_h tl_iface) noexcept
{
    srd::iface *f = srd::iface_of(tl_iface);

    if (f->attention != 0) [[unlikely]] {
        return srd::rx_progress_busy(f);
    }
    const unsigned events = srd::rx_poll(f);
    if (--f->tick == 0) [[unlikely]] {
        srd::control_tick(f);
    }
    return events;
}
