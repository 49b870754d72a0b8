/* Small objects of one type, by the thousand: chunks of them, and a list of the free ones.
 *
 * Owns: the memory. It grows on demand and goes back when the slab goes. An element costs its own bytes and no more, and lies
 * where its size says: one of 32 bytes in half a cache line, never across two.
 * Refuses to know: what an element is, and how many there may be.
 *
 * With AddressSanitizer an element that was given back is never handed out again, and touching it is reported: what a slab
 * would otherwise hide from it.
 */
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>
#include <type_traits>

#if defined(__SANITIZE_ADDRESS__)
#define SRD_HIDES_ELEMENTS
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SRD_HIDES_ELEMENTS
#endif
#endif
#ifdef SRD_HIDES_ELEMENTS
#include <sanitizer/asan_interface.h>
#endif

namespace srd {

template <class Element, std::size_t ChunkElements> class slab {
    static_assert(std::is_trivially_destructible_v<Element> && sizeof(Element) >= sizeof(void *));

public:
    slab() noexcept = default;
    slab(const slab &)            = delete;
    slab &operator=(const slab &) = delete;
    ~slab()
    {
        while (chunks_ != nullptr) {
            chunk *dead = chunks_;
            chunks_     = dead->next;
            unhide(dead->elements, sizeof(dead->elements));
            std::free(dead);
        }
    }

    /// A new element with its initial values. Null: no memory.
    Element *take() noexcept
    {
        if (free_ == nullptr && !grow()) [[unlikely]] {
            return nullptr;
        }
        link *taken = free_;
        free_       = taken->next;
        ++taken_count_;
        return new (taken) Element{};
    }

    void give(Element *element) noexcept
    {
        --taken_count_;
#ifdef SRD_HIDES_ELEMENTS
        __asan_poison_memory_region(element, sizeof(Element));
#else
        free_ = new (element) link{free_};
#endif
    }

    std::size_t taken() const noexcept { return taken_count_; }

private:
    struct link {
        link *next;
    };
    struct chunk {
        alignas(64) chunk *next;
        alignas(64) unsigned char elements[ChunkElements * sizeof(Element)];
    };

    bool grow() noexcept
    {
        auto *fresh = static_cast<chunk *>(std::aligned_alloc(alignof(chunk), sizeof(chunk)));
        if (fresh == nullptr) {
            return false;
        }
        fresh->next = chunks_;
        chunks_     = fresh;
        for (std::size_t i = ChunkElements; i-- > 0;) {
            free_ = new (fresh->elements + i * sizeof(Element)) link{free_};
        }
        return true;
    }

    static void unhide([[maybe_unused]] void *memory, [[maybe_unused]] std::size_t size) noexcept
    {
#ifdef SRD_HIDES_ELEMENTS
        __asan_unpoison_memory_region(memory, size);
#endif
    }

    link *free_              = nullptr;
    chunk *chunks_           = nullptr;
    std::size_t taken_count_ = 0;
};

} // namespace srd
