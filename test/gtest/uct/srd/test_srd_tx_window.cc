/* Unit tests of srd_tx_window.h and srd_credit.h: the span, the credits, the watermark, and both ends together. */
#include "uct/srd/srd_tx_window.h"
#include "base/rng.h"
#include "uct/srd/srd_credit.h"
#include "uct/srd/srd_rx_window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <vector>

using base::seq32;
namespace limits = srd::limits;

namespace {

struct record {
    record *next   = nullptr;
    bool done      = false;
    bool sequenced = false;
    int tag        = 0;
};
using window = srd::tx_window<record>;

/// Pops whatever is ready; returns the tags in order.
std::vector<int> drain(window &w)
{
    std::vector<int> tags;
    while (record *r = w.pop()) {
        tags.push_back(r->tag);
    }
    return tags;
}

} // namespace

TEST(srd_tx_window, push_stops_at_the_span_although_one_is_unacknowledged)
{
    window w(4, 1000);
    record r[5];

    for (int i = 0; i < 4; ++i) {
        ASSERT_TRUE(w.can_send() || w.refresh());
        w.push(&r[i]);
    }
    EXPECT_FALSE(w.refresh());
    for (int i = 1; i < 4; ++i) { // all but the oldest
        r[i].done = true;
    }
    EXPECT_TRUE(drain(w).empty());
    EXPECT_FALSE(w.refresh()); // TXW-1: a span, not a count
    r[0].done = true;
    EXPECT_EQ(drain(w).size(), 4u);
    EXPECT_TRUE(w.refresh());
}

TEST(srd_tx_window, push_stops_at_the_credit_limit)
{
    window w(256, 2);
    record r[3];

    w.push(&r[0]);
    w.push(&r[1]);
    EXPECT_FALSE(w.refresh());
    EXPECT_TRUE(w.credit(seq32(1), seq32(3)));
    ASSERT_TRUE(w.refresh());
    w.push(&r[2]);
    EXPECT_FALSE(w.refresh()); // TXW-2
    EXPECT_EQ(w.consumed().raw(), 1u);
}

TEST(srd_tx_window, credit_that_is_old_changes_nothing)
{
    window w(256, 16);
    record r[8];
    for (record &one : r) {
        w.push(&one);
    }
    ASSERT_TRUE(w.credit(seq32(8), seq32(40)));
    EXPECT_TRUE(w.credit(seq32(2), seq32(18)));
    EXPECT_EQ(w.limit().raw(), 40u);
    EXPECT_EQ(w.consumed().raw(), 8u);
}

TEST(srd_tx_window, credit_that_is_nonsense_is_refused)
{
    window w(256, 16);
    record r;
    w.push(&r);

    EXPECT_FALSE(w.credit(seq32(2), seq32(20)));            // consumed before it was sent
    EXPECT_FALSE(w.credit(seq32(1), seq32(0)));             // limit behind consumption
    EXPECT_FALSE(w.credit(seq32(1), seq32(1 + 2 * 256 + 1))); // more than any ring holds
    EXPECT_EQ(w.limit().raw(), 16u);
}

TEST(srd_tx_window, marker_behind_records_is_reached_when_all_are_done)
{
    std::vector<int> order = {0, 1, 2, 3};
    do {
        window w(16, 16);
        std::array<record, 4> r;
        record marker;
        marker.done = true;
        marker.tag  = 99;
        for (int i = 0; i < 4; ++i) {
            r[i].tag = i;
            w.push(&r[i]);
        }
        w.push_marker(&marker);
        std::vector<int> tags;
        for (int i = 0; i < 4; ++i) {
            EXPECT_TRUE(std::find(tags.begin(), tags.end(), 99) == tags.end());
            r[order[i]].done = true;
            const auto now   = drain(w);
            tags.insert(tags.end(), now.begin(), now.end());
        }
        ASSERT_EQ(tags, (std::vector<int>{0, 1, 2, 3, 99})); // TXW-4
        ASSERT_EQ(w.oldest().raw(), 4u);                     // the marker has no psn
        ASSERT_TRUE(w.empty());
    } while (std::next_permutation(order.begin(), order.end()));
}

