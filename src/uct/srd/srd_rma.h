/* One-sided operations and fences: what the other halves of the transport need of srd_rma.cc.
 *
 * Owns: put and get from post to completion, the gate that keeps them back until the peer has said hello, the share of
 * the send queue that one peer's may take, and what a fence makes later operations wait for.
 * Refuses to know: headers, psns and credits (one-sided operations have none), endpoints' queues (srd_ep).
 *
 * Records are those of srd_op.h, without a psn, in the FIFO of the peer: flush, destroy, cancel and failure find them there.
 *
 * Fences. Active messages of one peer arrive in order anyway, so a fence concerns two things: what follows must wait until
 * earlier one-sided operations are complete, and a one-sided operation that follows must wait until the peer's program
 * has consumed the earlier active messages: acknowledged means placed, and UCP's atomics are messages that the peer's CPU
 * executes. A fence is a number that is raised; the endpoint compares it at its next post that takes the slow path, and
 * the first post after it sets what to wait for. So that active messages need not compare on their short path, the peer's
 * window is held (tx_window::hold) while one-sided operations are outstanding; with none, they have nothing to wait for.
 *
 * Requests that wait in the queue of an endpoint were posted, to the program's eyes, when they were queued, and fences may have
 * been called between them since. Each therefore keeps the epoch of its time, and its posts compare that one. (RMA-5)
 *
 * Which operations are earlier: each joins one of two groups of its peer, the current one. A fence closes the current
 * group as soon as the other one is empty, and waits for the closed one. So it waits for everything before it, and for at
 * most what other endpoints of the peer post until the older group is empty: two endpoints cannot starve each other.
 *
 * Rejected: waiting until nothing one-sided is outstanding at all: another endpoint of the same peer could keep that from ever
 * happening. A number for each operation: completions come in any order, so the oldest outstanding one would have to
 * be searched for.
 *
 * Invariants
 *   RMA-1  rma_outstanding() == one-sided records of the peer that are not done.
 *   RMA-2  while that is not 0, the peer's window is held: every active message passes tx_admit.
 *   RMA-3  nothing one-sided is posted before the peer has answered hello, or spoken to us by itself: until its device has an
 *          address handle for us it would refuse us (status 14).
 *   RMA-4  one peer's one-sided operations hold at most half of the send queue.
 *   RMA-5  epochs compared on one endpoint do not go back: its queue is in order, and nothing passes it. Except after a fence
 *          inside a turn: then an older request in the queue is fenced once more, which only waits for more.
 */
#pragma once

#include "uct/srd/srd_iface.h"

namespace srd {

/// What an endpoint waits for since its last fence.
enum fence_wait : std::uint8_t {
    fence_wait_rma      = 1u << 0, ///< one-sided operations before it; holds back everything
    fence_wait_consumed = 1u << 1, ///< active messages before it; holds back one-sided operations only
};

/// Posts a record to the device, the first time or again. 0 or an errno.
int rma_post(iface *f, const peer *p, const op *o) noexcept;
/// The device has completed it, or never will: everything of the user's is done; the caller takes it off the FIFO.
void rma_finish(iface *f, op *o, ucs_status_t status) noexcept;
/// It ended in an error of the device: the status to finish it with, or UCS_INPROGRESS if it waits to be posted again.
ucs_status_t rma_error(iface *f, op *o, const error_meaning &e, std::uint32_t device_status) noexcept;
/// Ends a record that waits to be posted again.
void rma_withdraw(iface *f, op *o, ucs_status_t status) noexcept;

/// A fence on the endpoint, here and now. False: no memory, nothing changed.
bool fence_raise(ep *e) noexcept;
/// Takes note of fences since the last look. For posts on the slow path. False: no memory, nothing changed.
bool fence_observe(const iface *f, ep *e) noexcept;
/// Whether the one-sided operations before the endpoint's last fence are complete.
bool fence_rma_over(iface *f, ep *e) noexcept;
/// Whether the active messages before it were consumed; asks the peer to tell, if it was not asked.
bool fence_consumed_over(iface *f, ep *e) noexcept;
/// An endpoint leads to the peer now. Where one-sided operations are expected, hello is said at once, before this returns: a
/// target may stop calling UCX as soon as it has handed out its keys, and only its program can answer. Where both sides have
/// endpoints each hears the other's hello, and nobody needs an answer.
void rma_attached(iface *f, peer *p) noexcept;
/// Makes the peer answer hello, unless it has spoken. Returns whether it has.
bool rma_hello(iface *f, peer *p) noexcept;

} // namespace srd
