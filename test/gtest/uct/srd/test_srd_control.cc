/* Unit tests of control messages out (srd_control.cc): how many slots one peer may take, what a refusal by the receiver holds
 * back. An interface without a device: posts end in a counter.
 */
#include "exchange_of_a_test.h"

using namespace srd;
using namespace srd::control_test;

namespace {

TEST_F(srd_control, a_few_stuck_peers_leave_slots_for_the_others)
{
    const std::uint8_t everything = want_hello | want_hello_ack | want_credit | want_probe;
    std::vector<peer *> stuck;

    for (std::uint16_t i = 0; i < 6; ++i) {
        stuck.push_back(peer_of(static_cast<std::uint16_t>(20 + i)));
    }
    for (unsigned turn = 0; turn < 20; ++turn) { // nothing of it completes
        for (peer *p : stuck) {
            control_want(f_.get(), p, everything);
        }
        control_run(f_.get());
    }
    EXPECT_GE(f_->tx.control_free, 4u);
    for (const peer *p : stuck) {
        EXPECT_LE(p->control_in_flight, 2u);
    }
    peer *other = peer_of(50);
    control_want(f_.get(), other, want_credit);
    for (unsigned turn = 0; turn < 4; ++turn) {
        control_run(f_.get());
    }
    EXPECT_EQ(other->control_in_flight, 1u);
    EXPECT_FALSE(f_->attention & attend_work); // what waits for its own completion does not keep a program from sleeping

    // What was held back goes out when the device answers.
    const std::size_t before = fake_queue::posted.size();
    for (op *o : std::vector<op *>(fake_queue::posted)) {
        if (o->owner == stuck[0]) {
            control_complete(f_.get(), o);
        }
    }
    control_run(f_.get());
    EXPECT_GT(fake_queue::posted.size(), before);
    EXPECT_EQ(fake_queue::posted.back()->owner, stuck[0]);
}

TEST_F(srd_control, a_grant_sent_alone_makes_the_next_one_due_at_half_of_it)
{
    peer *p  = peer_of(7);
    p->state = peer_state::open;
    p->credit.renew(base::seq32(0), 64);
    for (unsigned i = 0; i < 40; ++i) {
        p->rx.advance();
    }
    control_want(f_.get(), p, want_credit);
    control_run(f_.get());
    ASSERT_EQ(fake_queue::posted.size(), 1u);
    EXPECT_EQ(p->want & want_credit, 0);
    EXPECT_EQ(p->attention, static_cast<std::uint32_t>(distance(p->rx.expected(), p->credit.due_at())));
    EXPECT_LT(p->attention, p->credit.outstanding());
}

TEST_F(srd_control, a_host_that_died_does_not_take_all_slots)
{
    constexpr int dead_count = 40;
    std::vector<peer *> dead;

    for (std::uint16_t i = 0; i < dead_count; ++i) {
        dead.push_back(peer_of(static_cast<std::uint16_t>(100 + i)));
        dead[i]->state = peer_state::open;
        control_want(f_.get(), dead[i], want_probe);
    }
    for (int turn = 0; turn < 10; ++turn) {
        control_run(f_.get());
    }
    EXPECT_EQ(f_->tx.control_free, limits::control_slots / 2);
    EXPECT_FALSE(f_->attention & attend_work); // what is held back does not keep a program from sleeping
    EXPECT_FALSE(event_work_is_due(f_.get(), base::sec(0)));

    peer *alive  = peer_of(50);
    alive->state = peer_state::open;
    control_want(f_.get(), alive, want_credit);
    control_run(f_.get());
    EXPECT_EQ(alive->control_in_flight, 1u);
    // Another debt to one that waits with its question is paid too.
    control_want(f_.get(), dead[dead_count - 1], want_credit);
    for (int turn = 0; turn < 10; ++turn) {
        control_run(f_.get());
    }
    EXPECT_EQ(dead[dead_count - 1]->control_in_flight, 1u);
    EXPECT_FALSE(f_->attention & attend_work);

    // Each answer lets others ask, until all have.
    for (std::size_t i = 0; i < fake_queue::posted.size(); ++i) { // grows
        control_complete(f_.get(), fake_queue::posted[i]);
        for (int turn = 0; turn < 10; ++turn) {
            control_run(f_.get());
        }
    }
    EXPECT_EQ(fake_queue::posted.size(), dead_count + 2u);
    EXPECT_EQ(f_->tx.control_free, limits::control_slots);
    for (const peer *p : dead) {
        EXPECT_EQ(p->want & want_probe, 0);
        EXPECT_FALSE(p->in_work);
    }
}

/// It lives: a life that it takes for open, and that is forgotten here, would take what it sends for ever.
TEST_F(srd_control, a_refusal_that_the_peer_was_not_ready_for_is_said_again) // WIRE 5.8
{
    peer *p         = peer_of(7);
    p->state        = peer_state::open;
    p->epoch_remote = 77;
    error_meaning not_ready{};
    not_ready.whose = fault::not_ready;

    peer_fail(f_.get(), p, UCS_ERR_ENDPOINT_TIMEOUT, "test", "test", 0);
    control_run(f_.get());
    for (std::size_t said = 1; said < 4; ++said) {
        ASSERT_EQ(fake_queue::posted.size(), said);
        EXPECT_EQ(wire::imm_id(fake_queue::posted.back()->imm), static_cast<unsigned>(wire::control::nak));
        p->heard_at = 0; // it failed long ago: the rest begins again
        control_complete_error(f_.get(), fake_queue::posted.back(), not_ready, 10);
        control_run(f_.get());
        EXPECT_EQ(fake_queue::posted.size(), said) << "not before the timer";
        f_->ticked_at = base::clock_now_ns() - base::ms(2);
        control_tick(f_.get());
        EXPECT_EQ(f_->peers.live(), 1u);
        f_->peers.slow_get(p)->timer_due = 1;
        control_tick(f_.get());
        control_run(f_.get());
    }
    control_complete(f_.get(), fake_queue::posted.back()); // heard
    EXPECT_EQ(p->want, 0);
    EXPECT_FALSE(p->in_timers);
    EXPECT_EQ(f_->tx.control_free, limits::control_slots);
}

TEST_F(srd_control, the_delay_of_a_refused_message_is_short_again_after_one_that_got_through)
{
    peer *p  = peer_of(7);
    p->state = peer_state::open;
    error_meaning not_ready{};
    not_ready.whose = fault::not_ready;

    control_want(f_.get(), p, want_credit);
    control_run(f_.get());
    for (unsigned i = 0; i < 3; ++i) {
        control_complete_error(f_.get(), fake_queue::posted.back(), not_ready, 10);
        EXPECT_EQ(p->slow->backoff, i + 1);
        f_->peers.slow_get(p)->timer_due = 1;
        control_tick(f_.get());
        control_run(f_.get());
        ASSERT_EQ(fake_queue::posted.size(), i + 2);
    }
    control_complete(f_.get(), fake_queue::posted.back());
    EXPECT_EQ(p->slow->backoff, 0u);
}

TEST_F(srd_control, a_refused_message_holds_back_the_others_until_the_timer)
{
    peer *p  = peer_of(7);
    p->state = peer_state::open;
    error_meaning not_ready{};
    not_ready.whose = fault::not_ready;

    control_want(f_.get(), p, want_credit | want_probe);
    control_run(f_.get());
    ASSERT_EQ(fake_queue::posted.size(), 2u); // most slots are free: two
    control_want(f_.get(), p, want_nak);
    control_run(f_.get());
    ASSERT_EQ(fake_queue::posted.size(), 2u); // its share is used
    control_complete_error(f_.get(), fake_queue::posted[0], not_ready, 10);
    EXPECT_TRUE(p->want & want_credit);
    EXPECT_NE(p->slow->timer_due, 0u);
    EXPECT_FALSE(p->in_work);
    control_run(f_.get());
    EXPECT_EQ(fake_queue::posted.size(), 2u);
    EXPECT_FALSE(f_->attention & attend_work); // a program may sleep until the timer
    const base::time_ns limit = base::clock_now_ns() + base::sec(5);
    while (fake_queue::posted.size() == 2 && base::clock_now_ns() < limit) { // the back-off is 50 us
        control_tick(f_.get());
        control_run(f_.get());
    }
    EXPECT_EQ(fake_queue::posted.size(), 3u);
}

TEST_F(srd_control, closing_sends_again_what_found_no_receive)
{
    peer *p  = peer_of(7);
    p->state = peer_state::open;
    op *o    = f_->ops.get();
    *o       = {};
    o->owner = p;
    o->kind  = op_kind::am_inline;
    o->user  = true;
    o->length = 12;
    --f_->tx.sq_free;
    ++f_->tx.outstanding;
    p->tx.push_held(o);
    f_->closing = true;

    ibv_wc wc{};
    wc.status     = IBV_WC_RNR_RETRY_EXC_ERR;
    wc.vendor_err = 10;
    tx_complete_error(f_.get(), o, wc);
    EXPECT_TRUE(o->waiting);
    EXPECT_EQ(f_->tx.outstanding, 1u); // say_goodbye waits for it
    const base::time_ns limit = base::clock_now_ns() + base::sec(5);
    while (fake_queue::posted.empty() && base::clock_now_ns() < limit) { // the back-off is 20 us
        control_tick(f_.get());
        control_run(f_.get());
    }
    ASSERT_EQ(fake_queue::posted.size(), 1u);
    EXPECT_EQ(fake_queue::posted[0], o);
    tx_complete(f_.get(), o);
    EXPECT_EQ(f_->tx.outstanding, 0u);
}

} // namespace
