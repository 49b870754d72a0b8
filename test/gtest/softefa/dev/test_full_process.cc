/* As many peers as a process can have, and one more; and as many as it has descriptors for: on the side that is asked and on the side that asks. */
#include "softefa/dev/child.h"
#include "softefa/dev/helper_state.h"

#include <memory>
#include <sys/resource.h>
#include <tuple>

namespace {

using namespace nic;

/// Each line is told once in a process's life, so the full process is one of its own. It is the one that asks, or the one that is asked.
class full_process : public device_test, public testing::WithParamInterface<bool> {};

TEST_P(full_process, one_more_peer_is_refused_in_bounded_time_and_has_room_once_another_ends)
{
    const bool asks = GetParam();
    child      full([&](pipe_end io) {
        process_forked();
        helper.peers_most      = 1;
        const auto gone_before = peers_gone(); // of the process that was forked
        const told_lines said;
        endpoint   e(4096);
        address    first, second;
        for (std::uint16_t i = 0; i < 8; ++i)
            e.qp.post_recv(i, {e.slice(i * 64u, 64)});
        if (!io.put(address_of(e)) || !io.get(&first) || !io.get(&second))
            return 2;
        const auto status_of = [&](const address &to) {
            e.qp.post(e.qp.send_inline(1, e.ah, to.qpn, "to one more"));
            const auto done = e.scq.wait();
            return done ? int{done->status} : -1;
        };
        if (status_of(first) != 0 || !io.put_word(1))
            return 3;
        if (asks) {
            const auto start = base::clock_now_ns();
            if (status_of(second) != 15 || base::clock_now_ns() - start < no_room_limit / 2)
                return 4;
            if (status_of(second) != 15 || !io.put_word(2))
                return 5;
        }
        std::uint32_t word;
        if (!io.get(&word) || !until([&] { e.scq.poll(); return peers_gone() == gone_before + 1; })) // the first one has ended
            return 6;
        if (!until([&] { return told_lines::notices == 1u; }) || told_lines::files != 0)
            return 7;
        if (asks && status_of(second) != 0)
            return 8;
        if (!io.put_word(3) || (!asks && !e.rcq.wait()) || !io.get(&word))
            return 9;
        return told_lines::notices == 1u ? 0 : 10;
    });
    const auto waits_until_told = [](pipe_end io) {
        endpoint e(4096);
        for (std::uint16_t i = 0; i < 8; ++i)
            e.qp.post_recv(i, {e.slice(i * 64u, 64)});
        std::uint32_t word;
        return io.put(address_of(e)) && io.get(&word) ? 0 : 1;
    };
    child    first(waits_until_told);
    endpoint e(4096), datagrams(4096, [] { qp_request r; r.type = qp_type::ud; return r; }());
    address  there, one;
    for (std::uint16_t i = 0; i < 8; ++i)
        e.qp.post_recv(i, {e.slice(i * 64u, 64)});
    ASSERT_TRUE(full.end.get(&there) && first.end.get(&one));
    ASSERT_TRUE(full.end.put(one) && full.end.put(address_of(e)) && full.end.wait_word(1));
    const auto status_of_send = [&](endpoint &from) {
        from.qp.post(from.qp.send_inline(1, from.ah, there.qpn, "from one more"));
        const auto done = from.scq.wait();
        return done ? int{done->status} : -1;
    };
    if (asks) {
        ASSERT_TRUE(full.end.wait_word(2));
    } else {
        const std::uint64_t lost = counted().drop_ud_unreachable;
        EXPECT_EQ(status_of_send(e), 15);
        EXPECT_EQ(status_of_send(datagrams), 0) << "a datagram completes";
        EXPECT_EQ(counted().drop_ud_unreachable, lost + 1);
    }
    ASSERT_TRUE(first.end.put_word(1));
    ASSERT_EQ(first.reap(), 0);
    ASSERT_TRUE(full.end.put_word(1) && full.end.wait_word(3));
    if (asks)
        EXPECT_TRUE(e.rcq.wait());
    else
        EXPECT_EQ(status_of_send(e), 0);
    ASSERT_TRUE(full.end.put_word(1));
    EXPECT_EQ(full.reap(), 0);
}

INSTANTIATE_TEST_SUITE_P(asked_and_asking, full_process, testing::Bool());

/// So many more descriptors can be opened in this process, whose first three numbers are taken.
void leave_descriptors(unsigned count)
{
    rlimit few{};
    int    at = 3;
    for (unsigned found = 0; found < count; ++at)
        found += fcntl(at, F_GETFD) == -1;
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &few), 0);
    few.rlim_cur = static_cast<rlim_t>(at);
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
}

