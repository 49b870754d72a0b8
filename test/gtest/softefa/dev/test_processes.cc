/* Two processes on one device: data, one-sided work on a target that sleeps, retries, and the end of a process. */
#include "softefa/dev/child.h"
#include "softefa/dev/helper_state.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <sched.h>
#include <sys/resource.h>
#include <thread>
#include <vector>

namespace {

using namespace nic;

class processes : public device_test {};

int echo(pipe_end io, unsigned rounds)
{
    endpoint e;
    address  peer;
    for (unsigned i = 0; i < 32; ++i)
        e.qp.post_recv(static_cast<std::uint16_t>(i), {e.slice(i * 256, 256)});
    if (!io.swap(address_of(e), &peer))
        return 2;
    for (unsigned n = 0; n < rounds; ++n) {
        auto got = e.rcq.wait();
        if (!got || got->status != 0)
            return 3;
        auto w = e.qp.send(static_cast<std::uint16_t>(n), e.ah, peer.qpn, {e.slice(got->req_id * 256u, got->length)});
        e.qp.post_recv(got->req_id, {e.slice(got->req_id * 256u, 256)});
        e.qp.post(w);
        auto done = e.scq.wait();
        if (!done || done->status != 0)
            return 4;
    }
    std::uint32_t word;
    return io.get(&word) ? 0 : 5;
}

TEST_F(processes, ping_pong_echoes_every_byte)
{
    const char    *wish   = std::getenv("SOFTEFA_TEST_ROUNDS");
    const unsigned rounds = wish != nullptr ? static_cast<unsigned>(std::atoi(wish)) : 4000; // each may cost a time slice on a busy machine
    wanted.snapshot_ns    = base::sec(3600); // nothing but a wake-up wakes the helper
    use();
    child    other([&](pipe_end io) { return echo(io, rounds); });
    endpoint e;
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    const auto start = base::clock_now_ns();
    for (unsigned n = 0; n < rounds; ++n) {
        e.qp.post_recv(1, {e.slice(0, 64)});
        std::memcpy(e.memory.data() + 1024, &n, sizeof(n));
        e.qp.post(e.qp.send(2, e.ah, peer.qpn, {e.slice(1024, 8)}));
        auto got = e.rcq.wait();
        ASSERT_TRUE(got) << n;
        ASSERT_EQ(got->length, 8u);
        ASSERT_EQ(got->src_qpn, peer.qpn);
        ASSERT_EQ(got->ah, e.ah);
        ASSERT_EQ(std::memcmp(e.memory.data(), &n, sizeof(n)), 0);
        auto done = e.scq.wait();
        ASSERT_TRUE(done);
        ASSERT_EQ(done->status, 0);
    }
    RecordProperty("half_round_trip_ns", static_cast<int>((base::clock_now_ns() - start) / rounds / 2));
    std::printf("half round trip: %.0f ns\n", static_cast<double>(base::clock_now_ns() - start) / rounds / 2);
    other.end.put_word(1);
    EXPECT_EQ(other.reap(), 0);
}

constexpr std::uint32_t ping = 2;

/// Offers memory and sleeps in a system call until told to leave; answers a ping.
int target(pipe_end io, std::size_t bytes, bool know_peer)
{
    endpoint e(bytes);
    address  peer;
    for (std::size_t i = 0; i < bytes; ++i)
        e.memory[i] = static_cast<std::uint8_t>(i * 31 + (i >> 8));
    if (!know_peer && ah_destroy(e.ah_handle) != base::status::ok)
        return 6;
    if (!io.swap(address_of(e), &peer))
        return 2;
    std::uint32_t word = ping;
    while (word == ping)
        if (!io.get(&word) || (word == ping && !io.put_word(ping)))
            return 3;
    if (word == 7) { // says whether the first bytes are what a write should have left
        for (std::size_t i = 0; i < bytes; ++i)
            if (e.memory[i] != static_cast<std::uint8_t>(i * 13 + 5))
                return 4;
    }
    return 0;
}

TEST_F(processes, rdma_read_of_a_sleeping_target_returns_its_bytes)
{
    constexpr std::size_t bytes = 3 << 20;
    child    other([&](pipe_end io) { return target(io, bytes, true); });
    endpoint e(bytes);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    for (std::uint32_t size : {0u, 1u, 8u, 4096u, 32768u, 32769u, 1u << 20, 3u << 20}) {
        std::fill(e.memory.begin(), e.memory.end(), 0);
        e.qp.post(e.qp.rdma(1, 3, e.ah, peer.qpn, e.slice(0, size), peer.memory, peer.rkey));
        auto done = e.scq.wait();
        ASSERT_TRUE(done) << size;
        EXPECT_EQ(done->status, 0) << size;
        EXPECT_EQ(done->op, 1);
        for (std::size_t i = 0; i < size; ++i)
            ASSERT_EQ(e.memory[i], static_cast<std::uint8_t>(i * 31 + (i >> 8))) << i;
    }
    EXPECT_EQ(counted().read_ops >= 8, true);
    other.end.put_word(1);
    EXPECT_EQ(other.reap(), 0);
}

/// As target(), with all its threads on one core, and one more of them there that never stops.
int target_on_busy_core(pipe_end io, std::size_t bytes, unsigned core)
{
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(core, &only);
    if (sched_setaffinity(0, sizeof(only), &only) != 0) // before the helper thread is made, which inherits it
        return 7;
    std::atomic<bool> spins{false}, stop{false};
    std::thread       busy([&] {
        spins = true;
        while (!stop.load(std::memory_order_relaxed)) {
        }
    });
    while (!spins)
        sched_yield();
    const int code = target(io, bytes, true);
    stop           = true;
    busy.join();
    return code;
}

/// How many threads of a process may run on that core alone. A sanitizer may have one of its own besides.
int threads_on(unsigned core, pid_t pid)
{
    int count = 0;
    for (const auto &thread : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
        cpu_set_t may;
        CPU_ZERO(&may);
        count += sched_getaffinity(std::stoi(thread.path().filename()), sizeof(may), &may) == 0 && CPU_COUNT(&may) == 1 && CPU_ISSET(core, &may);
    }
    return count;
}

/// How many threads of a process the scheduler treats otherwise than its first one. Times do not tell: also with a helper of the lowest class
/// (SCHED_IDLE) half of the operations end within milliseconds, as others do on a busy machine.
int threads_of_another_rank(pid_t pid)
{
    int count = 0;
    for (const auto &thread : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
        const pid_t id = std::stoi(thread.path().filename());
        count += sched_getscheduler(id) != sched_getscheduler(pid) ||
                 getpriority(PRIO_PROCESS, static_cast<id_t>(id)) != getpriority(PRIO_PROCESS, static_cast<id_t>(pid));
    }
    return count;
}

class busy_core : public processes, public testing::WithParamInterface<int> {};

/// The helper of the target has to get its turn from a thread that never gives way. Each operation ends; half of them long before any timer would help
/// out, or before the target's first thread, which has to get its turn from the same one, has answered many times.
TEST_P(busy_core, one_sided_work_on_a_target_that_never_polls_ends)
{
    constexpr std::size_t  bytes = 1 << 20;
    constexpr std::uint8_t read = 1, write = 2;
    wanted.single_copy = static_cast<std::uint8_t>(GetParam());
    wanted.snapshot_ns = base::sec(3600); // nothing but a wake-up wakes the helper
    use();
    cpu_set_t allowed;
    ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
    unsigned core = 0;
    while (!CPU_ISSET(core, &allowed))
        ++core;
    child    other([&](pipe_end io) { return target_on_busy_core(io, bytes, core); });
    endpoint e(bytes);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    std::vector<base::time_ns> took, answered;
    for (unsigned round = 0; round < 6; ++round) {
        for (std::uint32_t size : {8u, 4096u, 65536u, 1u << 20}) {
            for (std::uint8_t op : {read, write}) {
                if (op == read)
                    std::fill_n(e.memory.begin(), size, std::uint8_t{0});
                const auto start = base::clock_now_ns();
                e.qp.post(e.qp.rdma(op, 3, e.ah, peer.qpn, e.slice(0, size), peer.memory, peer.rkey));
                auto done = e.scq.wait();
                ASSERT_TRUE(done) << "round " << round << ", op " << int{op} << " of " << size;
                ASSERT_EQ(done->status, 0) << "round " << round << ", op " << int{op} << " of " << size;
                took.push_back(base::clock_now_ns() - start);
                for (std::size_t i = 0; i < size && op == read; ++i) // what is there from the start, and is written back
                    ASSERT_EQ(e.memory[i], static_cast<std::uint8_t>(i * 31 + (i >> 8))) << i << " of " << size;
                const auto asked = base::clock_now_ns();
                ASSERT_TRUE(other.end.put_word(ping) && other.end.wait_word(ping));
                answered.push_back(base::clock_now_ns() - asked);
            }
        }
    }
    EXPECT_GE(threads_on(core, other.pid), 3) << "not pinned, or without its helper or its busy thread";
    EXPECT_EQ(threads_of_another_rank(other.pid), 0) << "the helper is to get its turn like any other thread";
    for (auto *times : {&took, &answered})
        std::sort(times->begin(), times->end());
    const base::time_ns half = took[took.size() / 2], half_answered = answered[answered.size() / 2];
    std::printf("half of the operations ended within %.3f ms, all within %.3f ms; half of the answers came within %.3f ms\n", 1e-6 * static_cast<double>(half),
                1e-6 * static_cast<double>(took.back()), 1e-6 * static_cast<double>(half_answered));
    EXPECT_LT(half, base::sec(1) + 64 * half_answered);
    for (std::size_t i = 0; i < bytes; ++i) // for the target to check
        e.memory[i] = static_cast<std::uint8_t>(i * 13 + 5);
    e.qp.post(e.qp.rdma(write, 3, e.ah, peer.qpn, e.slice(0, bytes), peer.memory, peer.rkey));
    auto done = e.scq.wait();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, 0);
    other.end.put_word(7);
    EXPECT_EQ(other.reap(), 0);
}

