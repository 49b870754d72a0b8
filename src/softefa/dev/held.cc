/* Work that waits for a moment: pauses after RNR, delays on request, and the modelled wire.
 *
 * Owns: the two lists of ops with a deadline and the clock that ends them; carries out what rude.h decides for the sending side.
 *
 * Pauses after RNR are all of one length, so their list is a queue. Held ops are sorted by deadline; they are inserted from behind, where
 * those of the wire model belong (their deadlines grow), while random delays walk over at most the ops that are held.
 *
 * A delayed op has not been sent: it can be flushed, dropped and refused like one that is looked up. A landed one has its answer and only its
 * completion waits (the way back over the modelled wire): nothing changes its end any more.
 *
 *   HELD-1  an op with a deadline is neither sent nor completed before it.
 */
#include "softefa/dev/op_life.h"

#include "base/clock.h"

#include <csignal>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::dev {

using wire::efa_status;

namespace {

void hold(op &o, op_state state, std::uint64_t deadline_ns) noexcept
{
    engine_state &e = engine();
    o.state         = state;
    o.to            = nullptr;
    o.deadline_ns   = deadline_ns;
    op *before      = e.held.tail;
    while (before != nullptr && before->deadline_ns > deadline_ns)
        before = before->prev;
    e.held.insert_behind(before, o);
    e.rare |= rare_timers;
}

/// When the op may be sent: a delay on request, and the way there. A read's bytes come back over the other direction.
std::uint64_t departure(engine_state &e, const op &o, std::uint64_t now_ns, std::uint64_t delay_ns) noexcept
{
    // The delay comes behind the wire: work that is held up must not hold up what others put on it meanwhile.
    const unsigned device = o.owner->device;
    if (!e.wire_modelled)
        return now_ns + delay_ns;
    if (o.kind != op_kind::read)
        return e.wire_out[device].arrival(now_ns, o.total) + delay_ns;
    return e.wire_in[device].arrival(e.wire_out[device].arrival(now_ns, 0), o.total) + delay_ns;
}

} // namespace

void requester_submit_rudely(op &o) noexcept
{
    engine_state           &e     = engine();
    const std::uint64_t     now   = base::clock_now_ns();
    device_counters        &n     = counters_of(o.owner->device);
    const rudeness::verdict fate  = e.rude.send(o.owner->device, {o.device, o.dst_qpn});
    using what                    = rudeness::fate;
    switch (fate.what) {
    case what::fail:
        ++n.rude_failures;
        op_complete(o, fate.status);
        return;
    case what::kill:
        ::kill(getpid(), SIGKILL);
        syscall(SYS_exit_group, 128 + SIGKILL); // the init of a PID namespace, as a container's first program is, gets no SIGKILL of its own
        return;
    case what::stop: ::kill(getpid(), SIGSTOP); break;
    case what::delay: ++n.rude_delays; break;
    case what::pass: break;
    }
    const std::uint64_t at = departure(e, o, now, fate.delay_ns);
    if (at > now)
        hold(o, op_state::held, at);
    else
        requester_submit(o);
}

bool requester_hold_completion(op &o) noexcept
{
    engine_state       &e  = engine();
    const std::uint64_t at = o.deadline_ns + e.wire_out[o.owner->device].latency_ns();
    if (o.kind == op_kind::read || o.deadline_ns == 0 || at <= base::clock_now_ns())
        return false;
    hold(o, op_state::landed, at);
    return true;
}

bool requester_timers(std::uint64_t now_ns) noexcept
{
    engine_state &e     = engine();
    bool          moved = false;
    for (op_list *list : {&e.rnr, &e.held}) {
        while (!list->empty() && list->head->deadline_ns <= now_ns) {
            op &o = *list->pop();
            moved = true;
            if (o.state == op_state::landed)
                op_complete(o, efa_status::ok);
            else if (o.owner->owner->ahs[o.ah_number].pd != o.owner->domain->self)
                op_complete(o, efa_status::invalid_ah);
            else
                requester_submit(o);
        }
    }
    return moved;
}

std::uint64_t requester_next_deadline() noexcept
{
    const engine_state &e    = engine();
    std::uint64_t       next = ~std::uint64_t{0};
    for (const op_list *list : {&e.rnr, &e.held})
        if (!list->empty() && list->head->deadline_ns < next)
            next = list->head->deadline_ns;
    return next;
}

} // namespace softefa::dev
