/* When the helper thread looks on before it sleeps, and what it takes for polling. Waits are for conditions; where a time matters, the test sets it. */
#include "softefa/dev/child.h"
#include "softefa/dev/helper_state.h"

#include <unistd.h>

namespace {

using namespace nic;

constexpr base::time_ns soon = linger_rule::short_ns, late = linger_rule::short_ns + 1;

TEST(linger_rule, looks_on_after_short_sleeps_in_a_row)
{
    linger_rule l;
    EXPECT_FALSE(l.pays());
    l.slept(soon);
    EXPECT_FALSE(l.pays());
    l.slept(late);
    l.slept(soon);
    EXPECT_FALSE(l.pays()) << "a long one in between";
    l.slept(soon);
    EXPECT_TRUE(l.pays());
    l.slept(late);
    EXPECT_FALSE(l.pays());
}

TEST(linger_rule, wasted_look_asks_for_twice_as_many_short_sleeps)
{
    linger_rule l;
    unsigned    wanted = linger_rule::wanted_min;
    for (unsigned round = 0; round < 10; ++round) { // LNG-1
        for (unsigned n = 0; n < wanted; ++n) {
            EXPECT_FALSE(l.pays()) << round;
            l.slept(soon);
        }
        EXPECT_TRUE(l.pays()) << round;
        l.wasted();
        wanted = std::min(wanted * 2, linger_rule::wanted_max);
    }
    EXPECT_EQ(wanted, linger_rule::wanted_max);
}

TEST(linger_rule, look_that_finds_something_is_forgiven_all_that_were_wasted)
{
    linger_rule l;
    for (unsigned n = 0; n < 10; ++n)
        l.wasted();
    for (unsigned n = 0; n < linger_rule::wanted_max; ++n)
        l.slept(soon);
    ASSERT_TRUE(l.pays());
    l.found();
    l.slept(late);
    for (unsigned n = 0; n < linger_rule::wanted_min; ++n)
        l.slept(soon);
    EXPECT_TRUE(l.pays());
}

/// Many polls without a pause, as a program that does nothing else: what came between them counts. A helper that looks on may have lost the processor
/// with the lock taken, and then no poll counts: it gets the processor back, and the next polls come when it has gone on.
bool polls_in_earnest(const endpoint &e)
{
    return until([&] {
        for (unsigned n = 0; n < 1000; ++n) {
            const auto passes = engine().polls.load();
            engine_poll(e.scq.h);
            if (!engine().asleep.load())
                return true; // and a look is over with that, whatever comes next
            if (engine().polls.load() == passes)
                break;
        }
        usleep(50);
        return false;
    });
}

enum class order : std::uint32_t { sleep = 1, wakes, poll, leave };

/// Offers memory, and does what it is told. It polls only on that order.
int target(pipe_end io, linger_rule how)
{
    helper.lingers = how; // before the thread is there
    endpoint e(1 << 20);
    address  peer;
    if (!io.swap(address_of(e), &peer))
        return 2;
    for (order told{}; io.get(&told);) {
        bool good = true;
        switch (told) {
        case order::sleep: good = until(helper_sleeps); break;
        case order::wakes: break;
        case order::poll: good = polls_in_earnest(e); break;
        case order::leave: return 0;
        }
        if (!good || !io.put(helper.wakes.load()))
            return 3;
    }
    return 4;
}

class lingering : public device_test {
protected:
    void SetUp() override
    {
        device_test::SetUp();
        wanted.snapshot_ns = base::sec(3600); // nothing but a wake-up wakes the helper
        use();
    }
    /// Wake-ups of the target so far, once it has done that.
    static std::uint64_t tell(child &other, order what)
    {
        std::uint64_t wakes = ~0ull;
        EXPECT_TRUE(other.end.put(what) && other.end.get(&wakes));
        return wakes;
    }
    /// RDMA writes, one after another.
    static unsigned write(endpoint &e, const address &peer, std::uint32_t size, unsigned count)
    {
        unsigned good = 0;
        for (unsigned n = 0; n < count; ++n) {
            e.qp.post(e.qp.rdma(2, 1, e.ah, peer.qpn, e.slice(0, size), peer.memory, peer.rkey));
            const auto done = e.scq.wait();
            good += done && done->status == 0;
        }
        return good;
    }
};

TEST_F(lingering, one_wake_up_does_for_writes_one_after_another)
{
    child    other([](pipe_end io) { return target(io, linger_rule::endless()); });
    endpoint e(1 << 20);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    ASSERT_EQ(write(e, peer, 8, 1), 1u) << "connects";
    // The look begun by that has no end: it is ended by polls, and no look follows what was not a wake-up.
    tell(other, order::poll);
    const auto asleep = tell(other, order::sleep);
    ASSERT_EQ(write(e, peer, 64 * 1024, 1), 1u);
    const auto woken = tell(other, order::wakes);
    EXPECT_EQ(woken, asleep + 1);
    for (const std::uint32_t size : {8u, 64u * 1024, 1u << 20})
        EXPECT_EQ(write(e, peer, size, 20), 20u) << size;
    EXPECT_EQ(tell(other, order::wakes), woken);
    tell(other, order::poll); // ends the look, or it never says so
    tell(other, order::sleep);
    ASSERT_EQ(write(e, peer, 8, 1), 1u) << "and it is woken again";
    ASSERT_TRUE(other.end.put(order::leave)); // ends the look as well
    EXPECT_EQ(other.reap(), 0);
}

/// Else its helper thread would be woken late: it used up its share of the processor by looking. Every offer counts as accepted here.
TEST_F(lingering, nobody_looks_on_while_others_want_the_processor)
{
    child other([](pipe_end io) {
        linger_rule how = linger_rule::endless();
        how.crowded_ns  = 0;
        return target(io, how);
    });
    endpoint e(1 << 20);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    ASSERT_EQ(write(e, peer, 8, 1), 1u) << "connects";
    for (unsigned round = 0; round < 5; ++round) {
        const auto asleep = tell(other, order::sleep);
        ASSERT_EQ(write(e, peer, 64 * 1024, 1), 1u);
        EXPECT_EQ(tell(other, order::sleep), asleep + 1);
    }
    ASSERT_TRUE(other.end.put(order::leave));
    EXPECT_EQ(other.reap(), 0);
}

TEST_F(lingering, who_has_nothing_more_to_do_sleeps)
{
    child    other([](pipe_end io) { return target(io, {}); });
    endpoint e(1 << 20);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    for (unsigned round = 0; round < 5; ++round) {
        EXPECT_EQ(write(e, peer, 64 * 1024, 50), 50u);
        tell(other, order::sleep);
    }
    ASSERT_TRUE(other.end.put(order::leave));
    EXPECT_EQ(other.reap(), 0);
}

/// A program that polls when poll() or a like call has come back after its millisecond: an MPI barrier over sockets, for one.
TEST_F(lingering, program_that_polls_now_and_then_counts_as_asleep)
{
    endpoint e(4096);
    ASSERT_TRUE(until([&] {
        usleep(1500);
        engine_poll(e.scq.h);
        return engine().asleep.load();
    }));
    unsigned awake = 0;
    for (unsigned n = 0; n < 200; ++n) {
        usleep(1500); // what such a program does: nothing waits for it
        engine_poll(e.scq.h);
        awake += !engine().asleep.load();
    }
    EXPECT_EQ(awake, 0u);
    EXPECT_TRUE(polls_in_earnest(e)) << "and one that polls all the time does not";
}

} // namespace
