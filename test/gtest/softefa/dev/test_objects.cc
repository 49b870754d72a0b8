/* Objects and their limits, in one process. */
#include "softefa/dev/child.h"
#include "softefa/dev/engine_state.h"
#include "softefa/dev/set_up.h"

#include <fcntl.h>
#include <set>
#include <sys/mman.h>
#include <sys/resource.h>

namespace {

using namespace nic;
using base::status;

class objects : public device_test {};

TEST_F(objects, handles_of_the_wrong_kind_or_context_are_not_found)
{
    port a, b;
    const handle pd = a.pd();
    auto cq = a.cq(16);
    EXPECT_EQ(pd_dealloc(cq.h), status::not_found);
    EXPECT_EQ(pd_dealloc(a.context), status::not_found);
    EXPECT_EQ(mr_deregister(pd), status::not_found);
    EXPECT_EQ(cq_destroy(pd, nullptr), status::not_found);
    EXPECT_EQ(qp_destroy(0), status::not_found);
    qp_request r;
    r.pd = pd;
    r.send_cq = r.recv_cq = cq.h;
    EXPECT_EQ(qp_create(b.context, r).error(), status::not_found);
    EXPECT_EQ(pd_dealloc(pd), status::ok);
    EXPECT_EQ(pd_dealloc(pd), status::not_found);
}

TEST_F(objects, objects_in_use_are_busy)
{
    endpoint e(4096);
    EXPECT_EQ(pd_dealloc(e.pd), status::busy);
    EXPECT_EQ(cq_destroy(e.scq.h, nullptr), status::busy);
    EXPECT_EQ(qp_destroy(e.qp.h), status::ok);
    std::uint32_t events = 9;
    EXPECT_EQ(cq_destroy(e.scq.h, &events), status::ok);
    EXPECT_EQ(events, 0u);
    EXPECT_EQ(mr_deregister(e.mr), status::ok);
    EXPECT_EQ(pd_dealloc(e.pd), status::busy) << "the address handle";
    EXPECT_EQ(ah_destroy(e.ah_handle), status::ok);
    EXPECT_EQ(pd_dealloc(e.pd), status::ok);
}

TEST_F(objects, one_context_may_have_all_queue_pairs)
{
    namespace limits      = softefa::dev::limits;
    wanted.limits.max_qp = limits::qps;
    use();
    port                p;
    const qp_request    r = modest_request(p);
    std::vector<handle> all;
    for (unsigned n = 0; n < limits::qps; ++n) {
        auto reply = qp_create(p.context, r);
        ASSERT_TRUE(static_cast<bool>(reply)) << n;
        all.push_back(reply->qp);
    }
    EXPECT_EQ(qp_create(p.context, r).error(), status::limit);
    for (const handle h : all)
        ASSERT_EQ(qp_destroy(h), status::ok);
}

TEST_F(objects, ring_beyond_the_limit_for_files_is_refused_and_nobody_dies)
{
    child other([](pipe_end) {
        constexpr rlimit limit{1 << 20, 1 << 20};
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            return 1;
        port       p;
        cq_request request;
        request.cqe = 32768;
        if (cq_create(p.context, request).error() != status::no_memory)
            return 2;
        return p.cq(256).ring != nullptr ? 0 : 3;
    });
    EXPECT_EQ(other.reap(), 0);
}

TEST_F(objects, limits_are_enforced)
{
    wanted.limits.max_pd = 2;
    wanted.limits.max_ah = 3;
    wanted.limits.max_qp = 4;
    wanted.limits.max_cq = 5;
    use();
    port p;
    const handle pd = p.pd();
    ASSERT_TRUE(static_cast<bool>(pd_alloc(p.context)));
    EXPECT_EQ(pd_alloc(p.context).error(), status::limit);
    for (std::uint8_t i = 0; i < 3; ++i) {
        gid g{};
        g[0] = static_cast<std::uint8_t>(i + 1);
        ASSERT_TRUE(static_cast<bool>(ah_create(pd, g)));
        ASSERT_TRUE(static_cast<bool>(ah_create(pd, g))) << "the same number";
    }
    EXPECT_EQ(ah_create(pd, device_gid(0)).error(), status::limit);
    auto cq = p.cq(16);
    for (int i = 1; i < 5; ++i)
        p.cq(16);
    cq_request more;
    more.cqe = 16;
    EXPECT_EQ(cq_create(p.context, more).error(), status::limit);
    std::set<std::uint16_t> low;
    for (int i = 0; i < 4; ++i) {
        queue_pair q;
        ASSERT_TRUE(q.open(p, pd, cq.h, cq.h));
        EXPECT_TRUE(low.insert(q.qpn & 3).second) << "DEV-2";
    }
    queue_pair q;
    EXPECT_FALSE(q.open(p, pd, cq.h, cq.h));
}

TEST_F(objects, memory_behind_the_end_of_its_file_cannot_be_registered)
{
    endpoint  e(4096);
    const int file = memfd_create("short", MFD_CLOEXEC);
    for (std::uint64_t size : {std::uint64_t{8192}, std::uint64_t{1} << 20}) { // touched, and looked up in the list of mappings
        void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        ASSERT_NE(memory, MAP_FAILED);
        const auto at = reinterpret_cast<std::uint64_t>(memory);
        for (std::uint64_t length : {std::uint64_t{100}, size - 4096, size}) {
            ASSERT_EQ(ftruncate(file, static_cast<off_t>(length)), 0);
            const bool whole = length == size;
            EXPECT_EQ(mr_register(e.pd, at, size, at, local_write).error(), whole ? status::ok : status::bad_address) << size << " " << length;
            EXPECT_EQ(mr_register(e.pd, at, size, at, 0).error(), whole ? status::ok : status::bad_address) << "only to send from";
        }
        munmap(memory, size);
    }
    close(file);
}

TEST_F(objects, bad_requests_change_nothing)
{
    endpoint e(4096);
    for (std::uint32_t cqe : {0u, 3u, 65536u}) {
        cq_request r;
        r.cqe = cqe;
        EXPECT_EQ(cq_create(e.at.context, r).error(), status::invalid_argument);
    }
    cq_request r;
    r.cqe        = 16;
    r.entry_size = 16;
    r.with_sgid  = true;
    EXPECT_EQ(cq_create(e.at.context, r).error(), status::invalid_argument);
    const auto at = reinterpret_cast<std::uint64_t>(e.memory.data());
    EXPECT_EQ(mr_register(e.pd, at, 4096, at, remote_write).error(), status::invalid_argument);
    EXPECT_EQ(mr_register(e.pd, at, 4096, at, 8 | local_write).error(), status::unsupported);
    EXPECT_EQ(mr_register(e.pd, at, 4096, at + 1, local_write).error(), status::invalid_argument);
    EXPECT_EQ(mr_register(e.pd, at, ~std::uint64_t{0} - at, at, local_write).error(), status::bad_address);
    EXPECT_EQ(mr_register(e.pd, ~std::uint64_t{0} - 10, 100, ~std::uint64_t{0} - 10, local_write).error(), status::invalid_argument);
    EXPECT_EQ(mr_register(e.pd, 4096, 4096, 4096, local_write).error(), status::bad_address);
    qp_request q;
    q.pd = e.pd;
    q.send_cq = q.recv_cq = e.scq.h;
    q.max_send_wr  = 65536;
    q.sq_ring_size = 65536 * 64;
    EXPECT_EQ(qp_create(e.at.context, q).error(), status::invalid_argument);
    q.max_send_wr  = 16;
    q.sq_ring_size = 16 * 96;
    EXPECT_EQ(qp_create(e.at.context, q).error(), status::invalid_argument);
    EXPECT_EQ(e.qp.to(qp_state::init), status::invalid_argument) << "RTS to INIT";
}

TEST_F(objects, query_returns_what_was_set)
{
    endpoint e(4096, {}, 3);
    qp_attr    a;
    qp_request caps;
    ASSERT_EQ(qp_query(e.qp.h, &a, &caps), status::ok);
    EXPECT_EQ(a.state, qp_state::rts);
    EXPECT_EQ(a.qkey, nic::qkey);
    EXPECT_EQ(a.rnr_retry, 3);
    EXPECT_EQ(caps.max_send_wr, 64u);
}

TEST_F(objects, ah_numbers_are_shared_per_pd_and_gid)
{
    port p;
    const handle one = p.pd(), two = p.pd();
    auto a = ah_create(one, device_gid(0)), b = ah_create(one, device_gid(0)), c = ah_create(two, device_gid(0));
    EXPECT_EQ(a->ah_number, b->ah_number);
    EXPECT_NE(a->ah_number, c->ah_number);
    EXPECT_NE(a->ah, b->ah);
}

TEST_F(objects, receiver_without_ah_sees_none_and_the_gid_where_asked)
{
    endpoint e(4096);
    const handle other_pd = e.at.pd();
    cq_request   r;
    r.with_sgid = true;
    auto       cq = e.at.cq(16, r);
    queue_pair q;
    ASSERT_TRUE(q.open(e.at, other_pd, cq.h, cq.h));
    q.connect();
    std::vector<std::uint8_t> memory(4096);
    const auto at = reinterpret_cast<std::uint64_t>(memory.data());
    auto       m  = mr_register(other_pd, at, 4096, at, local_write);
    q.post_recv(1, {{memory.data(), 64, m->lkey}});
    e.qp.post(e.qp.send_inline(1, e.ah, q.qpn, "x"));
    auto got = cq.wait();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->ah, 0xffff);
    EXPECT_EQ(std::memcmp(got->sgid, device_gid(0).data(), 16), 0);
}

