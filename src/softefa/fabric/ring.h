/* Rings in shared memory: one producer process, one consumer process, no lock, no system call.
 *
 * Owns: the layout of a segment (what one process publishes to one other) and the two views of its data ring, written and read; those of the ack ring
 * are in ack_ring.h. Refuses to know who maps it, what a payload means, or how a sleeper is woken.
 *
 * A segment is written by its owner alone and mapped read-only by the peer:
 *     control page | ack ring | data ring
 * The position up to which A has consumed B's rings lives in A's segment, so every byte has one writer.
 *
 * Data ring: records of 64-byte units, header first (48 bytes), payload behind it, so that a message of up to 16 bytes is one cache line.
 * A record is contiguous; where it would cross the end, a pad record fills the rest. There is no head index: a record exists once its commit
 * word holds the value that belongs to its position. Because a position may have held payload a lap ago, the producer clears the commit word
 * behind a record before it commits the record itself (RING-2). Rejected: a published head index, which costs a second cache line per message.
 *
 * Short laps: once a lap, behind short_lap bytes, a producer whose consumer has taken everything begins the next lap at once, by the pad that stands
 * at a lap's end anyway. So a connection of which little is asked touches, and keeps in its caches, an eighth of the ring: a page's first touch costs
 * both processes a fault. Only in front of a short record: a stream of long ones needs the room that the pad takes until it is passed.
 *
 * Nothing read from the peer is believed: positions are checked against what was sent, sizes against the ring, the header is
 * copied before it is looked at; a violation is reported once and the reader stays where it is.
 *
 *   RING-1  the producer never overwrites a byte that the consumer has not given back, whatever the peer wrote.
 *   RING-2  the word at the consumer's position never matches before a record is complete there.
 * Cutting off. A producer that gives up a consumer which does not move (stopped, say) must know what that one may still deliver when it goes on.
 * The consumer stores how far it has begun (serving_to) before it looks at the producer's `cut` word, for each record; the producer stores `cut`,
 * orders all processes, and then reads serving_to. One of the two sees the other:
 *   CUT-1  a record that begins at or behind the serving_to read after a cut is never begun.
 *
 * Memory by address. A window (wire/pdu.h) lets the peer copy from memory of this segment's owner while it is lent. Each window belongs to one of
 * `window_slots` epochs here. Before the owner gives the memory up it raises the epoch of its slot, or of all; the peer copies first and then compares.
 *   SC-1  bytes whose window has its epoch behind the copy were read while the owner lent them.
 * A grant that the peer keeps for later reads (wire/pdu.h) also ends with the rights that its first read had: epoch_of_rights is added to its epoch.
 * The peer counts what it reads that way in its own segment.
 *
 *   RING-3  no view reads or writes outside its ring, whatever the peer wrote.
 *   RING-4  a lap ends early only where the record that is asked room for fits behind the pad at once: a pad alone wakes nobody.
 */
#pragma once

#include "softefa/fabric/points.h"
#include "softefa/wire/pdu.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace softefa::fabric {

inline constexpr std::uint32_t segment_magic   = 0x45464153; ///< "SAFE"
inline constexpr std::uint32_t segment_version = wire::protocol_version;
inline constexpr std::size_t   cache_line      = 64;
inline constexpr std::size_t   unit_size       = 64;
inline constexpr std::size_t   data_ring_size  = 512 * 1024;
inline constexpr std::size_t   short_lap       = 64 * 1024; ///< bytes of the data ring that are used while the consumer keeps up
inline constexpr std::size_t   short_record    = 4096;      ///< bytes of the largest record in front of which a lap ends early
inline constexpr std::size_t   ack_count       = 4096;
inline constexpr std::size_t   record_payload_max = data_ring_size / 4; ///< so that a few records always fit

/// Whether a producer may take back what its consumer has not begun, and who pays for the ordering (CUT-1).
enum cut_rule : std::uint32_t {
    cut_never   = 0,
    cut_barrier = 1, ///< the producer issues a barrier for all processes (membarrier) when it cuts
    cut_fence   = 2, ///< the consumer fences for each record: where membarrier is not to be had
};

inline constexpr unsigned window_slots = 256;
inline constexpr unsigned counted_devices = 32;

/// RDMA reads for which their owner was not asked: ever, stored in this order, read in the opposite one. So no more bytes are seen than reads have, and
/// no more packets than bytes have.
struct read_count {
    std::atomic<std::uint64_t> reads, bytes, packets;
};

