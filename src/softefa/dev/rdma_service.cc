/* RDMA service: reads and writes that peers ask for, done on registered memory.
 *
 * Owns: writes as they arrive, chunk by chunk, and the queue of reads that each link waits for. The range is checked against the rkey with the
 * first chunk, and each chunk again, under the engine lock, so deregistration is exact. Bytes that lie in application memory are moved by
 * copies that survive its absence (copy.h), or by one copy from the other process (single_copy.h).
 * A write of several records needs one state per link, because a requester sends one at a time; its first error is answered at once and the
 * rest of it finds no write in progress and is dropped. Reads are answered in order, at most bytes_per_run in a pass, by data or by a grant (kept.h).
 * Refuses to know posted receives: an immediate asks receive.cc for one.
 *
 *   RSP-2, of responder.cc, is kept here for writes.
 */
#include "softefa/dev/copy.h"
#include "softefa/dev/kept.h"
#include "softefa/dev/responder.h"
#include "softefa/dev/single_copy.h"

namespace softefa::dev {

using wire::efa_status;

namespace {

/// What RDMA needs of its target, on top of a QP.
efa_status find_rdma_target(const wire::header &h, qp **q_p) noexcept
{
    const efa_status seen = find_target(h, q_p);
    if (seen != efa_status::ok)
        return seen;
    if ((*q_p)->domain->ah_by_device[h.src_device] == ah_unknown) {
        ++counters_of((*q_p)->device).drop_no_ah;
        return efa_status::unknown_peer;
    }
    return efa_status::ok;
}

/// `size` bytes of a write; they lie in the ring, or where `from` says.
efa_status serve_write(link &l, const wire::header &h, const std::uint8_t *payload, std::uint32_t size, const wire::window *from) noexcept
{
    const bool first = (h.flags & wire::flag_first) != 0, last = (h.flags & wire::flag_last) != 0;
    if (first)
        l.write_in = {h.op, 0, efa_status::ok};
    const std::uint64_t at = first && size == 0 && last ? h.length : l.write_in.next; // an immediate repeated after an RNR
    qp        *q    = nullptr;
    efa_status seen = find_rdma_target(h, &q);
    if (seen != efa_status::ok)
        return seen;
    device_counters &n = counters_of(q->device);
    if ((h.flags & wire::flag_has_imm) != 0 && q->unsolicited != ((h.flags & wire::flag_unsolicited) != 0)) {
        ++n.drop_feature;
        return efa_status::feature_mismatch;
    }
    // The whole range with the first chunk, and each chunk again: the registration may go in between.
    if (h.length != 0 && mr_translate(h.rkey, rkey_mask, q->domain, h.address, h.length, access_remote_write) == nullptr) {
        ++n.drop_rkey;
        return efa_status::bad_rkey;
    }
    if (size != 0) {
        std::uint8_t *to = mr_translate(h.rkey, rkey_mask, q->domain, h.address + at, size, access_remote_write);
        if (to != nullptr && from != nullptr) {
            l.copied = size;
            if (!single_copy(l, to, *from, last))
                return efa_status::by_ring;
            n.single_copy_bytes += size;
            count_window(n.rx_packets, n.rx_packet_bytes, size);
        } else if (to == nullptr || !copy_to_application(to, l.channel->peer.fd, l.channel->rx.file_offset(payload), size)) {
            ++n.drop_fault;
            return efa_status::bad_rkey;
        }
    }
    SOFTEFA_POINT(write_chunk_placed);
    l.write_in.next += size;
    if (!last)
        return efa_status::ok;
    if ((h.flags & wire::flag_has_imm) != 0)
        seen = receive_immediate(*q, h);
    if (seen == efa_status::ok) { // an immediate that finds no receive comes again
        ++n.served_write_ops;
        n.served_write_bytes += h.length;
    }
    return seen;
}

} // namespace

void rdma_take_write(link &l, const wire::header &h, const std::uint8_t *payload) noexcept
{
    const bool first = (h.flags & wire::flag_first) != 0, last = (h.flags & wire::flag_last) != 0;
    const std::uint64_t at = first ? 0 : l.write_in.next;
    if (!first && h.op != l.write_in.op) {
        ++counters_of(h.dst_device).drop_stale; // RSP-2: the rest of a write that was refused
        return;
    }
    const bool    by_address = (h.flags & wire::flag_by_address) != 0;
    std::uint32_t size       = h.payload_size;
    wire::window  from;
    if (by_address) {
        if (size == sizeof(from))
            std::memcpy(&from, payload, sizeof(from));
        size = from.length; // 0 where there is none
        if (size == 0 || size > limits::single_copy_max || from.slot >= fabric::window_slots) {
            link_fail(l, "window out of range");
            return;
        }
    }
    const bool repeated = first && last && size == 0;
    if (at > h.length || size > h.length - at || (last && !repeated && at + size != h.length) || (!last && size == 0)) {
        link_fail(l, "write outside its own length");
        return;
    }
    const efa_status seen = serve_write(l, h, payload, size, by_address ? &from : nullptr);
    if (seen != efa_status::ok || last) {
        l.write_in.op = ~std::uint64_t{0};
        responder_answer(l, h, seen);
    }
}

void rdma_take_read(link &l, const wire::header &h) noexcept
{
    if (h.payload_size != 0 || l.read_count == limits::reads_per_link) {
        link_fail(l, "more reads than agreed"); // before a reason of the read itself is counted
        return;
    }
    qp        *q    = nullptr;
    efa_status seen = find_rdma_target(h, &q);
    if (seen == efa_status::ok && h.length != 0 &&
        mr_translate(h.rkey, rkey_mask, q->domain, h.address, h.length, access_remote_read) == nullptr) {
        ++counters_of(q->device).drop_rkey;
        seen = efa_status::bad_rkey;
    }
    if (seen != efa_status::ok || h.length == 0) {
        responder_answer(l, h, seen);
        return;
    }
    read_request &r = l.reads[(l.read_head + l.read_count++) % limits::reads_per_link];
    r = {h.op, h.address, h.rkey, h.length, 0, h.src_qpn, h.dst_qpn, h.src_device, h.dst_device, h.qkey,
         (h.flags & wire::flag_by_address) != 0 && engine().single_copy_min != ~0u, (h.flags & wire::flag_repeated) != 0};
}

namespace {

wire::header header_of(const read_request &r) noexcept
{
    wire::header h;
    h.kind       = wire::pdu_kind::read_req;
    h.src_qpn    = r.src_qpn;
    h.dst_qpn    = r.dst_qpn;
    h.src_device = r.src_device;
    h.dst_device = r.dst_device;
    h.op         = r.op;
    h.qkey       = r.qkey;
    return h;
}

/// The record that answers a read; there is room for it.
void commit_answer(link &l, const read_request &r, wire::pdu_kind kind, std::uint32_t payload_size, bool last) noexcept
{
    link_commit(l, r.dst_device, payload_size, [&](wire::header &h) noexcept {
        h.kind         = kind;
        h.flags        = last ? wire::flag_last : 0;
        h.src_qpn      = r.dst_qpn;
        h.dst_qpn      = r.src_qpn;
        h.src_device   = r.dst_device;
        h.dst_device   = r.src_device;
        h.payload_size = payload_size;
        h.op           = r.op;
        h.qkey         = r.qkey;
        h.imm          = 0;
        h.address      = r.progress;
        h.rkey         = 0;
        h.length       = r.length;
    });
}

/// Says where the bytes of a read are. False: no room. A range that cannot be read is refused as one without it.
bool grant_read(link &l, read_request &r) noexcept
{
    const wire::header h = header_of(r);
    if (!l.channel->acks_out.has_room(1))
        return false;
    std::uint8_t *room = l.channel->tx.reserve(sizeof(wire::grant));
    if (room == nullptr)
        return false;
    qp              *q    = nullptr;
    const efa_status seen = find_rdma_target(h, &q);
    if (seen != efa_status::ok) {
        responder_answer(l, h, seen);
        r.progress = r.length;
        return true;
    }
    const std::uint8_t *from = mr_translate(r.rkey, rkey_mask, q->domain, r.address, r.length, access_remote_read);
    if (from == nullptr) {
        r.by_address = false;
        return true;
    }
    mr               &m     = *objects().mrs.at(r.rkey & (limits::mrs - 1));
    const wire::grant given = kept_open(l, *q, m, window_open(l, m, from, r.length));
    std::memcpy(room, &given, sizeof(given));
    commit_answer(l, r, wire::pdu_kind::read_grant, sizeof(given), true);
    SOFTEFA_POINT(grant_given);
    r.progress         = r.length;
    device_counters &n = counters_of(q->device);
    count_window(n.tx_packets, n.tx_packet_bytes, r.length, sizeof(wire::grant));
    n.served_read_bytes += r.length;
    ++n.served_read_ops;
    return true;
}

/// One chunk of the oldest read. False: no room.
bool serve_read_chunk(link &l, read_request &r) noexcept
{
    const wire::header  h     = header_of(r);
    const std::uint32_t left  = r.length - r.progress;
    const std::uint32_t chunk = left < limits::chunk_size ? left : limits::chunk_size;
    if (!l.channel->acks_out.has_room(1))
        return false;
    std::uint8_t *room = l.channel->tx.reserve(chunk);
    if (room == nullptr)
        return false;

    qp           *q    = nullptr;
    efa_status    seen = find_rdma_target(h, &q);
    std::uint8_t *from = nullptr;
    if (seen == efa_status::ok) {
        from = mr_translate(r.rkey, rkey_mask, q->domain, r.address + r.progress, chunk, access_remote_read);
        if (from == nullptr || !copy_from_application(l.channel->own.fd, l.channel->tx.file_offset(room), from, chunk)) {
            ++counters_of(q->device).drop_fault;
            seen = efa_status::bad_rkey;
        }
    }
    if (seen != efa_status::ok) {
        responder_answer(l, h, r.progress != 0 && seen != efa_status::bad_rkey ? efa_status::remote_abort : seen);
        r.progress = r.length;
        return true;
    }
    SOFTEFA_POINT(read_chunk_copied);
    commit_answer(l, r, wire::pdu_kind::read_data, chunk, chunk == left);
    r.progress += chunk;
    if (!r.repeated) { // else it was counted with the grant
        counters_of(q->device).served_read_bytes += chunk;
        counters_of(q->device).served_read_ops += chunk == left;
    }
    return true;
}

} // namespace

bool responder_reads(link &l) noexcept
{
    bool          moved = false;
    std::uint32_t bytes = 0;
    while (l.read_count != 0 && bytes < limits::bytes_per_run) {
        read_request       &r      = l.reads[l.read_head];
        const std::uint32_t before = r.progress;
        if (r.by_address) {
            if (!grant_read(l, r))
                break;
        } else if (!serve_read_chunk(l, r)) {
            break;
        } else {
            bytes += r.progress - before;
        }
        moved = true;
        if (r.progress == r.length) {
            l.read_head = (l.read_head + 1) % limits::reads_per_link;
            --l.read_count;
        }
    }
    return moved;
}

} // namespace softefa::dev
