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

/// The end of an op: its entry takes the room that it had reserved. Counts nothing but the entry.
[[gnu::always_inline]] inline void op_write(op &o, wire::efa_status status) noexcept
{
    const qp           &q = *o.owner;
    const std::uint64_t word0 =
        wqe::cqe_word0(o.req_id, static_cast<unsigned>(status), wqe::queue_send, static_cast<unsigned>(o.kind), 0, q.qpn, o.req_id_middle);
    const std::uint64_t word1 = o.req_id_high;
    cq                 &c     = *q.send_cq;
    ++engine().counters[q.device].completions;
    op_free(o);
    cq_write(c, {{word0, word1, 0, 0}});
}

/// In completion.cc: any end.
void op_complete(op &o, wire::efa_status status) noexcept;

/// Success of a send in flight: the common end. Such an op is in no list and nothing of it is lent.
inline void op_succeed(op &o) noexcept
{
    op_write(o, wire::efa_status::ok);
}

/// The op of this link that a peer names, or null.
inline op *op_named(const link &l, std::uint64_t name) noexcept
{
    const wire::op_id id = wire::op_id::unpack(name);
    qp               *q  = objects().qps.at(id.qp_slot);
    if (q == nullptr || id.slot >= q->sq_entries) [[unlikely]]
        return nullptr;
    op &o = q->ops[id.slot];
    return o.generation == id.generation && o.state != op_state::free && o.to == &l ? &o : nullptr; // REQ-2
}

} // namespace softefa::dev
