/* What the files of the responder share: whom a record is for, and how it is answered.
 *
 * Owns: the checks that every record passes, and the calls between responder.cc (every record first), receive.cc (those that take a posted receive)
 * and rdma_service.cc (reads and writes). In a header because the common message makes them without a call.
 * Refuses to know what is done for a record that passed.
 */
#pragma once

#include "softefa/dev/engine_state.h"

namespace softefa::dev {

// --- responder.cc
wire::efa_status responder_refuse(const wire::header &h, const qp *q) noexcept;                ///< why a record is refused, counted
void responder_answer(link &l, const wire::header &h, wire::efa_status status) noexcept;       ///< RSP-1
// --- receive.cc
wire::efa_status receive_message(const wire::header &h, const std::uint8_t *payload) noexcept; ///< a send, of any QP and into any buffers
wire::efa_status receive_immediate(qp &q, const wire::header &h) noexcept;                     ///< the receive completion of a write with immediate
// --- rdma_service.cc
void rdma_take_write(link &l, const wire::header &h, const std::uint8_t *payload) noexcept;
void rdma_take_read(link &l, const wire::header &h) noexcept;

constexpr bool can_receive(qp_state state) noexcept
{
    constexpr unsigned states = 1u << static_cast<unsigned>(qp_state::rtr) | 1u << static_cast<unsigned>(qp_state::rts) |
                                1u << static_cast<unsigned>(qp_state::sqd) | 1u << static_cast<unsigned>(qp_state::sqe);
    return (states >> static_cast<unsigned>(state) & 1) != 0;
}

inline bool takes(const qp &q, const wire::header &h) noexcept
{
    return can_receive(q.state) && h.qkey == q.qkey && (q.type == qp_type::ud) == ((h.flags & wire::flag_ud) != 0);
}

/// The QP that a record is for, or the status that refuses it.
inline wire::efa_status find_target(const wire::header &h, qp **q_p) noexcept
{
    qp *q = qp_find_local(h.dst_device, h.dst_qpn);
    if (q == nullptr || !takes(*q, h)) [[unlikely]]
        return responder_refuse(h, q);
    *q_p = q;
    return wire::efa_status::ok;
}

/// Second word of a receive completion: who sent it, and the immediate.
inline std::uint64_t recv_word1(const wire::header &h, std::uint16_t ah) noexcept
{
    return ah | (std::uint64_t{h.src_qpn} << 16) | (std::uint64_t{h.imm} << 32);
}

inline void acknowledge(link &l, const wire::header &h, wire::efa_status status, bool is_read) noexcept
{
    l.channel->acks_out.push({h.op & ((std::uint64_t{1} << wire::ack::op_bits) - 1), status, is_read});
    link_touch(l);
}

} // namespace softefa::dev
