/* A second thread of the neighbour, which writes to what it shares while the device reads it: what was checked is something else a moment later.
 *
 * Runs between begin() and end(), each time from a seed of its own, near the record that was written last and in the control page. Nobody says which
 * store falls between which two loads, so a finding is repeated by running its input often.
 */
#pragma once

#include "base/rng.h"
#include "softefa/fabric/ring.h"

#include <atomic>
#include <cstdint>
#include <thread>

namespace fuzz {

class scribbler {
public:
    std::atomic<std::uint64_t> near{0};   ///< position of the record that was written last
    std::uint64_t              stores = 0, turns = 0; ///< of all times; turns in which it wrote

    ~scribbler()
    {
        if (!thread_.joinable())
            return;
        set(leave);
        thread_.join();
    }
    /// Over the segment at `base`, which stays until end().
    void begin(std::uint8_t *base, std::uint64_t seed)
    {
        if (!thread_.joinable())
            thread_ = std::thread([this] { run(); });
        base_ = base;
        seed_ = seed;
        near.store(0, std::memory_order_relaxed);
        set(write);
        order_.wait(write); // it has begun
    }
    void end()
    {
        set(rest);
        resting_.wait(false);
        stores += written_;
        turns += written_ != 0;
    }

private:
    enum order : int { rest, write, writing, leave };
    std::thread       thread_;
    std::atomic<int>  order_{rest};
    std::atomic<bool> resting_{true};
    std::uint8_t     *base_    = nullptr; ///< these three: written while it rests
    std::uint64_t     seed_    = 0;
    std::uint64_t     written_ = 0;

    void set(order now)
    {
        if (now == write)
            resting_.store(false);
        order_.store(now);
        order_.notify_all();
    }
    void run()
    {
        for (;;) {
            order_.wait(rest);
            if (order_.load() == leave)
                return;
            base::rng random(seed_);
            written_ = 0;
            int began = write;
            order_.compare_exchange_strong(began, writing);
            order_.notify_all();
            while (order_.load(std::memory_order_relaxed) == writing) {
                store(random);
                ++written_;
            }
            resting_.store(true);
            resting_.notify_all();
        }
    }

    /// A field goes bad and comes back, or stays as it is.
    void store(base::rng &random)
    {
        namespace fabric         = softefa::fabric;
        const std::uint64_t bits = random.next();
        std::uint8_t       *at;
        if (random.below(8) == 0) // a position, a park word, an epoch, a count
            at = base_ + random.below(fabric::ack_ring_offset / 8) * 8;
        else if (random.below(8) == 0)
            at = base_ + fabric::ack_ring_offset + random.below(64) * 8;
        else // header, window and grant; the record before it and the one behind it
            at = base_ + fabric::data_ring_offset + (near.load(std::memory_order_relaxed) + random.below(3 * 128) / 4 * 4 - 128) % fabric::data_ring_size / 4 * 4;
        auto               *word = reinterpret_cast<std::atomic<std::uint32_t> *>(at);
        const std::uint32_t was  = word->load(std::memory_order_relaxed);
        switch (random.below(4)) {
        case 0: word->store(static_cast<std::uint32_t>(bits), std::memory_order_relaxed); break;
        case 1: word->store(was ^ (1u << (bits & 31)), std::memory_order_relaxed); break;
        case 2: word->store(static_cast<std::uint32_t>(0) - static_cast<std::uint32_t>(bits & 3), std::memory_order_relaxed); break;
        default: word->store(was + static_cast<std::uint32_t>(bits % 9) * 64, std::memory_order_relaxed);
        }
        if ((bits >> 40 & 3) != 0)
            word->store(was, std::memory_order_relaxed);
    }
};

} // namespace fuzz
