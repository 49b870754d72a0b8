/* Drop reasons and error counters: one provocation a row, the counters that it must move, and every other counter stays where it was.
 *
 * What a row expects is the whole difference, in the order of counters.h; only what grows with traffic and time is left out. cq_stalls and ring_stalls are
 * left out, too: they count looks for room, and how often somebody looks is the scheduler's. bad_doorbell counts looks as well
 * (objects.hostile_doorbells_are_counted_and_harmless); refused commands are counted by the front end (uverbs_counters.*). Every drop_ counter has a row.
 */
#include "softefa/dev/child.h"

#include <algorithm>
#include <fcntl.h>

namespace {

using namespace nic;

constexpr std::uint8_t read_op = 1, write_op = 2;

/// What `after` has more than `before`, as "name+1 name+2".
std::string growth(const device_counters &before, const device_counters &after)
{
    static constexpr const char *traffic[] = {
        "tx_messages", "tx_bytes", "rx_messages", "rx_bytes", "read_ops", "read_bytes", "write_ops", "write_bytes", "served_read_ops",
        "served_read_bytes", "served_write_ops", "served_write_bytes", "tx_packets", "tx_packet_bytes", "rx_packets", "rx_packet_bytes",
        "completions", "events", "single_copy_bytes", "single_copy_unasked", "cq_stalls", "ring_stalls", "commands"};
    std::uint64_t was[device_counter_count], is[device_counter_count];
    std::memcpy(was, &before, sizeof(was));
    std::memcpy(is, &after, sizeof(is));
    std::string text;
    for (unsigned i = 0; i < device_counter_count; ++i) {
        const std::string name = device_counter_texts[i].name;
        if (is[i] != was[i] && std::find(std::begin(traffic), std::end(traffic), name) == std::end(traffic))
            text += (text.empty() ? "" : " ") + name + "+" + std::to_string(is[i] - was[i]);
    }
    return text;
}

qp_request datagrams()
{
    qp_request r;
    r.type = qp_type::ud;
    return r;
}

/// The device of a row: a sender and a receiver of each kind.
struct bench {
    endpoint      from{1 << 17}, to{1 << 17}, impatient{4096, {}, 0}, ud_from{4096, datagrams()}, ud_to{4096, datagrams()};
    std::uint64_t there = reinterpret_cast<std::uint64_t>(to.memory.data());
    queue_pair    more; ///< for the row to open

