/* RDMA requests: reads and writes of our own, from an op to records, and from what comes back to its end.
 *
 * Owns: what is asked of a peer and in which pieces, and where the bytes of a read are placed. By data in the ring, chunk by chunk, or by one copy:
 * the target takes a write from a window of ours, and a read that was granted is copied here, a piece in each pass.
 * Refuses to know how bytes are copied (copy.h, single_copy.h), what a grant is good for later (kept.h), and answers that carry no bytes: they are
 * requester.cc's, like the lists that work waits in.
 *
 * One copy is only ever a shorter way to success. Whatever stands in its way, the operation is done again by the ring, where the side that is concerned
 * finds it and has the status.
 *
 *   RDQ-1  bytes of a read are placed only in order and within what was asked for, and its key is looked at with each piece.
 */
#include "softefa/dev/copy.h"
#include "softefa/dev/kept.h"
#include "softefa/dev/op_life.h"
#include "softefa/dev/requester.h"
#include "softefa/dev/single_copy.h"

namespace softefa::dev {

using wire::efa_status;

namespace {

/// The next `size` bytes of the op's own buffer, or null. Its key is looked at every time: a deregistered buffer ends the work.
inline std::uint8_t *buffer_at(const op &o, std::uint32_t size, std::uint32_t access) noexcept
{
    return mr_translate(o.sges[0].lkey, lkey_mask, o.owner->domain, o.sges[0].address + o.progress, size, access);
}

/// An answer with bytes, or the place of bytes. `over`: the peer serves that read no more.
inline op *read_answered(link &l, const wire::header &h, bool over) noexcept
{
    if (over && l.reads_out != 0)
        --l.reads_out;
    op *o = op_named(l, h.op);
    if (o != nullptr && o->kind == op_kind::read && o->state == op_state::in_flight)
        return o;
    ++counters_of(h.dst_device).drop_stale;
    return nullptr;
}

} // namespace

sent rdma_send_read(op &o, link &l) noexcept
{
    if (o.total != 0 && mr_translate(o.sges[0].lkey, lkey_mask, o.owner->domain, o.sges[0].address, o.total, access_local_write) == nullptr)
        return requester_end_by_key(o);
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
    requester_commit(o, l, wire::pdu_kind::read_req, 0, by_address ? wire::flag_by_address : o.by_ring ? wire::flag_repeated : 0);
    o.sent_to = l.channel->tx.head();
    ++l.reads_out;
    return sent::yes;
}

namespace {

/// A part of a write that the target copies by itself. Like one record of a write in every other respect.
sent send_window(op &o, link &l, std::uint32_t left, bool *moved_p) noexcept
{
    const std::uint32_t size = left < limits::single_copy_max ? left : limits::single_copy_max;
    const std::uint8_t *from = buffer_at(o, size, 0);
    if (from == nullptr)
        return requester_end_by_key(o);
    std::uint8_t *room = l.channel->tx.reserve(sizeof(wire::window));
    if (room == nullptr)
        return sent::blocked;
    const wire::window w = window_open(l, *objects().mrs.at(o.sges[0].lkey & (limits::mrs - 1)), from, size);
    std::memcpy(room, &w, sizeof(w));
    o.lent          = true;
    o.source_slot   = w.slot;
    const bool last = size == left;
    requester_commit(o, l, wire::pdu_kind::write, sizeof(w),
                     static_cast<std::uint8_t>(wire::flag_by_address | (o.progress == 0 ? wire::flag_first : 0) | (last ? wire::flag_last : 0)));
    device_counters &n = counters_of(o.owner->device);
    count_window(n.tx_packets, n.tx_packet_bytes, size);
    o.sent_to = l.channel->tx.head();
    o.progress += size;
    *moved_p = true;
    SOFTEFA_POINT(window_lent);
    return last ? sent::yes : sent::blocked;
}

} // namespace

sent rdma_send_write(op &o, link &l, bool *moved_p) noexcept
{
    const std::uint32_t left = o.total - static_cast<std::uint32_t>(o.progress);
    if (o.total >= engine().single_copy_min && left != 0 && !o.by_ring && !o.is_inline && peer_copies(l))
        return send_window(o, l, left, moved_p);
    const std::uint32_t chunk = left < limits::chunk_size ? left : limits::chunk_size;
    const std::uint8_t *from  = o.inline_bytes;
    if (!o.is_inline && chunk != 0) {
        from = buffer_at(o, chunk, 0);
        if (from == nullptr)
            return requester_end_by_key(o);
    }
    std::uint8_t *room = l.channel->tx.reserve(chunk);
    if (room == nullptr)
        return sent::blocked;
    if (o.by_ring && !o.is_inline) {
        if (!copy_from_application(l.channel->own.fd, l.channel->tx.file_offset(room), from, chunk)) {
            link_touch(l); // there may be a pad before the room: it is to be taken like a record
            return requester_end_by_key(o);
        }
    } else if (chunk != 0) {
        std::memcpy(room, from, chunk);
    }
    // After an RNR only the immediate is repeated: an empty record that is first and last.
    const bool first = o.progress == 0 || left == 0, last = chunk == left;
    requester_commit(o, l, wire::pdu_kind::write, chunk, static_cast<std::uint8_t>((first ? wire::flag_first : 0) | (last ? wire::flag_last : 0)));
    o.sent_to = l.channel->tx.head();
    o.progress += chunk;
    *moved_p = true;
    return chunk == left ? sent::yes : sent::blocked;
}

void requester_read_grant(link &l, const wire::header &h, const std::uint8_t *payload) noexcept
{
    op *o = read_answered(l, h, true);
    if (o == nullptr)
        return;
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
    const bool last = (h.flags & wire::flag_last) != 0;
    op        *o    = read_answered(l, h, last);
    if (o == nullptr)
        return;
    if (h.address != o->progress || h.payload_size == 0 || h.payload_size > o->total - o->progress || last != (h.payload_size == o->total - o->progress)) {
        link_fail(l, "read data out of place");
        return;
    }
    std::uint8_t *to = buffer_at(*o, h.payload_size, access_local_write);
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

// Whatever stood in the way of one is found there by the side that it concerns.
void rdma_again_by_ring(op &o) noexcept
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

namespace {

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
    std::uint8_t       *to   = buffer_at(o, size, access_local_write);
    if (to == nullptr) {
        op_complete(o, efa_status::invalid_lkey);
        return;
    }
    if (!single_copy(l, to, {o.source_address + o.progress, o.source_epoch, size, o.source_slot}, size == left, o.unasked)) {
        if (o.unasked)
            ask_after_all(o, l);
        else
            rdma_again_by_ring(o);
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

} // namespace

bool rdma_link_work(link &l) noexcept
{
    bool moved = !l.granted.empty();
    if (moved)
        copy_granted(l);
    for (unsigned budget = limits::bytes_per_run / limits::chunk_size; budget != 0 && !l.writes.empty(); --budget) {
        op        &o       = *l.writes.head;
        bool       sending = false;
        const sent done    = rdma_send_write(o, l, &sending);
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

} // namespace softefa::dev