/// First page of a segment. Written by its owner, read by the peer.
struct control_page {
    alignas(cache_line) std::atomic<std::uint64_t> data_consumed; ///< bytes taken from the peer's data ring, ever
    alignas(cache_line) std::atomic<std::uint64_t> acks_consumed; ///< words taken from the peer's ack ring, ever
    alignas(cache_line) std::atomic<std::uint32_t> park;          ///< odd: the owner sleeps and wants a wake-up; even: it polls
    alignas(cache_line) std::uint32_t magic;
    std::uint32_t version;
    std::uint64_t instance; ///< owner's instance id
    std::uint32_t may_cut;  ///< cut_rule of the owner; fixed before the peer sees the segment
    alignas(cache_line) std::atomic<std::uint64_t> serving_to; ///< records of the peer up to here were begun; only if the peer may cut
    alignas(cache_line) std::atomic<std::uint32_t> cut;        ///< 1: the owner gave the peer up; nothing of its ring may be begun any more
    alignas(cache_line) std::uint64_t identity_at; ///< address, in the owner's memory, of a word that holds `instance`; 0: it lets nobody look. Fixed like may_cut
    std::atomic<std::uint32_t> reads_peer;         ///< 1: the owner can copy from the peer's memory by itself
    alignas(cache_line) std::atomic<std::uint64_t> epoch_of_all; ///< added to the epoch of each slot
    std::atomic<std::uint64_t> epoch_of_rights;                  ///< added to the epoch of each slot for grants that are kept
    std::atomic<std::uint64_t> epochs[window_slots];             ///< SC-1; only grow
    alignas(cache_line) read_count unasked[counted_devices];     ///< what the owner read from the peer by kept grants, by the peer's device

    std::uint64_t epoch(unsigned slot) const noexcept
    {
        return epoch_of_all.load(std::memory_order_relaxed) + epochs[slot % window_slots].load(std::memory_order_relaxed);
    }
    std::uint64_t epoch_kept(unsigned slot) const noexcept { return epoch(slot) + epoch_of_rights.load(std::memory_order_relaxed); }
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(short_record + unit_size <= short_lap); // RING-4

inline constexpr std::size_t ack_ring_offset  = 4096;
inline constexpr std::size_t data_ring_offset = ack_ring_offset + ack_count * sizeof(std::uint64_t);
inline constexpr std::size_t segment_size     = data_ring_offset + data_ring_size;
static_assert(sizeof(control_page) <= ack_ring_offset && data_ring_offset % 4096 == 0);

constexpr std::size_t record_size(std::size_t payload) noexcept
{
    return (sizeof(wire::header) + payload + unit_size - 1) & ~(unit_size - 1);
}
/// Never 0, which is the cleared word; a position's value returns after 2^31 units, many thousand laps later.
constexpr std::uint32_t commit_value(std::uint64_t position) noexcept
{
    return static_cast<std::uint32_t>(position / unit_size) | 0x80000000u;
}
inline std::atomic<std::uint32_t> &commit_word(std::uint8_t *record) noexcept
{
    return *reinterpret_cast<std::atomic<std::uint32_t> *>(record);
}

/// The line comes into this core's cache as its own: the other process had it a lap ago.
inline void prefetch_for_write(const std::uint8_t *line) noexcept
{
#if defined(__x86_64__)
    asm volatile("prefetchw %0" : : "m"(*line)); // does nothing on a processor that does not know it
#else
    __builtin_prefetch(line, 1);
#endif
}

/// Writes records into the own segment.
class data_tx {
public:
    void init(std::uint8_t *own_segment, const control_page *peer) noexcept
    {
        base_ = own_segment + data_ring_offset;
        peer_ = peer;
        head_ = consumed_ = 0;
        look_at_ = short_lap;
        commit_word(base_).store(0, std::memory_order_relaxed);
    }

    /// Room for a record of `payload` bytes, or null: try again after the peer has consumed. The header is to be written by commit().
    std::uint8_t *reserve(std::size_t payload) noexcept
    {
        const std::size_t size = record_size(payload);
        if (head_ >= look_at_ && size <= short_record) [[unlikely]]
            end_lap_early();
        std::size_t       at   = head_ % data_ring_size;
        const std::size_t tail = data_ring_size - at;
        const std::size_t need = (size <= tail ? size : tail + size) + unit_size; // one unit stays free for RING-2

        if (data_ring_size - (head_ - consumed_) < need && !refresh(need))
            return nullptr;
        if (size > tail) [[unlikely]] {
            pad(tail);
            at = 0;
        }
        return base_ + at + sizeof(wire::header);
    }