    /// Another queue pair at `to`, ready.
    std::uint16_t another(handle pd, qp_request r = {})
    {
        EXPECT_TRUE(more.open(to.at, pd, to.scq.h, to.rcq.h, r));
        more.connect();
        return more.qpn;
    }
    void send(endpoint &e, std::uint16_t qpn, const std::string &text = "12345678") { e.qp.post(e.qp.send_inline(1, e.ah, qpn, text)); }
    void rdma(std::uint8_t op, std::uint32_t size, std::uint16_t qpn, std::uint64_t at, std::uint32_t rkey)
    {
        from.qp.post(from.qp.rdma(op, 1, from.ah, qpn, from.slice(0, size), at, rkey));
    }
    std::uint16_t far(endpoint &e)
    {
        gid g = device_gid(0);
        g[3]  = 9;
        return ah_create(e.pd, g)->ah_number;
    }
    /// Of a page that is registered and then unmapped.
    void rdma_of_nothing(std::uint8_t op)
    {
        void      *page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        const auto at   = reinterpret_cast<std::uint64_t>(page);
        auto       m    = mr_register(to.pd, at, 4096, at, local_write | remote_read | remote_write);
        munmap(page, 4096);
        rdma(op, 64, to.qp.qpn, at, m->rkey);
    }
    /// So many receives, into a CQ of 16 entries.
    void flush(std::uint16_t count)
    {
        const cq_view small = to.at.cq(16);
        ASSERT_TRUE(more.open(to.at, to.pd, small.h, small.h));
        more.connect();
        for (std::uint16_t n = 0; n < count; ++n)
            more.post_recv(n, {to.slice(0, 64)});
        ASSERT_EQ(more.to(qp_state::error), base::status::ok);
    }
    /// Whatever was posted before has been served, and its answer, too.
    void settle()
    {
        endpoint e(4096);
        for (unsigned n = 0; n < 2; ++n) {
            e.qp.post_recv(1, {e.slice(0, 64)});
            e.qp.post(e.qp.send_inline(1, e.ah, e.qp.qpn, "settled"));
            ASSERT_TRUE(e.rcq.wait() && e.scq.wait());
        }
    }
};

struct row {
    const char *what, *grows;
    void (*provoke)(bench &);
    void (*set)(softefa::settings &) = nullptr;
};

const row rows[] = {
    {"queue pair not ready", "completion_errors+1 drop_qp_state+1",
     [](bench &b) {
         ASSERT_TRUE(b.more.open(b.to.at, b.to.pd, b.to.scq.h, b.to.rcq.h));
         ASSERT_EQ(b.more.to(qp_state::init), base::status::ok);
         b.send(b.from, b.more.qpn);
     }},
    {"wrong qkey", "completion_errors+1 drop_qkey+1",
     [](bench &b) { b.from.qp.post(b.from.qp.send_inline(1, b.from.ah, b.to.qp.qpn, "x").set32(16, qkey + 1)); }},
    {"reliable message for a queue pair of datagrams", "completion_errors+1 drop_qkey+1", [](bench &b) { b.send(b.from, b.ud_to.qp.qpn); }},
    {"datagram for a reliable queue pair", "drop_qkey+1", [](bench &b) { b.send(b.ud_from, b.to.qp.qpn); }},
    {"datagram without a receive", "drop_ud_no_recv+1", [](bench &b) { b.send(b.ud_from, b.ud_to.qp.qpn); }},
    {"datagram that is not received on request", "rude_rnrs+1 drop_ud_no_recv+1",
     [](bench &b) {
         b.ud_to.qp.post_recv(1, {b.ud_to.slice(0, 64)});
         b.send(b.ud_from, b.ud_to.qp.qpn);
         ASSERT_TRUE(b.ud_from.scq.wait());
     },
     [](softefa::settings &s) { s.rude.rnr_every = 1; }},
    {"datagram beyond its receive", "drop_ud_length+1",
     [](bench &b) {
         b.ud_to.qp.post_recv(1, {b.ud_to.slice(0, 47)});
         b.send(b.ud_from, b.ud_to.qp.qpn);
     }},
    {"datagram to a GID of nobody", "no_owner+1 drop_ud_unreachable+1",
     [](bench &b) { b.ud_from.qp.post(b.ud_from.qp.send_inline(1, b.far(b.ud_from), b.ud_to.qp.qpn, "x")); }},
    {"datagram to a QPN of nobody", "no_owner+1 drop_ud_unreachable+1",
     [](bench &b) { b.send(b.ud_from, static_cast<std::uint16_t>(b.ud_to.qp.qpn ^ 0x4000)); }},
    {"receive too short", "completion_errors+2 drop_recv_length+1",
     [](bench &b) {
         b.to.qp.post_recv(1, {b.to.slice(0, 7)});
         b.send(b.from, b.to.qp.qpn);
     }},
    {"receive with an unknown key", "completion_errors+2 drop_recv_lkey+1",
     [](bench &b) {
         b.to.qp.post_recv(1, {{b.to.memory.data(), 64, b.to.lkey ^ (1u << 19)}});
         b.send(b.from, b.to.qp.qpn);
     }},
    {"receive that never ends", "completion_errors+2 drop_recv_malformed+1",
     [](bench &b) {
         b.to.qp.post_recv(1, {b.to.slice(0, 64)}, false);
         b.to.qp.rq[15] &= 0x7f; // the mark of the last descriptor
         b.to.qp.post_recv(2, {b.to.slice(64, 64)});
         b.send(b.from, b.to.qp.qpn);
     }},
    {"immediate for a receive that never ends", "completion_errors+2 write_errors+1 drop_recv_malformed+1",
     [](bench &b) {
         b.to.qp.post_recv(1, {b.to.slice(0, 64)}, false);
         b.to.qp.rq[15] &= 0x7f;
         b.to.qp.post_recv(2, {b.to.slice(64, 64)});
         b.from.qp.post(queue_pair::with_imm(b.from.qp.rdma(write_op, 1, b.from.ah, b.to.qp.qpn, b.from.slice(0, 8), b.there, b.to.rkey), 5));
     }},
    {"write with an unknown key", "completion_errors+1 write_errors+1 drop_rkey+1",
     [](bench &b) { b.rdma(write_op, 64, b.to.qp.qpn, b.there, b.to.rkey ^ (1u << 19)); }},
    {"read behind the end", "completion_errors+1 read_errors+1 drop_rkey+1",
     [](bench &b) { b.rdma(read_op, 64, b.to.qp.qpn, b.there + b.to.memory.size() - 63, b.to.rkey); }},
    {"write of two records, refused with the first", "completion_errors+1 write_errors+1 drop_rkey+1 drop_stale+1",
     [](bench &b) { b.rdma(write_op, 2 * limits::chunk_size, b.to.qp.qpn, b.there, b.to.rkey ^ (1u << 19)); },
     [](softefa::settings &s) { s.single_copy = 0; }},
    {"read of a domain without an address handle", "completion_errors+1 read_errors+1 drop_no_ah+1",
     [](bench &b) { b.rdma(read_op, 64, b.another(b.to.at.pd()), b.there, b.to.rkey); }},
    {"immediate that a target takes in another way", "completion_errors+1 write_errors+1 drop_feature+1",
     [](bench &b) {
         qp_request r;
         r.unsolicited_recv = true;
         const std::uint16_t qpn = b.another(b.to.pd, r);
         b.from.qp.post(queue_pair::with_imm(b.from.qp.rdma(write_op, 1, b.from.ah, qpn, b.from.slice(0, 8), b.there, b.to.rkey), 5));
     }},
    {"write to memory that is gone", "completion_errors+1 write_errors+1 drop_fault+1", [](bench &b) { b.rdma_of_nothing(write_op); }},
    {"read of memory that is gone", "completion_errors+1 read_errors+1 drop_fault+1", [](bench &b) { b.rdma_of_nothing(read_op); }},
    {"own key unknown: it never leaves", "completion_errors+1",
     [](bench &b) { b.from.qp.post(b.from.qp.send(1, b.from.ah, b.to.qp.qpn, {{b.from.memory.data(), 64, b.from.lkey ^ (1u << 19)}})); }},
    {"QPN of nobody", "completion_errors+1 no_owner+1", [](bench &b) { b.send(b.from, static_cast<std::uint16_t>(b.to.qp.qpn ^ 0x4000)); }},
    {"GID of nobody", "completion_errors+1 unresponsive+1 no_owner+1",
     [](bench &b) { b.from.qp.post(b.from.qp.send_inline(1, b.far(b.from), b.to.qp.qpn, "x")); }},
    {"no receive, no retry", "completion_errors+1 rnr_naks_sent+1 rnr_exhausted+1", [](bench &b) { b.send(b.impatient, b.to.qp.qpn); }},
    {"no receive, two retries", "completion_errors+1 rnr_naks_sent+3 rnr_retries+2 rnr_exhausted+1",
     [](bench &b) {
         ASSERT_TRUE(b.more.open(b.from.at, b.from.pd, b.from.scq.h, b.from.rcq.h));
         b.more.connect(2);
         b.more.post(b.more.send_inline(1, b.from.ah, b.to.qp.qpn, "x"));
     }},
    {"not received on request", "completion_errors+1 rnr_exhausted+1 rude_rnrs+1",
     [](bench &b) {
         b.to.qp.post_recv(1, {b.to.slice(0, 64)});
         b.send(b.impatient, b.to.qp.qpn);
         ASSERT_TRUE(b.impatient.scq.wait());
     },
     [](softefa::settings &s) { s.rude.rnr_every = 1; }},
    {"failed on request", "completion_errors+1 rude_failures+1", [](bench &b) { b.send(b.from, b.to.qp.qpn); },
     [](softefa::settings &s) { s.rude.fail_status = 8, s.rude.fail_at = 1; }},
    {"delayed on request, and nothing else", "rude_delays+1",
     [](bench &b) {
         b.to.qp.post_recv(1, {b.to.slice(0, 64)});
         b.send(b.from, b.to.qp.qpn);
     },
     [](softefa::settings &s) { s.rude.delay_ns_min = s.rude.delay_ns_max = 1'000'000; }},
    {"flushed receives, one more than the CQ has room for", "completion_errors+17 cq_overflows+1",
     [](bench &b) { b.flush(17); }},
};

class reasons : public device_test {
protected:
    /// Runs `provoke`, waits until the counters say `grows`, and looks again when all that it set off is over.
    template <class Provoke> static void expect_growth(bench &b, const std::string &grows, Provoke &&provoke, bool may_settle = true)
    {
        const device_counters before = counted();
        provoke(b);
        const bool reached = until([&] {
            engine_poll(b.from.scq.h);
            return growth(before, counted()) == grows;
        });
        if (may_settle)
            b.settle();
        EXPECT_TRUE(reached);
        EXPECT_EQ(growth(before, counted()), grows);
    }
};

TEST_F(reasons, one_provocation_moves_its_counters_and_no_other)
{
    const softefa::settings plain = wanted;
    for (const row &r : rows) {
        SCOPED_TRACE(r.what);
        wanted = plain;
        if (r.set != nullptr)
            r.set(wanted);
        use();
        bench b;
        expect_growth(b, r.grows, r.provoke, r.set == nullptr || wanted.single_copy == 0); // whoever is rude is rude to what settles, too
    }
}

/// A record from a peer that still knows the way to a queue pair that is gone: counted once by its receiver, and nothing else there.
TEST_F(reasons, queue_pair_that_is_gone_is_a_reason_of_its_own)
{
    for (const bool ud : {false, true}) {
        const qp_request kind = ud ? datagrams() : qp_request{};
        child            owner([&](pipe_end io) {
            endpoint e(4096, kind);
            e.qp.post_recv(1, {e.slice(0, 128)});
            address peer;
            if (!io.swap(address_of(e), &peer) || !e.rcq.wait())
                return 2;
            const device_counters before = counted();
            if (qp_destroy(e.qp.h) != base::status::ok || !io.put_word(1) || !io.wait_word(2))
                return 3;
            return until([&] { engine_poll(e.scq.h); return growth(before, counted()) == "drop_no_qp+1"; }) ? 0 : 4;
        });
        endpoint e(4096, kind);
        address  peer;
        ASSERT_TRUE(owner.end.swap(address_of(e), &peer));
        e.qp.post(e.qp.send_inline(1, e.ah, peer.qpn, "the way"));
        ASSERT_TRUE(e.scq.wait() && owner.end.wait_word(1));
        const device_counters before = counted();
        e.qp.post(e.qp.send_inline(2, e.ah, peer.qpn, "too late"));
        const auto done = e.scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, ud ? 0 : 9);
        EXPECT_EQ(growth(before, counted()), ud ? "" : "completion_errors+1 no_owner+1");
        ASSERT_TRUE(owner.end.put_word(2));
        EXPECT_EQ(owner.reap(), 0);
    }
}

