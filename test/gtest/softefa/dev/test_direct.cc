/* Rings that a program reads and writes without any call: what moves then is moved by the helper thread alone.
 *
 * The views of nic.h lose their handles, so that ringing a doorbell and taking an entry are stores and loads and nothing else.
 */
#include "softefa/dev/child.h"
#include "softefa/dev/direct.h"

#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sched.h>
#include <sys/syscall.h>

namespace {

using namespace nic;

class direct : public device_test {};

constexpr unsigned sq_size = 32, rq_size = 64, cq_size = 128, slot_size = 64, window = 16;
constexpr std::size_t recv_at = 16384;

std::uint8_t byte_of(std::uint32_t sequence, unsigned at) { return static_cast<std::uint8_t>(sequence * 31 + at * 7 + (sequence >> 8)); }

/// An endpoint that makes no call between its set-up and its end.
struct party {
    std::unique_ptr<endpoint> e;
    address                   peer;
    std::uint32_t             sent = 0, completed = 0, received = 0;
    std::vector<bool>         seen;
    handle                    qp = 0;

    bool open(pipe_end &io, std::uint32_t total)
    {
        qp_request r;
        r.max_send_wr = sq_size;
        r.max_recv_wr = rq_size;
        e             = std::make_unique<endpoint>(std::size_t{1} << 15, r, -1, 0, cq_size);
        seen.resize(total);
        qp = e->qp.h;
        direct_qp(qp);
        direct_cq(e->scq.h);
        direct_cq(e->rcq.h);
        e->qp.h = e->scq.h = e->rcq.h = 0; // from here on, calls know nothing of them
        for (unsigned i = 0; i < rq_size; ++i)
            post_recv(static_cast<std::uint16_t>(i));
        return io.swap(address_of(*e), &peer);
    }
    void post_recv(std::uint16_t i) { e->qp.post_recv(i, {e->slice(recv_at + i * slot_size, slot_size)}); }

    void post_sends(std::uint32_t total)
    {
        while (sent < total && sent - completed < window) {
            const std::size_t at = sent % window * slot_size;
            std::memcpy(e->memory.data() + at, &sent, 4);
            for (unsigned k = 4; k < slot_size; ++k)
                e->memory[at + k] = byte_of(sent, k);
            e->qp.post(e->qp.send(static_cast<std::uint16_t>(sent), e->ah, peer.qpn, {e->slice(at, slot_size)}));
            ++sent;
        }
    }
    /// False: something is wrong. Completions of sends may change places within the window: their buffers are used again only when all are there.
    bool take(std::uint32_t total, bool *found_p)
    {
        if (auto done = e->scq.take()) {
            *found_p = true;
            ++completed;
            if (done->status != 0 || done->queue != 1)
                return false;
        }
        auto got = e->rcq.take();
        if (!got)
            return true;
        *found_p = true;
        std::uint32_t       n;
        const std::uint8_t *at = e->memory.data() + recv_at + got->req_id * slot_size;
        std::memcpy(&n, at, 4);
        if (got->status != 0 || got->queue != 2 || got->req_id >= rq_size || got->length != slot_size || got->src_qpn != peer.qpn || n >= total || seen[n])
            return false;
        for (unsigned k = 4; k < slot_size; ++k)
            if (at[k] != byte_of(n, k))
                return false;
        seen[n] = true;
        ++received;
        post_recv(got->req_id);
        return true;
    }

