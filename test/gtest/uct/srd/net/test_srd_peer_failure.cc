/* Promises of docs/uct-semantics.md about a peer that fails: who is told, when, with which status, what the log says, and what
 * comes after it.
 */
#include "two_nodes.h"

extern "C" {
#include <ucs/config/global_opts.h>
}

#include <algorithm>
#include <cstdarg>
#include <map>
#include <string>

using namespace srd_net;

namespace {

/// What the error handler of an interface was told.
struct reports {
    std::map<uct_ep_h, std::vector<ucs_status_t>> of;
    unsigned count() const
    {
        unsigned n = 0;
        for (const auto &[ep, all] : of) {
            n += static_cast<unsigned>(all.size());
        }
        return n;
    }
};

ucs_status_t on_error(void *arg, uct_ep_h ep, ucs_status_t status)
{
    static_cast<reports *>(arg)->of[ep].push_back(status);
    return UCS_OK;
}

/// One line of UCX's log at most.
struct logged {
    static inline unsigned lines;
    static inline ucs_log_level_t level;
    static inline std::string text;

    logged()
    {
        lines = 0;
        text.clear();
        before_                                 = ucs_global_opts.log_component.log_level;
        ucs_global_opts.log_component.log_level = UCS_LOG_LEVEL_ERROR;
        ucs_log_push_handler([](const char *, unsigned, const char *, ucs_log_level_t l, const ucs_log_component_config_t *,
                                const char *format, va_list arguments) {
            char line[1000];
            std::vsnprintf(line, sizeof(line), format, arguments);
            ++lines;
            level = l;
            text  = line;
            return UCS_LOG_FUNC_RC_STOP;
        });
    }
    ~logged()
    {
        ucs_log_pop_handler();
        ucs_global_opts.log_component.log_level = before_;
    }

private:
    ucs_log_level_t before_;
};

class srd_peer_failure : public two_nodes {
protected:
    void SetUp() override
    {
        two_nodes::SetUp();
        keeper_.keep = false;
    }
    void open_telling(fuzz::options o = {})
    {
        o.on_error = on_error;
        o.arg      = &reports_;
        open(o);
    }
    /// The peer is gone without a word: its device answers nobody any more.
    void kill_right() { net.nodes = {left.get()}; }

    /// Lets virtual time pass in steps, with one progress call each, until there are so many reports.
    double seconds_until_reports(unsigned count, double limit)
    {
        const std::uint64_t begin = fake::clock_ns;
        while (reports_.count() < count && static_cast<double>(fake::clock_ns - begin) < limit * 1e9) {
            fake::clock_ns += 10'000'000;
            left->progress_timers();
            while (!left->device.sends.empty()) {
                net.carry(*left, 0);
            }
        }
        return static_cast<double>(fake::clock_ns - begin) / 1e9;
    }