/// The number is owned, and its process has never had a queue pair that could receive, so it listens to nobody.
TEST_F(reasons, queue_pair_of_a_process_that_has_none_ready_refuses_as_one_that_is_not_ready)
{
    for (const bool ud : {false, true}) {
        const qp_request kind = ud ? datagrams() : qp_request{};
        child            owner([&](pipe_end io) {
            port         at(0);
            const handle pd = at.pd();
            cq_view      cq = at.cq(64);
            queue_pair   q;
            if (!q.open(at, pd, cq.h, cq.h, kind) || !io.put(address{q.qpn, 0, 0, 0}) || !io.wait_word(1) || q.to(qp_state::init) != base::status::ok ||
                !io.put_word(2) || !io.wait_word(3))
                return 2;
            q.connect();
            std::uint8_t memory[128];
            auto         m = mr_register(pd, reinterpret_cast<std::uint64_t>(memory), sizeof(memory), reinterpret_cast<std::uint64_t>(memory), local_write);
            q.post_recv(1, {{memory, sizeof(memory), m->lkey}});
            const auto got = io.put_word(4) ? cq.wait() : std::nullopt;
            return got && got->status == 0 ? 0 : 3;
        });
        endpoint e(4096, kind);
        address  peer;
        ASSERT_TRUE(owner.end.get(&peer));
        const auto ends = [&](queue_pair::wqe w, const char *grows) {
            const device_counters before = counted();
            e.qp.post(w);
            const auto done = e.scq.wait();
            ASSERT_TRUE(done);
            EXPECT_EQ(done->status, ud ? 0 : 9);
            EXPECT_EQ(growth(before, counted()), ud ? "no_owner+1 drop_ud_unreachable+1" : grows);
        };
        ends(e.qp.send_inline(1, e.ah, peer.qpn, "in RESET"), "completion_errors+1 no_owner+1");
        ASSERT_TRUE(owner.end.put_word(1) && owner.end.wait_word(2));
        ends(e.qp.send_inline(2, e.ah, peer.qpn, "in INIT"), "completion_errors+1 no_owner+1");
        if (!ud) {
            ends(e.qp.rdma(write_op, 3, e.ah, peer.qpn, e.slice(0, 64), 4096, 1), "completion_errors+1 write_errors+1 no_owner+1");
            ends(e.qp.rdma(read_op, 4, e.ah, peer.qpn, e.slice(0, 64), 4096, 1), "completion_errors+1 read_errors+1 no_owner+1");
        }
        ASSERT_TRUE(owner.end.put_word(3) && owner.end.wait_word(4));
        e.qp.post(e.qp.send_inline(5, e.ah, peer.qpn, "ready"));
        const auto done = e.scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, 0);
        EXPECT_EQ(owner.reap(), 0);
    }
}