INSTANTIATE_TEST_SUITE_P(by_two_copies_and_by_one, busy_core, testing::Values(0, 1));

TEST_F(processes, rdma_write_lands_whole_and_only_there)
{
    constexpr std::size_t bytes = 2 << 20;
    child    other([&](pipe_end io) { return target(io, bytes, true); });
    endpoint e(bytes);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    for (std::size_t i = 0; i < bytes; ++i)
        e.memory[i] = static_cast<std::uint8_t>(i * 13 + 5);
    const std::uint32_t half = bytes / 2;
    e.qp.put(e.qp.rdma(2, 3, e.ah, peer.qpn, e.slice(0, half), peer.memory, peer.rkey));
    e.qp.put(e.qp.rdma(2, 4, e.ah, peer.qpn, e.slice(half, half), peer.memory + half, peer.rkey));
    e.qp.ring();
    for (int k = 0; k < 2; ++k) {
        auto done = e.scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, 0);
        EXPECT_EQ(done->op, 2);
    }
    other.end.put_word(7);
    EXPECT_EQ(other.reap(), 0);
}

TEST_F(processes, rdma_refusals_have_their_status)
{
    child    other([&](pipe_end io) { return target(io, 8192, true); });
    endpoint e(8192);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    auto status_of = [&](queue_pair::wqe w) {
        e.qp.post(w);
        auto done = e.scq.wait();
        return done ? int{done->status} : -1;
    };
    const buffer local = e.slice(0, 64);
    for (std::uint8_t op : {std::uint8_t{1}, std::uint8_t{2}}) {
        EXPECT_EQ(status_of(e.qp.rdma(op, 1, e.ah, peer.qpn, local, peer.memory, peer.rkey ^ 1)), 7);
        EXPECT_EQ(status_of(e.qp.rdma(op, 1, e.ah, peer.qpn, local, peer.memory + 8192 - 63, peer.rkey)), 7);
        EXPECT_EQ(status_of(e.qp.rdma(op, 1, e.ah, peer.qpn, local, peer.memory - 1, peer.rkey)), 7);
        auto wrong_key = e.qp.rdma(op, 1, e.ah, peer.qpn, local, peer.memory, peer.rkey);
        EXPECT_EQ(status_of(wrong_key.set32(16, 99)), 9);
        auto bad_local = e.qp.rdma(op, 1, e.ah, peer.qpn, local, peer.memory, peer.rkey);
        EXPECT_EQ(status_of(bad_local.set32(52, e.lkey ^ 1)), 5);
        auto uneven = e.qp.rdma(op, 1, e.ah, peer.qpn, local, peer.memory, peer.rkey);
        EXPECT_EQ(status_of(uneven.set32(32, 63)), 6);
    }
    EXPECT_EQ(status_of(e.qp.rdma(1, 1, e.ah, peer.qpn, local, peer.memory, peer.rkey)), 0);
    other.end.put_word(1);
    EXPECT_EQ(other.reap(), 0);
}

