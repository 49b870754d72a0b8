/* Endpoints: the user's view of a peer. Creation, flush, fence, check, cancel, and the failure of one peer.
 *
 * Owns: endpoints, and the policy of failing: which endpoints, with what status, told when. An endpoint is thin: several
 * share a peer, its sequence space and its records, so destroying one with work outstanding leaves nothing dangling;
 * the peer outlives it until the records drained.
 * Refuses to know: work requests, headers, the order of pending requests (srd_pending, SEP-1 and SEP-2).
 *
 * Invariants
 *   SEP-3  each endpoint of a failed peer is reported once, from progress, after its outstanding work was marked failed.
 *   SEP-4  a buffer of the user is released (its completion called) only when the device has completed or never had it.
 *   SEP-5  a callback may do anything but progress: fail the peer, flush, destroy this endpoint or another. Records that are being
 *          walked stay where they are (iface::polling), an endpoint that is in use stays in memory (ep_hold).
 */
#include "uct/srd/srd_rma.h"

#include <arpa/inet.h>
#include <cstdlib>
#include <cstring>
#include <new>

namespace srd {

namespace {

void peer_detach(peer *p, ep *e) noexcept
{
    for (ep **link = &p->eps; *link != nullptr; link = &ep_slow_own(*link)->peer_next) { // only the last may be without
        if (*link == e) {
            *link = e->slow->peer_next;
            return;
        }
    }
}

/// Whether nothing but flushes, which are about to be told, is outstanding. Two whose callbacks flush again would else wait for each
/// other's markers for ever.
bool only_flushes(const op *o) noexcept
{
    while (o != nullptr && o->kind == op_kind::marker) {
        o = o->next;
    }
    return o == nullptr;
}

/// Withdraws what the endpoint has outstanding and the device does not hold; marks and counts what it does hold. The count
/// is kept in the endpoint as it grows: a callback from here may ask for another cancel, which must wait for it, too. `slow`: the
/// endpoint's; null when it has none, and then no cancel waits.
void ep_withdraw(iface *f, ep *e, ep_slow *slow) noexcept
{
    peer *p        = e->owner;
    const bool was = f->polling;

    f->polling = true; // SEP-5
    op *last = p->tx.head(); // callbacks may add more, and flush again for ever
    while (last != nullptr && last->next != nullptr) {
        last = last->next;
    }
    for (op *o = p->tx.head(); o != nullptr; o = o == last ? nullptr : o->next) {
        if (o->ep != e) {
            continue;
        }
        if (o->kind == op_kind::marker) {
            uct_completion_t *comp = o->ref.comp;
            o->ref.comp            = nullptr;
            o->ep                  = nullptr;
            complete_user(comp, UCS_ERR_CANCELED);
        } else if (o->waiting && o->user) {
            tx_withdraw(f, o, UCS_ERR_CANCELED);
        } else if (holds_user(o->kind) && !o->done) {
            if (slow != nullptr) {
                slow->cancel_count += !o->cancelled;
            }
            o->cancelled = true;
        }
    }
    f->polling = was;
}

void ep_free(ep *e) noexcept
{
    iface *f = iface_of(&e->super.super);

    ucs_class_call_cleanup_chain(&uct_base_ep_t_class, &e->super, -1);
    if (e->slow != &ep_slow_idle) {
        f->ep_slows.give(ep_slow_own(e));
    }
    f->eps.give(e);
}

} // namespace

bool ep_is_gone(ep *e, bool held_before) noexcept
{
    const bool gone = e->gone;

    e->in_hand = held_before;
    if (gone && !held_before) [[unlikely]] {
        ep_free(e);
    }
    return gone;
}

// --- failure -----------------------------------------------------------------------------------------------------------------

void peer_fail(iface *f, peer *p, ucs_status_t status, const char *meaning, const char *cause,
               std::uint32_t device_status, bool tell) noexcept
{
    if (p->state == peer_state::failed) {
        return;
    }
    char gid[INET6_ADDRSTRLEN] = "?";
    inet_ntop(AF_INET6, p->gid().data(), gid, sizeof(gid));
    ucs_log_level_t level = f->super.config.failure_level;
    if (level < UCS_LOG_LEVEL_ERROR) {
        level = UCS_LOG_LEVEL_ERROR; // UCX aborts the process at its fatal level
    }
    if (p->eps == nullptr) {
        level = UCS_LOG_LEVEL_DEBUG; // nobody here depends on it
    }
    ucs_log(level, "srd: peer GID %s QPN %u failed: %s (device status %u): %s; likely cause: %s", gid, p->qpn,
            ucs_status_string(status), device_status, meaning, cause);

    count(f, counter::peers_failed);
    p->state       = peer_state::failed;
    p->heard_at    = static_cast<std::uint16_t>(base::clock_now_ns() / base::sec(1)); // may_forget counts from here
    p->status_code = static_cast<std::int8_t>(status);
    p->accept_none();
    grant_leave(f, p);
    p->tx.freeze();
    rx_purge(f, p);
    for (ep *e = p->eps; e != nullptr; e = e->slow->peer_next) {
        e->gate |= gate_failed;
        pending_leave(f, e); // never dispatched again; its requests stay until they are purged
    }
    const bool was = f->polling;
    f->polling     = true; // SEP-5
    // What waits to be posted again never will be: it is complete now. What the device holds completes by itself.
    for (op *o = p->tx.head(); o != nullptr; o = o->next) {
        if (o->waiting) {
            tx_withdraw(f, o, status);
            o->waiting = false;
            o->done    = true;
            if (o->kind != op_kind::am_inline) {
                tx_buf_put(f, o->ref.buf);
            }
        }
    }
    f->polling       = was;
    p->waiting_count = 0;
    if (!was) {
        tx_drain(f, p); // else whoever is at work on a record goes on with it: it leaves before the endpoints are told
    }
    // WIRE 7.1: a peer that lives learns of it now, not when it sends something next. The device has told of one that is gone.
    const bool gone = device_status == 8 || device_status == 9 || device_status == 13 || device_status == 14 || device_status == 15;
    control_want(f, p, tell && !gone && !f->closing ? want_report | want_nak : want_report);
}

unsigned peer_report(iface *f, peer *p) noexcept
{
    unsigned told = 0;

    if (f->closing) {
        return 0; // nobody is there to be told
    }
    for (;;) {
        ep *e = p->eps;
        while (e != nullptr && e->reported) {
            e = e->slow->peer_next;
        }
        if (e == nullptr) {
            return told;
        }
        e->reported = true;
        ++told;
        // May purge, flush and destroy this endpoint or others: the list is walked from its start again.
        const ucs_status_t handled = uct_iface_handle_ep_err(&f->super.super, &e->super.super, p->status());
        if (handled != UCS_OK) {
            ucs_debug("srd: nobody handled the failure of an endpoint: %s", ucs_status_string(handled));
        }
    }
}

ep_slow *ep_slow_get(ep *e) noexcept
{
    if (e->slow == &ep_slow_idle) {
        ep_slow *own = iface_of(&e->super.super)->ep_slows.take();
        if (own == nullptr) {
            return nullptr;
        }
        e->slow = own;
    }
    return ep_slow_own(e);
}

bool peer_attach(peer *p, ep *e) noexcept
{
    if (p->eps != nullptr) {
        ep_slow *s = ep_slow_get(e);
        if (s == nullptr) {
            return false;
        }
        s->peer_next = p->eps;
    }
    e->owner = p;
    p->eps   = e;
    return true;
}

ucs_status_t ep_refuse(iface *f, ep *e, ep_reason reason) noexcept
{
    if (ep_slow_get(e) == nullptr) {
        return UCS_ERR_NO_MEMORY; // it could not be queued
    }
    e->reasons |= reason;
    count(f, counter::tx_no_resource);
    return UCS_ERR_NO_RESOURCE;
}

void cancel_step(iface *f, ep *e) noexcept
{
    if (e->slow->cancel_count == 0) {
        return;
    }
    ep_slow *s = ep_slow_own(e);
    if (--s->cancel_count != 0) {
        return;
    }
    // Told from a list of the interface: a callback may destroy the endpoint, or cancel again, which is not to be told now.
    while (op *marker = s->cancel_markers) {
        s->cancel_markers = marker->next;
        marker->next      = f->cancels_over;
        f->cancels_over   = marker;
    }
    while (op *marker = f->cancels_over) {
        f->cancels_over        = marker->next;
        uct_completion_t *comp = marker->ref.comp;
        f->ops.put(marker);
        complete_user(comp, UCS_OK);
    }
}

} // namespace srd

