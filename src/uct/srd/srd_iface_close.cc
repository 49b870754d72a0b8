/* Closing an interface: goodbye, then the end of everything that is outstanding. Slow path only.
 *
 * Owns: the order of the end. What is in the send queue gets a bounded time, peers with nothing outstanding are told
 * goodbye, then the queue pair is destroyed, after which nothing completes any more, and what is left is cancelled.
 * Refuses to know: how it was opened.
 */
#include "uct/srd/srd_iface.h"
#include "uct/srd/srd_report.h"

#include <cstdlib>

namespace srd {

namespace {

/// Owes BYE to everybody who can be told and was not. False: messages that nobody waits for are still under way to some, a
/// fence's question or what was withdrawn.
bool owe_byes(iface *f) noexcept
{
    bool all = true;

    for (std::uint32_t slot = 0; slot < f->peers.slots_used(); ++slot) {
        peer *p = f->peers.at(slot);
        const bool talked = p->state == peer_state::open ||
                            (p->state == peer_state::fresh && p->ah != nullptr && p->tx.next() != base::seq32(0));
        if (!f->peers.is_live(p) || !talked || p->bye_received || p->bye_owed) {
            continue;
        }
        if (p->tx.empty()) {
            p->bye_owed = true;
            control_want(f, p, want_bye);
        } else {
            all = false;
        }
    }
    return all;
}

/// Waits, bounded, until nothing is in the send queue and everybody who can be told knows that we go.
void say_goodbye(iface *f) noexcept
{
    const base::time_ns deadline = base::clock_now_ns() + f->close_timeout;
    bool told                    = false;

    while (base::clock_now_ns() < deadline) {
        if (f->attention & attend_work) {
            control_run(f);
        }
        rx_progress(f);
        control_tick(f); // what the receiver had no buffer for is sent again
        told = told || owe_byes(f); // also while others answer nothing
        if (told && f->tx.outstanding == 0 && f->work.empty() && f->tx.control_free == limits::control_slots) {
            return;
        }
    }
}

/// Nothing completes any more: whatever still has a completion of the user is cancelled. SEP-4
void cancel_everything(iface *f) noexcept
{
    f->polling = true; // no callback takes a record away that is walked here
    for (std::uint32_t slot = 0; slot < f->peers.slots_used(); ++slot) {
        peer *p = f->peers.at(slot);
        if (!f->peers.is_live(p)) {
            continue;
        }
        for (op *o = p->tx.head(); o != nullptr; o = o->next) {
            if (!o->done && holds_user(o->kind)) {
                uct_completion_t *comp = o->ref.comp;
                o->ref.comp            = nullptr;
                complete_user(comp, UCS_ERR_CANCELED);
            } else if (o->kind == op_kind::marker) {
                uct_completion_t *comp = o->ref.comp;
                o->ref.comp            = nullptr;
                complete_user(comp, UCS_ERR_CANCELED);
            }
        }
        rx_purge(f, p);
        if (p->ah_ref != nullptr) {
            f->ahs.put(p->ah_ref);
            p->ah_ref = nullptr; // its GID is not asked for any more
        }
    }
}

} // namespace
} // namespace srd

using namespace srd;

extern "C" void uct_srd_iface_close(uct_iface_h tl_iface) noexcept
{
    iface *f = iface_of(tl_iface);

    uct_base_iface_progress_disable(tl_iface, UCT_PROGRESS_SEND | UCT_PROGRESS_RECV);
    ucs_vfs_obj_remove(f); // first: its reader is another thread
    f->closing = true; // handlers of the user may be gone: what arrives now is dropped
    for (std::uint32_t slot = 0; slot < f->peers.slots_used(); ++slot) {
        f->peers.at(slot)->accept_none(); // no message takes the common path any more
    }
    say_goodbye(f);
    report_closed(f);
    const int rc = ibv_destroy_qp(f->tx.qp);
    if (rc != 0) {
        ucs_warn("srd: destroying a queue pair failed: errno %d", rc);
    }
    f->tx.qp = nullptr;
    cancel_everything(f);
    iface_close_queues(f);
    ucs_class_call_cleanup_chain(&uct_base_iface_t_class, f, -1);
    f->~iface();
    std::free(f);
}
