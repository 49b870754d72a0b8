/* Commands beside threads that poll: who leaves the lock to whom, counted in polls, never in time. */
#include "softefa/dev/child.h"

#include <atomic>
#include <sched.h>
#include <thread>
#include <vector>

namespace {

using namespace nic;
using softefa::dev::limits::polls_per_pass;

class waiters : public device_test {
protected:
    static std::uint64_t passes() { return engine().polls.load(); }
    /// As a command does that found the lock held. The helper may be one, too, for a moment.
    struct announced {
        announced() { engine().waiters.fetch_add(1); }
        ~announced() { engine().waiters.fetch_sub(1); }
    };
};

TEST_F(waiters, polls_leave_the_lock_to_a_waiter)
{
    endpoint       e(4096);
    constexpr auto rounds = 20u;
    const auto     before = passes();
    {
        const announced waiter;
        for (unsigned n = 0; n < rounds * polls_per_pass; ++n)
            engine_poll(e.scq.h);
    }
    EXPECT_LE(passes() - before, rounds);
    const auto after = passes();
    EXPECT_TRUE(until([&] { engine_poll(e.scq.h); return passes() > after; }));
}

TEST_F(waiters, polls_go_on_beside_a_waiter_that_never_runs)
{
    endpoint        e(4096);
    const announced waiter;
    e.qp.post_recv(1, {e.slice(0, 64)});
    e.qp.post(e.qp.send_inline(2, e.ah, e.qp.qpn, "to myself"));
    EXPECT_TRUE(e.rcq.wait());
    EXPECT_TRUE(e.scq.wait());
}

TEST_F(waiters, command_that_finds_the_lock_held_counts_until_it_has_it)
{
    endpoint e(4096);
    ASSERT_TRUE(until([] { return engine_try_lock(); }));
    std::atomic<bool> in{false}, out{false};
    std::thread       command([&] {
        const engine_guard guard;
        in = true;
        while (!out)
            sched_yield();
    });
    EXPECT_TRUE(until([] { return engine().waiters.load() != 0; }));
    EXPECT_FALSE(in);
    engine_unlock();
    EXPECT_TRUE(until([&] { return in.load(); }));
    out = true;
    command.join();
    EXPECT_TRUE(until([] { return engine().waiters.load() == 0; }));
}

TEST_F(waiters, commands_end_beside_many_threads_that_poll)
{
    endpoint                 e(4096);
    std::atomic<bool>        over{false};
    std::vector<std::thread> pollers;
    for (unsigned n = 0; n < 8; ++n)
        pollers.emplace_back([&] {
            while (!over)
                engine_poll(e.scq.h);
        });
    for (unsigned n = 0; n < 50; ++n) {
        const auto at = reinterpret_cast<std::uint64_t>(e.memory.data());
        auto       m  = mr_register(e.pd, at, 4096, at, local_write);
        EXPECT_TRUE(m && mr_deregister(m->mr) == base::status::ok);
    }
    over = true;
    for (auto &t : pollers)
        t.join();
}

} // namespace