    reports reports_;
};

TEST_F(srd_peer_failure, each_endpoint_is_told_once_from_progress_and_other_peers_go_on)
{
    open_telling();
    node third(fuzz::gid_of(3), {});
    ASSERT_EQ(third.open(13), UCS_OK);
    keeper there;
    there.keep = false;
    uct_iface_set_am_handler(third.handle(), 1, on_message, &there, 0);
    net.nodes.push_back(&third);
    send(20);
    auto &ops      = left->handle()->ops;
    uct_ep_h eps[] = {ep, left->connect(right->device.gid, right->qpn(), right->device.qkey),
                      left->connect(right->device.gid, right->qpn(), right->device.qkey)};
    uct_ep_h other = left->connect(third.device.gid, third.qpn(), third.device.qkey);
    fuzz::told told[2], flushed;
    ASSERT_EQ(ops.ep_am_zcopy(eps[0], 1, "a", 1, nullptr, 0, 0, &told[0]), UCS_INPROGRESS);
    ASSERT_EQ(ops.ep_am_zcopy(eps[1], 1, "b", 1, nullptr, 0, 0, &told[1]), UCS_INPROGRESS);
    ASSERT_EQ(ops.ep_flush(eps[0], 0, &flushed), UCS_INPROGRESS);
    while (uct_ep_am_short(eps[2], 1, 0, nullptr, 0) == UCS_OK) {
    }
    struct request : uct_pending_req_t {
        unsigned calls = 0, purged = 0;
    } waits;
    waits.func = [](uct_pending_req_t *self) {
        ++static_cast<request *>(self)->calls;
        return UCS_OK;
    };
    ASSERT_EQ(ops.ep_pending_add(eps[2], &waits, 0), UCS_OK);

    while (!left->device.sends.empty()) { // the process ended
        left->device.complete_send(0, IBV_WC_REM_INV_RD_REQ_ERR, 9);
    }
    EXPECT_EQ(reports_.count(), 0u);
    for (unsigned i = 0; i < 5; ++i) {
        left->progress();
    }
    for (uct_ep_h e : eps) {
        EXPECT_EQ(reports_.of[e], std::vector<ucs_status_t>{UCS_ERR_ENDPOINT_TIMEOUT});
        EXPECT_EQ(uct_ep_am_short(e, 1, 0, nullptr, 0), UCS_ERR_ENDPOINT_TIMEOUT);
        EXPECT_EQ(ops.ep_check(e, 0, nullptr), UCS_ERR_ENDPOINT_TIMEOUT);
    }
    for (const fuzz::told &t : told) { // what was outstanding has ended with the error
        EXPECT_EQ(t.calls, 1u);
        EXPECT_EQ(t.status, UCS_ERR_ENDPOINT_TIMEOUT);
    }
    EXPECT_EQ(flushed.calls, 1u);
    EXPECT_EQ(waits.calls, 0u); // what is pending is its owner's to purge
    ops.ep_pending_purge(eps[2], [](uct_pending_req_t *r, void *) { ++static_cast<request *>(r)->purged; }, nullptr);
    EXPECT_EQ(waits.purged, 1u);

    EXPECT_EQ(reports_.of.count(other), 0u);
    ASSERT_EQ(uct_ep_am_short(other, 1, 0, nullptr, 0), UCS_OK);
    for (unsigned i = 0; i < 50; ++i) {
        fake::clock_ns += 50'000'000;
        left->progress_timers();
        third.progress_timers();
        for (node *n : {left.get(), &third}) {
            while (!n->device.sends.empty()) {
                net.carry(*n, 0);
            }
        }
    }
    EXPECT_EQ(there.messages, 1u);
    EXPECT_EQ(reports_.count(), 3u);
    for (uct_ep_h e : {eps[1], eps[2], other}) {
        ops.ep_destroy(e);
    }
    net.nodes.pop_back();
}

TEST_F(srd_peer_failure, the_line_in_the_log_names_the_peer_the_status_and_the_cause_and_is_never_fatal)
{
    open_telling();
    send(3);
    left->f->super.config.failure_level = UCS_LOG_LEVEL_FATAL; // UCX_SRD_FAILURE=fatal: UCX would abort the process
    ASSERT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_OK);
    left->device.complete_send(0, IBV_WC_REM_INV_RD_REQ_ERR, 9);
    logged log;
    left->progress();
    EXPECT_EQ(log.lines, 1u);
    EXPECT_EQ(log.level, UCS_LOG_LEVEL_ERROR);
    for (const char *part : {"GID fe80::100:0:0:2", "QPN 12 ", "device status 9", "Endpoint timeout", "no such queue pair",
                             "likely cause: the peer process ended"}) {
        EXPECT_NE(log.text.find(part), std::string::npos) << part << " is not in: " << log.text;
    }
}

TEST_F(srd_peer_failure, a_peer_that_is_busy_is_waited_for_as_long_as_it_takes)
{
    open_telling();
    send(3);
    std::deque<fake::receive> receives;
    receives.swap(right->device.receives);
    ASSERT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_OK);
    EXPECT_GE(seconds_until_reports(1, 600), 600);
    EXPECT_EQ(reports_.count(), 0u);
    receives.swap(right->device.receives);
    settle();
    EXPECT_EQ(keeper_.messages, 4u);
}