using namespace srd;

extern "C" ucs_status_t uct_srd_ep_create(const uct_ep_params_t *params, uct_ep_h *ep_p) noexcept
{
    constexpr std::uint64_t needed = UCT_EP_PARAM_FIELD_IFACE | UCT_EP_PARAM_FIELD_DEV_ADDR | UCT_EP_PARAM_FIELD_IFACE_ADDR;
    if ((params->field_mask & needed) != needed) {
        return UCS_ERR_UNSUPPORTED;
    }
    iface *f = iface_of(params->iface);
    gid_type gid;
    wire::iface_address address;
    const address_sizes sizes = ep_address_sizes(*params);
    if (!wire::get_device(params->dev_addr, sizes.device, gid) || !wire::get_iface(params->iface_addr, sizes.iface, address) ||
        !wire::versions_overlap(address.version, address.version_min)) {
        return UCS_ERR_UNREACHABLE;
    }

    peer *p = f->peers.find(gid, address.qpn, address.qkey);
    if (p == nullptr) {
        p = f->peers.create(gid, address.qpn, address.qkey, base::clock_now_ns());
        if (p == nullptr) {
            ucs_error("srd: no room for another peer (UCX_SRD_MAX_PEERS)");
            return UCS_ERR_NO_MEMORY;
        }
        count(f, counter::peers_created);
    }
    if (!peer_address(f, p)) {
        ucs_error("srd: no endpoint without an address handle: the device has %u, this interface uses %zu",
                  f->md->attr.max_ah, f->ahs.count());
        return UCS_ERR_NO_MEMORY; // a new peer that was never talked to is forgotten by housekeeping
    }

    ep *e = f->eps.take();
    if (e == nullptr) {
        return UCS_ERR_NO_MEMORY;
    }
    int init_count            = 1;
    const ucs_status_t status = uct_base_ep_t_init(&e->super, &uct_base_ep_t_class, &init_count, &f->super);
    if (status != UCS_OK) {
        ucs_class_call_cleanup_chain(&uct_base_ep_t_class, &e->super, init_count);
        f->eps.give(e);
        return status;
    }
    if (!peer_attach(p, e)) {
        ucs_class_call_cleanup_chain(&uct_base_ep_t_class, &e->super, -1);
        f->eps.give(e);
        return UCS_ERR_NO_MEMORY;
    }
    // It has posted nothing yet, but what others posted to the peer before a fence of the interface comes first for it, too.
    e->fence_seen = f->fence_epoch;
    if (!p->tx.empty() || p->tx.consumed() != p->tx.next()) {
        --e->fence_seen;
    }
    ++f->ep_count;
    if (const base::time_ns due = f->event.armed ? event_deadline(f) : 0; due != 0) {
        event_reschedule(f, due); // whoever slept without endpoints must look after this one
    }
    rma_attached(f, p);
    *ep_p = &e->super.super;
    return UCS_OK;
}

