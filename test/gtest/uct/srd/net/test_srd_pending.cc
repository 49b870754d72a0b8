/* Every shortage by itself (srd_pending.cc): a post answers NO_RESOURCE for one recorded reason, its request waits in the queue as long
 * as the reason lasts, and is called once when what ends it has happened. Whole interfaces on a network in memory. And endpoints
 * for which there is no memory.
 */
#include "fuzz/net.h"
#include "uct/srd/memory_that_runs_out.h"

#include <functional>
#include <gtest/gtest.h>
#include <string>

using fuzz::node;
using namespace srd;
using srd::test::memory_that_runs_out;

namespace {

struct request : uct_pending_req_t {
    std::function<ucs_status_t()> post;
    unsigned calls = 0, done = 0;
    request() : uct_pending_req_t{}
    {
        func = [](uct_pending_req_t *self) {
            auto *r = static_cast<request *>(self);
            ++r->calls;
            const ucs_status_t status = r->post();
            if (status == UCS_OK || status == UCS_INPROGRESS) {
                ++r->done;
                return UCS_OK;
            }
            return status;
        };
    }
};

class srd_pending : public testing::Test {
protected:
    void SetUp() override
    {
        fake::clock_ns   = 1'000'000'000'000;
        fake::clock_step = 1'000;
    }

    void open(const fuzz::options &a, const fuzz::options &b = {})
    {
        left  = std::make_unique<node>(fuzz::gid_of(1), a);
        right = std::make_unique<node>(fuzz::gid_of(2), b);
        ASSERT_EQ(left->open(11), UCS_OK);
        ASSERT_EQ(right->open(12), UCS_OK);
        net.nodes = {left.get(), right.get()};
        ep        = connect(*right);
    }

    uct_ep_h connect(const node &to)
    {
        uct_iface_set_am_handler(to.handle(), 1, [](void *arg, void *, std::size_t, unsigned) {
            ++*static_cast<unsigned *>(arg);
            return UCS_OK;
        }, &received, 0);
        uct_ep_h made = left->connect(to.device.gid, to.qpn(), to.device.qkey);
        EXPECT_NE(made, nullptr);
        return made;
    }

    void settle(unsigned rounds = 20)
    {
        for (unsigned i = 0; i < rounds; ++i) {
            fake::clock_ns += 50'000'000;
            for (node *n : net.nodes) {
                n->progress_timers();
                while (!n->device.sends.empty() && n->device.completions.size() < 200) {
                    net.carry(*n, 0);
                }
            }
        }
    }

    /// Sends until the endpoint's peer has granted some messages more than one.
    void earn_credits(uct_ep_h e)
    {
        const auto &tx = ep_of(e)->owner->tx;
        for (unsigned tries = 0; tries < 200 && distance(tx.next(), tx.limit()) < 6; ++tries) {
            if (am(e) != UCS_OK) {
                settle(2);
            }
            settle(1);
        }
        settle();
        ASSERT_GE(distance(tx.next(), tx.limit()), 6);
        ASSERT_TRUE(ep_reasons_gone(left->f, ep_of(e)));
        received = 0;
    }

    ucs_status_t am(uct_ep_h e) { return uct_ep_am_short(e, 1, 0, nullptr, 0); }
    ucs_status_t bcopy(uct_ep_h e)
    {
        const ssize_t size = uct_ep_am_bcopy(e, 1, [](void *to, void *) { return *static_cast<char *>(to) = 1, std::size_t{100}; }, nullptr, 0);
        return size < 0 ? static_cast<ucs_status_t>(size) : UCS_OK;
    }
    ucs_status_t put(uct_ep_h e)
    {
        const ssize_t size = left->handle()->ops.ep_put_bcopy(
            e, [](void *to, void *) { return *static_cast<char *>(to) = 1, std::size_t{8}; }, nullptr,
            reinterpret_cast<std::uint64_t>(shared->bytes.get()), shared->mem.rkey);
        return size < 0 ? static_cast<ucs_status_t>(size) : UCS_OK;
    }

    /// The post finds no resource for this reason alone, changes nothing, and its request is queued.
    void expect_short(std::uint8_t reason, std::function<ucs_status_t()> post)
    {
        const std::uint64_t posted = left->device.posted_sends, slots = left->f->tx.slots;
        const std::uint64_t told   = left->f->counters.get(counter::tx_no_resource);
        waiting.post               = std::move(post);
        ASSERT_EQ(waiting.post(), UCS_ERR_NO_RESOURCE);
        EXPECT_EQ(ep_of(ep)->reasons, reason);
        EXPECT_EQ(left->f->counters.get(counter::tx_no_resource), told + 1);
        EXPECT_EQ(left->device.posted_sends, posted);
        EXPECT_EQ(left->f->tx.slots, slots);
        ASSERT_EQ(left->handle()->ops.ep_pending_add(ep, &waiting, 0), UCS_OK);
        EXPECT_EQ(left->handle()->ops.iface_flush(left->handle(), 0, nullptr), UCS_INPROGRESS);
        expect_waits();
    }

