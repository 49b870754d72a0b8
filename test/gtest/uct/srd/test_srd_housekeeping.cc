/* Unit tests of timers and housekeeping (srd_housekeeping.cc): when a peer is forgotten. */
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
    p->heard_at = static_cast<std::uint16_t>(p->heard_at - limits::failed_rest_s);
    f_->ticked_at -= base::ms(2);
    control_tick(f_.get());
    EXPECT_EQ(f_->peers.live(), 0u);
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