TEST_F(srd_peer_failure, a_peer_that_is_busy_for_longer_than_the_timeout_fails)
{
    fuzz::options o;
    o.rnr_timeout = 2;
    open_telling(o);
    send(3);
    std::deque<fake::receive> receives;
    receives.swap(right->device.receives);
    ASSERT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_OK);
    const double took = seconds_until_reports(1, 10);
    EXPECT_GT(took, 2.0);
    EXPECT_LT(took, 2.1);
    EXPECT_EQ(reports_.of[ep], std::vector<ucs_status_t>{UCS_ERR_ENDPOINT_TIMEOUT});
    receives.swap(right->device.receives);
}

TEST_F(srd_peer_failure, an_idle_peer_that_is_gone_is_noticed_within_twice_the_interval)
{
    for (const double interval : {2.0, 0.5}) {
        reports_.of.clear();
        open_telling();
        left->f->keepalive_interval = static_cast<base::time_ns>(interval * 1e9);
        send(3);
        seconds_until_reports(1, 7); // idle, and asked now and then
        EXPECT_EQ(reports_.count(), 0u);
        const auto asked = left->f->counters.get(srd::counter::tx_control);
        for (unsigned i = 0; i < 2000 && left->f->counters.get(srd::counter::tx_control) == asked; ++i) {
            seconds_until_reports(1, 0.01);
        }
        kill_right(); // just after it was asked
        const double took = seconds_until_reports(1, 100);
        EXPECT_LE(took, 2 * std::max(interval, 1.0)); // kept in whole seconds
        EXPECT_EQ(reports_.of[ep], std::vector<ucs_status_t>{UCS_ERR_ENDPOINT_TIMEOUT});
        left->handle()->ops.ep_destroy(ep);
        ep = nullptr;
        left.reset();
        right.reset();
        keeper_.messages = 0;
    }
}

TEST_F(srd_peer_failure, without_an_interval_an_idle_peer_is_not_asked)
{
    open_telling();
    left->f->keepalive_interval = 0;
    send(3);
    kill_right();
    const auto posted = left->device.posted_sends;
    seconds_until_reports(1, 100);
    EXPECT_EQ(reports_.count(), 0u);
    EXPECT_EQ(left->device.posted_sends, posted);
    EXPECT_EQ(left->handle()->ops.ep_check(ep, 0, nullptr), UCS_OK); // but UCP may ask
    EXPECT_LE(seconds_until_reports(1, 100), 1.0);
    EXPECT_EQ(reports_.of[ep], std::vector<ucs_status_t>{UCS_ERR_ENDPOINT_TIMEOUT});
}

TEST_F(srd_peer_failure, a_failed_endpoint_stays_failed_and_a_new_one_begins_a_new_life)
{
    open_telling();
    send(5);
    ASSERT_EQ(left->f->super.internal_ops->ep_invalidate(ep, 0), UCS_OK);
    settle();
    EXPECT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_ERR_ENDPOINT_TIMEOUT);
    EXPECT_EQ(keeper_.messages, 5u);
    uct_ep_h failed = ep;
    ep              = left->connect(right->device.gid, right->qpn(), right->device.qkey);
    ASSERT_NE(ep, nullptr);
    send(30);
    EXPECT_EQ(keeper_.messages, 35u);
    EXPECT_EQ(uct_ep_am_short(failed, 1, 0, nullptr, 0), UCS_ERR_ENDPOINT_TIMEOUT);
    EXPECT_EQ(reports_.count(), 1u);
    left->handle()->ops.ep_destroy(failed);
}

TEST_F(srd_peer_failure, a_living_peer_that_is_given_up_hears_of_it_at_once)
{
    reports there;
    fuzz::options o;
    o.on_error = on_error;
    o.arg      = &there;
    open({}, o);
    send(5);
    uct_ep_h back = right->connect(left->device.gid, left->qpn(), left->device.qkey);
    ASSERT_NE(back, nullptr);
    ASSERT_EQ(left->f->super.internal_ops->ep_invalidate(ep, 0), UCS_OK);
    left->progress();
    while (!left->device.sends.empty()) {
        net.carry(*left, 0);
    }
    right->progress(); // no time has passed, and nothing else was sent
    right->progress();
    EXPECT_EQ(there.of[back], std::vector<ucs_status_t>{UCS_ERR_ENDPOINT_TIMEOUT});
    right->handle()->ops.ep_destroy(back);
}

