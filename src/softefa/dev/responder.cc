/* The responder: what arrives, placed and answered.
 *
 * Owns: matching a record to a QP and a receive, scattering a message, serving RDMA reads and writes, and the answer to each. A record is
 * hostile until each of its fields was checked here; the payload is read once, straight to where it belongs.
 *
 * Order: payload, receive CQE, acknowledgement (a requester that saw success knows that the receiver can see the message).
 * One-sided work is checked against the rkey for every chunk, under the engine lock, so deregistration is exact.
 * A write of several records needs one state per link, because a requester sends one at a time; its first error is answered at once and the
 * rest of it finds no write in progress and is dropped.
 *
 *   RSP-1  every record but UD and read data is answered exactly once (a write of several records: once in all). A datagram for a QPN that this
 *          process does not own is not an operation to be answered; its sender is told that the way is wrong.
 *   RSP-2  after an error answer nothing of that operation is placed.
 */
#include "base/clock.h"
#include "softefa/dev/copy.h"
#include "softefa/dev/kept.h"
#include "softefa/dev/single_copy.h"
#include "softefa/dev/wqe.h"

namespace softefa::dev {

using wire::efa_status;

namespace {

constexpr std::uint32_t grh_size = 40;

struct recv_wr {
    sge           sges[limits::recv_sge];
    unsigned      count       = 0;
    std::uint16_t descriptors = 0; ///< to advance the queue by
    std::uint16_t req_id      = 0;
    std::uint64_t room        = 0; ///< bytes
    bool          well_formed = false;
};

/// Of more than one descriptor, or malformed; `available` of them are posted.
[[gnu::noinline]] void recv_gather(const qp &q, recv_wr &wr, std::uint16_t available) noexcept
{
    const unsigned most = q.max_recv_sge < limits::recv_sge ? q.max_recv_sge : limits::recv_sge;
    for (unsigned i = 0; i < available; ++i) {
        std::uint8_t bytes[16];
        std::memcpy(bytes, q.rq_ring + ((q.rq_consumed + i) & (q.rq_entries - 1)) * 16, sizeof(bytes));
        const wqe::recv_descriptor d = wqe::decode_recv(bytes);
        if (i == 0)
            wr.req_id = d.req_id;
        if (d.first != (i == 0) || i >= most) {
            wr.descriptors = static_cast<std::uint16_t>(i == 0 ? 1 : i);
            return; // malformed: used up with an error
        }
        wr.sges[i] = {d.length, d.lkey, d.address};
        wr.room += d.length;
        wr.count = i + 1;
        if (d.last) {
            wr.descriptors = static_cast<std::uint16_t>(i + 1);
            wr.well_formed = true;
            return;
        }
    }
    wr.descriptors = available;
}

/// The receive at the head of the queue, not yet consumed. False: none is posted.
inline bool recv_peek(const qp &q, recv_wr &wr) noexcept
{
    if (q.rq_doorbell == nullptr)
        return false;
    const auto available = static_cast<std::uint16_t>(
        static_cast<std::uint16_t>(q.rq_doorbell->load(std::memory_order_acquire)) - q.rq_consumed);
    if (available == 0)
        return false;
    if (available > q.rq_entries) [[unlikely]] {
        ++counters_of(q.device).bad_doorbell;
        return false;
    }
    std::uint8_t bytes[16];
    std::memcpy(bytes, q.rq_ring + (q.rq_consumed & (q.rq_entries - 1)) * 16, sizeof(bytes));
    const wqe::recv_descriptor d = wqe::decode_recv(bytes);
    if (!d.first || !d.last || q.max_recv_sge == 0) [[unlikely]] {
        recv_gather(q, wr, available);
        return true;
    }
    wr.sges[0]     = {d.length, d.lkey, d.address};
    wr.count       = 1;
    wr.descriptors = 1;
    wr.req_id      = d.req_id;
    wr.room        = d.length;
    wr.well_formed = true;
    return true;
}

constexpr bool can_receive(qp_state state) noexcept
{
    constexpr unsigned states = 1u << static_cast<unsigned>(qp_state::rtr) | 1u << static_cast<unsigned>(qp_state::rts) |
                                1u << static_cast<unsigned>(qp_state::sqd) | 1u << static_cast<unsigned>(qp_state::sqe);
    return (states >> static_cast<unsigned>(state) & 1) != 0;
}

/// Second word of a receive completion: who sent it, and the immediate.
inline std::uint64_t recv_word1(const wire::header &h, std::uint16_t ah) noexcept
{
    return ah | (std::uint64_t{h.src_qpn} << 16) | (std::uint64_t{h.imm} << 32);
}

void recv_complete(qp &q, const wire::header &h, efa_status status, std::uint16_t req_id, std::uint32_t length, unsigned op,
                   bool unsolicited) noexcept
{
    device_counters    &n  = engine().counters[q.device];
    const std::uint16_t ah = q.domain->ah_by_device[h.src_device];
    cqe_bytes           entry{};
    std::uint8_t        flags = unsolicited ? wqe::cqe_unsolicited : 0;
    if ((h.flags & wire::flag_has_imm) != 0)
        flags |= wqe::cqe_has_imm;
    entry.words[0] = wqe::cqe_word0(req_id, static_cast<unsigned>(status), wqe::queue_recv, op, flags, q.qpn,
                                    static_cast<std::uint16_t>(length));
    entry.words[1] = recv_word1(h, ah);
    if (op == wqe::op_rdma_write) {
        entry.words[2] = length >> 16;
    } else if (ah == ah_unknown && q.recv_cq->with_sgid) {
        const gid source = device_gid(h.src_device);
        std::memcpy(&entry.words[2], source.data(), source.size());
    }
    ++n.completions;
    n.completion_errors += status != efa_status::ok;
    cq_write(*q.recv_cq, entry);
}

inline void acknowledge(link &l, const wire::header &h, efa_status status, bool is_read) noexcept
{
    l.channel->acks_out.push({h.op & ((std::uint64_t{1} << wire::ack::op_bits) - 1), status, is_read});
    link_touch(l);
}

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

void answer(link &l, const wire::header &h, efa_status status) noexcept
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
[[gnu::noinline]] efa_status refuse(const wire::header &h, const qp *q) noexcept
{
    if (q == nullptr) {
        ++counters_of(h.dst_device).drop_no_qp;
        return efa_status::no_such_qpn;
    }
    device_counters &n = counters_of(q->device);
    ++(can_receive(q->state) ? n.drop_qkey : n.drop_qp_state);
    return efa_status::bad_dest_qpn;
}

inline bool takes(const qp &q, const wire::header &h) noexcept
{
    return can_receive(q.state) && h.qkey == q.qkey && (q.type == qp_type::ud) == ((h.flags & wire::flag_ud) != 0);
}

/// The QP that a record is for, or the status that refuses it.
inline efa_status find_target(const wire::header &h, qp **q_p) noexcept
{
    qp *q = qp_find_local(h.dst_device, h.dst_qpn);
    if (q == nullptr || !takes(*q, h)) [[unlikely]]
        return refuse(h, q);
    *q_p = q;
    return efa_status::ok;
}

/// Scatters GRH (UD only) and payload; ok or the receive's own error.
[[gnu::noinline]] efa_status scatter(const qp &q, const recv_wr &wr, const std::uint8_t *grh, const std::uint8_t *payload, std::uint32_t size) noexcept
{
    std::uint8_t *to[limits::recv_sge] = {};
    const std::uint32_t head           = grh != nullptr ? grh_size : 0;
    std::uint64_t       need           = std::uint64_t{head} + size;
    for (unsigned i = 0; i < wr.count && need != 0; ++i) { // all keys first: an error places nothing
        const std::uint64_t part = wr.sges[i].length < need ? wr.sges[i].length : need;
        if (part == 0)
            continue;
        to[i] = mr_translate(wr.sges[i].lkey, lkey_mask, q.domain, wr.sges[i].address, part, access_local_write);
        if (to[i] == nullptr)
            return efa_status::invalid_lkey;
        need -= part;
    }
    std::uint32_t done = 0;
    for (unsigned i = 0; i < wr.count && done < head + size; ++i) {
        std::uint32_t left = wr.sges[i].length;
        std::uint8_t *at   = to[i];
        if (done < head && left != 0) {
            const std::uint32_t part = left < head - done ? left : head - done;
            std::memcpy(at, grh + done, part);
            done += part;
            at += part;
            left -= part;
        }
        if (done >= head && left != 0 && done < head + size) {
            const std::uint32_t part = left < head + size - done ? left : head + size - done;
            std::memcpy(at, payload + (done - head), part);
            done += part;
        }
    }
    return efa_status::ok;
}

/// The same for a message without GRH into one buffer, which has the room.
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

void make_grh(const wire::header &h, std::uint8_t *grh) noexcept
{
    const gid from = device_gid(h.src_device), to = device_gid(h.dst_device);
    std::memset(grh, 0, grh_size);
    grh[0] = 0x60;
    grh[4] = static_cast<std::uint8_t>(h.payload_size >> 8);
    grh[5] = static_cast<std::uint8_t>(h.payload_size);
    grh[6] = 0x1b;
    grh[7] = 64;
    std::memcpy(grh + 8, from.data(), from.size());
    std::memcpy(grh + 24, to.data(), to.size());
}

/// RNR on request.
[[gnu::noinline]] bool receives_nothing(qp &q, const wire::header &h) noexcept
{
    const std::uint64_t now = base::clock_now_ns();
    if (q.first_message_ns == 0)
        q.first_message_ns = now;
    if (!engine().rude.receive(q.device, {h.src_device, h.src_qpn}, now, q.first_message_ns))
        return false;
    ++counters_of(q.device).rude_rnrs;
    return true;
}

efa_status serve_send(const wire::header &h, const std::uint8_t *payload) noexcept
{
    qp              *q    = nullptr;
    const efa_status seen = find_target(h, &q);
    if (seen != efa_status::ok)
        return seen;
    device_counters &n  = engine().counters[q->device];
    const bool       ud = q->type == qp_type::ud;
    recv_wr          wr;
    if (engine().rude.receives() && receives_nothing(*q, h)) [[unlikely]]
        return efa_status::rnr;
    if (!cq_has_room(*q->recv_cq)) {
        ++n.cq_stalls;
        return efa_status::rnr;
    }
    if (!recv_peek(*q, wr)) {
        n.drop_ud_no_recv += ud;
        n.rnr_naks_sent += !ud;
        return efa_status::rnr;
    }
    const std::uint32_t length = h.payload_size + (ud ? grh_size : 0);
    if (ud && wr.well_formed && wr.room < length) { // a datagram that does not fit is dropped and the receive stays
        ++n.drop_ud_length;
        return efa_status::ok;
    }
    q->rq_consumed = static_cast<std::uint16_t>(q->rq_consumed + wr.descriptors);
    if (!wr.well_formed) {
        ++n.drop_recv_malformed;
        recv_complete(*q, h, efa_status::qp_internal, wr.req_id, 0, wqe::op_send, false);
        return efa_status::remote_abort;
    }
    if (wr.room < length) {
        ++n.drop_recv_length;
        recv_complete(*q, h, efa_status::bad_length, wr.req_id, 0, wqe::op_send, false);
        return efa_status::remote_bad_length;
    }
    std::uint8_t grh[grh_size];
    if (ud)
        make_grh(h, grh);
    const efa_status placed = scatter(*q, wr, ud ? grh : nullptr, payload, h.payload_size);
    if (placed != efa_status::ok) [[unlikely]] {
        ++n.drop_recv_lkey;
        recv_complete(*q, h, efa_status::invalid_lkey, wr.req_id, 0, wqe::op_send, false);
        return efa_status::remote_abort;
    }
    ++n.rx_messages;
    n.rx_bytes += h.payload_size;
    SOFTEFA_POINT(payload_placed);
    recv_complete(*q, h, efa_status::ok, wr.req_id, length, wqe::op_send, false);
    SOFTEFA_POINT(receive_completed);
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

/// The receive completion of a write with immediate.
efa_status serve_write_imm(qp &q, const wire::header &h) noexcept
{
    device_counters &n = counters_of(q.device);
    if (!cq_has_room(*q.recv_cq)) {
        ++n.cq_stalls;
        return efa_status::rnr;
    }
    if (engine().rude.receives() && !q.unsolicited && receives_nothing(q, h)) [[unlikely]]
        return efa_status::rnr;
    if (q.unsolicited) {
        recv_complete(q, h, efa_status::ok, 0, h.length, wqe::op_rdma_write, true);
        return efa_status::ok;
    }
    recv_wr wr;
    if (!recv_peek(q, wr)) {
        ++n.rnr_naks_sent;
        return efa_status::rnr;
    }
    q.rq_consumed = static_cast<std::uint16_t>(q.rq_consumed + wr.descriptors);
    recv_complete(q, h, efa_status::ok, wr.req_id, h.length, wqe::op_rdma_write, false);
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
        seen = serve_write_imm(*q, h);
    if (seen == efa_status::ok) { // an immediate that finds no receive comes again
        ++n.served_write_ops;
        n.served_write_bytes += h.length;
    }
    return seen;
}

void take_write(link &l, const wire::header &h, const std::uint8_t *payload) noexcept
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
    if (size > h.length - at || (last && !repeated && at + size != h.length) || (!last && size == 0)) {
        link_fail(l, "write outside its own length");
        return;
    }
    const efa_status seen = serve_write(l, h, payload, size, by_address ? &from : nullptr);
    if (seen != efa_status::ok || last) {
        l.write_in.op = ~std::uint64_t{0};
        answer(l, h, seen);
    }
}

void take_read(link &l, const wire::header &h) noexcept
{
    qp        *q    = nullptr;
    efa_status seen = find_rdma_target(h, &q);
    if (h.payload_size != 0 || l.read_count == limits::reads_per_link) {
        link_fail(l, "more reads than agreed");
        return;
    }
    if (seen == efa_status::ok && h.length != 0 &&
        mr_translate(h.rkey, rkey_mask, q->domain, h.address, h.length, access_remote_read) == nullptr) {
        ++counters_of(q->device).drop_rkey;
        seen = efa_status::bad_rkey;
    }
    if (seen != efa_status::ok || h.length == 0) {
        answer(l, h, seen);
        return;
    }
    read_request &r = l.reads[(l.read_head + l.read_count++) % limits::reads_per_link];
    r = {h.op, h.address, h.rkey, h.length, 0, h.src_qpn, h.dst_qpn, h.src_device, h.dst_device, h.qkey,
         (h.flags & wire::flag_by_address) != 0 && engine().single_copy_min != ~0u, (h.flags & wire::flag_repeated) != 0};
}

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
        answer(l, h, seen);
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
        answer(l, h, r.progress != 0 && seen != efa_status::bad_rkey ? efa_status::remote_abort : seen);
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

/// A record whose devices and size are within range.
[[gnu::noinline]] void take_any(link &l, const wire::header &h, const std::uint8_t *payload) noexcept
{
    device_counters &n = engine().counters[h.dst_device];
    ++n.rx_packets;
    n.rx_packet_bytes += h.payload_size;
    if (engine().record_data) [[unlikely]]
        record(record_kind::pdu_in, h.dst_device, h.dst_qpn, h.src_qpn, 0, std::uint64_t{static_cast<unsigned>(h.kind)} << 32 | h.payload_size, h.op);
    switch (h.kind) {
    case wire::pdu_kind::send: answer(l, h, serve_send(h, payload)); return;
    case wire::pdu_kind::write: take_write(l, h, payload); return;
    case wire::pdu_kind::read_req: take_read(l, h); return;
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

void responder_flush_qp(qp &q) noexcept
{
    recv_wr wr;
    while (recv_peek(q, wr)) {
        if (!cq_has_room(*q.recv_cq)) {
            qp_mark_dirty(q);
            return;
        }
        q.rq_consumed = static_cast<std::uint16_t>(q.rq_consumed + wr.descriptors);
        wire::header nobody;
        recv_complete(q, nobody, efa_status::flushed, wr.req_id, 0, wqe::op_send, false);
        wr = recv_wr{};
    }
}

} // namespace softefa::dev