TEST_F(processes, rdma_to_a_target_without_our_address_is_refused)
{
    child    other([&](pipe_end io) { return target(io, 8192, false); });
    endpoint e(8192);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    for (std::uint8_t op : {std::uint8_t{1}, std::uint8_t{2}}) {
        e.qp.post(e.qp.rdma(op, 1, e.ah, peer.qpn, e.slice(0, 64), peer.memory, peer.rkey));
        auto done = e.scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, 14);
    }
    other.end.put_word(1);
    EXPECT_EQ(other.reap(), 0);
}

TEST_F(processes, killed_peer_fails_its_work_and_only_that)
{
    child    dying([&](pipe_end io) { return target(io, 8192, true); });
    child    living([&](pipe_end io) { return echo(io, 1); });
    endpoint e(1 << 20);
    address  victim, survivor;
    ASSERT_TRUE(dying.end.swap(address_of(e), &victim));
    ASSERT_TRUE(living.end.swap(address_of(e), &survivor));
    for (std::uint16_t i = 0; i < 20; ++i) // no receive is ever posted there: they stay outstanding
        e.qp.post(e.qp.send_inline(i, e.ah, victim.qpn, "doomed"));
    ASSERT_TRUE(until([&] { e.scq.poll(); return counted().rnr_retries > 20; }));
    dying.kill(SIGKILL);
    EXPECT_EQ(dying.reap(), -SIGKILL);
    for (std::uint16_t i = 0; i < 20; ++i) {
        auto done = e.scq.wait();
        ASSERT_TRUE(done) << i;
        EXPECT_EQ(done->status, 9);
    }
    e.qp.post(e.qp.send_inline(40, e.ah, victim.qpn, "still gone"));
    EXPECT_EQ(e.scq.wait()->status, 9);
    e.qp.post_recv(1, {e.slice(0, 64)});
    e.qp.post(e.qp.send_inline(50, e.ah, survivor.qpn, "alive"));
    EXPECT_EQ(e.rcq.wait()->status, 0);
    EXPECT_EQ(e.scq.wait()->status, 0);
    living.end.put_word(1);
    EXPECT_EQ(living.reap(), 0);
}

