/* A message by shared memory, as a ping-pong needs it: what every message passing must do and no more.
 *
 * Owns: the layout of one direction, and its two operations. Copy the message in, publish a sequence number, see it on the other core, copy the
 * message out. A direction has a single writer; its slot is free again when the answer has arrived. The sequence number is the commit word and
 * shares its cache line with the first 56 bytes of the payload, so that a short message costs one line transfer.
 * Refuses to know who plays and who measures: shm_pingpong does it by itself, verbs_probe in turns with verbs.
 *
 *   RAW-1  The receiver checks the first 8 bytes of every message against its sequence number: a figure from a run that carried wrong bytes is
 *          never printed.
 */
#pragma once

#include "program.h"

#include <atomic>
#include <cstring>
#include <sys/mman.h>

namespace raw {

/// One direction. Written by its sender only.
struct slot {
    alignas(64) std::atomic<std::uint64_t> seq; ///< number of the last message published; 0 = none yet
    unsigned char payload[];
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

inline void slot_send(slot *out, std::uint64_t seq, unsigned char *buffer, std::size_t size)
{
    std::memcpy(buffer, &seq, sizeof(seq));
    std::memcpy(out->payload, buffer, size);
    out->seq.store(seq, std::memory_order_release);
}

/// True if the message is the one expected (RAW-1).
inline bool slot_receive(const slot *in, std::uint64_t seq, unsigned char *buffer, std::size_t size)
{
    while (in->seq.load(std::memory_order_acquire) != seq)
        program::relax();
    std::memcpy(buffer, in->payload, size);
    return std::memcmp(buffer, &seq, sizeof(seq)) == 0;
}

/// Both directions; made before the fork.
struct slots {
    slot *there = nullptr, *back = nullptr; ///< to the child, to the parent
};

/// False: no memory (errno).
inline bool slots_map(std::size_t payload_size, slots *slots_p)
{
    const std::size_t stride = (sizeof(std::uint64_t) + payload_size + 4095) / 4096 * 4096;
    void *memory = mmap(nullptr, 2 * stride, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return false;
    slots_p->there = static_cast<slot *>(memory);
    slots_p->back  = reinterpret_cast<slot *>(static_cast<unsigned char *>(memory) + stride);
    return true;
}

} // namespace raw
