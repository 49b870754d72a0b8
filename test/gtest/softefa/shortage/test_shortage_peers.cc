// Each call of libc behind the meeting of two processes fails, once or for a while, on either side: the message waits and arrives. And what a
// process does that cannot have a pidfd, whose peer's backlog is full, or whose own ring is damaged.
#include "shortage.h"

#include "softefa/dev/child.h"
#include "softefa/dev/engine_state.h"

#include <chrono>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <sched.h>
#include <set>
#include <sys/resource.h>
#include <sys/un.h>

namespace {

using namespace nic;
using shortage::extent;

class shortage_peers : public device_test {
protected:
    void TearDown() override
    {
        shortage::lift();
        shortage::no_pidfds(false);
        shortage::clock_ahead(0);
        device_test::TearDown();
    }
};

/// What a process needs of a shortage: which call fails, and for how long.
struct plan {
    unsigned n = 0; ///< 0: none
    extent   how = extent::once;
};

/// Waits for one message of one byte; then says how many calls failed here, and stays until told to leave.
int receiver(pipe_end io, plan mine)
{
    std::uint32_t word;
    if (!io.get(&word, 4 * generous_ms))
        return 1; // not needed
    endpoint e;
    address  peer;
    e.qp.post_recv(1, {e.slice(0, 64)});
    if (mine.n != 0)
        shortage::arm(mine.n, mine.how);
    if (!io.swap(address_of(e), &peer))
        return 2;
    // A lasting shortage ends when it was felt a few times, or when the message came through before it.
    std::optional<cqe> got;
    if (!until([&] { got = e.rcq.poll(); return got || mine.how == extent::once || shortage::failed() >= 3; }))
        return 3;
    if (mine.how == extent::from_there)
        shortage::lift();
    if (!got)
        got = e.rcq.wait();
    const std::uint32_t failed = shortage::lift();
    if (!got || got->status != 0 || e.memory[0] != 'm')
        return 4;
    return io.put_word(failed) && io.get(&word) ? 0 : 5;
}

/// Children 0, 1... get a message each, with `sender` and `acceptor` making the plans. The number of children that met a shortage.
unsigned meet(unsigned count, const std::function<plan(unsigned)> &sender, const std::function<plan(unsigned)> &acceptor)
{
    std::vector<std::unique_ptr<child>> others;
    for (unsigned i = 0; i < count; ++i)
        others.push_back(std::make_unique<child>([&, i](pipe_end io) { return receiver(io, acceptor(i)); }));
    endpoint e;
    unsigned met = 0;
    for (unsigned i = 0; i < count; ++i) {
        child  &other = *others[i];
        address peer;
        plan    own = sender(i);
        other.end.put_word(1);
        EXPECT_TRUE(other.end.swap(address_of(e), &peer)) << i;
        if (own.n != 0)
            shortage::arm(own.n, own.how);
        e.qp.post(e.qp.send_inline(static_cast<std::uint16_t>(i), e.ah, peer.qpn, "m"));
        std::optional<cqe> done;
        EXPECT_TRUE(until([&] { done = e.scq.poll(); return done || own.how == extent::once || shortage::failed() >= 3; })) << i;
        if (own.how == extent::from_there)
            shortage::lift();
        if (!done)
            done = e.scq.wait();
        const unsigned failed = shortage::lift();
        EXPECT_TRUE(done.has_value()) << i << ": " << shortage::first();
        EXPECT_EQ(done ? done->status : -1, 0) << i << ": " << shortage::first();
        std::uint32_t theirs = 0;
        EXPECT_TRUE(other.end.get(&theirs)) << i;
        met += failed + theirs != 0;
        if (testing::Test::HasFailure())
            break;
        // Its end first, so that the next one is alone with the shortage.
        const std::uint64_t gone = peers_gone();
        other.end.put_word(2);
        EXPECT_EQ(other.reap(), 0) << i;
        EXPECT_TRUE(until([&] { engine_poll(e.scq.h); return peers_gone() > gone; })) << i;
    }
    return met;
}

constexpr unsigned calls_of_a_meeting = 28; ///< at most, on one side

TEST_F(shortage_peers, who_connects_fails_once_at_each_call)
{
    EXPECT_GE(meet(calls_of_a_meeting, [](unsigned i) { return plan{i + 1}; }, [](unsigned) { return plan{}; }), 12u);
}

TEST_F(shortage_peers, who_connects_is_short_for_a_while)
{
    EXPECT_GE(meet(calls_of_a_meeting, [](unsigned i) { return plan{i + 1, extent::from_there}; }, [](unsigned) { return plan{}; }), 12u);
}

TEST_F(shortage_peers, who_is_connected_to_fails_once_at_each_call)
{
    EXPECT_GE(meet(calls_of_a_meeting, [](unsigned) { return plan{}; }, [](unsigned i) { return plan{i + 1}; }), 12u);
}

TEST_F(shortage_peers, who_is_connected_to_is_short_for_a_while)
{
    EXPECT_GE(meet(calls_of_a_meeting, [](unsigned) { return plan{}; }, [](unsigned i) { return plan{i + 1, extent::from_there}; }), 12u);
}

/// The end of a process that no pidfd tells: another PID namespace, an old kernel, a sandbox.
TEST_F(shortage_peers, killed_peer_is_noticed_without_pidfds)
{
    shortage::no_pidfds(true);
    child other([](pipe_end io) {
        endpoint e;
        address  peer;
        e.qp.post_recv(1, {e.slice(0, 64)});
        if (!io.swap(address_of(e), &peer) || !e.rcq.wait())
            return 1;
        const pid_t grandchild = fork(); // has a copy of every descriptor, for a moment
        if (grandchild == 0) {
            close(io.fd);
            pause();
            _exit(0);
        }
        io.put(grandchild);
        pause();
        return 0;
    });
    endpoint e;
    address  peer;
    pid_t    grandchild = 0;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    e.qp.post(e.qp.send_inline(1, e.ah, peer.qpn, "m"));
    auto done = e.scq.wait();
    ASSERT_TRUE(done && done->status == 0);
    ASSERT_TRUE(other.end.get(&grandchild));
    other.kill(SIGKILL);
    e.qp.post(e.qp.send_inline(2, e.ah, peer.qpn, "to nobody"));
    done = e.scq.wait();
    ::kill(grandchild, SIGKILL);
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, 9);
}

