/* Trouble on request: the decisions alone, then carried out by the device. */
#include "softefa/dev/child.h"
#include "softefa/dev/helper.h"
#include "softefa/dev/rude.h"
#include "softefa/dev/set_up.h"

#include <algorithm>
#include <fcntl.h>
#include <sched.h>
#include <set>

namespace {

using namespace nic;
using softefa::rude_settings;
using fate = rudeness::fate;

constexpr rude_peer peer_a{0, 100}, peer_b{0, 101};

rudeness with(const rude_settings &rules, std::uint64_t seed = 1)
{
    rudeness r;
    r.init(rules, seed);
    return r;
}

// --- decisions

TEST(rude, everything_off_passes)
{
    rudeness r = with({});
    EXPECT_FALSE(r.sends());
    EXPECT_FALSE(r.receives());
    for (unsigned i = 0; i < 1000; ++i) {
        EXPECT_EQ(r.send(0, peer_a).what, fate::pass);
        EXPECT_FALSE(r.receive(0, peer_a, i, 1));
    }
}

TEST(rude, one_seed_gives_one_sequence_and_another_seed_another)
{
    rude_settings rules;
    rules.delay_ns_max    = 1'000'000;
    rules.delay_per_65536 = 20000;
    rules.fail_status     = 8;
    rules.fail_per_65536  = 5000;
    rudeness one = with(rules, 7), again = with(rules, 7), other = with(rules, 8);
    unsigned differ = 0;
    for (unsigned i = 0; i < 5000; ++i) {
        const auto a = one.send(0, peer_a), b = again.send(0, peer_a), c = other.send(0, peer_a);
        ASSERT_EQ(a.what, b.what) << i;
        ASSERT_EQ(a.delay_ns, b.delay_ns) << i;
        differ += a.what != c.what || a.delay_ns != c.delay_ns;
    }
    EXPECT_GT(differ, 500u);
}

TEST(rude, one_knob_leaves_the_choices_of_another)
{
    rude_settings delays;
    delays.delay_ns_max    = 1'000'000;
    delays.delay_per_65536 = 20000;
    rude_settings both     = delays;
    both.fail_status       = 8;
    both.fail_per_65536    = 10000;
    rudeness a = with(delays), b = with(both);
    for (unsigned i = 0; i < 5000; ++i) {
        const auto alone = a.send(0, peer_a), mixed = b.send(0, peer_a);
        if (mixed.what != fate::fail) {
            ASSERT_EQ(alone.what, mixed.what) << i;
            ASSERT_EQ(alone.delay_ns, mixed.delay_ns) << i;
        }
    }
}

TEST(rude, the_nth_work_request_meets_its_fate)
{
    rude_settings rules;
    rules.fail_status = 13;
    rules.fail_at     = 3;
    rules.stop_at     = 5;
    rules.kill_at     = 7;
    rudeness r        = with(rules);
    for (unsigned i = 1; i <= 10; ++i) {
        const auto got = r.send(0, peer_a);
        EXPECT_EQ(got.what, i == 3 ? fate::fail : i == 5 ? fate::stop : i == 7 ? fate::kill : fate::pass) << i;
        EXPECT_EQ(got.status, i == 3 ? softefa::wire::efa_status::unresponsive : softefa::wire::efa_status::ok);
    }
}

TEST(rude, whom_it_does_not_concern_is_not_counted)
{
    rude_settings rules;
    rules.devices     = 2;
    rules.qpn         = 100;
    rules.fail_status = 1;
    rules.fail_at     = 2;
    rules.rnr_every   = 2;
    rudeness r        = with(rules);
    EXPECT_EQ(r.send(1, peer_a).what, fate::pass); // the first that counts
    for (unsigned i = 0; i < 10; ++i) {
        EXPECT_EQ(r.send(0, peer_a).what, fate::pass);
        EXPECT_EQ(r.send(1, peer_b).what, fate::pass);
        EXPECT_FALSE(r.receive(1, peer_b, 0, 0));
    }
    EXPECT_EQ(r.send(1, peer_a).what, fate::fail);
    EXPECT_FALSE(r.receive(1, peer_a, 0, 0));
    EXPECT_TRUE(r.receive(1, peer_a, 0, 0));
}

TEST(rude, share_of_peers_is_kept_and_each_peer_stays_what_it_is)
{
    rude_settings rules;
    rules.peers_per_65536 = 65536 / 4;
    const rudeness r      = with(rules);
    unsigned       bad    = 0;
    for (std::uint16_t qpn = 0; qpn < 4000; ++qpn) {
        const bool first = r.concerns(0, {0, qpn});
        EXPECT_EQ(first, r.concerns(0, {0, qpn}));
        bad += first;
    }
    EXPECT_GT(bad, 850u);
    EXPECT_LT(bad, 1150u);
}

TEST(rude, delays_stay_within_their_bounds_and_spread)
{
    rude_settings rules;
    rules.delay_ns_min = 1000;
    rules.delay_ns_max = 9'000'000'000;
    rudeness      r    = with(rules);
    std::uint64_t low = ~std::uint64_t{0}, high = 0;
    for (unsigned i = 0; i < 10000; ++i) {
        const auto got = r.send(0, peer_a);
        ASSERT_EQ(got.what, fate::delay);
        low  = std::min(low, got.delay_ns);
        high = std::max(high, got.delay_ns);
    }
    EXPECT_GE(low, 1000u);
    EXPECT_LT(low, 100'000'000u);
    EXPECT_LE(high, 9'000'000'000u);
    EXPECT_GT(high, 8'900'000'000u);
}

TEST(rude, receiver_is_not_ready_every_kth_time_or_for_a_while)
{
    rude_settings rules;
    rules.rnr_every = 3;
    rudeness r      = with(rules);
    for (unsigned i = 1; i <= 30; ++i)
        EXPECT_EQ(r.receive(0, peer_a, 0, 0), i % 3 == 0) << i;
    rules            = {};
    rules.rnr_for_ns = 1000;
    r                = with(rules);
    EXPECT_TRUE(r.receive(0, peer_a, 50, 50));
    EXPECT_TRUE(r.receive(0, peer_a, 1049, 50));
    EXPECT_FALSE(r.receive(0, peer_a, 1050, 50));
}

TEST(wire_model, bytes_follow_each_other_at_the_bandwidth)
{
    wire_model w;
    w.init(15'000, 100'000'000'000); // 15 us, 100 Gb/s: 12.5 bytes a nanosecond
    EXPECT_EQ(w.arrival(1000, 0), 16'000u);
    EXPECT_EQ(w.arrival(1000, 12500), 17'000u);
    EXPECT_EQ(w.arrival(1000, 1), 17'001u); // rounded up
    EXPECT_EQ(w.arrival(900'000, 1), 915'001u);
    w.init(0, 0);
    EXPECT_FALSE(w.on());
    w.init(0, 1000);
    EXPECT_EQ(w.arrival(0, 1u << 30), 8'589'934'592'000'000u);
}

// --- carried out

class rude_device : public device_test {
protected:
    device_counters counters() { return counted(); }
};

/// With one doorbell: however slow this thread is, their delays begin together. When they were posted.
std::uint64_t post_forty_at_once(endpoint &e)
{
    for (std::uint16_t i = 0; i < 40; ++i) {
        e.qp.post_recv(i, {e.slice(i * 64u, 64)});
        e.qp.put(e.qp.send_inline(i, e.ah, e.qp.qpn, std::string(1, static_cast<char>(i))));
    }
    const std::uint64_t now = base::clock_now_ns();
    e.qp.ring();
    return now;
}

TEST_F(rude_device, delayed_work_is_neither_early_nor_lost)
{
    wanted.rude.delay_ns_min = 2'000'000;
    wanted.rude.delay_ns_max = 200'000'000;
    use();
    const std::uint64_t delays = counters().rude_delays;
    endpoint            e;
    const std::uint64_t posted = post_forty_at_once(e);
    std::set<unsigned> seen;
    unsigned           swapped = 0, last = 0;
    for (unsigned n = 0; n < 40; ++n) {
        auto got = e.rcq.wait();
        ASSERT_TRUE(got) << n;
        const unsigned which = e.memory[got->req_id * 64u];
        ASSERT_LT(which, 40u);
        ASSERT_TRUE(seen.insert(which).second) << which << " came twice";
        EXPECT_GE(base::clock_now_ns() - posted, 2'000'000u);
        swapped += which < last;
        last = which;
    } // forty different ones of forty: none is lost
    for (unsigned n = 0; n < 40; ++n) {
        auto done = e.scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, 0);
    }
    EXPECT_FALSE(e.rcq.poll_surely());
    EXPECT_GT(swapped, 0u);
    EXPECT_EQ(counters().rude_delays - delays, 40u);
}

TEST_F(rude_device, delayed_work_of_a_destroyed_or_failed_queue_ends)
{
    wanted.rude.delay_ns_min = wanted.rude.delay_ns_max = 5'000'000'000;
    use();
    endpoint e, other;
    for (std::uint16_t i = 0; i < 5; ++i) {
        e.qp.post(e.qp.send_inline(i, e.ah, e.qp.qpn, "x"));
        other.qp.post(other.qp.send_inline(i, other.ah, e.qp.qpn, "x"));
    }
    EXPECT_EQ(qp_destroy(other.qp.h), base::status::ok);
    EXPECT_EQ(e.qp.to(qp_state::error), base::status::ok);
    for (unsigned i = 0; i < 5; ++i) {
        auto done = e.scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, 1);
    }
    EXPECT_FALSE(other.scq.poll_surely());
}

TEST_F(rude_device, delayed_work_of_a_destroyed_address_handle_is_refused)
{
    wanted.rude.delay_ns_min = wanted.rude.delay_ns_max = 5'000'000'000;
    use();
    endpoint e;
    e.qp.post(e.qp.send_inline(9, e.ah, e.qp.qpn, "x"));
    EXPECT_EQ(ah_destroy(e.ah_handle), base::status::ok);
    auto done = e.scq.wait();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, 4);
}

TEST_F(rude_device, every_status_can_be_made_up_for_the_nth_work_request)
{
    for (std::uint32_t status = 1; status <= 18; ++status) {
        wanted.rude.fail_status = status;
        wanted.rude.fail_at     = 3;
        use();
        endpoint e;
        for (std::uint16_t i = 1; i <= 5; ++i) {
            e.qp.post_recv(i, {e.slice(i * 64u, 64)});
            e.qp.post(e.qp.send_inline(i, e.ah, e.qp.qpn, std::string(1, static_cast<char>(i))));
        }
        for (unsigned i = 0; i < 5; ++i) {
            auto done = e.scq.wait();
            ASSERT_TRUE(done);
            EXPECT_EQ(done->status, done->req_id == 3 ? status : 0u);
        }
        unsigned arrived = 0;
        while (auto got = e.rcq.poll_surely()) {
            EXPECT_NE(e.memory[got->req_id * 64u], 3);
            ++arrived;
        }
        EXPECT_EQ(arrived, 4u); // the failed one never lands
    }
}

TEST_F(rude_device, failures_by_rate_follow_the_seed)
{
    auto failed = [&](std::uint64_t seed) {
        wanted.seed                = seed;
        wanted.rude.fail_status    = 8;
        wanted.rude.fail_per_65536 = 65536 / 5;
        use();
        endpoint    e;
        std::string which;
        for (std::uint16_t i = 0; i < 100; ++i) {
            e.qp.post_recv(1, {e.slice(0, 64)});
            e.qp.post(e.qp.send_inline(i, e.ah, e.qp.qpn, "x"));
            auto done = e.scq.wait();
            which += done && done->status == 8 ? '1' : '0';
            e.rcq.poll();
        }
        return which;
    };
    const std::string first = failed(1);
    EXPECT_EQ(first, failed(1));
    EXPECT_NE(first, failed(2));
    const auto times = std::count(first.begin(), first.end(), '1');
    EXPECT_GT(times, 5);
    EXPECT_LT(times, 50);
}

TEST_F(rude_device, receiver_not_ready_on_request)
{
    wanted.rude.rnr_every = 3;
    use();
    {
        endpoint e(1 << 16, {}, 0); // no retry: every third send ends with status 10
        for (std::uint16_t i = 1; i <= 9; ++i) {
            e.qp.post_recv(i, {e.slice(0, 64)});
            e.qp.post(e.qp.send_inline(i, e.ah, e.qp.qpn, "x"));
            auto done = e.scq.wait();
            ASSERT_TRUE(done);
            EXPECT_EQ(done->status, i % 3 == 0 ? 10 : 0) << i;
        }
    }
    endpoint patient;
    for (std::uint16_t i = 1; i <= 9; ++i) {
        patient.qp.post_recv(i, {patient.slice(0, 64)});
        patient.qp.post(patient.qp.send_inline(i, patient.ah, patient.qp.qpn, "x"));
        auto done = patient.scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, 0);
        EXPECT_TRUE(patient.rcq.wait());
    }
    EXPECT_GE(counters().rude_rnrs, 6u);
}

TEST_F(rude_device, receiver_not_ready_for_a_while)
{
    wanted.rude.rnr_for_ns = 5'000'000;
    use();
    endpoint   e;
    const auto start = base::clock_now_ns();
    e.qp.post_recv(1, {e.slice(0, 64)});
    e.qp.post(e.qp.send_inline(1, e.ah, e.qp.qpn, "x"));
    auto done = e.scq.wait();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, 0);
    EXPECT_GE(base::clock_now_ns() - start, 5'000'000u);
}

TEST_F(rude_device, only_the_named_device_is_rude)
{
    wanted.device_count     = 2;
    wanted.rude.devices     = 2;
    wanted.rude.fail_status = 8;
    wanted.rude.fail_per_65536 = 65536;
    use();
    endpoint zero(4096, {}, -1, 0), one(4096, {}, -1, 1);
    for (endpoint *e : {&zero, &one}) {
        e->qp.post_recv(1, {e->slice(0, 64)});
        e->qp.post(e->qp.send_inline(1, e->ah, e->qp.qpn, "x"));
        auto done = e->scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, e == &one ? 8 : 0);
    }
}

TEST_F(rude_device, modelled_wire_is_never_faster_than_the_model)
{
    wanted.latency_ns    = 300'000;
    wanted.bandwidth_bps = 1'000'000'000; // 8 ns a byte
    use();
    endpoint e(1 << 20);
    auto     one = [&](const queue_pair::wqe &w, bool received, std::uint64_t arrival, std::uint64_t completion) {
        const auto start = base::clock_now_ns();
        e.qp.post(w);
        if (received) {
            ASSERT_TRUE(e.rcq.wait());
            EXPECT_GE(base::clock_now_ns() - start, arrival);
        }
        auto done = e.scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, 0);
        EXPECT_GE(base::clock_now_ns() - start, completion);
    };
    e.qp.post_recv(1, {e.slice(0, 8192)});
    one(e.qp.send(1, e.ah, e.qp.qpn, {e.slice(8192, 8000)}), true, 364'000, 664'000);
    const auto memory = reinterpret_cast<std::uint64_t>(e.memory.data());
    one(e.qp.rdma(2, 1, e.ah, e.qp.qpn, e.slice(0, 100'000), memory + 500'000, e.rkey), false, 0, 1'400'000);
    one(e.qp.rdma(1, 1, e.ah, e.qp.qpn, e.slice(0, 100'000), memory + 500'000, e.rkey), false, 0, 1'400'000);
}

TEST_F(rude_device, delayed_work_is_overtaken_on_a_modelled_wire)
{
    wanted.latency_ns        = 1000;
    wanted.rude.delay_ns_max = 200'000'000;
    use();
    endpoint e;
    post_forty_at_once(e);
    unsigned overtaken = 0, last = 0;
    for (unsigned n = 0; n < 40; ++n) {
        auto got = e.rcq.wait();
        ASSERT_TRUE(got) << n;
        const unsigned which = e.memory[got->req_id * 64u];
        overtaken += which < last;
        last = which;
    }
    EXPECT_GT(overtaken, 0u) << "the delayed ones held up the wire";
}

TEST_F(rude_device, modelled_wire_carries_one_message_behind_the_other)
{
    wanted.bandwidth_bps = 1'000'000'000;
    use();
    endpoint   e(1 << 20);
    const auto start = base::clock_now_ns();
    for (std::uint16_t i = 0; i < 20; ++i) {
        e.qp.post_recv(i, {e.slice(0, 8000)});
        e.qp.put(e.qp.send(i, e.ah, e.qp.qpn, {e.slice(8192, 8000)}));
    }
    e.qp.ring();
    for (unsigned i = 0; i < 20; ++i)
        ASSERT_TRUE(e.rcq.wait());
    EXPECT_GE(base::clock_now_ns() - start, 20u * 64'000u);
}

/// Nobody polls: the helper completes what is due, and writes the event.
TEST_F(rude_device, modelled_wire_completes_without_polling)
{
    wanted.latency_ns = 1'000'000;
    use();
    event_pipe      channel;
    endpoint        e;
    told_queue_pair told;
    cq_view        &cq = told.cq;
    queue_pair     &q  = told.q;
    ASSERT_TRUE(told.open(e, channel, 77, 64, e.rcq.h));
    for (unsigned round = 0; round < 5; ++round) {
        e.qp.post_recv(1, {e.slice(0, 64)});
        engine_arm(cq.h);
        q.post(q.send_inline(1, e.ah, e.qp.qpn, "x"));
        const auto record = channel.take();
        ASSERT_TRUE(record) << round;
        EXPECT_EQ(*record, 77u);
        auto done = cq.take();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, 0);
    }
    told.close();
}

/// What was posted to a drained queue begins its way when the queue goes on. The helper sleeps and nobody polls.
TEST_F(rude_device, modelled_wire_completes_work_that_waited_for_its_queue)
{
    wanted.latency_ns  = 5'000'000;
    wanted.snapshot_ns = base::sec(3600); // nothing else wakes the helper
    use();
    event_pipe      channel;
    endpoint        e;
    told_queue_pair told;
    cq_view        &cq = told.cq;
    queue_pair     &q  = told.q;
    ASSERT_TRUE(told.open(e, channel, 0, 64, e.rcq.h));
    qp_attr on;
    on.state = qp_state::rts;
    for (bool armed_first : {false, true}) {
        e.qp.post_recv(1, {e.slice(0, 64)});
        ASSERT_EQ(q.to(qp_state::sqd), base::status::ok);
        q.post(q.send_inline(1, e.ah, e.qp.qpn, "x"));
        if (armed_first)
            engine_arm(cq.h);
        ASSERT_TRUE(until([] { return helper_sleeps(); }));
        ASSERT_EQ(qp_modify(q.h, 1, on), base::status::ok);
        if (!armed_first)
            engine_arm(cq.h);
        ASSERT_TRUE(channel.take()) << "armed first: " << armed_first;
        auto done = cq.take();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, 0);
    }
    told.close();
}

/// Two messages to itself, fifty times. How often the first was there when the second one's post returned.
unsigned receives_served_by_a_post()
{
    endpoint e;
    helper_stop(); // nobody polls between the posts, and nobody else is left who might serve the receive queue
    unsigned served = 0;
    for (unsigned n = 0; n < 50; ++n) {
        e.qp.post_recv(1, {e.slice(0, 64)});
        e.qp.post_recv(2, {e.slice(64, 64)});
        e.qp.post(e.qp.send_inline(1, e.ah, e.qp.qpn, "a"));
        e.qp.post(e.qp.send_inline(2, e.ah, e.qp.qpn, "b"));
        const unsigned there = e.rcq.take().has_value();
        served += there;
        for (unsigned i = there; i < 2; ++i)
            EXPECT_TRUE(e.rcq.wait()) << n;
        for (unsigned i = 0; i < 2; ++i)
            EXPECT_TRUE(e.scq.wait()) << n;
    }
    return served;
}

/// Receive queue work overtakes send queue work: the echo arrives and is answered before the post that is under way.
TEST_F(rude_device, receive_queue_work_overtakes_a_post)
{
    EXPECT_EQ(receives_served_by_a_post(), 0u);
    wanted.reorder_per_65536 = 65536;
    use();
    EXPECT_GT(receives_served_by_a_post(), 5u);
}

/// Sends ten messages, the first `one_by_one` of them each behind the completion of the one before.
int sender(pipe_end io, softefa::settings rules, unsigned one_by_one)
{
    if (!configure(rules))
        return 9;
    endpoint e;
    address  peer;
    if (!io.swap(address_of(e), &peer))
        return 2;
    const auto completes = [&] {
        const auto done = e.scq.wait();
        return done && done->status == 0;
    };
    for (std::uint16_t i = 1; i <= 10; ++i) {
        e.qp.post(e.qp.send_inline(i, e.ah, peer.qpn, std::string(1, static_cast<char>(i))));
        if (i <= one_by_one && !completes())
            return 3;
    }
    for (unsigned i = one_by_one; i < 10; ++i)
        if (!completes())
            return 3;
    return 0;
}

TEST_F(rude_device, process_kills_itself_at_the_nth_work_request)
{
    softefa::settings rules = wanted;
    rules.rude.kill_at      = 4;
    child      other([&](pipe_end io) { return sender(io, rules, 4); });
    endpoint   e;
    address    peer;
    const auto gone = peers_gone();
    for (std::uint16_t i = 0; i < 10; ++i)
        e.qp.post_recv(i, {e.slice(i * 64u, 64)});
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    EXPECT_EQ(other.reap(), -SIGKILL);
    ASSERT_TRUE(until([&] { return peers_gone() > gone; })); // what it left on its way has been served
    std::multiset<unsigned> arrived;
    while (auto got = e.rcq.poll_surely())
        arrived.insert(e.memory[got->req_id * 64u]);
    EXPECT_EQ(arrived, (std::multiset<unsigned>{1, 2, 3}));
}

/// As a container's first program is: the kernel keeps a SIGKILL from it that it sends itself.
TEST_F(rude_device, first_process_of_a_namespace_ends_as_well)
{
    softefa::settings rules = wanted;
    rules.rude.kill_at      = 4;
    constexpr int cannot = 77, ended = 128 + SIGKILL;
    child         other([&](pipe_end io) {
        if (unshare(CLONE_NEWPID) != 0)
            return cannot;
        const pid_t first = fork();
        if (first == 0)
            _exit(sender(io, rules, 0));
        int state = 0;
        waitpid(first, &state, 0);
        return WIFEXITED(state) ? WEXITSTATUS(state) : 1;
    });
    endpoint e;
    address  peer;
    if (!other.end.swap(address_of(e), &peer)) {
        ASSERT_EQ(other.reap(), cannot);
        GTEST_SKIP() << "cannot make a PID namespace";
    }
    EXPECT_EQ(other.reap(), ended);
}

TEST_F(rude_device, process_stops_itself_and_goes_on)
{
    softefa::settings rules = wanted;
    rules.rude.stop_at      = 4;
    child    other([&](pipe_end io) { return sender(io, rules, 0); });
    endpoint e;
    address  peer;
    for (std::uint16_t i = 0; i < 10; ++i)
        e.qp.post_recv(i, {e.slice(i * 64u, 64)});
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    int state = 0;
    ASSERT_EQ(waitpid(other.pid, &state, WUNTRACED), other.pid);
    ASSERT_TRUE(WIFSTOPPED(state));
    other.kill(SIGCONT);
    for (unsigned i = 0; i < 10; ++i)
        ASSERT_TRUE(e.rcq.wait()) << i;
    EXPECT_EQ(other.reap(), 0);
}

} // namespace
