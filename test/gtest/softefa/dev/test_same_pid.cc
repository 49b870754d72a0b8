/* Two processes in a row with the same process id, queue pair number and folder: the second one is another peer.
 *
 * In a PID namespace of its own, in which nobody else forks, the next process id can be chosen. Its first process (`room`) forks and chooses; the
 * survivor, its child, is where the expectations are.
 */
#include "softefa/dev/child.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>

namespace {

using namespace nic;

constexpr int           cannot = 77; ///< exit code: this machine does not let us choose
constexpr std::uint32_t gone = 1, refused = 2, ready = 3;
constexpr std::size_t   bytes = 1 << 20;
constexpr unsigned      doomed = 20;

struct birth {
    std::uint32_t pid = 0, unused = 0; ///< no byte of it is left to chance
    address       at;
};

/// Offers memory full of `value`. With `receives` it takes messages until it is told to end, and answers how many of them were not "alive".
int peer_of_survivor(pipe_end io, std::uint8_t value, bool receives)
{
    endpoint      e(bytes);
    std::uint32_t word;
    std::fill(e.memory.begin(), e.memory.end(), value);
    for (std::uint16_t i = 0; receives && i < 2 * doomed; ++i)
        e.qp.post_recv(i, {e.slice(i * 64u, 64)});
    if (!io.put(birth{static_cast<std::uint32_t>(getpid()), 0, address_of(e)}))
        return 2;
    std::uint32_t others = 0;
    for (bool told = false; !told;) {
        told = io.get(&word, 1);
        while (auto got = e.rcq.poll_surely()) // also what came before it was told
            others += got->status != 0 || got->length != 5 || std::memcmp(e.memory.data() + got->req_id * 64u, "alive", 5) != 0;
    }
    return io.put_word(others) && io.get(&word) ? 0 : 3;
}

/// Forks `body` under that process id. -1: not to be had.
pid_t fork_as(pid_t wanted, const std::function<int()> &body)
{
    for (unsigned tries = 0; tries < 100; ++tries) {
        const std::string before = std::to_string(wanted - 1);
        const int         file   = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
        const bool        chosen = file >= 0 && write(file, before.data(), before.size()) == static_cast<ssize_t>(before.size());
        ::close(file);
        if (!chosen)
            return -1;
        const pid_t pid = fork();
        if (pid == 0)
            _exit(getpid() == wanted ? body() : 0); // somebody's thread was faster
        if (pid == wanted)
            return pid;
        waitpid(pid, nullptr, 0);
    }
    return -1;
}

/// What the survivor sees. `room` says when the first peer has been reaped and the second one lives.
void survive(pipe_end first, pipe_end second, pipe_end room)
{
    endpoint e(bytes);
    birth    old, young;
    ASSERT_TRUE(first.get(&old));
    e.qp.post(e.qp.rdma(1, 1, e.ah, old.at.qpn, e.slice(0, 65536), old.at.memory, old.at.rkey));
    auto read = e.scq.wait();
    ASSERT_TRUE(read);
    ASSERT_EQ(read->status, 0);
    ASSERT_EQ(e.memory[65535], 1);
    const auto retries = counted().rnr_retries;
    for (std::uint16_t i = 0; i < doomed; ++i) // no receive is ever posted there
        e.qp.post(e.qp.send_inline(i, e.ah, old.at.qpn, "doomed"));
    ASSERT_TRUE(until([&] { e.scq.poll(); return counted().rnr_retries - retries >= doomed; }));
    {
        // Nobody notices the end before the next one of that name lives: the helper thread waits for the lock.
        const engine_guard    guard;
        softefa::dev::link   *l = nullptr;
        for (unsigned i = 1; i < engine().link_count; ++i)
            l = engine().links[i] != nullptr ? engine().links[i] : l;
        ASSERT_NE(l, nullptr);
        const bool            reads = l->reader.on; // the kernel allows it
        softefa::wire::window from{old.at.memory, l->channel->peer.control()->epoch(0), 65536, 0};
        EXPECT_EQ(single_copy(*l, e.memory.data(), from, true), reads);
        ::kill(static_cast<pid_t>(old.pid), SIGKILL);
        std::uint32_t word = 0;
        ASSERT_TRUE(room.put_word(gone) && room.get(&word));
        if (word == refused)
            _exit(cannot);
        ASSERT_TRUE(second.get(&young));
        ASSERT_EQ(young.pid, old.pid);
        EXPECT_EQ(young.at.qpn, old.at.qpn) << "the number was to come back: the test tests too little";
        EXPECT_FALSE(single_copy(*l, e.memory.data(), from, true)) << "bytes of a stranger";
        EXPECT_FALSE(single_copy(*l, e.memory.data(), from, false)) << "bytes of a stranger";
    }
    for (unsigned i = 0; i < doomed; ++i) {
        auto done = e.scq.wait();
        ASSERT_TRUE(done) << i;
        EXPECT_EQ(done->status, 9) << "it was another process's";
    }
    for (unsigned i = 0; i < 3; ++i) {
        e.qp.post(e.qp.send_inline(1, e.ah, young.at.qpn, "alive"));
        auto done = e.scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, 0);
    }
    e.qp.post(e.qp.rdma(1, 1, e.ah, young.at.qpn, e.slice(0, 65536), young.at.memory + 65536, young.at.rkey));
    auto again = e.scq.wait();
    ASSERT_TRUE(again);
    EXPECT_EQ(again->status, 0);
    EXPECT_EQ(e.memory[65535], 2);
    std::uint32_t others = ~0u;
    EXPECT_TRUE(second.put_word(1) && second.get(&others));
    EXPECT_EQ(others, 0u) << "messages for the process that ended";
    second.put_word(1);
}

