/* A queue pair number that passes from one living process to another: who has sent to the first one reaches the second one. */
#include "softefa/dev/child.h"
#include "softefa/dev/op_life.h"

namespace {

using namespace nic;

constexpr std::uint32_t leave = 1, gone = 2, arrived = 3;

qp_request request(softefa::dev::qp_type type)
{
    qp_request r;
    r.type = type;
    return r;
}

/// The owner of the number until it is told to give it up; lives on until it is told so, with its device open.
int first_owner(pipe_end io, softefa::dev::qp_type type)
{
    endpoint      e(4096, request(type));
    std::uint32_t word;
    e.qp.post_recv(1, {e.slice(0, 128)});
    if (!io.put(address_of(e)))
        return 2;
    if (auto got = e.rcq.wait(); !got || got->status != 0)
        return 3;
    if (!io.put_word(arrived) || !io.wait_word(leave) || qp_destroy(e.qp.h) != base::status::ok || !io.put_word(gone))
        return 4;
    return io.get(&word) ? 0 : 5;
}

/// Takes the number when it is free, and says so for each of `count` messages.
int second_owner(pipe_end io, softefa::dev::qp_type type, unsigned count)
{
    std::uint32_t word;
    if (!io.get(&word))
        return 2;
    endpoint e(4096, request(type));
    for (unsigned n = 0; n < count; ++n)
        e.qp.post_recv(static_cast<std::uint16_t>(n), {e.slice(0, 128)});
    if (!io.put(address_of(e)))
        return 3;
    for (unsigned n = 0; n < count; ++n)
        if (auto got = e.rcq.wait(); !got || got->status != 0 || !io.put_word(arrived))
            return 4;
    return io.get(&word) ? 0 : 5;
}

class moved : public device_test {
protected:
    void SetUp() override
    {
        device_test::SetUp();
        wanted.reuse_qpn = 1;
        use();
    }
    /// From here on `e` knows the way to the first owner, and the number is the second one's.
    void move(endpoint &e, child &first, child &second, std::uint16_t *qpn_p)
    {
        address before, after;
        ASSERT_TRUE(first.end.get(&before));
        e.qp.post(e.qp.send_inline(1, e.ah, before.qpn, "first"));
        ASSERT_TRUE(first.end.wait_word(arrived));
        auto done = e.scq.wait();
        ASSERT_TRUE(done);
        ASSERT_EQ(done->status, 0);
        ASSERT_TRUE(first.end.put_word(leave) && first.end.wait_word(gone) && second.end.put_word(1) && second.end.get(&after));
        ASSERT_EQ(before.qpn, after.qpn) << "the number was to move";
        *qpn_p = after.qpn;
    }
    void leave_both(child &first, child &second)
    {
        first.end.put_word(1);
        second.end.put_word(1);
        EXPECT_EQ(first.reap(), 0);
        EXPECT_EQ(second.reap(), 0);
    }
};

TEST_F(moved, message_reaches_the_new_owner_and_counts_once)
{
    child         first([](pipe_end io) { return first_owner(io, softefa::dev::qp_type::srd); });
    child         second([](pipe_end io) { return second_owner(io, softefa::dev::qp_type::srd, 1); });
    address       peer;
    std::uint16_t qpn = 0;
    endpoint      e(4096);
    ASSERT_NO_FATAL_FAILURE(move(e, first, second, &qpn));
    const auto before = counted();
    e.qp.post(e.qp.send_inline(2, e.ah, qpn, "second"));
    auto done = e.scq.wait();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, 0);
    EXPECT_TRUE(second.end.wait_word(arrived));
    EXPECT_EQ(counted().tx_messages - before.tx_messages, 1u) << "one message, sent to two processes";
    EXPECT_EQ(counted().tx_bytes - before.tx_bytes, 6u);
    EXPECT_EQ(counted().tx_packets - before.tx_packets, 2u) << "it was not refused by the first: the test tests nothing";
    leave_both(first, second);
}