/// Nobody takes the completions: at some point there is no room for another, and then a datagram is lost with a reason.
TEST_F(reasons, every_datagram_is_received_or_dropped)
{
    endpoint              from(4096, datagrams()), to(4096, datagrams(), -1, 0, 16);
    const device_counters before = counted();
    constexpr unsigned    all = 400;
    for (std::uint16_t n = 0; n < all; ++n) {
        const unsigned received = static_cast<unsigned>(counted().rx_messages - before.rx_messages);
        to.qp.post_recv(n, {to.slice(0, 128)}, received == n); // as long as all arrive, there is one receive more than messages
        from.qp.post(from.qp.send_inline(n, from.ah, to.qp.qpn, "datagram"));
        ASSERT_TRUE(from.scq.wait());
        ASSERT_TRUE(until([&] { engine_poll(from.scq.h); return counted().rx_packets - before.rx_packets == n + 1u; }));
    }
    const device_counters now = counted();
    EXPECT_EQ(now.rx_messages - before.rx_messages + now.drop_ud_no_recv - before.drop_ud_no_recv, all);
    EXPECT_GT(now.cq_stalls, before.cq_stalls) << "the CQ was never full";
}

/// A record that this process finds in its own ring.
void commit(softefa::wire::pdu_kind kind, std::uint16_t qpn, std::uint64_t op = 0, std::uint32_t payload_size = 0)
{
    softefa::dev::link &own = *engine().links[0];
    ASSERT_NE(own.channel->tx.reserve(payload_size), nullptr);
    link_commit(own, 0, payload_size, [&](softefa::wire::header &h) {
        h              = {};
        h.kind         = kind;
        h.dst_qpn      = qpn;
        h.op           = op;
        h.payload_size = payload_size;
        h.length       = payload_size;
        h.qkey         = qkey;
    });
}

