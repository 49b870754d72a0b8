/* SEND between QPs of one process, through the same rings as between processes; every status the requester can see. */
#include "softefa/dev/child.h"

namespace {

using namespace nic;

class send : public device_test {};

TEST_F(send, inline_message_arrives_with_sender_and_completes)
{
    endpoint e;
    e.qp.post_recv(7, {e.slice(0, 64)});
    e.qp.post(queue_pair::with_imm(e.qp.send_inline(9, e.ah, e.qp.qpn, "hello"), 0xabcd));
    auto got = e.rcq.wait();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->status, 0);
    EXPECT_EQ(got->req_id, 7);
    EXPECT_EQ(got->length, 5u);
    EXPECT_EQ(got->queue, 2);
    EXPECT_EQ(got->qpn, e.qp.qpn);
    EXPECT_EQ(got->src_qpn, e.qp.qpn);
    EXPECT_EQ(got->ah, e.ah);
    EXPECT_TRUE(got->has_imm);
    EXPECT_EQ(got->imm, 0xabcdu);
    EXPECT_EQ(std::memcmp(e.memory.data(), "hello", 5), 0);
    auto done = e.scq.wait();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, 0);
    EXPECT_EQ(done->req_id, 9);
    EXPECT_EQ(done->queue, 1);
}

TEST_F(send, two_sges_full_mtu_scatters_over_receive_sges)
{
    qp_request r;
    r.max_recv_sge = 2;
    endpoint e(1 << 16, r);
    for (unsigned i = 0; i < 8928; ++i)
        e.memory[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
    e.qp.post_recv(1, {e.slice(20000, 5000), e.slice(40000, 5000)});
    e.qp.post(e.qp.send(2, e.ah, e.qp.qpn, {e.slice(0, 1000), e.slice(1000, 7928)}));
    auto got = e.rcq.wait();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->length, 8928u);
    EXPECT_EQ(std::memcmp(e.memory.data() + 20000, e.memory.data(), 5000), 0);
    EXPECT_EQ(std::memcmp(e.memory.data() + 40000, e.memory.data() + 5000, 3928), 0);
    ASSERT_TRUE(e.scq.wait());
}

struct bad_case {
    const char *name;
    int         status;
    void (*spoil)(endpoint &, queue_pair::wqe &);
};

TEST_F(send, bad_wqe_completes_with_its_status_and_delivers_nothing)
{
    const bad_case cases[] = {
        {"malformed control bits", 2, [](endpoint &, queue_pair::wqe &w) { w.b[2] &= 0x7f; }},
        {"too many SGEs", 2, [](endpoint &, queue_pair::wqe &w) { w.set16(6, 3); }},
        {"unknown operation", 3, [](endpoint &, queue_pair::wqe &w) { w.b[2] = 0x85; }},
        {"unknown AH", 4, [](endpoint &, queue_pair::wqe &w) { w.set16(12, 77); }},
        {"AH out of range", 4, [](endpoint &, queue_pair::wqe &w) { w.set16(12, 0xffff); }},
        {"unknown lkey", 5, [](endpoint &e, queue_pair::wqe &w) { w.set32(36, e.lkey ^ 1); }},
        {"stale lkey", 5, [](endpoint &e, queue_pair::wqe &w) { w.set32(36, e.lkey ^ (1u << 19)); }},
        {"range end", 5, [](endpoint &e, queue_pair::wqe &w) { w.set64(40, reinterpret_cast<std::uint64_t>(e.memory.data() + e.memory.size() - 63)); }},
        {"range start", 5, [](endpoint &e, queue_pair::wqe &w) { w.set64(40, reinterpret_cast<std::uint64_t>(e.memory.data()) - 1); }},
        {"address overflow", 5, [](endpoint &, queue_pair::wqe &w) { w.set64(40, ~std::uint64_t{0} - 10); }},
        {"message beyond the MTU", 6, [](endpoint &, queue_pair::wqe &w) { w.set32(32, 8929); }},
        {"inline too long", 6, [](endpoint &, queue_pair::wqe &w) { w.b[2] |= 0x20; w.set16(6, 33); }},
        {"no such QPN", 9, [](endpoint &e, queue_pair::wqe &w) { w.set16(4, static_cast<std::uint16_t>(e.qp.qpn + 1)); }},
        {"wrong qkey", 9, [](endpoint &, queue_pair::wqe &w) { w.set32(16, 1); }},
    };
    endpoint e;
    e.qp.post_recv(1, {e.slice(0, 128)});
    std::uint16_t id = 100;
    for (const bad_case &c : cases) {
        auto w = e.qp.send(++id, e.ah, e.qp.qpn, {e.slice(1024, 64)});
        c.spoil(e, w);
        e.qp.post(w);
        auto done = e.scq.wait();
        ASSERT_TRUE(done) << c.name;
        EXPECT_EQ(done->status, c.status) << c.name;
        EXPECT_EQ(done->req_id, id) << c.name;
        EXPECT_FALSE(e.rcq.poll_surely()) << c.name;
    }
    e.qp.post(e.qp.send(1, e.ah, e.qp.qpn, {e.slice(1024, 64)})); // the QP is unharmed
    ASSERT_TRUE(e.rcq.wait());
    EXPECT_EQ(e.scq.wait()->status, 0);
}

TEST_F(send, unknown_gid_is_unreachable)
{
    endpoint e;
    gid far = device_gid(0);
    far[3] = 9;
    auto a = ah_create(e.pd, far);
    ASSERT_TRUE(static_cast<bool>(a));
    e.qp.post(e.qp.send_inline(1, a->ah_number, e.qp.qpn, "x"));
    auto done = e.scq.wait();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, 15);
    EXPECT_EQ(ah_destroy(a->ah), base::status::ok);
}

