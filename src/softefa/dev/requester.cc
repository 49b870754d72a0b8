/* The requester's far half: where an op goes, and what an answer means.
 *
 * Owns: the way of an op to its peer, or to the list where it waits, all that sends need of it, and the end of each operation. The caller's own WQE
 * names the local memory, so plain copies are right here; a program that unmaps it under its own work is wrong.
 * Refuses to know the records of reads and writes, and the bytes that come back for them (rdma_request.cc).
 *
 * The op stays until its final answer, because an RNR asks for the message again. Local keys are checked at every try: a deregistered
 * buffer ends the work, it is not read.
 *
 *   REQ-2  an answer is believed only if it comes over the link that the op went to, and names its generation.
 */
#include "softefa/dev/requester.h"

#include "base/clock.h"
#include "softefa/dev/copy.h"
#include "softefa/dev/op_life.h"

#include <utility>

namespace softefa::dev {

using wire::efa_status;

namespace {

/// requester_commit(), without a call for a send.
[[gnu::always_inline]] inline void commit_here(const op &o, link &l, wire::pdu_kind kind, std::uint32_t payload, std::uint8_t more_flags) noexcept
{
    const qp &q = *o.owner;
    link_commit(l, q.device, payload, [&](wire::header &h) noexcept {
        h.kind         = kind;
        h.flags        = o.flags | more_flags;
        h.src_qpn      = q.qpn;
        h.dst_qpn      = o.dst_qpn;
        h.src_device   = q.device;
        h.dst_device   = o.device;
        h.payload_size = payload;
        h.op           = wire::op_id{o.generation, q.slot, static_cast<std::uint16_t>(o.slot)}.pack();
        h.qkey         = o.qkey;
        h.imm          = o.imm;
        h.address      = o.remote_address;
        h.rkey         = o.rkey;
        h.length       = o.total;
    });
}

} // namespace

[[gnu::noinline]] void requester_commit(const op &o, link &l, wire::pdu_kind kind, std::uint32_t payload, std::uint8_t more_flags) noexcept
{
    commit_here(o, l, kind, payload, more_flags);
}

[[gnu::noinline]] sent requester_end_by_key(op &o) noexcept
{
    op_complete(o, efa_status::invalid_lkey);
    return sent::ended;
}

namespace {

/// The message's bytes are in the ring.
[[gnu::always_inline]] inline sent commit_send(op &o, link &l) noexcept
{
    const qp           &q    = *o.owner;
    const std::uint32_t size = o.total;
    if (o.rnr_count == 0 && !o.looked_up_twice) {
        device_counters &n = engine().counters[q.device];
        ++n.tx_messages;
        n.tx_bytes += size;
    }
    SOFTEFA_POINT(payload_written);
    commit_here(o, l, wire::pdu_kind::send, size, 0);
    o.sent_to = l.channel->tx.head();
    if ((o.flags & wire::flag_ud) != 0) [[unlikely]] {
        op_complete(o, efa_status::ok);
        return sent::ended;
    }
    return sent::yes;
}

/// Of two pieces.
[[gnu::noinline]] sent transmit_pieces(op &o, link &l) noexcept
{
    const std::uint8_t *from[2] = {};
    for (unsigned i = 0; i < o.sge_count; ++i) {
        if (o.sges[i].length == 0)
            continue;
        from[i] = mr_translate(o.sges[i].lkey, lkey_mask, o.owner->domain, o.sges[i].address, o.sges[i].length, 0);
        if (from[i] == nullptr)
            return requester_end_by_key(o);
    }
    std::uint8_t *room = l.channel->tx.reserve(o.total);
    if (room == nullptr)
        return sent::blocked;
    for (unsigned i = 0; i < o.sge_count; ++i) {
        if (from[i] != nullptr)
            std::memcpy(room, from[i], o.sges[i].length);
        room += o.sges[i].length;
    }
    return commit_send(o, l);
}

[[gnu::always_inline]] inline sent transmit_send(op &o, link &l) noexcept
{
    if (o.sge_count > 1) [[unlikely]]
        return transmit_pieces(o, l);
    const std::uint32_t size = o.total;
    const std::uint8_t *from = o.inline_bytes;
    if (!o.is_inline && size != 0) {
        from = mr_translate(o.sges[0].lkey, lkey_mask, o.owner->domain, o.sges[0].address, size, 0);
        if (from == nullptr) [[unlikely]]
            return requester_end_by_key(o);
    }
    std::uint8_t *room = l.channel->tx.reserve(size);
    if (room == nullptr) [[unlikely]]
        return sent::blocked;
    copy_payload(room, from, size);
    return commit_send(o, l);
}

/// First try, or one after a wait.
[[gnu::noinline]] sent transmit(op &o, link &l) noexcept
{
    bool moved = false;
    switch (o.kind) {
    case op_kind::send: return transmit_send(o, l);
    case op_kind::read: return rdma_send_read(o, l);
    case op_kind::write: return rdma_send_write(o, l, &moved);
    }
    return sent::ended;
}

/// Where it waits if it cannot be sent at once.
inline op_list &waiting_list(const op &o, link &l) noexcept
{
    if (o.kind == op_kind::read)
        return l.pending_reads;
    return o.kind == op_kind::write ? l.writes : l.pending;
}

[[gnu::noinline]] void queue(op &o, link &l) noexcept
{
    o.state = op_state::queued;
    o.to    = &l;
    waiting_list(o, l).push(o);
}

bool run_list(op_list &list, link &l, unsigned budget) noexcept
{
    bool moved = false;
    for (; budget != 0 && !list.empty(); --budget) {
        op        &o    = *list.head;
        const sent done = transmit(o, l);
        if (done == sent::blocked)
            break;
        moved = true;
        if (done == sent::yes) {
            list.remove(o);
            o.state = op_state::in_flight;
        }
    }
    return moved;
}

/// The next work for that destination looks for its owner again. Only a way over this very link is forgotten: a peer says nothing about others.
void route_forget(const link &l, unsigned device, std::uint16_t qpn) noexcept
{
    std::uint16_t *routes = device < limits::devices ? engine().routes[device] : nullptr;
    if (routes != nullptr && !l.channel->is_self && routes[qpn] == l.index + 1)
        routes[qpn] = 0;
}

/// An acknowledgement that names no operation under way.
[[gnu::noinline]] void ack_of_nothing(const link &l, const wire::ack &a) noexcept
{
    if (a.status == efa_status::stale_route) {
        const auto to = wire::route_name::unpack(a.op);
        route_forget(l, to.device, to.qpn);
        return;
    }
    ++engine().counters[0].drop_stale;
}

void retry_after_rnr(op &o) noexcept
{
    engine_state &e = engine();
    qp           &q = *o.owner;
    if (o.list != nullptr)
        o.list->remove(o);
    if (q.state == qp_state::error) {
        op_complete(o, efa_status::flushed);
        return;
    }
    if (q.rnr_retry != 7 && o.rnr_count >= q.rnr_retry) {
        ++counters_of(q.device).rnr_exhausted;
        op_complete(o, efa_status::rnr);
        return;
    }
    if (o.rnr_count != 0xff)
        ++o.rnr_count;
    ++counters_of(q.device).rnr_retries;
    o.state       = op_state::rnr_wait; // `to` stays: if that process ends, the next owner of the QPN is not the one that was meant
    o.deadline_ns = base::clock_now_ns() + e.rnr_pause_ns;
    e.rnr.push(o);
    e.rare |= rare_timers;
}

/// The QPN moved to another process: it is looked up once more. An RDMA write in progress has lost nothing: its target QP is gone.
void retry_elsewhere(op &o, link &l) noexcept
{
    if (o.looked_up_twice || l.channel->is_self || o.owner->state == qp_state::error) {
        op_complete(o, efa_status::bad_dest_qpn);
        return;
    }
    if (o.list != nullptr)
        o.list->remove(o);
    route_forget(l, o.device, o.dst_qpn);
    o.looked_up_twice = true;
    o.progress        = 0;
    requester_submit(o);
}

/// Until the helper has found its destination.
[[gnu::noinline]] void park(engine_state &e, op &o) noexcept
{
    o.state         = op_state::parked;
    o.to            = nullptr;
    o.in_vain_since = 0;
    e.parked.push(o);
    e.resolve_wanted = true;
}

} // namespace

void requester_submit(op &o) noexcept
{
    engine_state &e = engine();
    if (o.device >= limits::devices || e.routes[o.device] == nullptr) [[unlikely]] {
        requester_end(o, efa_status::unreachable);
        return;
    }
    const unsigned route = e.routes[o.device][o.dst_qpn];
    link          *l     = route != 0 ? e.links[route - 1] : nullptr;
    if (l == nullptr) [[unlikely]] {
        park(e, o);
        return;
    }
    o.to = l;
    if (l->failed) [[unlikely]] { // until the helper has forgotten it; the process itself for ever
        requester_end(o, l->end_status);
        return;
    }
    sent done = sent::blocked; // where others wait already
    if (o.kind == op_kind::send) [[likely]] {
        if (l->pending.empty()) [[likely]]
            done = transmit_send(o, *l);
    } else if (waiting_list(o, *l).empty()) {
        done = transmit(o, *l);
    }
    if (done == sent::yes) [[likely]]
        o.state = op_state::in_flight;
    else if (done == sent::blocked)
        queue(o, *l);
}

void requester_end(op &o, efa_status status) noexcept
{
    const bool ud = (o.flags & wire::flag_ud) != 0;
    if (ud)
        ++counters_of(o.owner->device).drop_ud_unreachable;
    if (status == efa_status::bad_dest_qpn || status == efa_status::unreachable) {
        ++counters_of(o.owner->device).no_owner;
        record(record_kind::no_owner, o.device, o.owner->qpn, o.dst_qpn, static_cast<unsigned>(status), 0, 0);
    }
    op_complete(o, ud ? efa_status::ok : status);
}

void requester_ack(link &l, const wire::ack &a) noexcept
{
    if (a.is_read && l.reads_out != 0)
        --l.reads_out;
    op *o = op_named(l, a.op);
    if (o == nullptr || o->state == op_state::rnr_wait || (o->kind == op_kind::read) != a.is_read) [[unlikely]] {
        ack_of_nothing(l, a);
        return;
    }
    const bool lent = std::exchange(o->lent, false); // the peer's last word: it copies nothing of it any more
    switch (a.status) {
    case efa_status::ok:
        if (o->state != op_state::in_flight) { // an end for what was not sent to its end
            link_fail(l, "success for unsent work");
            return;
        }
        if (engine().wire_modelled && requester_hold_completion(*o)) [[unlikely]]
            break;
        op_complete(*o, efa_status::ok);
        break;
    case efa_status::rnr:
        retry_after_rnr(*o);
        break;
    case efa_status::no_such_qpn:
        retry_elsewhere(*o, l);
        break;
    case efa_status::by_ring:
        if (lent)
            rdma_again_by_ring(*o);
        else
            op_complete(*o, efa_status::bad_response);
        break;
    default:
        op_complete(*o, static_cast<unsigned>(a.status) <= 18 ? a.status : efa_status::bad_response);
        break;
    }
}

bool requester_link_work(link &l) noexcept
{
    bool moved = run_list(l.pending, l, limits::records_per_run);
    moved |= run_list(l.pending_reads, l, limits::records_per_run);
    moved |= rdma_link_work(l);
    return moved;
}

void requester_link_gone(link &l) noexcept
{
    objects().qps.for_each([&](qp &q) {
        for (unsigned i = 0; i < q.sq_entries && q.ops != nullptr; ++i) {
            op &o = q.ops[i];
            if (o.state == op_state::free || o.to != &l)
                continue;
            if (l.failed)
                op_complete(o, l.end_status);
            else
                op_complete(o, o.kind == op_kind::read && (o.state == op_state::in_flight || o.state == op_state::granted)
                                   ? efa_status::remote_abort
                                   : efa_status::bad_dest_qpn);
        }
    });
    l.reads_out = 0;
}

void requester_ah_gone(context &c, std::uint16_t number) noexcept
{
    objects().qps.for_each([&](qp &q) {
        for (unsigned i = 0; q.owner == &c && i < q.sq_entries && q.ops != nullptr; ++i) {
            op &o = q.ops[i];
            if (o.ah_number == number && (o.state == op_state::parked || o.state == op_state::rnr_wait || o.state == op_state::held))
                op_complete(o, efa_status::invalid_ah);
        }
    });
}

} // namespace softefa::dev
