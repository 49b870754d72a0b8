/* The requester's near half: from a doorbell to an op.
 *
 * Owns: fetching WQEs and their validation (every status that the local side alone can give), and what happens to a QP's WQEs when it goes to
 * error. A WQE is copied once and decoded into an op; everything later works on the op, since the ring slot may be used again meanwhile.
 *
 *   REQ-1  every fetched WQE holds one op and one reserved CQ entry until its CQE is written (DEV-1).
 */
#include "softefa/dev/op_life.h"

namespace softefa::dev {

using wire::efa_status;

namespace {

constexpr std::uint32_t cap_rdma_read = 1u << 0, cap_rdma_write = 1u << 5;

/// Where the bytes of a message are, and how many.
inline efa_status decode_send(const qp &q, op &o, const wqe::meta &m, const std::uint8_t *w) noexcept
{
    if (m.is_inline) {
        if (m.length > q.inline_size)
            return efa_status::bad_length;
        if (m.length <= limits::wqe_size_min - wqe::data_offset)
            std::memcpy(o.inline_bytes, w + wqe::data_offset, limits::wqe_size_min - wqe::data_offset); // all there is: no call
        else
            std::memcpy(o.inline_bytes, w + wqe::data_offset, m.length);
        o.total = m.length;
        return efa_status::ok;
    }
    if (m.length > q.max_send_sge || m.length > 2)
        return efa_status::qp_internal;
    std::uint64_t total = 0;
    for (unsigned i = 0; i < m.length; ++i) {
        const wqe::buffer b = wqe::decode_buffer(w, wqe::data_offset + 16 * i);
        o.sges[i]           = {b.length, b.key & lkey_mask, b.address};
        total += b.length;
    }
    if (total > q.send_max)
        return efa_status::bad_length;
    o.sge_count = static_cast<std::uint8_t>(m.length);
    o.total     = static_cast<std::uint32_t>(total);
    return efa_status::ok;
}

/// The same for RDMA.
[[gnu::noinline]] efa_status decode_rdma(const qp &q, op &o, const wqe::meta &m, const std::uint8_t *w) noexcept
{
    const device_limits &limit = device_limits_get();
    const bool          read   = o.kind == op_kind::read;
    const wqe::buffer   remote = wqe::decode_buffer(w, wqe::data_offset);
    if (q.type != qp_type::srd || (limit.device_caps & (read ? cap_rdma_read : cap_rdma_write)) == 0)
        return efa_status::unsupported_op;
    o.rkey           = remote.key;
    o.remote_address = remote.address;
    o.total          = remote.length;
    if (m.is_inline) {
        if (read || q.wqe_size < limits::wqe_size_max)
            return efa_status::unsupported_op;
        if (m.length > q.inline_size || m.length > limits::wqe_size_max - wqe::rdma_local_offset || m.length != remote.length)
            return efa_status::bad_length;
        std::memcpy(o.inline_bytes, w + wqe::rdma_local_offset, m.length);
        return efa_status::ok;
    }
    if (m.length > limit.max_rdma_sge || m.length > 1)
        return efa_status::qp_internal;
    if (m.length == 1) {
        const wqe::buffer b = wqe::decode_buffer(w, wqe::rdma_local_offset);
        o.sges[0]           = {b.length, b.key & lkey_mask, b.address};
        o.sge_count         = 1;
    }
    if (remote.length != (o.sge_count != 0 ? o.sges[0].length : 0) || remote.length > limit.max_rdma_size)
        return efa_status::bad_length;
    return efa_status::ok;
}

/// Shape and limits of a WQE; fills the op. Anything but ok ends it.
[[gnu::always_inline]] inline efa_status decode(qp &q, op &o, const std::uint8_t *w) noexcept
{
    const wqe::meta m = wqe::decode_meta(w);
    o.owner           = &q;
    o.to              = nullptr;
    o.req_id          = m.req_id;
    o.req_id_middle   = m.req_id_middle;
    o.req_id_high     = m.req_id_high;
    o.kind            = m.op == wqe::op_rdma_read ? op_kind::read : m.op == wqe::op_rdma_write ? op_kind::write : op_kind::send;
    o.flags           = static_cast<std::uint8_t>((m.has_imm ? wire::flag_has_imm : 0) | q.send_flags);
    o.dst_qpn         = m.dest_qpn;
    o.ah_number       = m.ah_number;
    o.qkey            = m.qkey;
    o.imm             = m.imm;
    o.progress        = 0;
    o.deadline_ns     = 0;
    o.rnr_count       = 0;
    o.looked_up_twice = false;
    o.by_ring         = false;
    o.lent            = false;
    o.unasked         = false;
    o.must_ask        = false;
    if (m.op > wqe::op_rdma_write)
        return efa_status::unsupported_op;
    if (!m.well_formed)
        return efa_status::qp_internal;
    o.is_inline = m.is_inline;
    o.total     = 0;
    o.sge_count = 0;
    const efa_status seen = o.kind == op_kind::send ? decode_send(q, o, m, w) : decode_rdma(q, o, m, w);
    if (seen != efa_status::ok)
        return seen;
    if (m.ah_number >= q.owner->ah_room || q.owner->ahs[m.ah_number].pd != q.domain->self)
        return efa_status::invalid_ah;
    o.device = q.owner->ahs[m.ah_number].device;
    return efa_status::ok;
}

/// A private copy: what the application writes there meanwhile changes nothing.
inline void copy_wqe(const qp &q, std::uint16_t index, std::uint8_t *w) noexcept
{
    const std::uint8_t *from = q.sq_ring + (index & (q.sq_entries - 1)) * q.wqe_size;
    std::memcpy(w, from, limits::wqe_size_min);
    if (q.wqe_size > limits::wqe_size_min)
        std::memcpy(w + limits::wqe_size_min, from + limits::wqe_size_min, limits::wqe_size_max - limits::wqe_size_min);
}

[[gnu::always_inline]] inline void fetch_one(qp &q, std::uint16_t index) noexcept
{
    std::uint8_t w[limits::wqe_size_max];
    copy_wqe(q, index, w);
    op              &o    = op_take(q);
    const efa_status seen = decode(q, o, w);
    if (seen != efa_status::ok) [[unlikely]]
        op_complete(o, seen);
    else if (engine().posts_held) [[unlikely]]
        requester_submit_rudely(o);
    else
        requester_submit(o);
}

/// Two that may overtake each other.
[[gnu::noinline]] void fetch_swapped(qp &q) noexcept
{
    fetch_one(q, static_cast<std::uint16_t>(q.sq_consumed + 1));
    fetch_one(q, q.sq_consumed);
    q.sq_consumed = static_cast<std::uint16_t>(q.sq_consumed + 2);
}

/// Of a QP that is not ready to send.
[[gnu::noinline]] bool fetch_nothing(qp &q) noexcept
{
    if (q.state == qp_state::error) {
        requester_flush_qp(q);
        responder_flush_qp(q);
    }
    return false;
}

} // namespace

bool requester_fetch(qp &q) noexcept
{
    if (q.state != qp_state::rts) [[unlikely]]
        return fetch_nothing(q);
    if (q.sq_doorbell == nullptr)
        return false;
    engine_state &e         = engine();
    std::uint16_t available = static_cast<std::uint16_t>(
        static_cast<std::uint16_t>(q.sq_doorbell->load(std::memory_order_acquire)) - q.sq_consumed);
    if (available == 0)
        return false;
    if (available > q.sq_entries) [[unlikely]] {
        if (++counters_of(q.device).bad_doorbell == 1) // it stays there and would fill the recorder
            record(record_kind::bad_doorbell, q.device, q.qpn, 0, 0, static_cast<std::uint16_t>(q.sq_consumed + available), q.sq_consumed);
        return false;
    }
    if (e.record_data) [[unlikely]]
        record(record_kind::doorbell, q.device, q.qpn, 0, 0, available, 0);
    unsigned budget = limits::wqes_per_run;
    bool     moved  = false;
    while (available != 0) {
        if (budget == 0 || q.free_ops == 0 || !cq_has_room_for_op(*q.send_cq)) [[unlikely]] {
            counters_of(q.device).cq_stalls += budget != 0;
            qp_mark_dirty(q); // comes round again at the next pass
            break;
        }
        if (available > 1 && budget > 1 && q.free_ops > 1 && swap_due(e) && cq_has_room(*q.send_cq, 2)) [[unlikely]] {
            fetch_swapped(q);
            available     = static_cast<std::uint16_t>(available - 2);
            budget -= 2;
            moved = true;
            ++e.counters[q.device].reorders;
            continue;
        }
        fetch_one(q, q.sq_consumed);
        ++q.sq_consumed;
        --available;
        --budget;
        moved = true;
    }
    return moved;
}

void requester_drop_qp(qp &q) noexcept
{
    for (unsigned i = 0; i < q.sq_entries && q.ops != nullptr; ++i)
        if (q.ops[i].state != op_state::free)
            op_free(q.ops[i]);
}

void requester_flush_qp(qp &q) noexcept
{
    for (unsigned i = 0; i < q.sq_entries && q.ops != nullptr; ++i) {
        op &o = q.ops[i];
        // What a peer already has ends by its answer: it may still be delivered, and must not land after a flush.
        if (o.state == op_state::parked || o.state == op_state::rnr_wait || o.state == op_state::held || (o.state == op_state::queued && o.progress == 0) ||
            (o.state == op_state::granted && o.unasked))
            op_complete(o, efa_status::flushed);
    }
    // WQEs that were posted and not fetched.
    while (q.sq_doorbell != nullptr) {
        const auto available = static_cast<std::uint16_t>(
            static_cast<std::uint16_t>(q.sq_doorbell->load(std::memory_order_acquire)) - q.sq_consumed);
        if (available == 0 || available > q.sq_entries)
            break;
        if (q.free_ops == 0 || !cq_has_room(*q.send_cq)) {
            qp_mark_dirty(q);
            break;
        }
        std::uint8_t w[limits::wqe_size_max];
        copy_wqe(q, q.sq_consumed, w);
        op &o = op_take(q);
        (void)decode(q, o, w);
        op_complete(o, efa_status::flushed);
        ++q.sq_consumed;
    }
}

} // namespace softefa::dev