    void expect_waits()
    {
        for (int i = 0; i < 3; ++i) {
            left->progress();
        }
        EXPECT_EQ(waiting.calls, 0u);
    }

    void expect_called()
    {
        left->progress();
        left->progress(); // what a completion brought is dispatched in the same call, or at the start of the next
        EXPECT_EQ(waiting.calls, 1u);
        EXPECT_EQ(waiting.done, 1u);
        EXPECT_EQ(ep_of(ep)->reasons, 0);
        EXPECT_EQ(left->f->pending_ring, nullptr);
    }

    /// Completes the oldest send to a target.
    void carry_to(const node &to)
    {
        for (std::size_t i = 0; i < left->device.sends.size(); ++i) {
            if (left->device.sends[i].qpn == to.qpn()) {
                net.carry(*left, i);
                return;
            }
        }
        FAIL() << "nothing is under way there";
    }

    void TearDown() override
    {
        settle();
        fake::clock_step = 100'000;
        for (uct_ep_h e : others) {
            left->handle()->ops.ep_destroy(e);
        }
        if (ep != nullptr) {
            left->handle()->ops.ep_destroy(ep);
        }
        shared.reset();
        for (auto &n : more) {
            n->close();
        }
        right.reset(); // the nodes check that nothing is left
        left.reset();
    }

    fuzz::network net;
    std::unique_ptr<node> left, right;
    std::vector<std::unique_ptr<node>> more;
    std::unique_ptr<fuzz::region> shared;
    std::vector<uct_ep_h> others;
    uct_ep_h ep       = nullptr;
    unsigned received = 0;
    request waiting;
};

fuzz::options with_queue(unsigned tx_queue_len)
{
    fuzz::options o;
    o.tx_queue_len = tx_queue_len;
    return o;
}

fuzz::options one_sided(unsigned tx_queue_len = 64)
{
    fuzz::options o = with_queue(tx_queue_len);
    o.read = o.write = true;
    return o;
}

} // namespace

TEST_F(srd_pending, full_send_queue_is_over_with_a_completion_of_anybody)
{
    open(with_queue(8)); // a peer has half of it
    earn_credits(ep);
    for (unsigned i = 0; i < 2; ++i) {
        more.push_back(std::make_unique<node>(fuzz::gid_of(3 + i), fuzz::options{}));
        ASSERT_EQ(more.back()->open(static_cast<std::uint16_t>(13 + i)), UCS_OK);
        net.nodes.push_back(more.back().get());
        others.push_back(connect(*more.back()));
        earn_credits(others.back());
    }
    for (unsigned i = 0; i < 8; ++i) {
        ASSERT_EQ(am(others[i % 2]), UCS_OK) << i;
    }
    ASSERT_EQ(left->f->tx.sq_free, 0u);
    expect_short(reason_queue, [this] { return am(ep); });
    carry_to(*more[1]);
    expect_called();
}

TEST_F(srd_pending, full_window_is_over_when_the_oldest_is_complete)
{
    open(with_queue(8));
    earn_credits(ep);
    for (unsigned i = 0; i < 4; ++i) {
        ASSERT_EQ(am(ep), UCS_OK);
    }
    const peer *p = ep_of(ep)->owner;
    ASSERT_GT(distance(p->tx.next(), p->tx.limit()), 0); // not for want of credits
    ASSERT_NE(left->f->tx.sq_free, 0u);
    expect_short(reason_window, [this] { return am(ep); });
    net.carry(*left, 1); // the span is what counts, not how many are outstanding
    expect_waits();
    net.carry(*left, 0);
    expect_called();
}

TEST_F(srd_pending, used_up_credits_are_over_with_a_grant)
{
    open({});
    ASSERT_EQ(am(ep), UCS_OK);
    ASSERT_EQ(am(ep), UCS_OK); // the first grant
    expect_short(reason_window, [this] { return am(ep); });
    net.carry(*left, 0);
    net.carry(*left, 0);
    expect_waits(); // acknowledged is not granted
    settle();
    expect_called();
    settle();
    EXPECT_EQ(received, 3u);
}

TEST_F(srd_pending, peer_without_receives_is_over_when_it_has_taken_the_refused_message)
{
    open({});
    earn_credits(ep);
    std::deque<fake::receive> receives;
    receives.swap(right->device.receives);
    ASSERT_EQ(am(ep), UCS_OK);
    net.carry(*left, 0); // refused
    left->progress();
    expect_short(reason_window, [this] { return am(ep); });
    right->device.receives.swap(receives);
    expect_waits(); // not sent again yet
    settle();
    expect_called();
    settle();
    EXPECT_EQ(received, 2u);
}

