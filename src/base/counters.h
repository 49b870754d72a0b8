/* Named counters with one writer.
 *
 * Owns: one 64-bit number for each member of an enum. The enum ends with `count_`. One thread adds; any thread may read and
 * sees a value that was true a moment ago. No lock and no locked instruction: the writer is alone, and a reader that comes in
 * between sees the old value or the new one.
 * Refuses to know: what is counted, and how it is shown; names come from the caller's table.
 */
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace base {

template <class Enum> class counters {
public:
    static constexpr std::size_t size = static_cast<std::size_t>(Enum::count_);

    void add(Enum which, std::uint64_t n = 1) noexcept
    {
        std::uint64_t &cell = cells_[static_cast<std::size_t>(which)];

#ifdef __SANITIZE_THREAD__
        __atomic_store_n(&cell, cell + n, __ATOMIC_RELAXED);
#else
        cell += n; // one aligned 64-bit store, which no machine we run on tears; the builtin costs two instructions more
#endif
    }

    std::uint64_t get(Enum which) const noexcept
    {
        return __atomic_load_n(&cells_[static_cast<std::size_t>(which)], __ATOMIC_RELAXED);
    }

    /// Address of one counter, for a viewer that reads it later. The counters must outlive it.
    const std::uint64_t *cell(Enum which) const noexcept { return &cells_[static_cast<std::size_t>(which)]; }

private:
    std::array<std::uint64_t, size> cells_{};
};

} // namespace base
