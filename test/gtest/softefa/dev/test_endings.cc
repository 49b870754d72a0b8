// How a process ends that nobody kills: it becomes another program, it exits in the middle of its traffic, from any of its threads.
#include "child.h"

#include <atomic>
#include <sched.h>
#include <stdio_ext.h>
#include <thread>

namespace {

using namespace nic;

class endings : public device_test {};

/// Sends and receives without end; `leave` is asked after each step, with the number of work requests that succeeded.
void traffic(endpoint &e, const address &peer, const std::function<bool(unsigned)> &leave)
{
    unsigned outstanding = 0, succeeded = 0;
    for (std::uint16_t i = 0; i < 32; ++i)
        e.qp.post_recv(i, {e.slice(i * 256u, 256)});
    while (!leave(succeeded)) {
        if (outstanding < 16) {
            e.qp.post(outstanding % 2 != 0 ? e.qp.send(1, e.ah, peer.qpn, {e.slice(1 << 15, 200)})
                                           : e.qp.rdma(2, 2, e.ah, peer.qpn, e.slice(1 << 15, 20'000), peer.memory + (1 << 15), peer.rkey));
            ++outstanding;
        }
        while (auto got = e.rcq.poll())
            e.qp.post_recv(got->req_id, {e.slice(got->req_id * 256u, 256)});
        while (auto done = e.scq.take()) {
            --outstanding;
            succeeded += done->status == 0;
        }
        sched_yield(); // outside of the engine: the helper's turn where threads take turns (valgrind)
    }
}

/// The survivor's side: traffic until the other one is no more, all of its work ends, and the next process is served.
void outlive(const std::function<void(endpoint &, const address &)> &end)
{
    const auto body = [&](pipe_end io) {
        address  peer;
        endpoint e;
        if (!io.put(address_of(e)) || !io.get(&peer))
            return 1;
        end(e, peer);
        return 2; // it was to end itself
    };
    child    first(body), second(body);
    endpoint e;
    for (child *other : {&first, &second}) {
        address peer;
        ASSERT_TRUE(other->end.swap(address_of(e), &peer));
        const auto limit = base::clock_now_ns() + base::ms(generous_ms);
        const auto gone  = peers_gone();
        traffic(e, peer, [&](unsigned) { return peers_gone() > gone || base::clock_now_ns() > limit; });
        ASSERT_GT(peers_gone(), gone) << "its end was not noticed";
        EXPECT_EQ(other->reap(), 0);
        // Everything ends: what is flushed here, and what is posted now.
        e.qp.post(e.qp.send_inline(77, e.ah, peer.qpn, "to nobody"));
        ASSERT_TRUE(until([&] {
            auto done = e.scq.poll();
            return done && done->req_id == 77;
        }));
        ASSERT_EQ(e.qp.to(qp_state::reset), base::status::ok);
        e.qp.sq_posted = e.qp.rq_posted = 0;
        while (e.scq.poll() || e.rcq.poll()) {
        }
        e.qp.connect();
    }
}

TEST_F(endings, peer_that_becomes_another_program_is_gone)
{
    outlive([](endpoint &e, const address &peer) {
        traffic(e, peer, [](unsigned succeeded) { return succeeded > 300; });
        execl("/bin/true", "true", nullptr); // the process and its pidfd live on for a moment
    });
}

TEST_F(endings, peer_that_exits_in_the_middle_of_its_traffic_is_gone)
{
    outlive([](endpoint &e, const address &peer) {
        __fpurge(stdout); // what the parent had not written yet is not for this one to write
        traffic(e, peer, [](unsigned succeeded) { return succeeded > 300; });
        std::exit(0);
    });
}

TEST_F(endings, peer_whose_other_thread_exits_is_gone)
{
    outlive([](endpoint &e, const address &peer) {
        __fpurge(stdout);
        std::atomic<bool> enough = false;
        std::thread([&] {
            while (!enough)
                std::this_thread::yield();
            std::exit(0);
        }).detach();
        traffic(e, peer, [&](unsigned succeeded) { return enough = succeeded > 300, false; });
    });
}

} // namespace
