/* Unit tests of fences (srd_rma.cc): every state of one, between operations, messages, endpoints and queued requests. */
#include "device_that_takes_notes.h"

#include <cstring>

using namespace srd;
using namespace srd::rma_test;

namespace {

TEST_F(srd_rma, without_a_fence_nothing_waits)
{
    EXPECT_EQ(put(e_), UCS_INPROGRESS);
    EXPECT_EQ(am(e_), UCS_OK);
    EXPECT_EQ(get(e_), UCS_INPROGRESS);
    EXPECT_EQ(am(e_), UCS_OK);
}

TEST_F(srd_rma, after_a_fence_everything_waits_for_a_put_and_for_a_get)
{
    for (const bool whole : {false, true}) {
        for (const bool read : {false, true}) {
            ASSERT_EQ(read ? get(e_) : put(e_), UCS_INPROGRESS);
            whole ? fence_all() : fence(e_);
            EXPECT_EQ(put(e_), UCS_ERR_NO_RESOURCE);
            EXPECT_EQ(e_.reasons, reason_fence);
            EXPECT_EQ(am(e_), UCS_ERR_NO_RESOURCE);
            EXPECT_EQ(uct_srd_ep_pending_add(&e_.super.super, &request_, 0), UCS_OK);
            uct_srd_ep_pending_purge(&e_.super.super, nullptr, nullptr);
            complete_all();
            EXPECT_EQ(uct_srd_ep_pending_add(&e_.super.super, &request_, 0), UCS_ERR_BUSY);
            EXPECT_EQ(am(e_), UCS_OK);
            complete_all();
            // A fence before a message that is acknowledged, but not consumed, is another matter: below.
            ASSERT_TRUE(p_->tx.credit(p_->tx.next(), p_->tx.next() + 16));
            EXPECT_EQ(put(e_), UCS_INPROGRESS);
            complete_all();
        }
    }
}

TEST_F(srd_rma, an_interface_fence_holds_back_the_next_message_on_its_short_path)
{
    ASSERT_EQ(am(e_), UCS_OK); // the window is open: the next one would take the short path
    ASSERT_TRUE(p_->tx.can_send());
    ASSERT_EQ(put(e_), UCS_INPROGRESS);
    EXPECT_FALSE(p_->tx.can_send()); // RMA-2
    ASSERT_EQ(am(e_), UCS_OK);
    EXPECT_FALSE(p_->tx.can_send()); // still, although one went through
    fence_all();
    EXPECT_EQ(am(e_), UCS_ERR_NO_RESOURCE);
    EXPECT_EQ(am(other_), UCS_ERR_NO_RESOURCE);
}

TEST_F(srd_rma, a_shortage_after_admission_leaves_the_window_held)
{
    ASSERT_EQ(put(e_), UCS_INPROGRESS);
    p_->tx.admit_one(); // as for a message, for which there is no bounce buffer then
    EXPECT_EQ(tx_no_buf(f_.get(), &e_), UCS_ERR_NO_MEMORY); // none was made, so none can come back
    EXPECT_FALSE(p_->tx.can_send());
}

TEST_F(srd_rma, a_put_after_a_fence_waits_until_messages_are_consumed)
{
    ASSERT_EQ(am(e_), UCS_OK);
    complete_all(); // placed is not consumed
    fence(e_);
    EXPECT_EQ(am(e_), UCS_OK); // messages are in order anyway
    complete_all();
    EXPECT_EQ(put(e_), UCS_ERR_NO_RESOURCE);
    EXPECT_EQ(e_.reasons, reason_consumed);
    ASSERT_EQ(device_.got.size(), 1u); // the question: WIRE 6.7
    EXPECT_FALSE(device_.got[0].one_sided);
    EXPECT_EQ(device_.got[0].imm & ~0xffffu, wire::imm_control | wire::imm_want_consumed |
                                                 (static_cast<std::uint32_t>(wire::control::nop) << wire::imm_id_shift));
    EXPECT_EQ(f_->tx.outstanding, 0u); // no flush waits for it
    EXPECT_EQ(put(e_), UCS_ERR_NO_RESOURCE);
    EXPECT_EQ(uct_srd_ep_pending_add(&e_.super.super, &request_, 0), UCS_OK);
    EXPECT_EQ(device_.got.size(), 1u); // asked once
    uct_srd_ep_pending_purge(&e_.super.super, nullptr, nullptr);
    ASSERT_TRUE(p_->tx.credit(base::seq32(1), base::seq32(17))); // the message before the fence
    EXPECT_EQ(uct_srd_ep_pending_add(&e_.super.super, &request_, 0), UCS_ERR_BUSY);
    EXPECT_EQ(put(e_), UCS_INPROGRESS);
}

TEST_F(srd_rma, a_later_fence_asks_again)
{
    for (int round = 0; round < 3; ++round) {
        ASSERT_EQ(am(e_), UCS_OK);
        fence_all();
        device_.got.clear();
        EXPECT_EQ(put(e_), UCS_ERR_NO_RESOURCE);
        EXPECT_EQ(device_.got.size(), 1u);
        ASSERT_TRUE(p_->tx.credit(p_->tx.next(), p_->tx.next() + 16));
        EXPECT_EQ(put(e_), UCS_INPROGRESS);
        complete(last());
    }
}

TEST_F(srd_rma, a_fence_of_very_long_ago_holds_nothing_back)
{
    for (const std::uint32_t ago : {0x7fffffffu, 0x80000000u, 0x80000005u, 0xf0000000u}) {
        ASSERT_EQ(am(e_), UCS_OK);
        ASSERT_TRUE(p_->tx.credit(p_->tx.next(), p_->tx.next() + 16)); // consumed, as all before it
        complete_all();
        ep_slow_get(&e_)->fence_psn = p_->tx.next() - ago;
        e_.fence_waits = fence_wait_consumed;
        EXPECT_TRUE(fence_consumed_over(f_.get(), &e_)) << ago;
        EXPECT_EQ(e_.fence_waits, 0);
    }
    EXPECT_TRUE(device_.got.empty()); // and asks nothing
    // A question of then does not stand for one of now.
    ASSERT_EQ(am(e_), UCS_OK);
    peer_slow *s      = f_->peers.slow_get(p_);
    s->asked          = true;
    s->consumed_asked = p_->tx.next() - 0x80000005u;
    fence(e_);
    device_.got.clear();
    EXPECT_FALSE(fence_consumed_over(f_.get(), &e_));
    EXPECT_FALSE(fence_consumed_over(f_.get(), &e_));
    EXPECT_EQ(device_.got.size(), 1u);
}

TEST_F(srd_rma, the_question_waits_for_a_place_in_the_window)
{
    ASSERT_EQ(am(e_), UCS_OK);
    fence(e_);
    p_->waiting_count = 1; // the receiver is not ready
    EXPECT_EQ(put(e_), UCS_ERR_NO_RESOURCE);
    const auto before = device_.got.size();
    p_->waiting_count = 0;
    EXPECT_FALSE(fence_consumed_over(f_.get(), &e_));
    EXPECT_EQ(device_.got.size(), before + 1);
}

TEST_F(srd_rma, endpoints_that_go_on_cannot_starve_one_that_waits)
{
    ASSERT_EQ(put(e_), UCS_INPROGRESS);
    op *before = last();
    fence(e_);
    EXPECT_EQ(put(e_), UCS_ERR_NO_RESOURCE);
    ASSERT_EQ(put(other_), UCS_INPROGRESS); // not fenced
    complete(before);
    EXPECT_EQ(outstanding(), 1u);
    EXPECT_EQ(put(e_), UCS_INPROGRESS); // what came later is not waited for
}

TEST_F(srd_rma, two_fences_that_overlap_wait_for_their_own)
{
    ASSERT_EQ(put(e_), UCS_INPROGRESS);
    op *first = last();
    fence(e_);
    EXPECT_EQ(put(e_), UCS_ERR_NO_RESOURCE); // closes the first group
    ASSERT_EQ(put(other_), UCS_INPROGRESS);
    op *second = last();
    fence(other_);
    EXPECT_EQ(put(other_), UCS_ERR_NO_RESOURCE);
    complete(second);
    EXPECT_EQ(put(other_), UCS_ERR_NO_RESOURCE); // an older group is older for everybody
    EXPECT_EQ(put(e_), UCS_ERR_NO_RESOURCE);
    complete(first);
    EXPECT_EQ(put(other_), UCS_INPROGRESS);
    EXPECT_EQ(put(e_), UCS_INPROGRESS);
}

TEST_F(srd_rma, fences_between_queued_requests_hold_when_they_are_dispatched)
{
    struct queued : uct_pending_req_t {
        srd_rma *test;
        bool read;
        int done = 0;
    } requests[4]{};
    p_->state = peer_state::fresh; // everything has to wait: get, fence, put, get, fence, put
    for (int i = 0; i < 4; ++i) {
        queued &r = requests[i];
        r.test    = this;
        r.read    = i % 2 == 0;
        r.func    = [](uct_pending_req_t *self) {
            auto *q                   = static_cast<queued *>(self);
            const ucs_status_t status = q->read ? q->test->get(q->test->e_) : q->test->put(q->test->e_);
            q->done += status == UCS_INPROGRESS;
            return status == UCS_INPROGRESS ? UCS_OK : status;
        };
        EXPECT_EQ(r.read ? get(e_) : put(e_), UCS_ERR_NO_RESOURCE);
        ASSERT_EQ(uct_srd_ep_pending_add(&e_.super.super, &r, 0), UCS_OK);
        if (r.read) {
            i == 0 ? fence_all() : fence(e_);
        }
    }
    answer_hello();
    pending_dispatch(f_.get());
    EXPECT_EQ(device_.got.size(), 1u); // the first get
    complete_all();
    pending_dispatch(f_.get());
    EXPECT_EQ(device_.got.size(), 2u); // the first put and the second get: no fence between them
    op *put_of_two = device_.got[0].record;
    complete(device_.got[1].record);
    pending_dispatch(f_.get());
    EXPECT_EQ(requests[3].done, 0); // after the second fence, which follows both
    complete(put_of_two);
    pending_dispatch(f_.get());
    EXPECT_EQ(requests[3].done, 1);
    EXPECT_EQ(f_->attention & attend_pending, 0);
}

TEST_F(srd_rma, a_fence_inside_a_queued_request_holds_what_the_request_posts_after_it)
{
    struct queued : uct_pending_req_t {
        srd_rma *test;
        ucs_status_t second = UCS_OK;
    } request{};
    p_->state    = peer_state::fresh;
    request.test = this;
    request.func = [](uct_pending_req_t *self) {
        auto *q = static_cast<queued *>(self);
        EXPECT_EQ(q->test->put(q->test->e_), UCS_INPROGRESS);
        q->test->fence(q->test->e_);
        q->second = q->test->am(q->test->e_);
        return UCS_OK;
    };
    EXPECT_EQ(put(e_), UCS_ERR_NO_RESOURCE);
    ASSERT_EQ(uct_srd_ep_pending_add(&e_.super.super, &request, 0), UCS_OK);
    answer_hello();
    pending_dispatch(f_.get());
    EXPECT_EQ(request.second, UCS_ERR_NO_RESOURCE);
    complete_all();
    EXPECT_EQ(am(e_), UCS_OK);
}

TEST_F(srd_rma, a_fence_of_the_interface_inside_a_queued_request_holds_too)
{
    struct queued : uct_pending_req_t {
        srd_rma *test;
        bool fences;
        ucs_status_t first = UCS_OK, second = UCS_OK;
    } requests[2]{};
    p_->state = peer_state::fresh;
    for (queued &r : requests) {
        r.test   = this;
        r.fences = &r == &requests[0];
        r.func   = [](uct_pending_req_t *self) {
            auto *q  = static_cast<queued *>(self);
            q->first = q->test->put(q->test->e_);
            if (q->fences) {
                q->test->fence_all();
                q->second = q->test->put(q->test->e_);
            }
            return q->first == UCS_INPROGRESS ? UCS_OK : q->first;
        };
        EXPECT_EQ(put(e_), UCS_ERR_NO_RESOURCE);
        ASSERT_EQ(uct_srd_ep_pending_add(&e_.super.super, &r, 0), UCS_OK);
    }
    fence_all(); // after both were queued
    answer_hello();
    pending_dispatch(f_.get());
    EXPECT_EQ(requests[0].first, UCS_INPROGRESS);
    EXPECT_EQ(requests[0].second, UCS_ERR_NO_RESOURCE);
    complete_all();
    pending_dispatch(f_.get()); // the older request behind it is not stuck
    EXPECT_EQ(requests[1].first, UCS_INPROGRESS);
    complete_all();
    EXPECT_EQ(put(e_), UCS_INPROGRESS);
}

TEST_F(srd_rma, a_fence_with_nothing_outstanding_costs_nothing)
{
    for (int i = 0; i < 600; ++i) { // past the wrap of the group's number
        fence_all();
        ASSERT_EQ(put(e_), UCS_INPROGRESS);
        fence_all();
        ASSERT_EQ(put(e_), UCS_ERR_NO_RESOURCE);
        complete_all();
    }
    EXPECT_EQ(f_->counters.get(counter::tx_control), 0u);
}

} // namespace
