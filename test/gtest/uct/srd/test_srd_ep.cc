/* Unit tests of endpoints (srd_ep.cc) whose callbacks do what they like: a completion that is called while a cancel, a failure or
 * a completion is at work on the peer's records fails the peer, or destroys this endpoint or another one. Failing as a policy:
 * test_srd_failure.cc. In an address sanitizer's build a record that was given back may not be touched (srd_op.h).
 */
#include "device_that_takes_notes.h"

#include <cerrno>
#include <functional>
#include <uct/api/uct.h>

using namespace srd;
using namespace srd::rma_test;

namespace {

/// A completion that does something the first time.
struct doing : told {
    std::function<void()> what;
    doing()
    {
        func = [](uct_completion_t *self) {
            auto *d = static_cast<doing *>(self);
            if (++d->calls == 1 && d->what) {
                d->what();
            }
        };
    }
};

class srd_ep : public srd_rma {
public:
    srd_ep()
    {
        p_->ah = reinterpret_cast<ibv_ah *>(this); // never followed
        // What UCX takes an endpoint apart with.
        EXPECT_EQ(ucs_async_context_create(UCS_ASYNC_MODE_POLL, &async_), UCS_OK);
        EXPECT_EQ(uct_worker_create(async_, UCS_THREAD_MODE_SINGLE, &worker_), UCS_OK);
        f_->super.worker      = reinterpret_cast<decltype(f_->super.worker)>(worker_);
        f_->super.err_handler = [](void *, uct_ep_h, ucs_status_t) { return UCS_OK; };
    }
    ~srd_ep() override
    {
        uct_worker_destroy(worker_);
        ucs_async_context_destroy(async_);
    }

    /// An endpoint as ep_create makes it, which ep_destroy gives back.
    ep *make()
    {
        ep *e                = f_->eps.take();
        e->super.super.iface = &f_->super.super;
        EXPECT_TRUE(peer_attach(p_, e));
        ++f_->ep_count;
        return e;
    }

    void destroy(ep *e)
    {
        uct_srd_ep_destroy(&e->super.super);
    }

    void invalidate(ep &e) { EXPECT_EQ(uct_srd_ep_invalidate(&e.super.super, 0), UCS_OK); }
    ucs_status_t cancel(ep &e, uct_completion_t *comp = nullptr)
    {
        return uct_srd_ep_flush(&e.super.super, UCT_FLUSH_FLAG_CANCEL, comp);
    }
    ucs_status_t flush(ep &e, uct_completion_t *comp) { return uct_srd_ep_flush(&e.super.super, 0, comp); }
    ucs_status_t send(ep &e, uct_completion_t *comp)
    {
        return uct_srd_ep_am_zcopy(&e.super.super, 3, memory_, 8, nullptr, 0, 0, comp);
    }

    /// The device takes nothing: what is posted meanwhile waits to be posted again, which cancel and failure end at once.
    template <class Posts> void while_nothing_is_taken(Posts posts)
    {
        device_.answer = ENOMEM;
        posts();
        device_.answer = 0;
    }

    /// What was put off until nobody is at work on the records any more.
    void progress()
    {
        f_->polling = false;
        control_run(f_.get());
    }

    /// A completion as the loop over completions calls it.
    void polled(op *o, std::uint32_t device_status = 0)
    {
        f_->polling = true;
        device_status == 0 ? complete(o) : complete(o, device_status);
        f_->polling = false;
    }

