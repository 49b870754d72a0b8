/* Many processes, and the sleep of a peer against its wake-up. */
#include "softefa/dev/child.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

namespace {

using namespace nic;

class stress : public device_test {
protected:
    /// The helper wakes for snapshots of counters and serves then, too: a lost wake-up would only cost their period.
    void without_snapshots()
    {
        wanted.snapshot_ns = base::sec(3600);
        use();
    }
};

/// Rounds of sleep and wake against a process that never polls: each read needs its helper to wake.
TEST_F(stress, no_wake_up_is_lost)
{
    const char    *wish   = std::getenv("SOFTEFA_TEST_WAKES");
    const unsigned rounds = wish != nullptr ? static_cast<unsigned>(std::atoi(wish)) : 3000;
    without_snapshots();
    child other([&](pipe_end io) {
        endpoint      e(4096);
        address       peer;
        std::uint32_t word;
        return io.swap(address_of(e), &peer) && io.get(&word, 5 * generous_ms) ? 0 : 1;
    });
    endpoint e(4096);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    base::rng random(1);
    for (unsigned n = 0; n < rounds; ++n) {
        e.qp.post(e.qp.rdma(1, 3, e.ah, peer.qpn, e.slice(0, 64), peer.memory, peer.rkey));
        auto done = e.scq.wait();
        ASSERT_TRUE(done) << "lost after " << n << " rounds";
        ASSERT_EQ(done->status, 0) << n;
        for (unsigned spin = random.below(400); spin != 0; --spin) // meet the sleeper at every point of its way to sleep
            __asm__ volatile("");
    }
    other.end.put_word(1);
    EXPECT_EQ(other.reap(), 0);
}

/// Whether each thread of another process waits in the kernel.
bool all_threads_wait(pid_t pid)
{
    std::error_code failed;
    for (const auto &thread : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", failed)) {
        std::ifstream file(thread.path() / "stat");
        std::string   text((std::istreambuf_iterator<char>(file)), {});
        const auto    name_end = text.rfind(')');
        if (name_end == std::string::npos || text.compare(name_end, 3, ") S") != 0)
            return false;
    }
    return !failed;
}

/// A process that serves with nobody polling goes to sleep where its acknowledgements find no room, and is told once there is some.
TEST_F(stress, sleeper_without_room_for_acknowledgements_is_woken)
{
    constexpr unsigned count = 6000; // more than there is room for; as records they all fit
    static_assert(count > softefa::fabric::ack_count && (count + 2) * softefa::fabric::unit_size < softefa::fabric::data_ring_size);
    wanted.limits.max_sq_wr    = 8192;
    wanted.limits.max_llq_size = 8192 * 64;
    without_snapshots();
    qp_request r;
    r.max_send_wr = r.max_recv_wr = 8192;
    child other([&](pipe_end io) {
        endpoint e(4096, r, -1, 0, 8192);
        address  peer;
        for (unsigned i = 0; i <= count; ++i)
            e.qp.post_recv(static_cast<std::uint16_t>(i), {e.slice(0, 64)});
        std::uint32_t word;
        return io.swap(address_of(e), &peer) && io.get(&word, 5 * generous_ms) ? 0 : 1;
    });
    endpoint e(4096, r, -1, 0, 8192);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    e.qp.post(e.qp.send_inline(0, e.ah, peer.qpn, "hello"));
    auto hello = e.scq.wait();
    ASSERT_TRUE(hello);
    ASSERT_EQ(hello->status, 0);

    const auto before = counted().tx_messages;
    other.kill(SIGSTOP);
    int state = 0;
    ASSERT_EQ(waitpid(other.pid, &state, WUNTRACED), other.pid);
    ASSERT_TRUE(WIFSTOPPED(state));
    for (unsigned i = 0; i < count; ++i)
        e.qp.put(e.qp.send_inline(1, e.ah, peer.qpn, "x"));
    e.qp.ring();
    ASSERT_TRUE(until([&] { engine_poll(e.scq.h); return counted().tx_messages - before >= count; }));
    {
        const engine_guard nothing_is_taken;
        softefa::dev::link *l = nullptr; // when both connected at once it is not the first slot
        for (unsigned i = 1; i < engine().link_count && l == nullptr; ++i)
            l = engine().links[i];
        ASSERT_NE(l, nullptr);
        other.kill(SIGCONT);
        softefa::wire::ack       last;
        softefa::fabric::ack_rx &acks = l->channel->acks_in;
        ASSERT_TRUE(until([&] { return acks.peek_ahead(last, softefa::fabric::ack_count - 2); }));
        ASSERT_TRUE(until([&] { return all_threads_wait(other.pid); }));
    }
    for (unsigned i = 0; i < count; ++i) {
        auto done = e.scq.wait();
        ASSERT_TRUE(done) << i;
        ASSERT_EQ(done->status, 0);
    }
    other.end.put_word(1);
    EXPECT_EQ(other.reap(), 0);
}

constexpr unsigned ranks = 8, messages = 60;

int rank_main(pipe_end io, unsigned me)
{
    qp_request r;
    r.max_recv_wr = 512;
    endpoint                 e(ranks * messages * 64 + 65536, r, -1, 0, 1024);
    std::array<address, ranks> all;
    for (std::uint16_t i = 0; i < 512; ++i)
        e.qp.post_recv(i, {e.slice(i * 64u, 64)});
    if (!io.put(address_of(e)) || !io.get(&all))
        return 2;
    unsigned sent = 0, completed = 0, received = 0;
    std::array<unsigned, ranks> from{};
    const auto end = base::clock_now_ns() + base::sec(120);
    while ((completed < ranks * messages || received < ranks * messages) && base::clock_now_ns() < end) {
        while (sent < ranks * messages && sent - completed < 48) {
            const unsigned to   = (me + sent) % ranks;
            char           text[16];
            std::snprintf(text, sizeof(text), "%u %u", me, sent / ranks);
            e.qp.post(e.qp.send_inline(1, e.ah, all[to].qpn, std::string(text, sizeof(text))));
            ++sent;
        }
        while (auto got = e.rcq.poll()) {
            unsigned who, which;
            if (got->status != 0 || std::sscanf(reinterpret_cast<char *>(e.memory.data()) + got->req_id * 64, "%u %u", &who, &which) != 2 ||
                who >= ranks || all[who].qpn != got->src_qpn)
                return 3;
            ++from[who];
            ++received;
        }
        while (auto done = e.scq.take()) {
            if (done->status != 0)
                return 4;
            ++completed;
        }
    }
    for (unsigned n : from)
        if (n != messages)
            return 5;
    io.put_word(1);
    std::uint32_t word;
    return io.get(&word) ? 0 : 6;
}

TEST_F(stress, eight_processes_all_to_all)
{
    wanted.reorder_per_65536 = 1638;
    use();
    std::vector<std::unique_ptr<child>> all;
    std::array<address, ranks>          addresses;
    for (unsigned i = 0; i < ranks; ++i)
        all.push_back(std::make_unique<child>([i](pipe_end io) { return rank_main(io, i); }));
    for (unsigned i = 0; i < ranks; ++i)
        ASSERT_TRUE(all[i]->end.get(&addresses[i]));
    for (auto &c : all)
        ASSERT_TRUE(c->end.put(addresses));
    for (auto &c : all) {
        std::uint32_t word = 0;
        ASSERT_TRUE(c->end.get(&word) && word == 1);
    }
    for (auto &c : all)
        c->end.put_word(1);
    for (auto &c : all)
        EXPECT_EQ(c->reap(), 0);
}

/// Traffic of all kinds until killed; says its address first.
int victim(pipe_end io)
{
    endpoint e(1 << 16);
    address  peer;
    if (!io.swap(address_of(e), &peer))
        return 2;
    for (std::uint16_t n = 0; n < 32; ++n)
        e.qp.post_recv(n, {e.slice(n * 64u, 64)});
    unsigned outstanding = 0;
    for (;; sched_yield()) {
        if (outstanding < 24) {
            e.qp.post(outstanding % 2 != 0 ? e.qp.send_inline(1, e.ah, peer.qpn, "traffic")
                                           : e.qp.rdma(2, 2, e.ah, peer.qpn, e.slice(8192, 40'000), peer.memory + 16384, peer.rkey));
            ++outstanding;
        }
        while (auto got = e.rcq.poll())
            e.qp.post_recv(got->req_id, {e.slice(got->req_id * 64u, 64)});
        while (e.scq.take())
            --outstanding;
    }
}

/// Comes, takes away what the dead left as every newcomer does, and closes its device.
int guest()
{
    { endpoint e(4096); }
    return 0;
}

enum class chore : std::uint32_t { stop, birth, done, invite, count_files, count_descriptors };

std::uint32_t entries(const std::string &path)
{
    return static_cast<std::uint32_t>(std::distance(std::filesystem::directory_iterator(path), std::filesystem::directory_iterator()));
}

/// Forks victims one after the other, and a guest at the end: it has no device and no thread of its own. So it counts, too: ThreadSanitizer takes a
/// folder that the test opens for a race where it gets the number of a socket that the helper thread closed by a raw call.
int nursery(pipe_end io, pipe_end victims_end, const std::string &folder)
{
    alarm(0);
    chore next;
    while (io.get(&next, 600'000) && next != chore::stop) {
        if (next == chore::count_files || next == chore::count_descriptors) {
            if (!io.put(entries(next == chore::count_files ? folder : "/proc/" + std::to_string(getppid()) + "/fd")))
                return 1;
            continue;
        }
        const pid_t pid = fork();
        if (pid == 0)
            _exit(next == chore::birth ? victim(victims_end) : guest());
        if (!io.put(pid))
            return 1;
        while (waitpid(pid, nullptr, 0) == -1 && errno == EINTR) {
        }
        io.put(chore::done);
    }
    return 0;
}

TEST_F(stress, killed_and_restarted_peers_never_wedge_the_survivor)
{
    const char    *wish   = std::getenv("SOFTEFA_TEST_KILLS");
    const unsigned cycles = wish != nullptr ? static_cast<unsigned>(std::atoi(wish)) : 100;
    base::rng      random(4);
    int            pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    pipe_end victims_end{pair[1]}, victim_now{pair[0]};
    child    births([&](pipe_end io) { return nursery(io, victims_end, folder); });
    endpoint e(1 << 17);
    for (std::uint16_t i = 0; i < 32; ++i)
        e.qp.post_recv(i, {e.slice(i * 64u, 64)});
    const auto ask = [&](chore what) {
        std::uint32_t answer = 0;
        EXPECT_TRUE(births.end.put(what) && births.end.get(&answer));
        return answer;
    };
    const auto is_done = [&] {
        chore word = chore::stop;
        return births.end.get(&word) && word == chore::done;
    };
    const unsigned files = ask(chore::count_files);
    unsigned       outstanding = 0, gone = 0, most_files = 0, descriptors = 0;
    for (unsigned i = 0; i < cycles; ++i) {
        address peer;
        pid_t   pid = -1;
        ASSERT_TRUE(births.end.put(chore::birth) && births.end.get(&pid));
        ASSERT_TRUE(victim_now.swap(address_of(e), &peer)) << i;
        for (unsigned k = 0, most = 1 + random.below(300); k < most; ++k) {
            if (outstanding < 32) {
                e.qp.post(k % 3 != 0 ? e.qp.send_inline(1, e.ah, peer.qpn, "hello")
                                     : e.qp.rdma(1, 2, e.ah, peer.qpn, e.slice(65536, 4096), peer.memory, peer.rkey));
                ++outstanding;
            }
            if (auto got = e.rcq.poll())
                e.qp.post_recv(got->req_id, {e.slice(got->req_id * 64u, 64)});
            while (e.scq.take())
                --outstanding;
        }
        ::kill(pid, SIGKILL);
        ASSERT_TRUE(is_done());
        // What the victim had not read, and what it had said last, is not for the next one.
        char left[256];
        while (recv(pair[1], left, sizeof(left), MSG_DONTWAIT) > 0 || recv(pair[0], left, sizeof(left), MSG_DONTWAIT) > 0) {
        }
        while (outstanding != 0) {
            auto done = e.scq.wait();
            ASSERT_TRUE(done) << "wedged in cycle " << i;
            gone += done->status == 9 || done->status == 8;
            ASSERT_TRUE(done->status == 0 || done->status == 9 || done->status == 8) << int{done->status};
            --outstanding;
            if (auto got = e.rcq.poll())
                e.qp.post_recv(got->req_id, {e.slice(got->req_id * 64u, 64)});
        }
        most_files = std::max(most_files, ask(chore::count_files));
        if (i == 10)
            descriptors = ask(chore::count_descriptors);
    }
    EXPECT_GT(gone, 0u);
    if (cycles > 10) { // some of the last are still being noticed
        EXPECT_TRUE(until([&] { e.scq.poll(); return ask(chore::count_descriptors) <= descriptors + 8; }));
    }
    EXPECT_LE(most_files, files + 8) << "each newcomer takes away what was left before it";
    pid_t last = -1;
    ASSERT_TRUE(births.end.put(chore::invite) && births.end.get(&last) && is_done());
    EXPECT_EQ(ask(chore::count_files), files) << "one newcomer later nothing of the killed is left";
    std::printf("%u cycles, %u works ended by a death; %u files before, at most %u, %u behind the next process\n", cycles, gone, files, most_files, ask(chore::count_files));
    births.end.put(chore::stop);
    ::close(pair[0]);
    ::close(pair[1]);
}

} // namespace
