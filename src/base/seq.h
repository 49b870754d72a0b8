/* Sequence numbers that wrap.
 *
 * Owns: comparison and distance modulo 2^n. A seq<U> is not an integer: it cannot be compared with < by accident, and the
 * only arithmetic is "advance" and "distance", so a subtraction that forgets the wrap does not compile.
 * Refuses to know: what is numbered, and any window; the caller keeps every live span below half of the number space.
 *
 * Invariants
 *   SEQ-1  distance(a, a + n) == n for every a and every n below half of the number space.
 *   SEQ-2  expand() returns the number nearest to the reference whose low half is the one given.
 */
#pragma once

#include <cstdint>
#include <type_traits>

namespace base {

template <class U> class seq {
    static_assert(std::is_unsigned_v<U> && sizeof(U) <= 4);

public:
    using raw_type      = U;
    using distance_type = std::make_signed_t<U>;

    constexpr seq() noexcept = default;
    constexpr explicit seq(U raw) noexcept : raw_(raw) {}

    constexpr U raw() const noexcept { return raw_; }

    constexpr seq operator+(U n) const noexcept { return seq(static_cast<U>(raw_ + n)); }
    constexpr seq operator-(U n) const noexcept { return seq(static_cast<U>(raw_ - n)); }
    constexpr seq &operator++() noexcept { ++raw_; return *this; }
    constexpr seq &operator+=(U n) noexcept { raw_ = static_cast<U>(raw_ + n); return *this; }

    constexpr bool operator==(const seq &) const noexcept = default;

    /// How far `to` lies after `from`; negative when it lies before.
    friend constexpr distance_type distance(seq from, seq to) noexcept
    {
        return static_cast<distance_type>(static_cast<U>(to.raw_ - from.raw_));
    }

    friend constexpr bool is_before(seq a, seq b) noexcept { return distance(a, b) > 0; }
    friend constexpr bool is_after(seq a, seq b) noexcept { return distance(b, a) > 0; }
    friend constexpr seq later_of(seq a, seq b) noexcept { return is_before(a, b) ? b : a; }
    friend constexpr seq earlier_of(seq a, seq b) noexcept { return is_before(b, a) ? b : a; }

private:
    U raw_ = 0;
};

using seq16 = seq<std::uint16_t>;
using seq32 = seq<std::uint32_t>;

/// The 32-bit number nearest to `reference` whose low 16 bits are `low`.
constexpr seq32 expand(seq32 reference, std::uint16_t low) noexcept
{
    const seq16 near(static_cast<std::uint16_t>(reference.raw()));

    return reference + static_cast<std::uint32_t>(static_cast<std::int32_t>(distance(near, seq16(low))));
}

} // namespace base
