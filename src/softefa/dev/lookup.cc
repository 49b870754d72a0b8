/* Destinations: whom parked work is for, and when it may go.
 *
 * Owns: the questions. A destination that the engine does not know parks its work; the helper finds the owner of the QPN in the registry and, unless
 * it is connected, has it connected (peers.cc). The answer lets the work go: over the link, or to its end. Work that is still parked is looked at
 * again a little later, and the registry decides each time anew.
 * Refuses to know how two processes come together.
 *
 * Also who does not answer: a process whose backlog stays full, or that never says welcome, ends the work like a peer that does not move, after as
 * long a time (SOFTEFA_UNRESPONSIVE_TIMEOUT).
 *
 * And where nobody listens: a process owns a number from the creation of a queue pair on, and listens from its first RTR until it exits. So none of its
 * queue pairs is ready, and work ends as with one that is not ready in a process that listens, a moment later: the lock of a number and its word are
 * not written at once. To listen from the creation on would answer at once, but cost each process that only looks at the device a socket and a
 * thread, and say nothing of one that has left the registry and is slow to end.
 *
 * And where there is no room, here or there: a second later, if it stays so.
 *
 *   LKP-1  work waits without a bound only for a process that is stopped, or for a shortage of it or of this one to end.
 */
#include "softefa/dev/helper_state.h"

namespace softefa::dev {

namespace {

struct destination {
    std::uint8_t  device;
    std::uint16_t qpn;
};

/// The first `most` of them. What could not all be taken goes round: the work of those taken, in its order, goes to the tail, so that the
/// next look finds others in front. Else a stopped process with many queues would hide every destination behind it.
unsigned collect(destination *out, unsigned most) noexcept
{
    const engine_guard guard;
    op_list           &parked = engine().parked;
    unsigned           count  = 0;
    const auto         taken  = [&](const op &o) {
        bool found = false;
        for (unsigned i = 0; i < count; ++i)
            found |= out[i].device == o.device && out[i].qpn == o.dst_qpn;
        return found;
    };
    for (const op *o = parked.head; o != nullptr && count < most; o = o->next)
        if (!taken(*o))
            out[count++] = {o->device, o->dst_qpn};
    const op *const last = parked.tail;
    for (op *o = count == most ? parked.head : nullptr, *next = nullptr; o != nullptr; o = o != last ? next : nullptr) {
        next = o->next;
        if (taken(*o)) {
            parked.remove(*o);
            parked.push(*o);
        }
    }
    return count;
}

/// Lets the work for one destination go: over a link, or (link 0) to its end. Without `ended` it is only a route. One that came up since the
/// owner was looked up is newer: this process may have taken the number itself.
void settle(const destination &d, unsigned index, bool ended, wire::efa_status how = wire::efa_status::bad_dest_qpn) noexcept
{
    const engine_guard guard;
    engine_state      &e = engine();
    if (!ended && e.routes[d.device][d.qpn] == 0)
        e.routes[d.device][d.qpn] = static_cast<std::uint16_t>(index + 1);
    for (op *o = e.parked.head, *next = nullptr; o != nullptr; o = next) {
        next = o->next;
        if (o->device != d.device || o->dst_qpn != d.qpn)
            continue;
        e.parked.remove(*o);
        if (ended && e.routes[d.device][d.qpn] == 0)
            requester_end(*o, how);
        else
            requester_submit(*o);
    }
}

/// True once some of the work for a destination has waited in vain for so long. It begins to when it is first found that the destination is not to be
/// reached, so there are two looks at least.
bool waited_in_vain(const destination &d, base::time_ns limit) noexcept
{
    const engine_guard  guard;
    const base::time_ns now   = base::clock_now_ns();
    bool                ended = false;
    for (op *o = engine().parked.head; o != nullptr; o = o->next) {
        if (o->device != d.device || o->dst_qpn != d.qpn)
            continue;
        if (o->in_vain_since == 0)
            o->in_vain_since = now;
        ended |= now - o->in_vain_since >= limit;
    }
    return ended;
}

/// A process whose backlog is full accepts nobody: it is stopped, or busy for a moment. True once that has lasted as long as a peer may be silent.
bool crowded_for_long(std::uint64_t instance, bool crowded) noexcept
{
    crowd *entry = &helper.crowds[0];
    for (crowd &c : helper.crowds) {
        if (c.instance == instance) {
            entry = &c;
            break;
        }
        if (c.quiet.looked_at < entry->quiet.looked_at)
            entry = &c; // free, or the one not looked at for longest
    }
    if (!crowded) {
        if (entry->instance == instance)
            *entry = {};
        return false;
    }
    if (entry->instance != instance)
        *entry = {instance, {}};
    return entry->quiet.goes_on(base::clock_now_ns(), helper.unresponsive);
}

/// Once that is long ago, it may be asked again.
bool refused_just_now(std::uint64_t instance) noexcept
{
    const unsigned index = peer_find(instance, peer_state::refused);
    if (index == 0)
        return false;
    const bool just_now = base::clock_now_ns() - helper.peers[index]->since < refused_pause;
    if (!just_now)
        peer_close(index);
    return just_now;
}

/// Lets the work for one destination go if there is an answer. False: it waits for one.
bool answer(const destination &d) noexcept
{
    const auto owner = helper.names->owner(d.device, d.qpn);
    if (!owner) {
        shortage_look();
        return false; // a shortage of this process: the work waits for it to end
    }
    const std::uint64_t instance = *owner;
    wire::efa_status    how      = wire::efa_status::unreachable;
    if (instance == 0 || instance == helper.instance) {
        settle(d, 0, true);
        return true;
    }
    if (const unsigned up = peer_find(instance, peer_state::up); up != 0) {
        settle(d, up, false);
        return true;
    }
    if (const unsigned waiting = peer_find(instance, peer_state::connecting); waiting != 0) {
        // Once it counts as silent, the connection stays: a new one each time would fill its backlog, and start the time again for what
        // else goes there. It comes up when the process goes on, and ends with it.
        if (helper.unresponsive == 0 || !helper.peers[waiting]->quiet.goes_on(base::clock_now_ns(), helper.unresponsive))
            return false;
    } else if (refused_just_now(instance)) {
        if (!waited_in_vain(d, no_room_limit))
            return false;
    } else {
        const attempt made    = peer_connect(instance);
        const bool    crowded = crowded_for_long(instance, made == attempt::crowded);
        const bool    ends    = made == attempt::nobody    ? waited_in_vain(d, nobody_listens_limit)
                                : made == attempt::no_room ? waited_in_vain(d, no_room_limit)
                                                           : crowded && helper.unresponsive != 0;
        if (!ends)
            return false;
        if (made == attempt::nobody)
            how = wire::efa_status::bad_dest_qpn;
    }
    settle(d, 0, true, how);
    return true;
}

} // namespace

bool peers_look_up_parked() noexcept
{
    destination    wanted[64];
    const unsigned count = collect(wanted, 64);
    bool           waits = count == 64; // there may be more
    for (unsigned i = 0; i < count; ++i)
        waits |= !answer(wanted[i]);
    return waits;
}

} // namespace softefa::dev