/// Sends one message that arrives, waits until its receiver was killed, and sends another one. From within a PID namespace of its own.
int survive(pipe_end io)
{
    endpoint e;
    address  peer;
    if (!io.get(&peer))
        return 2;
    e.qp.post(e.qp.send_inline(1, e.ah, peer.qpn, "m"));
    auto done = e.scq.wait();
    if (!done || done->status != 0)
        return 3;
    if (!io.put_word(1) || !io.wait_word(2))
        return 4;
    e.qp.post(e.qp.send_inline(2, e.ah, peer.qpn, "to nobody"));
    done = e.scq.wait();
    return done && done->status == 9 ? 0 : 5;
}

TEST_F(shortage_peers, killed_peer_is_noticed_from_another_pid_namespace)
{
    constexpr int no_namespace = 77;
    child victim([](pipe_end io) {
        endpoint e;
        e.qp.post_recv(1, {e.slice(0, 64)});
        if (!io.put(address_of(e)))
            return 1;
        e.rcq.wait();
        pause();
        return 0;
    });
    child survivor([](pipe_end io) {
        if (unshare(CLONE_NEWPID) != 0)
            return no_namespace;
        const pid_t inner = fork();
        if (inner == 0) {
            alarm(300);
            _exit(survive(io));
        }
        int state = 0;
        waitpid(inner, &state, 0);
        return WIFEXITED(state) ? WEXITSTATUS(state) : 1;
    });
    address       peer;
    std::uint32_t word = 0;
    ASSERT_TRUE(victim.end.get(&peer));
    survivor.end.put(peer);
    if (!survivor.end.get(&word)) {
        const int code = survivor.reap();
        if (code == no_namespace)
            GTEST_SKIP() << "needs the right to make a PID namespace";
        FAIL() << code;
    }
    victim.kill(SIGKILL);
    EXPECT_EQ(victim.reap(), -SIGKILL);
    survivor.end.put_word(2);
    EXPECT_EQ(survivor.reap(), 0);
}

/// Waits by a clock that does not jump.
bool until_by_the_wall(const std::function<bool()> &condition)
{
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end)
            return false;
        sched_yield();
    }
    return true;
}

/// As when a machine was suspended: work waits, the clock is an hour later. Statuses that the waiting message may end with; the next one arrives.
void clock_jumps(const std::set<int> &allowed)
{
    child other([](pipe_end io) {
        endpoint e;
        e.qp.post_recv(0, {e.slice(0, 64)});
        if (!io.put(address_of(e)) || !io.wait_word(1))
            return 1;
        unsigned arrived = 0;
        for (std::uint16_t i = 1; i < 32; ++i)
            e.qp.post_recv(i, {e.slice(i * 64u, 64)});
        while (auto got = e.rcq.wait())
            if (++arrived, e.memory[got->req_id * 64u] == 'e')
                return 0;
        return 2;
    });
    endpoint e;
    address  peer;
    ASSERT_TRUE(other.end.get(&peer));
    std::optional<cqe> done;
    const auto         ended = [&] { return (done = e.scq.poll()).has_value(); };
    e.qp.post(e.qp.send_inline(1, e.ah, peer.qpn, "first"));
    ASSERT_TRUE(until_by_the_wall(ended));
    ASSERT_EQ(done->status, 0);
    e.qp.post(e.qp.send_inline(2, e.ah, peer.qpn, "no receive is posted"));
    e.scq.poll();
    shortage::clock_ahead(3600);
    for (unsigned i = 0; i < 1000; ++i)
        EXPECT_TRUE(!ended() || allowed.count(done->status) != 0) << int{done->status};
    other.end.put_word(1);
    ASSERT_TRUE(until_by_the_wall([&] {
        e.qp.post(e.qp.send_inline(3, e.ah, peer.qpn, "end"));
        do {
            if (!until_by_the_wall(ended))
                return false;
            EXPECT_EQ(allowed.count(done->status), 1u) << int{done->status};
        } while (done->req_id != 3);
        return done->status == 0;
    }));
    EXPECT_EQ(other.reap(), 0);
}