const row broken_records[] = {
    {"unknown kind", "drop_protocol+1",
     [](bench &) {
         const engine_guard guard;
         commit(static_cast<softefa::wire::pdu_kind>(99), 0);
     }},
    {"read request with a payload, to a QPN of nobody", "drop_protocol+1",
     [](bench &b) {
         const engine_guard guard;
         commit(softefa::wire::pdu_kind::read_req, static_cast<std::uint16_t>(b.to.qp.qpn ^ 0x4000), 0, 64);
     }},
    {"data of no bytes for a read", "completion_errors+1 read_errors+1 drop_protocol+1",
     [](bench &b) {
         const engine_guard guard;
         b.rdma(read_op, 64, b.to.qp.qpn, b.there, b.to.rkey);
         qp &q = *objects().qps.find(b.from.qp.h);
         requester_fetch(q); // nobody serves it before the guard goes
         ASSERT_EQ(q.ops[0].state, op_state::in_flight);
         commit(softefa::wire::pdu_kind::read_data, b.from.qp.qpn, softefa::wire::op_id{q.ops[0].generation, q.slot, 0}.pack());
     }},
};

/// In processes of their own: a failure is published once in a process's life.
TEST_F(reasons, broken_protocol_and_overrun_are_counted_once)
{
    for (const auto &broken_record : broken_records) {
        child broken([&](pipe_end) {
            process_forked();
            bench b;
            expect_growth(b, broken_record.grows, broken_record.provoke, false);
            return HasFailure() ? 1 : 0;
        });
        EXPECT_EQ(broken.reap(), 0) << broken_record.what;
    }
    wanted.cq_overrun = 1;
    child overrun([&](pipe_end) {
        process_forked();
        use();
        int events[2];
        EXPECT_EQ(pipe2(events, O_CLOEXEC | O_NONBLOCK), 0);
        bench b;
        context_set_async(b.to.at.context, events[1]);
        expect_growth(b, "completion_errors+18 async_events+1 cq_lost+2", [](bench &x) { x.flush(18); });
        return HasFailure() ? 1 : 0;
    });
    EXPECT_EQ(overrun.reap(), 0);
}

} // namespace
