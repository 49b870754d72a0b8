/* Giving up a peer that does not move (SOFTEFA_UNRESPONSIVE_TIMEOUT).
 *
 * An EFA ends work whose peer does not answer with status 13. A stopped process on this host may go on at any time, at any instruction, so the
 * question is what it may still do with records that lie in our ring: after an error completion nothing may land (I5).
 *
 * Only the owner of memory writes it. So what the peer would have done to our memory (read data, its own sends and writes) ends when we stop taking its
 * records. What our records would do to its memory ends by the `cut` word (ring.h, CUT-1): a record that it has not begun is never begun. One
 * that it has begun may be anywhere between its first byte and its acknowledgement. Such work is not ended: it waits until the peer's
 * acknowledgement comes, or the peer notices the cut and closes, or ends. That is at most what the peer serves in one pass.
 * Rejected: ending all work at once, which is not exact; and killing the peer, which is not ours to do.
 *
 *   CUT-2  work of a lingering link ends by its acknowledgement or by the end of the link, and by nothing else.
 *   CUT-3  work that ends here has no record that the peer has begun, or the peer has finished with it.
 */
#include "softefa/dev/op_life.h"

namespace softefa::dev {

using wire::efa_status;

namespace {

template <class F> void for_each_op(link &l, F &&f) noexcept
{
    objects().qps.for_each([&](qp &q) {
        for (unsigned i = 0; i < q.sq_entries && q.ops != nullptr; ++i)
            if (q.ops[i].state != op_state::free && q.ops[i].to == &l)
                f(q.ops[i]);
    });
}

/// The peer may be in the middle of one of the op's records.
bool may_be_under_way(const op &o, std::uint64_t taken, std::uint64_t begun) noexcept
{
    if (o.kind == op_kind::read) // it lands here, where we have stopped taking its data
        return false;
    if (o.state == op_state::queued && o.progress == 0)
        return false;
    // Of a write of several records only the end is known: it counts as begun as soon as anything is.
    const std::uint64_t first = o.kind == op_kind::send ? o.sent_to - fabric::record_size(o.total) : 0;
    return begun > taken && o.sent_to > taken && first < begun;
}

/// What the peer acknowledged so far: at most a ring of it, even if it goes on writing.
void take_acks(link &l) noexcept
{
    for (unsigned n = 0; n < limits::ack_rounds && engine_run_link(l); ++n) {
    }
}

} // namespace

bool cut_outstanding(link &l, std::uint64_t *progress_p) noexcept
{
    const fabric::control_page *theirs = l.channel->peer.control();
    *progress_p = theirs->data_consumed.load(std::memory_order_relaxed) + theirs->acks_consumed.load(std::memory_order_relaxed) +
                  l.channel->rx.position() + l.channel->acks_in.position();
    return !l.channel->tx.drained() || l.reads_out != 0 || !l.pending.empty() || !l.writes.empty();
}

void cut_begin(link &l) noexcept
{
    engine_run_link(l); // what it had answered counts
    if (l.failed)
        return;
    l.failed     = true;
    l.lingers    = true;
    l.end_status = efa_status::unresponsive;
    l.read_count = 0;
    l.channel->own.control()->cut.store(1, std::memory_order_seq_cst);
}

void cut_finish(link &l, bool ordered) noexcept
{
    if (!l.lingers)
        return;
    take_acks(l);
    const fabric::control_page *theirs = l.channel->peer.control();
    // Without order between the two processes the peer may have begun whatever is in the ring.
    const std::uint64_t         begun  = ordered ? theirs->serving_to.load(std::memory_order_acquire) : ~std::uint64_t{0};
    const std::uint64_t         taken  = theirs->data_consumed.load(std::memory_order_acquire);
    take_acks(l); // it acknowledges before it says that it has taken a record
    for_each_op(l, [&](op &o) {
        if (!may_be_under_way(o, taken, begun))
            op_complete(o, efa_status::unresponsive);
    });
    l.reads_out = 0;
}

} // namespace softefa::dev