    /// Publishes the record that reserve() gave room for. `fill(header &)` writes the header where it belongs: every field but `commit`, and
    /// payload_size as it is given here. A header made elsewhere and copied would be read back before its narrow stores are done.
    template <class Fill> void commit_in_place(std::uint32_t payload_size, Fill &&fill) noexcept
    {
        std::uint8_t *const base   = base_; // not read again behind each store
        const std::uint64_t head   = head_, next = head + record_size(payload_size);
        std::uint8_t *const record = base + head % data_ring_size;

        commit_word(base + next % data_ring_size).store(0, std::memory_order_relaxed);
        SOFTEFA_POINT(next_cleared);
        fill(*reinterpret_cast<wire::header *>(record));
        SOFTEFA_POINT(header_written);
        commit_word(record).store(commit_value(head), std::memory_order_release);
        head_ = next;
        prefetch_for_write(base + (next + unit_size) % data_ring_size); // the next record's commit clears it, if that one is short
        SOFTEFA_POINT(committed);
    }
    /// The same for a header that exists already.
    void commit(const wire::header &h) noexcept
    {
        commit_in_place(h.payload_size, [&h](wire::header &at) noexcept {
            std::memcpy(reinterpret_cast<std::uint8_t *>(&at) + sizeof(h.commit), reinterpret_cast<const std::uint8_t *>(&h) + sizeof(h.commit),
                        sizeof(h) - sizeof(h.commit));
        });
    }

    /// Offset of reserve()'s result in the segment's file, for copies made by the kernel.
    std::size_t file_offset(const std::uint8_t *payload) const noexcept
    {
        return data_ring_offset + static_cast<std::size_t>(payload - base_);
    }
    bool violated() const noexcept { return violated_; }
    std::uint64_t head() const noexcept { return head_; } ///< end of the last record
    bool drained() noexcept { refresh(0); return consumed_ == head_; }

private:
    bool refresh(std::size_t need) noexcept
    {
        const std::uint64_t seen = peer_->data_consumed.load(std::memory_order_acquire);
        if (seen - consumed_ > head_ - consumed_) [[unlikely]] { // RING-1: went back, or beyond what was sent
            violated_ = true;
            return false;
        }
        consumed_ = seen;
        return data_ring_size - (head_ - consumed_) >= need;
    }

    /// RING-4: all of the ring is free but for the pad, which leaves at least short_lap bytes.
    [[gnu::noinline]] void end_lap_early() noexcept
    {
        const std::size_t   at  = head_ % data_ring_size;
        const std::uint64_t lap = head_ - at;
        look_at_                = lap + short_lap; // long records may have passed many laps
        if (at < short_lap)
            return;
        look_at_ += data_ring_size; // one look a lap: it brings the line that the consumer writes
        if (drained())
            pad(data_ring_size - at);
    }

    [[gnu::noinline]] void pad(std::size_t tail) noexcept // once a lap; inlined, it makes reserve() a call for each message
    {
        wire::header h;
        h.kind         = wire::pdu_kind::pad;
        h.payload_size = static_cast<std::uint32_t>(tail - sizeof(h));
        commit(h);
        SOFTEFA_POINT(pad_committed);
    }

    std::uint8_t       *base_     = nullptr;
    const control_page *peer_     = nullptr;
    std::uint64_t       head_     = 0; ///< bytes ever produced
    std::uint64_t       consumed_ = 0; ///< last believed value of the peer's position
    std::uint64_t       look_at_  = 0; ///< from this position on a short record looks whether the lap may end
    bool                violated_ = false;
};

/// Reads records from the peer's segment.
class data_rx {
public:
    enum class outcome : std::uint8_t { empty, record, violation };

    void init(const std::uint8_t *peer_segment, control_page *own) noexcept
    {
        base_ = peer_segment + data_ring_offset;
        own_  = own;
        seek(0);
        rule_ = reinterpret_cast<const control_page *>(peer_segment)->may_cut;
    }

