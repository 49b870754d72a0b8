/* The ack ring: answers to records, one word each.
 *
 * Owns: the two views of it, written and read. Where it lies in a segment, and who writes which position, is in ring.h.
 *
 * A word is 8 bytes, and its top bits are the lap: it is new if that is the reader's, so no index is published and nothing is cleared. Four bits are
 * enough, because what lies in a place is of this lap or of the last one: nothing is overwritten that the peer has not given back (RING-1). What the
 * peer says it has taken is believed only within what was sent.
 */
#pragma once

#include "softefa/fabric/ring.h"

namespace softefa::fabric {

/// Writes acknowledgements into the own segment.
class ack_tx {
public:
    void init(std::uint8_t *own_segment, const control_page *peer) noexcept
    {
        words_ = reinterpret_cast<std::atomic<std::uint64_t> *>(own_segment + ack_ring_offset);
        peer_  = peer;
        head_ = consumed_ = 0;
    }

    /// True if at least `count` acknowledgements can be pushed.
    bool has_room(std::size_t count) noexcept
    {
        if (ack_count - (head_ - consumed_) >= count) [[likely]]
            return true;
        const std::uint64_t seen = peer_->acks_consumed.load(std::memory_order_acquire);
        if (seen - consumed_ > head_ - consumed_) [[unlikely]] {
            violated_ = true;
            return false;
        }
        consumed_ = seen;
        return ack_count - (head_ - consumed_) >= count;
    }

    /// Only after has_room().
    void push(const wire::ack &a) noexcept
    {
        words_[head_ % ack_count].store(a.pack(lap(head_)), std::memory_order_release);
        ++head_;
        SOFTEFA_POINT(acknowledged);
    }
    bool violated() const noexcept { return violated_; }
    std::uint64_t head() const noexcept { return head_; } ///< acknowledgements ever pushed

    static constexpr unsigned lap(std::uint64_t position) noexcept { return static_cast<unsigned>(position / ack_count + 1) & 0xf; }

private:
    std::atomic<std::uint64_t> *words_    = nullptr;
    const control_page         *peer_     = nullptr;
    std::uint64_t               head_     = 0;
    std::uint64_t               consumed_ = 0;
    bool                        violated_ = false;
};

/// Reads acknowledgements from the peer's segment.
class ack_rx {
public:
    void init(const std::uint8_t *peer_segment, control_page *own) noexcept
    {
        words_ = reinterpret_cast<const std::atomic<std::uint64_t> *>(peer_segment + ack_ring_offset);
        own_   = own;
        seek(0);
    }

    bool empty() const noexcept { return wire::ack::lap(place_->load(std::memory_order_acquire)) != lap_; }

    bool peek(wire::ack &a) const noexcept
    {
        const std::uint64_t value = place_->load(std::memory_order_acquire);
        a                         = wire::ack::unpack(value);
        return wire::ack::lap(value) == lap_;
    }
    /// The acknowledgement so many places behind the current one.
    bool peek_ahead(wire::ack &a, std::size_t ahead) const noexcept
    {
        const std::uint64_t value = words_[(position_ + ahead) % ack_count].load(std::memory_order_acquire);
        a                         = wire::ack::unpack(value);
        return wire::ack::lap(value) == ack_tx::lap(position_ + ahead);
    }
    void advance() noexcept { seek(position_ + 1); }
    void publish() noexcept { own_->acks_consumed.store(position_, std::memory_order_release); }
    std::uint64_t position() const noexcept { return position_; }

private:
    void seek(std::uint64_t position) noexcept
    {
        position_ = position;
        place_    = words_ + position % ack_count;
        lap_      = ack_tx::lap(position);
    }

    const std::atomic<std::uint64_t> *place_    = nullptr; ///< where position_ lies
    unsigned                          lap_      = 0;       ///< of a word that is new there
    const std::atomic<std::uint64_t> *words_    = nullptr;
    control_page                     *own_      = nullptr;
    std::uint64_t                     position_ = 0;
};

} // namespace softefa::fabric