/// The child of a killed process keeps copies of all its descriptors, sockets included: the death must show all the same.
TEST_F(processes, killed_peer_is_noticed_although_its_forked_child_lives)
{
    int kept[2];
    ASSERT_EQ(pipe2(kept, O_CLOEXEC), 0);
    child    dying([&](pipe_end io) {
        endpoint e(8192);
        address  peer;
        if (!io.swap(address_of(e), &peer))
            return 2;
        std::uint32_t word;
        if (!io.get(&word))
            return 3;
        const pid_t survivor = fork();
        if (survivor == 0) {
            ::close(kept[1]);
            char end;
            alarm(300);
            _exit(read(kept[0], &end, 1) == 0 ? 0 : 1); // until the test ends
        }
        io.put_word(static_cast<std::uint32_t>(survivor));
        return io.get(&word) ? 0 : 4;
    });
    endpoint e;
    address  victim;
    ASSERT_TRUE(dying.end.swap(address_of(e), &victim));
    for (std::uint16_t i = 0; i < 4; ++i)
        e.qp.post(e.qp.send_inline(i, e.ah, victim.qpn, "doomed"));
    ASSERT_TRUE(until([&] { e.scq.poll(); return counted().rnr_retries > 4; }));
    std::uint32_t grandchild = 0;
    ASSERT_TRUE(dying.end.put_word(1) && dying.end.get(&grandchild));
    dying.kill(SIGKILL);
    EXPECT_EQ(dying.reap(), -SIGKILL);
    for (unsigned i = 0; i < 4; ++i) {
        auto done = e.scq.wait();
        ASSERT_TRUE(done) << i;
        EXPECT_EQ(done->status, 9);
    }
    EXPECT_EQ(::kill(static_cast<pid_t>(grandchild), 0), 0) << "it was to live";
    ::close(kept[0]);
    ::close(kept[1]);
}

TEST_F(processes, stopped_peer_is_only_a_stall)
{
    child    other([&](pipe_end io) { return echo(io, 2); });
    endpoint e;
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    auto exchange = [&](bool stop) {
        e.qp.post_recv(1, {e.slice(0, 64)});
        if (stop) {
            other.kill(SIGSTOP);
            int state = 0;
            ASSERT_EQ(waitpid(other.pid, &state, WUNTRACED), other.pid);
        }
        e.qp.post(e.qp.send_inline(2, e.ah, peer.qpn, "12345678"));
        if (stop) {
            EXPECT_FALSE(e.scq.wait(50));
            other.kill(SIGCONT);
        }
        auto got = e.rcq.wait();
        ASSERT_TRUE(got);
        EXPECT_EQ(got->status, 0);
        EXPECT_EQ(e.scq.wait()->status, 0);
    };
    exchange(false);
    exchange(true);
    other.end.put_word(1);
    EXPECT_EQ(other.reap(), 0);
}

