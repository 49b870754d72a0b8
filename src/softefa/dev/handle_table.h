/* Objects by handle: index, kind and generation in 32 bits.
 *
 * Owns: the memory of all objects of one kind, in chunks that are never given back, so that a stale handle reads memory of the right type and
 * is refused by its generation. Free indices are reused first-in first-out, so that a generation lasts long. Not
 * thread-safe for insert and erase (the control lock); find() may run beside them on another index.
 *
 *   HT-1  a handle is found exactly from insert() to erase(); never 0.
 */
#pragma once

#include "softefa/dev/device.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace softefa::dev {

enum class object_kind : std::uint8_t { none = 0, context = 1, pd = 2, mr = 3, ah = 4, cq = 5, qp = 6 };

template <class T, object_kind Kind, unsigned Capacity, unsigned Chunk = 64> class handle_table {
    static constexpr unsigned index_bits = 19, kind_bits = 3, generation_bits = 10;
    static constexpr unsigned none = 0; ///< free-list links hold index + 1, so that zeroed memory is an empty table
    static_assert(Capacity <= (1u << index_bits) && Capacity % Chunk == 0);

public:
    /// A fresh T with its handle, or null when out of memory or full.
    T *insert(handle *handle_p) noexcept
    {
        unsigned index;
        // Fresh slots are preferred while few are free: a FIFO of one would wear out its generation.
        if (free_head_ != none && (free_count_ >= 16 || used_ == Capacity)) {
            index      = free_head_ - 1;
            free_head_ = slot_at(index).next_free;
            if (free_head_ == none)
                free_tail_ = none;
            --free_count_;
        } else if (used_ < Capacity) {
            if (used_ % Chunk == 0) {
                auto *chunk = static_cast<slot *>(std::calloc(Chunk, sizeof(slot)));
                if (chunk == nullptr)
                    return nullptr;
                chunks_[used_ / Chunk].store(chunk, std::memory_order_release);
            }
            index = used_;
            slot_at(index).generation = 1;
            used_ = index + 1;
        } else {
            return nullptr;
        }
        slot &s     = slot_at(index);
        s.next_free = none;
        T *object   = new (&s.object) T();
        *handle_p   = (s.generation << (index_bits + kind_bits)) | (static_cast<unsigned>(Kind) << index_bits) | index;
        s.live.store(*handle_p, std::memory_order_release);
        ++count_;
        return object;
    }

    void erase(handle h) noexcept
    {
        const unsigned index = index_of(h);
        slot          &s     = slot_at(index);
        s.live.store(0, std::memory_order_release);
        s.object.~T();
        s.generation = (s.generation + 1) & ((1u << generation_bits) - 1);
        if (free_tail_ == none)
            free_head_ = index + 1;
        else
            slot_at(free_tail_ - 1).next_free = index + 1;
        free_tail_ = index + 1;
        ++free_count_;
        --count_;
    }

    T *find(handle h) noexcept
    {
        const unsigned index = index_of(h);
        slot          *chunk = index < Capacity ? chunks_[index / Chunk].load(std::memory_order_acquire) : nullptr;
        return chunk != nullptr && h != 0 && chunk[index % Chunk].live.load(std::memory_order_acquire) == h ? &chunk[index % Chunk].object : nullptr;
    }

    /// The live object at an index, whatever its generation; null if there is none.
    T *at(unsigned index) noexcept
    {
        if (index >= Capacity)
            return nullptr;
        slot *chunk = chunks_[index / Chunk].load(std::memory_order_acquire);
        return chunk != nullptr && chunk[index % Chunk].live.load(std::memory_order_acquire) != 0 ? &chunk[index % Chunk].object : nullptr;
    }

    template <class F> void for_each(F &&f) noexcept
    {
        for (unsigned i = 0; i < used_; ++i)
            if (T *object = at(i))
                f(*object);
    }

    static constexpr unsigned index_of(handle h) noexcept { return h & ((1u << index_bits) - 1); }
    unsigned count() const noexcept { return count_; }

private:
    struct slot {
        T                   object;
        std::atomic<handle> live;       ///< its handle, kind and generation included; 0: there is no object
        unsigned            generation; ///< of the object here, or of the next one
        unsigned            next_free;
    };
    slot &slot_at(unsigned index) noexcept
    {
        return chunks_[index / Chunk].load(std::memory_order_relaxed)[index % Chunk];
    }

    std::atomic<slot *> chunks_[Capacity / Chunk] = {};
    std::atomic<unsigned> used_ = 0; ///< slots ever given out
    unsigned count_ = 0, free_count_ = 0;
    unsigned free_head_ = none, free_tail_ = none; ///< index + 1
};

} // namespace softefa::dev
