// How a process ends that nobody kills: it becomes another program, it exits in the middle of its traffic, from any of its threads, while the helper
// does not answer, while another thread closes the device, or with destructors that still send.
#include "child.h"

#include "softefa/dev/publish.h"
#include "softefa/fabric/private_fd.h"

#include <algorithm>
#include <atomic>
#include <fcntl.h>
#include <sched.h>
#include <stdio_ext.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <vector>

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
        while (e.scq.poll_surely() || e.rcq.poll_surely()) {
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

/// The code with which a process ends that may hang; -SIGKILL: it hung.
int reap_in_time(child &other)
{
    siginfo_t done{};
    const bool ended = until([&] { return waitid(P_PID, static_cast<id_t>(other.pid), &done, WEXITED | WNOHANG | WNOWAIT) == 0 && done.si_pid != 0; });
    if (!ended)
        other.kill(SIGKILL);
    return other.reap();
}

/// The folder's names of processes.
unsigned names_in(const std::string &folder)
{
    unsigned count = 0;
    for (const auto &entry : std::filesystem::directory_iterator(folder))
        count += entry.path().extension() == ".sock" || entry.path().extension() == ".proc";
    return count;
}

std::atomic<bool> sink_entered, sink_released;

/// Stands for whatever can hold the helper up: a full disk, a folder on a server that does not answer.
bool slow_sink(unsigned, const device_counters &) noexcept
{
    sink_entered = true;
    while (!sink_released)
        usleep(1000);
    return true;
}

/// For a child: its helper thread is in slow_sink, for ever. Null: it did not come there.
endpoint *endpoint_with_a_helper_held_up()
{
    __fpurge(stdout);
    publish_to(slow_sink);
    auto *e = new endpoint();
    e->qp.post(e->qp.send_inline(1, e->ah, 0xfff0, "counted"));
    return until([&] { e->scq.poll(); return sink_entered.load(); }) ? e : nullptr;
}

/// FAB-2
TEST_F(endings, exit_does_not_wait_for_a_helper_that_is_held_up)
{
    wanted.snapshot_ns = base::ms(1);
    use();
    child other([&](pipe_end) {
        static endpoint *const e = endpoint_with_a_helper_held_up();
        if (e == nullptr)
            return 1;
        std::exit(0);
    });
    EXPECT_EQ(reap_in_time(other), 0);
    EXPECT_EQ(names_in(folder), 0u);
}

/// FAB-2: the other thread holds the control lock, and waits for the helper.
TEST_F(endings, exit_beside_a_close_that_is_held_up_ends)
{
    wanted.snapshot_ns = base::ms(1);
    use();
    child other([&](pipe_end) {
        static endpoint *const e = endpoint_with_a_helper_held_up();
        if (e == nullptr)
            return 1;
        static std::atomic<bool> closing = false;
        std::thread([] {
            closing = true;
            context_close(e->at.context);
        }).detach();
        if (!until([] { return closing.load(); }))
            return 2;
        std::exit(0);
    });
    EXPECT_EQ(reap_in_time(other), 0);
}

/// The same as it happens: neither is held up, and each may be the first.
TEST_F(endings, exit_beside_a_close_ends)
{
    for (unsigned k = 0; k < 40; ++k) {
        child other([&](pipe_end) -> int {
            __fpurge(stdout);
            static endpoint         *e = new endpoint();
            static std::atomic<bool> closing = false;
            std::thread([] {
                closing = true;
                context_close(e->at.context);
            }).detach();
            while (!closing)
                std::this_thread::yield();
            usleep(k % 8 * 50);
            std::exit(0);
        });
        ASSERT_EQ(reap_in_time(other), 0) << k;
    }
}

endpoint     *sends_at_the_end = nullptr;
std::uint16_t sends_to = 0;

/// As a library's destructor, which runs behind those of a library that is preloaded: one of low priority is the last of this program.
[[gnu::destructor(101)]] void send_at_the_end()
{
    if (sends_at_the_end == nullptr)
        return;
    endpoint &e = *sends_at_the_end;
    e.qp.post(e.qp.send_inline(2, e.ah, sends_to, "at the end"));
    const auto done = e.scq.wait();
    _exit(done && done->req_id == 2 && done->status == 0 ? 0 : 3);
}

void send_in_a_destructor(bool first_before)
{
    child other([&](pipe_end io) {
        address   peer;
        endpoint *own = new endpoint();
        if (!io.get(&peer))
            return 1;
        if (first_before) {
            own->qp.post(own->qp.send_inline(1, own->ah, peer.qpn, "before"));
            const auto done = own->scq.wait();
            if (!done || done->status != 0)
                return 2;
        }
        __fpurge(stdout);
        sends_to         = peer.qpn;
        sends_at_the_end = own;
        std::exit(4);
    });
    endpoint e;
    for (std::uint16_t i = 0; i < 2; ++i)
        e.qp.post_recv(i, {e.slice(i * 64u, 64)});
    ASSERT_TRUE(other.end.put(address_of(e)));
    for (const char *text : {"before", "at the end"}) {
        if (!first_before && *text == 'b')
            continue;
        const auto got = e.rcq.wait();
        ASSERT_TRUE(got) << text;
        EXPECT_EQ(got->status, 0);
        EXPECT_EQ(std::memcmp(e.memory.data() + got->req_id * 64u, text, got->length), 0);
    }
    EXPECT_EQ(reap_in_time(other), 0);
}

/// FAB-1
TEST_F(endings, send_of_a_destructor_arrives_at_a_known_peer) { send_in_a_destructor(true); }
TEST_F(endings, send_of_a_destructor_arrives_at_a_new_peer) { send_in_a_destructor(false); }

/// FAB-1: by exit() in a process that never closed anything.
TEST_F(endings, exit_takes_the_names_away_and_counts_what_was_not_counted)
{
    int shown[2]; // what the sink was told
    ASSERT_EQ(pipe(shown), 0);
    wanted.snapshot_ns = base::sec(3600);
    use();
    child other([&](pipe_end io) {
        __fpurge(stdout);
        static const int           write_end = shown[1];
        static const std::uint64_t before    = counted().tx_messages; // of this program's other tests
        publish_to([](unsigned, const device_counters &now) noexcept {
            const std::uint64_t more = now.tx_messages - before;
            return write(write_end, &more, sizeof(more)) == sizeof(more);
        });
        static endpoint *e = new endpoint();
        e->qp.post_recv(1, {e->slice(0, 64)});
        e->qp.post(e->qp.send_inline(1, e->ah, e->qp.qpn, "to myself"));
        if (!e->scq.wait() || !io.put_word(names_in(folder)))
            return 1;
        std::exit(0);
    });
    ::close(shown[1]);
    EXPECT_TRUE(other.end.wait_word(2)); // while it lived
    std::uint64_t sent = 0, last = 0;
    while (read(shown[0], &sent, sizeof(sent)) == sizeof(sent))
        last = sent;
    EXPECT_EQ(last, 1u);
    EXPECT_EQ(reap_in_time(other), 0);
    EXPECT_EQ(names_in(folder), 0u);
    ::close(shown[0]);
}

/// By raw system calls, as some languages' runtimes do it.
void close_behind_our_back()
{
    for (int fd = 3; fd < 1024; ++fd)
        if (softefa::fabric::fd_is_private(fd))
            syscall(SYS_close, fd);
}

/// HLP-3
TEST_F(endings, device_whose_descriptors_are_gone_can_be_closed)
{
    child other([&](pipe_end) {
        auto *e = new endpoint();
        if (!until([] { return helper_sleeps(); }))
            return 1;
        close_behind_our_back();
        delete e;
        endpoint fresh;
        fresh.qp.post_recv(1, {fresh.slice(0, 64)});
        fresh.qp.post(fresh.qp.send_inline(1, fresh.ah, fresh.qp.qpn, "again"));
        const auto done = fresh.scq.wait();
        return done && done->status == 0 ? 0 : 2;
    });
    EXPECT_EQ(reap_in_time(other), 0);
}

/// All that is left to us of a number that the program took over is to leave it alone: no word of ours goes there, and nobody closes it, in a
/// forked child neither.
TEST_F(endings, files_of_the_program_on_numbers_of_ours_are_left_alone)
{
    child other([&](pipe_end) {
        static endpoint *volatile e = new endpoint(); // reachable in the forked child, too, so valgrind calls it no leak
        if (!until([] { return helper_sleeps(); }))
            return 1;
        const int        file = memfd_create("program", MFD_CLOEXEC);
        std::vector<int> taken;
        for (int fd = 3; fd < 1024; ++fd)
            if (softefa::fabric::fd_is_private(fd) && dup3(file, fd, O_CLOEXEC) == fd)
                taken.push_back(fd);
        const auto untouched = [&] {
            return !taken.empty() && lseek(file, 0, SEEK_END) == 0 && std::all_of(taken.begin(), taken.end(), [](int fd) { return fcntl(fd, F_GETFD) >= 0; });
        };
        const pid_t pid = fork();
        if (pid == 0) { // as the library's handlers do it
            softefa::fabric::private_fds_forked();
            process_forked();
            _exit(untouched() ? 0 : 2);
        }
        int status = -1;
        if (waitpid(pid, &status, 0) != pid || status != 0)
            return 2;
        delete e;
        return untouched() ? 0 : 3;
    });
    EXPECT_EQ(reap_in_time(other), 0);
}

TEST_F(endings, process_whose_descriptors_are_gone_can_exit)
{
    child other([&](pipe_end) {
        __fpurge(stdout);
        [[maybe_unused]] static endpoint *volatile e = new endpoint(); // reachable, so LeakSanitizer calls it no leak
        if (!until([] { return helper_sleeps(); }))
            return 1;
        close_behind_our_back();
        std::exit(0);
    });
    EXPECT_EQ(reap_in_time(other), 0);
}

} // namespace
