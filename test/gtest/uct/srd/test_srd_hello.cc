/* Unit tests of what long headers and control messages say (srd_hello.cc): whose life a header belongs to, who is told what. */
#include "exchange_of_a_test.h"

using namespace srd;
using namespace srd::control_test;

namespace {

TEST_F(srd_control, a_message_of_a_life_we_gave_up_does_not_pass_for_one_to_our_new_life)
{
    peer *dead         = peer_of(7);
    dead->epoch_remote = 77;
    peer_fail(f_.get(), dead, UCS_ERR_IO_ERROR, "test", "test", 9);
    dead->want  = 0;
    peer *fresh = peer_of(7);

    EXPECT_EQ(resolve(0, header(77, 0)), nullptr);
    EXPECT_EQ(fresh->epoch_remote, 0u);
    EXPECT_TRUE(dead->want & want_nak);
    EXPECT_EQ(f_->counters.get(counter::rx_dropped_stale), 1u);
    EXPECT_EQ(resolve(0, header(78, 0)), fresh); // a new life of theirs
    EXPECT_EQ(fresh->epoch_remote, 78u);
}

TEST_F(srd_control, each_of_several_lives_that_we_gave_up_is_told_by_itself)
{
    peer *dead[3];
    for (std::uint32_t i = 0; i < 3; ++i) {
        dead[i]               = peer_of(7);
        dead[i]->epoch_remote = 71 + i;
        peer_fail(f_.get(), dead[i], UCS_ERR_IO_ERROR, "test", "test", 9);
        dead[i]->want = 0;
    }
    peer *lives         = peer_of(7);
    lives->epoch_remote = 74;
    for (std::uint32_t i = 3; i-- > 0;) {
        EXPECT_EQ(resolve(0, header(71 + i, 0)), nullptr);
        for (std::uint32_t k = 0; k < 3; ++k) {
            EXPECT_EQ((dead[k]->want & want_nak) != 0, k >= i) << i << k;
        }
    }
    EXPECT_EQ(resolve(0, header(74, 0)), lives);
    EXPECT_EQ(lives->state, peer_state::fresh);
    EXPECT_EQ(f_->counters.get(counter::rx_dropped_stale), 3u);
}

TEST_F(srd_control, two_lives_that_failed_each_other_fall_silent)
{
    peer *dead         = peer_of(7);
    dead->epoch_remote = 77;
    peer_fail(f_.get(), dead, UCS_ERR_IO_ERROR, "test", "test", 9);
    dead->want = 0;

    EXPECT_EQ(resolve(control_imm(wire::control::nak), header(77, 0)), nullptr);
    EXPECT_EQ(resolve(control_imm(wire::control::bye), header(77, 0)), nullptr);
    EXPECT_EQ(dead->want & want_nak, 0);
}

TEST_F(srd_control, a_life_that_an_older_one_displaced_is_told)
{
    peer *p = resolve(0, header(2, 0)); // the second life is heard first
    ASSERT_NE(p, nullptr);
    p->ah       = reinterpret_cast<ibv_ah *>(this);
    peer *older = resolve(0, header(1, 0)); // then a late message of the first one
    ASSERT_NE(older, nullptr);
    ASSERT_NE(older, p);
    EXPECT_EQ(p->state, peer_state::failed);
    EXPECT_EQ(p->want & want_nak, 0);

    EXPECT_EQ(resolve(0, header(2, 0)), nullptr);
    EXPECT_TRUE(p->want & want_nak); // else it would wait for ever
    EXPECT_NE(older->state, peer_state::failed);
}

TEST_F(srd_control, a_refusal_of_another_life_of_ours_fails_nobody)
{
    peer *p         = peer_of(7);
    p->epoch_remote = 77;
    const std::uint32_t ours = f_->peers.epoch_local(p);

    EXPECT_EQ(resolve(control_imm(wire::control::nak), header(78, ours + 1)), nullptr);
    EXPECT_EQ(resolve(control_imm(wire::control::nak), header(78, 0)), nullptr);
    EXPECT_EQ(p->state, peer_state::fresh);
    EXPECT_EQ(p->epoch_remote, 77u);
    EXPECT_NE(resolve(control_imm(wire::control::nak), header(78, 0x1234)), p);
    EXPECT_EQ(p->state, peer_state::fresh);
}

TEST_F(srd_control, a_late_goodbye_begins_no_life)
{
    EXPECT_EQ(resolve(control_imm(wire::control::nak), header(77, 5)), nullptr);
    EXPECT_EQ(f_->peers.live(), 0u); // of nobody
    peer *p         = peer_of(7);
    p->epoch_remote = 78;
    const std::uint32_t other = f_->peers.epoch_local(p) + 1;
    EXPECT_EQ(resolve(control_imm(wire::control::nak), header(77, other)), nullptr); // a forgotten life to one before ours
    EXPECT_EQ(resolve(control_imm(wire::control::bye), header(77, f_->peers.epoch_local(p))), nullptr);
    EXPECT_EQ(p->state, peer_state::fresh);
    EXPECT_EQ(p->epoch_remote, 78u);
    EXPECT_EQ(f_->peers.live(), 1u);
    EXPECT_EQ(f_->counters.get(counter::rx_dropped_stale), 3u);
}

TEST_F(srd_control, a_refusal_of_this_life_counts_whichever_life_of_the_peer_says_it)
{
    peer *p         = peer_of(7);
    p->epoch_remote = 78;
    const auto h    = header(77, f_->peers.epoch_local(p));
    EXPECT_EQ(control_resolve(f_.get(), control_imm(wire::control::nak), h, 7, ah_number_unknown,
                              wire::nak_reason::no_address_handle), nullptr); // an old one: it has answered since
    EXPECT_EQ(p->state, peer_state::fresh);
    EXPECT_EQ(resolve(control_imm(wire::control::nak), h), nullptr);
    EXPECT_EQ(p->state, peer_state::failed);
    EXPECT_EQ(p->status(), UCS_ERR_ENDPOINT_TIMEOUT);
    EXPECT_EQ(f_->peers.live(), 1u); // no other life began
}

TEST_F(srd_control, a_living_peer_is_told_that_we_gave_it_up_and_a_gone_one_is_not)
{
    peer *lives = peer_of(7), *gone = peer_of(8), *gave_up = peer_of(9);

    peer_fail(f_.get(), lives, UCS_ERR_IO_ERROR, "test", "test", 0);
    peer_fail(f_.get(), gone, UCS_ERR_ENDPOINT_TIMEOUT, "test", "test", 13);
    gave_up->epoch_remote       = 3;
    const unsigned char stale = static_cast<unsigned char>(wire::nak_reason::stale);
    EXPECT_TRUE(control_receive(f_.get(), gave_up, control_imm(wire::control::nak), &stale, 1));
    EXPECT_TRUE(lives->want & want_nak);
    EXPECT_EQ(gone->want & want_nak, 0);
    EXPECT_EQ(gave_up->state, peer_state::failed);
    EXPECT_EQ(gave_up->want & want_nak, 0);
    control_run(f_.get());
    ASSERT_EQ(fake_queue::posted.size(), 1u);
    EXPECT_EQ(fake_queue::posted[0]->owner, lives);
}

TEST_F(srd_control, a_refusal_opens_nothing)
{
    peer *p = peer_of(7);
    const auto h = header(77, f_->peers.epoch_local(p));

    ASSERT_EQ(resolve(control_imm(wire::control::nak), h), p);
    control_heard_long(f_.get(), p, control_imm(wire::control::nak), h);
    EXPECT_EQ(p->state, peer_state::fresh); // short headers would be lost: the peer cannot check them
    control_heard_long(f_.get(), p, control_imm(wire::control::hello_ack), h);
    EXPECT_EQ(p->state, peer_state::open);
}

TEST_F(srd_control, refusals_end_in_a_failure_that_says_why)
{
    peer *p = peer_of(7);

    for (unsigned i = 1; i < limits::refusals_max; ++i) {
        ASSERT_TRUE(control_receive(f_.get(), p, control_imm(wire::control::nak), &refusal_, 1));
        ASSERT_EQ(p->state, peer_state::fresh);
    }
    EXPECT_TRUE(control_receive(f_.get(), p, control_imm(wire::control::nak), &refusal_, 1));
    EXPECT_EQ(p->state, peer_state::failed);
    EXPECT_EQ(p->status(), UCS_ERR_UNREACHABLE);
}

TEST_F(srd_control, an_old_refusal_of_an_open_peer_is_forgotten)
{
    peer *p  = peer_of(7);
    p->state = peer_state::open;

    for (unsigned i = 0; i < 2 * limits::refusals_max; ++i) {
        ASSERT_TRUE(control_receive(f_.get(), p, control_imm(wire::control::nak), &refusal_, 1));
    }
    EXPECT_EQ(p->state, peer_state::open);
}

TEST_F(srd_control, a_nak_with_an_unknown_reason_is_malformed)
{
    peer *p = peer_of(7);

    for (const unsigned char reason : {0, 3, 255}) {
        EXPECT_FALSE(control_receive(f_.get(), p, control_imm(wire::control::nak), &reason, 1));
    }
    EXPECT_FALSE(control_receive(f_.get(), p, control_imm(wire::control::nak), &refusal_, 0));
    EXPECT_EQ(p->state, peer_state::fresh);
}

TEST_F(srd_control, a_message_to_a_former_life_of_ours_does_not_end_the_one_that_we_have)
{
    peer *p         = peer_of(7);
    p->epoch_remote = 78;
    p->state        = peer_state::open;
    const std::uint32_t former = f_->peers.epoch_local(p) + 1;

    for (int again = 0; again < 3; ++again) { // whether the device knows where it comes from, or not
        EXPECT_EQ(control_resolve(f_.get(), again == 1 ? control_imm(wire::control::hello) : 0, header(77, former), 7,
                                  again == 2 ? std::uint16_t{3} : ah_number_unknown), nullptr);
        EXPECT_EQ(p->state, peer_state::open);
        EXPECT_EQ(p->want, 0);
        EXPECT_EQ(f_->peers.find(gid_, 7, 8), p);
    }
    EXPECT_EQ(f_->counters.get(counter::rx_dropped_stale), 3u);
    EXPECT_EQ(f_->counters.get(counter::peers_failed), 0u);
    EXPECT_EQ(f_->peers.live(), 2u); // the other life is remembered, once
    peer *disowned = f_->peers.find_failed(gid_, 7, 8, 77);
    ASSERT_NE(disowned, nullptr);
    EXPECT_EQ(disowned->want & want_nak, want_nak);

    // What it is told names it, so that only it ends: its peer of now has another epoch.
    disowned->ah = reinterpret_cast<ibv_ah *>(this);
    control_run(f_.get());
    ASSERT_EQ(fake_queue::posted.size(), 1u);
    const op *nak = fake_queue::posted[0];
    wire::long_header told;
    ASSERT_TRUE(wire::get_long(nak->ref.buf->payload - wire::long_size, wire::long_size, told));
    EXPECT_EQ(told.known_epoch, 77u);
    EXPECT_EQ(told.epoch, f_->peers.epoch_local(disowned));
    EXPECT_NE(told.epoch, f_->peers.epoch_local(p));
}

TEST_F(srd_control, two_sides_that_each_hear_a_past_life_of_the_other_come_together)
{
    // Each has an object that heard a life of the other's which is over, and speaks in it.
    peer *p                     = peer_of(7);
    p->epoch_remote             = 71;
    const std::uint32_t current = 72, former = f_->peers.epoch_local(p) + 1;
    EXPECT_EQ(resolve(0, header(current, former)), nullptr); // speaks in 72, to a former life of ours
    ASSERT_NE(f_->peers.find_failed(gid_, 7, 8, current), nullptr);
    // Told by its epoch it fails, and its program addresses us anew.
    peer *next = resolve(0, header(73, 0));
    ASSERT_NE(next, nullptr);
    EXPECT_NE(next, p);
    EXPECT_EQ(p->state, peer_state::failed);
    EXPECT_EQ(next->epoch_remote, 73u);
}

TEST_F(srd_control, a_message_to_a_former_life_of_ours_with_no_room_to_remember_it_ends_nothing)
{
    peer *p         = peer_of(7);
    p->epoch_remote = 78;
    for (std::uint16_t i = 0; f_->peers.create(gid_, static_cast<std::uint16_t>(100 + i), 8, 1) != nullptr; ++i) {
    }
    EXPECT_EQ(resolve(0, header(77, f_->peers.epoch_local(p) + 1)), nullptr);
    EXPECT_EQ(p->state, peer_state::fresh);
    EXPECT_EQ(f_->counters.get(counter::rx_dropped_stale), 1u);
}

} // namespace
