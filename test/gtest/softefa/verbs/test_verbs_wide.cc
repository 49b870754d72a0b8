/* Work requests of 128 bytes, with up to 80 bytes inline, through the installed rdma-core: 63 and later use them where the device
 * has them; with an older one there is nothing to test, and the tests say so.
 */
#include "softefa/verbs/verbs_endpoint.h"

namespace verbs {
namespace {

class verbs_wide : public testing::Test {
protected:
    context_ptr               context = open_device();
    std::unique_ptr<endpoint> a, b;
    ibv_ah                   *ah = nullptr;

    void SetUp() override
    {
        ASSERT_NE(nullptr, context);
        endpoint::options o;
        o.inline_size = 80;
        a             = std::make_unique<endpoint>(context.get(), o);
        if (a->qp() == nullptr) {
            GTEST_SKIP() << "this rdma-core makes no queue pair with 80 bytes inline";
        }
        b = std::make_unique<endpoint>(context.get(), o);
        ASSERT_TRUE(a->ok() && b->ok());
        ah = a->ah_to(*b);
        ASSERT_NE(nullptr, ah);
    }
};

} // namespace

TEST_F(verbs_wide, inline_sends_of_every_size_arrive_although_the_source_changes)
{
    for (std::uint32_t size = 0; size <= 80; ++size) {
        ASSERT_EQ(0, b->recv(size, 0, 256));
        for (std::uint32_t i = 0; i < size; ++i) {
            a->buffer()[i] = static_cast<char>(size + i);
        }
        memset(b->buffer(), 0x55, 96);
        ASSERT_EQ(0, a->send(size, *b, ah, {a->sge(0, size)}, IBV_SEND_INLINE, size));
        memset(a->buffer(), 0, 96);
        auto sent = a->poll();
        ASSERT_TRUE(sent && sent->status == IBV_WC_SUCCESS) << size;
        auto received = b->poll();
        ASSERT_TRUE(received && received->status == IBV_WC_SUCCESS) << size;
        EXPECT_EQ(size, received->byte_len);
        EXPECT_EQ(size, received->imm);
        for (std::uint32_t i = 0; i < size; ++i) {
            ASSERT_EQ(static_cast<char>(size + i), b->buffer()[i]) << size << " at " << i;
        }
        ASSERT_EQ(0x55, b->buffer()[size]) << size;
    }
}

TEST_F(verbs_wide, ring_goes_round_with_inline_and_gathered_requests_in_turn)
{
    for (int lap = 0; lap < 200; ++lap) { // 32 entries
        const bool is_inline = lap % 3 != 0;
        ASSERT_EQ(0, b->recv(static_cast<std::uint64_t>(lap), 4096, 4096));
        memset(a->buffer(), lap, 2000);
        ASSERT_EQ(0, a->send(static_cast<std::uint64_t>(lap), *b, ah,
                             is_inline ? std::vector<ibv_sge>{a->sge(0, 70)} : std::vector<ibv_sge>{a->sge(0, 900), a->sge(900, 1100)},
                             is_inline ? IBV_SEND_INLINE : 0));
        auto sent = a->poll();
        ASSERT_TRUE(sent && sent->status == IBV_WC_SUCCESS) << lap;
        EXPECT_EQ(static_cast<std::uint64_t>(lap), sent->wr_id);
        auto received = b->poll();
        ASSERT_TRUE(received && received->status == IBV_WC_SUCCESS) << lap;
        ASSERT_EQ(is_inline ? 70u : 2000u, received->byte_len);
        ASSERT_EQ(0, memcmp(a->buffer(), b->buffer() + 4096, received->byte_len)) << lap;
    }
}

TEST_F(verbs_wide, more_than_fits_is_refused_by_the_provider)
{
    EXPECT_NE(0, a->send(1, *b, ah, {a->sge(0, 81)}, IBV_SEND_INLINE));
    EXPECT_FALSE(a->poll_once().has_value());
}

} // namespace verbs
