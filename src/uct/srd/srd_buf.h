/* Registered memory of an interface, in chunks: receive buffers and send bounce buffers.
 *
 * Owns: chunks of equal elements, each chunk one registration. It grows on demand up to a bound and gives back everything
 * at once. Elements are handed to the caller's own free list when their chunk is made; the pool never sees them again.
 * Refuses to know: what an element is, and verbs: registration comes through `source`, so tests run without a device.
 */
#pragma once

#include <cstddef>
#include <cstdint>

namespace srd {

/// Where registrations come from.
struct reg_source {
    void *arg;
    bool (*reg)(void *arg, void *address, std::size_t size, std::uint32_t *lkey_p, void **handle_p);
    void (*dereg)(void *arg, void *handle);
};

class reg_pool {
public:
    /// Called once for every new element.
    using init_fn = void (*)(void *arg, void *element, std::uint32_t lkey);

    struct params {
        reg_source source{};
        std::size_t element_size    = 0; ///< bytes; rounded up to `alignment`
        std::size_t alignment       = 64; ///< power of two, at most a page
        std::size_t chunk_elements  = 0;
        std::size_t max_elements    = 0; ///< never exceeded
        init_fn init                = nullptr;
        void *init_arg              = nullptr;
    };

    explicit reg_pool(const params &p) noexcept;
    reg_pool(const reg_pool &)            = delete;
    reg_pool &operator=(const reg_pool &) = delete;
    ~reg_pool();

    /// One more chunk. False: at the bound, or no memory or registration to be had, after which can_grow() says no for ever.
    bool grow() noexcept;
    bool can_grow() const noexcept { return total_ < params_.max_elements && !exhausted_; }

    std::size_t total() const noexcept { return total_; }
    std::size_t element_size() const noexcept { return params_.element_size; }

private:
    struct chunk;

    params params_;
    chunk *chunks_     = nullptr;
    std::size_t total_ = 0;     ///< elements made so far
    bool exhausted_    = false; ///< memory or a registration could not be had
};

/// A bounce buffer for sends: payload at a fixed, aligned place, the wire header grows downwards from it.
struct tx_buf {
    tx_buf *next;        ///< in a free list
    std::uint32_t lkey;
    std::uint32_t reserved;
    unsigned char headroom[48]; ///< the longest wire header
    unsigned char payload[];    ///< up to the device's message size
};
static_assert(offsetof(tx_buf, payload) == 64);

} // namespace srd
