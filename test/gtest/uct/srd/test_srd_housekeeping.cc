/* Unit tests of timers and housekeeping (srd_housekeeping.cc): when a peer is forgotten, asked, or not counted on any more. */
#include "exchange_of_a_test.h"

using namespace srd;
using namespace srd::control_test;

namespace {

TEST_F(srd_control, a_failed_peer_is_remembered_a_while_and_then_forgotten)
{
    peer *p         = peer_of(7);
    p->epoch_remote = 77;
    peer_fail(f_.get(), p, UCS_ERR_ENDPOINT_TIMEOUT, "test", "test", 9);
    control_run(f_.get()); // the report
    p->ah = nullptr;

    control_tick(f_.get());
    EXPECT_EQ(f_->peers.live(), 1u);
    p->heard_at = static_cast<std::uint16_t>(base::clock_now_ns() / base::sec(1) - limits::failed_rest_s);
    const std::uint16_t failed_at = p->heard_at; // whole seconds: it may have been almost a second later
    f_->ticked_at -= base::ms(2);
    control_tick(f_.get());
    if (static_cast<std::uint16_t>(base::clock_now_ns() / base::sec(1)) - failed_at == limits::failed_rest_s) {
        EXPECT_EQ(f_->peers.live(), 1u);
    }
    p->heard_at = static_cast<std::uint16_t>(p->heard_at - 1);
    f_->ticked_at -= base::ms(2);
    control_tick(f_.get());
    EXPECT_EQ(f_->peers.live(), 0u);
}

/// Its request is queued and arms nothing by itself.
TEST_F(srd_control, who_is_out_of_credits_is_looked_at_until_there_are_some) // WIRE 6.9
{
    peer *p  = peer_of(7);
    p->state = peer_state::open;
    ep e{};
    p->eps = &e;
    p->tx.freeze();
    ASSERT_FALSE(p->tx.may_send());
    p->waiting_count = 1; // a message that the receiver was not ready for
    timer_arm(f_.get(), p, 1);
    control_tick(f_.get());
    EXPECT_TRUE(p->in_timers);
    EXPECT_FALSE(p->want & want_probe) << "what waits will tell";
    p->waiting_count         = 0; // it went out
    p->want                  = 0;
    f_->peers.slow_get(p)->timer_due = 1;
    control_tick(f_.get());
    EXPECT_TRUE(p->want & want_probe);
    EXPECT_TRUE(p->in_timers);
    p->eps = nullptr;
}

TEST_F(srd_control, periods_of_activity_that_begin_again_at_one_forget_nobody)
{
    peer *p      = peer_of(7);
    p->state     = peer_state::open;
    f_->activity = UINT8_MAX;
    p->epoch_remote = 77;
    grant_renew(f_.get(), p);
    ASSERT_EQ(f_->rx.active, 1u);
    f_->activity_at = base::clock_now_ns() - limits::activity_period_ns;
    f_->ticked_at   = base::clock_now_ns() - base::ms(2);
    control_tick(f_.get());
    ASSERT_EQ(f_->activity, 1u);
    EXPECT_EQ(f_->rx.active, 1u);
    f_->activity_at = base::clock_now_ns() - limits::activity_period_ns;
    f_->ticked_at   = base::clock_now_ns() - base::ms(2);
    control_tick(f_.get());
    EXPECT_EQ(f_->rx.active, 0u) << "silent for a whole period";
}

TEST_F(srd_control, housekeeping_makes_up_for_a_long_sleep)
{
    for (std::uint16_t i = 0; i < 60; ++i) {
        peer *p         = peer_of(static_cast<std::uint16_t>(100 + i));
        p->ah           = nullptr;
        p->epoch_remote = 1;
        p->state        = peer_state::open;
        p->bye_received = true;
    }
    f_->ticked_at = base::clock_now_ns() - base::ms(1);
    control_tick(f_.get());
    EXPECT_EQ(f_->peers.live(), 0u);
}

} // namespace
