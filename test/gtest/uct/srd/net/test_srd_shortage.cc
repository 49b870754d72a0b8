/* Whole interfaces where something runs out: receives, buffers, registrations, address handles; and what fuzzing found. */
#include "two_nodes.h"

using namespace srd_net;

namespace {

class srd_shortage : public two_nodes {};

} // namespace

TEST_F(srd_shortage, queue_of_two_never_runs_empty_whatever_the_user_keeps) // IFC-3
{
    fuzz::options few;
    few.rx_queue_len = few.rx_queue_max = few.rx_max_bufs = 2;
    open({}, few);
    send(100);
    EXPECT_EQ(keeper_.messages, 100u);
    EXPECT_GE(right->device.receives.size(), 1u);
    EXPECT_LE(keeper_.kept.size(), 1u);
}

TEST_F(srd_shortage, early_and_kept_messages_of_one_batch_leave_the_low_water_mark) // IFC-3 within a batch
{
    fuzz::options few;
    few.rx_queue_len = few.rx_queue_max = few.rx_max_bufs = 16;
    open({}, few);
    keeper_.keep = false;
    send(40); // grants grow
    keeper_.keep = true;
    unsigned posted = 0;
    while (uct_ep_am_short(ep, 1, posted, nullptr, 0) == UCS_OK) {
        ++posted;
    }
    ASSERT_GE(posted, 4u);
    // Backwards: each but the last to arrive is early, and the one that ends it releases them all to a user who keeps what he may.
    while (!left->device.sends.empty()) {
        net.carry(*left, left->device.sends.size() - 1);
    }
    right->progress();
    EXPECT_GE(right->device.receives.size(), right->f->rx.low_water);
    settle();
    EXPECT_EQ(keeper_.messages, 40u + posted);
    right->check_conservation();
}

TEST_F(srd_shortage, early_messages_of_a_peer_that_fails_are_counted)
{
    open({});
    keeper_.keep = false;
    send(20);
    unsigned posted = 0;
    while (uct_ep_am_short(ep, 1, posted, nullptr, 0) == UCS_OK) {
        ++posted;
    }
    ASSERT_GE(posted, 3u);
    net.carry(*left, 2); // the third; the first two never come
    net.carry(*left, 1);
    right->progress();
    uct_ep_h back = right->connect(left->device.gid, left->qpn(), left->device.qkey);
    ASSERT_NE(back, nullptr);
    ASSERT_EQ(right->f->super.internal_ops->ep_invalidate(back, 0), UCS_OK);
    EXPECT_EQ(right->f->counters.get(srd::counter::rx_dropped_failed), 2u);
    right->check_conservation();
    right->handle()->ops.ep_destroy(back);
    keeper_.keep = false;
}

TEST_F(srd_shortage, peer_without_an_address_handle_accepts_no_short_header)
{
    open({});
    ASSERT_NE(left->f->peers.at(0), nullptr); // ours towards the right: fresh
    send(3);
    uct_iface_set_am_handler(left->handle(), 1, on_message, &keeper_, 0);
    left->f->peers.at(0)->accept_none();
    const std::uint32_t index = left->f->peers.at(0)->index_local();
    const auto before         = keeper_.messages;
    ASSERT_TRUE(left->device.arrive(&index, sizeof(index), 1u << 16, true, 0, 0)); // QPN 0 at handle 0
    left->progress();
    EXPECT_EQ(keeper_.messages, before);
    EXPECT_EQ(left->f->counters.get(srd::counter::rx_dropped_stale), 1u);
}

TEST_F(srd_shortage, refused_messages_are_tried_again_one_first)
{
    open({});
    keeper_.keep = false;
    send(60);
    unsigned posted = 0;
    while (posted < 12 && uct_ep_am_short(ep, 1, posted, nullptr, 0) == UCS_OK) {
        ++posted;
    }
    ASSERT_GE(posted, 8u);
    std::deque<fake::receive> receives;
    receives.swap(right->device.receives); // the peer has none
    while (!left->device.sends.empty()) {
        net.carry(*left, 0);
    }
    left->progress();
    EXPECT_EQ(left->f->counters.get(srd::counter::tx_rnr), posted);
    for (unsigned i = 0; i < 5; ++i) { // each delay costs one refusal, not `posted`
        fake::clock_ns += 20'000'000;
        left->progress_timers();
        left->progress();
        ASSERT_EQ(left->device.sends.size(), 1u);
        net.carry(*left, 0);
        left->progress();
    }
    EXPECT_EQ(left->f->counters.get(srd::counter::tx_rnr), posted + 5);
    right->device.receives.swap(receives);
    settle();
    EXPECT_EQ(keeper_.messages, 60u + posted);
    EXPECT_EQ(left->f->counters.get(srd::counter::tx_rnr), posted + 5);
}

