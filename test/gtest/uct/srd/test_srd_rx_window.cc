/* Unit tests of srd_rx_window.h: directed cases, and a bounded-exhaustive comparison with a naive oracle: every sequence of
 * `depth` arrivals out of the psns around the window, at the start, before the 16-bit wrap and before the 32-bit wrap. */
#include "uct/srd/srd_rx_window.h"
#include "base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

using base::seq32;
using srd::rx_verdict;

namespace {

constexpr std::uint32_t small = 4;
using small_window = srd::rx_window<small>;

/// The specification, written without a ring: a map of what waits and a set of what was delivered.
class oracle {
public:
    explicit oracle(std::uint32_t first) : expected_(first) {}

    rx_verdict arrive(std::uint32_t psn)
    {
        const auto ahead = static_cast<std::int32_t>(psn - expected_);
        if (ahead < -static_cast<std::int32_t>(small)) {
            return rx_verdict::too_old;
        }
        if (ahead < 0 || waiting_.count(psn)) {
            return rx_verdict::duplicate;
        }
        if (ahead >= static_cast<std::int32_t>(small)) {
            return rx_verdict::beyond_window;
        }
        waiting_.insert(psn);
        return ahead == 0 ? rx_verdict::deliver : rx_verdict::buffered;
    }

    std::vector<std::uint32_t> drain()
    {
        std::vector<std::uint32_t> out;
        while (waiting_.erase(expected_)) {
            out.push_back(expected_++);
        }
        return out;
    }

private:
    std::uint32_t expected_;
    std::set<std::uint32_t> waiting_;
};

/// A window with the ring handling of its caller: messages are the psns themselves, never null.
struct harness {
    explicit harness(std::uint32_t first) : window(seq32(first)) {}

    rx_verdict arrive(std::uint32_t psn, std::vector<std::uint32_t> &delivered)
    {
        const auto low           = static_cast<std::uint16_t>(psn);
        const rx_verdict verdict = window.classify(low);

        if (verdict == rx_verdict::buffered) {
            if (!window.has_ring()) {
                window.attach(&ring);
            }
            EXPECT_EQ(window.insert(low, box(psn)), rx_verdict::buffered);
        } else if (verdict == rx_verdict::deliver) {
            delivered.push_back(psn);
            window.advance();
            while (void *message = window.pop()) {
                delivered.push_back(unbox(message));
                window.advance();
            }
            if (window.held() == 0) {
                window.detach();
            }
        }
        return verdict;
    }

    static void *box(std::uint32_t psn) { return reinterpret_cast<void *>((std::uintptr_t{1} << 40) | psn); }
    static std::uint32_t unbox(void *message) { return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(message)); }

    small_window window;
    srd::rx_ring<small> ring;
};

void explore(std::uint32_t first, unsigned depth, std::uint64_t &runs)
{
    constexpr std::int32_t lowest = -6, highest = 11; // past too_old, and past two windows ahead
    constexpr unsigned choices = highest - lowest + 1;
    std::uint64_t total = 1;

    for (unsigned i = 0; i < depth; ++i) {
        total *= choices;
    }
    for (std::uint64_t code = 0; code < total; ++code) {
        harness h(first);
        oracle o(first);
        std::uint64_t rest = code;

        for (unsigned step = 0; step < depth; ++step, rest /= choices) {
            const std::uint32_t psn = first + static_cast<std::uint32_t>(static_cast<std::int32_t>(rest % choices) + lowest);
            std::vector<std::uint32_t> got;
            const rx_verdict verdict = h.arrive(psn, got);
            ASSERT_EQ(verdict, o.arrive(psn)) << "code=" << code << " step=" << step;
            ASSERT_EQ(got, o.drain()) << "code=" << code << " step=" << step;
        }
        ++runs;
    }
}

} // namespace

TEST(srd_rx_window, classify_in_order_needs_no_ring)
{
    harness h(0);
    std::vector<std::uint32_t> got;

    for (std::uint32_t psn = 0; psn < 100; ++psn) {
        ASSERT_EQ(h.arrive(psn, got), rx_verdict::deliver);
        ASSERT_FALSE(h.window.has_ring());
    }
    EXPECT_EQ(got.size(), 100u);
    EXPECT_EQ(h.window.expected().raw(), 100u);
}

