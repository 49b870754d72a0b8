/* Hello between whole interfaces that do one-sided operations: whose program must run for whom. */
#include "two_nodes.h"

using namespace srd_net;

namespace {

class srd_hello : public two_nodes {
protected:
    static constexpr std::size_t size = 300;

    void SetUp() override
    {
        two_nodes::SetUp();
        fuzz::options with_rma;
        with_rma.read = with_rma.write = true;
        open(with_rma, with_rma);
        for (node *n : {left.get(), right.get()}) {
            n->f->rma.expected = true; // what UCP's features say
        }
        here  = std::make_unique<fuzz::region>(left->device, size);
        there = std::make_unique<fuzz::region>(right->device, size);
        for (std::size_t i = 0; i < size; ++i) {
            here->bytes[i]  = static_cast<std::uint8_t>(i);
            there->bytes[i] = 0x55;
        }
    }
    void TearDown() override
    {
        here.reset();
        there.reset();
        two_nodes::TearDown();
    }
    ucs_status_t put(fuzz::told *t)
    {
        uct_iov_t iov{here->bytes.get(), size, &here->mem, 0, 1};
        return uct_ep_put_zcopy(ep, &iov, 1, reinterpret_cast<std::uint64_t>(there->bytes.get()), there->mem.rkey, t);
    }
    ucs_status_t get(fuzz::told *t)
    {
        uct_iov_t iov{here->bytes.get(), size, &here->mem, 0, 1};
        return uct_ep_get_zcopy(ep, &iov, 1, reinterpret_cast<std::uint64_t>(there->bytes.get()), there->mem.rkey, t);
    }
    void carry_all(node &n)
    {
        while (!n.device.sends.empty()) {
            net.carry(n, 0);
        }
    }

    std::unique_ptr<fuzz::region> here, there;
};

} // namespace

TEST_F(srd_hello, target_that_never_calls_again_takes_puts_and_gives_gets) // WIRE 4.8, RMA-3
{
    fuzz::told put_told, get_told;
    EXPECT_EQ(put(&put_told), UCS_ERR_NO_RESOURCE) << "the target may have no address handle for us";
    uct_ep_h back = right->connect(left->device.gid, left->qpn(), left->device.qkey);
    ASSERT_NE(back, nullptr);
    ASSERT_EQ(right->device.sends.size(), 1u) << "its hello left with the creation of the endpoint";
    carry_all(*right); // from here on the target's program does nothing
    left->progress();
    ASSERT_EQ(put(&put_told), UCS_INPROGRESS);
    carry_all(*left);
    left->progress();
    EXPECT_EQ(put_told.calls, 1u);
    EXPECT_EQ(std::memcmp(here->bytes.get(), there->bytes.get(), size), 0);
    std::memset(here->bytes.get(), 0, size);
    ASSERT_EQ(get(&get_told), UCS_INPROGRESS);
    carry_all(*left);
    left->progress();
    EXPECT_EQ(get_told.calls, 1u);
    EXPECT_EQ(std::memcmp(here->bytes.get(), there->bytes.get(), size), 0);
    EXPECT_EQ(left->f->counters.get(srd::counter::rma_unknown), 0u);
    settle();
    right->handle()->ops.ep_destroy(back);
}

/// The hello is heard first, and its answer would wait for the next call of the target's program.
TEST_F(srd_hello, target_that_heard_us_before_it_made_its_endpoint_may_stop_calling) // WIRE 4.8, RMA-3
{
    fuzz::told t;
    EXPECT_EQ(put(&t), UCS_ERR_NO_RESOURCE);
    left->progress(); // its hello
    carry_all(*left);
    right->progress(); // once
    uct_ep_h back = right->connect(left->device.gid, left->qpn(), left->device.qkey);
    ASSERT_NE(back, nullptr);
    carry_all(*right); // from here on the target's program does nothing
    left->progress();
    ASSERT_EQ(put(&t), UCS_INPROGRESS);
    carry_all(*left);
    left->progress();
    EXPECT_EQ(t.calls, 1u);
    settle();
    right->handle()->ops.ep_destroy(back);
}

TEST_F(srd_hello, refusal_is_no_hello) // WIRE 4.4
{
    right->device.max_ahs = right->device.ahs.size(); // the one that is kept back, for refusals
    fuzz::told t;
    EXPECT_EQ(put(&t), UCS_ERR_NO_RESOURCE);
    settle(5);
    ASSERT_GT(left->f->peers.at(0)->slow->refusals, 0u);
    EXPECT_EQ(put(&t), UCS_ERR_NO_RESOURCE) << "it spoke only to say that it cannot";
    EXPECT_EQ(left->f->counters.get(srd::counter::rma_unknown), 0u);
    ++right->device.max_ahs; // another program has let go of one
    settle();
    ASSERT_EQ(put(&t), UCS_INPROGRESS);
    settle();
    EXPECT_EQ(t.calls, 1u);
}