/// Descriptors run out at each step of a handshake: the peers wait, and come in as there is room for them. Their process is one that asks or is asked.
class out_of_descriptors : public device_test, public testing::WithParamInterface<std::tuple<bool, unsigned>> {
protected:
    static constexpr unsigned peers = 3;
    static std::uint64_t failed()
    {
        const engine_guard guard;
        return engine().peers.peers_failed;
    }
    /// The process that is short: says so once, and its work and that of its peers goes on with the descriptors for one more peer each time.
    static int short_of_them(pipe_end io, bool asks, unsigned left)
    {
        process_forked();
        const told_lines said;
        endpoint         e(4096);
        address          others[peers];
        std::uint32_t    word;
        for (std::uint16_t i = 0; i < peers; ++i)
            e.qp.post_recv(i, {e.slice(i * 64u, 64)});
        const auto cut_off = failed();
        if (!io.put(address_of(e)) || !io.get(&others))
            return 2;
        e.qp.post(e.qp.send_inline(9, e.ah, e.qp.qpn, "to itself")); // what opens a file later than the first message is open now
        if (!e.rcq.wait() || !e.scq.wait())
            return 3;
        e.qp.post_recv(7, {e.slice(7 * 64u, 64)});
        leave_descriptors(left);
        for (unsigned i = 0; asks && i < peers; ++i)
            e.qp.post(e.qp.send_inline(static_cast<std::uint16_t>(i), e.ah, others[i].qpn, "from the one"));
        cq_view &work = asks ? e.scq : e.rcq;
        if (!io.put_word(1) || !until([&] { work.poll(); return told_lines::notices == 1u; }))
            return 4;
        if (work.poll())
            return 5;
        for (unsigned i = 0; i < peers; ++i) {
            leave_descriptors(fds_of_peer);
            const auto done = work.wait();
            if (!done || done->status != 0)
                return 6;
        }
        if (!io.put_word(2) || !io.get(&word))
            return 7;
        return told_lines::notices != 1u ? 8 : told_lines::files != 0 ? 9 : failed() != cut_off ? 10 : 0;
    }
    static int other_one(pipe_end io, bool asked)
    {
        process_forked();
        const told_lines said;
        endpoint         e(4096);
        address          there;
        std::uint32_t    word;
        e.qp.post_recv(1, {e.slice(0, 64)});
        const auto cut_off = failed();
        if (!io.put(address_of(e)) || !io.get(&there))
            return 2;
        if (asked)
            e.qp.post(e.qp.send_inline(1, e.ah, there.qpn, "to the one"));
        const auto done = asked ? e.scq.wait() : e.rcq.wait();
        if (!done || done->status != 0)
            return 3;
        return !io.put_word(3) || !io.get(&word) ? 4 : told_lines::notices != 0 ? 5 : failed() != cut_off ? 6 : 0;
    }
};

TEST_P(out_of_descriptors, new_peers_wait_until_some_are_free_and_it_is_said_once)
{
    const auto [asks, left] = GetParam();
    child                               few([asks = asks, left = left](pipe_end io) { return short_of_them(io, asks, left); });
    std::vector<std::unique_ptr<child>> others;
    address                             there, addresses[peers];
    ASSERT_TRUE(few.end.get(&there));
    for (unsigned i = 0; i < peers; ++i) {
        others.push_back(std::make_unique<child>([asks = asks](pipe_end io) { return other_one(io, !asks); }));
        ASSERT_TRUE(others[i]->end.get(&addresses[i]));
    }
    ASSERT_TRUE(few.end.put(addresses) && few.end.wait_word(1));
    for (const auto &other : others)
        ASSERT_TRUE(other->end.put(there));
    EXPECT_TRUE(few.end.wait_word(2));
    for (const auto &other : others) {
        EXPECT_TRUE(other->end.wait_word(3) && other->end.put_word(4));
        EXPECT_EQ(other->reap(), 0);
    }
    EXPECT_TRUE(few.end.put_word(3));
    EXPECT_EQ(few.reap(), 0);
}

INSTANTIATE_TEST_SUITE_P(asked_and_asking, out_of_descriptors, testing::Combine(testing::Bool(), testing::Range(0u, fds_of_peer)));

} // namespace
