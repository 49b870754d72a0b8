/* Seeded random numbers: xoshiro256**, by Blackman and Vigna (public domain), seeded with splitmix64.
 *
 * Owns: reproducible randomness. One seed replays a run; nothing here asks the system for entropy.
 */
#pragma once

#include <bit>
#include <cstdint>

namespace base {

class rng {
public:
    explicit constexpr rng(std::uint64_t seed) noexcept
    {
        for (auto &word : state_) {
            seed += 0x9e3779b97f4a7c15u;
            std::uint64_t z = seed;
            z               = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
            z               = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
            word            = z ^ (z >> 31);
        }
    }

    constexpr std::uint64_t next() noexcept
    {
        const std::uint64_t value = std::rotl(state_[1] * 5, 7) * 9;
        const std::uint64_t t     = state_[1] << 17;

        state_[2] ^= state_[0];
        state_[3] ^= state_[1];
        state_[1] ^= state_[2];
        state_[0] ^= state_[3];
        state_[2] ^= t;
        state_[3] = std::rotl(state_[3], 45);
        return value;
    }

    /// Uniform in [0, bound), bound > 0. Multiply-shift: no division.
    constexpr std::uint32_t below(std::uint32_t bound) noexcept
    {
        return static_cast<std::uint32_t>(((next() >> 32) * bound) >> 32);
    }

    /// True with probability per_65536 / 65536.
    constexpr bool chance(std::uint32_t per_65536) noexcept { return (next() >> 48) < per_65536; }

private:
    std::uint64_t state_[4] = {};
};

} // namespace base
