/* The pending queue: requests that found a shortage, and when they are called again.
 *
 * Owns: each endpoint's queue, the ring of endpoints that have one, and the reasons that pending_add and dispatch go by.
 * Refuses to know: what a request does, and how a shortage comes about (the posting calls record it in ep::reasons).
 *
 * Invariants
 *   SEP-1  a request in the pending queue precedes every later post on its endpoint.
 *   SEP-2  pending_add says BUSY only if every shortage that was recorded since is gone.
 */
#include "uct/srd/srd_rma.h"

namespace srd {

namespace {

/// Requests are linked through the bytes that UCX lends a transport while a request is queued.
uct_pending_req_t *&next_of(uct_pending_req_t *req) noexcept
{
    static_assert(sizeof(uct_pending_req_t *) <= UCT_PENDING_REQ_PRIV_LEN);
    return *reinterpret_cast<uct_pending_req_t **>(req->priv);
}

/// The endpoint's fence epoch when the request was queued: what is posted for it is no younger.
std::uint32_t &epoch_of(uct_pending_req_t *req) noexcept
{
    static_assert(sizeof(uct_pending_req_t *) + sizeof(std::uint32_t) <= UCT_PENDING_REQ_PRIV_LEN);
    return *reinterpret_cast<std::uint32_t *>(req->priv + sizeof(uct_pending_req_t *));
}

void ring_insert(iface *f, ep *e) noexcept
{
    if (e->in_pending) {
        return;
    }
    ep_slow *s    = ep_slow_own(e);
    e->in_pending = true;
    if (f->pending_ring == nullptr) {
        s->pending_next = s->pending_prev = e;
        f->pending_ring = e;
    } else {
        ep *head              = f->pending_ring;
        s->pending_next       = head;
        s->pending_prev       = head->slow->pending_prev;
        ep_slow_own(s->pending_prev)->pending_next = e;
        ep_slow_own(head)->pending_prev            = e;
    }
    f->attention |= attend_pending;
}

/// The reasons that only one-sided operations and fences bring.
void one_sided_reasons_gone(iface *f, ep *e) noexcept
{
    const auto clear = [e](std::uint8_t reason) { e->reasons &= static_cast<std::uint8_t>(~reason); };

    if ((e->reasons & reason_hello) && rma_hello(f, e->owner)) {
        clear(reason_hello);
    }
    if ((e->reasons & reason_fence) && fence_rma_over(f, e)) {
        clear(reason_fence);
    }
    if ((e->reasons & reason_consumed) && fence_consumed_over(f, e)) {
        clear(reason_consumed);
    }
    if ((e->reasons & reason_share) && e->owner->slow->rma_outstanding() < f->rma.per_peer) {
        clear(reason_share);
    }
}

} // namespace

void pending_leave(iface *f, ep *e) noexcept
{
    if (!e->in_pending) {
        return;
    }
    e->in_pending = false;
    if (e->slow->pending_next == e) {
        f->pending_ring = nullptr;
        f->attention &= static_cast<std::uint8_t>(~attend_pending);
        return;
    }
    ep_slow_own(e->slow->pending_prev)->pending_next = e->slow->pending_next;
    ep_slow_own(e->slow->pending_next)->pending_prev = e->slow->pending_prev;
    if (f->pending_ring == e) {
        f->pending_ring = e->slow->pending_next;
    }
}

/// SEP-2: the one predicate behind BUSY and behind dispatch.
bool ep_reasons_gone(iface *f, ep *e) noexcept
{
    if ((e->reasons & reason_queue) && f->tx.sq_free != 0 && (f->ops.top() != nullptr || f->ops.grow())) {
        e->reasons &= static_cast<std::uint8_t>(~reason_queue);
    }
    if ((e->reasons & reason_window) && tx_window_recheck(f, e->owner)) {
        e->reasons &= static_cast<std::uint8_t>(~reason_window);
    }
    if ((e->reasons & reason_buf) && (f->tx.bufs != nullptr || f->tx_bufs.can_grow())) {
        e->reasons &= static_cast<std::uint8_t>(~reason_buf);
    }
    if (e->reasons > reason_buf) [[unlikely]] {
        one_sided_reasons_gone(f, e);
    }
    return e->reasons == 0;
}

namespace {

void pending_append(ep_slow *s, uct_pending_req_t *req) noexcept
{
    next_of(req) = nullptr;
    if (s->pending_head == nullptr) {
        s->pending_head = req;
    } else {
        next_of(s->pending_tail) = req;
    }
    s->pending_tail = req;
}

enum class turn { went_on, stuck, gone };

/// Calls the oldest request of one endpoint. If it went on, the endpoint may get another turn; it may be gone with the call.
turn pending_dispatch_one(iface *f, ep *e) noexcept
{
    ep_slow *s             = ep_slow_own(e);
    uct_pending_req_t *req = s->pending_head;

    e->gate &= static_cast<std::uint8_t>(~gate_pending); // posts from inside are in turn
    e->in_turn    = true;
    s->turn_epoch = epoch_of(req);
    s->turn_total = f->fence_epoch + s->fence_epoch;
    // Off the queue before the call: a request that says OK may already be freed.
    s->pending_head = next_of(req);
    if (s->pending_head == nullptr) {
        s->pending_tail = nullptr;
    }
    const bool held           = ep_hold(e);
    const ucs_status_t status = req->func(req);
    e->in_turn                = false;
    if (ep_is_gone(e, held)) [[unlikely]] {
        return turn::gone;
    }
    if (status != UCS_OK) { // UCS_INPROGRESS: it has more to send; anything else: it cannot now
        next_of(req) = s->pending_head;
        if (s->pending_head == nullptr) {
            s->pending_tail = req;
        }
        s->pending_head = req;
    }
    if (s->pending_head != nullptr) {
        e->gate |= gate_pending;
        if (!(e->gate & gate_failed)) {
            ring_insert(f, e); // it has left if the call purged the queue
        }
    }
    return status == UCS_OK || status == UCS_INPROGRESS ? turn::went_on : turn::stuck;
}

} // namespace

unsigned pending_dispatch(iface *f) noexcept
{
    unsigned called = 0, idle = 0;

    // One request an endpoint, round and round: one with a long queue does not keep the others waiting. `idle` counts
    // endpoints in a row that could not go on; a whole round of them, or a bound on both counts, ends the turn.
    while (f->pending_ring != nullptr && called < limits::pending_per_turn && idle < limits::pending_per_turn) {
        ep *e           = f->pending_ring;
        const bool last = e->slow->pending_next == e;
        f->pending_ring = e->slow->pending_next;
        if (!ep_reasons_gone(f, e)) {
            if (last || f->tx.sq_free == 0) {
                break;
            }
            ++idle;
            continue;
        }
        ++called;
        const turn t = pending_dispatch_one(f, e);
        if (t != turn::gone && e->slow->pending_head == nullptr) {
            pending_leave(f, e);
        }
        if (t != turn::stuck) {
            idle = 0;
        } else if (last) {
            break;
        } else {
            ++idle;
        }
    }
    return called;
}

} // namespace srd