TEST(srd_tx_window, freeze_stops_for_good)
{
    window w(16, 16);
    record r;
    w.push(&r);
    w.freeze();
    EXPECT_FALSE(w.refresh());
    r.done = true;
    EXPECT_EQ(drain(w).size(), 1u); // what is done still leaves, so that flushes end
    w.credit(seq32(1), seq32(17));
    EXPECT_FALSE(w.refresh()); // TXW-3
}

TEST(srd_tx_window, hold_sends_the_next_post_to_the_slow_path)
{
    window w(16, 16);
    EXPECT_TRUE(w.can_send());
    w.hold();
    EXPECT_FALSE(w.can_send());
    EXPECT_TRUE(w.refresh());
}

TEST(srd_tx_window, push_held_stays_held_until_refresh)
{
    window w(16, 3);
    record r[3];

    w.hold();
    for (record &one : r) {
        ASSERT_TRUE(w.may_send());
        w.push_held(&one);
        ASSERT_FALSE(w.can_send());
    }
    EXPECT_FALSE(w.may_send()); // the bounds hold although the window is held
    EXPECT_TRUE(w.credit(seq32(3), seq32(10)));
    EXPECT_FALSE(w.can_send());
    EXPECT_TRUE(w.refresh());
}

TEST(srd_tx_window, admit_one_lets_one_push_through_and_is_held_again)
{
    window w(16, 2);
    record r[2];

    w.hold();
    for (record &one : r) {
        ASSERT_TRUE(w.may_send());
        w.admit_one();
        ASSERT_TRUE(w.can_send());
        w.push(&one);
        EXPECT_FALSE(w.can_send());
    }
    EXPECT_FALSE(w.may_send());
}

TEST(srd_tx_window, compact_frees_what_waits_behind_a_record_without_a_psn)
{
    window w(4, 100);
    record one_sided[2], r[5];
    std::vector<record *> taken;
    const auto take = [&taken](record *one) { taken.push_back(one); };

    w.push_marker(&one_sided[0]);
    w.push(&r[0]);
    w.push(&r[1]);
    w.push_marker(&one_sided[1]);
    w.push(&r[2]);
    w.push(&r[3]);
    for (record &one : {std::ref(r[0]), std::ref(r[1]), std::ref(r[3])}) {
        EXPECT_FALSE(w.complete(&one)); // none is the head
    }
    EXPECT_FALSE(w.refresh()); // four psns: the window is full although three are acknowledged
    w.compact(take);
    EXPECT_EQ(taken, (std::vector<record *>{&r[0], &r[1]})); // TXW-3: not past r[2]
    EXPECT_EQ(w.oldest(), seq32(2));
    EXPECT_TRUE(w.refresh());

    EXPECT_FALSE(w.complete(&r[2]));
    taken.clear();
    w.compact(take); // the tail leaves too
    EXPECT_EQ(taken, (std::vector<record *>{&r[2], &r[3]}));
    w.push(&r[4]);
    one_sided[0].done = one_sided[1].done = true;
    one_sided[0].tag = 10;
    one_sided[1].tag = 11;
    EXPECT_EQ(drain(w), (std::vector<int>{10, 11})); // TXW-4: their order is kept
    EXPECT_TRUE(w.complete(&r[4]));
    EXPECT_TRUE(w.empty());
    EXPECT_EQ(w.oldest(), w.next());
}

TEST(srd_credit, covers_ends_one_past_the_newest_limit)
{
    srd::rx_credit c(seq32(0xfffffff8u)); // the limits lie beyond the wrap
    const auto limit = seq32(0xfffffff8u) + srd::limits::initial_grant;

    EXPECT_TRUE(c.covers(seq32(0xfffffff8u)));
    EXPECT_TRUE(c.covers(limit)); // BYE needs no credit
    EXPECT_FALSE(c.covers(limit + 1));
    c.renew(seq32(0xfffffff8u) + 8, 100);
    EXPECT_TRUE(c.covers(limit + 1));
    EXPECT_EQ(c.limit(), seq32(0xfffffff8u) + 108);
    EXPECT_FALSE(c.covers(c.limit() + 1));
    c.renew(seq32(0xfffffff8u) + 9, 4); // a smaller grant takes nothing back
    EXPECT_TRUE(c.covers(limit + 1));
}