TEST_F(moved, datagrams_reach_the_new_owner_after_one_was_lost)
{
    child         first([](pipe_end io) { return first_owner(io, softefa::dev::qp_type::ud); });
    child         second([](pipe_end io) { return second_owner(io, softefa::dev::qp_type::ud, 1); });
    std::uint16_t qpn = 0;
    endpoint      e(4096, request(softefa::dev::qp_type::ud));
    ASSERT_NO_FATAL_FAILURE(move(e, first, second, &qpn));
    const auto end = base::clock_now_ns() + base::ms(generous_ms);
    bool       heard = false;
    while (!heard && base::clock_now_ns() < end) {
        e.qp.post(e.qp.send_inline(2, e.ah, qpn, "second"));
        auto done = e.scq.wait();
        ASSERT_TRUE(done);
        ASSERT_EQ(done->status, 0) << "a datagram is sent, whatever becomes of it";
        std::uint32_t word = 0;
        heard              = second.end.get(&word, 5) && word == arrived;
    }
    EXPECT_TRUE(heard) << "datagrams go to the process that had the number before";
    leave_both(first, second);
}

/// Whoever says that a way is wrong can only mean the way to itself.
TEST_F(moved, a_route_is_forgotten_only_by_word_of_whom_it_leads_to)
{
    using softefa::wire::ack, softefa::wire::route_name;
    endpoint e(4096);
    softefa::dev::link       stranger;
    softefa::fabric::channel unused;
    stranger.channel = &unused;
    stranger.index   = 7;
    const engine_guard guard;
    engine_state      &s = engine();
    for (const unsigned device : {0u, unsigned{limits::devices}, 255u})
        requester_ack(stranger, ack{route_name{static_cast<std::uint8_t>(device), e.qp.qpn}.pack(), softefa::wire::efa_status::stale_route, false});
    requester_ack(*s.links[0], ack{route_name{0, e.qp.qpn}.pack(), softefa::wire::efa_status::stale_route, false});
    EXPECT_EQ(s.routes[0][e.qp.qpn], 1) << "the way to this process itself";
    const std::uint16_t before = s.routes[0][9999];
    s.routes[0][9999]          = 8;
    const auto stale           = s.counters[0].drop_stale;
    requester_ack(stranger, ack{route_name{0, 9999}.pack(), softefa::wire::efa_status::stale_route, false});
    EXPECT_EQ(s.routes[0][9999], 0);
    EXPECT_EQ(s.counters[0].drop_stale, stale);
    requester_ack(stranger, ack{route_name{0, 9999}.pack(), softefa::wire::efa_status::no_such_qpn, false});
    EXPECT_EQ(s.counters[0].drop_stale, stale + 1) << "no operation has such a name";
    s.routes[0][9999] = before;
}

/// A datagram for a number that nobody has any more: its sender forgets the way, and says where it was dropped.
TEST_F(moved, datagrams_to_a_number_of_nobody_are_dropped_by_the_sender)
{
    child    first([](pipe_end io) { return first_owner(io, softefa::dev::qp_type::ud); });
    endpoint e(4096, request(softefa::dev::qp_type::ud));
    address  peer;
    ASSERT_TRUE(first.end.get(&peer));
    e.qp.post(e.qp.send_inline(1, e.ah, peer.qpn, "first"));
    ASSERT_TRUE(first.end.wait_word(arrived));
    ASSERT_TRUE(e.scq.wait());
    ASSERT_TRUE(first.end.put_word(leave) && first.end.wait_word(gone));
    const auto before = counted().drop_ud_unreachable;
    EXPECT_TRUE(until([&] {
        e.qp.post(e.qp.send_inline(2, e.ah, peer.qpn, "x"));
        auto done = e.scq.wait();
        return done && done->status == 0 && counted().drop_ud_unreachable != before;
    }));
    first.end.put_word(1);
    EXPECT_EQ(first.reap(), 0);
}

} // namespace
