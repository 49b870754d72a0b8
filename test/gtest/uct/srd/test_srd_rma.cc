/* Unit tests of one-sided operations (srd_rma.cc): every answer of a post, and the end of a record by completion, error, cancel and
 * failure. Fences: test_srd_fence.cc.
 */
#include "device_that_takes_notes.h"
#include "memory_that_runs_out.h"

#include <cerrno>
#include <cstring>

using namespace srd;
using namespace srd::rma_test;

namespace {

// --- parameters ------------------------------------------------------------------------------------------------------------

TEST_F(srd_rma, operations_of_no_bytes_are_done)
{
    iov_.length = 0;
    EXPECT_EQ(put_short(e_, 0), UCS_OK);
    EXPECT_EQ(put(e_), UCS_OK);
    EXPECT_EQ(get(e_), UCS_OK);
    EXPECT_EQ(uct_srd_ep_put_zcopy(&e_.super.super, nullptr, 0, 0x1000, 5, nullptr), UCS_OK);
    EXPECT_EQ(uct_srd_ep_get_bcopy(&e_.super.super, nullptr, nullptr, 0, 0x1000, 5, nullptr), UCS_OK);
    EXPECT_EQ(uct_srd_ep_put_bcopy(&e_.super.super, [](void *, void *) -> size_t { return 0; }, nullptr, 0x1000, 5), 0);
    EXPECT_TRUE(device_.got.empty());
    EXPECT_EQ(f_->tx.outstanding, 0u);
}

TEST_F(srd_rma, operations_that_are_too_long_are_refused)
{
    EXPECT_EQ(put_short(e_, 65), UCS_ERR_INVALID_PARAM);
    EXPECT_EQ(uct_srd_ep_get_bcopy(&e_.super.super, nullptr, nullptr, f_->rma.bcopy_max + 1, 0x1000, 5, nullptr),
              UCS_ERR_INVALID_PARAM);
    iov_.length = (1u << 20) + 1;
    EXPECT_EQ(put(e_), UCS_ERR_INVALID_PARAM);
    EXPECT_EQ(get(e_), UCS_ERR_INVALID_PARAM);
    EXPECT_TRUE(device_.got.empty());
}

TEST_F(srd_rma, more_than_one_piece_is_refused)
{
    uct_iov_t two[2] = {iov_, iov_};
    EXPECT_EQ(uct_srd_ep_put_zcopy(&e_.super.super, two, 2, 0x1000, 5, nullptr), UCS_ERR_INVALID_PARAM);
    iov_.count = 2;
    EXPECT_EQ(get(e_), UCS_ERR_INVALID_PARAM);
}

// --- posting and completion ------------------------------------------------------------------------------------------------

TEST_F(srd_rma, put_short_writes_a_copy)
{
    memory_[0] = 42;
    ASSERT_EQ(put_short(e_), UCS_OK);
    memory_[0] = 0;
    ASSERT_EQ(device_.got.size(), 1u);
    const request &r = device_.got[0];
    EXPECT_TRUE(r.one_sided && !r.read);
    EXPECT_EQ(r.rkey, 5u);
    EXPECT_EQ(r.remote, 0x1000u);
    EXPECT_EQ(r.size, 8u);
    EXPECT_EQ(*reinterpret_cast<unsigned char *>(r.local), 42);
    EXPECT_EQ(uct_srd_iface_flush(&f_->super.super, 0, nullptr), UCS_INPROGRESS);
    complete_all();
    EXPECT_EQ(uct_srd_iface_flush(&f_->super.super, 0, nullptr), UCS_OK);
    EXPECT_EQ(outstanding(), 0u);
    EXPECT_TRUE(p_->tx.empty());
}

TEST_F(srd_rma, put_short_is_an_inline_write_where_the_queue_pair_takes_one)
{
    use_wide_requests();
    const tx_buf *first = f_->tx.bufs;
    for (unsigned i = 0; i < sizeof(memory_); ++i) {
        memory_[i] = static_cast<unsigned char>(i + 1);
    }
    ASSERT_EQ(put_short(e_, 64), UCS_OK);
    ASSERT_EQ(device_.got.size(), 1u);
    const request &r = device_.got[0];
    EXPECT_TRUE(r.one_sided && !r.read);
    EXPECT_EQ(r.inlined, std::vector<unsigned char>(memory_, memory_ + 64));
    EXPECT_EQ(r.rkey, 5u);
    EXPECT_EQ(r.remote, 0x1000u);
    EXPECT_EQ(r.local, 0u);
    EXPECT_EQ(f_->tx.bufs, first); // no bounce buffer
    EXPECT_EQ(outstanding(), 1u);
    complete_all();
    EXPECT_EQ(outstanding(), 0u);
    EXPECT_EQ(uct_srd_iface_flush(&f_->super.super, 0, nullptr), UCS_OK);
    EXPECT_TRUE(p_->tx.empty());
    EXPECT_EQ(f_->tx.bufs, first);
}

TEST_F(srd_rma, an_inline_write_is_posted_again_from_its_record)
{
    use_wide_requests();
    device_.answer = ENOMEM;
    memory_[0]     = 42;
    ASSERT_EQ(put_short(e_, 40), UCS_OK);
    memory_[0]     = 0; // the caller's again
    device_.answer = 0;
    ASSERT_TRUE(tx_repost(f_.get(), p_));
    ASSERT_EQ(device_.got.size(), 1u);
    EXPECT_EQ(device_.got[0].inlined.size(), 40u);
    EXPECT_EQ(device_.got[0].inlined[0], 42);
    complete(last(), 14); // the target does not know us: once more
    device_.got.clear();
    ASSERT_TRUE(tx_repost(f_.get(), p_));
    ASSERT_EQ(device_.got.size(), 1u);
    EXPECT_EQ(device_.got[0].inlined[0], 42);
    EXPECT_EQ(device_.got[0].remote, 0x1000u);
    complete_all();
    EXPECT_EQ(outstanding(), 0u);
}

TEST_F(srd_rma, inline_writes_end_with_their_peer)
{
    use_wide_requests();
    ASSERT_EQ(put_short(e_), UCS_OK); // the device has it
    device_.answer = ENOMEM;
    ASSERT_EQ(put_short(e_), UCS_OK); // this one waits
    op *held        = last();
    tx_buf *first   = f_->tx.bufs;
    peer_fail(f_.get(), p_, UCS_ERR_CONNECTION_RESET, "gone", "a test", 9);
    EXPECT_EQ(outstanding(), 1u);
    complete(held, 9);
    EXPECT_EQ(outstanding(), 0u);
    EXPECT_TRUE(p_->tx.empty());
    EXPECT_EQ(f_->tx.outstanding, 0u);
    EXPECT_EQ(f_->tx.bufs, first);
}

TEST_F(srd_rma, a_refused_post_that_finds_no_memory_says_so)
{
    srd::test::memory_that_runs_out none;
    while (f_->ep_slows.take() != nullptr) { // what the slab has left; it goes back with the slab
    }
    ep alone; // of no peer's list, so without a slow part
    alone.super.super.iface = &f_->super.super;
    alone.owner             = p_;
    f_->tx.sq_free          = 0;
    EXPECT_EQ(put(alone), UCS_ERR_NO_MEMORY);
    EXPECT_EQ(alone.reasons, 0);
    EXPECT_EQ(am(alone), UCS_ERR_NO_MEMORY);
    alone.reasons = reason_queue;
    EXPECT_EQ(uct_srd_ep_pending_add(&alone.super.super, &request_, 0), UCS_ERR_NO_MEMORY);
    EXPECT_EQ(alone.gate, 0);
    EXPECT_EQ(uct_srd_ep_fence(&alone.super.super, 0), UCS_ERR_NO_MEMORY);
    EXPECT_EQ(alone.fence_waits, 0);
    EXPECT_FALSE(peer_attach(p_, &alone));
    EXPECT_NE(p_->eps, &alone);
}

TEST_F(srd_rma, get_bcopy_unpacks_before_it_completes)
{
    struct unpacked : told {
        int unpacks = 0;
        unsigned char first = 0;
    } t;
    t.func = [](uct_completion_t *self) {
        auto *u = static_cast<unpacked *>(self);
        EXPECT_EQ(u->unpacks, 1);
        ++u->calls;
    };
    const auto unpack = [](void *arg, const void *data, size_t size) {
        auto *u = static_cast<unpacked *>(arg);
        EXPECT_EQ(size, 100u);
        u->first = *static_cast<const unsigned char *>(data);
        ++u->unpacks;
    };
    ASSERT_EQ(uct_srd_ep_get_bcopy(&e_.super.super, unpack, &t, 100, 0x2000, 6, &t), UCS_INPROGRESS);
    ASSERT_EQ(device_.got.size(), 1u);
    EXPECT_TRUE(device_.got[0].read);
    *reinterpret_cast<unsigned char *>(device_.got[0].local) = 9; // the device reads into the bounce buffer
    complete_all();
    EXPECT_EQ(t.calls, 1);
    EXPECT_EQ(t.first, 9);
}

TEST_F(srd_rma, zero_copy_names_the_memory_of_the_user)
{
    told t;
    ASSERT_EQ(get(e_, &t), UCS_INPROGRESS);
    EXPECT_EQ(device_.got[0].local, reinterpret_cast<std::uintptr_t>(memory_));
    EXPECT_EQ(device_.got[0].lkey, 77u);
    EXPECT_EQ(device_.got[0].size, sizeof(memory_));
    complete_all();
    EXPECT_EQ(t.calls, 1);
    EXPECT_EQ(t.status, UCS_OK);
}

TEST_F(srd_rma, a_request_the_device_does_not_take_is_posted_again)
{
    told t;
    device_.answer = ENOMEM;
    ASSERT_EQ(put(e_, &t), UCS_INPROGRESS);
    EXPECT_EQ(p_->waiting_count, 1u);
    EXPECT_EQ(f_->tx.sq_free, 16u);
    EXPECT_FALSE(tx_repost(f_.get(), p_)); // still not
    device_.answer = 0;
    EXPECT_TRUE(tx_repost(f_.get(), p_));
    EXPECT_EQ(p_->waiting_count, 0u);
    ASSERT_EQ(device_.got.size(), 1u);
    EXPECT_EQ(device_.got[0].rkey, 5u);
    EXPECT_EQ(f_->tx.sq_free, 15u);
    complete_all();
    EXPECT_EQ(t.calls, 1);
}

// --- shortages -------------------------------------------------------------------------------------------------------------

TEST_F(srd_rma, the_first_operation_says_hello_and_waits_for_the_answer)
{
    p_->state = peer_state::fresh;
    EXPECT_EQ(put_short(e_), UCS_ERR_NO_RESOURCE);
    EXPECT_EQ(e_.reasons, reason_hello);
    EXPECT_TRUE(p_->want & want_hello);
    EXPECT_NE(p_->slow->hello_due, 0u);
    EXPECT_EQ(uct_srd_ep_pending_add(&e_.super.super, &request_, 0), UCS_OK); // nothing to try yet
    uct_srd_ep_pending_purge(&e_.super.super, nullptr, nullptr);
    answer_hello();
    EXPECT_EQ(uct_srd_ep_pending_add(&e_.super.super, &request_, 0), UCS_ERR_BUSY);
    EXPECT_EQ(put_short(e_), UCS_OK);
}

TEST_F(srd_rma, an_endpoint_says_hello_where_one_sided_operations_are_expected)
{
    p_->state        = peer_state::fresh;
    f_->rma.expected = false;
    rma_attached(f_.get(), p_);
    EXPECT_FALSE(p_->want & want_hello);
    f_->rma.expected = true;
    f_->rma.put = f_->rma.get = false;
    rma_attached(f_.get(), p_);
    EXPECT_FALSE(p_->want & want_hello) << "the device could not use the answer";
    f_->rma.get = true;
    rma_attached(f_.get(), p_);
    EXPECT_TRUE(p_->want & want_hello);
    EXPECT_NE(p_->slow->hello_due, 0u);

    uct_iface_params_t params{};
    params.field_mask = UCT_IFACE_PARAM_FIELD_FEATURES;
    params.features   = UCT_IFACE_FEATURE_AM;
    EXPECT_FALSE(iface(&md_, config_of_a_test(), params, 1).rma.expected);
    params.features |= UCT_IFACE_FEATURE_GET;
    EXPECT_TRUE(iface(&md_, config_of_a_test(), params, 1).rma.expected);
}

TEST_F(srd_rma, a_hello_that_finds_no_memory_is_tried_again)
{
    ah_entry handle{};
    p_->ah_ref = &handle; // known, and idle: its slow part was given back
    p_->state  = peer_state::fresh;
    f_->peers.slow_put_idle(p_);
    ASSERT_EQ(p_->slow, &peer_slow_idle);
    std::vector<peer> taken(2 * limits::slows_per_chunk);
    {
        srd::test::memory_that_runs_out none;
        for (peer &one : taken) { // what the pool has left
            (void)f_->peers.slow_get(&one);
        }
        ASSERT_EQ(f_->peers.slow_get(p_), nullptr);
        EXPECT_EQ(put(e_), UCS_ERR_NO_RESOURCE);
        EXPECT_TRUE(p_->retime);
        EXPECT_TRUE(p_->want & want_hello);
        EXPECT_TRUE(p_->in_work);
        EXPECT_EQ(p_->slow->timer_due, 0u);
    }
    control_run(f_.get()); // there is memory again
    EXPECT_FALSE(p_->retime);
    EXPECT_NE(p_->slow->hello_due, 0u);
    EXPECT_NE(p_->slow->timer_due, 0u);
    p_->ah_ref = nullptr;
}

TEST_F(srd_rma, one_peer_has_half_of_the_send_queue)
{
    for (int i = 0; i < 8; ++i) {
        ASSERT_EQ(put(e_), UCS_INPROGRESS) << i;
    }
    EXPECT_EQ(put(other_), UCS_ERR_NO_RESOURCE); // RMA-4: of the peer, not of the endpoint
    EXPECT_EQ(other_.reasons, reason_share);
    EXPECT_EQ(f_->tx.sq_free, 8u);
    complete(device_.got[3].record);
    EXPECT_EQ(uct_srd_ep_pending_add(&other_.super.super, &request_, 0), UCS_ERR_BUSY);
    EXPECT_EQ(put(other_), UCS_INPROGRESS);
}

TEST_F(srd_rma, a_full_send_queue_is_a_shortage)
{
    f_->tx.sq_free = 0;
    EXPECT_EQ(get(e_), UCS_ERR_NO_RESOURCE);
    EXPECT_EQ(e_.reasons, reason_queue);
    f_->tx.sq_free = 16;
    EXPECT_EQ(uct_srd_ep_pending_add(&e_.super.super, &request_, 0), UCS_ERR_BUSY);
}

TEST_F(srd_rma, what_is_queued_goes_first_and_a_failed_endpoint_says_so)
{
    e_.gate = gate_pending;
    EXPECT_EQ(put_short(e_), UCS_ERR_NO_RESOURCE);
    e_.gate = 0;
    ASSERT_EQ(uct_srd_ep_invalidate(&e_.super.super, 0), UCS_OK);
    EXPECT_EQ(put_short(e_), UCS_ERR_ENDPOINT_TIMEOUT);
    EXPECT_EQ(get(e_), UCS_ERR_ENDPOINT_TIMEOUT);
}

// --- a long operation and messages behind it -------------------------------------------------------------------------------

TEST_F(srd_rma, messages_flow_while_a_long_put_is_outstanding)
{
    ASSERT_EQ(put(e_), UCS_INPROGRESS);
    op *long_one = last();
    device_.got.clear();
    for (int i = 0; i < 200; ++i) {
        ASSERT_EQ(am(e_), UCS_OK) << i;
        ASSERT_TRUE(p_->tx.credit(p_->tx.next(), p_->tx.next() + 16));
        complete_all();
    }
    EXPECT_LE(f_->ops.total() - f_->ops.count_free(), 1u + f_->window); // their records do not pile up
    complete(long_one);
    EXPECT_TRUE(p_->tx.empty());
    EXPECT_EQ(f_->ops.count_free(), f_->ops.total());
}

// --- errors ----------------------------------------------------------------------------------------------------------------

TEST_F(srd_rma, a_wrong_key_fails_an_operation_with_a_completion_alone)
{
    told t;
    ASSERT_EQ(put(e_, &t), UCS_INPROGRESS);
    complete(last(), 7);
    EXPECT_EQ(t.calls, 1);
    EXPECT_EQ(t.status, UCS_ERR_IO_ERROR);
    EXPECT_EQ(p_->state, peer_state::open);
    EXPECT_EQ(p_->waiting_count, 0u);
    EXPECT_TRUE(p_->tx.empty());
    EXPECT_EQ(f_->tx.outstanding, 0u);
}

TEST_F(srd_rma, a_wrong_key_that_nobody_would_hear_of_fails_the_peer)
{
    ASSERT_EQ(put_short(e_), UCS_OK);
    complete(last(), 7);
    EXPECT_EQ(p_->state, peer_state::failed);
    EXPECT_EQ(outstanding(), 0u);
    EXPECT_TRUE(p_->tx.empty());
}

TEST_F(srd_rma, a_read_that_failed_is_not_unpacked)
{
    told t;
    ASSERT_EQ(uct_srd_ep_get_bcopy(&e_.super.super, [](void *, const void *, size_t) { ADD_FAILURE(); }, nullptr, 8, 0x2000, 6, &t),
              UCS_INPROGRESS);
    complete(last(), 5);
    EXPECT_EQ(t.calls, 1);
    EXPECT_NE(f_->tx.bufs, nullptr);
    EXPECT_EQ(p_->state, peer_state::open);
}

TEST_F(srd_rma, a_target_that_forgot_us_is_told_again_and_the_operation_repeated)
{
    told t;
    ASSERT_EQ(put(e_, &t), UCS_INPROGRESS);
    op *o                    = last();
    const std::uint16_t said = p_->slow->nonce;
    complete(o, 14);
    EXPECT_EQ(t.calls, 0);
    EXPECT_TRUE(o->waiting);
    EXPECT_TRUE(p_->want & want_hello);
    EXPECT_EQ(p_->slow->nonce, said + 1); // a new question
    EXPECT_NE(p_->slow->timer_due, 0u);
    EXPECT_EQ(am(e_), UCS_ERR_NO_RESOURCE);
    ASSERT_TRUE(tx_repost(f_.get(), p_));
    EXPECT_EQ(device_.got.size(), 2u);
    complete(o);
    EXPECT_EQ(t.calls, 1);
    EXPECT_EQ(t.status, UCS_OK);
    EXPECT_EQ(outstanding(), 0u);
}

TEST_F(srd_rma, a_cancelled_operation_of_a_target_that_forgot_us_fails_nothing_else)
{
    told t, flushed;
    ASSERT_EQ(put(e_, &t), UCS_INPROGRESS);
    ASSERT_EQ(uct_srd_ep_flush(&e_.super.super, UCT_FLUSH_FLAG_CANCEL, &flushed), UCS_INPROGRESS);
    complete(last(), 14);
    EXPECT_EQ(t.calls, 1);
    EXPECT_EQ(t.status, UCS_ERR_CANCELED);
    EXPECT_EQ(flushed.calls, 1);
    EXPECT_EQ(p_->state, peer_state::open);
    EXPECT_EQ(outstanding(), 0u);
    EXPECT_EQ(put(other_), UCS_INPROGRESS);
}

TEST_F(srd_rma, a_target_that_never_knows_us_is_given_up)
{
    ASSERT_EQ(put(e_), UCS_INPROGRESS);
    op *o    = last();
    int told = 0;
    while (p_->state == peer_state::open && told < 1000) {
        complete(o, 14);
        ++told;
        if (p_->state == peer_state::open) {
            ASSERT_TRUE(tx_repost(f_.get(), p_));
        }
    }
    EXPECT_EQ(p_->state, peer_state::failed);
    EXPECT_EQ(told, 401);
    EXPECT_EQ(p_->status(), UCS_ERR_ENDPOINT_TIMEOUT);
}

TEST_F(srd_rma, a_dead_peer_ends_what_waits_and_what_the_device_holds)
{
    told waits, held;
    ASSERT_EQ(get(e_, &held), UCS_INPROGRESS);
    op *in_device  = last();
    device_.answer = ENOMEM;
    ASSERT_EQ(put(e_, &waits), UCS_INPROGRESS);
    ASSERT_EQ(uct_srd_ep_invalidate(&e_.super.super, 0), UCS_OK);
    EXPECT_EQ(waits.calls, 1);
    EXPECT_EQ(waits.status, UCS_ERR_ENDPOINT_TIMEOUT);
    EXPECT_EQ(held.calls, 0); // its memory is the device's
    complete(in_device, 13);
    EXPECT_EQ(held.calls, 1);
    EXPECT_EQ(held.status, UCS_ERR_ENDPOINT_TIMEOUT);
    EXPECT_TRUE(p_->tx.empty());
    EXPECT_EQ(f_->tx.outstanding, 0u);
    EXPECT_EQ(p_->slow->rma_outstanding(), 0u);
}

// --- flush, cancel ---------------------------------------------------------------------------------------------------------

TEST_F(srd_rma, flush_waits_for_operations_before_it)
{
    told t;
    ASSERT_EQ(put(e_), UCS_INPROGRESS);
    op *before = last();
    ASSERT_EQ(uct_srd_ep_flush(&e_.super.super, 0, &t), UCS_INPROGRESS);
    ASSERT_EQ(put(e_), UCS_INPROGRESS);
    complete(last()); // completions come in any order
    EXPECT_EQ(t.calls, 0);
    complete(before);
    EXPECT_EQ(t.calls, 1);
    EXPECT_EQ(uct_srd_ep_flush(&e_.super.super, 0, nullptr), UCS_OK);
}

TEST_F(srd_rma, a_cancel_from_the_callback_of_a_cancel_waits_for_what_it_cancels)
{
    struct again : uct_completion_t {
        srd_rma *test;
        told *held;
        uct_completion_t *flushed;
        int calls = 0;
    } first{};
    told held, later, second, flushed;
    first.count   = 1;
    first.test    = this;
    first.held    = &later;
    first.flushed = &flushed;
    first.func    = [](uct_completion_t *base) {
        auto *self = static_cast<again *>(base);
        ++self->calls;
        ASSERT_EQ(self->test->get(self->test->e_, self->held), UCS_INPROGRESS);
        ASSERT_EQ(uct_srd_ep_flush(&self->test->e_.super.super, UCT_FLUSH_FLAG_CANCEL, self->flushed), UCS_INPROGRESS);
    };

    ASSERT_EQ(get(e_, &held), UCS_INPROGRESS);
    op *in_device = last();
    ASSERT_EQ(uct_srd_ep_flush(&e_.super.super, UCT_FLUSH_FLAG_CANCEL, &first), UCS_INPROGRESS);
    ASSERT_EQ(uct_srd_ep_flush(&e_.super.super, UCT_FLUSH_FLAG_CANCEL, &second), UCS_INPROGRESS);
    complete(in_device);
    EXPECT_EQ(first.calls, 1);
    EXPECT_EQ(second.calls, 1);
    EXPECT_EQ(flushed.calls, 0); // the device holds what it cancels
    complete(last());
    EXPECT_EQ(later.calls, 1);
    EXPECT_EQ(flushed.calls, 1);
}

TEST_F(srd_rma, cancel_ends_what_waits_at_once_and_waits_for_the_device)
{
    told waits, held, flushed;
    ASSERT_EQ(get(e_, &held), UCS_INPROGRESS);
    op *in_device  = last();
    device_.answer = ENOMEM;
    ASSERT_EQ(put(e_, &waits), UCS_INPROGRESS);
    device_.answer = 0;
    ASSERT_EQ(uct_srd_ep_flush(&e_.super.super, UCT_FLUSH_FLAG_CANCEL, &flushed), UCS_INPROGRESS);
    EXPECT_EQ(waits.calls, 1);
    EXPECT_EQ(waits.status, UCS_ERR_CANCELED);
    EXPECT_EQ(p_->waiting_count, 0u);
    EXPECT_EQ(flushed.calls, 0);
    complete(in_device, 7);
    EXPECT_EQ(held.calls, 1);
    EXPECT_EQ(held.status, UCS_ERR_CANCELED);
    EXPECT_EQ(flushed.calls, 1);
    EXPECT_EQ(p_->state, peer_state::open); // a cancelled operation can tell of its error
    EXPECT_TRUE(tx_repost(f_.get(), p_));
    EXPECT_TRUE(p_->tx.empty()); // the withdrawn record left
    EXPECT_EQ(f_->ops.count_free(), f_->ops.total());
}

TEST_F(srd_rma, cancel_ends_although_the_callback_of_a_flush_flushes_again)
{
    struct again : uct_completion_t {
        uct_ep_h ep = nullptr;
        int calls   = 0;
    } t{};
    ASSERT_EQ(put(e_), UCS_INPROGRESS);
    op *before = last();
    t.ep       = &e_.super.super;
    t.count    = 1;
    t.func     = [](uct_completion_t *self) {
        auto *a = static_cast<again *>(self);
        if (++a->calls < 1000) {
            a->count  = 1;
            a->status = UCS_OK;
            EXPECT_EQ(uct_srd_ep_flush(a->ep, 0, self), UCS_INPROGRESS);
        }
    };
    ASSERT_EQ(uct_srd_ep_flush(&e_.super.super, 0, &t), UCS_INPROGRESS);
    EXPECT_EQ(uct_srd_ep_flush(&e_.super.super, UCT_FLUSH_FLAG_CANCEL, nullptr), UCS_INPROGRESS);
    EXPECT_EQ(t.calls, 1); // the one that was asked to end
    t.calls = 1000;
    complete(before);
    EXPECT_EQ(t.calls, 1001);
}

TEST_F(srd_rma, two_flushes_whose_callbacks_flush_again_end)
{
    struct again : uct_completion_t {
        uct_ep_h ep         = nullptr;
        int calls           = 0;
        ucs_status_t answer = UCS_INPROGRESS;
    } t[2]{};
    ASSERT_EQ(put(e_), UCS_INPROGRESS);
    for (again &a : t) {
        a.ep    = &e_.super.super;
        a.count = 1;
        a.func  = [](uct_completion_t *self) {
            auto *me = static_cast<again *>(self);
            if (++me->calls < 100) {
                me->count  = 1;
                me->answer = uct_srd_ep_flush(me->ep, 0, self);
            }
        };
        ASSERT_EQ(uct_srd_ep_flush(a.ep, 0, &a), UCS_INPROGRESS);
    }
    complete(last());
    for (const again &a : t) {
        EXPECT_EQ(a.calls, 1);
        EXPECT_EQ(a.answer, UCS_OK);
    }
    EXPECT_TRUE(p_->tx.empty());
}

} // namespace
