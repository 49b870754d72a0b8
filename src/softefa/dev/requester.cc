/* The requester's far half: from an op to records, and from answers to completions.
 *
 * Owns: what is sent to which peer and when again, and the end of each operation. The caller's own WQE names the local memory, so plain copies
 * are right here; a program that unmaps it under its own work is wrong.
 *
 * The op stays until its final answer, because an RNR asks for the message again. Local keys are checked at every try: a deregistered
 * buffer ends the work, it is not read.
 *
 *   REQ-2  an answer is believed only if it comes over the link that the op went to, and names its generation.
 */
#include "softefa/dev/copy.h"
#include "softefa/dev/fabric_client.h"
#include "softefa/dev/kept.h"
#include "softefa/dev/op_life.h"
#include "softefa/dev/single_copy.h"

#include "base/clock.h"

#include <utility>

namespace softefa::dev {

using wire::efa_status;

namespace {

enum class sent : std::uint8_t { yes, blocked, ended }; ///< ended: it is where it belongs, or completed

/// Publishes a record of the operation; `more_flags` beside its own.
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
[[gnu::noinline]] void commit_of(const op &o, link &l, wire::pdu_kind kind, std::uint32_t payload, std::uint8_t more_flags = 0) noexcept
{
    commit_here(o, l, kind, payload, more_flags);
}

[[gnu::noinline]] sent end_by_key(op &o) noexcept
{
    op_complete(o, efa_status::invalid_lkey);
    return sent::ended;
}

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
            return end_by_key(o);
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
            return end_by_key(o);
    }
    std::uint8_t *room = l.channel->tx.reserve(size);
    if (room == nullptr) [[unlikely]]
        return sent::blocked;
    copy_payload(room, from, size);
    return commit_send(o, l);
}

sent transmit_read(op &o, link &l) noexcept
{
    if (o.total != 0 && mr_translate(o.sges[0].lkey, lkey_mask, o.owner->domain, o.sges[0].address, o.total, access_local_write) == nullptr) {
        op_complete(o, efa_status::invalid_lkey);
        return sent::ended;
    }
    if (o.total >= engine().single_copy_min && l.reader.on && kept_use(l, o)) {
        if (o.list != nullptr)
            o.list->remove(o);
        o.state = op_state::granted;
        l.granted.push(o);
        return sent::ended; // there is nothing to send
    }
    if (l.reads_out >= limits::reads_per_link || l.channel->tx.reserve(0) == nullptr)
        return sent::blocked;
    const bool by_address = !o.by_ring && o.total >= engine().single_copy_min && l.reader.on;
    commit_of(o, l, wire::pdu_kind::read_req, 0, by_address ? wire::flag_by_address : o.by_ring ? wire::flag_repeated : 0);
    o.sent_to = l.channel->tx.head();
    ++l.reads_out;
    return sent::yes;
}

/// A part of a write that the target copies by itself. Like one record of a write in every other respect.
sent transmit_window(op &o, link &l, std::uint32_t left, bool *moved_p) noexcept
{
    const std::uint32_t size = left < limits::single_copy_max ? left : limits::single_copy_max;
    const std::uint8_t *from = mr_translate(o.sges[0].lkey, lkey_mask, o.owner->domain, o.sges[0].address + o.progress, size, 0);
    if (from == nullptr) {
        op_complete(o, efa_status::invalid_lkey);
        return sent::ended;
    }
    std::uint8_t *room = l.channel->tx.reserve(sizeof(wire::window));
    if (room == nullptr)
        return sent::blocked;
    const wire::window w = window_open(l, *objects().mrs.at(o.sges[0].lkey & (limits::mrs - 1)), from, size);
    std::memcpy(room, &w, sizeof(w));
    o.lent           = true;
    o.source_slot    = w.slot;
    const bool  last = size == left;
    commit_of(o, l, wire::pdu_kind::write, sizeof(w),
              static_cast<std::uint8_t>(wire::flag_by_address | (o.progress == 0 ? wire::flag_first : 0) | (last ? wire::flag_last : 0)));
    device_counters &n = counters_of(o.owner->device);
    count_window(n.tx_packets, n.tx_packet_bytes, size);
    o.sent_to = l.channel->tx.head();
    o.progress += size;
    *moved_p = true;
    SOFTEFA_POINT(window_lent);
    return last ? sent::yes : sent::blocked;
}

