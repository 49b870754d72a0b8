// Traffic through rdma-core's EFA provider, with each kind of completion queue, and every error that one WR can have.
#include "verbs_endpoint.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

namespace verbs {
namespace {

struct verbs_traffic : ::testing::TestWithParam<cq_kind> {
    context_ptr               context = open_device();
    std::unique_ptr<endpoint> a, b;
    ibv_ah                   *ah = nullptr;

    void make(endpoint::options o = {})
    {
        ASSERT_NE(nullptr, context);
        o.kind = GetParam();
        a      = std::make_unique<endpoint>(context.get(), o);
        b      = std::make_unique<endpoint>(context.get(), o);
        ASSERT_TRUE(a->ok() && b->ok());
        ah = a->ah_to(*b);
        ASSERT_NE(nullptr, ah);
    }
    void expect_sent(std::uint64_t wr_id)
    {
        const auto c = a->poll();
        ASSERT_TRUE(c.has_value());
        EXPECT_EQ(IBV_WC_SUCCESS, c->status);
        EXPECT_EQ(wr_id, c->wr_id);
    }
    void expect_failed(int status, std::uint32_t vendor_err) { expect_failed(status, status, vendor_err); }
    /// The device's status is `vendor_err`; which status of verbs it becomes depends on the provider's version.
    void expect_failed(int status, int status_of_newer_provider, std::uint32_t vendor_err)
    {
        const auto c = a->poll();
        ASSERT_TRUE(c.has_value());
        EXPECT_TRUE(c->status == status || c->status == status_of_newer_provider) << c->status;
        EXPECT_EQ(vendor_err, c->vendor_err);
    }
};

TEST_P(verbs_traffic, send_from_one_buffer_arrives)
{
    make();
    memset(a->buffer(), 'x', 8928);
    ASSERT_EQ(0, b->recv(7, 0, 9000));
    ASSERT_EQ(0, a->send(3, *b, ah, {a->sge(0, 8928)}));
    expect_sent(3);
    const auto c = b->poll();
    ASSERT_TRUE(c.has_value());
    EXPECT_EQ(IBV_WC_SUCCESS, c->status);
    EXPECT_EQ(IBV_WC_RECV, c->opcode);
    EXPECT_EQ(7u, c->wr_id);
    EXPECT_EQ(8928u, c->byte_len);
    EXPECT_EQ(a->qp()->qp_num, c->src_qp);
    EXPECT_FALSE(c->has_imm);
    EXPECT_EQ(0, memcmp(a->buffer(), b->buffer(), 8928));
}

TEST_P(verbs_traffic, send_inline_with_immediate_arrives_although_the_source_changes)
{
    make();
    strcpy(a->buffer(), "inline data");
    ASSERT_EQ(0, b->recv(7, 0, 100));
    ibv_sge unregistered{reinterpret_cast<std::uint64_t>(a->buffer()), 12, 0};
    ASSERT_EQ(0, a->send(3, *b, ah, {unregistered}, IBV_SEND_INLINE, 0x89abcdef));
    memset(a->buffer(), 0, 12);
    expect_sent(3);
    const auto c = b->poll();
    ASSERT_TRUE(c.has_value());
    EXPECT_EQ(12u, c->byte_len);
    EXPECT_TRUE(c->has_imm);
    EXPECT_EQ(0x89abcdefu, c->imm);
    EXPECT_STREQ("inline data", b->buffer());
}

TEST_P(verbs_traffic, send_from_two_buffers_is_one_message)
{
    make();
    memcpy(a->buffer(), "abc", 3);
    memcpy(a->buffer() + 1000, "defg", 4);
    ASSERT_EQ(0, b->recv(7, 500, 100));
    ASSERT_EQ(0, a->send(3, *b, ah, {a->sge(0, 3), a->sge(1000, 4)}));
    expect_sent(3);
    const auto c = b->poll();
    ASSERT_TRUE(c.has_value());
    EXPECT_EQ(7u, c->byte_len);
    EXPECT_EQ(0, memcmp("abcdefg", b->buffer() + 500, 7));
}

TEST_P(verbs_traffic, send_of_nothing_arrives)
{
    make();
    ASSERT_EQ(0, b->recv(7, 0, 100));
    ASSERT_EQ(0, a->send(3, *b, ah, {}));
    expect_sent(3);
    const auto c = b->poll();
    ASSERT_TRUE(c.has_value());
    EXPECT_EQ(0u, c->byte_len);
}

TEST_P(verbs_traffic, send_through_the_extended_interface_arrives)
{
    make();
    strcpy(a->buffer(), "extended");
    ASSERT_EQ(0, b->recv(7, 0, 100));
    ASSERT_EQ(0, a->send_ex(3, b->qp()->qp_num, ah, a->sge(0, 9)));
    expect_sent(3);
    ASSERT_TRUE(b->poll().has_value());
    EXPECT_STREQ("extended", b->buffer());
}

TEST_P(verbs_traffic, every_message_arrives_once_whatever_the_order)
{
    make();
    constexpr unsigned round_count = 200, batch = 16;
    for (unsigned round = 0; round < round_count; ++round) {
        for (unsigned i = 0; i < batch; ++i) {
            ASSERT_EQ(0, b->recv(i, i * 64, 64));
            ASSERT_EQ(0, a->send(i, *b, ah, {a->sge(0, 8)}, 0, round * batch + i));
        }
        std::uint32_t seen = 0;
        for (unsigned i = 0; i < batch; ++i) {
            const auto sent = a->poll(), got = b->poll();
            ASSERT_TRUE(sent.has_value() && got.has_value()) << round << " " << i;
            ASSERT_EQ(IBV_WC_SUCCESS, sent->status);
            seen |= 1u << (got->imm - round * batch);
        }
        ASSERT_EQ((1u << batch) - 1, seen) << round;
    }
    EXPECT_FALSE(b->poll_once().has_value()) << "one too many";
}

TEST_P(verbs_traffic, rdma_read_brings_the_remote_bytes)
{
    make();
    ASSERT_NE(nullptr, b->ah_to(*a)) << "the target must know the initiator";
    for (std::size_t i = 0; i < 30000; ++i) {
        b->buffer()[i] = static_cast<char>(i * 7);
    }
    ASSERT_EQ(0, a->read_ex(5, b->qp()->qp_num, ah, a->sge(100, 30000), reinterpret_cast<std::uint64_t>(b->buffer()), b->mr()->rkey));
    expect_sent(5);
    EXPECT_EQ(0, memcmp(a->buffer() + 100, b->buffer(), 30000));
}

TEST_P(verbs_traffic, rdma_read_errors_name_the_cause)
{
    make();
    const auto remote = reinterpret_cast<std::uint64_t>(b->buffer());
    ASSERT_EQ(0, a->read_ex(1, b->qp()->qp_num, ah, a->sge(0, 8), remote, b->mr()->rkey));
    {
        SCOPED_TRACE("the target has no address handle for us");
        expect_failed(IBV_WC_GENERAL_ERR, IBV_WC_REM_OP_ERR, 14);
    }
    ASSERT_NE(nullptr, b->ah_to(*a));
    ASSERT_EQ(0, a->read_ex(2, b->qp()->qp_num, ah, a->sge(0, 8), remote, b->mr()->rkey ^ 0x10));
    {
        SCOPED_TRACE("wrong rkey");
        expect_failed(IBV_WC_GENERAL_ERR, IBV_WC_REM_ACCESS_ERR, 7);
    }
    ASSERT_EQ(0, a->read_ex(3, b->qp()->qp_num, ah, a->sge(0, 8), remote + endpoint::buffer_size - 4, b->mr()->rkey));
    {
        SCOPED_TRACE("beyond the region");
        expect_failed(IBV_WC_GENERAL_ERR, IBV_WC_REM_ACCESS_ERR, 7);
    }
}

TEST_P(verbs_traffic, send_errors_concern_one_request_only)
{
    endpoint::options o;
    o.rnr_retry = 1;
    make(o);
    std::uint32_t nobody = 0xfff0; // numbers go round: one of the two may have it
    while (nobody == a->qp()->qp_num || nobody == b->qp()->qp_num)
        --nobody;
    ASSERT_EQ(0, a->send_ex(1, nobody, ah, a->sge(0, 8)));
    {
        SCOPED_TRACE("no such QPN");
        expect_failed(IBV_WC_REM_INV_RD_REQ_ERR, 9);
    }
    ibv_sge bad = a->sge(0, 8);
    bad.lkey ^= 0x10;
    ASSERT_EQ(0, a->send_ex(2, b->qp()->qp_num, ah, bad));
    {
        SCOPED_TRACE("wrong lkey");
        expect_failed(IBV_WC_LOC_PROT_ERR, 5);
    }
    ibv_sge beyond = a->sge(endpoint::buffer_size - 4, 8);
    ASSERT_EQ(0, a->send_ex(3, b->qp()->qp_num, ah, beyond));
    {
        SCOPED_TRACE("beyond the region");
        expect_failed(IBV_WC_LOC_PROT_ERR, 5);
    }
    ASSERT_EQ(0, a->send_ex(4, b->qp()->qp_num, ah, a->sge(0, 8929)));
    {
        SCOPED_TRACE("longer than the MTU");
        expect_failed(IBV_WC_LOC_LEN_ERR, 6);
    }
    ASSERT_EQ(0, a->send_ex(5, b->qp()->qp_num, ah, a->sge(0, 8)));
    {
        SCOPED_TRACE("no receive posted");
        expect_failed(IBV_WC_RNR_RETRY_EXC_ERR, 10);
    }
    ASSERT_EQ(0, b->recv(6, 0, 4));
    ASSERT_EQ(0, a->send_ex(6, b->qp()->qp_num, ah, a->sge(0, 8)));
    {
        SCOPED_TRACE("receive too short");
        expect_failed(IBV_WC_REM_INV_REQ_ERR, 11);
    }
    ASSERT_TRUE(b->poll().has_value()) << "the short receive completes too";
    ASSERT_EQ(0, b->recv(7, 0, 64));
    ASSERT_EQ(0, a->send_ex(7, b->qp()->qp_num, ah, a->sge(0, 8)));
    expect_sent(7);
}

TEST_P(verbs_traffic, ud_message_arrives_behind_a_grh)
{
    endpoint::options o;
    o.ud = true;
    make(o);
    strcpy(a->buffer(), "datagram");
    memset(b->buffer(), 0x55, 200);
    ASSERT_EQ(0, b->recv(7, 0, 100));
    ASSERT_EQ(0, a->send(3, *b, ah, {a->sge(0, 9)}));
    expect_sent(3);
    const auto c = b->poll();
    ASSERT_TRUE(c.has_value());
    EXPECT_EQ(49u, c->byte_len);
    EXPECT_STREQ("datagram", b->buffer() + 40);
    EXPECT_EQ(0x55, b->buffer()[50]);
}

TEST_P(verbs_traffic, completion_event_wakes_and_unread_event_does_not_block_destroy)
{
    endpoint::options o;
    o.with_events = true;
    make(o);
    ASSERT_EQ(0, ibv_req_notify_cq(b->cq(), 0));
    ASSERT_EQ(0, b->recv(7, 0, 64));
    ASSERT_EQ(0, a->send(3, *b, ah, {a->sge(0, 8)}));
    pollfd readable{b->channel()->fd, POLLIN, 0};
    ASSERT_EQ(1, poll(&readable, 1, 60000));
    ibv_cq *cq      = nullptr;
    void   *context_of_cq = nullptr;
    ASSERT_EQ(0, ibv_get_cq_event(b->channel(), &cq, &context_of_cq));
    EXPECT_EQ(b->cq(), cq);
    if (GetParam() != cq_kind::efa_sgid) { // efadv_create_cq of rdma-core 44 does not keep it
        EXPECT_EQ(b.get(), context_of_cq);
    }
    ibv_ack_cq_events(cq, 1);
    ASSERT_TRUE(b->poll().has_value());

    ASSERT_EQ(0, ibv_req_notify_cq(b->cq(), 0));
    ASSERT_EQ(0, b->recv(8, 0, 64));
    ASSERT_EQ(0, a->send(4, *b, ah, {a->sge(0, 8)}));
    ASSERT_EQ(1, poll(&readable, 1, 60000));
    b.reset(); // without reading it: must return
}

TEST_P(verbs_traffic, forked_child_gets_errors_and_the_parent_goes_on)
{
    make();
    EXPECT_EQ(2, static_cast<int>(ibv_is_fork_initialized()));
    const pid_t child = fork();
    if (child == 0) {
        ibv_port_attr port;
        ibv_wc        wc;
        const bool    refused = ibv_query_port(context.get(), 1, &port) != 0 && ibv_poll_cq(a->cq(), 1, &wc) < 0 && a->recv(1, 0, 8) != 0;
        _exit(refused ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(child, waitpid(child, &status, 0));
    EXPECT_EQ(0, status);
    ASSERT_EQ(0, b->recv(7, 0, 64));
    ASSERT_EQ(0, a->send(3, *b, ah, {a->sge(0, 8)}));
    expect_sent(3);
}

INSTANTIATE_TEST_SUITE_P(every_cq, verbs_traffic, ::testing::Values(cq_kind::plain, cq_kind::extended, cq_kind::efa_sgid),
                         [](const auto &about) { return std::string(name_of(about.param)); });

TEST(verbs_sgid, unknown_sender_is_named_by_gid)
{
    auto context = open_device();
    ASSERT_NE(nullptr, context);
    endpoint::options o;
    o.kind = cq_kind::efa_sgid;
    endpoint a(context.get(), o), b(context.get(), o);
    ibv_ah  *ah = a.ah_to(b);
    for (const bool known : {false, true}) {
        if (known) {
            ASSERT_NE(nullptr, b.ah_to(a));
        }
        ASSERT_EQ(0, b.recv(7, 0, 64));
        ASSERT_EQ(0, a.send(3, b, ah, {a.sge(0, 8)}));
        ASSERT_TRUE(a.poll().has_value());
        const auto c = b.poll();
        ASSERT_TRUE(c.has_value());
        EXPECT_EQ(!known, c->has_sgid);
        if (!known) {
            const auto gid = a.gid();
            EXPECT_EQ(0, memcmp(&gid, &c->sgid, sizeof(gid)));
        }
    }
}

} // namespace
} // namespace verbs