    /// CUT-1: before the records `h` and, where not null, the one behind it are begun. False: they must not be.
    bool claim(const wire::header &h, const wire::header *next = nullptr) noexcept
    {
        if (rule_ == cut_never) [[likely]]
            return true;
        const auto *theirs = reinterpret_cast<const control_page *>(base_ - data_ring_offset);
        own_->serving_to.store(position_ + record_size(h.payload_size) + (next != nullptr ? record_size(next->payload_size) : 0),
                               std::memory_order_release);
        if (rule_ == cut_barrier)
            std::atomic_signal_fence(std::memory_order_seq_cst);
        else
            std::atomic_thread_fence(std::memory_order_seq_cst);
        return theirs->cut.load(std::memory_order_acquire) == 0;
    }
    std::uint64_t position() const noexcept { return position_; }

    bool empty() const noexcept { return word_of(place_)->load(std::memory_order_acquire) != expected_; }

    /// Copies the header at the current position; pads are skipped. The payload may be read until advance().
    outcome peek(wire::header &h) noexcept { return empty() ? outcome::empty : peek_there(h); }

    /// The same after empty() said no.
    outcome peek_there(wire::header &h) noexcept
    {
        const outcome seen = copy_header(place_, h);
        return seen != outcome::record || h.kind != wire::pdu_kind::pad ? seen : skip_pad(h);
    }

    /// Header of the record behind `h`, where there is one on this lap.
    outcome peek_next(const wire::header &h, wire::header &next) noexcept
    {
        const outcome seen = peek_at(position_ + record_size(h.payload_size), next);
        return seen == outcome::record && next.kind == wire::pdu_kind::pad ? outcome::empty : seen;
    }

    const std::uint8_t *payload() const noexcept { return place_ + sizeof(wire::header); }
    const std::uint8_t *payload_next(const wire::header &h) const noexcept
    {
        return base_ + (position_ + record_size(h.payload_size)) % data_ring_size + sizeof(wire::header);
    }
    std::size_t file_offset(const std::uint8_t *payload) const noexcept
    {
        return data_ring_offset + static_cast<std::size_t>(payload - base_);
    }
    void advance(const wire::header &h) noexcept { seek(position_ + record_size(h.payload_size)); }
    /// Gives the consumed bytes back to the producer.
    void publish() noexcept { own_->data_consumed.store(position_, std::memory_order_release); }

private:
    /// `h` is a pad; becomes what is behind it.
    [[gnu::noinline]] outcome skip_pad(wire::header &h) noexcept
    {
        seek(position_ + record_size(h.payload_size));
        const outcome seen = peek_at(position_, h);
        // A pad ends at the start of the ring: never two in a row.
        return seen == outcome::record && h.kind == wire::pdu_kind::pad ? outcome::violation : seen;
    }

    static const std::atomic<std::uint32_t> *word_of(const std::uint8_t *record) noexcept
    {
        return reinterpret_cast<const std::atomic<std::uint32_t> *>(record);
    }

    void seek(std::uint64_t position) noexcept
    {
        position_ = position;
        place_    = base_ + position % data_ring_size;
        expected_ = commit_value(position);
    }

    outcome peek_at(std::uint64_t position, wire::header &h) const noexcept
    {
        const std::uint8_t *record = base_ + position % data_ring_size;
        return word_of(record)->load(std::memory_order_acquire) == commit_value(position) ? copy_header(record, h) : outcome::empty;
    }

    /// Of a record that is complete.
    outcome copy_header(const std::uint8_t *record, wire::header &h) const noexcept
    {
        std::memcpy(&h, record, sizeof(h));
        const std::size_t tail = data_ring_size - static_cast<std::size_t>(record - base_);
        // RING-3; the sum cannot overflow: 32-bit payload in 64-bit arithmetic
        if (record_size(h.payload_size) > tail || (h.kind == wire::pdu_kind::pad && record_size(h.payload_size) != tail)) [[unlikely]]
            return outcome::violation;
        return outcome::record;
    }

    const std::uint8_t *place_    = nullptr; ///< where position_ lies
    std::uint32_t       expected_ = 0;       ///< the commit word of a record there
    std::uint32_t       rule_     = cut_never;
    const std::uint8_t *base_     = nullptr;
    control_page       *own_      = nullptr;
    std::uint64_t       position_ = 0; ///< bytes ever consumed
};

} // namespace softefa::fabric