TEST_F(objects, work_to_itself_ends_while_the_process_blocks)
{
    event_pipe      channel;
    endpoint        e(4 << 20);
    told_queue_pair told;
    cq_view        &cq = told.cq;
    queue_pair     &q  = told.q;
    ASSERT_TRUE(told.open(e, channel, 0));
    // One post, then nothing that drives the engine until the record of the event arrives.
    auto blocks = [&](const queue_pair::wqe &w, std::uint16_t receive) {
        engine_arm(cq.h);
        EXPECT_TRUE(until([] { return engine().asleep.load(); })) << "the helper notices who blocks";
        q.post(w);
        if (receive != 0)
            e.qp.post_recv(receive, {e.slice(0, 64)});
        const bool came = channel.take().has_value();
        auto       done = cq.take();
        return came && done && done->status == 0;
    };
    for (std::uint16_t i = 1; i <= 50; ++i) {
        e.qp.post_recv(i, {e.slice(0, 64)});
        ASSERT_TRUE(blocks(q.send_inline(i, e.ah, e.qp.qpn, "self"), 0)) << i;
        ASSERT_TRUE(e.rcq.take());
    }
    constexpr std::uint32_t half = 2 << 20; // more than one pass moves
    const auto remote = reinterpret_cast<std::uint64_t>(e.memory.data()) + half;
    EXPECT_TRUE(blocks(q.rdma(1, 100, e.ah, e.qp.qpn, e.slice(0, half), remote, e.rkey), 0)) << "read";
    EXPECT_TRUE(blocks(q.rdma(2, 101, e.ah, e.qp.qpn, e.slice(0, half), remote, e.rkey), 0)) << "write";
    EXPECT_TRUE(blocks(q.send_inline(102, e.ah, e.qp.qpn, "later"), 7)) << "the receive comes while the sender pauses";
    EXPECT_EQ(qp_destroy(q.h), status::ok);
    EXPECT_EQ(cq_destroy(cq.h, nullptr), status::ok);
}

