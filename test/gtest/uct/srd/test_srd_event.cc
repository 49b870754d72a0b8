/* Unit tests of wakeup (srd_event.cc): when a program may sleep, until when, and what happens to what becomes due meanwhile.
 * An interface without a device: nothing here posts or polls. Sleeping itself: test/system/ucp/ucp_sleep.cc.
 */
#include "interface_of_a_test.h"

#include <filesystem>
#include <gtest/gtest.h>
#include <memory>
#include <poll.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <vector>

using namespace srd;

namespace {

/// The keepalive is one of the timers.
uct_srd_iface_config_t config_with_keepalive()
{
    uct_srd_iface_config_t c = config_of_a_test();
    c.keepalive_interval     = 2;
    return c;
}

class srd_event : public testing::Test {
protected:
    srd_event() : f_(std::make_unique<iface>(&md_, config_with_keepalive(), uct_iface_params_t{}, 1))
    {
        gid_type gid{};
        gid[0]               = 0xfe;
        p_                   = f_->peers.create(gid, 7, 8, 1);
        peer_2_              = f_->peers.create(gid, 9, 8, 1);
        e_.super.super.iface = &f_->super.super;
        e_.owner             = p_;
        p_->eps              = &e_;
        f_->event.timer_fd   = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    }
    ~srd_event() override { close(f_->event.timer_fd); }

    bool timer_fires_within(int ms)
    {
        pollfd wait{f_->event.timer_fd, POLLIN, 0};
        return poll(&wait, 1, ms) == 1;
    }

