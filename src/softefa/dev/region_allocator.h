/* Windows of a context's memfd.
 *
 * Owns: which pages of the file are in use, growing the file, zeroing a window before it is handed out, and the engine's own mapping of it
 * (made with raw system calls). Knows nothing of what a window holds.
 * First fit in a sorted array: windows are few (two per CQ, four per QP) and this is slow path.
 *
 *   RA-1  windows never overlap, start on a page and read as zero when handed out.
 */
#pragma once

#include "softefa/dev/device.h"
#include "softefa/dev/limits.h"

namespace softefa::dev {

struct mapped_region {
    region        where;
    std::uint8_t *base = nullptr; ///< engine's own mapping; null when size is 0
};

class region_allocator {
public:
    static constexpr unsigned capacity = 4 * limits::qps + 2 * limits::cqs; ///< all of them may belong to one context
    static_assert((capacity & (capacity - 1)) == 0, "the array grows by doubling");

    explicit region_allocator(int memfd = -1) noexcept : fd_(memfd) {}
    ~region_allocator();
    region_allocator(const region_allocator &)            = delete;
    region_allocator &operator=(const region_allocator &) = delete;

    result<mapped_region> allocate(std::uint64_t size) noexcept; ///< size 0 gives an empty region
    void                  release(mapped_region &r) noexcept;
    unsigned              count() const noexcept { return count_; }

private:
    int      fd_    = -1; ///< not owned
    region  *used_  = nullptr; ///< sorted by offset
    unsigned count_ = 0;
    unsigned room_  = 0; ///< entries that used_ can hold
};

} // namespace softefa::dev
