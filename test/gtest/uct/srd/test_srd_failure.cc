/* Unit tests of the policy of failing (srd_ep.cc, srd_tx.cc, srd_control.cc): which failed operation fails its peer, and what
 * the queue and the flush of a failed endpoint answer. An interface without a device: nothing here posts or polls.
 */
#include "interface_of_a_test.h"

#include <cstdlib>
#include <gtest/gtest.h>
#include <memory>

using namespace srd;

namespace {

class srd_failure : public testing::Test {
protected:
    srd_failure() : f_(std::make_unique<iface>(&md_, config_of_a_test(), uct_iface_params_t{}, 1))
    {
        gid_type gid{};
        gid[0]                      = 0xfe;
        f_->super.config.failure_level = UCS_LOG_LEVEL_DEBUG; // peer_fail raises it to an error: the line is meant
        p_                          = f_->peers.create(gid, 7, 8, 1);
        p_->state                   = peer_state::open;
        e_.super.super.iface        = &f_->super.super;
        e_.owner                    = p_;
        p_->eps                     = &e_;
    }

    /// A record as a post leaves it, in the hands of the device.
    op *outstanding(op_kind kind, uct_completion_t *comp = nullptr)
    {
        op *o    = f_->ops.get();
        *o       = {};
        o->owner = p_;
        o->kind  = kind;
        o->user  = true;
        o->ep    = &e_;
        if (kind != op_kind::am_inline) {
            o->ref.buf  = buf_;
            o->ref.comp = comp;
        }
        --f_->tx.sq_free;
        ++f_->tx.outstanding;
        p_->tx.push_held(o);
        return o;
    }

    void complete(op *o, std::uint32_t device_status)
    {
        ibv_wc wc{};
        wc.status     = IBV_WC_GENERAL_ERR;
        wc.vendor_err = device_status;
        tx_complete_error(f_.get(), o, wc);
    }

    uct_ep_h ep_handle() { return &e_.super.super; }
    uct_iface_h iface_handle() { return &f_->super.super; }

    uct_srd_md_t md_ = md_of_a_usual_device();
    std::unique_ptr<iface> f_;
    peer *p_;
    ep e_{};
    alignas(64) unsigned char buf_bytes_[sizeof(tx_buf)] = {};
    tx_buf *buf_ = reinterpret_cast<tx_buf *>(buf_bytes_);
    uct_pending_req_t request_{};
};

struct told : uct_completion_t {
    int calls = 0;
    told() : uct_completion_t{}
    {
        count = 1;
        func  = [](uct_completion_t *self) { ++static_cast<told *>(self)->calls; };
    }
};

TEST_F(srd_failure, a_wrong_zero_copy_send_with_a_completion_fails_alone)
{
    told t;
    op *o = outstanding(op_kind::am_zcopy, &t);

    complete(o, 5);
    EXPECT_EQ(p_->state, peer_state::open);
    EXPECT_EQ(t.calls, 1);
    EXPECT_EQ(t.status, UCS_ERR_IO_ERROR);
    EXPECT_TRUE(o->waiting); // its psn goes out as a NOP
    EXPECT_EQ(f_->tx.outstanding, 0u);
    o->waiting = false; // posted again
    --p_->waiting_count;
    --f_->tx.sq_free;
    complete(o, 5); // the NOP fails the same way: not for ever
    EXPECT_EQ(p_->state, peer_state::failed);
    EXPECT_EQ(t.calls, 1);
}

TEST_F(srd_failure, a_wrong_send_that_nobody_would_hear_of_fails_the_peer)
{
    complete(outstanding(op_kind::am_inline), 5);
    EXPECT_EQ(p_->state, peer_state::failed);
    EXPECT_EQ(p_->status(), UCS_ERR_IO_ERROR);
    EXPECT_EQ(f_->tx.outstanding, 0u);
    EXPECT_TRUE(p_->tx.empty());
}

TEST_F(srd_failure, a_wrong_zero_copy_send_without_a_completion_fails_the_peer)
{
    complete(outstanding(op_kind::am_zcopy), 6);
    EXPECT_EQ(p_->state, peer_state::failed);
    EXPECT_EQ(f_->tx.bufs, buf_);
}

TEST_F(srd_failure, a_callback_that_invalidates_leaves_nothing_waiting)
{
    struct invalidating : told {
        uct_ep_h ep;
    } t;
    t.ep   = ep_handle();
    t.func = [](uct_completion_t *self) { (void)uct_srd_ep_invalidate(static_cast<invalidating *>(self)->ep, 0); };

    complete(outstanding(op_kind::am_zcopy, &t), 5);
    EXPECT_EQ(p_->state, peer_state::failed);
    EXPECT_EQ(p_->waiting_count, 0u);
    EXPECT_TRUE(p_->tx.empty());
}

TEST_F(srd_failure, a_control_message_that_was_flushed_fails_the_peer)
{
    op *o           = f_->ops.get();
    *o              = {};
    o->owner        = p_;
    o->kind         = op_kind::control;
    o->imm          = wire::imm_make(static_cast<unsigned>(wire::control::probe), base::seq32(0), wire::imm_control);
    o->ref.buf      = buf_;
    p_->control_in_flight = 1;
    --f_->tx.control_free;

    complete(o, 1);
    EXPECT_EQ(p_->state, peer_state::failed);
    EXPECT_EQ(p_->status(), UCS_ERR_IO_ERROR);
    EXPECT_EQ(f_->tx.control_free, limits::control_slots);
}

TEST_F(srd_failure, flush_waits_for_what_is_queued_until_the_endpoint_fails)
{
    e_.reasons = reason_window;
    p_->waiting_count = 1; // the window is closed
    ASSERT_EQ(uct_srd_ep_pending_add(ep_handle(), &request_, 0), UCS_OK);
    EXPECT_EQ(uct_srd_ep_flush(ep_handle(), 0, nullptr), UCS_ERR_NO_RESOURCE);
    EXPECT_EQ(uct_srd_iface_flush(iface_handle(), 0, nullptr), UCS_INPROGRESS);

    ASSERT_EQ(uct_srd_ep_invalidate(ep_handle(), 0), UCS_OK);
    EXPECT_EQ(f_->attention & attend_pending, 0);
    EXPECT_EQ(uct_srd_iface_flush(iface_handle(), 0, nullptr), UCS_OK);
    EXPECT_EQ(uct_srd_ep_flush(ep_handle(), 0, nullptr), UCS_OK);
    EXPECT_EQ(uct_srd_ep_pending_add(ep_handle(), &request_, 0), UCS_ERR_BUSY);

    int purged = 0; // the request is still there for its owner
    uct_srd_ep_pending_purge(ep_handle(), [](uct_pending_req_t *, void *arg) { ++*static_cast<int *>(arg); }, &purged);
    EXPECT_EQ(purged, 1);
}

} // namespace