/// One record of a write. `yes`: it was the last one; `blocked`: there is more, or no room.
sent transmit_write(op &o, link &l, bool *moved_p) noexcept
{
    const std::uint32_t left  = o.total - static_cast<std::uint32_t>(o.progress);
    if (o.total >= engine().single_copy_min && left != 0 && !o.by_ring && !o.is_inline && peer_copies(l))
        return transmit_window(o, l, left, moved_p);
    const std::uint32_t chunk = left < limits::chunk_size ? left : limits::chunk_size;
    const std::uint8_t *from  = o.inline_bytes;
    if (!o.is_inline && chunk != 0) {
        from = mr_translate(o.sges[0].lkey, lkey_mask, o.owner->domain, o.sges[0].address + o.progress, chunk, 0);
        if (from == nullptr) {
            op_complete(o, efa_status::invalid_lkey);
            return sent::ended;
        }
    }
    std::uint8_t *room = l.channel->tx.reserve(chunk);
    if (room == nullptr)
        return sent::blocked;
    if (o.by_ring && !o.is_inline) {
        if (!copy_from_application(l.channel->own.fd, l.channel->tx.file_offset(room), from, chunk)) {
            op_complete(o, efa_status::invalid_lkey);
            return sent::ended;
        }
    } else if (chunk != 0) {
        std::memcpy(room, from, chunk);
    }
    // After an RNR only the immediate is repeated: an empty record that is first and last.
    const bool first = o.progress == 0 || left == 0, last = chunk == left;
    commit_of(o, l, wire::pdu_kind::write, chunk, static_cast<std::uint8_t>((first ? wire::flag_first : 0) | (last ? wire::flag_last : 0)));
    o.sent_to = l.channel->tx.head();
    o.progress += chunk;
    *moved_p = true;
    return chunk == left ? sent::yes : sent::blocked;
}

/// First try, or one after a wait.
[[gnu::noinline]] sent transmit(op &o, link &l) noexcept
{
    bool moved = false;
    switch (o.kind) {
    case op_kind::send: return transmit_send(o, l);
    case op_kind::read: return transmit_read(o, l);
    case op_kind::write: return transmit_write(o, l, &moved);
    }
    return sent::ended;
}

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

/// Once more, with two copies: whatever stood in the way of one is found there by the side that it concerns.
void again_by_ring(op &o) noexcept
{
    if (o.list != nullptr)
        o.list->remove(o);
    ++counters_of(o.owner->device).single_copy_repeats;
    o.by_ring  = true;
    o.progress = 0;
    if (o.owner->state == qp_state::error)
        op_complete(o, efa_status::flushed);
    else
        requester_submit(o);
}

/// The kept grant has passed, or its copy failed: the owner is asked, who has the status if there is one.
void ask_after_all(op &o, link &l) noexcept
{
    l.granted.remove(o);
    kept_drop(l, o);
    o.unasked  = false;
    o.must_ask = true;
    o.progress = 0;
    requester_submit(o);
}

/// A piece of the oldest read that was granted.
void copy_granted(link &l) noexcept
{
    op                 &o    = *l.granted.head;
    const std::uint32_t left = o.total - static_cast<std::uint32_t>(o.progress);
    const std::uint32_t size = left < limits::single_copy_max ? left : limits::single_copy_max;
    device_counters    &n    = counters_of(o.owner->device);
    std::uint8_t *to = mr_translate(o.sges[0].lkey, lkey_mask, o.owner->domain, o.sges[0].address + o.progress, size, access_local_write);
    if (to == nullptr) {
        op_complete(o, efa_status::invalid_lkey);
        return;
    }
    if (!single_copy(l, to, {o.source_address + o.progress, o.source_epoch, size, o.source_slot}, size == left, o.unasked)) {
        if (o.unasked)
            ask_after_all(o, l);
        else
            again_by_ring(o);
        return;
    }
    n.single_copy_bytes += size;
    o.progress += size;
    if (size != left)
        return;
    if (o.unasked)
        kept_count(l, o);
    else
        count_window(n.rx_packets, n.rx_packet_bytes, o.total, sizeof(wire::grant));
    op_complete(o, efa_status::ok);
}