    uct_srd_md_t md_ = md_of_a_usual_device();
    std::unique_ptr<iface> f_;
    peer *p_, *peer_2_;
    ep e_{};
    uct_pending_req_t request_{};
};

TEST_F(srd_event, nothing_to_do_allows_an_endless_sleep)
{
    EXPECT_EQ(event_deadline(f_.get()), 0u);
    EXPECT_FALSE(event_work_is_due(f_.get(), base::sec(100)));
}

TEST_F(srd_event, deadline_is_the_earliest_timer)
{
    timer_arm(f_.get(), p_, base::sec(50));
    EXPECT_EQ(event_deadline(f_.get()), base::sec(50));
    timer_arm(f_.get(), peer_2_, base::sec(40));
    EXPECT_EQ(event_deadline(f_.get()), base::sec(40));
    timer_arm(f_.get(), p_, base::sec(60)); // an armed timer never moves back
    EXPECT_EQ(event_deadline(f_.get()), base::sec(40));
    EXPECT_FALSE(event_work_is_due(f_.get(), base::sec(39)));
    EXPECT_TRUE(event_work_is_due(f_.get(), base::sec(40)));
    EXPECT_EQ(f_->tick, 1u); // the next progress call looks at the clock
}

TEST_F(srd_event, endpoints_limit_the_sleep_to_half_the_keepalive_interval)
{
    f_->ticked_at = base::sec(10);
    EXPECT_EQ(event_deadline(f_.get()), 0u);
    f_->ep_count = 1;
    EXPECT_EQ(event_deadline(f_.get()), base::sec(11));
    timer_arm(f_.get(), p_, base::sec(10) + 1);
    EXPECT_EQ(event_deadline(f_.get()), base::sec(10) + 1);
    f_->keepalive_interval = 0;
    f_->timers             = nullptr;
    EXPECT_EQ(event_deadline(f_.get()), 0u);
}

TEST_F(srd_event, debts_and_stashed_completions_forbid_sleep)
{
    control_want(f_.get(), p_, want_credit);
    EXPECT_TRUE(event_work_is_due(f_.get(), base::sec(1)));
    f_->attention = 0;
    EXPECT_FALSE(event_work_is_due(f_.get(), base::sec(1)));
    f_->stash_count = 1;
    EXPECT_TRUE(event_work_is_due(f_.get(), base::sec(1)));
    f_->stash_count = 0;
    f_->polling     = true; // from inside a handler
    EXPECT_TRUE(event_work_is_due(f_.get(), base::sec(1)));
    f_->polling = false;
}

TEST_F(srd_event, a_queued_request_forbids_sleep_only_if_it_could_be_sent)
{
    const auto queue = [&] { return uct_srd_ep_pending_add(&e_.super.super, &request_, 0); };

    f_->tx.sq_free = 0;
    e_.reasons     = reason_queue;
    ASSERT_EQ(queue(), UCS_OK);
    EXPECT_FALSE(event_work_is_due(f_.get(), base::sec(1))); // a completion will give a slot back, and wakes
    f_->tx.sq_free = 1;
    EXPECT_TRUE(event_work_is_due(f_.get(), base::sec(1)));
    uct_srd_ep_pending_purge(&e_.super.super, nullptr, nullptr);
    EXPECT_FALSE(event_work_is_due(f_.get(), base::sec(1)));
}

TEST_F(srd_event, however_many_endpoints_wait_they_are_all_asked)
{
    constexpr int ep_count = 200;
    std::vector<ep> eps(ep_count);
    std::vector<uct_pending_req_t> requests(ep_count);

    f_->tx.sq_free = 0;
    for (int i = 0; i < ep_count; ++i) {
        eps[i].super.super.iface = &f_->super.super;
        eps[i].owner             = p_;
        eps[i].reasons           = reason_queue;
        ASSERT_EQ(uct_srd_ep_pending_add(&eps[i].super.super, &requests[i], 0), UCS_OK);
    }
    EXPECT_FALSE(event_work_is_due(f_.get(), base::sec(1)));
    eps[ep_count - 1].reasons = 0; // the last one can go on
    EXPECT_TRUE(event_work_is_due(f_.get(), base::sec(1)));
    for (ep &e : eps) {
        uct_srd_ep_pending_purge(&e.super.super, nullptr, nullptr);
    }
}

TEST_F(srd_event, what_only_waits_for_a_place_in_the_send_queue_allows_sleep)
{
    f_->tx.sq_free = 0;
    control_want(f_.get(), p_, want_repost);
    control_want(f_.get(), peer_2_, want_repost);
    EXPECT_FALSE(event_work_is_due(f_.get(), base::sec(1))); // a completion gives a place back, and wakes
    control_want(f_.get(), peer_2_, want_credit);
    EXPECT_TRUE(event_work_is_due(f_.get(), base::sec(1)));
    peer_2_->want  = want_repost;
    f_->tx.sq_free = 1;
    EXPECT_TRUE(event_work_is_due(f_.get(), base::sec(1)));
    EXPECT_EQ(f_->peers.work_pop(f_->work), p_); // looking at the list changed nothing
    EXPECT_EQ(f_->peers.work_pop(f_->work), peer_2_);
    EXPECT_EQ(f_->peers.work_pop(f_->work), nullptr);
}

TEST_F(srd_event, what_becomes_due_while_asleep_sets_the_timer)
{
    const base::time_ns now = base::clock_now_ns();

    timer_arm(f_.get(), p_, now + base::sec(100));
    EXPECT_EQ(f_->event.timer_at, 0u); // awake: event_arm will
    control_tick(f_.get()); // takes nothing away, and would end a sleep
    f_->event.armed = true;
    timer_arm(f_.get(), peer_2_, now + base::sec(90));
    EXPECT_EQ(f_->event.timer_at, now + base::sec(90));
    EXPECT_FALSE(timer_fires_within(0));
    timer_arm(f_.get(), p_, now + base::ms(1)); // earlier: it moves
    EXPECT_TRUE(timer_fires_within(5000));
}

TEST_F(srd_event, a_debt_made_while_asleep_wakes_at_once)
{
    f_->event.armed = true;
    control_want(f_.get(), p_, want_repost);
    EXPECT_TRUE(timer_fires_within(5000));
}

/// It is in the work list, but all that was owed to it waits for a completion.
TEST_F(srd_event, a_debt_to_who_waits_for_the_send_queue_wakes_as_well) // EVT-2
{
    f_->tx.sq_free = 0;
    control_want(f_.get(), p_, want_repost);
    ASSERT_FALSE(event_work_is_due(f_.get(), base::sec(1)));
    f_->event.armed = true;
    control_want(f_.get(), p_, want_repost);
    EXPECT_FALSE(timer_fires_within(0));
    control_want(f_.get(), p_, want_report);
    EXPECT_TRUE(timer_fires_within(5000));
}

TEST_F(srd_event, progress_ends_the_sleep_and_fires_timers)
{
    f_->event.armed = true;
    f_->keepalive_interval = 0;
    p_->waiting_count = 1;
    timer_arm(f_.get(), p_, base::clock_now_ns() + base::ms(2));
    ASSERT_TRUE(timer_fires_within(5000));
    control_tick(f_.get());
    EXPECT_FALSE(f_->event.armed);
    EXPECT_TRUE(p_->want & want_repost);
    EXPECT_TRUE(f_->attention & attend_work);
}

TEST_F(srd_event, an_interface_without_a_channel_offers_nothing)
{
    int fd = -1;

    EXPECT_EQ(uct_srd_iface_event_fd_get(&f_->super.super, &fd), UCS_ERR_UNSUPPORTED);
    EXPECT_EQ(fd, -1);
    EXPECT_EQ(uct_srd_iface_event_arm(&f_->super.super, UCT_EVENT_RECV), UCS_ERR_UNSUPPORTED);
}

TEST(srd_event_try, opens_no_channel_on_a_device_of_the_kernel_driver)
{
    namespace fs = std::filesystem;
    std::string name = "/tmp/srd_event.XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    const fs::path root(name);
    fs::create_directories(root / "0000:00:06.0");
    fs::create_directories(root / "0000:00:07.0");
    fs::create_directories(root / "0000:00:08.0");
    fs::create_symlink("../../../../bus/pci/drivers/efa", root / "0000:00:06.0" / "driver");
    fs::create_symlink("../../../../bus/pci/drivers/virtio-pci", root / "0000:00:07.0" / "driver");

    EXPECT_FALSE(event_try_is_safe("0000:00:06.0", name.c_str()));
    EXPECT_TRUE(event_try_is_safe("0000:00:07.0", name.c_str()));
    EXPECT_TRUE(event_try_is_safe("0000:00:08.0", name.c_str()));  // no driver
    EXPECT_TRUE(event_try_is_safe("0000:00:09.0", name.c_str()));  // no device
    EXPECT_FALSE(event_try_is_safe("", name.c_str()));             // not known
    fs::remove_all(root);
}

} // namespace