TEST_F(srd_pending, record_that_cannot_be_had_is_over_with_memory_or_a_completion)
{
    open({});
    earn_credits(ep);
    std::vector<op *> taken;
    while (op *o = left->f->ops.top()) {
        left->f->ops.take(o);
        taken.push_back(o);
    }
    {
        memory_that_runs_out none;
        expect_short(reason_queue, [this] { return am(ep); });
        EXPECT_NE(none.refused(), 0u);
    }
    expect_called(); // the pool grows
    for (op *o : taken) {
        left->f->ops.put(o);
    }
}

TEST_F(srd_pending, bounce_buffer_of_a_pool_of_one_is_over_with_its_completion)
{
    fuzz::options one;
    one.tx_max_bufs = 1;
    open(one);
    earn_credits(ep);
    ASSERT_EQ(bcopy(ep), UCS_OK);
    ASSERT_EQ(am(ep), UCS_OK); // needs none
    expect_short(reason_buf, [this] { return bcopy(ep); });
    net.carry(*left, 1);
    expect_waits();
    net.carry(*left, 0);
    expect_called();
}

TEST_F(srd_pending, hello_without_a_control_slot_is_said_when_one_is_free)
{
    open(one_sided(), one_sided());
    shared = std::make_unique<fuzz::region>(right->device, 64);
    // Questions to peers that may not exist have half of the slots. These do not exist.
    for (unsigned i = 0; i < limits::control_slots / 2; ++i) {
        others.push_back(left->connect(fuzz::gid_of(20 + i), static_cast<std::uint16_t>(30 + i), 1));
        ASSERT_NE(others.back(), nullptr);
        ASSERT_EQ(put(others.back()), UCS_ERR_NO_RESOURCE);
    }
    for (unsigned i = 0; i < 10; ++i) {
        left->progress();
    }
    ASSERT_EQ(left->device.sends.size(), limits::control_slots / 2);
    expect_short(reason_hello, [this] { return put(ep); });
    ASSERT_EQ(left->device.sends.size(), limits::control_slots / 2);
    EXPECT_TRUE(ep_of(ep)->owner->want & want_hello); // still owed
    net.carry(*left, 0); // ends: there is nobody
    left->progress();
    left->progress();
    EXPECT_FALSE(ep_of(ep)->owner->want & want_hello);
    expect_waits(); // said, not answered
    settle();
    expect_called();
}

TEST_F(srd_pending, share_of_one_sided_operations_is_over_with_one_of_them)
{
    open(one_sided(8), one_sided());
    shared = std::make_unique<fuzz::region>(right->device, 64);
    earn_credits(ep);
    for (unsigned i = 0; i < left->f->rma.per_peer; ++i) {
        ASSERT_EQ(put(ep), UCS_OK);
    }
    ASSERT_NE(left->f->tx.sq_free, 0u);
    expect_short(reason_share, [this] { return put(ep); });
    net.carry(*left, 2);
    expect_called();
}

TEST_F(srd_pending, request_that_purges_its_queue_and_cannot_go_on_is_called_again)
{
    open(with_queue(8));
    earn_credits(ep);
    for (unsigned i = 0; i < 4; ++i) {
        ASSERT_EQ(am(ep), UCS_OK);
    }
    expect_short(reason_window, [this] { return am(ep); });
    waiting.post = [this] {
        left->handle()->ops.ep_pending_purge(ep, [](uct_pending_req_t *, void *) {}, nullptr);
        return waiting.calls < 3 ? UCS_ERR_NO_RESOURCE : UCS_OK;
    };
    for (unsigned i = 0; i < 4; ++i) {
        net.carry(*left, 0);
    }
    for (int i = 0; i < 5; ++i) {
        left->progress();
    }
    EXPECT_EQ(waiting.calls, 3u);
    EXPECT_EQ(waiting.done, 1u);
    EXPECT_EQ(left->f->pending_ring, nullptr);
}

TEST_F(srd_pending, fence_behind_a_put_is_over_when_the_put_is_complete)
{
    open(one_sided(), one_sided());
    shared = std::make_unique<fuzz::region>(right->device, 64);
    earn_credits(ep);
    ASSERT_EQ(put(ep), UCS_OK);
    ASSERT_EQ(left->handle()->ops.ep_fence(ep, 0), UCS_OK);
    expect_short(reason_fence, [this] { return am(ep); });
    net.carry(*left, 0);
    expect_called();
}

