/* Rings that the application reads and writes without verbs calls: it asked for their addresses (efadv_query_qp_wqs, efadv_query_cq).
 *
 * Owns: which queues these are, and looking at what the application stored in their doorbells. The helper thread does it in every pass, with naps
 * between passes as long as there is such a queue (direct_pause); nobody else ever looks, so verbs calls cost what they cost without.
 * Refuses to know: whether the user allowed it (SOFTEFA_DIRECT); who does not never calls direct_qp() or direct_cq().
 *
 * A doorbell is looked at when its value changed: the program's counter of entries ever posted, so the last value says everything. The CQ of such a program
 * tells nobody what was read of it. Like the card, we take it that there is room: a program has posted no more than it left room for. An entry that is not
 * read in time is overwritten (CQ-2 holds for all other CQs).
 *
 * Arming is a store into the CQ's doorbell, and the next store, after a poll, hides it. A notification too many is legal, one too few is not: so each new
 * value counts as arming, but, unless its arm bit is seen, only once for each value of the sequence number in it, which moves with each event
 * that the program took. A program that never arms gets one event that it never reads.
 *
 *   DIR-1  a store into a doorbell of such a queue is acted upon within direct_nap_ns, or direct_nap_idle where nothing moved for direct_busy.
 *   DIR-2  with no such queue the helper sleeps as without this file.
 */
#include "softefa/dev/direct.h"

#include "softefa/dev/configure.h"
#include "softefa/dev/engine_state.h"
#include "softefa/dev/helper.h"

#include <algorithm>

namespace softefa::dev {

namespace {

constexpr std::uint32_t cq_arm_bit = 1u << 31;

constexpr std::uint8_t sequence_of(std::uint32_t doorbell) noexcept { return (doorbell >> 29) & 3; }

std::uint32_t value_of(const std::atomic<std::uint32_t> *doorbell) noexcept
{
    return doorbell != nullptr ? doorbell->load(std::memory_order_acquire) : 0;
}

bool look_at_qp(qp &q) noexcept
{
    const std::uint32_t sq = value_of(q.sq_doorbell), rq = value_of(q.rq_doorbell);
    if (sq == q.sq_seen && rq == q.rq_seen) [[likely]]
        return false;
    q.sq_seen = sq;
    q.rq_seen = rq;
    return requester_fetch(q);
}

void look_at_cq(cq &c) noexcept
{
    const std::uint32_t told = value_of(c.doorbell);
    if (told == c.doorbell_seen) [[likely]]
        return;
    c.doorbell_seen = told;
    if ((told & cq_arm_bit) == 0 && sequence_of(told) == c.fired_sequence)
        return;
    c.armed = true;
    if (static_cast<std::uint16_t>(c.produced) != static_cast<std::uint16_t>(told))
        cq_fire(c);
}

template <class T> void unlink(T **head, T &gone) noexcept
{
    while (*head != nullptr && *head != &gone)
        head = &(*head)->direct_next;
    if (*head != nullptr)
        *head = gone.direct_next;
    gone.direct_next = nullptr;
}

void note_any(engine_state &e) noexcept
{
    e.direct_any.store(e.direct_qps != nullptr || e.direct_cqs != nullptr, std::memory_order_relaxed);
}

} // namespace

void direct_qp(handle h) noexcept
{
    const control_guard guard;
    qp *q = guard.dead() ? nullptr : objects().qps.find(h);
    if (q == nullptr)
        return;
    const engine_guard engine_lock;
    engine_state      &e = engine();
    if (q->direct)
        return;
    q->direct      = true;
    q->direct_next = e.direct_qps;
    e.direct_qps   = q;
    note_any(e);
    helper_kick();
}

void direct_cq(handle h) noexcept
{
    const control_guard guard;
    cq *c = guard.dead() ? nullptr : objects().cqs.find(h);
    if (c == nullptr)
        return;
    const engine_guard engine_lock;
    engine_state      &e = engine();
    if (c->direct)
        return;
    c->direct         = true;
    c->doorbell_seen  = value_of(c->doorbell);
    c->fired_sequence = cq::never_fired;
    if (c->doorbell != nullptr) { // there is nothing to look at in the others
        c->direct_next = e.direct_cqs;
        e.direct_cqs   = c;
    }
    note_any(e);
    helper_kick();
}

void direct_forget(qp &q) noexcept
{
    engine_state &e = engine();
    if (q.direct)
        unlink(&e.direct_qps, q);
    q.direct = false;
    note_any(e);
}

void direct_forget(cq &c) noexcept
{
    engine_state &e = engine();
    if (c.direct)
        unlink(&e.direct_cqs, c);
    c.direct = false;
    note_any(e);
}

void direct_fired(cq &c) noexcept
{
    if (c.direct)
        c.fired_sequence = sequence_of(value_of(c.doorbell));
}

bool direct_look() noexcept
{
    engine_state &e     = engine();
    bool          moved = false;
    for (qp *q = e.direct_qps; q != nullptr; q = q->direct_next)
        moved |= look_at_qp(*q);
    for (cq *c = e.direct_cqs; c != nullptr; c = c->direct_next)
        look_at_cq(*c);
    return moved;
}

bool direct_watched() noexcept
{
    const engine_state &e = engine();
    if (e.direct_qps != nullptr)
        return true;
    for (const cq *c = e.direct_cqs; c != nullptr; c = c->direct_next)
        if (c->users != 0)
            return true;
    return false;
}

base::time_ns direct_pause(base::time_ns idle) noexcept
{
    const base::time_ns nap = settings_in_force().direct_nap_ns;
    return idle < direct_busy ? nap : std::max(nap, direct_nap_idle);
}

} // namespace softefa::dev
