/* Work requests of 128 bytes, with up to 80 bytes inline, in messages and in RDMA writes, through the installed rdma-core: 63 and
 * later use them where the device has them; with an older one there is nothing to test, and the tests say so.
 */
#include "softefa/verbs/verbs_endpoint.h"

#include <algorithm>
#include <cstring>

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

/// The same with RDMA writes from the work request, into memory of b that takes them.
class verbs_wide_write : public testing::Test {
protected:
    static constexpr std::size_t room = 4096;

    context_ptr               context = open_device();
    std::unique_ptr<endpoint> a, b;
    ibv_ah                   *ah = nullptr;
    ibv_mr                   *mr = nullptr;
    std::vector<char>         target = std::vector<char>(room);

    void SetUp() override
    {
        ASSERT_NE(nullptr, context);
        endpoint::options o;
        o.inline_size  = 80;
        o.inline_write = true;
        a              = std::make_unique<endpoint>(context.get(), o);
        if (a->qp() == nullptr) {
            GTEST_SKIP() << "this rdma-core makes no queue pair with inline RDMA writes";
        }
        b = std::make_unique<endpoint>(context.get(), o);
        ASSERT_TRUE(a->ok() && b->ok());
        ah = a->ah_to(*b);
        ASSERT_NE(nullptr, ah);
        ASSERT_NE(nullptr, b->ah_to(*a)); // a target serves only whom it has an address handle of
        mr = ibv_reg_mr(b->pd(), target.data(), room, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
        ASSERT_NE(nullptr, mr);
    }
    void TearDown() override
    {
        if (mr != nullptr) {
            EXPECT_EQ(0, ibv_dereg_mr(mr));
        }
    }
    int write(std::uint32_t size, std::size_t offset, std::optional<std::uint32_t> imm = {})
    {
        return a->write_inline_ex(size, b->qp()->qp_num, ah, a->sge(0, size), reinterpret_cast<std::uint64_t>(target.data() + offset),
                                  mr->rkey, imm);
    }
    /// Whether `size` bytes from `offset` are first, first + 1, ..., and all others 0x55.
    bool is_written(std::size_t offset, std::size_t size, char first) const
    {
        for (std::size_t i = 0; i < room; ++i) {
            const bool within = i >= offset && i < offset + size;
            if (target[i] != (within ? static_cast<char>(first + static_cast<char>(i - offset)) : 0x55)) {
                return false;
            }
        }
        return true;
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

TEST_F(verbs_wide_write, writes_of_every_size_land_although_the_source_changes)
{
    for (std::uint32_t size = 1; size <= 80; ++size) {
        const auto first = static_cast<char>(size * 3);
        for (std::uint32_t i = 0; i < size; ++i) {
            a->buffer()[i] = static_cast<char>(first + static_cast<char>(i));
        }
        std::fill(target.begin(), target.end(), 0x55);
        ASSERT_EQ(0, write(size, 7 * size));
        std::memset(a->buffer(), 0, 96);
        const auto done = a->poll();
        ASSERT_TRUE(done && done->status == IBV_WC_SUCCESS) << size;
        EXPECT_EQ(size, done->wr_id);
        ASSERT_TRUE(is_written(7 * size, size, first)) << size;
    }
}

TEST_F(verbs_wide_write, ring_goes_round_with_writes_and_sends_in_turn)
{
    for (std::uint32_t lap = 0; lap < 200; ++lap) { // 32 entries
        const bool is_write = lap % 2 == 0;
        std::memset(a->buffer(), static_cast<int>(lap), 80);
        if (is_write) {
            ASSERT_EQ(0, write(80, 100));
        } else {
            ASSERT_EQ(0, b->recv(lap, 0, 256));
            ASSERT_EQ(0, a->send(lap, *b, ah, {a->sge(0, 80)}, IBV_SEND_INLINE));
        }
        const auto done = a->poll();
        ASSERT_TRUE(done && done->status == IBV_WC_SUCCESS) << lap;
        if (!is_write) {
            const auto received = b->poll();
            ASSERT_TRUE(received && received->status == IBV_WC_SUCCESS) << lap;
        }
        ASSERT_EQ(0, std::memcmp(a->buffer(), is_write ? target.data() + 100 : b->buffer(), 80)) << lap;
    }
}

TEST_F(verbs_wide_write, immediate_of_a_write_takes_a_receive)
{
    std::fill(target.begin(), target.end(), 0x55);
    for (char i = 0; i < 60; ++i) {
        a->buffer()[static_cast<int>(i)] = i;
    }
    ASSERT_EQ(0, b->recv(99, 0, 256));
    ASSERT_EQ(0, write(60, 10, 0x12345678));
    const auto done = a->poll();
    ASSERT_TRUE(done && done->status == IBV_WC_SUCCESS);
    const auto told = b->poll();
    ASSERT_TRUE(told && told->status == IBV_WC_SUCCESS);
    EXPECT_EQ(99u, told->wr_id);
    EXPECT_TRUE(told->has_imm);
    EXPECT_EQ(0x12345678u, told->imm);
    EXPECT_EQ(60u, told->byte_len);
    EXPECT_TRUE(is_written(10, 60, 0));
}

TEST_F(verbs_wide_write, what_may_not_be_written_stays_as_it_is)
{
    std::fill(target.begin(), target.end(), 0x55);
    ASSERT_EQ(0, write(80, room - 40)); // half of it behind the end
    const auto done = a->poll();
    ASSERT_TRUE(done.has_value());
    EXPECT_NE(IBV_WC_SUCCESS, done->status);
    EXPECT_TRUE(is_written(0, 0, 0));
    EXPECT_NE(0, write(81, 0)) << "more than fits";
    EXPECT_FALSE(a->poll_once().has_value());
}

} // namespace verbs