TEST(srd_rx_window, classify_each_side_of_each_edge)
{
    const small_window w(seq32(100));

    EXPECT_EQ(w.classify(100), rx_verdict::deliver);
    EXPECT_EQ(w.classify(101), rx_verdict::buffered);
    EXPECT_EQ(w.classify(100 + small - 1), rx_verdict::buffered);
    EXPECT_EQ(w.classify(100 + small), rx_verdict::beyond_window);
    EXPECT_EQ(w.classify(99), rx_verdict::duplicate);
    EXPECT_EQ(w.classify(100 - small), rx_verdict::duplicate);
    EXPECT_EQ(w.classify(100 - small - 1), rx_verdict::too_old);
    EXPECT_EQ(w.classify(static_cast<std::uint16_t>(100 + 32767)), rx_verdict::beyond_window);
    EXPECT_EQ(w.classify(static_cast<std::uint16_t>(100 + 32768)), rx_verdict::too_old);
}

TEST(srd_rx_window, insert_of_a_duplicate_changes_nothing)
{
    harness h(0);
    std::vector<std::uint32_t> got;

    ASSERT_EQ(h.arrive(2, got), rx_verdict::buffered);
    EXPECT_EQ(h.window.insert(2, harness::box(77)), rx_verdict::duplicate); // RXW-4
    EXPECT_EQ(h.window.held(), 1u);
    h.arrive(0, got);
    h.arrive(1, got);
    EXPECT_EQ(got, (std::vector<std::uint32_t>{0, 1, 2}));
}

TEST(srd_rx_window, purge_yields_everything_that_waits_once)
{
    harness h(0xfffffffeu);
    std::vector<std::uint32_t> got;

    h.arrive(0xffffffffu, got);
    h.arrive(1, got);
    EXPECT_EQ(harness::unbox(h.window.purge()), 0xffffffffu);
    EXPECT_EQ(harness::unbox(h.window.purge()), 1u);
    EXPECT_EQ(h.window.purge(), nullptr);
    EXPECT_NE(h.window.detach(), nullptr);
    EXPECT_TRUE(got.empty());
}

TEST(srd_rx_window, every_arrival_sequence_matches_the_oracle)
{
    std::uint64_t runs = 0;

    for (const std::uint32_t first : {0u, 0xfffdu, 0xfffffffcu}) {
        explore(first, 4, runs);
    }
    EXPECT_EQ(runs, 3u * 18 * 18 * 18 * 18);
}

TEST(srd_rx_window, every_permutation_of_a_window_is_delivered_in_order)
{
    for (const std::uint32_t first : {0u, 0xffffu, 0xffffffffu}) {
        std::vector<std::uint32_t> order = {0, 1, 2, 3};
        do {
            harness h(first);
            std::vector<std::uint32_t> got;
            for (const std::uint32_t offset : order) {
                h.arrive(first + offset, got);
            }
            ASSERT_EQ(got, (std::vector<std::uint32_t>{first, first + 1, first + 2, first + 3})); // RXW-1
        } while (std::next_permutation(order.begin(), order.end()));
    }
}

TEST(srd_rx_window, long_random_reordering_of_the_real_size_loses_nothing)
{
    constexpr std::uint32_t size = 256;
    srd::rx_ring<size> ring;
    srd::rx_window<size> window(seq32(0xffff0000u));
    base::rng rng(20261122);
    std::vector<std::uint32_t> in_flight;
    std::uint32_t next_sent = 0xffff0000u, next_delivered = 0xffff0000u;

    for (int step = 0; step < 400000; ++step) {
        const bool may_send = next_sent - next_delivered < size;
        if (may_send && (in_flight.empty() || rng.chance(40000))) {
            in_flight.push_back(next_sent++);
            continue;
        }
        const std::uint32_t at  = rng.below(static_cast<std::uint32_t>(in_flight.size()));
        const std::uint32_t psn = in_flight[at];
        in_flight.erase(in_flight.begin() + at);
        const auto low = static_cast<std::uint16_t>(psn);
        if (window.classify(low) == rx_verdict::buffered) {
            if (!window.has_ring()) {
                window.attach(&ring);
            }
            window.insert(low, harness::box(psn));
            continue;
        }
        ASSERT_EQ(window.classify(low), rx_verdict::deliver);
        ASSERT_EQ(psn, next_delivered++);
        window.advance();
        while (void *message = window.pop()) {
            ASSERT_EQ(harness::unbox(message), next_delivered++);
            window.advance();
        }
        if (window.held() == 0) {
            window.detach();
        }
    }
    EXPECT_GT(next_delivered - 0xffff0000u, 0x10000u); // went around the 16-bit psn, and around 32 bits
}
