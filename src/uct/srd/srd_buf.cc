/* Registered chunks: see srd_buf.h. Memory comes from mmap, page aligned, so that a registration never shares a page with
 * anything of the host process. */
#include "uct/srd/srd_buf.h"

#include <cstdlib>
#include <sys/mman.h>

namespace srd {

struct reg_pool::chunk {
    chunk *next;
    void *memory;
    std::size_t size; ///< bytes mapped
    void *handle;     ///< of the registration
};

reg_pool::reg_pool(const params &p) noexcept : params_(p)
{
    params_.element_size = (p.element_size + p.alignment - 1) & ~(p.alignment - 1);
}

reg_pool::~reg_pool()
{
    while (chunks_ != nullptr) {
        chunk *dead = chunks_;
        chunks_     = dead->next;
        params_.source.dereg(params_.source.arg, dead->handle);
        munmap(dead->memory, dead->size);
        std::free(dead);
    }
}

bool reg_pool::grow() noexcept
{
    std::size_t count = params_.chunk_elements;
    if (total_ >= params_.max_elements) {
        return false;
    }
    if (count > params_.max_elements - total_) {
        count = params_.max_elements - total_;
    }

    auto *fresh = static_cast<chunk *>(std::malloc(sizeof(chunk)));
    if (fresh == nullptr) {
        exhausted_ = true;
        return false;
    }
    fresh->size   = count * params_.element_size;
    fresh->memory = mmap(nullptr, fresh->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh->memory == MAP_FAILED) {
        std::free(fresh);
        exhausted_ = true;
        return false;
    }
    std::uint32_t lkey = 0;
    if (!params_.source.reg(params_.source.arg, fresh->memory, fresh->size, &lkey, &fresh->handle)) {
        munmap(fresh->memory, fresh->size);
        std::free(fresh);
        exhausted_ = true;
        return false;
    }
    fresh->next = chunks_;
    chunks_     = fresh;
    total_ += count;
    // Backwards, so that a free list hands them out in address order.
    for (std::size_t i = count; i-- > 0;) {
        params_.init(params_.init_arg, static_cast<unsigned char *>(fresh->memory) + i * params_.element_size, lkey);
    }
    return true;
}

} // namespace srd
