/* As many peers as a process can have, and one more: on the side that is asked and on the side that asks. */
#include "softefa/dev/child.h"
#include "softefa/dev/helper_state.h"

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

} // namespace