TEST_F(srd_pending, fence_behind_a_message_is_over_when_the_message_was_consumed)
{
    open(one_sided(), one_sided());
    shared = std::make_unique<fuzz::region>(right->device, 64);
    earn_credits(ep);
    ASSERT_EQ(am(ep), UCS_OK);
    ASSERT_EQ(left->handle()->ops.ep_fence(ep, 0), UCS_OK);
    waiting.post = [this] { return put(ep); };
    ASSERT_EQ(waiting.post(), UCS_ERR_NO_RESOURCE); // and asks with an empty message what was consumed
    EXPECT_EQ(ep_of(ep)->reasons, reason_consumed);
    ASSERT_EQ(left->handle()->ops.ep_pending_add(ep, &waiting, 0), UCS_OK);
    while (!left->device.sends.empty()) {
        net.carry(*left, 0);
    }
    expect_waits(); // placed is not consumed
    settle();
    expect_called();
    EXPECT_EQ(received, 1u);
}

TEST_F(srd_pending, request_that_waits_goes_before_every_later_post) // SEP-1, and BUSY is not said
{
    open({});
    earn_credits(ep);
    std::string order;
    request first, second;
    first.post  = [&] { return order += '1', am(ep); };
    second.post = [&] { return order += '2', am(ep); };
    while (am(ep) == UCS_OK) {
    }
    ASSERT_EQ(left->handle()->ops.ep_pending_add(ep, &first, 0), UCS_OK);
    while (!left->device.sends.empty()) {
        net.carry(*left, 0);
    }
    for (int i = 0; i < 5; ++i) {
        right->progress_timers();
        while (!right->device.sends.empty()) {
            net.carry(*right, 0); // credits
        }
    }
    for (int i = 0; i < 20 && !left->device.completions.empty(); ++i) {
        rx_progress(left->f); // what arrived, without the turn of the queue
    }
    EXPECT_TRUE(tx_window_open(ep_of(ep)->owner));
    const std::uint8_t reasons = ep_of(ep)->reasons;
    EXPECT_EQ(am(ep), UCS_ERR_NO_RESOURCE); // although there is room
    EXPECT_EQ(ep_of(ep)->reasons, reasons);  // the queue is no shortage
    ASSERT_EQ(left->handle()->ops.ep_pending_add(ep, &second, 0), UCS_OK);
    for (int i = 0; i < 5; ++i) {
        left->progress();
    }
    EXPECT_EQ(order, "12");
    EXPECT_EQ(am(ep), UCS_OK);
}

TEST_F(srd_pending, endpoint_for_which_there_is_no_memory_leaves_nothing)
{
    fuzz::options many;
    many.max_peers = 1000;
    open(many);
    unsigned refused = 0;
    for (std::uint16_t i = 0; refused < 3; ++i) { // endpoints and peers come in chunks: each is tried without memory first
        ASSERT_LT(i, 900u);
        const std::uint32_t eps = left->f->ep_count;
        ucs_status_t status     = UCS_OK;
        uct_ep_h made           = nullptr;
        {
            memory_that_runs_out none;
            made = left->connect(fuzz::gid_of(9), static_cast<std::uint16_t>(100 + i), 1, &status);
        }
        if (made == nullptr) {
            ++refused;
            EXPECT_EQ(status, UCS_ERR_NO_MEMORY) << i;
            EXPECT_EQ(left->f->ep_count, eps);
            made = left->connect(fuzz::gid_of(9), static_cast<std::uint16_t>(100 + i), 1, &status);
            ASSERT_NE(made, nullptr) << "there is memory again";
        }
        others.push_back(made);
        EXPECT_EQ(left->f->ep_count, eps + 1);
        EXPECT_EQ(left->f->peers.live(), 1 + others.size());
        EXPECT_EQ(ep_of(made)->owner->eps, ep_of(made));
    }
    earn_credits(ep); // the others are as they were
}

TEST_F(srd_pending, endpoint_to_a_known_peer_for_which_there_is_no_memory_leaves_nothing)
{
    open({});
    const peer *p            = ep_of(ep)->owner;
    const std::uint32_t eps  = left->f->ep_count, peers = left->f->peers.live();
    const std::size_t ahs    = left->f->ahs.count();
    const srd::ep *const was = p->eps;
    ucs_status_t status      = UCS_OK;
    {
        memory_that_runs_out none;
        EXPECT_EQ(left->connect(right->device.gid, right->qpn(), right->device.qkey, &status), nullptr);
        EXPECT_EQ(none.refused(), 1u);
    }
    EXPECT_EQ(status, UCS_ERR_NO_MEMORY);
    EXPECT_EQ(left->f->ep_count, eps);
    EXPECT_EQ(left->f->peers.live(), peers);
    EXPECT_EQ(left->f->ahs.count(), ahs);
    EXPECT_EQ(p->eps, was);
    earn_credits(ep);
}
