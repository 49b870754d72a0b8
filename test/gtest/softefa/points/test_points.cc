/* A process that ends, or stops, at each marked point of what it shares with another one. */
#include "softefa/dev/child.h"
#include "softefa/fabric/points.h"

#include <algorithm>

namespace {

using namespace nic;
using softefa::fabric::point;

constexpr const char *names[] = {"payload_written", "next_cleared", "header_written", "committed", "pad_committed", "record_claimed",
                                 "payload_placed", "receive_completed", "acknowledged", "positions_half", "positions_given_back",
                                 "write_chunk_placed", "read_chunk_copied", "send_completed", "before_wake", "woken", "hello_sent",
                                 "welcome_sent", "link_up"};
static_assert(std::size(names) == static_cast<std::size_t>(point::count), "every marked point is enumerated");

constexpr std::size_t bytes = 1 << 20;

/// All kinds of work in both directions, until told otherwise: every point is passed.
struct traffic {
    endpoint  &e;
    address    peer;
    base::rng  random;
    unsigned   outstanding = 0;
    bool       posts = true, dozes = false;
    unsigned   steps = 0;
    std::size_t ok = 0, failed = 0;

    void prime()
    {
        for (std::uint16_t i = 0; i < 32; ++i)
            e.qp.post_recv(i, {e.slice(i * 1024u, 1024)});
    }
    void post()
    {
        const std::uint32_t size = 1 + random.below(1000);
        switch (random.below(6)) {
        case 0: e.qp.post(e.qp.rdma(1, 2, e.ah, peer.qpn, e.slice(1 << 18, 40'000 + size), peer.memory + (1 << 19), peer.rkey)); break;
        case 1: e.qp.post(e.qp.rdma(2, 3, e.ah, peer.qpn, e.slice(1 << 18, 40'000 + size), peer.memory + (1 << 19), peer.rkey)); break;
        default: e.qp.post(e.qp.send(1, e.ah, peer.qpn, {e.slice(1 << 17, size)})); break;
        }
        ++outstanding;
    }
    void step()
    {
        // Who polls all the time is never asleep, and nobody needs to wake it. Its helper looks every 4 ms at most (helper.cc).
        if (dozes && ++steps % 64 == 0)
            usleep(12'000);
        if (posts && outstanding < 24)
            post();
        while (auto got = e.rcq.poll())
            e.qp.post_recv(got->req_id, {e.slice(got->req_id * 1024u, 1024)});
        while (auto done = e.scq.take()) {
            ++(done->status == 0 ? ok : failed);
            --outstanding;
        }
    }
};

int victim(pipe_end io, point armed, std::uint32_t passes, int signal)
{
    endpoint e(bytes);
    address  peer;
    softefa::fabric::point_arm(armed, passes, signal); // before anybody can connect
    if (!io.swap(address_of(e), &peer))
        return 2;
    traffic t{e, peer, base::rng(2)};
    t.prime();
    t.posts = armed != point::welcome_sent; // only who is connected to says welcome
    const auto end = base::clock_now_ns() + base::sec(120);
    for (unsigned n = 0; base::clock_now_ns() < end; ++n) {
        t.step();
        if (n % 512 == 511)
            usleep(300); // the other side gets the processor
    }
    return 0; // the point was not passed
}

class points : public device_test, public testing::WithParamInterface<unsigned> {
protected:
    void SetUp() override
    {
        device_test::SetUp();
        wanted.rnr_timer_us = 20;
        use();
    }
};

TEST_P(points, killed_there_leaves_the_survivor_working)
{
    const auto     armed  = static_cast<point>(GetParam());
    const bool     rare   = armed == point::hello_sent || armed == point::welcome_sent || armed == point::link_up;
    constexpr unsigned cycles = 2;
    std::vector<std::unique_ptr<child>> victims;
    for (unsigned i = 0; i < cycles; ++i)
        victims.push_back(std::make_unique<child>([&, i](pipe_end io) {
            std::uint32_t word;
            return io.get(&word) ? victim(io, armed, rare ? 1 : 1 + 7 * i, SIGKILL) : 1;
        }));
    child healthy([](pipe_end io) {
        std::uint32_t word;
        return io.get(&word) ? victim(io, point::count, 0, 0) : 1;
    });
    endpoint e(bytes);
    traffic  t{e, {}, base::rng(3)};
    t.dozes = armed == point::before_wake || armed == point::woken;
    t.prime();
    for (unsigned i = 0; i < cycles; ++i) {
        t.posts = armed != point::hello_sent; // only who connects says hello
        victims[i]->end.put_word(1);
        ASSERT_TRUE(victims[i]->end.swap(address_of(e), &t.peer));
        ASSERT_TRUE(until([&] {
            t.step();
            int state = 0;
            const pid_t gone = waitpid(victims[i]->pid, &state, WNOHANG);
            if (gone == victims[i]->pid) {
                victims[i]->pid = -1;
                EXPECT_TRUE(WIFSIGNALED(state) && WTERMSIG(state) == SIGKILL) << "the point was not passed: " << state;
            }
            return gone != 0;
        })) << "cycle " << i;
        t.posts = false;
        ASSERT_TRUE(until([&] { t.step(); return t.outstanding == 0; })) << t.outstanding << " never ended, cycle " << i;
    }
    healthy.end.put_word(1);
    ASSERT_TRUE(healthy.end.swap(address_of(e), &t.peer));
    t.posts = true;
    t.dozes = false;
    t.ok = t.failed = 0;
    ASSERT_TRUE(until([&] { t.step(); return t.ok > 200; }));
    EXPECT_EQ(t.failed, 0u);
}

INSTANTIATE_TEST_SUITE_P(each, points, testing::Range(0u, static_cast<unsigned>(point::count)),
                         [](const testing::TestParamInfo<unsigned> &p) { return names[p.param]; });

/// The receiver stops at a point and is given up. What ended with 13 never lands, what landed never ends with 13.
class cut_points : public points {};

std::uint64_t receive_until_told(pipe_end io, endpoint &e)
{
    std::uint64_t landed = 0;
    pollfd        p{io.fd, POLLIN, 0};
    auto          note = [&](const std::optional<cqe> &got) {
        const std::uint64_t bit = got ? std::uint64_t{1} << e.memory[got->req_id * 64u] : 0;
        EXPECT_EQ(landed & bit, 0u) << "twice";
        landed |= bit;
        return bit != 0;
    };
    while (::poll(&p, 1, 0) == 0)
        note(e.rcq.poll());
    while (note(e.rcq.wait(50))) {
    }
    return landed;
}

/// False: the receiver was given up before it came to its point. It did not get the processor for as long as a peer may be silent.
bool stop_and_give_up(point where)
{
    constexpr unsigned total = 24, once_more = 40;
    const bool         once_a_pass = where == point::positions_half || where == point::positions_given_back;
    child other([&](pipe_end io) {
        endpoint e(bytes);
        address  peer;
        for (std::uint16_t i = 0; i < 64; ++i)
            e.qp.post_recv(i, {e.slice(i * 64u, 64)});
        softefa::fabric::point_arm(where, once_a_pass ? 1 : 5, SIGSTOP);
        if (!io.swap(address_of(e), &peer))
            return 2;
        return io.put(receive_until_told(io, e)) && !testing::Test::HasFailure() ? 0 : 4;
    });
    endpoint e(bytes);
    address  peer;
    EXPECT_TRUE(other.end.swap(address_of(e), &peer));
    std::vector<int> status(64, -1);
    unsigned         ended = 0, given_up = 0;
    auto             collect = [&] {
        while (auto done = e.scq.poll()) {
            EXPECT_EQ(status[done->req_id], -1);
            status[done->req_id] = done->status;
            given_up += done->status != 0;
            ++ended;
        }
        return ended;
    };
    for (std::uint16_t i = 0; i < total; ++i)
        e.qp.post(e.qp.send_inline(i, e.ah, peer.qpn, std::string(1, static_cast<char>(i))));
    int state = 0;
    bool stopped = false;
    EXPECT_TRUE(until([&] {
        collect();
        stopped = waitpid(other.pid, &state, WUNTRACED | WNOHANG) == other.pid;
        return stopped || given_up != 0;
    }));
    if (!stopped)
        return false;
    EXPECT_TRUE(WIFSTOPPED(state)) << state;
    // Posted while it is stopped: nothing of these has begun.
    for (std::uint16_t i = total; i < total + 4; ++i)
        e.qp.post(e.qp.send_inline(i, e.ah, peer.qpn, std::string(1, static_cast<char>(i))));
    EXPECT_TRUE(until([&] { collect(); return std::count(&status[total], &status[total + 4], -1) == 0; })) << "a stopped peer must not hold what it has not begun";
    for (unsigned i = total; i < total + 4; ++i)
        EXPECT_EQ(status[i], 13) << i;
    other.kill(SIGCONT);
    EXPECT_TRUE(until([&] { return collect() == total + 4; })) << ended;
    // It is reached again, over a new connection.
    EXPECT_TRUE(until([&] {
        status[once_more] = -1;
        e.qp.post(e.qp.send_inline(once_more, e.ah, peer.qpn, std::string(1, static_cast<char>(once_more))));
        return until([&] { collect(); return status[once_more] != -1; }) && status[once_more] == 0;
    }));
    other.end.put_word(1);
    std::uint64_t landed = 0;
    EXPECT_TRUE(other.end.get(&landed));
    for (unsigned i = 0; i < 64; ++i)
        EXPECT_EQ((landed >> i & 1) != 0, status[i] == 0) << "message " << i << " ended with " << status[i];
    EXPECT_EQ(other.reap(), 0);
    return true;
}

TEST_P(cut_points, stopped_there_and_given_up_is_exact)
{
    wanted.unresponsive_ns = 200'000'000;
    use();
    bool stopped = false;
    for (unsigned tries = 0; tries < 20 && !stopped && !HasFailure(); ++tries)
        stopped = stop_and_give_up(static_cast<point>(GetParam()));
    EXPECT_TRUE(stopped) << "the point was not passed";
}

INSTANTIATE_TEST_SUITE_P(each, cut_points,
                         testing::Values(static_cast<unsigned>(point::record_claimed), static_cast<unsigned>(point::payload_placed),
                                         static_cast<unsigned>(point::receive_completed), static_cast<unsigned>(point::acknowledged),
                                         static_cast<unsigned>(point::positions_half), static_cast<unsigned>(point::positions_given_back)),
                         [](const testing::TestParamInfo<unsigned> &p) { return names[p.param]; });

} // namespace
