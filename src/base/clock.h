/* Monotonic time, in nanoseconds.
 *
 * Owns: the one clock of the process. Pure code never reads it: time is passed in as `now` (nanoseconds since an
 * arbitrary start), so that tests run on virtual time.
 */
#pragma once

#include <cstdint>
#include <ctime>

namespace base {

using time_ns = std::uint64_t; ///< nanoseconds, CLOCK_MONOTONIC; 0 = never

inline time_ns clock_now_ns() noexcept
{
    timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return static_cast<time_ns>(ts.tv_sec) * 1'000'000'000u + static_cast<time_ns>(ts.tv_nsec);
}

constexpr time_ns us(std::uint64_t n) noexcept { return n * 1'000u; }
constexpr time_ns ms(std::uint64_t n) noexcept { return n * 1'000'000u; }
constexpr time_ns sec(std::uint64_t n) noexcept { return n * 1'000'000'000u; }

} // namespace base
