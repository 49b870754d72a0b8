/* Grants that are kept: RDMA reads of memory that was read before, without asking its owner again.
 *
 * Owns: on the reader's side, the few registrations of each peer that a read may be copied from by itself, and the count of such reads; on the owner's
 * side, what ends these rights, and that its counters have those reads. Refuses to know how bytes are copied: single_copy.h.
 *
 * The owner answers a read by address with a grant of the registration that it lies in (wire/pdu.h). The question was answered for one QP, one rkey, one
 * qkey and one pair of devices, and a later read that differs in one of these, or lies outside, asks for itself. All that the answer depended on
 * is the owner's to change, and each such change raises an epoch in its segment before the call that makes it returns:
 *   - the registration goes (single_copy.h: windows_close);
 *   - the QP changes its state or qkey, or is destroyed, or an address handle goes: epoch_of_rights, for all grants that this process gave. These
 *     are rare, so one word does, and a read that meets it asks once more;
 *   - the link or the process ends (windows_close(link), identity and pidfd).
 * The reader compares, copies and compares again, as with every window: the first look keeps bytes that were taken back out of its buffer, the
 * second is what counts. If anything is different, it asks through the ring, and whatever status there is
 * has its one place there.
 *
 * Nobody is woken: a stopped owner's memory is read like a busy one's, as by a card. The reader counts these reads in its own segment, and wakes the owner
 * at most once in the time between two snapshots, so that the owner's counters follow.
 *
 * Rejected: a table of all registrations that peers read by themselves. States of QPs and address handles would have to be there too.
 *
 *   SC-4  no read succeeds by a kept grant that begins after the owner took back, in a call that has returned, what the grant was given for.
 *   SC-5  a read counts once, at both sides, whichever way it went.
 */
#pragma once

#include "softefa/dev/engine_state.h"

namespace softefa::dev {

// --- reader; engine lock held
/// Whether a kept grant covers the read; then it says where the bytes are.
bool kept_use(link &l, op &o) noexcept;
/// Keeps what the owner granted for this read. False: it does not grant what the read asked for.
bool kept_take(link &l, const op &o, const wire::grant &given) noexcept;
/// The grant of this read is of no use any more.
void kept_drop(link &l, const op &o) noexcept;
/// The read succeeded.
void kept_count(link &l, const op &o) noexcept;
/// Wakes owners that sleep and whose counters miss something. Takes the lock.
void kept_tell() noexcept;

// --- owner; engine lock held
wire::grant kept_open(link &l, qp &q, const mr &m, const wire::window &now) noexcept;
/// SC-4: the QP is not what it was; or whatever else rights depend on.
void kept_close(qp &q) noexcept;
void kept_close() noexcept;
/// SC-5: counts what the peer read since. A peer whose counts are impossible is cut off.
void kept_settle(link &l) noexcept;
/// All peers. Takes the lock.
void kept_settle() noexcept;

} // namespace softefa::dev
