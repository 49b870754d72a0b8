/* The responder: every record that arrives, checked, sorted and answered.
 *
 * Owns: the way of a record from its ring to whoever serves it, its answer, and why it is refused. A record is hostile until each of its fields
 * was checked: devices and size here, the QP and the key of its messages in responder.h, the rest where it is used.
 * Refuses to know posted receives (receive.cc) and remote memory (rdma_service.cc), but for one case that it serves whole: a reliable send into one
 * buffer, which is nearly all there is. What that case does must equal what receive.cc would do; whatever hinders it goes there.
 *
 * Order: payload, receive CQE, acknowledgement (a requester that saw success knows that the receiver can see the message).
 *
 *   RSP-1  every record but UD and read data is answered exactly once (a write of several records: once in all). A datagram for a QPN that this
 *          process does not own is not an operation to be answered; its sender is told that the way is wrong.
 *   RSP-2  after an error answer nothing of that operation is placed.
 */
#include "softefa/dev/copy.h"
#include "softefa/dev/responder.h"
#include "softefa/dev/wqe.h"

namespace softefa::dev {

using wire::efa_status;

namespace {

/// The QPN may have moved to another process, and a sender of datagrams would never learn it. To this process itself there is one way only.
[[gnu::noinline]] void tell_stale_route(link &l, const wire::header &h) noexcept
{
    wire::ack a;
    if (l.channel->is_self)
        return;
    a.op     = wire::route_name{h.dst_device, h.dst_qpn}.pack();
    a.status = efa_status::stale_route;
    l.channel->acks_out.push(a);
    link_touch(l);
}

} // namespace

void responder_answer(link &l, const wire::header &h, efa_status status) noexcept
{
    if ((h.flags & wire::flag_ud) != 0) {
        if (status == efa_status::no_such_qpn) [[unlikely]]
            tell_stale_route(l, h);
        return;
    }
    if (engine().record_data) [[unlikely]]
        record(record_kind::ack_out, h.dst_device, h.dst_qpn, h.src_qpn, static_cast<unsigned>(status), h.op, 0);
    acknowledge(l, h, status, h.kind == wire::pdu_kind::read_req);
}

/// Why a record is refused, counted.
[[gnu::noinline]] efa_status responder_refuse(const wire::header &h, const qp *q) noexcept
{
    if (q == nullptr) {
        ++counters_of(h.dst_device).drop_no_qp;
        return efa_status::no_such_qpn;
    }
    device_counters &n = counters_of(q->device);
    ++(can_receive(q->state) ? n.drop_qkey : n.drop_qp_state);
    return efa_status::bad_dest_qpn;
}

namespace {

/// Copies a message into one buffer, which has the room; ok or the receive's own error.
inline efa_status place(const qp &q, const sge &to, const std::uint8_t *payload, std::uint32_t size) noexcept
{
    if (size == 0)
        return efa_status::ok;
    std::uint8_t *at = mr_translate(to.lkey, lkey_mask, q.domain, to.address, size, access_local_write);
    if (at == nullptr) [[unlikely]]
        return efa_status::invalid_lkey;
    copy_payload(at, payload, size);
    return efa_status::ok;
}

/// The common message, served and answered: reliable, into one buffer, which has the room, and with a completion that nothing hinders. False: it is
/// something else, and nothing was done or counted.
inline bool take_plain_send(link &l, const wire::header &h, const std::uint8_t *payload) noexcept
{
    const unsigned device = h.dst_device;
    qp            *q      = qp_find_local(device, h.dst_qpn);
    if (q == nullptr || !takes(*q, h) || !q->receives_plainly) [[unlikely]]
        return false;
    cq                 &c  = *q->recv_cq;
    const std::uint16_t ah = q->domain->ah_by_device[h.src_device];
    if (!cq_is_plain(c) || ah == ah_unknown) [[unlikely]]
        return false;
    const std::uint16_t at        = q->rq_consumed;
    const auto          available = static_cast<std::uint16_t>(static_cast<std::uint16_t>(q->rq_doorbell->load(std::memory_order_acquire)) - at);
    if (available == 0 || available > q->rq_entries) [[unlikely]]
        return false;
    std::uint8_t bytes[16];
    std::memcpy(bytes, q->rq_ring + (at & (q->rq_entries - 1)) * 16, sizeof(bytes));
    const wqe::recv_descriptor d    = wqe::decode_recv(bytes);
    const std::uint32_t        size = h.payload_size;
    if (!(d.first & d.last) || d.length < size || place(*q, {d.length, d.lkey, d.address}, payload, size) != efa_status::ok) [[unlikely]]
        return false;
    q->rq_consumed     = static_cast<std::uint16_t>(at + 1);
    device_counters &n = engine().counters[device];
    ++n.rx_packets;
    n.rx_packet_bytes += size;
    ++n.rx_messages;
    n.rx_bytes += size;
    ++n.completions;
    SOFTEFA_POINT(payload_placed);
    const std::uint8_t flags = (h.flags & wire::flag_has_imm) != 0 ? wqe::cqe_has_imm : 0;
    cq_store(c, {{wqe::cqe_word0(d.req_id, 0, wqe::queue_recv, wqe::op_send, flags, q->qpn, static_cast<std::uint16_t>(size)), recv_word1(h, ah), 0, 0}});
    SOFTEFA_POINT(receive_completed);
    acknowledge(l, h, efa_status::ok, false);
    return true;
}

/// A record whose devices and size are within range.
[[gnu::noinline]] void take_any(link &l, const wire::header &h, const std::uint8_t *payload) noexcept
{
    device_counters &n = engine().counters[h.dst_device];
    ++n.rx_packets;
    n.rx_packet_bytes += h.payload_size;
    if (engine().record_data) [[unlikely]]
        record(record_kind::pdu_in, h.dst_device, h.dst_qpn, h.src_qpn, 0, std::uint64_t{static_cast<unsigned>(h.kind)} << 32 | h.payload_size, h.op);
    switch (h.kind) {
    case wire::pdu_kind::send: responder_answer(l, h, receive_message(h, payload)); return;
    case wire::pdu_kind::write: rdma_take_write(l, h, payload); return;
    case wire::pdu_kind::read_req: rdma_take_read(l, h); return;
    case wire::pdu_kind::read_data: requester_read_data(l, h, payload); return;
    case wire::pdu_kind::read_grant: requester_read_grant(l, h, payload); return;
    default: link_fail(l, "unknown kind of record"); return;
    }
}

} // namespace

void responder_record(link &l, const wire::header &h, const std::uint8_t *payload) noexcept
{
    if (h.src_device >= limits::devices || h.dst_device >= limits::devices || h.payload_size > fabric::record_payload_max) [[unlikely]]
        link_fail(l, "field out of range");
    else if (h.kind != wire::pdu_kind::send || engine().record_data || !take_plain_send(l, h, payload)) [[unlikely]]
        take_any(l, h, payload);
}

} // namespace softefa::dev