using namespace srd;

extern "C" ucs_status_t uct_srd_ep_pending_add(uct_ep_h tl_ep, uct_pending_req_t *req, unsigned) noexcept
{
    iface *f = iface_of(tl_ep);
    ep *e    = ep_of(tl_ep);

    if (e->gate & gate_failed) {
        return UCS_ERR_BUSY; // the post that follows says what happened
    }
    if (e->slow->pending_head == nullptr && ep_reasons_gone(f, e)) {
        return UCS_ERR_BUSY;
    }
    ep_slow *s = ep_slow_get(e); // it has one since its post was refused
    if (s == nullptr) {
        return UCS_ERR_NO_MEMORY;
    }
    epoch_of(req) = f->fence_epoch + s->fence_epoch;
    pending_append(s, req);
    e->gate |= gate_pending;
    ring_insert(f, e);
    return UCS_OK;
}

extern "C" void uct_srd_ep_pending_purge(uct_ep_h tl_ep, uct_pending_purge_callback_t cb, void *arg) noexcept
{
    iface *f = iface_of(tl_ep);
    ep *e    = ep_of(tl_ep);

    const bool held = ep_hold(e);
    while (uct_pending_req_t *req = e->slow->pending_head) {
        ep_slow *s      = ep_slow_own(e);
        s->pending_head = next_of(req);
        if (s->pending_head == nullptr) {
            s->pending_tail = nullptr;
        }
        if (cb != nullptr) {
            cb(req, arg);
        }
    }
    if (ep_is_gone(e, held)) {
        return;
    }
    e->gate &= static_cast<std::uint8_t>(~gate_pending);
    pending_leave(f, e);
}