/// Stopped before anybody connected: all that goes to it ends in one period, and it is reached when it goes on.
TEST_F(processes, peer_that_never_answered_ends_work_to_all_its_queues_at_once)
{
    constexpr unsigned count = 20;
    wanted.unresponsive_ns   = 1'000'000'000;
    use();
    child other([&](pipe_end io) {
        std::vector<std::unique_ptr<endpoint>> all;
        for (unsigned i = 0; i < count; ++i) {
            all.push_back(std::make_unique<endpoint>());
            all.back()->qp.post_recv(1, {all.back()->slice(0, 64)});
            if (!io.put(address_of(*all.back())))
                return 2;
        }
        return all[0]->rcq.wait() ? 0 : 3;
    });
    endpoint e;
    address  peers[count];
    for (address &p : peers)
        ASSERT_TRUE(other.end.get(&p));
    other.kill(SIGSTOP);
    int state = 0;
    ASSERT_EQ(waitpid(other.pid, &state, WUNTRACED), other.pid);
    const auto start = base::clock_now_ns();
    for (const address &p : peers)
        e.qp.post(e.qp.send_inline(2, e.ah, p.qpn, "12345678"));
    for (unsigned i = 0; i < count; ++i) {
        auto done = e.scq.wait();
        ASSERT_TRUE(done) << i;
        EXPECT_EQ(done->status, 15) << i;
    }
    EXPECT_LT(base::clock_now_ns() - start, base::sec(1) * count / 2) << "one period for each queue";
    other.kill(SIGCONT);
    ASSERT_TRUE(until([&] { // at once with 15 as long as the connection is not up
        e.qp.post(e.qp.send_inline(3, e.ah, peers[0].qpn, "12345678"));
        auto done = e.scq.wait();
        return done && done->status == 0;
    }));
    EXPECT_EQ(other.reap(), 0);
}

/// The checks of the helper, with a clock of the test's own: how long this process itself did not run is not how long a peer did not move.
TEST_F(processes, peer_is_not_given_up_for_time_in_which_nobody_looked)
{
    wanted.unresponsive_ns = base::sec(3600); // the helper's own checks are far apart
    wanted.snapshot_ns     = base::sec(3600);
    use();
    child    other([&](pipe_end io) { return echo(io, 1); });
    endpoint e;
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    e.qp.post_recv(1, {e.slice(0, 64)});
    e.qp.post(e.qp.send_inline(2, e.ah, peer.qpn, "12345678"));
    ASSERT_TRUE(e.rcq.wait());
    ASSERT_TRUE(e.scq.wait());
    ASSERT_TRUE(until([&] { // it may say later that it has taken what it answered
        e.scq.poll();
        const engine_guard guard;
        unsigned           links = 0, busy = 0;
        std::uint64_t      ignored;
        for (unsigned i = 1; i < engine().link_count; ++i)
            if (engine().links[i] != nullptr)
                ++links, busy += cut_outstanding(*engine().links[i], &ignored);
        return links == 1 && busy == 0;
    }));
    other.kill(SIGSTOP);
    int state = 0;
    ASSERT_EQ(waitpid(other.pid, &state, WUNTRACED), other.pid);
    ASSERT_TRUE(until(helper_sleeps)); // the checks below are its own
    const base::time_ns limit = wanted.unresponsive_ns;
    base::time_ns       now   = base::clock_now_ns();
    peers_drop_unresponsive(now); // nothing is outstanding
    e.qp.post(e.qp.send_inline(3, e.ah, peer.qpn, "12345678"));
    for (unsigned check = 0; check < 2; ++check) { // the first one with work outstanding, and one after this process was stopped
        peers_drop_unresponsive(now += 3 * limit);
        ASSERT_FALSE(e.scq.poll_surely()) << check;
    }
    peers_drop_unresponsive(now += limit / 4);
    EXPECT_FALSE(e.scq.poll_surely());
    peers_drop_unresponsive(now += limit / 4);
    auto done = e.scq.wait();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, 13);
}