TEST_F(send, short_receive_buffer_fails_both_sides_and_uses_the_receive)
{
    endpoint e;
    e.qp.post_recv(1, {e.slice(0, 4)});
    e.qp.post_recv(2, {e.slice(0, 64)});
    e.qp.post(e.qp.send_inline(5, e.ah, e.qp.qpn, "12345"));
    auto got = e.rcq.wait();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->req_id, 1);
    EXPECT_EQ(got->status, 6);
    EXPECT_EQ(e.scq.wait()->status, 11);
    EXPECT_EQ(e.memory[0], 0);
    e.qp.post(e.qp.send_inline(6, e.ah, e.qp.qpn, "12345"));
    EXPECT_EQ(e.rcq.wait()->req_id, 2);
    EXPECT_EQ(e.scq.wait()->status, 0);
}

TEST_F(send, bad_receive_lkey_fails_both_sides)
{
    endpoint e;
    buffer b = e.slice(0, 64);
    b.lkey ^= 1;
    e.qp.post_recv(1, {b});
    e.qp.post(e.qp.send_inline(5, e.ah, e.qp.qpn, "12345"));
    EXPECT_EQ(e.rcq.wait()->status, 5);
    EXPECT_EQ(e.scq.wait()->status, 8);
}

TEST_F(send, no_receive_retries_until_one_is_posted)
{
    endpoint e;
    e.qp.post(e.qp.send_inline(5, e.ah, e.qp.qpn, "late"));
    const auto before = counted().rnr_retries;
    EXPECT_TRUE(until([&] { EXPECT_FALSE(e.scq.poll()); return counted().rnr_retries >= before + 3; }));
    e.qp.post_recv(1, {e.slice(0, 64)});
    EXPECT_EQ(e.rcq.wait()->length, 4u);
    EXPECT_EQ(e.scq.wait()->status, 0);
}

TEST_F(send, no_receive_with_finite_retries_ends_in_rnr)
{
    endpoint e(4096, {}, 2);
    e.qp.post(e.qp.send_inline(5, e.ah, e.qp.qpn, "never"));
    auto done = e.scq.wait();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, 10);
    e.qp.post_recv(1, {e.slice(0, 64)});
    for (int i = 0; i < 100; ++i)
        EXPECT_FALSE(e.rcq.poll_surely()); // it never lands later
}

TEST_F(send, queue_to_error_flushes_what_waits)
{
    endpoint e;
    e.qp.post_recv(1, {e.slice(0, 64)});
    e.qp.post(e.qp.send_inline(5, e.ah, 0x7fff, "x"));
    (void)e.scq.wait();
    EXPECT_EQ(e.qp.to(qp_state::error), base::status::ok);
    EXPECT_EQ(e.rcq.wait()->status, 1);
    e.qp.post(e.qp.send_inline(6, e.ah, e.qp.qpn, "x"));
    auto done = e.scq.wait();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, 1);
    EXPECT_EQ(done->req_id, 6);
}

/// What was to follow it failed. Who looks whether a peer moves would wait for it to be taken.
TEST_F(send, pad_without_a_record_is_taken)
{
    endpoint            e(16384);
    softefa::dev::link &l = *engine().links[0];
    bool                padded = false;
    for (unsigned n = 0; n < 200 && !padded; ++n) {
        e.qp.post_recv(1, {e.slice(8192, 8192)});
        e.qp.post(e.qp.send(1, e.ah, e.qp.qpn, {e.slice(0, 8000)}));
        ASSERT_TRUE(e.rcq.wait() && e.scq.wait());
        ASSERT_TRUE(until([&] { engine_poll(e.scq.h); const engine_guard guard; return l.channel->tx.drained(); }));
        const engine_guard  guard;
        const std::uint64_t before = l.channel->tx.head();
        (void)l.channel->tx.reserve(limits::chunk_size);
        padded = l.channel->tx.head() != before;
        if (padded)
            link_touch(l);
    }
    ASSERT_TRUE(padded);
    EXPECT_TRUE(until([&] { engine_poll(e.scq.h); const engine_guard guard; return l.channel->tx.drained(); }));
}

TEST_F(send, ten_thousand_messages_stay_whole_with_reordering)
{
    wanted.reorder_per_65536 = 8192;
    use();
    endpoint                   e(1 << 18);
    constexpr unsigned         total = 10000, window = 32;
    std::vector<unsigned char> seen(total);
    unsigned posted = 0, received = 0, completed = 0, swapped = 0;
    std::uint32_t last = 0;
    for (unsigned i = 0; i < window; ++i)
        e.qp.post_recv(static_cast<std::uint16_t>(i), {e.slice(i * 1024, 1024)});
    const auto until = base::clock_now_ns() + base::sec(120);
    while (completed < total && base::clock_now_ns() < until) {
        while (posted < total && posted - completed < window && posted - received < window) {
            auto w = e.qp.send_inline(static_cast<std::uint16_t>(posted), e.ah, e.qp.qpn, std::string(reinterpret_cast<char *>(&posted), 4));
            e.qp.put(w);
            ++posted;
        }
        e.qp.ring();
        while (auto got = e.rcq.poll()) {
            std::uint32_t n;
            std::memcpy(&n, e.memory.data() + got->req_id * 1024, 4);
            ASSERT_LT(n, total);
            EXPECT_EQ(seen[n]++, 0);
            swapped += n < last;
            last = n;
            ++received;
            e.qp.post_recv(got->req_id, {e.slice(got->req_id * 1024u, 1024)});
        }
        while (auto done = e.scq.take()) {
            EXPECT_EQ(done->status, 0);
            ++completed;
        }
    }
    EXPECT_EQ(completed, total);
    EXPECT_EQ(received, total);
    EXPECT_GT(swapped, 10u);
}

} // namespace
