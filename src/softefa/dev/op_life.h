/* The life of an op: taken with a WQE, completed or dropped, free again.
 *
 * Owns: the free list of a QP and the CQ entry that each op reserves (REQ-1). In a header because the fetch of a WQE and the end of an
 * operation are in different files and both are on the data path.
 */
#pragma once

#include "softefa/dev/engine_state.h"
#include "softefa/dev/wqe.h"

namespace softefa::dev {

inline constexpr std::uint32_t generation_mask = wire::route_name::first - 1;

inline op &op_take(qp &q) noexcept
{
    engine_state &e = engine();
    op           &o = q.ops[q.free_op];
    q.free_op       = o.next_free;
    --q.free_ops;
    ++q.send_cq->reserved;
    e.op_generation = (e.op_generation + 1) & generation_mask;
    o.generation    = e.op_generation;
    return o;
}

/// SC-3, in single_copy.cc: it ends without a word from the peer that may be copying from it.
void op_take_back(op &o) noexcept;

inline void op_free(op &o) noexcept
{
    qp &q = *o.owner;
    if (o.lent) [[unlikely]]
        op_take_back(o);
    if (o.list != nullptr)
        o.list->remove(o);
    o.state = op_state::free;
    o.to    = nullptr;
    --q.send_cq->reserved;
    o.next_free = q.free_op;
    q.free_op   = o.slot;
    ++q.free_ops;
}

/// Counts and records a completion in error.
void op_failed(const op &o, wire::efa_status status) noexcept;

inline void op_complete(op &o, wire::efa_status status) noexcept
{
    qp             &q = *o.owner;
    device_counters &n = engine().counters[q.device];
    cqe_bytes       entry{};

    ++n.completions;
    if (status != wire::efa_status::ok) [[unlikely]]
        op_failed(o, status);
    else if (o.kind == op_kind::read) {
        ++n.read_ops;
        n.read_bytes += o.total;
    } else if (o.kind == op_kind::write) {
        ++n.write_ops;
        n.write_bytes += o.total;
    }
    entry.words[0] = wqe::cqe_word0(static_cast<std::uint16_t>(o.request_id), static_cast<unsigned>(status), wqe::queue_send,
                                    static_cast<unsigned>(o.kind), 0, q.qpn, static_cast<std::uint16_t>(o.request_id >> 16));
    entry.words[1] = o.request_id >> 32;
    cq *c          = q.send_cq;
    op_free(o);
    cq_write(*c, entry);
}

} // namespace softefa::dev
