/* Unit tests of the receiving half (srd_rx.cc): when a delivery has to look further than at its own message. */
#include "interface_of_a_test.h"

#include <gtest/gtest.h>
#include <memory>

using namespace srd;

namespace {

using ring = rx_ring<limits::window_size>;

class srd_rx_attention : public testing::Test {
protected:
    srd_rx_attention() { p_.credit.renew(base::seq32(0), 100); } // half of it, 50, makes the next grant due

    void wait(std::uint16_t psn)
    {
        if (!p_.rx.has_ring()) {
            p_.rx.attach(&ring_);
        }
        ASSERT_EQ(p_.rx.insert(psn, this), rx_verdict::buffered);
    }
    void deliver(unsigned count)
    {
        for (unsigned i = 0; i < count; ++i) {
            p_.rx.advance();
        }
    }
    std::uint32_t attention()
    {
        rx_set_attention(&p_);
        return p_.attention;
    }

    peer p_;
    ring ring_;
};

TEST_F(srd_rx_attention, set_without_anything_waiting_is_when_a_grant_is_due)
{
    EXPECT_EQ(attention(), 50u);
    deliver(49);
    EXPECT_EQ(attention(), 1u);
    deliver(10);
    EXPECT_EQ(attention(), 1u); // overdue: again at every delivery until it is owed
}

TEST_F(srd_rx_attention, set_with_the_grant_owed_is_when_the_sender_reaches_its_limit)
{
    deliver(60);
    p_.want |= want_credit;
    EXPECT_EQ(attention(), 40u);
    deliver(40);
    EXPECT_EQ(attention(), 1u); // one that goes beyond is noticed at once
}

TEST_F(srd_rx_attention, set_with_early_messages_is_when_the_first_of_them_is_expected)
{
    wait(9);
    EXPECT_EQ(attention(), 9u);
    wait(30);
    EXPECT_EQ(attention(), 9u);
    wait(4);
    EXPECT_EQ(attention(), 4u);
    deliver(4);
    EXPECT_EQ(p_.rx.pop(), this);
    deliver(1);
    EXPECT_EQ(attention(), 4u); // 5 is expected, 9 waits
    wait(60);
    deliver(4);
    EXPECT_EQ(p_.rx.pop(), this);
    deliver(1);
    EXPECT_EQ(p_.rx.until_held(), 20u);
    deliver(20);
    EXPECT_EQ(p_.rx.pop(), this);
    deliver(1);
    EXPECT_EQ(p_.rx.until_held(), 29u);
    EXPECT_EQ(attention(), 19u); // the grant is due before that
}

} // namespace
