/* Rings against their invariants: wrap, full, and a peer that writes nonsense. */
#include "softefa/fabric/ack_ring.h"
#include "softefa/fabric/ring.h"

#include "base/rng.h"

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <thread>
#include <vector>

namespace {

using namespace softefa::fabric;
using softefa::wire::ack;
using softefa::wire::header;
using softefa::wire::pdu_kind;

/// Two segments in plain memory: A writes records, B reads them.
struct pair_of_segments {
    struct alignas(4096) bytes { std::uint8_t b[segment_size]; };
    std::unique_ptr<bytes> a = std::make_unique<bytes>(), b = std::make_unique<bytes>();
    data_tx tx;
    data_rx rx;
    ack_tx  acks_out;
    ack_rx  acks_in;

    static control_page *control(bytes &s) { return reinterpret_cast<control_page *>(s.b); }
    pair_of_segments()
    {
        std::memset(a.get(), 0, sizeof(bytes));
        std::memset(b.get(), 0, sizeof(bytes));
        tx.init(a->b, control(*b));
        rx.init(a->b, control(*b));
        acks_out.init(a->b, control(*b));
        acks_in.init(a->b, control(*b));
    }
    bool put(std::uint32_t size, std::uint8_t fill)
    {
        std::uint8_t *room = tx.reserve(size);
        if (room == nullptr)
            return false;
        std::memset(room, fill, size);
        header h;
        h.kind         = pdu_kind::send;
        h.payload_size = size;
        h.imm          = fill;
        tx.commit(h);
        return true;
    }
    /// Takes one record that put() made, without giving it back.
    void take(std::uint8_t fill)
    {
        header h;
        ASSERT_EQ(rx.peek(h), data_rx::outcome::record);
        ASSERT_EQ(h.imm, fill);
        rx.advance(h);
    }
};

TEST(ring, no_position_has_the_value_of_a_cleared_word)
{
    for (const std::uint64_t unit : {0ull, 1ull, 0x7fffffffull, 0x80000000ull, 0xfffffffeull, 0xffffffffull, 0x100000000ull}) {
        EXPECT_NE(commit_value(unit * unit_size), 0u) << unit;
        EXPECT_NE(commit_value(unit * unit_size), commit_value(unit * unit_size + data_ring_size)) << unit;
    }
}

TEST(ring, empty_until_committed)
{
    pair_of_segments s;
    header           h;
    EXPECT_TRUE(s.rx.empty());
    ASSERT_NE(s.tx.reserve(100), nullptr);
    EXPECT_EQ(s.rx.peek(h), data_rx::outcome::empty);
    ASSERT_TRUE(s.put(100, 5));
    EXPECT_EQ(s.rx.peek(h), data_rx::outcome::record);
    EXPECT_EQ(h.payload_size, 100u);
    EXPECT_EQ(s.rx.payload()[99], 5);
}

TEST(ring, sixteen_bytes_fit_one_cache_line)
{
    EXPECT_EQ(record_size(0), 64u);
    EXPECT_EQ(record_size(16), 64u);
    EXPECT_EQ(record_size(17), 128u);
}

TEST(ring, random_sizes_pass_many_laps_in_order_and_whole)
{
    pair_of_segments s;
    base::rng        random(7);
    std::deque<std::pair<std::uint32_t, std::uint8_t>> expected;
    std::uint64_t moved = 0;
    unsigned      full  = 0;
    for (unsigned step = 0; moved < 20 * data_ring_size; ++step) {
        const std::uint32_t size = random.chance(4000) ? random.below(record_payload_max + 1) : random.below(3000);
        if (random.chance(40000)) {
            if (s.put(size, static_cast<std::uint8_t>(step)))
                expected.emplace_back(size, static_cast<std::uint8_t>(step));
            else
                ++full;
        } else {
            header     h;
            const auto seen = s.rx.peek(h);
            ASSERT_EQ(seen == data_rx::outcome::record, !expected.empty());
            if (expected.empty())
                continue;
            ASSERT_EQ(h.payload_size, expected.front().first);
            for (std::uint32_t i = 0; i < h.payload_size; i += 61)
                ASSERT_EQ(s.rx.payload()[i], expected.front().second);
            expected.pop_front();
            s.rx.advance(h);
            moved += record_size(h.payload_size);
            if (random.chance(20000))
                s.rx.publish();
        }
    }
    EXPECT_GT(full, 0u);
    EXPECT_FALSE(s.tx.violated());
}

TEST(ring, full_ring_takes_nothing_until_consumed)
{
    pair_of_segments s;
    unsigned         count = 0;
    while (s.put(16, 1))
        ++count;
    EXPECT_EQ(count, data_ring_size / unit_size - 1); // RING-2 keeps one unit
    header h;
    ASSERT_EQ(s.rx.peek(h), data_rx::outcome::record);
    s.rx.advance(h);
    EXPECT_FALSE(s.put(16, 1)) << "not yet given back";
    s.rx.publish();
    EXPECT_TRUE(s.put(16, 1));
}

TEST(ring, payload_of_an_old_lap_is_never_a_record)
{
    pair_of_segments s;
    // Payload full of commit words of the next lap: without RING-2 the reader would take them for records.
    for (unsigned lap = 0; lap < 3; ++lap) {
        for (unsigned k = 0; k < 32; ++k) {
            std::uint8_t *room = s.tx.reserve(16000);
            ASSERT_NE(room, nullptr);
            for (std::uint32_t i = 0; i + 4 <= 16000; i += 4) {
                const std::uint64_t here = static_cast<std::uint64_t>(room - s.a->b) - data_ring_offset + i;
                const std::uint32_t trap = commit_value((lap + 1) * data_ring_size + here);
                std::memcpy(room + i, &trap, 4);
            }
            header h;
            h.kind         = pdu_kind::send;
            h.payload_size = 16000;
            s.tx.commit(h);
            ASSERT_EQ(s.rx.peek(h), data_rx::outcome::record);
            ASSERT_EQ(h.payload_size, 16000u);
            s.rx.advance(h);
            s.rx.publish();
            ASSERT_EQ(s.rx.peek(h), data_rx::outcome::empty);
        }
    }
}

TEST(ring, payload_of_an_old_short_lap_is_never_a_record)
{
    constexpr std::uint32_t size = 3000;
    pair_of_segments        s;
    header                  h;
    for (unsigned lap = 0; lap < 3; ++lap) {
        for (unsigned k = 0; k < short_lap / record_size(size) + 1; ++k) {
            std::uint8_t *room = s.tx.reserve(size);
            ASSERT_NE(room, nullptr);
            if (k == 0) {
                ASSERT_EQ(room, s.a->b + data_ring_offset + sizeof(header)) << "lap " << lap;
            }
            for (std::uint32_t i = 0; i + 4 <= size; i += 4) {
                const std::uint64_t here = static_cast<std::uint64_t>(room - s.a->b) - data_ring_offset + i;
                const std::uint32_t trap = commit_value((lap + 1) * data_ring_size + here);
                std::memcpy(room + i, &trap, 4);
            }
            h              = header{};
            h.kind         = pdu_kind::send;
            h.payload_size = size;
            s.tx.commit(h);
            ASSERT_EQ(s.rx.peek(h), data_rx::outcome::record);
            ASSERT_EQ(h.payload_size, size);
            s.rx.advance(h);
            s.rx.publish();
            ASSERT_EQ(s.rx.peek(h), data_rx::outcome::empty);
        }
    }
}

TEST(ring, consumer_that_keeps_up_sees_short_laps_only)
{
    pair_of_segments s;
    std::uint8_t     fill = 0;
    for (unsigned n = 0; n < 8 * data_ring_size / unit_size; ++n) {
        std::uint8_t *room = s.tx.reserve(16);
        ASSERT_NE(room, nullptr);
        ASSERT_LT(room - s.a->b, static_cast<std::ptrdiff_t>(data_ring_offset + short_lap)) << n;
        ASSERT_TRUE(s.put(16, ++fill));
        ASSERT_NO_FATAL_FAILURE(s.take(fill)) << n;
        s.rx.publish();
    }
    EXPECT_FALSE(s.tx.violated());
}

TEST(ring, consumer_that_lags_at_the_look_sees_a_whole_lap)
{
    pair_of_segments s;
    for (std::size_t at = 0; at < short_lap; at += unit_size)
        ASSERT_TRUE(s.put(16, 1));
    for (std::size_t at = 0; at < short_lap; at += unit_size)
        ASSERT_NO_FATAL_FAILURE(s.take(1));
    ASSERT_TRUE(s.put(16, 2)) << "this one looks, and what was taken is not given back";
    s.rx.publish();
    for (std::size_t at = short_lap + unit_size; at < data_ring_size; at += unit_size) {
        ASSERT_NO_FATAL_FAILURE(s.take(2));
        s.rx.publish();
        ASSERT_TRUE(s.put(16, 2)) << "one look a lap";
        ASSERT_EQ(s.tx.head(), at + unit_size);
    }
}

TEST(ring, long_record_ends_no_lap)
{
    pair_of_segments s;
    for (std::size_t at = 0; at < short_lap; at += unit_size) {
        ASSERT_TRUE(s.put(16, 1));
        ASSERT_NO_FATAL_FAILURE(s.take(1));
    }
    s.rx.publish();
    ASSERT_TRUE(s.put(short_record, 2)) << "longer than that with its header";
    ASSERT_NO_FATAL_FAILURE(s.take(2));
    s.rx.publish();
    EXPECT_EQ(s.tx.head(), short_lap + record_size(short_record));
    ASSERT_TRUE(s.put(short_record - sizeof(header), 3));
    EXPECT_EQ(s.tx.head(), data_ring_size + short_record) << "the next one that is short does";
}

/// Laps of long records alone are not looked at: the first short one may stand anywhere, and ends no lap that has only begun.
TEST(ring, lap_that_has_only_begun_is_not_ended)
{
    pair_of_segments s;
    while (s.tx.head() < data_ring_size) {
        ASSERT_TRUE(s.put(short_record, 1));
        ASSERT_NO_FATAL_FAILURE(s.take(1));
        s.rx.publish();
    }
    const std::uint64_t begun = s.tx.head();
    ASSERT_LT(begun, data_ring_size + short_lap);
    ASSERT_TRUE(s.put(16, 2));
    EXPECT_EQ(s.tx.head(), begun + unit_size);
    while (s.tx.head() < data_ring_size + short_lap) {
        ASSERT_NO_FATAL_FAILURE(s.take(2));
        ASSERT_TRUE(s.put(16, 2));
    }
    ASSERT_NO_FATAL_FAILURE(s.take(2));
    s.rx.publish();
    ASSERT_TRUE(s.put(16, 3));
    EXPECT_EQ(s.tx.head(), 2 * data_ring_size + unit_size) << "this one is ended where each is";
}

/// RING-4, where the ring is as full as it can be behind an early pad that nobody has passed yet.
TEST(ring, room_behind_an_early_pad_is_what_it_left)
{
    pair_of_segments s;
    for (std::size_t at = 0; at < short_lap; at += unit_size) {
        ASSERT_TRUE(s.put(16, 1));
        ASSERT_NO_FATAL_FAILURE(s.take(1));
    }
    s.rx.publish();
    std::size_t count = 0;
    while (s.put(16, 2))
        ++count;
    EXPECT_EQ(count, short_lap / unit_size - 1); // RING-2 keeps one unit
    header h;
    ASSERT_EQ(s.rx.peek(h), data_rx::outcome::record) << "behind the pad";
    s.rx.publish();
    EXPECT_TRUE(s.put(16, 2)) << "the pad was given back";
    for (; count != 0; --count)
        ASSERT_NO_FATAL_FAILURE(s.take(2));
    EXPECT_FALSE(s.tx.violated());
}

TEST(ring, hostile_consumer_position_ends_no_lap)
{
    for (std::uint64_t lie : {std::uint64_t{short_lap + unit_size}, std::uint64_t{1} << 40, ~std::uint64_t{0}, std::uint64_t{0}}) {
        pair_of_segments s;
        for (std::size_t at = 0; at < short_lap; at += unit_size)
            ASSERT_TRUE(s.put(16, 1));
        pair_of_segments::control(*s.b)->data_consumed.store(lie);
        ASSERT_TRUE(s.put(16, 1));
        EXPECT_EQ(s.tx.head(), short_lap + unit_size) << lie;
        EXPECT_EQ(s.tx.violated(), lie != 0) << lie;
    }
}

/// A pad from `position` to the end of its lap, as a producer may forge it.
void forge_pad(pair_of_segments &s, std::uint64_t position)
{
    const std::uint64_t at = position % data_ring_size;
    header              h{};
    h.kind         = pdu_kind::pad;
    h.payload_size = static_cast<std::uint32_t>(data_ring_size - at - sizeof(h));
    h.commit       = commit_value(position);
    std::memcpy(s.a->b + data_ring_offset + at, &h, sizeof(h));
}

TEST(ring, pad_alone_is_nothing_and_two_in_a_row_are_a_violation)
{
    for (const bool second : {false, true}) {
        pair_of_segments s;
        header           h;
        ASSERT_TRUE(s.put(16, 1));
        ASSERT_NO_FATAL_FAILURE(s.take(1));
        forge_pad(s, unit_size);
        if (second)
            forge_pad(s, data_ring_size);
        EXPECT_EQ(s.rx.peek(h), second ? data_rx::outcome::violation : data_rx::outcome::empty);
        EXPECT_EQ(s.rx.position(), data_ring_size);
    }
}

TEST(ring, hostile_consumer_position_stops_the_producer)
{
    for (std::uint64_t lie : {std::uint64_t{1} << 40, ~std::uint64_t{0}, std::uint64_t{data_ring_size}}) {
        pair_of_segments s;
        ASSERT_TRUE(s.put(16, 1));
        pair_of_segments::control(*s.b)->data_consumed.store(lie);
        while (s.put(16, 1)) {
        }
        EXPECT_TRUE(s.tx.violated()) << lie;
    }
}

TEST(ring, hostile_lengths_are_violations_and_never_leave_the_ring)
{
    for (std::uint32_t size : {0xffffffffu, 0x80000000u, static_cast<std::uint32_t>(data_ring_size), static_cast<std::uint32_t>(data_ring_size - 47)}) {
        for (pdu_kind kind : {pdu_kind::send, pdu_kind::pad}) {
            pair_of_segments s;
            ASSERT_TRUE(s.put(16, 1));
            header h;
            std::memcpy(&h, s.a->b + data_ring_offset, sizeof(h));
            h.payload_size = size;
            h.kind         = kind;
            std::memcpy(s.a->b + data_ring_offset, &h, sizeof(h));
            header seen;
            EXPECT_EQ(s.rx.peek(seen), data_rx::outcome::violation) << size;
        }
    }
}

TEST(ring, pad_that_does_not_reach_the_end_is_a_violation)
{
    pair_of_segments s;
    ASSERT_TRUE(s.put(16, 1));
    const auto pad = static_cast<std::uint8_t>(pdu_kind::pad);
    s.a->b[data_ring_offset + offsetof(header, kind)] = pad;
    header h;
    EXPECT_EQ(s.rx.peek(h), data_rx::outcome::violation);
}

TEST(ack_ring, many_laps_in_order)
{
    pair_of_segments s;
    std::uint64_t    sent = 0, got = 0;
    base::rng        random(3);
    while (got < ack_count * 40) {
        if (random.chance(35000) && s.acks_out.has_room(1)) {
            s.acks_out.push({sent & 0xffffff, softefa::wire::efa_status::rnr, (sent & 1) != 0});
            ++sent;
        } else {
            ack a;
            ASSERT_EQ(s.acks_in.peek(a), got != sent);
            if (got == sent)
                continue;
            EXPECT_EQ(a.op, got & 0xffffff);
            EXPECT_EQ(a.is_read, (got & 1) != 0);
            EXPECT_EQ(a.status, softefa::wire::efa_status::rnr);
            s.acks_in.advance();
            ++got;
            if (random.chance(9000))
                s.acks_in.publish();
        }
    }
}

TEST(ack_ring, full_and_hostile_positions)
{
    pair_of_segments s;
    for (unsigned i = 0; i < ack_count; ++i) {
        ASSERT_TRUE(s.acks_out.has_room(1));
        s.acks_out.push({i, softefa::wire::efa_status::ok, false});
    }
    EXPECT_FALSE(s.acks_out.has_room(1));
    pair_of_segments::control(*s.b)->acks_consumed.store(ack_count + 1);
    EXPECT_FALSE(s.acks_out.has_room(1));
    EXPECT_TRUE(s.acks_out.violated());
}

TEST(ring, two_threads_move_every_record_once)
{
    pair_of_segments   s;
    constexpr unsigned total = 200000;
    std::thread        producer([&] {
        for (unsigned i = 0; i < total;) {
            std::uint8_t *room = s.tx.reserve(4 + i % 100);
            if (room == nullptr) {
                std::this_thread::yield();
                continue;
            }
            std::memcpy(room, &i, 4);
            header h;
            h.kind         = pdu_kind::send;
            h.payload_size = 4 + i % 100;
            s.tx.commit(h);
            ++i;
        }
    });
    unsigned next = 0;
    while (next < total) {
        header h;
        if (s.rx.peek(h) != data_rx::outcome::record) {
            std::this_thread::yield();
            continue;
        }
        unsigned value;
        std::memcpy(&value, s.rx.payload(), 4);
        if (value != next || h.payload_size != 4 + next % 100)
            break;
        s.rx.advance(h);
        s.rx.publish();
        ++next;
    }
    if (next != total) // let the producer end before the failure is told
        pair_of_segments::control(*s.b)->data_consumed.store(0);
    producer.join();
    EXPECT_EQ(next, total);
}

} // namespace