/// The first process of the namespace.
int room()
{
    int pairs[3][2]; // survivor's end first
    for (auto &pair : pairs)
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
            return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const pid_t first = fork();
    if (first == 0)
        _exit(peer_of_survivor({pairs[0][1]}, 1, false));
    const pid_t survivor = fork();
    if (survivor == 0) {
        survive({pairs[0][0]}, {pairs[1][0]}, {pairs[2][0]});
        fflush(stdout);
        _exit(testing::Test::HasFailure() ? 1 : 0);
    }
    pipe_end      io{pairs[2][1]};
    std::uint32_t word  = 0;
    pid_t         second = -1;
    if (io.get(&word)) {
        waitpid(first, nullptr, 0);
        second = fork_as(first, [&] { return peer_of_survivor({pairs[1][1]}, 2, true); });
        io.put_word(second > 0 ? ready : refused);
    }
    int state = 0, of_second = 0;
    waitpid(survivor, &state, 0);
    if (second > 0 && WIFEXITED(state) && WEXITSTATUS(state) == 0)
        waitpid(second, &of_second, 0);
    return !WIFEXITED(state) ? 3 : WEXITSTATUS(state) != 0 ? WEXITSTATUS(state) : of_second != 0 ? 4 : 0;
}

class same_pid : public device_test {};

TEST_F(same_pid, next_process_of_that_id_and_number_is_another_peer)
{
    wanted.reuse_qpn    = 1;
    wanted.rnr_timer_us = 2'000'000; // messages that found no receive wait when their receiver ends
    use();
    child outer([](pipe_end) {
        if (unshare(CLONE_NEWPID) != 0)
            return cannot;
        const pid_t first = fork();
        if (first == 0)
            _exit(room());
        int state = 0;
        waitpid(first, &state, 0);
        return WIFEXITED(state) ? WEXITSTATUS(state) : 5;
    });
    const int code = outer.reap();
    if (code == cannot)
        GTEST_SKIP() << "a PID namespace in which the next process id can be chosen needs root and a writable /proc/sys";
    EXPECT_EQ(code, 0);
}

} // namespace
