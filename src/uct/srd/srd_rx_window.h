/* The ordering window of one sender, at the receiver: SRD delivers every message once, but in any order.
 *
 * Owns: which psn is expected next, and the early messages that wait for it. A message in order passes straight through:
 * deliver() touches no slot. An early message is put into slot `psn mod size` of a ring that is lent to the window only
 * while something waits, so an idle peer costs the window itself and no ring.
 * Refuses to know: what a message is (an opaque pointer), where rings and messages come from, credits, peers, UCX.
 *
 * Algorithm: the distance of a psn from the expected one decides: 0 is in order; 1 .. size-1 is early; size .. half of the
 * number space can come only from a sender that ignores the window; the other half is the past. Of the past, the last
 * `size` psns are duplicates a correct sender could produce only by breaking SRD's promise of at-most-once; still older
 * ones are ghosts. All verdicts are the caller's to act upon: nothing here drops, counts or asserts on a peer's psn.
 *
 * Rejected: a sorted list through the messages (no ring, but a reversed burst costs n^2); a ring for every peer (2 KiB
 * each, 20 MB for 10,000 peers that are in order nearly always); a hash of (peer, psn) (a lookup for every early message).
 *
 * Invariants
 *   RXW-1  pop() yields psns expected, expected+1, ... with no gap, duplicate or overlap.
 *   RXW-2  slot i is occupied only by the psn p with p mod size == i and 0 < p - expected < size.
 *   RXW-3  held() is the number of occupied slots; a ring is attached whenever held() > 0.
 *   RXW-4  an insert that is not `buffered` changes nothing.
 *   RXW-5  while held() > 0, the ring knows the first psn that waits: until it is expected, nobody has to look.
 */
#pragma once

#include "base/seq.h"

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>

namespace srd {

enum class rx_verdict : std::uint8_t {
    deliver,       ///< in order: the caller delivers it now, then calls advance()
    buffered,      ///< early: kept in the ring
    duplicate,     ///< seen: delivered within the last `size` psns, or waiting in the ring
    too_old,       ///< further back than any sender that obeys the window can be
    beyond_window, ///< further ahead than any sender that obeys the window can be
};

/// A ring lent to a window: every slot is null whenever no window has it.
template <std::uint32_t Size> struct rx_ring {
    static_assert(Size >= 2 && (Size & (Size - 1)) == 0 && Size <= 1u << 15, "a power of two, at most half of the psn space");

    std::array<void *, Size> slots{};
    std::uint32_t held = 0;       ///< occupied slots
    base::seq32 first{};          ///< psn of the first occupied slot; means nothing while held is 0
    rx_ring *next_free = nullptr; ///< link of the pool that owns the ring while nobody uses it
};

template <std::uint32_t Size> class rx_window {
public:
    using ring_type = rx_ring<Size>;

    explicit rx_window(base::seq32 first = base::seq32(0)) noexcept : expected_(first) {}

    base::seq32 expected() const noexcept { return expected_; }
    std::uint32_t held() const noexcept { return ring_ != nullptr ? ring_->held : 0; }
    bool has_ring() const noexcept { return ring_ != nullptr; }
    /// Deliveries until a message that waits is the expected one. Only while held() > 0.
    std::uint32_t until_held() const noexcept { return static_cast<std::uint32_t>(distance(expected_, ring_->first)); }

    /// True for the one psn that needs no window: the whole of the common case.
    bool is_expected(std::uint16_t psn) const noexcept { return psn == static_cast<std::uint16_t>(expected_.raw()); }

    /// What to do with the message numbered `psn`, by its number alone. `buffered` here means "insert() it".
    rx_verdict classify(std::uint16_t psn) const noexcept
    {
        const auto ahead = distance(base::seq16(static_cast<std::uint16_t>(expected_.raw())), base::seq16(psn));

        if (ahead == 0) {
            return rx_verdict::deliver;
        }
        if (ahead > 0) {
            if (ahead >= static_cast<std::int32_t>(Size)) {
                return rx_verdict::beyond_window;
            }
            return (ring_ != nullptr && ring_->slots[psn % Size] != nullptr) ? rx_verdict::duplicate : rx_verdict::buffered;
        }
        return ahead >= -static_cast<std::int32_t>(Size) ? rx_verdict::duplicate : rx_verdict::too_old;
    }

    /// Keeps an early message. Only after classify() said `buffered`, and with a ring attached.
    rx_verdict insert(std::uint16_t psn, void *message) noexcept
    {
        assert(message != nullptr);
        const rx_verdict verdict = classify(psn);
        if (verdict == rx_verdict::buffered) {
            assert(ring_ != nullptr); // RXW-3
            const base::seq32 number = expand(expected_, psn);
            ring_->first             = ring_->held == 0 ? number : earlier_of(ring_->first, number);
            ring_->slots[psn % Size] = message;
            ++ring_->held;
            check();
        }
        return verdict;
    }

    /// The expected message was delivered.
    void advance() noexcept { ++expected_; }

    /// The expected message if it waits in the ring, else null. The caller delivers it and calls advance().
    void *pop() noexcept
    {
        if (held() == 0) {
            return nullptr;
        }
        void *&slot   = ring_->slots[expected_.raw() % Size];
        void *message = slot;
        if (message != nullptr) {
            slot = nullptr;
            --ring_->held;
            find_first();
            check();
        }
        return message;
    }

    /// Any message that waits, in psn order, whether expected or not: for a peer whose life ends. Null when none is left.
    void *purge() noexcept
    {
        for (std::uint32_t i = 0; held() != 0 && i < Size; ++i) {
            void *&slot = ring_->slots[(expected_.raw() + i) % Size];
            if (slot != nullptr) {
                void *message = slot;
                slot          = nullptr;
                --ring_->held;
                return message;
            }
        }
        return nullptr;
    }

    void attach(ring_type *ring) noexcept
    {
        assert(ring_ == nullptr && ring != nullptr);
        ring_ = ring;
    }

    /// The ring, which must be empty, back to its owner. Null when there is none.
    ring_type *detach() noexcept
    {
        assert(held() == 0); // RXW-3
        ring_type *ring = ring_;
        ring_           = nullptr;
        return ring;
    }

private:
    /// The first message that waits behind the one just taken: all in all one step for each psn. RXW-5
    void find_first() noexcept
    {
        if (ring_->held != 0) {
            do {
                ++ring_->first;
            } while (ring_->slots[ring_->first.raw() % Size] == nullptr);
        }
    }

    /// RXW-2, RXW-3 and RXW-5, recounted the slow way; compiled in only where SRD_DEBUG_ORACLE is defined (the unit tests).
    void check() const noexcept
    {
#ifdef SRD_DEBUG_ORACLE
        std::uint32_t occupied = 0;
        for (const void *slot : ring_->slots) {
            occupied += slot != nullptr;
        }
        assert(occupied == held());
        if (occupied == 0) {
            return;
        }
        assert(held() < Size);
        assert(ring_->slots[expected_.raw() % Size] == nullptr); // the expected psn never waits while others are inserted
        for (base::seq32 psn = expected_; psn != ring_->first; ++psn) {
            assert(ring_->slots[psn.raw() % Size] == nullptr && distance(expected_, psn) < static_cast<std::int32_t>(Size));
        }
        assert(ring_->slots[ring_->first.raw() % Size] != nullptr);
#endif
    }

    ring_type *ring_ = nullptr; ///< null while nothing waits
    base::seq32 expected_;      ///< next psn to deliver; its low 16 bits are what the wire carries
};

} // namespace srd