extern "C" void uct_srd_ep_destroy(uct_ep_h tl_ep) noexcept
{
    iface *f = iface_of(tl_ep);
    ep *e    = ep_of(tl_ep);
    peer *p  = e->owner;

    e->gone = e->in_hand; // SEP-5
    // For callbacks that cancel once more; without memory they are told that.
    ep_withdraw(f, e, p->tx.empty() ? nullptr : ep_slow_get(e));
    std::uint32_t held = 0;
    for (const op *o = p->tx.head(); o != nullptr; o = o->next) {
        held += o->ep == e && holds_user(o->kind) && !o->done;
    }
    if (e->slow != &ep_slow_idle) {
        ep_slow_own(e)->cancel_count = held;
    }
    // SEP-4: completions of the user come before the endpoint is gone. Those that are too slow come later, with no endpoint.
    rx_await_sends(f, e, held);
    for (op **link = &f->cancels_over; *link != nullptr;) { // destroyed by a callback of cancel_step
        op *marker = *link;
        if (marker->ep != e) {
            link = &marker->next;
            continue;
        }
        *link                        = marker->next;
        marker->next                 = e->slow->cancel_markers;
        ep_slow_own(e)->cancel_markers = marker;
    }
    while (op *marker = e->slow->cancel_markers) {
        ep_slow_own(e)->cancel_markers = marker->next;
        uct_completion_t *comp = marker->ref.comp;
        f->ops.put(marker);
        complete_user(comp, UCS_ERR_CANCELED);
    }
    for (op *o = p->tx.head(); o != nullptr; o = o->next) {
        if (o->ep == e) {
            o->ep = nullptr; // its records go on without it
        }
    }
    pending_leave(f, e); // not before: callbacks above may have queued a request
    peer_detach(p, e);
    --f->ep_count;
    if (!e->gone) {
        ep_free(e);
    }
}