void retry_after_rnr(op &o) noexcept
{
    engine_state &e = engine();
    qp           &q = *o.owner;
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

/// Until the helper has found its destination.
[[gnu::noinline]] void park(engine_state &e, op &o) noexcept
{
    o.state = op_state::parked;
    o.to    = nullptr;
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
        if (o->list != nullptr)
            o->list->remove(*o);
        retry_after_rnr(*o);
        break;
    case efa_status::no_such_qpn:
        // The QPN moved to another process: look it up once more. An RDMA write in progress has lost nothing: its target QP is gone.
        if (o->looked_up_twice || l.channel->is_self || o->owner->state == qp_state::error) {
            op_complete(*o, efa_status::bad_dest_qpn);
            break;
        }
        if (o->list != nullptr)
            o->list->remove(*o);
        route_forget(l, o->device, o->dst_qpn);
        o->looked_up_twice = true;
        o->progress        = 0;
        requester_submit(*o);
        break;
    case efa_status::by_ring:
        if (lent)
            again_by_ring(*o);
        else
            op_complete(*o, efa_status::bad_response);
        break;
    default:
        op_complete(*o, static_cast<unsigned>(a.status) <= 18 ? a.status : efa_status::bad_response);
        break;
    }
}

void requester_read_grant(link &l, const wire::header &h, const std::uint8_t *payload) noexcept
{
    if (l.reads_out != 0)
        --l.reads_out;
    op *o = op_named(l, h.op);
    if (o == nullptr || o->kind != op_kind::read || o->state != op_state::in_flight) {
        ++counters_of(h.dst_device).drop_stale;
        return;
    }
    wire::grant given;
    const wire::window &from = given.now;
    if (h.payload_size == sizeof(given))
        std::memcpy(&given, payload, sizeof(given));
    if (h.payload_size != sizeof(given) || from.length != o->total || from.slot >= fabric::window_slots || o->by_ring || o->progress != 0 ||
        !kept_take(l, *o, given)) {
        link_fail(l, "grant of something else");
        return;
    }
    o->source_address = from.address;
    o->source_epoch   = from.epoch;
    o->source_slot    = from.slot;
    o->state          = op_state::granted;
    l.granted.push(*o);
}

void requester_read_data(link &l, const wire::header &h, const std::uint8_t *payload) noexcept
{
    if ((h.flags & wire::flag_last) != 0 && l.reads_out != 0)
        --l.reads_out;
    op *o = op_named(l, h.op);
    if (o == nullptr || o->kind != op_kind::read || o->state != op_state::in_flight) {
        ++counters_of(h.dst_device).drop_stale;
        return;
    }
    const bool last = (h.flags & wire::flag_last) != 0;
    if (h.address != o->progress || h.payload_size > o->total - o->progress ||
        last != (h.payload_size == o->total - o->progress)) {
        link_fail(l, "read data out of place");
        return;
    }
    std::uint8_t *to = mr_translate(o->sges[0].lkey, lkey_mask, o->owner->domain, o->sges[0].address + o->progress, h.payload_size,
                                    access_local_write);
    if (to == nullptr) {
        op_complete(*o, efa_status::invalid_lkey);
        return;
    }
    if (!o->by_ring) {
        std::memcpy(to, payload, h.payload_size);
    } else if (!copy_to_application(to, l.channel->peer.fd, l.channel->rx.file_offset(payload), h.payload_size)) {
        op_complete(*o, efa_status::invalid_lkey);
        return;
    }
    o->progress += h.payload_size;
    if (last)
        op_complete(*o, efa_status::ok);
}

bool requester_link_work(link &l) noexcept
{
    bool moved = run_list(l.pending, l, limits::records_per_run);
    moved |= run_list(l.pending_reads, l, limits::records_per_run);
    if (!l.granted.empty()) {
        copy_granted(l);
        moved = true;
    }
    for (unsigned budget = limits::bytes_per_run / limits::chunk_size; budget != 0 && !l.writes.empty(); --budget) {
        op        &o       = *l.writes.head;
        bool       sending = false;
        const sent done    = transmit_write(o, l, &sending);
        if (done == sent::yes) {
            l.writes.remove(o);
            o.state = op_state::in_flight;
        }
        moved |= sending || done != sent::blocked;
        if (done == sent::blocked && !sending)
            break;
    }
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
