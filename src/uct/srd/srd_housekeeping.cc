/* Time: the timers of peers, and the housekeeping that probes, forgets and settles.
 *
 * Owns: the list of armed timers, what falls due when one fires, and when a peer is forgotten.
 * Refuses to know: how what falls due is sent (srd_control owes it), what peers answer (srd_hello).
 *
 * Time is looked at every so many progress calls (iface::tick): often while a timer is armed, seldom otherwise. Timers are one
 * unsorted list, because few peers need one at a time. All peers are looked at in turns, a share each millisecond.
 */
#include "uct/srd/srd_iface.h"

namespace srd {

void peer_backoff(iface *f, peer *p) noexcept
{
    peer_slow *s = f->peers.slow_get(p);
    if (s != nullptr && s->backoff < 9) { // 20 us .. 10 ms
        ++s->backoff;
    }
}

void timer_arm(iface *f, peer *p, base::time_ns due) noexcept
{
    peer_slow *s = f->peers.slow_get(p);

    if (s == nullptr) { // no memory: tried again from the next progress call on
        p->retime = true;
        control_want(f, p, 0);
        return;
    }
    if (s->timer_due == 0 || due < s->timer_due) {
        s->timer_due = due;
    }
    if (f->timers == nullptr || s->timer_due < f->timer_min) {
        f->timer_min = s->timer_due;
        if (f->event.armed) [[unlikely]] {
            event_reschedule(f, f->timer_min);
        }
    }
    if (!p->in_timers) {
        p->in_timers  = true;
        s->timer_next = f->timers;
        f->timers     = p;
    }
    if (f->tick > limits::armed_tick) {
        f->tick = limits::armed_tick;
    }
}

namespace {

void timer_fire(iface *f, peer *p, base::time_ns now) noexcept
{
    if (p->state == peer_state::failed) {
        if (p->want != 0 && !f->closing) {
            control_want(f, p, 0); // the refusal that it was not ready for
        }
        return;
    }
    if (p->waiting_count != 0) {
        control_want(f, p, want_repost);
    }
    if (f->closing) {
        return; // nothing new is begun
    }
    peer_slow *s = f->peers.slow_get(p); // it has one: its timer was armed
    if (p->state == peer_state::fresh && s->hello_due != 0) {
        if (now >= s->hello_due) {
            ++s->nonce;
            s->hello_due = now + (f->hello_interval << s->hello_backoff);
            if (s->hello_backoff < 5) {
                ++s->hello_backoff;
            }
            control_want(f, p, want_hello);
        }
        timer_arm(f, p, s->hello_due);
    }
    if (p->eps != nullptr && !p->tx.may_send()) {
        // WIRE 6.9: out of credits. What is outstanding would tell of the peer's death; with nothing outstanding, ask. Looked at
        // again until there are credits: requests that are queued arm no timer.
        if (p->waiting_count == 0 && p->tx.empty() && p->control_in_flight == 0) {
            control_want(f, p, want_probe);
        }
        timer_arm(f, p, now + limits::stall_probe_ns);
    }
    if (p->want != 0) {
        control_want(f, p, 0);
    }
}

/// Whether nothing refers to the peer any more and nothing is lost by forgetting it.
bool may_forget(const peer *p, std::uint16_t now_s) noexcept
{
    // A failed one stays a while: what still arrives from that life must not pass for a new one.
    const bool over = (p->state == peer_state::failed && static_cast<std::uint16_t>(now_s - p->heard_at) > limits::failed_rest_s) ||
                      (p->bye_received && p->rx.held() == 0) ||
                      (p->epoch_remote == 0 && p->tx.next() == base::seq32(0)); // never talked
    return over && p->eps == nullptr && p->tx.empty() && p->control_in_flight == 0 && !p->in_work && !p->in_timers;
}

void forget(iface *f, peer *p, base::time_ns now) noexcept
{
    ah_entry *ah_ref = p->ah_ref;

    grant_leave(f, p);
    rx_purge(f, p);
    f->peers.release(p, now); // looks at the GID, which may be the entry's
    if (ah_ref != nullptr) {
        f->ahs.put(ah_ref);
    }
    count(f, counter::peers_released);
}

/// Numbers of periods of activity go round from 255 to 1: 0 means "not counted".
constexpr std::uint8_t period_after(std::uint8_t number) noexcept { return number != UINT8_MAX ? static_cast<std::uint8_t>(number + 1) : 1; }
constexpr std::uint8_t period_before(std::uint8_t number) noexcept { return number > 1 ? static_cast<std::uint8_t>(number - 1) : UINT8_MAX; }

/// A share of the peers each millisecond, so that the cost is spread; what a program missed while it slept is made up for.
void housekeep(iface *f, base::time_ns now, base::time_ns since) noexcept
{
    constexpr std::uint64_t slots_per_ms = 64;
    const std::uint64_t slots_per_turn   = slots_per_ms * ((now - since) / base::ms(1));

    const auto now_s         = static_cast<std::uint16_t>(now / base::sec(1));
    const bool handles_short = f->ah_short_at != 0 && now - f->ah_short_at < base::sec(1); // who is gone must give his back

    if (now - f->activity_at >= limits::activity_period_ns) {
        f->activity_at = now;
        f->activity    = period_after(f->activity);
    }
    for (std::uint32_t i = 0; i < slots_per_turn && i < f->peers.slots_used(); ++i) {
        if (f->scan_slot >= f->peers.slots_used()) {
            f->scan_slot = 0;
        }
        peer *p = f->peers.at(f->scan_slot++);
        if (!f->peers.is_live(p)) {
            continue;
        }
        if (may_forget(p, now_s)) {
            forget(f, p, now);
            continue;
        }
        if (p->activity != f->activity && p->activity != period_before(f->activity)) {
            grant_leave(f, p); // silent for a period at least: what it has left stays its own, but is not counted on
        }
        // What is outstanding tells of the peer's death by itself; a peer that owes nothing must be asked.
        const base::time_ns interval = p->eps != nullptr ? f->keepalive_interval : handles_short ? base::sec(1) : f->probe_interval;
        if (interval != 0 && p->epoch_remote != 0 && p->tx.empty() && p->control_in_flight == 0 &&
            p->state != peer_state::failed && base::sec(static_cast<std::uint16_t>(now_s - p->heard_at)) >= interval) {
            p->heard_at = now_s;
            control_want(f, p, want_probe);
        }
    }
    grant_settle(f);
}

} // namespace

void control_tick(iface *f) noexcept
{
    const base::time_ns now = base::clock_now_ns();
    peer *list              = f->timers;

    f->event.armed = false;
    f->timers      = nullptr;
    while (list != nullptr) {
        peer *p       = list;
        peer_slow *s  = f->peers.slow_get(p);
        list          = s->timer_next;
        s->timer_next = nullptr;
        p->in_timers  = false;
        if (s->timer_due > now) {
            timer_arm(f, p, s->timer_due);
        } else {
            s->timer_due = 0;
            timer_fire(f, p, now);
            f->peers.slow_put_idle(p);
        }
    }
    if (now - f->ticked_at >= base::ms(1)) {
        housekeep(f, now, f->ticked_at);
        f->ticked_at = now;
    }
    f->tick = f->timers != nullptr ? limits::armed_tick : limits::idle_tick;
}

} // namespace srd