TEST_F(objects, work_for_a_failed_link_ends)
{
    endpoint e(4096);
    {
        const engine_guard guard;
        link_fail(*engine().links[0], "test");
    }
    e.qp.post(e.qp.send_inline(1, e.ah, e.qp.qpn, "to nobody"));
    auto done = e.scq.wait();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, static_cast<unsigned>(softefa::wire::efa_status::bad_response));
}

TEST_F(objects, reset_drops_work_and_starts_over)
{
    endpoint e(4096);
    e.qp.post(e.qp.send_inline(1, e.ah, e.qp.qpn, "never received"));
    EXPECT_FALSE(e.scq.poll_surely());
    ASSERT_EQ(e.qp.to(qp_state::reset), status::ok);
    EXPECT_EQ(*e.qp.sq_db, 0u);
    connect_anew(e.qp);
    e.qp.post_recv(7, {e.slice(0, 64)});
    e.qp.post(e.qp.send_inline(2, e.ah, e.qp.qpn, "again"));
    auto got = e.rcq.wait();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->req_id, 7);
    EXPECT_EQ(e.scq.wait()->req_id, 2);
    EXPECT_FALSE(e.scq.poll_surely());
}

TEST_F(objects, hostile_doorbells_are_counted_and_harmless)
{
    endpoint   e(4096);
    auto       before = counted().bad_doorbell;
    *e.qp.sq_db = 5000;
    *e.qp.rq_db = 60000;
    engine_posted(e.qp.h);
    EXPECT_GT(counted().bad_doorbell, before); // twice if the helper was in the engine just then
    *e.qp.sq_db = 0;
    before      = counted().bad_doorbell;
    e.qp.post(e.qp.send_inline(1, e.ah, e.qp.qpn, "x"));
    EXPECT_TRUE(until([&] { EXPECT_FALSE(e.rcq.poll()); return counted().bad_doorbell > before; }));
    *e.qp.rq_db = 0;
    e.qp.post_recv(1, {e.slice(0, 64)});
    EXPECT_TRUE(e.rcq.wait());
}