TEST_F(srd_shortage, pools_of_one_and_the_shortest_queues_carry_everything)
{
    fuzz::options one;
    one.tx_queue_len = 1;
    one.tx_max_bufs  = 1;
    one.rx_queue_len = one.rx_queue_max = one.rx_max_bufs = 1;
    open(one, one);
    keeper_.keep = false;
    send(200);
    EXPECT_EQ(keeper_.messages, 200u);
}

TEST_F(srd_shortage, receives_that_cannot_be_posted_or_registered_are_posted_later)
{
    fuzz::options few;
    few.rx_queue_len = 16;
    open({}, few);
    keeper_.keep = false;
    send(10);
    right->device.fail_post_recv = 1000; // below the low-water mark
    right->device.max_mrs        = right->device.mrs.size();
    send(8);
    EXPECT_EQ(right->f->rx.am_flags & UCT_CB_PARAM_FLAG_DESC, right->f->rx.posted > right->f->rx.low_water ? unsigned{UCT_CB_PARAM_FLAG_DESC} : 0u);
    right->device.fail_post_recv = 0;
    right->device.max_mrs        = SIZE_MAX;
    send(50);
    EXPECT_EQ(keeper_.messages, 68u);
}

TEST_F(srd_shortage, interface_without_registrations_or_queues_does_not_open)
{
    open({});
    for (std::size_t most = 0; most < 3; ++most) {
        node third(fuzz::gid_of(3), {});
        third.device.max_mrs = most;
        const ucs_status_t status = third.open(13);
        EXPECT_EQ(status, most < 2 ? UCS_ERR_NO_MEMORY : UCS_OK) << most;
    }
}

TEST_F(srd_shortage, address_handles_that_run_out_are_had_when_one_is_free)
{
    open({});
    send(1);
    left->device.max_ahs = left->device.ahs.size();
    ucs_status_t status  = UCS_OK;
    EXPECT_EQ(left->connect(fuzz::gid_of(9), 19, 1, &status), nullptr);
    EXPECT_EQ(status, UCS_ERR_NO_MEMORY);
    EXPECT_EQ(left->f->counters.get(srd::counter::ah_failed), 1u);
    left->device.max_ahs = left->device.ahs.size() + 1; // another program has let go of one
    uct_ep_h again       = left->connect(fuzz::gid_of(9), 19, 1, &status);
    ASSERT_EQ(status, UCS_OK);
    left->handle()->ops.ep_destroy(again);
    send(5); // the others are as they were
    keeper_.keep = false;
    EXPECT_EQ(keeper_.messages, 6u);
}

TEST_F(srd_shortage, closing_waits_no_longer_than_the_timeout)
{
    fuzz::options patient;
    patient.close_timeout = 0.1;
    open(patient);
    ASSERT_EQ(uct_ep_am_short(ep, 1, 1, nullptr, 0), UCS_OK); // the device never completes it
    left->handle()->ops.ep_destroy(ep);
    ep                         = nullptr;
    const std::uint64_t before = fake::clock_ns;
    left->close();
    EXPECT_GE(fake::clock_ns - before, 100'000'000u);
    EXPECT_LE(fake::clock_ns - before, 101'000'000u);
}

TEST_F(srd_shortage, closing_says_goodbye_to_the_others_while_one_answers_nothing)
{
    fuzz::options patient;
    patient.close_timeout = 0.1;
    open(patient);
    keeper_.keep = false;
    node third(fuzz::gid_of(3), fuzz::options{});
    ASSERT_EQ(third.open(13), UCS_OK);
    net.nodes.push_back(&third);
    uct_iface_set_am_handler(third.handle(), 1, on_message, &keeper_, 0);
    uct_ep_h other = left->connect(third.device.gid, third.qpn(), third.device.qkey);
    ASSERT_NE(other, nullptr);
    ASSERT_EQ(uct_ep_am_short(other, 1, 1, nullptr, 0), UCS_OK);
    for (int i = 0; i < 10; ++i) {
        settle(1);
        third.progress_timers();
        while (!third.device.sends.empty()) {
            net.carry(third, 0);
        }
    }
    ASSERT_EQ(uct_ep_am_short(ep, 1, 1, nullptr, 0), UCS_OK); // the device never completes it
    left->handle()->ops.ep_destroy(other);
    left->handle()->ops.ep_destroy(ep);
    ep                         = nullptr;
    const std::uint64_t posted = left->device.posted_sends;
    left->close();
    EXPECT_EQ(left->device.posted_sends, posted + 1);
    third.close();
}

