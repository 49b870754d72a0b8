/* Completion queues, in one process: entries beyond the ring, whose they are, phases, events. */
#include "softefa/dev/child.h"
#include "softefa/dev/engine_state.h"
#include "softefa/dev/set_up.h"

#include <fcntl.h>
#include <map>
#include <set>

namespace {

using namespace nic;
using base::status;

class completion_queues : public device_test {};

TEST_F(completion_queues, cq_overrun_keeps_every_entry)
{
    endpoint e(1 << 16, {}, -1, 0, 16); // CQs of 16 entries
    for (std::uint16_t i = 0; i < 64; ++i)
        e.qp.post_recv(i, {e.slice(i * 64u, 64)});
    for (std::uint16_t i = 0; i < 64; ++i)
        e.qp.put(e.qp.send_inline(static_cast<std::uint16_t>(100 + i), e.ah, e.qp.qpn, "overrun"));
    const auto before = counted().cq_overflows;
    e.qp.ring();
    EXPECT_TRUE(until([&] { engine_poll(e.rcq.h); return counted().cq_overflows - before >= 64u; })) << "nothing is taken out";
    std::set<std::uint16_t> sends, receives;
    for (int i = 0; i < 64; ++i) {
        auto got = e.rcq.wait(), done = e.scq.wait();
        ASSERT_TRUE(got && done) << i;
        EXPECT_EQ(got->status, 0);
        EXPECT_TRUE(receives.insert(got->req_id).second);
        EXPECT_TRUE(sends.insert(done->req_id).second);
    }
    EXPECT_FALSE(e.rcq.poll_surely());
    EXPECT_FALSE(e.scq.poll_surely());
}

/// Takes what comes until nothing is left: how many entries of each queue pair.
std::map<std::uint16_t, unsigned> taken(cq_view &cq)
{
    std::map<std::uint16_t, unsigned> by_qpn;
    while (auto got = cq.poll_surely())
        ++by_qpn[got->qpn];
    return by_qpn;
}

TEST_F(completion_queues, entries_beside_the_ring_go_with_their_queue_pair)
{
    for (const bool by_reset : {false, true}) {
        endpoint   e(1 << 16, {}, -1, 0, 16); // CQs of 16 entries
        queue_pair other;
        ASSERT_TRUE(other.open(e.at, e.pd, e.scq.h, e.rcq.h));
        other.connect();
        for (std::uint16_t i = 0; i < 64; ++i) {
            e.qp.post_recv(i, {e.slice(0, 64)});
            other.post_recv(i, {e.slice(0, 64)});
        }
        ASSERT_EQ(e.qp.to(qp_state::error), status::ok);
        ASSERT_EQ(other.to(qp_state::error), status::ok);
        ASSERT_EQ(by_reset ? e.qp.to(qp_state::reset) : qp_destroy(e.qp.h), status::ok);
        auto seen = taken(e.rcq);
        EXPECT_EQ(seen[e.qp.qpn], 16u) << "what was in the ring before";
        EXPECT_EQ(seen[other.qpn], 64u);
        EXPECT_EQ(seen.size(), 2u);
        ASSERT_EQ(qp_destroy(other.h), status::ok);
        EXPECT_FALSE(e.rcq.poll_surely());
        {
            const engine_guard guard;
            EXPECT_EQ(engine().cq_overflowing, 0u);
        }
        if (by_reset) {
            connect_anew(e.qp);
            e.qp.post_recv(1000, {e.slice(0, 64)});
            e.qp.post(e.qp.send_inline(1, e.ah, e.qp.qpn, "anew"));
            auto got = e.rcq.wait();
            ASSERT_TRUE(got);
            EXPECT_EQ(got->req_id, 1000);
        }
    }
}

TEST_F(completion_queues, nothing_comes_of_a_destroyed_queue_pair_that_overflowed_alone)
{
    endpoint e(1 << 16, {}, -1, 0, 16);
    for (std::uint16_t i = 0; i < 64; ++i)
        e.qp.post_recv(i, {e.slice(0, 64)});
    ASSERT_EQ(e.qp.to(qp_state::error), status::ok);
    ASSERT_EQ(qp_destroy(e.qp.h), status::ok);
    EXPECT_EQ(taken(e.rcq)[e.qp.qpn], 16u);
    const engine_guard guard;
    EXPECT_EQ(engine().cq_overflowing, 0u);
}

TEST_F(completion_queues, cq_phase_survives_many_laps_with_16_byte_entries)
{
    cq_request small;
    small.entry_size = 16;
    endpoint e(4096);
    auto       cq = e.at.cq(8, small);
    queue_pair q;
    ASSERT_TRUE(q.open(e.at, e.pd, cq.h, cq.h));
    q.connect();
    for (std::uint16_t i = 0; i < 200; ++i) {
        q.post_recv(i, {e.slice(0, 64)});
        q.post(q.send_inline(static_cast<std::uint16_t>(1000 + i), e.ah, q.qpn, "lap"));
        auto a = cq.wait(), b = cq.wait();
        ASSERT_TRUE(a && b);
        EXPECT_EQ(a->req_id + b->req_id, 1000 + 2 * i);
    }
}

TEST_F(completion_queues, event_is_written_once_per_arm_and_never_lost)
{
    constexpr std::uint64_t name = 0x1122334455667788;
    event_pipe              channel;
    endpoint                e(4096);
    told_queue_pair         told;
    cq_view                &cq = told.cq;
    queue_pair             &q  = told.q;
    ASSERT_TRUE(told.open(e, channel, name));
    auto events = [&](unsigned milliseconds) {
        const auto record = channel.take(milliseconds);
        EXPECT_EQ(record.value_or(name), name);
        return record.has_value();
    };
    q.post_recv(1, {e.slice(0, 64)});
    q.post(q.send_inline(2, e.ah, q.qpn, "quiet"));
    ASSERT_TRUE(cq.wait() && cq.wait());
    EXPECT_FALSE(events(0)) << "not armed";
    engine_arm(cq.h);
    q.post_recv(1, {e.slice(0, 64)});
    q.post(q.send_inline(2, e.ah, q.qpn, "loud"));
    EXPECT_TRUE(events(generous_ms)) << "the helper serves who blocks";
    ASSERT_TRUE(cq.wait() && cq.wait());
    EXPECT_FALSE(events(0)) << "one per arm";
    const auto before = counted().completions;
    q.post_recv(1, {e.slice(0, 64)});
    q.post(q.send_inline(2, e.ah, q.qpn, "early"));
    ASSERT_TRUE(until([&] { engine_poll(cq.h); return counted().completions >= before + 2; }));
    ASSERT_TRUE(cq.take());
    engine_arm(cq.h); // one entry still waits
    EXPECT_TRUE(events(generous_ms));
    EXPECT_EQ(qp_destroy(q.h), status::ok);
    std::uint32_t count = 0;
    EXPECT_EQ(cq_destroy(cq.h, &count), status::ok);
    EXPECT_EQ(count, 2u);
}

TEST_F(completion_queues, arming_while_the_lock_is_taken_waits_for_nobody_and_is_not_lost)
{
    event_pipe      channel;
    endpoint        e(4096);
    told_queue_pair told;
    cq_view        &cq = told.cq;
    queue_pair     &q  = told.q;
    ASSERT_TRUE(told.open(e, channel, 0));
    for (bool waits_already : {false, true}) {
        const auto before = counted().completions;
        auto       message = [&] {
            q.post_recv(1, {e.slice(0, 64)});
            q.post(q.send_inline(2, e.ah, q.qpn, "armed in a handler"));
            return until([&] { engine_poll(cq.h); return counted().completions >= before + 2; });
        };
        if (waits_already) {
            ASSERT_TRUE(message());
        }
        {
            const engine_guard interrupted; // the handler runs on the thread that polls
            engine_arm(cq.h);
        }
        if (!waits_already) {
            ASSERT_TRUE(message());
        }
        ASSERT_TRUE(channel.take());
        EXPECT_FALSE(channel.take(0)) << "one per arm";
        ASSERT_TRUE(cq.wait() && cq.wait());
    }
    told.close();
}

TEST_F(completion_queues, events_reported_at_the_end_are_those_that_were_written)
{
    event_pipe channel;
    ASSERT_TRUE(channel.ok());
    const int room = fcntl(channel.write_fd, F_SETPIPE_SZ, 4096);
    ASSERT_GE(room, 4096);
    const std::vector<char> others(static_cast<std::size_t>(room)); // records of other queues, as far as this one is concerned
    for (int round = 0; round < 20; ++round) {
        endpoint        e(4096);
        told_queue_pair told;
        cq_view        &cq = told.cq;
        queue_pair     &q  = told.q;
        ASSERT_TRUE(told.open(e, channel, 0x55));
        ASSERT_EQ(write(channel.write_fd, others.data(), others.size()), room);
        engine_arm(cq.h);
        q.post_recv(1, {e.slice(0, 64)});
        ASSERT_EQ(q.to(qp_state::error), status::ok); // one completion, whose event does not fit
        ASSERT_EQ(qp_destroy(q.h), status::ok);
        std::vector<char> read_back(others.size());
        ASSERT_EQ(read(channel.read_fd, read_back.data(), read_back.size()), room);
        engine().again.store(1); // whoever holds the lock next makes a pass before it lets go, and finds room for the event
        std::uint32_t count = 0;
        ASSERT_EQ(cq_destroy(cq.h, &count), status::ok);
        std::uint32_t written = 0;
        for (; const auto record = channel.take(0); ++written) {
            EXPECT_EQ(*record, 0x55u);
        }
        EXPECT_EQ(count, written) << round;
    }
}

TEST_F(completion_queues, queue_pairs_that_come_and_go_do_not_grow_their_cq)
{
    endpoint e(4096);
    auto     cq = e.at.cq(16);
    const softefa::dev::cq *c = softefa::dev::objects().cqs.find(cq.h);
    ASSERT_NE(c, nullptr);
    for (int i = 0; i < 20; ++i) {
        queue_pair one, two;
        ASSERT_TRUE(one.open(e.at, e.pd, cq.h, cq.h));
        ASSERT_TRUE(two.open(e.at, e.pd, cq.h, cq.h));
        EXPECT_EQ(c->overflow_room, 256u);
        EXPECT_EQ(c->overflow_wanted, 256u);
        EXPECT_EQ(qp_destroy(one.h), status::ok);
        EXPECT_EQ(qp_destroy(two.h), status::ok);
        EXPECT_EQ(c->overflow_wanted, 0u);
    }
}

TEST_F(completion_queues, nothing_moves_while_the_cq_is_full)
{
    endpoint   e(4096);
    auto       cq = e.at.cq(16);
    queue_pair q;
    ASSERT_TRUE(q.open(e.at, e.pd, cq.h, cq.h));
    q.connect();
    constexpr unsigned room = 16 + 128; // entries, and one for each WQE
    const auto         fetched = [&] {
        const engine_guard guard;
        return q.of_device->sq_consumed == q.sq_posted;
    };
    for (unsigned i = 0; i < room; ++i) { // more than the send queue has entries: one that the helper is to fetch may not be there yet
        q.post(q.send_inline(static_cast<std::uint16_t>(i), 999, q.qpn, "no such address handle"));
        ASSERT_TRUE(until(fetched)) << i;
    }
    q.post(q.send_inline(room, 999, q.qpn, "one too many"));
    {
        const engine_guard guard;
        qp *const          inside = softefa::dev::objects().qps.find(q.h);
        ASSERT_NE(inside, nullptr);
        for (unsigned n = 0; n < passes_surely && engine_run(); ++n) { // the helper may have held the lock, and left the last post to us
        }
        EXPECT_FALSE(requester_fetch(*inside));
        EXPECT_FALSE(engine_run()) << "the helper would not sleep";
    }
    for (unsigned i = 0; i <= room; ++i) {
        auto done = cq.wait();
        ASSERT_TRUE(done) << i;
        EXPECT_EQ(done->req_id, i);
    }
}

} // namespace
