/* Every limit that `softefa limits` shows, set to a small value: taken at the value, refused beyond it, and there again when something was given back. */
#include "softefa/dev/set_up.h"

#include <functional>

namespace {

using namespace nic;
using base::status;
using softefa::device_limits;

class device_limits_test : public device_test {
protected:
    void set(std::uint32_t device_limits::*field, std::uint32_t value) { wanted.limits.*field = value, use(); }
    void set(std::uint16_t device_limits::*field, std::uint16_t value) { wanted.limits.*field = value, use(); }

    /// `make` succeeds so many times, then says limit; and once more when one was given back.
    static void expect_objects(unsigned most, const std::function<base::result<handle>()> &make, const std::function<status(handle)> &destroy)
    {
        handle one = 0;
        for (unsigned n = 0; n < most; ++n) {
            auto made = make();
            ASSERT_TRUE(static_cast<bool>(made)) << n;
            one = *made;
        }
        EXPECT_EQ(make().error(), status::limit);
        EXPECT_EQ(make().error(), status::limit) << "a refusal takes nothing";
        ASSERT_EQ(destroy(one), status::ok);
        EXPECT_TRUE(static_cast<bool>(make()));
        EXPECT_EQ(make().error(), status::limit);
    }
    /// A queue pair that any device takes, changed by `change`.
    static status make_qp(const std::function<void(qp_request &)> &change)
    {
        port       p;
        qp_request r = modest_request(p);
        change(r);
        auto reply = qp_create(p.context, r);
        return reply ? qp_destroy(reply->qp) : reply.error();
    }
    static int run(endpoint &e, const queue_pair::wqe &w)
    {
        e.qp.post_recv(1, {e.slice(0, 16384)});
        e.qp.post(w);
        const auto done = e.scq.wait();
        return done ? done->status : -1;
    }
};

TEST_F(device_limits_test, objects_are_counted)
{
    set(&device_limits::max_pd, 3u);
    {
        port p;
        expect_objects(3, [&]() -> base::result<handle> { auto r = pd_alloc(p.context); if (!r) return r.error(); return r->pd; }, pd_dealloc);
    }
    set(&device_limits::max_mr, 3u);
    {
        port                      p;
        const handle              pd = p.pd();
        std::vector<std::uint8_t> memory(4096);
        const auto                at = reinterpret_cast<std::uint64_t>(memory.data());
        expect_objects(3, [&]() -> base::result<handle> { auto r = mr_register(pd, at, 4096, at, local_write); if (!r) return r.error(); return r->mr; },
                       mr_deregister);
    }
    set(&device_limits::max_ah, 3u);
    {
        port         p;
        const handle pd = p.pd();
        std::uint8_t last = 0;
        expect_objects(3, [&]() -> base::result<handle> { gid g{}; g[0] = ++last; auto r = ah_create(pd, g); if (!r) return r.error(); return r->ah; },
                       ah_destroy);
    }
    set(&device_limits::max_cq, 3u);
    {
        port       p;
        cq_request ask;
        ask.cqe = 16;
        expect_objects(3, [&]() -> base::result<handle> { auto r = cq_create(p.context, ask); if (!r) return r.error(); return r->cq; },
                       [](handle h) { return cq_destroy(h, nullptr); });
    }
    set(&device_limits::max_qp, 3u);
    {
        port             p;
        const qp_request ask = modest_request(p);
        expect_objects(3, [&]() -> base::result<handle> { auto r = qp_create(p.context, ask); if (!r) return r.error(); return r->qp; }, qp_destroy);
    }
}

TEST_F(device_limits_test, sizes_of_queues_end_where_the_limit_says)
{
    set(&device_limits::max_cqe, 64u);
    {
        port p;
        for (const std::uint32_t entries : {64u, 65u, 128u}) {
            cq_request ask;
            ask.cqe = entries;
            EXPECT_EQ(cq_create(p.context, ask).error(), entries == 64 ? status::ok : status::invalid_argument) << entries;
        }
    }
    const auto expect = [](std::uint32_t value, const std::function<void(qp_request &, std::uint32_t)> &put, std::uint32_t beyond = 0) {
        EXPECT_EQ(make_qp([&](qp_request &r) { put(r, value); }), status::ok) << value;
        EXPECT_EQ(make_qp([&](qp_request &r) { put(r, beyond != 0 ? beyond : value + 1); }), status::invalid_argument) << value;
    };
    set(&device_limits::max_sq_wr, 32u);
    expect(32, [](qp_request &r, std::uint32_t n) { r.max_send_wr = n, r.sq_ring_size = n * 64; }, 64);
    set(&device_limits::max_rq_wr, 32u);
    expect(32, [](qp_request &r, std::uint32_t n) { r.max_recv_wr = n; });
    set(&device_limits::max_sq_sge, std::uint16_t{1});
    expect(1, [](qp_request &r, std::uint32_t n) { r.max_send_sge = static_cast<std::uint16_t>(n); });
    set(&device_limits::max_rq_sge, std::uint16_t{2});
    expect(2, [](qp_request &r, std::uint32_t n) { r.max_recv_sge = static_cast<std::uint16_t>(n); });
    set(&device_limits::inline_size, std::uint16_t{16});
    expect(16, [](qp_request &r, std::uint32_t n) { r.max_inline = n; });
    set(&device_limits::inline_size_ex, std::uint16_t{64});
    expect(64, [](qp_request &r, std::uint32_t n) { r.sq_ring_size = 16 * 128, r.max_inline = n; });
    expect(16, [](qp_request &r, std::uint32_t n) { r.max_inline = n; }); // a narrow one as before
    wanted.limits.max_sq_wr = 4096;
    set(&device_limits::max_llq_size, 4096u);
    expect(64, [](qp_request &r, std::uint32_t n) { r.max_send_wr = n, r.sq_ring_size = n * 64; }, 128);
}

TEST_F(device_limits_test, work_beyond_a_limit_ends_in_error)
{
    set(&device_limits::mtu, 1000u);
    {
        endpoint e(1 << 16);
        EXPECT_EQ(run(e, e.qp.send(1, e.ah, e.qp.qpn, {e.slice(20000, 1000)})), 0);
        EXPECT_EQ(run(e, e.qp.send(1, e.ah, e.qp.qpn, {e.slice(20000, 1001)})), 6);
        EXPECT_EQ(run(e, e.qp.send(1, e.ah, e.qp.qpn, {e.slice(20000, 1000), e.slice(30000, 1)})), 6) << "the sum counts";
    }
    set(&device_limits::max_rdma_size, 40000u);
    {
        endpoint   e(1 << 17);
        const auto there = reinterpret_cast<std::uint64_t>(e.memory.data()) + (1 << 16);
        for (const std::uint8_t op : {std::uint8_t{1}, std::uint8_t{2}}) {
            EXPECT_EQ(run(e, e.qp.rdma(op, 1, e.ah, e.qp.qpn, e.slice(0, 40000), there, e.rkey)), 0) << int{op};
            EXPECT_EQ(run(e, e.qp.rdma(op, 1, e.ah, e.qp.qpn, e.slice(0, 40001), there, e.rkey)), 6) << int{op};
        }
    }
    {
        endpoint e(1 << 16); // MAX_RDMA_SGE can only be 1
        auto     w = e.qp.rdma(2, 1, e.ah, e.qp.qpn, e.slice(0, 64), reinterpret_cast<std::uint64_t>(e.memory.data()) + 4096, e.rkey);
        EXPECT_EQ(run(e, w), 0);
        EXPECT_EQ(run(e, e.qp.rdma(2, 1, e.ah, e.qp.qpn, e.slice(0, 64), reinterpret_cast<std::uint64_t>(e.memory.data()) + 4096, e.rkey).set16(6, 2)), 2);
    }
    {
        qp_request one;
        one.max_send_sge = 1;
        endpoint e(1 << 16, one);
        EXPECT_EQ(run(e, e.qp.send(1, e.ah, e.qp.qpn, {e.slice(20000, 10)})), 0);
        EXPECT_EQ(run(e, e.qp.send(1, e.ah, e.qp.qpn, {e.slice(20000, 10), e.slice(30000, 10)})), 2);
    }
}

} // namespace