TEST_F(srd_shortage, wrong_parameters_change_nothing) // each error return of srd_am
{
    open({});
    send(3);
    auto &ops                  = left->handle()->ops;
    const std::uint64_t before = left->device.posted_sends;
    char bytes[2000]           = {};
    uct_iov_t pieces[2]        = {{bytes, 8, nullptr, 0, 1}, {bytes, 8, nullptr, 0, 1}};
    uct_iov_t strided          = {bytes, 8, nullptr, 8, 2};
    uct_iov_t too_long         = {bytes, 1000, nullptr, 0, 1};
    const auto pack            = [](void *, void *) -> std::size_t { ADD_FAILURE(); return 0; };
    EXPECT_EQ(ops.ep_am_short(ep, UCT_AM_ID_MAX, 0, bytes, 0), UCS_ERR_INVALID_PARAM);
    EXPECT_EQ(ops.ep_am_short(ep, 1, 0, bytes, 2000), UCS_ERR_INVALID_PARAM);
    EXPECT_EQ(ops.ep_am_short_iov(ep, UCT_AM_ID_MAX, pieces, 1), UCS_ERR_INVALID_PARAM);
    EXPECT_EQ(ops.ep_am_short_iov(ep, 1, &too_long, 1), UCS_ERR_INVALID_PARAM);
    uct_iov_t sum[40];
    std::fill(std::begin(sum), std::end(sum), pieces[0]); // each is fine
    EXPECT_EQ(ops.ep_am_short_iov(ep, 1, sum, 40), UCS_ERR_INVALID_PARAM);
    EXPECT_EQ(ops.ep_am_bcopy(ep, UCT_AM_ID_MAX, pack, nullptr, 0), UCS_ERR_INVALID_PARAM);
    EXPECT_EQ(ops.ep_am_zcopy(ep, UCT_AM_ID_MAX, bytes, 0, nullptr, 0, 0, nullptr), UCS_ERR_INVALID_PARAM);
    EXPECT_EQ(ops.ep_am_zcopy(ep, 1, bytes, 0, pieces, 2, 0, nullptr), UCS_ERR_INVALID_PARAM);
    EXPECT_EQ(ops.ep_am_zcopy(ep, 1, bytes, 0, &strided, 1, 0, nullptr), UCS_ERR_INVALID_PARAM);
    EXPECT_EQ(ops.ep_am_zcopy(ep, 1, bytes, 2000, nullptr, 0, 0, nullptr), UCS_ERR_INVALID_PARAM);
    EXPECT_EQ(ops.ep_am_zcopy(ep, 1, bytes, 8, &too_long, 1, 0, nullptr), UCS_ERR_INVALID_PARAM);
    EXPECT_EQ(ops.ep_check(ep, 1, nullptr), UCS_ERR_UNSUPPORTED);
    uct_completion_t comp = {};
    EXPECT_EQ(ops.ep_check(ep, 0, &comp), UCS_ERR_UNSUPPORTED);
    EXPECT_EQ(ops.iface_flush(left->handle(), 0, &comp), UCS_ERR_UNSUPPORTED);
    EXPECT_EQ(ops.ep_put_short(ep, bytes, 8, 0, 0), UCS_ERR_UNSUPPORTED); // this device has no RDMA
    uct_ep_params_t none = {};
    uct_ep_h made        = nullptr;
    EXPECT_EQ(ops.ep_create(&none, &made), UCS_ERR_UNSUPPORTED);
    EXPECT_EQ(left->device.posted_sends, before);
    EXPECT_EQ(left->f->tx.outstanding, 0u);
    keeper_.keep = false;
    send(3);
    EXPECT_EQ(keeper_.messages, 6u);
}