TEST_F(srd_peer_failure, a_withdrawn_message_does_not_hold_up_those_behind_it)
{
    open_telling();
    send(20);
    auto &ops = left->handle()->ops;
    std::deque<fake::receive> receives;
    receives.swap(right->device.receives); // not ready
    fuzz::told told, cancelled;
    ASSERT_EQ(ops.ep_am_zcopy(ep, 1, "x", 1, nullptr, 0, 0, &told), UCS_INPROGRESS);
    net.carry(*left, 0);
    left->progress();
    EXPECT_EQ(told.calls, 0u); // it waits, and the device does not hold it
    EXPECT_EQ(ops.ep_flush(ep, UCT_FLUSH_FLAG_CANCEL, &cancelled), UCS_OK);
    EXPECT_EQ(told.calls, 1u); // from inside flush with cancel
    EXPECT_EQ(told.status, UCS_ERR_CANCELED);
    receives.swap(right->device.receives);
    uct_ep_h later = left->connect(right->device.gid, right->qpn(), right->device.qkey);
    std::swap(ep, later);
    send(30);
    EXPECT_EQ(keeper_.messages, 50u); // all but the withdrawn one
    EXPECT_EQ(reports_.count(), 0u);
    ops.ep_destroy(later);
}

TEST_F(srd_peer_failure, a_progress_call_that_only_told_of_a_failure_says_so)
{
    open_telling();
    send(5);
    srd::peer_fail(left->f, srd::ep_of(ep)->owner, UCS_ERR_IO_ERROR, "a test", "of nothing", 0, false); // nothing is sent about it
    const auto posted = left->device.posted_sends, polled = left->device.polled;
    EXPECT_NE(left->progress(), 0u); // a program that sleeps after a 0 must not sleep after this
    EXPECT_EQ(reports_.count(), 1u);
    EXPECT_EQ(left->device.posted_sends, posted);
    EXPECT_EQ(left->device.polled, polled);
    EXPECT_EQ(left->progress(), 0u);
}

/// Armed without endpoints there is nobody to look after; the program may not arm again for the one it makes.
TEST_F(srd_peer_failure, a_sleeper_that_makes_an_endpoint_wakes_to_look_after_it) // W7, E16
{
    open_telling();
    send(3);
    left->handle()->ops.ep_destroy(ep);
    left->progress();
    left->f->keepalive_interval = base::sec(2);
    left->f->timers             = nullptr;
    left->f->event.armed        = true;
    left->f->event.timer_at     = 0;
    ep = left->connect(right->device.gid, right->qpn(), right->device.qkey);
    ASSERT_NE(ep, nullptr);
    EXPECT_NE(left->f->event.timer_at, 0u);
    EXPECT_EQ(left->f->event.timer_at, event_deadline(left->f));
}

TEST_F(srd_peer_failure, completions_that_were_set_aside_make_progress_say_so)
{
    open_telling();
    send(20);
    uct_ep_h going = left->connect(right->device.gid, right->qpn(), right->device.qkey);
    fuzz::told told;
    fuzz::region memory(left->device, 100);
    const uct_iov_t iov = {memory.bytes.get(), 100, &memory.mem, 0, 1};
    ASSERT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_OK);
    ASSERT_EQ(left->handle()->ops.ep_am_zcopy(going, 1, nullptr, 0, &iov, 1, 0, &told), UCS_INPROGRESS);
    net.carry(*left, 0);
    net.carry(*left, 0);
    left->handle()->ops.ep_destroy(going); // takes both completions, and keeps the first for the next progress call
    EXPECT_EQ(told.calls, 1u);
    ASSERT_EQ(left->f->stash_count, 1u);
    EXPECT_NE(left->progress(), 0u);
    EXPECT_EQ(left->f->stash_count, 0u);
    settle();
    EXPECT_EQ(keeper_.messages, 22u);
}

} // namespace
