/* A process that ends, or stops, at each marked point of what it shares with another one. */
#include "softefa/dev/child.h"
#include "softefa/fabric/points.h"

#include <algorithm>
#include <atomic>
#include <thread>

namespace {

using namespace nic;
using softefa::fabric::point;

constexpr const char *names[] = {"payload_written", "next_cleared", "header_written", "committed", "pad_committed", "record_claimed",
                                 "payload_placed", "receive_completed", "acknowledged", "positions_half", "positions_given_back",
                                 "write_chunk_placed", "read_chunk_copied", "window_lent", "grant_given", "copied_once", "send_completed", "before_wake", "woken", "hello_sent",
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
        const std::uint32_t size = 1 + random.below(1000), rdma = random.below(2) != 0 ? 20'000 + size : 100'000 + size; // two copies, and one
        switch (random.below(6)) {
        case 0: e.qp.post(e.qp.rdma(1, 2, e.ah, peer.qpn, e.slice(1 << 18, rdma), peer.memory + (1 << 19), peer.rkey)); break;
        case 1: e.qp.post(e.qp.rdma(2, 3, e.ah, peer.qpn, e.slice(1 << 18, rdma), peer.memory + (1 << 19), peer.rkey)); break;
        default: e.qp.post(e.qp.send(1, e.ah, peer.qpn, {e.slice(1 << 17, size)})); break;
        }
        ++outstanding;
    }
    void step()
    {
        // Who polls all the time is never asleep, and nobody needs to wake it. Its helper looks every 4 ms at most (helper_loop.cc).
        if (++steps % 64 == 0 && dozes)
            usleep(12'000);
        if (steps % yield_steps == 0)
            sched_yield();
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
    static void victims_killed(point armed);
};

TEST_P(points, killed_there_leaves_the_survivor_working) { victims_killed(static_cast<point>(GetParam())); }

void points::victims_killed(point armed)
{
    const bool     rare   = armed == point::hello_sent || armed == point::welcome_sent || armed == point::link_up || armed == point::grant_given; // it is kept
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

/// The same where all RDMA goes through the ring, in several records.
class points_of_two_copies : public points {
protected:
    void SetUp() override
    {
        wanted.single_copy = 0;
        points::SetUp();
    }
};

TEST_P(points_of_two_copies, killed_there_leaves_the_survivor_working) { victims_killed(static_cast<point>(GetParam())); }

INSTANTIATE_TEST_SUITE_P(each, points_of_two_copies,
                         testing::Values(static_cast<unsigned>(point::header_written), static_cast<unsigned>(point::record_claimed),
                                         static_cast<unsigned>(point::positions_half), static_cast<unsigned>(point::write_chunk_placed),
                                         static_cast<unsigned>(point::read_chunk_copied)),
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
        EXPECT_TRUE(status[i] == 13 || status[i] == 15) << i << ": " << status[i]; // 15: it was given up just before
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

/// One copy by a process that stops behind it, before it has looked whether the memory was still lent.
class stopped_copies : public device_test {
protected:
    static constexpr std::uint32_t size = 700'001; // two pieces
    static constexpr std::uint8_t  lent = 0x5a, given_up = 0xee;

    void SetUp() override
    {
        device_test::SetUp();
        wanted.single_copy = 1;
        use();
    }
    static void wait_stopped(child &who)
    {
        int state = 0;
        ASSERT_EQ(waitpid(who.pid, &state, WUNTRACED), who.pid);
        ASSERT_TRUE(WIFSTOPPED(state)) << state;
    }

    /// All memory of `e` is lent to a reader, which then stands still.
    static void lend(endpoint &e, child &reader)
    {
        address peer;
        std::fill(e.memory.begin(), e.memory.end(), lent);
        ASSERT_TRUE(reader.end.swap(address_of(e), &peer));
        wait_stopped(reader);
    }

    /// Reads from us and stops behind its first piece; then says how that ended and how many bytes it got that were not lent.
    static int reader(pipe_end io)
    {
        endpoint e(bytes);
        address  peer;
        if (!io.swap(address_of(e), &peer))
            return 2;
        softefa::fabric::point_arm(point::copied_once, 1, SIGSTOP);
        e.qp.post(e.qp.rdma(1, 1, e.ah, peer.qpn, e.slice(3, size), peer.memory, peer.rkey));
        const auto done = e.scq.wait();
        const auto bad  = std::count(e.memory.begin() + 3, e.memory.begin() + 3 + size, lent);
        return done && io.put_word(done->status) && io.put_word(static_cast<std::uint32_t>(bad)) ? 0 : 3;
    }
};

TEST_F(stopped_copies, read_that_was_not_disturbed_succeeds)
{
    const std::uint64_t before = counted().served_read_bytes;
    child    other(reader);
    endpoint e(bytes);
    lend(e, other);
    other.kill(SIGCONT);
    EXPECT_TRUE(other.end.wait_word(0));
    EXPECT_TRUE(other.end.wait_word(size)) << "bytes as they were";
    EXPECT_EQ(other.reap(), 0);
    EXPECT_EQ(counted().served_read_bytes - before, size);
}

TEST_F(stopped_copies, deregistration_neither_waits_for_a_reader_nor_lets_it_succeed)
{
    child    other(reader);
    endpoint e(bytes);
    lend(e, other);
    EXPECT_EQ(mr_deregister(e.mr), base::status::ok); // it stands still
    std::fill(e.memory.begin(), e.memory.end(), given_up);
    other.kill(SIGCONT);
    EXPECT_TRUE(other.end.wait_word(7)) << "as a read that came after the deregistration";
    std::uint32_t ignored;
    EXPECT_TRUE(other.end.get(&ignored));
    EXPECT_EQ(other.reap(), 0);
}

/// The same for a read that asks nobody: it stops behind the copy, and the owner takes back what its grant stood on.
enum class withdrawn { nothing, memory, queue_pair, state, address, process };
constexpr const char *withdrawn_names[] = {"nothing", "memory", "queue_pair", "state", "address", "process"};
class stopped_kept_copies : public stopped_copies, public testing::WithParamInterface<withdrawn> {
protected:
    static int reader_that_keeps(pipe_end io)
    {
        endpoint e(bytes);
        address  peer;
        if (!io.swap(address_of(e), &peer))
            return 2;
        const auto read = [&] {
            e.qp.post(e.qp.rdma(1, 1, e.ah, peer.qpn, e.slice(3, size), peer.memory, peer.rkey));
            const auto done = e.scq.wait();
            return done ? done->status : 99u;
        };
        if (read() != 0)
            return 4;
        const std::uint64_t before = counted().single_copy_unasked;
        softefa::fabric::point_arm(point::copied_once, 2, SIGSTOP); // the last piece
        const std::uint32_t status  = read();
        const std::uint64_t unasked = counted().single_copy_unasked - before;
        return io.put_word(status) && io.put_word(static_cast<std::uint32_t>(unasked)) ? 0 : 3;
    }
};

TEST_P(stopped_kept_copies, what_was_withdrawn_is_never_read_with_success)
{
    const bool          dies = GetParam() == withdrawn::process;
    std::optional<child> owner;
    child               other(reader_that_keeps);
    address             peer;
    std::uint32_t       status = 0;
    const auto          judge  = [&](std::initializer_list<std::uint32_t> wanted_statuses) {
        other.kill(SIGCONT);
        EXPECT_TRUE(other.end.get(&status));
        EXPECT_TRUE(std::find(wanted_statuses.begin(), wanted_statuses.end(), status) != wanted_statuses.end()) << status;
        EXPECT_TRUE(other.end.wait_word(GetParam() == withdrawn::nothing ? size : 0)) << "as a read that came later";
        EXPECT_EQ(other.reap(), 0);
    };
    if (dies) {
        owner.emplace([](pipe_end io) {
            endpoint      e(bytes);
            address       reader_at;
            std::uint32_t word;
            return io.swap(address_of(e), &reader_at) && io.get(&word) ? 0 : 2;
        });
        address mine{};
        ASSERT_TRUE(owner->end.get(&mine) && other.end.get(&peer) && owner->end.put(peer) && other.end.put(mine));
        wait_stopped(other);
        owner->kill(SIGKILL);
        EXPECT_EQ(owner->reap(), -SIGKILL);
        judge({8, 9});
        return;
    }
    endpoint e(bytes);
    lend(e, other);
    switch (GetParam()) {
    case withdrawn::memory: EXPECT_EQ(mr_deregister(e.mr), base::status::ok); break;
    case withdrawn::queue_pair: EXPECT_EQ(qp_destroy(e.qp.h), base::status::ok); break;
    case withdrawn::state: EXPECT_EQ(e.qp.to(qp_state::error), base::status::ok); break;
    case withdrawn::address: EXPECT_EQ(ah_destroy(e.ah_handle), base::status::ok); break;
    default: break;
    }
    if (GetParam() != withdrawn::nothing)
        std::fill(e.memory.begin(), e.memory.end(), given_up);
    switch (GetParam()) {
    case withdrawn::nothing: judge({0}); break;
    case withdrawn::memory: judge({7}); break;
    case withdrawn::address: judge({14}); break;
    default: judge({9}); break;
    }
}

INSTANTIATE_TEST_SUITE_P(each, stopped_kept_copies,
                         testing::Values(withdrawn::nothing, withdrawn::memory, withdrawn::queue_pair, withdrawn::state, withdrawn::address, withdrawn::process),
                         [](const testing::TestParamInfo<withdrawn> &p) { return withdrawn_names[static_cast<unsigned>(p.param)]; });

/// The target stops behind the first piece of a write with immediate; meanwhile the initiator takes its memory back.
enum class taken_back { by_nothing, by_deregistration, by_queue_pair };
class stopped_targets : public stopped_copies, public testing::WithParamInterface<taken_back> {};

TEST_P(stopped_targets, what_was_taken_back_is_never_delivered)
{
    child other([](pipe_end io) {
        endpoint e(bytes);
        address  peer;
        e.qp.post_recv(1, {e.slice(0, 1)});
        softefa::fabric::point_arm(point::copied_once, 1, SIGSTOP);
        if (!io.swap(address_of(e), &peer))
            return 2;
        std::uint32_t word;
        pollfd        told{io.fd, POLLIN, 0};
        unsigned      received = 0;
        while (::poll(&told, 1, 0) == 0)
            received += static_cast<bool>(e.rcq.poll());
        while (e.rcq.poll_surely()) // nothing is left that could still come
            ++received;
        const auto right = received != 0 ? std::count(e.memory.begin() + 5, e.memory.begin() + 5 + size, lent) : 0;
        return io.get(&word) && io.put_word(received) && io.put_word(static_cast<std::uint32_t>(right)) ? 0 : 3;
    });
    endpoint e(bytes);
    address  peer;
    std::fill(e.memory.begin(), e.memory.end(), lent);
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    ASSERT_TRUE(peer_copies_from_us(e, peer));
    e.qp.post(queue_pair::with_imm(e.qp.rdma(2, 1, e.ah, peer.qpn, e.slice(1, size), peer.memory + 5, peer.rkey), 77));
    wait_stopped(other);
    const std::uint64_t stale_before = counted().drop_stale;
    switch (GetParam()) {
    case taken_back::by_nothing: break;
    case taken_back::by_deregistration: EXPECT_EQ(mr_deregister(e.mr), base::status::ok); break;
    case taken_back::by_queue_pair: EXPECT_EQ(qp_destroy(e.qp.h), base::status::ok); break;
    }
    if (GetParam() != taken_back::by_nothing)
        std::fill(e.memory.begin(), e.memory.end(), given_up);
    other.kill(SIGCONT);
    if (GetParam() != taken_back::by_queue_pair) {
        const auto done = e.scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, GetParam() == taken_back::by_nothing ? 0 : 5);
    } else {
        ASSERT_TRUE(until([&] { // its answer to the dead operation
            e.scq.poll();
            return counted().drop_stale != stale_before;
        }));
        EXPECT_FALSE(e.scq.poll_surely());
    }
    other.end.put_word(1);
    EXPECT_TRUE(other.end.wait_word(GetParam() == taken_back::by_nothing ? 1 : 0)) << "receives completed";
    EXPECT_TRUE(other.end.wait_word(GetParam() == taken_back::by_nothing ? size : 0));
    EXPECT_EQ(other.reap(), 0);
}

INSTANTIATE_TEST_SUITE_P(each, stopped_targets,
                         testing::Values(taken_back::by_nothing, taken_back::by_deregistration, taken_back::by_queue_pair),
                         [](const testing::TestParamInfo<taken_back> &p) {
                             return p.param == taken_back::by_nothing ? "by_nothing" : p.param == taken_back::by_deregistration ? "by_deregistration" : "by_queue_pair";
                         });

/// Who stops with its writes outstanding holds nobody up: the bytes are taken from it as it stands.
TEST_F(stopped_copies, stopped_initiator_is_copied_from)
{
    child other([](pipe_end io) {
        endpoint e(bytes);
        address  peer;
        std::fill(e.memory.begin(), e.memory.end(), lent);
        if (!io.swap(address_of(e), &peer))
            return 2;
        if (!peer_copies_from_us(e, peer))
            return 102;
        softefa::fabric::point_arm(point::window_lent, 2, SIGSTOP);
        e.qp.post(e.qp.rdma(2, 1, e.ah, peer.qpn, e.slice(3, size), peer.memory, peer.rkey));
        const auto done = e.scq.wait();
        return done ? done->status : 100;
    });
    endpoint            e(bytes);
    address             peer;
    const std::uint64_t served_before = counted().served_write_ops;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    wait_stopped(other);
    ASSERT_TRUE(until([&] { e.rcq.poll(); return counted().served_write_ops != served_before; }));
    EXPECT_EQ(std::count(e.memory.begin(), e.memory.begin() + size, lent), size);
    EXPECT_EQ(std::count(e.memory.begin() + size, e.memory.end(), lent), 0);
    other.kill(SIGCONT);
    EXPECT_EQ(other.reap(), 0);
}

/// ENG-1, with threads that leave work to the holder of the engine.
class combining : public device_test {
protected:
    static std::uint16_t fetched(const queue_pair &q) { return objects().qps.find(q.h)->sq_consumed; }
    /// Posts from another thread, to the process itself.
    static void post_elsewhere(endpoint &e, queue_pair &from)
    {
        std::thread([&] { from.post(from.send_inline(1, e.ah, e.qp.qpn, "x")); }).join();
    }
    inline static endpoint          *one   = nullptr;
    inline static queue_pair        *other = nullptr;
    inline static std::atomic<bool>  left{false};      ///< in the pass
    inline static std::atomic<pid_t> served_by{0};     ///< thread that took what was left
};

/// Left behind the pass's look at doorbells: the holder took the mark back before that look, so the new one stands.
TEST_F(combining, work_left_during_the_holder_s_pass_is_done_by_the_holder)
{
    endpoint   e;
    queue_pair second;
    ASSERT_TRUE(second.open(e.at, e.pd, e.scq.h, e.rcq.h));
    second.connect();
    one   = &e;
    other = &second;
    bool by_holder = false;
    for (unsigned tries = 0; tries < 50 && !by_holder; ++tries) { // the helper may be faster by a hair: then it is the holder
        left      = false;
        served_by = 0;
        for (std::uint16_t i = 0; i < 2; ++i)
            e.qp.post_recv(i, {e.slice(i * 64u, 64)});
        {
            const engine_guard guard;
            const auto         before = fetched(e.qp);
            post_elsewhere(e, e.qp);
            EXPECT_EQ(fetched(e.qp), before) << "the engine is held";
            softefa::fabric::point_call(point::receive_completed, [] {
                const auto seen = fetched(*other);
                post_elsewhere(*one, *other);
                EXPECT_EQ(fetched(*other), seen) << "the engine is held";
                softefa::fabric::point_call(point::receive_completed, [] { served_by = gettid(); });
                left = true;
            });
        }
        by_holder = served_by == gettid(); // before anything else runs the engine in this thread
        ASSERT_TRUE(left) << "the pass did not serve what was left before it";
        for (unsigned i = 0; i < 2; ++i)
            ASSERT_TRUE(e.rcq.wait() && e.scq.wait());
    }
    EXPECT_TRUE(by_holder) << "left to nobody";
}

} // namespace