TEST_F(srd_shortage, endpoints_destroyed_one_by_one_each_find_their_own_completions)
{
    open({});
    keeper_.keep = false;
    send(20);
    uct_ep_h eps[3];
    fuzz::told told[3];
    fuzz::region memory(left->device, 100);
    std::fill_n(memory.bytes.get(), 100, std::uint8_t{7});
    const uct_iov_t iov = {memory.bytes.get(), 100, &memory.mem, 0, 1};
    for (unsigned i = 0; i < 3; ++i) {
        eps[i] = left->connect(right->device.gid, right->qpn(), right->device.qkey);
        ASSERT_EQ(left->handle()->ops.ep_am_zcopy(eps[i], 1, nullptr, 0, &iov, 1, 0, &told[i]), UCS_INPROGRESS);
    }
    for (unsigned i = 3; i-- > 0;) { // the last one's first: each destroy has to look past those of the others
        net.carry(*left, i);
    }
    for (unsigned i = 0; i < 3; ++i) {
        left->handle()->ops.ep_destroy(eps[i]);
        for (unsigned k = 0; k < 3; ++k) {
            EXPECT_EQ(told[k].calls, k <= i ? 1u : 0u) << i;
        }
        EXPECT_EQ(told[i].status, UCS_OK);
    }
    EXPECT_EQ(left->f->stash_count, 0u);
    settle();
    EXPECT_EQ(keeper_.messages, 23u);
    EXPECT_EQ(left->f->tx.outstanding, 0u);
}

TEST_F(srd_shortage, request_queued_by_a_callback_of_destroy_is_not_in_the_ring_after_it)
{
    open({});
    keeper_.keep = false;
    struct queueing : fuzz::told {
        node *n;
        uct_ep_h ep;
        uct_pending_req_t request{};
        ucs_status_t answer = UCS_ERR_LAST;
    } t;
    t.n            = left.get();
    t.ep           = ep;
    t.request.func = [](uct_pending_req_t *) {
        ADD_FAILURE() << "a request of an endpoint that is gone";
        return UCS_OK;
    };
    t.then = [](fuzz::told *self) {
        auto *q   = static_cast<queueing *>(self);
        q->answer = q->n->handle()->ops.ep_pending_add(q->ep, &q->request, 0);
    };
    ASSERT_EQ(left->handle()->ops.ep_am_zcopy(ep, 1, "x", 1, nullptr, 0, 0, &t), UCS_INPROGRESS);
    ucs_status_t status = UCS_OK;
    while (status == UCS_OK) {
        status = uct_ep_am_short(ep, 1, 1, nullptr, 0); // until the first grant is used up
    }
    ASSERT_EQ(status, UCS_ERR_NO_RESOURCE);
    net.carry(*left, 0);
    const uct_ep_h gone = ep;
    ep                  = nullptr;
    left->handle()->ops.ep_destroy(gone);
    EXPECT_EQ(t.calls, 1u);
    EXPECT_EQ(t.answer, UCS_OK);
    EXPECT_EQ(left->f->pending_ring, nullptr);
    settle();
}

TEST_F(srd_shortage, what_an_endpoint_or_a_post_cannot_get_is_answered)
{
    fuzz::options one;
    one.max_peers = 1;
    open(one);
    ucs_status_t status;
    EXPECT_EQ(left->connect(fuzz::gid_of(9), 19, 1, &status), nullptr);
    EXPECT_EQ(status, UCS_ERR_NO_MEMORY); // no room for another peer
    const char foreign[16] = {};          // an address of somebody else's transport
    uct_ep_params_t p      = {};
    p.field_mask           = UCT_EP_PARAM_FIELD_IFACE | UCT_EP_PARAM_FIELD_DEV_ADDR | UCT_EP_PARAM_FIELD_IFACE_ADDR;
    p.iface                = left->handle();
    p.dev_addr             = reinterpret_cast<const uct_device_addr_t *>(foreign);
    p.iface_addr           = reinterpret_cast<const uct_iface_addr_t *>(foreign);
    uct_ep_h made          = nullptr;
    EXPECT_EQ(left->handle()->ops.ep_create(&p, &made), UCS_ERR_UNREACHABLE);
    left->device.max_mrs = left->device.mrs.size(); // no bounce buffer was made yet, and none can be
    EXPECT_EQ(uct_ep_am_short(ep, 1, 0, "0123456789012345678901234567890123456789", 40), UCS_ERR_NO_MEMORY);
    const auto pack = [](void *, void *) -> std::size_t { ADD_FAILURE(); return 0; };
    EXPECT_EQ(uct_ep_am_bcopy(ep, 1, pack, nullptr, 0), UCS_ERR_NO_MEMORY);
    EXPECT_EQ(left->handle()->ops.ep_am_zcopy(ep, 1, "x", 1, nullptr, 0, 0, nullptr), UCS_ERR_NO_MEMORY);
    EXPECT_EQ(left->f->tx.outstanding, 0u);
}
