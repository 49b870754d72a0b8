/* An interface over a device that takes notes: what the tests of one-sided operations and of fences have in common. Not in an unnamed
 * namespace, because both files add tests to one suite.
 */
#pragma once

#include "uct/srd/srd_rma.h"

#include <gtest/gtest.h>
#include <memory>
#include <vector>

namespace srd::rma_test {

inline uct_srd_md_t md_of_a_device_that_writes()
{
    uct_srd_md_t md{};
    md.attr.inline_size      = 32;
    md.attr.inline_size_wide = 80; // used after use_wide_requests()
    md.attr.max_message_size = 8928;
    md.attr.max_rdma_size    = 1u << 20;
    md.attr.max_sq_wr        = 256;
    md.attr.max_rq_wr        = 512;
    md.attr.max_cqe          = 4096;
    return md;
}

inline uct_srd_iface_config_t config_of_a_test()
{
    uct_srd_iface_config_t c{};
    c.tx_queue_len = 16; // one peer may have 8 one-sided operations in it
    c.rx_queue_len = 64;
    c.max_peers    = 4;
    c.short_size   = 64;
    return c;
}

/// A work request as the device got it.
struct request {
    bool one_sided, read;
    std::uint32_t rkey;
    std::uint64_t remote, local;
    std::uint32_t size, lkey, imm;
    op *record;
    std::vector<unsigned char> inlined{}; ///< of a one-sided one, whose local memory is not named then
};

/// What the two ways of posting write down. Verbs gives an operation no argument of ours.
struct device {
    std::vector<request> got;
    int answer = 0; ///< of the next posts
    request open{};
};
inline device *device_of_test = nullptr;

struct told : uct_completion_t {
    int calls = 0;
    told() : uct_completion_t{}
    {
        count = 1;
        func  = [](uct_completion_t *self) { ++static_cast<told *>(self)->calls; };
    }
};

class srd_rma : public testing::Test {
public:
    srd_rma() : f_(std::make_unique<iface>(&md_, config_of_a_test(), uct_iface_params_t{}, 1))
    {
        device_of_test             = &device_;
        verbs_.ops.post_send       = [](ibv_qp *, ibv_send_wr *wr, ibv_send_wr **) {
            device &d = *device_of_test;
            if (d.answer == 0) {
                d.got.push_back({false, false, 0, 0, wr->sg_list[0].addr, wr->sg_list[0].length, 0, be32toh(wr->imm_data),
                                 reinterpret_cast<op *>(wr->wr_id)});
            }
            return d.answer;
        };
        qp_.qp_base.context        = &verbs_;
        qp_.wr_start               = [](ibv_qp_ex *) { device_of_test->open = {}; };
        qp_.wr_rdma_read           = [](ibv_qp_ex *, std::uint32_t rkey, std::uint64_t remote) {
            device_of_test->open = {true, true, rkey, remote, 0, 0, 0, 0, nullptr};
        };
        qp_.wr_rdma_write          = [](ibv_qp_ex *, std::uint32_t rkey, std::uint64_t remote) {
            device_of_test->open = {true, false, rkey, remote, 0, 0, 0, 0, nullptr};
        };
        qp_.wr_set_ud_addr         = [](ibv_qp_ex *, ibv_ah *, std::uint32_t, std::uint32_t) {};
        qp_.wr_set_sge             = [](ibv_qp_ex *, std::uint32_t lkey, std::uint64_t local, std::uint32_t size) {
            request &r = device_of_test->open;
            r.lkey     = lkey;
            r.local    = local;
            r.size     = size;
        };
        qp_.wr_set_inline_data     = [](ibv_qp_ex *, void *bytes, std::size_t size) {
            request &r = device_of_test->open;
            r.size     = static_cast<std::uint32_t>(size);
            r.inlined.assign(static_cast<unsigned char *>(bytes), static_cast<unsigned char *>(bytes) + size);
        };
        qp_.wr_complete            = [](ibv_qp_ex *qp) {
            device &d     = *device_of_test;
            d.open.record = reinterpret_cast<op *>(qp->wr_id);
            if (d.answer == 0) {
                d.got.push_back(d.open);
            }
            return d.answer;
        };
        f_->tx.qp                      = &qp_.qp_base;
        f_->rma.qp                     = &qp_;
        f_->rma.put = f_->rma.get      = true;
        f_->hello_interval             = base::ms(100);
        f_->super.config.failure_level = UCS_LOG_LEVEL_DEBUG; // peer_fail raises it to an error: the line is meant
        gid_type gid{};
        gid[0] = 0xfe;
        p_     = f_->peers.create(gid, 7, 8, 1);
        for (ep *e : {&e_, &other_}) {
            e->super.super.iface = &f_->super.super;
            peer_attach(p_, e);
        }
        answer_hello();
        for (tx_buf_bytes &bytes : bufs_) {
            tx_buf_put(f_.get(), reinterpret_cast<tx_buf *>(&bytes));
        }
        mem_.lkey   = 77;
        iov_.buffer = memory_;
        iov_.length = sizeof(memory_);
        iov_.count  = 1;
        iov_.memh   = &mem_;
    }

