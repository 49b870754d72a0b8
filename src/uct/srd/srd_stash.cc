/* Completions that are taken outside of progress, and kept for it.
 *
 * Owns: the stash. Two need it: who is about to sleep looks whether anything has completed (srd_event), and an endpoint that
 * goes waits for its zero-copy sends (SEP-4). Neither may call the handlers of the user, so what is not theirs waits here.
 * Refuses to know: what the completions mean: the next progress call works on them as if it had polled them (srd_rx).
 *
 * It never overflows: each entry holds a send record or a receive, of which there are no more than the completion queue has entries.
 */
#include "uct/srd/srd_iface.h"

#include <cstdlib>

namespace srd {

bool rx_stash_ready(iface *f) noexcept
{
    if (f->stash == nullptr) {
        f->stash = static_cast<ibv_wc *>(std::malloc(f->cqe * sizeof(ibv_wc)));
    }
    return f->stash != nullptr;
}

bool rx_look(iface *f) noexcept
{
    const std::uint32_t room = f->cqe < limits::poll_batch ? f->cqe : limits::poll_batch;
    const int polled         = ibv_poll_cq(f->rx.cq, static_cast<int>(room), f->stash);

    f->stash_count = polled > 0 ? static_cast<std::uint32_t>(polled) : 0;
    if (f->stash_count != 0) {
        f->attention |= attend_stash;
    }
    return f->stash_count != 0;
}

std::uint32_t rx_await_sends(iface *f, const ep *e, std::uint32_t count) noexcept
{
    if (count == 0 || f->polling) {
        return count; // some of them may wait in the batch that is being worked on
    }
    if (!rx_stash_ready(f)) {
        return count;
    }
    const base::time_ns deadline = base::clock_now_ns() + f->close_timeout;
    const auto take = [f, e, &count](const ibv_wc &wc) {
        auto *o = reinterpret_cast<op *>(wc.wr_id);
        if ((wc.wr_id & 1) || !holds_user(o->kind) || o->ep != e) {
            return false;
        }
        --count;
        if (wc.status == IBV_WC_SUCCESS) {
            tx_complete(f, o);
        } else {
            tx_complete_error(f, o, wc);
        }
        return true;
    };
    f->polling = true;
    // The wait of an endpoint destroyed before this one may have stashed ours. Nothing stashes while `polling`.
    std::uint32_t kept = 0;
    for (std::uint32_t i = 0; i < f->stash_count; ++i) {
        const ibv_wc wc = f->stash[i];
        if (!take(wc)) {
            f->stash[kept++] = wc;
        }
    }
    f->stash_count = kept;
    do {
        ibv_wc wc;
        // Each stashed completion holds a send record or a receive: there cannot be more than the queue has entries.
        while (count != 0 && f->stash_count < f->cqe && ibv_poll_cq(f->rx.cq, 1, &wc) > 0) {
            if (!take(wc)) {
                f->stash[f->stash_count++] = wc;
            }
        }
    } while (count != 0 && base::clock_now_ns() < deadline);
    f->polling = false;
    if (f->stash_count != 0) {
        f->attention |= attend_stash;
    }
    return count;
}

} // namespace srd