    void expect_nothing_is_left()
    {
        progress();
        EXPECT_TRUE(p_->tx.empty());
        EXPECT_EQ(f_->ops.count_free(), f_->ops.total());
        EXPECT_EQ(f_->tx.outstanding, 0u);
        EXPECT_EQ(p_->waiting_count, 0u);
    }

private:
    ucs_async_context_t *async_ = nullptr;
    uct_worker_h worker_        = nullptr;
};

// --- a callback that fails the peer ----------------------------------------------------------------------------------------------

TEST_F(srd_ep, cancel_whose_callback_fails_the_peer_walks_no_record_that_is_gone)
{
    doing first, flushed;
    told second, third;
    first.what = [&] { invalidate(other_); };
    while_nothing_is_taken([&] {
        ASSERT_EQ(send(e_, &first), UCS_INPROGRESS);
        ASSERT_EQ(put(e_, &second), UCS_INPROGRESS);
        ASSERT_EQ(flush(e_, &flushed), UCS_INPROGRESS);
        ASSERT_EQ(put(other_, &third), UCS_INPROGRESS);
    });
    EXPECT_EQ(cancel(e_), UCS_OK);
    EXPECT_EQ(e_.slow->cancel_count, 0u);
    EXPECT_EQ(p_->state, peer_state::failed);
    expect_nothing_is_left();
    for (const told *t : {static_cast<told *>(&first), static_cast<told *>(&flushed), &second, &third}) {
        EXPECT_EQ(t->calls, 1);
        EXPECT_NE(t->status, UCS_OK);
    }
}

TEST_F(srd_ep, cancel_whose_flush_fails_the_peer_walks_no_record_that_is_gone)
{
    doing flushed;
    told later;
    flushed.what = [&] { invalidate(e_); };
    while_nothing_is_taken([&] {
        ASSERT_EQ(put(other_, nullptr), UCS_INPROGRESS);
        ASSERT_EQ(flush(e_, &flushed), UCS_INPROGRESS);
        ASSERT_EQ(put(e_, &later), UCS_INPROGRESS);
    });
    EXPECT_EQ(cancel(e_), UCS_OK);
    EXPECT_EQ(flushed.calls, 1);
    EXPECT_EQ(later.calls, 1);
    expect_nothing_is_left();
}

TEST_F(srd_ep, destroy_whose_callback_fails_the_peer_walks_no_record_that_is_gone)
{
    ep *e = make();
    doing first;
    told second;
    first.what = [&] { invalidate(other_); };
    while_nothing_is_taken([&] {
        ASSERT_EQ(put(*e, &first), UCS_INPROGRESS);
        ASSERT_EQ(put(*e, &second), UCS_INPROGRESS);
    });
    destroy(e);
    EXPECT_EQ(first.calls, 1);
    EXPECT_EQ(second.calls, 1);
    expect_nothing_is_left();
}

TEST_F(srd_ep, completion_of_a_cancelled_send_may_fail_the_peer)
{
    doing held;
    told cancelled;
    held.what = [&] { invalidate(e_); };
    ASSERT_EQ(send(e_, &held), UCS_INPROGRESS);
    ASSERT_EQ(cancel(e_, &cancelled), UCS_INPROGRESS);
    polled(last());
    EXPECT_EQ(held.calls, 1);
    EXPECT_EQ(cancelled.calls, 1);
    EXPECT_EQ(p_->state, peer_state::failed);
    expect_nothing_is_left();
}

TEST_F(srd_ep, completion_of_a_cancelled_put_may_fail_the_peer)
{
    doing held;
    told cancelled;
    held.what = [&] { invalidate(e_); };
    ASSERT_EQ(put(e_, &held), UCS_INPROGRESS);
    ASSERT_EQ(cancel(e_, &cancelled), UCS_INPROGRESS);
    polled(last());
    EXPECT_EQ(held.calls, 1);
    EXPECT_EQ(cancelled.calls, 1);
    expect_nothing_is_left();
}

TEST_F(srd_ep, flush_of_a_peer_that_a_callback_fails_is_told_once_nobody_is_at_work_on_the_records)
{
    doing first;
    told flushed;
    first.what = [&] { invalidate(e_); };
    ASSERT_EQ(put(e_, &first), UCS_INPROGRESS);
    ASSERT_EQ(flush(e_, &flushed), UCS_INPROGRESS);
    polled(last());
    expect_nothing_is_left();
    EXPECT_EQ(flushed.calls, 1);
    EXPECT_EQ(flushed.status, p_->status());
}

TEST_F(srd_ep, failure_outside_of_callbacks_ends_what_waits_at_once)
{
    told waits, flushed;
    while_nothing_is_taken([&] { ASSERT_EQ(send(e_, &waits), UCS_INPROGRESS); });
    ASSERT_EQ(flush(e_, &flushed), UCS_INPROGRESS);
    invalidate(e_);
    EXPECT_EQ(waits.calls, 1);
    EXPECT_EQ(flushed.calls, 1);
    EXPECT_TRUE(p_->tx.empty());
    expect_nothing_is_left();
}

// --- a callback that destroys ----------------------------------------------------------------------------------------------------

TEST_F(srd_ep, cancel_whose_callback_destroys_another_endpoint_of_the_peer_goes_on)
{
    ep *gone = make();
    doing first;
    told theirs, second;
    first.what = [&] { destroy(gone); };
    while_nothing_is_taken([&] {
        ASSERT_EQ(put(e_, &first), UCS_INPROGRESS);
        ASSERT_EQ(put(*gone, &theirs), UCS_INPROGRESS);
        ASSERT_EQ(put(e_, &second), UCS_INPROGRESS);
    });
    EXPECT_EQ(cancel(e_), UCS_OK);
    for (const told *t : {static_cast<told *>(&first), &theirs, &second}) {
        EXPECT_EQ(t->calls, 1);
        EXPECT_EQ(t->status, UCS_ERR_CANCELED);
    }
    expect_nothing_is_left();
}

TEST_F(srd_ep, failure_whose_callback_destroys_all_endpoints_of_the_peer_goes_on)
{
    ep *one = make(), *two = make();
    doing first;
    told second, third;
    first.what = [&] {
        destroy(one);
        destroy(two);
    };
    while_nothing_is_taken([&] {
        ASSERT_EQ(put(*one, &first), UCS_INPROGRESS);
        ASSERT_EQ(put(*two, &second), UCS_INPROGRESS);
        ASSERT_EQ(put(*one, &third), UCS_INPROGRESS);
    });
    invalidate(e_);
    for (const told *t : {static_cast<told *>(&first), &second, &third}) {
        EXPECT_EQ(t->calls, 1);
    }
    EXPECT_EQ(f_->ep_count, 0u);
    expect_nothing_is_left();
}

TEST_F(srd_ep, cancel_whose_callback_destroys_its_own_endpoint_ends_as_cancelled)
{
    ep *e = make();
    doing first;
    told second, flushed, cancelled;
    first.what = [&] { destroy(e); };
    while_nothing_is_taken([&] {
        ASSERT_EQ(put(*e, &first), UCS_INPROGRESS);
        ASSERT_EQ(put(*e, &second), UCS_INPROGRESS);
        ASSERT_EQ(flush(*e, &flushed), UCS_INPROGRESS);
    });
    EXPECT_EQ(cancel(*e, &cancelled), UCS_ERR_CANCELED);
    for (const told *t : {static_cast<told *>(&first), &second, &flushed}) {
        EXPECT_EQ(t->calls, 1);
        EXPECT_EQ(t->status, UCS_ERR_CANCELED);
    }
    EXPECT_EQ(cancelled.calls, 0); // its answer said so
    EXPECT_EQ(f_->ep_count, 0u);
    expect_nothing_is_left();
}

TEST_F(srd_ep, cancel_within_a_cancel_may_destroy_their_endpoint)
{
    ep *e = make();
    doing first, second;
    ucs_status_t inner = UCS_OK;
    first.what         = [&] { inner = cancel(*e); };
    second.what        = [&] { destroy(e); };
    while_nothing_is_taken([&] {
        ASSERT_EQ(put(*e, &first), UCS_INPROGRESS);
        ASSERT_EQ(put(*e, &second), UCS_INPROGRESS);
    });
    EXPECT_EQ(cancel(*e), UCS_ERR_CANCELED);
    EXPECT_EQ(inner, UCS_ERR_CANCELED);
    EXPECT_EQ(first.calls, 1);
    EXPECT_EQ(second.calls, 1);
    expect_nothing_is_left();
}

TEST_F(srd_ep, cancel_whose_callback_destroys_leaves_to_the_device_what_it_holds)
{
    ep *e = make();
    doing waits;
    told held;
    ASSERT_EQ(put(*e, &held), UCS_INPROGRESS);
    op *in_device = last();
    waits.what    = [&] { destroy(e); };
    while_nothing_is_taken([&] { ASSERT_EQ(put(*e, &waits), UCS_INPROGRESS); });
    EXPECT_EQ(cancel(*e), UCS_ERR_CANCELED);
    EXPECT_EQ(held.calls, 0); // its memory is the device's until then
    polled(in_device);
    EXPECT_EQ(held.calls, 1);
    expect_nothing_is_left();
}

TEST_F(srd_ep, completion_that_a_cancel_waits_for_may_destroy_the_endpoint)
{
    ep *e = make();
    doing held;
    told cancelled;
    ASSERT_EQ(send(*e, &held), UCS_INPROGRESS);
    held.what = [&] { destroy(e); };
    ASSERT_EQ(cancel(*e, &cancelled), UCS_INPROGRESS);
    polled(last());
    EXPECT_EQ(held.calls, 1);
    EXPECT_EQ(cancelled.calls, 1);
    expect_nothing_is_left();
}

struct asking : uct_pending_req_t {
    std::function<ucs_status_t()> what;
    int calls = 0;
    asking() : uct_pending_req_t{}
    {
        func = [](uct_pending_req_t *self) {
            auto *a = static_cast<asking *>(self);
            ++a->calls;
            return a->what();
        };
    }
};

TEST_F(srd_ep, queued_request_may_destroy_its_own_endpoint)
{
    ep *e = make(), *next = make();
    asking one, two, other;
    one.what   = [&] {
        uct_srd_ep_pending_purge(&e->super.super, nullptr, nullptr); // as UCT asks for before the end
        destroy(e);
        return UCS_OK;
    };
    two.what   = [] { return ADD_FAILURE() << "of an endpoint that is gone", UCS_OK; };
    other.what = [] { return UCS_OK; };
    for (ep *each : {e, next}) {
        each->reasons = reason_queue;
    }
    const auto free = f_->tx.sq_free;
    f_->tx.sq_free  = 0;
    ASSERT_EQ(uct_srd_ep_pending_add(&e->super.super, &one, 0), UCS_OK);
    ASSERT_EQ(uct_srd_ep_pending_add(&e->super.super, &two, 0), UCS_OK);
    ASSERT_EQ(uct_srd_ep_pending_add(&next->super.super, &other, 0), UCS_OK);
    f_->tx.sq_free = free;
    EXPECT_EQ(pending_dispatch(f_.get()), 2u);
    EXPECT_EQ(one.calls, 1);
    EXPECT_EQ(other.calls, 1);
    EXPECT_EQ(f_->pending_ring, nullptr);
    destroy(next);
    expect_nothing_is_left();
}

TEST_F(srd_ep, purge_may_destroy_the_endpoint_with_its_last_request)
{
    ep *e = make();
    asking one;
    const auto free = f_->tx.sq_free;
    f_->tx.sq_free  = 0;
    e->reasons      = reason_queue;
    ASSERT_EQ(uct_srd_ep_pending_add(&e->super.super, &one, 0), UCS_OK);
    f_->tx.sq_free = free;
    struct context {
        srd_ep *test;
        ep *e;
        int calls;
    } c{this, e, 0};
    uct_srd_ep_pending_purge(
        &e->super.super,
        [](uct_pending_req_t *, void *arg) {
            auto *c = static_cast<context *>(arg);
            ++c->calls;
            c->test->destroy(c->e);
        },
        &c);
    EXPECT_EQ(c.calls, 1);
    EXPECT_EQ(f_->pending_ring, nullptr);
    EXPECT_EQ(f_->ep_count, 0u);
    expect_nothing_is_left();
}

} // namespace
