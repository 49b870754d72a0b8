/* See region_allocator.h. */
#include "softefa/dev/region_allocator.h"

#include "softefa/fabric/segment.h"

#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::dev {

namespace {
constexpr std::uint64_t page = 4096;

bool make_zero(int fd, const region &r) noexcept
{
    struct stat about;
    if (fstat(fd, &about) != 0)
        return false;
    const std::uint64_t end = r.offset + r.size;
    // Beyond RLIMIT_FSIZE the call would not only fail: its signal ends the program.
    if (static_cast<std::uint64_t>(about.st_size) < end && (!fabric::raw_may_write_to(end) || syscall(SYS_ftruncate, fd, end) != 0))
        return false;
    // A recycled window still holds the old queue's bytes.
    return syscall(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, r.offset, r.size) == 0;
}
} // namespace

region_allocator::~region_allocator() { std::free(used_); }

result<mapped_region> region_allocator::allocate(std::uint64_t size) noexcept
{
    mapped_region out;
    if (size == 0)
        return out;
    size = (size + page - 1) & ~(page - 1);
    if (count_ == room_) {
        const unsigned room = room_ == 0 ? 64 : room_ * 2;
        if (room > capacity)
            return status::no_memory;
        auto *grown = static_cast<region *>(std::realloc(used_, room * sizeof(region)));
        if (grown == nullptr)
            return status::no_memory;
        used_ = grown;
        room_ = room;
    }

    std::uint64_t offset = page; // key 0 stays unused: it would look like "no key"
    unsigned      at     = 0;
    while (at < count_ && used_[at].offset - offset < size) {
        offset = used_[at].offset + used_[at].size;
        ++at;
    }
    out.where = {offset, size};
    if (!make_zero(fd_, out.where))
        return status::no_memory;
    out.base = static_cast<std::uint8_t *>(fabric::raw_mmap(size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, offset));
    if (out.base == nullptr)
        return status::no_memory;
    std::memmove(used_ + at + 1, used_ + at, (count_ - at) * sizeof(region));
    used_[at] = out.where;
    ++count_;
    return out;
}

void region_allocator::release(mapped_region &r) noexcept
{
    for (unsigned i = 0; i < count_ && r.base != nullptr; ++i) {
        if (used_[i].offset != r.where.offset)
            continue;
        fabric::raw_munmap(r.base, r.where.size);
        std::memmove(used_ + i, used_ + i + 1, (count_ - i - 1) * sizeof(region));
        --count_;
        break;
    }
    r = mapped_region{};
}

} // namespace softefa::dev
