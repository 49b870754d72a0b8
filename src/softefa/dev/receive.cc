/* Posted receives: found, filled and completed.
 *
 * Owns: the receive queue of a QP. A descriptor is written by the application and read here once; one that is malformed is used up with an error.
 * A message is scattered over its buffers only when all their keys were found good, the payload is read once, straight to where it belongs, and the
 * completion comes behind it. What is too long, or finds no receive or no room in the CQ, uses up what an EFA would use up.
 * Refuses to know how a message is answered: it gives the status. The common message comes here only while messages are recorded (responder.cc).
 *
 *   RCV-1  a receive is consumed exactly when its completion is written. RNR consumes nothing.
 */
#include "base/clock.h"
#include "softefa/dev/responder.h"
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

} // namespace

efa_status receive_message(const wire::header &h, const std::uint8_t *payload) noexcept
{
    qp              *q    = nullptr;
    const efa_status seen = find_target(h, &q);
    if (seen != efa_status::ok)
        return seen;
    device_counters &n  = engine().counters[q->device];
    const bool       ud = q->type == qp_type::ud;
    recv_wr          wr;
    if (engine().rude.receives() && receives_nothing(*q, h)) [[unlikely]] {
        n.drop_ud_no_recv += ud;
        return efa_status::rnr;
    }
    if (!cq_has_room(*q->recv_cq)) {
        ++n.cq_stalls;
        n.drop_ud_no_recv += ud;
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

/// The receive completion of a write with immediate.
efa_status receive_immediate(qp &q, const wire::header &h) noexcept
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
    if (!wr.well_formed) { // no byte would go there, but the program has an error in its queue
        ++n.drop_recv_malformed;
        recv_complete(q, h, efa_status::qp_internal, wr.req_id, 0, wqe::op_rdma_write, false);
        return efa_status::remote_abort;
    }
    recv_complete(q, h, efa_status::ok, wr.req_id, h.length, wqe::op_rdma_write, false);
    return efa_status::ok;
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