TEST(srd_credit, renew_never_goes_back_and_is_always_due_before_the_limit)
{
    srd::rx_credit c;
    seq32 consumed(0);
    base::rng rng(3);

    for (int i = 0; i < 100000; ++i) {
        const seq32 before = c.limit();
        if (rng.chance(3000)) {
            c.renew(consumed, rng.below(600));
        }
        ASSERT_FALSE(is_before(c.limit(), before));                                             // CRD-1
        ASSERT_LE(distance(consumed, c.limit()), static_cast<int>(limits::window_size));        // CRD-2
        ASSERT_FALSE(is_before(c.limit(), c.due_at()));                                         // CRD-3
        if (is_before(consumed, c.limit()) && rng.chance(60000)) {
            ++consumed;
        }
        if (consumed == c.limit()) {
            ASSERT_TRUE(c.is_due(consumed));
            ASSERT_TRUE(c.is_urgent(consumed));
            c.renew(consumed, rng.below(600));
        }
    }
}

/// Both ends of one direction over a network that reorders everything, credit messages too: nothing deadlocks, nothing is
/// beyond the window, and everything arrives in order. Grants are as small as they get.
TEST(srd_credit, both_ends_over_an_unordered_network_make_progress)
{
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        base::rng rng(seed);
        std::deque<record> records;
        window w(limits::window_size, limits::initial_grant);
        srd::rx_window<limits::window_size> rx;
        srd::rx_ring<limits::window_size> ring;
        srd::rx_credit credit;
        struct message { std::uint32_t psn; record *sent; };
        std::vector<message> data, acks;
        struct grant { seq32 consumed, limit; };
        std::vector<grant> grants;
        std::uint32_t delivered = 0;
        unsigned idle           = 0;

        while (delivered < 3000) {
            ASSERT_LT(++idle, 100000u) << "deadlock, seed " << seed;
            if (rng.chance(30000) && (w.can_send() || w.refresh())) {
                records.emplace_back();
                data.push_back({w.next().raw(), &records.back()});
                w.push(&records.back());
            }
            if (!data.empty() && rng.chance(30000)) {
                const auto at     = rng.below(static_cast<std::uint32_t>(data.size()));
                const message m   = data[at];
                data.erase(data.begin() + at);
                acks.push_back(m);
                const auto low    = static_cast<std::uint16_t>(m.psn);
                const auto verdict = rx.classify(low);
                ASSERT_TRUE(verdict == srd::rx_verdict::deliver || verdict == srd::rx_verdict::buffered);
                if (verdict == srd::rx_verdict::buffered) {
                    if (!rx.has_ring()) {
                        rx.attach(&ring);
                    }
                    rx.insert(low, m.sent);
                } else {
                    do {
                        rx.advance();
                        ++delivered;
                        idle = 0;
                        if (credit.is_due(rx.expected())) {
                            credit.renew(rx.expected(), 1 + rng.below(32));
                            grants.push_back({rx.expected(), credit.limit()});
                        }
                    } while (rx.pop() != nullptr);
                }
            }
            if (!acks.empty() && rng.chance(30000)) {
                const auto at = rng.below(static_cast<std::uint32_t>(acks.size()));
                acks[at].sent->done = true;
                acks.erase(acks.begin() + at);
                drain(w);
            }
            if (!grants.empty() && rng.chance(30000)) {
                const auto at = rng.below(static_cast<std::uint32_t>(grants.size()));
                ASSERT_TRUE(w.credit(grants[at].consumed, grants[at].limit));
                grants.erase(grants.begin() + at);
            }
        }
    }
}