    void answer_hello()
    {
        p_->state = peer_state::open;
        ASSERT_TRUE(p_->tx.credit(base::seq32(0), base::seq32(16)));
    }

    /// As opening its queues does where device and library have work requests of 128 bytes.
    void use_wide_requests()
    {
        iface_set_inline(f_.get(), md_.attr.inline_size_wide);
        f_->rma.inline_max = static_cast<std::uint16_t>(md_.attr.inline_size_wide);
    }

    ucs_status_t put_short(ep &e, unsigned size = 8) { return uct_srd_ep_put_short(&e.super.super, memory_, size, 0x1000, 5); }
    ucs_status_t put(ep &e, uct_completion_t *comp = nullptr)
    {
        return uct_srd_ep_put_zcopy(&e.super.super, &iov_, 1, 0x1000, 5, comp);
    }
    ucs_status_t get(ep &e, uct_completion_t *comp = nullptr)
    {
        return uct_srd_ep_get_zcopy(&e.super.super, &iov_, 1, 0x2000, 6, comp);
    }
    ucs_status_t am(ep &e) { return uct_srd_ep_am_short(&e.super.super, 3, 0, nullptr, 0); }
    void fence(ep &e) { ASSERT_EQ(uct_srd_ep_fence(&e.super.super, 0), UCS_OK); }
    void fence_all() { ASSERT_EQ(uct_srd_iface_fence(&f_->super.super, 0), UCS_OK); }

    void complete(op *o) { tx_complete(f_.get(), o); }
    void complete(op *o, std::uint32_t device_status)
    {
        ibv_wc wc{};
        wc.status     = IBV_WC_GENERAL_ERR;
        wc.vendor_err = device_status;
        tx_complete_error(f_.get(), o, wc);
    }
    void complete_all()
    {
        const auto all = device_.got;
        device_.got.clear();
        for (const request &r : all) {
            complete(r.record);
        }
    }
    op *last() { return device_.got.back().record; }
    unsigned outstanding() { return p_->slow->rma_outstanding(); }

    struct alignas(64) tx_buf_bytes {
        unsigned char bytes[sizeof(tx_buf) + 8928];
    };

    device device_;
    ibv_context verbs_{};
    ibv_qp_ex qp_{};
    uct_srd_md_t md_ = md_of_a_device_that_writes();
    std::unique_ptr<iface> f_;
    peer *p_;
    ep e_{}, other_{};
    tx_buf_bytes bufs_[4] = {};
    unsigned char memory_[4096] = {};
    uct_srd_mem_t mem_{};
    uct_iov_t iov_{};
    uct_pending_req_t request_{};
};

} // namespace srd::rma_test
