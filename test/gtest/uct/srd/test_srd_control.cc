/* Unit tests of the exchange between interfaces (srd_control.cc): whose life a header belongs to, who is told what, how many
 * slots one peer may take, when a peer is forgotten. An interface without a device: posts end in a counter.
 */
#include "interface_of_a_test.h"

#include <gtest/gtest.h>
#include <memory>
#include <vector>

using namespace srd;

namespace {

/// Takes every request and remembers it.
struct fake_queue {
    ibv_context context{};
    ibv_qp qp{};
    static inline std::vector<op *> posted;

    fake_queue()
    {
        posted.clear();
        context.ops.post_send = [](ibv_qp *, ibv_send_wr *wr, ibv_send_wr **) {
            posted.push_back(reinterpret_cast<op *>(wr->wr_id));
            return 0;
        };
        qp.context = &context;
    }
};

class srd_control : public testing::Test {
protected:
    srd_control() : f_(std::make_unique<iface>(&md_, config_of_a_test(64), uct_iface_params_t{}, 1))
    {
        f_->tx.qp                      = &queue_.qp;
        f_->super.config.failure_level = UCS_LOG_LEVEL_DEBUG;
        gid_[0]                        = 0xfe;
        for (auto &bytes : bufs_) {
            auto *b             = reinterpret_cast<tx_buf *>(bytes);
            b->next             = f_->tx.control_bufs;
            f_->tx.control_bufs = b;
        }
    }
    ~srd_control() override
    {
        f_->tx.control_bufs = nullptr;
        f_->tx.qp           = nullptr;
    }

    peer *peer_of(std::uint16_t qpn)
    {
        peer *p = f_->peers.create(gid_, qpn, 8, base::clock_now_ns());
        p->ah   = reinterpret_cast<ibv_ah *>(this); // never followed
        return p;
    }

    wire::long_header header(std::uint32_t epoch, std::uint32_t known_epoch) const
    {
        wire::long_header h;
        h.gid         = gid_;
        h.qkey        = 8;
        h.epoch       = epoch;
        h.known_epoch = known_epoch;
        h.your_index  = 5;
        return h;
    }

    static constexpr std::uint32_t control_imm(wire::control type)
    {
        return wire::imm_make(static_cast<unsigned>(type), base::seq32(0), wire::imm_control | wire::imm_long);
    }

    peer *resolve(std::uint32_t imm, const wire::long_header &h) { return control_resolve(f_.get(), imm, h, 7, ah_number_unknown); }

    unsigned char refusal_ = static_cast<unsigned char>(wire::nak_reason::no_address_handle);
    uct_srd_md_t md_       = md_of_a_usual_device();
    fake_queue queue_;
    std::unique_ptr<iface> f_;
    gid_type gid_{};
    alignas(64) unsigned char bufs_[limits::control_slots][sizeof(tx_buf) + limits::control_size_max] = {};
};

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