TEST_F(objects, random_wqe_bytes_give_one_completion_each)
{
    endpoint  e(1 << 16);
    base::rng random(99);
    for (int round = 0; round < 5000; ++round) {
        queue_pair::wqe w = e.qp.rdma(static_cast<std::uint8_t>(random.below(3)), 1, e.ah, e.qp.qpn, e.slice(0, 64),
                                      reinterpret_cast<std::uint64_t>(e.memory.data()), e.rkey);
        for (unsigned k = random.below(6); k != 0; --k)
            w.b[random.below(64)] = static_cast<std::uint8_t>(random.next());
        const auto id = static_cast<std::uint16_t>(round);
        w.set16(0, id);
        e.qp.post_recv(1, {e.slice(32768, 8192)});
        e.qp.post(w);
        auto done = e.scq.wait();
        ASSERT_TRUE(done) << round;
        ASSERT_EQ(done->req_id, id);
        ASSERT_FALSE(e.scq.take());
        e.rcq.poll();
        *e.qp.rq_db = e.qp.rq_posted;
        if (static_cast<std::uint16_t>(round) % 48 == 47) { // unused receives: start over before the queue is full
            ASSERT_EQ(e.qp.to(qp_state::reset), status::ok);
            connect_anew(e.qp);
            while (e.rcq.take()) {
            }
        }
    }
}

TEST_F(objects, unmapped_registration_is_an_error_of_the_requester)
{
    endpoint e(8192);
    void *at = mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const auto start = reinterpret_cast<std::uint64_t>(at);
    auto       m     = mr_register(e.pd, start, 1 << 20, start, local_write | remote_read | remote_write);
    ASSERT_TRUE(static_cast<bool>(m));
    munmap(static_cast<char *>(at) + 4096, (1 << 20) - 4096);
    for (std::uint8_t op : {std::uint8_t{1}, std::uint8_t{2}}) {
        e.qp.post(e.qp.rdma(op, 1, e.ah, e.qp.qpn, e.slice(0, 8192), start, m->rkey));
        auto done = e.scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, 7);
    }
    EXPECT_EQ(mr_deregister(m->mr), status::ok);
    munmap(at, 4096);
}

TEST_F(objects, deregistered_rkey_is_dead_at_once_and_stays_dead)
{
    endpoint e(8192);
    const auto at  = reinterpret_cast<std::uint64_t>(e.memory.data());
    auto       m   = mr_register(e.pd, at, 4096, at, local_write | remote_read);
    const auto key = m->rkey;
    ASSERT_EQ(mr_deregister(m->mr), status::ok);
    for (int i = 0; i < 3; ++i) {
        e.qp.post(e.qp.rdma(1, 1, e.ah, e.qp.qpn, e.slice(4096, 64), at, key));
        EXPECT_EQ(e.scq.wait()->status, 7);
        m = mr_register(e.pd, at, 4096, at, local_write | remote_read);
        EXPECT_NE(m->rkey, key);
        EXPECT_EQ(mr_deregister(m->mr), status::ok);
    }
}

TEST_F(objects, ud_prepends_a_grh_and_drops_in_silence)
{
    qp_request r;
    r.type = qp_type::ud;
    endpoint e(1 << 14, r);
    e.qp.post(e.qp.send_inline(1, e.ah, e.qp.qpn, "nobody listens"));
    EXPECT_EQ(e.scq.wait()->status, 0);
    EXPECT_FALSE(e.rcq.poll_surely());
    e.qp.post_recv(5, {e.slice(0, 30)});
    e.qp.post(e.qp.send_inline(2, e.ah, e.qp.qpn, "too long for 30"));
    EXPECT_EQ(e.scq.wait()->status, 0);
    EXPECT_FALSE(e.rcq.poll_surely()) << "dropped, and the receive stays";
    ASSERT_EQ(e.qp.to(qp_state::reset), status::ok);
    connect_anew(e.qp);
    e.qp.post_recv(6, {e.slice(0, 128)});
    e.qp.post(e.qp.send_inline(3, e.ah, e.qp.qpn, "datagram"));
    auto got = e.rcq.wait();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->length, 48u);
    EXPECT_EQ(std::memcmp(e.memory.data() + 40, "datagram", 8), 0);
    EXPECT_EQ(std::memcmp(e.memory.data() + 8, device_gid(0).data(), 16), 0);
    e.qp.post(e.qp.rdma(1, 4, e.ah, e.qp.qpn, e.slice(0, 8), 0, 0));
    while (auto done = e.scq.wait()) {
        if (done->req_id == 4) {
            EXPECT_EQ(done->status, 3);
            break;
        }
    }
}

