/* One copy instead of two: memory of another process, copied by the kernel (process_vm_readv).
 *
 * Owns: whether the memory of a peer can be read, the copy with all that must hold behind it, and the windows that this process gives away and
 * takes back. Refuses to know what is copied and for whom: rdma_request.cc and rdma_service.cc.
 *
 * Only ever reads: each process writes its own memory alone, so that a process that is stopped in the middle and goes on later hurts nobody. A write is a
 * window that the target copies from; a read is answered with a window, a grant, that the initiator copies from. Either way the bytes count only
 * if, behind the copy,
 *   - it was whole,
 *   - it came from the process that we are connected to: the word `identity` of that process was read by the same call, so from the same address
 *     space (exec, a PID in use again), and with the last piece the process still lives,
 *   - the window still held (SC-1): its memory was neither deregistered nor given up by the end of the operation.
 * Whatever else happens, the operation is done again through the ring, where each side copies its own memory, checks its own keys and finds its own faults.
 * So there is one place for each error status, and this is only ever a shorter way to success.
 *
 * Rejected: process_vm_writev, by which a process that was stopped could write into a buffer that had its completion long ago; and a message
 * from the reader that it is done, for which deregistration would have to wait.
 *
 *   SC-2  no byte counts that was read from another process, or after its memory was given up.
 *   SC-3  after an op has ended, or its memory was deregistered, no peer delivers what it copies from there.
 */
#pragma once

#include "softefa/dev/engine_state.h"

namespace softefa::dev {

/// Before anything is connected: who we are, for those who look.
void single_copy_start(std::uint64_t instance) noexcept;
/// Lets the peer find out; before it sees the segment.
void single_copy_offer(fabric::control_page &own) noexcept;
/// Tries whether the memory behind the link can be read, and tells the peer. `pidfd` stays the caller's; it must live as long as the link.
void single_copy_open(link &l, int pid, int pidfd) noexcept;
/// Whether the process on the other side copies from us.
inline bool peer_copies(const link &l) noexcept
{
    return l.channel->peer.control()->reads_peer.load(std::memory_order_acquire) != 0;
}

/// Copies a window, or a piece of it. False: nothing of it counts. `last`: the operation is to end with this; `kept`: by a grant that was kept, whose
/// epoch this is. errno is preserved.
bool single_copy(link &l, std::uint8_t *to, const wire::window &from, bool last, bool kept = false) noexcept;

/// Lets the peer copy from memory of a registration.
wire::window window_open(link &l, mr &m, const std::uint8_t *address, std::uint32_t length) noexcept;
/// SC-3. What this peer holds of one slot, what it holds at all, and what anybody holds of a registration.
void windows_close(link &l, std::uint32_t slot) noexcept;
void windows_close(link &l) noexcept;
void windows_close(const mr &m) noexcept;

/// Records that so many bytes of RDMA would have been.
constexpr std::uint64_t records_of(std::uint32_t length) noexcept { return (std::uint64_t{length} + limits::chunk_size - 1) / limits::chunk_size; }

/// A window of an operation counts like the records that the bytes would have been; the one that carried it, with so much payload, is counted.
inline void count_window(std::uint64_t &packets, std::uint64_t &bytes, std::uint32_t length, std::size_t payload = sizeof(wire::window)) noexcept
{
    packets += records_of(length) - 1;
    bytes += length - payload;
}

} // namespace softefa::dev