/// More destinations of a process that does not answer than one look at the registry takes.
TEST_F(processes, work_for_a_stopped_process_does_not_hide_that_for_others)
{
    constexpr unsigned count = 80;
    qp_request         r;
    r.max_send_wr = 128;
    r.max_recv_wr = 4;
    child stopped([&](pipe_end io) {
        endpoint                first;
        std::vector<queue_pair> more(count - 1);
        first.qp.post_recv(0, {first.slice(0, 64)});
        first.qp.post_recv(1, {first.slice(64, 64)});
        if (!io.put(address_of(first)))
            return 2;
        for (queue_pair &q : more) {
            if (!q.open(first.at, first.pd, first.scq.h, first.rcq.h, r))
                return 3;
            q.connect();
            if (!io.put(address{q.qpn, 0, 0, 0}))
                return 4;
        }
        std::string text;
        for (unsigned n = 0; n < 2; ++n) { // the others have no receive and complete nothing here
            auto got = first.rcq.wait();
            if (!got || got->status != 0)
                return 5;
            text += static_cast<char>(first.memory[got->req_id * 64u]);
        }
        return text == "ab" ? 0 : 6;
    });
    child alive([&](pipe_end io) {
        endpoint e;
        e.qp.post_recv(1, {e.slice(0, 64)});
        std::uint32_t word;
        return io.put(address_of(e)) && e.rcq.wait() && io.get(&word) ? 0 : 1;
    });
    endpoint e(4096, r);
    address  peers[count], other;
    for (address &p : peers)
        ASSERT_TRUE(stopped.end.get(&p));
    ASSERT_TRUE(alive.end.get(&other));
    stopped.kill(SIGSTOP);
    int state = 0;
    ASSERT_EQ(waitpid(stopped.pid, &state, WUNTRACED), stopped.pid);
    e.qp.post(e.qp.send_inline(1, e.ah, peers[0].qpn, "a"));
    for (unsigned i = 1; i < count; ++i)
        e.qp.post(e.qp.send_inline(2, e.ah, peers[i].qpn, "x"));
    e.qp.post(e.qp.send_inline(1, e.ah, peers[0].qpn, "b"));
    e.qp.post(e.qp.send_inline(3, e.ah, other.qpn, "c"));
    auto done = e.scq.wait();
    ASSERT_TRUE(done) << "work for a live process waits behind that for a stopped one";
    EXPECT_EQ(done->req_id, 3);
    EXPECT_EQ(done->status, 0);
    alive.end.put_word(1);
    EXPECT_EQ(alive.reap(), 0);
    stopped.kill(SIGCONT);
    EXPECT_EQ(stopped.reap(), 0) << "looking at parked work must not change the order of what goes to one destination";
}

/// The first words of another version, or of anybody else: refused, counted, and no harm done.
TEST_F(processes, first_words_of_another_version_are_counted)
{
    endpoint e(4096);
    stranger_speaks(folder);
    e.qp.post_recv(1, {e.slice(0, 64)});
    e.qp.post(e.qp.send_inline(2, e.ah, e.qp.qpn, "goes on"));
    EXPECT_TRUE(e.rcq.wait());
}

TEST_F(processes, nothing_is_left_behind)
{
    auto count_fds = [] {
        int n = 0;
        for (int fd = 0; fd < 1024; ++fd)
            n += fcntl(fd, F_GETFD) != -1;
        return n;
    };
    const int before = count_fds();
    for (int k = 0; k < 3; ++k) {
        child    other([&](pipe_end io) { return echo(io, 1); });
        endpoint e;
        address  peer;
        ASSERT_TRUE(other.end.swap(address_of(e), &peer));
        e.qp.post_recv(1, {e.slice(0, 64)});
        e.qp.post(e.qp.send_inline(2, e.ah, peer.qpn, "x"));
        ASSERT_TRUE(e.rcq.wait());
        if (k == 2) {
            other.kill(SIGKILL);
            other.reap();
        } else {
            other.end.put_word(1);
            EXPECT_EQ(other.reap(), 0);
        }
    }
    EXPECT_EQ(count_fds(), before);
    { endpoint fresh(4096); } // its start sweeps what the killed one left
    const std::string list = "ls " + folder + " | grep -c sock";
    FILE *p = popen(list.c_str(), "r");
    int   sockets = -1;
    ASSERT_EQ(fscanf(p, "%d", &sockets), 1);
    pclose(p);
    EXPECT_EQ(sockets, 0);
}

} // namespace