extern "C" ucs_status_t uct_srd_ep_flush(uct_ep_h tl_ep, unsigned flags, uct_completion_t *comp) noexcept
{
    iface *f = iface_of(tl_ep);
    ep *e    = ep_of(tl_ep);
    peer *p  = e->owner;

    if (flags & UCT_FLUSH_FLAG_CANCEL) {
        if (p->tx.empty()) {
            return UCS_OK;
        }
        ep_slow *s = ep_slow_get(e);
        if (s == nullptr) {
            return UCS_ERR_NO_MEMORY;
        }
        const bool held = ep_hold(e);
        ep_withdraw(f, e, s);
        if (ep_is_gone(e, held)) {
            return UCS_ERR_CANCELED; // what the device holds is told when it answers
        }
        if (s->cancel_count == 0) {
            return UCS_OK;
        }
    } else {
        // What is queued on a failed endpoint is never sent: pending_add would say BUSY to this answer for ever.
        if ((e->gate & (gate_pending | gate_failed)) == gate_pending) {
            return UCS_ERR_NO_RESOURCE;
        }
        if (only_flushes(p->tx.head())) {
            return UCS_OK;
        }
    }
    if (comp == nullptr) {
        return UCS_INPROGRESS;
    }
    op *marker = f->ops.get();
    if (marker == nullptr) {
        return UCS_ERR_NO_MEMORY;
    }
    *marker          = {};
    marker->owner    = p;
    marker->kind     = op_kind::marker;
    marker->done     = true;
    marker->ep       = e;
    marker->ref.comp = comp;
    if (flags & UCT_FLUSH_FLAG_CANCEL) {
        marker->next                   = e->slow->cancel_markers;
        ep_slow_own(e)->cancel_markers = marker;
    } else {
        p->tx.push_marker(marker);
    }
    return UCS_INPROGRESS;
}

extern "C" ucs_status_t uct_srd_ep_fence(uct_ep_h tl_ep, unsigned) noexcept
{
    ep *e = ep_of(tl_ep);

    if (e->slow->pending_head == nullptr || e->in_turn) {
        return fence_raise(e) ? UCS_OK : UCS_ERR_NO_MEMORY;
    }
    ++ep_slow_own(e)->fence_epoch; // for what is queued from now on
    return UCS_OK;
}

extern "C" ucs_status_t uct_srd_ep_check(uct_ep_h tl_ep, unsigned flags, uct_completion_t *comp) noexcept
{
    iface *f = iface_of(tl_ep);
    ep *e    = ep_of(tl_ep);
    peer *p  = e->owner;

    if (flags != 0 || comp != nullptr) {
        return UCS_ERR_UNSUPPORTED;
    }
    if (e->gate & gate_failed) {
        return p->status();
    }
    // What is outstanding will tell just as well.
    if (p->tx.empty() && p->control_in_flight == 0) {
        control_want(f, p, want_probe);
    }
    return UCS_OK;
}

extern "C" ucs_status_t uct_srd_ep_invalidate(uct_ep_h tl_ep, unsigned) noexcept
{
    iface *f = iface_of(tl_ep);

    peer_fail(f, ep_of(tl_ep)->owner, UCS_ERR_ENDPOINT_TIMEOUT, "invalidated", "the program asked for it", 0);
    return UCS_OK;
}

/// Is the endpoint one to this very interface life?
extern "C" int uct_srd_ep_is_connected(uct_ep_h tl_ep, const uct_device_addr_t *device, const uct_iface_addr_t *address) noexcept
{
    const peer *p = ep_of(tl_ep)->owner;
    gid_type gid;
    wire::iface_address a;

    return device != nullptr && address != nullptr && wire::get_device(device, SIZE_MAX, gid) &&
           wire::get_iface(address, SIZE_MAX, a) && gid == p->gid() && a.qpn == p->qpn && a.qkey == p->qkey;
}

extern "C" ucs_status_t uct_srd_iface_flush(uct_iface_h tl_iface, unsigned, uct_completion_t *comp) noexcept
{
    if (comp != nullptr) {
        return UCS_ERR_UNSUPPORTED;
    }
    const iface *f = iface_of(tl_iface);
    return f->tx.outstanding == 0 && f->pending_ring == nullptr ? UCS_OK : UCS_INPROGRESS;
}

extern "C" ucs_status_t uct_srd_iface_fence(uct_iface_h tl_iface, unsigned) noexcept
{
    ++iface_of(tl_iface)->fence_epoch;
    return UCS_OK;
}