    /// Both directions at once. 0, or where it stopped.
    int run(std::uint32_t total)
    {
        const auto end = base::clock_now_ns() + base::ms(2 * generous_ms);
        while (completed < total || received < total) {
            if (sent == completed)
                post_sends(total);
            bool found = false;
            if (!take(total, &found))
                return 10;
            if (!found) {
                if (base::clock_now_ns() > end)
                    return completed < total ? 11 : 12;
                sched_yield();
            }
        }
        return 0;
    }
};

/// Every ring comes round more than a hundred times, or more than fifty: the completion queues.
TEST_F(direct, two_processes_exchange_messages_without_calls)
{
    constexpr std::uint32_t total = 8000;
    const device_counters before = counted();
    child other([&](pipe_end io) {
        party p;
        if (!p.open(io, total))
            return 2;
        const int outcome = p.run(total);
        std::uint32_t word;
        return outcome != 0 ? outcome : io.put_word(1) && io.get(&word) ? 0 : 3;
    });
    party p;
    ASSERT_TRUE(p.open(other.end, total));
    EXPECT_EQ(0, p.run(total));
    std::uint32_t word = 0;
    EXPECT_TRUE(other.end.get(&word)) << "the other side did not get everything";
    other.end.put_word(1);
    EXPECT_EQ(other.reap(), 0);
    EXPECT_EQ(before.cq_overflows, counted().cq_overflows);
    EXPECT_EQ(before.bad_doorbell, counted().bad_doorbell);
}

/// A process sends to itself until the 16 bits of both doorbells have come round.
TEST_F(direct, counters_in_the_doorbells_come_round)
{
    constexpr unsigned batch = 4096, batches = 17;
    static_assert(batch * batches > 65536);
    qp_request r;
    r.max_send_wr = r.max_recv_wr = batch;
    endpoint e(std::size_t{1} << 16, r, -1, 0, 2 * batch);
    direct_qp(e.qp.h);
    direct_cq(e.scq.h);
    direct_cq(e.rcq.h);
    e.qp.h = e.scq.h = e.rcq.h = 0;
    auto *const words = reinterpret_cast<std::uint32_t *>(e.memory.data());
    for (std::uint32_t lap = 0; lap < batches; ++lap) {
        for (unsigned i = 0; i < batch; ++i)
            e.qp.post_recv(static_cast<std::uint16_t>(i), {e.slice((batch + i) * 4, 4)}, i + 1 == batch);
        for (unsigned i = 0; i < batch; ++i) {
            words[i] = lap * batch + i;
            e.qp.put(e.qp.send(static_cast<std::uint16_t>(i), e.ah, e.qp.qpn, {e.slice(i * 4, 4)}));
        }
        e.qp.ring();
        unsigned          sent = 0, got = 0;
        std::vector<bool> seen(batch);
        ASSERT_TRUE(until([&] { // takes all that is there: a pause for each entry may cost a time slice on a busy machine
            while (auto done = e.scq.take()) {
                ++sent;
                EXPECT_EQ(0, done->status);
            }
            while (auto message = e.rcq.take()) {
                ++got;
                EXPECT_EQ(0, message->status);
                EXPECT_EQ(4u, message->length);
                const std::uint32_t n = words[batch + message->req_id % batch] - lap * batch;
                EXPECT_LT(n, batch);
                EXPECT_FALSE(seen[n % batch]);
                seen[n % batch] = true;
            }
            return sent == batch && got == batch;
        })) << lap << ": " << sent << " sent, " << got << " received";
    }
}

/// The queue's counters begin anew, and the doorbell comes to a value that it had before.
TEST_F(direct, reset_queue_pair_serves_the_same_doorbell_value_again)
{
    endpoint     e;
    const handle qp = e.qp.h;
    direct_qp(qp);
    direct_cq(e.scq.h);
    direct_cq(e.rcq.h);
    e.scq.h = e.rcq.h = 0;
    for (unsigned lap = 0; lap < 3; ++lap) {
        e.qp.h = 0;
        e.qp.post_recv(5, {e.slice(0, 64)});
        e.qp.post(e.qp.send(6, e.ah, e.qp.qpn, {e.slice(128, 32)}));
        std::optional<cqe> sent, got;
        ASSERT_TRUE(until([&] { return (sent || (sent = e.scq.take())) && (got || (got = e.rcq.take())); })) << lap;
        EXPECT_EQ(0, sent->status);
        EXPECT_EQ(32u, got->length);
        e.qp.h = qp;
        ASSERT_EQ(base::status::ok, e.qp.to(qp_state::reset));
        e.qp.sq_posted = e.qp.rq_posted = 0;
        e.qp.connect();
    }
}

constexpr std::uint32_t arm_bit = 1u << 31;

struct armed_case {
    event_pipe events;
    endpoint   e;
    cq_view    cq; ///< the receive queue's, with a doorbell
    queue_pair qp;
    std::uint32_t sequence = 0, read = 0;

