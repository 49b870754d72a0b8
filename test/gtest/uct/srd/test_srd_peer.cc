/* Unit tests of srd_peer.h: identity, indices and generations, quiet time, bounds; and the loss of memory. */
#include "uct/srd/srd_peer.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <vector>

using namespace srd;

namespace {

gid_type gid_of(unsigned n)
{
    gid_type gid{};
    gid[0]  = 0xfe;
    gid[1]  = 0x80;
    gid[14] = static_cast<std::uint8_t>(n >> 8);
    gid[15] = static_cast<std::uint8_t>(n);
    return gid;
}
constexpr base::time_ns start = base::sec(100);

} // namespace

TEST(srd_peer, create_makes_a_fresh_findable_peer_that_is_held)
{
    auto table = std::make_unique<peer_table>(10, 1);
    peer *p    = table->create(gid_of(1), 7, 0x1234, start);

    ASSERT_NE(p, nullptr);
    EXPECT_EQ(table->find(gid_of(1), 7, 0x1234), p);
    EXPECT_EQ(table->find(gid_of(1), 7, 0x1235), nullptr); // another life of the QPN
    EXPECT_EQ(table->find(gid_of(1), 8, 0x1234), nullptr);
    EXPECT_EQ(table->find(gid_of(2), 7, 0x1234), nullptr);
    EXPECT_EQ(table->at(p->index_local()), p);
    EXPECT_EQ(p->state, peer_state::fresh);
    EXPECT_NE(table->epoch_local(p), 0u);
    EXPECT_FALSE(p->tx.can_send()); // the slow path adds the long header
    EXPECT_TRUE(p->tx.may_send());
    EXPECT_EQ(p->key >> 32, 0xffffffffu); // of no QPN and no address: it accepts nothing yet
}

TEST(srd_peer, at_out_of_range_is_null)
{
    auto table = std::make_unique<peer_table>(10, 1);

    EXPECT_EQ(table->at(0), nullptr);
    peer *p = table->create(gid_of(1), 7, 1, start);
    EXPECT_EQ(table->at(wire::index_make(1, 0)), nullptr);
    EXPECT_EQ(table->at(wire::index_none), nullptr);
    EXPECT_EQ(table->at(wire::index_make(wire::index_slot(p->index_local()), 99)), p); // the caller compares the key
}

TEST(srd_peer, find_ignores_a_failed_peer_and_find_failed_needs_its_epoch)
{
    auto table  = std::make_unique<peer_table>(10, 1);
    peer *old   = table->create(gid_of(1), 7, 1, start);
    old->epoch_remote = 55;
    old->state  = peer_state::failed;

    EXPECT_EQ(table->find(gid_of(1), 7, 1), nullptr);
    EXPECT_EQ(table->find_failed(gid_of(1), 7, 1, 55), old);
    EXPECT_EQ(table->find_failed(gid_of(1), 7, 1, 56), nullptr);
    peer *successor = table->create(gid_of(1), 7, 1, start);
    EXPECT_EQ(table->find(gid_of(1), 7, 1), successor); // PEE-1
    EXPECT_NE(table->epoch_local(successor), table->epoch_local(old));
    EXPECT_NE(successor->index_local(), old->index_local());
}

TEST(srd_peer, create_at_the_bound_returns_null)
{
    auto table = std::make_unique<peer_table>(2, 1);

    peer *a = table->create(gid_of(1), 1, 1, start);
    ASSERT_NE(a, nullptr);
    ASSERT_NE(table->create(gid_of(2), 1, 1, start), nullptr);
    EXPECT_EQ(table->create(gid_of(3), 1, 1, start), nullptr);
    table->release(a, start);
    EXPECT_EQ(table->live(), 1u);
    EXPECT_NE(table->create(gid_of(3), 1, 1, start), nullptr);
}

TEST(srd_peer, release_rests_a_slot_and_its_next_owner_has_another_generation)
{
    auto table = std::make_unique<peer_table>(1000, 1);
    peer *a    = table->create(gid_of(1), 1, 1, start);
    const auto index = a->index_local();

    table->release(a, start);
    EXPECT_EQ(table->find(gid_of(1), 1, 1), nullptr);
    EXPECT_FALSE(table->is_live(table->at(index)));
    peer *b = table->create(gid_of(1), 1, 1, start + limits::slot_quiet_ns - 1);
    EXPECT_NE(wire::index_slot(b->index_local()), wire::index_slot(index)); // still resting
    peer *c = table->create(gid_of(2), 1, 1, start + limits::slot_quiet_ns);
    EXPECT_EQ(wire::index_slot(c->index_local()), wire::index_slot(index));
    EXPECT_NE(c->index_local(), index); // PEE-3
}