TEST_F(objects, write_with_immediate_uses_a_receive_or_none)
{
    for (bool unsolicited : {false, true}) {
        qp_request r;
        r.unsolicited_recv = unsolicited;
        endpoint   e(1 << 18, r);
        const auto remote = reinterpret_cast<std::uint64_t>(e.memory.data() + (1 << 17));
        for (std::uint32_t size : {0u, 100u, 100000u}) {
            e.memory[0] = static_cast<std::uint8_t>(size + 1);
            if (!unsolicited)
                e.qp.post_recv(77, {e.slice(0, 0)});
            e.qp.post(queue_pair::with_imm(e.qp.rdma(2, 3, e.ah, e.qp.qpn, e.slice(0, size), remote, e.rkey), 0xfeed));
            auto got = e.rcq.wait();
            ASSERT_TRUE(got) << size;
            EXPECT_EQ(got->op, 2);
            EXPECT_EQ(got->length, size);
            EXPECT_EQ(got->imm, 0xfeedu);
            EXPECT_TRUE(got->has_imm);
            EXPECT_EQ(got->unsolicited, unsolicited);
            EXPECT_EQ(e.scq.wait()->status, 0);
            if (size != 0) {
                EXPECT_EQ(e.memory[1 << 17], static_cast<std::uint8_t>(size + 1));
            }
        }
    }
}

TEST_F(objects, write_with_immediate_waits_for_a_receive)
{
    endpoint   e(1 << 18);
    const auto remote = reinterpret_cast<std::uint64_t>(e.memory.data() + (1 << 17));
    const auto before = counted().rnr_retries;
    e.qp.post(queue_pair::with_imm(e.qp.rdma(2, 3, e.ah, e.qp.qpn, e.slice(0, 70000), remote, e.rkey), 1));
    ASSERT_TRUE(until([&] { e.scq.poll(); return counted().rnr_retries > before + 1; }));
    e.qp.post_recv(77, {e.slice(0, 0)});
    auto got = e.rcq.wait();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->length, 70000u);
    EXPECT_EQ(e.scq.wait()->status, 0);
}

TEST_F(objects, unsolicited_must_be_agreed)
{
    endpoint   e(8192);
    qp_request r;
    r.unsolicited_recv = true;
    queue_pair q;
    ASSERT_TRUE(q.open(e.at, e.pd, e.scq.h, e.rcq.h, r));
    q.connect();
    const auto remote = reinterpret_cast<std::uint64_t>(e.memory.data());
    e.qp.post(queue_pair::with_imm(e.qp.rdma(2, 3, e.ah, q.qpn, e.slice(4096, 8), remote, e.rkey), 1));
    EXPECT_EQ(e.scq.wait()->status, 18);
    q.post(queue_pair::with_imm(q.rdma(2, 4, e.ah, e.qp.qpn, e.slice(4096, 8), remote, e.rkey), 1));
    EXPECT_EQ(e.scq.wait()->status, 18);
}

TEST_F(objects, destroyed_ah_ends_its_waiting_work)
{
    endpoint e(4096);
    e.qp.post(e.qp.send_inline(1, e.ah, e.qp.qpn, "rnr"));
    const auto before = counted().rnr_retries;
    ASSERT_TRUE(until([&] { e.scq.poll(); return counted().rnr_retries > before; }));
    ASSERT_EQ(ah_destroy(e.ah_handle), status::ok);
    auto done = e.scq.wait();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, 4);
}

TEST_F(objects, forked_child_gets_errors_and_harms_nothing)
{
    endpoint e(4096);
    const pid_t pid = fork();
    if (pid == 0) {
        process_forked();
        engine_poll(e.scq.h);
        engine_posted(e.qp.h);
        engine_arm(e.scq.h);
        const bool ok = pd_alloc(e.at.context).error() == status::permission && qp_destroy(e.qp.h) == status::permission &&
                        cq_destroy(e.scq.h, nullptr) == status::permission && mr_deregister(e.mr) == status::permission;
        _exit(ok ? 0 : 1);
    }
    int state = 0;
    ASSERT_EQ(waitpid(pid, &state, 0), pid);
    ASSERT_TRUE(WIFEXITED(state)) << "the child died of signal " << WTERMSIG(state);
    EXPECT_EQ(WEXITSTATUS(state), 0);
    e.qp.post_recv(1, {e.slice(0, 64)});
    e.qp.post(e.qp.send_inline(1, e.ah, e.qp.qpn, "parent"));
    EXPECT_TRUE(e.rcq.wait());
}

} // namespace