    armed_case()
    {
        cq_request r;
        r.event_fd = events.write_fd;
        cq         = e.at.cq(16, r);
        EXPECT_TRUE(qp.open(e.at, e.pd, e.scq.h, cq.h));
        qp.connect();
        direct_qp(qp.h);
        direct_cq(cq.h);
    }
    void store(bool arm)
    {
        __atomic_store_n(cq.doorbell, (read & 0xffff) | sequence << 29 | (arm ? arm_bit : 0), __ATOMIC_RELEASE);
    }
    void message()
    {
        queue_pair silent = qp;
        silent.h          = 0;
        silent.post_recv(1, {e.slice(0, 64)});
        silent.post(silent.send(2, e.ah, qp.qpn, {e.slice(128, 8)}));
        qp.sq_posted = silent.sq_posted;
        qp.rq_posted = silent.rq_posted;
    }
    bool entry()
    {
        cq_view silent  = cq;
        silent.h        = 0;
        silent.doorbell = nullptr;
        if (!until([&] { return silent.take().has_value(); }))
            return false;
        ++cq.consumer;
        ++read;
        return true;
    }
};

/// A thread that blocks on its channel is woken, whether the entry comes after arming or was there before.
TEST_F(direct, store_into_the_doorbell_of_a_cq_arms_it)
{
    armed_case c;
    for (unsigned lap = 0; lap < 40; ++lap) { // more entries than the queue has
        if (lap % 2 == 0) {
            c.store(true);
            c.message();
        } else {
            c.message();
            c.store(true);
        }
        ASSERT_TRUE(c.events.take()) << lap;
        c.sequence = (c.sequence + 1) & 3;
        ASSERT_TRUE(c.entry()) << lap;
    }
}

/// The store that follows a poll hides the arm bit before anybody looked: the notification comes nevertheless.
TEST_F(direct, arming_that_a_later_store_hid_is_not_lost)
{
    armed_case c;
    for (unsigned lap = 0; lap < 40; ++lap) {
        c.message();
        ASSERT_TRUE(c.entry()) << lap;
        c.store(true);
        c.store(false);
        c.message();
        ASSERT_TRUE(c.events.take()) << lap;
        c.sequence = (c.sequence + 1) & 3;
        ASSERT_TRUE(c.entry()) << lap;
    }
}

/// The helper thread of this process, as the kernel shows it.
struct helper_seen {
    std::uint64_t sleeps   = 0;     ///< times that it gave the processor back
    bool          for_good = false; ///< it waits for events, without a time limit: neither runs nor is about to, nor naps
};

/// False: the kernel does not tell what a thread waits for.
bool look_at_helper(helper_seen *seen_p)
{
    std::error_code failed;
    for (const auto &thread : std::filesystem::directory_iterator("/proc/self/task", failed)) {
        std::string name, call;
        std::getline(std::ifstream(thread.path() / "comm"), name);
        if (name != "softefa")
            continue;
        std::ifstream status(thread.path() / "status");
        for (std::string word; status >> word;)
            if (word == "voluntary_ctxt_switches:")
                status >> seen_p->sleeps;
        if (!std::getline(std::ifstream(thread.path() / "syscall"), call))
            return false;
        long long          number = -1;
        unsigned long long a[4]   = {};
        const bool         waits  = std::sscanf(call.c_str(), "%lld %llx %llx %llx %llx", &number, a, a + 1, a + 2, a + 3) == 5; // else it runs
        bool               plain  = number == SYS_epoll_pwait;
#ifdef SYS_epoll_wait
        plain |= number == SYS_epoll_wait;
#endif
        seen_p->for_good = waits && plain && static_cast<int>(a[3]) == -1;
    }
    return !failed;
}

/// DIR-2
TEST_F(direct, helper_naps_until_the_last_such_queue_pair_is_gone)
{
    wanted.snapshot_ns = base::ms(1); // then what earlier tests counted is soon shown, and nothing else wakes the helper
    use();
    event_pipe events;
    endpoint   e;
    cq_request r;
    r.event_fd       = events.write_fd;
    const cq_view cq = e.at.cq(16, r);
    queue_pair    qp;
    ASSERT_TRUE(qp.open(e.at, e.pd, e.scq.h, cq.h));
    qp.connect();
    helper_seen seen;
    if (!look_at_helper(&seen))
        GTEST_SKIP() << "this kernel does not tell what a thread waits for";
    const auto rests = [&] { return look_at_helper(&seen) && seen.for_good; };
    ASSERT_TRUE(until(rests)) << "it does not rest without any";
    direct_qp(qp.h);
    direct_cq(cq.h);
    const auto start = seen.sleeps;
    EXPECT_TRUE(until([&] { return look_at_helper(&seen) && seen.sleeps >= start + 50; })) << "it does not look";
    EXPECT_FALSE(rests());
    EXPECT_EQ(base::status::ok, qp_destroy(qp.h));
    EXPECT_TRUE(until(rests)) << "it looks for ever";
}

} // namespace