TEST(srd_peer, churn_reuses_slots_and_keeps_memory_flat)
{
    auto table = std::make_unique<peer_table>(1000, 1);
    base::time_ns now = start;

    for (int i = 0; i < 100000; ++i) {
        peer *p = table->create(gid_of(1), static_cast<std::uint16_t>(i), 1, now);
        ASSERT_NE(p, nullptr);
        table->release(p, now);
        now += limits::slot_quiet_ns / 100;
    }
    EXPECT_LE(table->slots_used(), 102u);
    EXPECT_EQ(table->live(), 0u);
}

TEST(srd_peer, thousands_of_peers_keep_their_addresses)
{
    auto table = std::make_unique<peer_table>(5000, 1);
    std::vector<peer *> all;
    std::set<std::uint32_t> indices, epochs;

    for (unsigned i = 0; i < 3000; ++i) {
        all.push_back(table->create(gid_of(i % 100), static_cast<std::uint16_t>(i), i, start));
        ASSERT_NE(all.back(), nullptr);
        indices.insert(all.back()->index_local());
        epochs.insert(table->epoch_local(all.back()));
    }
    EXPECT_EQ(indices.size(), all.size());
    EXPECT_GT(epochs.size(), all.size() - 3); // random 32-bit numbers
    for (unsigned i = 0; i < all.size(); ++i) {
        ASSERT_EQ(table->find(gid_of(i % 100), static_cast<std::uint16_t>(i), i), all[i]); // PEE-2
        ASSERT_EQ(table->at(all[i]->index_local()), all[i]);
    }
}

TEST(srd_peer, slow_part_is_lent_only_while_it_holds_something)
{
    auto table = std::make_unique<peer_table>(1000, 1);
    peer *p    = table->create(gid_of(3), 7, 1, start);
    ah_entry handle{};
    handle.gid = gid_of(3);

    table->slow_put_idle(p);
    EXPECT_NE(p->slow, &peer_slow_idle); // it has the GID until there is a handle
    p->ah_ref = &handle;
    p->in_timers = true;
    table->slow_put_idle(p);
    EXPECT_NE(p->slow, &peer_slow_idle); // linked into the timers
    p->in_timers = false;
    table->slow_get(p)->rnr_since = 1;
    table->slow_put_idle(p);
    EXPECT_EQ(p->slow->rnr_since, 1u);
    table->slow_get(p)->rnr_since = 0;
    table->slow_put_idle(p);
    EXPECT_EQ(p->slow, &peer_slow_idle);
    EXPECT_EQ(table->find(gid_of(3), 7, 1), p); // by the handle's GID
    EXPECT_EQ(p->slow->nonce, 1u);
    table->release(p, start);
    EXPECT_EQ(table->find(gid_of(3), 7, 1), nullptr);
}

TEST(srd_peer, slow_parts_of_peers_that_went_quiet_are_used_again)
{
    auto table = std::make_unique<peer_table>(20000, 1);
    std::vector<ah_entry> handles(10000);

    for (unsigned i = 0; i < handles.size(); ++i) {
        handles[i].gid = gid_of(i);
        peer *p        = table->create(gid_of(i), 7, 1, start);
        ASSERT_NE(p, nullptr);
        p->ah_ref = &handles[i];
        table->slow_put_idle(p);
    }
    EXPECT_LE(table->memory(), handles.size() * 140); // what docs/performance.md says of a peer that was heard
}

TEST(srd_peer, work_list_is_first_in_first_out_and_survives_growth)
{
    auto table = std::make_unique<peer_table>(1000, 1);
    peer_table::work_list list;
    std::vector<peer *> all;

    EXPECT_EQ(table->work_pop(list), nullptr);
    for (unsigned i = 0; i < 300; ++i) { // several chunks
        all.push_back(table->create(gid_of(i), 7, 1, start));
        table->work_push(list, all.back());
    }
    for (peer *p : all) {
        ASSERT_EQ(table->work_pop(list), p);
    }
    EXPECT_TRUE(list.empty());
}