TEST_F(shortage_peers, clock_that_jumps_an_hour_loses_nothing) { clock_jumps({0}); }

TEST_F(shortage_peers, clock_that_jumps_an_hour_may_give_a_peer_up_and_finds_it_again)
{
    wanted.unresponsive_ns = 10'000'000'000;
    use();
    clock_jumps({0, 13, 15});
}

/// Connections to the only process of the folder until it has room for no more.
std::vector<int> fill_backlog(const std::string &folder)
{
    std::vector<int> held;
    sockaddr_un      to{};
    to.sun_family = AF_UNIX;
    for (const auto &entry : std::filesystem::directory_iterator(folder))
        if (entry.path().extension() == ".sock")
            std::snprintf(to.sun_path, sizeof(to.sun_path), "%s", entry.path().c_str());
    for (;;) {
        const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
            break;
        if (connect(fd, reinterpret_cast<const sockaddr *>(&to), sizeof(to)) != 0) {
            EXPECT_EQ(EAGAIN, errno);
            close(fd);
            break;
        }
        held.push_back(fd);
    }
    return held;
}

/// As when more processes than its backlog holds connect to a stopped one.
TEST_F(shortage_peers, stopped_process_with_a_full_backlog_is_given_up_and_found_again)
{
    rlimit before{};
    ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &before));
    rlimit more = before;
    more.rlim_cur = std::min<rlim_t>(before.rlim_max, 2048);
    if (more.rlim_cur < 800)
        GTEST_SKIP() << "needs 800 descriptors";
    ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &more));
    wanted.unresponsive_ns = 200'000'000;
    use();
    child other([](pipe_end io) {
        endpoint e;
        e.qp.post_recv(1, {e.slice(0, 64)});
        return io.put(address_of(e)) && e.rcq.wait() ? 0 : 1;
    });
    address peer;
    ASSERT_TRUE(other.end.get(&peer));
    other.kill(SIGSTOP);
    int state = 0;
    ASSERT_EQ(waitpid(other.pid, &state, WUNTRACED), other.pid);
    const std::vector<int> held = fill_backlog(folder);
    EXPECT_GE(held.size(), 512u);
    {
        endpoint e;
        for (std::uint16_t i = 0; i < 3; ++i) {
            e.qp.post(e.qp.send_inline(i, e.ah, peer.qpn, "m"));
            auto done = e.scq.wait();
            ASSERT_TRUE(done) << i;
            EXPECT_EQ(done->status, 15) << i;
        }
        for (int fd : held)
            close(fd);
        other.kill(SIGCONT);
        EXPECT_TRUE(until([&] {
            e.qp.post(e.qp.send_inline(4, e.ah, peer.qpn, "m"));
            auto done = e.scq.wait();
            return done && done->status == 0;
        }));
    }
    EXPECT_EQ(other.reap(), 0);
    EXPECT_EQ(0, setrlimit(RLIMIT_NOFILE, &before));
}

std::atomic<unsigned> forks_tried, files_lost;

/// The number that was just closed becomes another file's, and a child is forked: it must not close that.
void reuse_and_fork(int fd)
{
    static thread_local bool within = false; // what the child closes is looked at, not repeated
    if (within)
        return;
    within = true;
    const int null  = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    const int other = fcntl(null, F_DUPFD_CLOEXEC, fd);
    ::close(null);
    const pid_t forked = other == fd ? fork() : -1;
    if (forked == 0) {
        process_forked(); // by hand: it is not installed in a program that opened no file
        _exit(fcntl(fd, F_GETFD) != -1 ? 0 : 1);
    }
    int state = 0;
    if (forked > 0 && waitpid(forked, &state, 0) == forked) {
        ++forks_tried;
        files_lost += state != 0;
    }
    ::close(other);
    within = false;
}

/// HLP-4, of a peer that goes and of a device that is closed.
TEST_F(shortage_peers, fork_beside_a_close_closes_no_number_of_others)
{
    forks_tried = files_lost = 0;
    {
        child    other([](pipe_end io) { return receiver(io, {}); });
        endpoint e;
        address  peer;
        const auto gone = peers_gone();
        ASSERT_TRUE(other.end.put_word(1) && other.end.swap(address_of(e), &peer));
        e.memory[0] = 'm';
        e.qp.post(e.qp.send(1, e.ah, peer.qpn, {e.slice(0, 1)}));
        const auto done = e.scq.wait();
        std::uint32_t failed;
        ASSERT_TRUE(done && done->status == 0 && other.end.get(&failed));
        shortage::at_close(reuse_and_fork);
        other.end.put_word(1);
        EXPECT_EQ(other.reap(), 0);
        EXPECT_TRUE(until([&] { return peers_gone() > gone; }));
    }
    shortage::at_close(nullptr);
    EXPECT_GE(forks_tried, 8u) << "of a peer: socket, pidfd, two segments, wake; of the device: three of the helper and more";
    EXPECT_EQ(files_lost, 0u);
}

} // namespace
