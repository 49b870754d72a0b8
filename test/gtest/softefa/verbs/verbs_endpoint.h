/* One user of the device through the installed, unmodified rdma-core: context, PD, memory, CQ, QP, address handle to itself. */
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <infiniband/efadv.h>
#include <infiniband/verbs.h>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace verbs {

constexpr std::uint32_t qkey = 0x11111111;

enum class cq_kind { plain, extended, efa_sgid };
inline const char *name_of(cq_kind kind)
{
    return kind == cq_kind::plain ? "plain" : kind == cq_kind::extended ? "extended" : "efa_sgid";
}

struct context_closer {
    void operator()(ibv_context *c) const { ibv_close_device(c); }
};
using context_ptr = std::unique_ptr<ibv_context, context_closer>;

inline context_ptr open_device(int index = 0)
{
    int          count = 0;
    ibv_device **list  = ibv_get_device_list(&count);
    context_ptr  context(list != nullptr && index < count ? ibv_open_device(list[index]) : nullptr);
    if (list != nullptr) {
        ibv_free_device_list(list);
    }
    return context;
}

/// What a completion says, from either polling interface.
struct completion {
    std::uint64_t wr_id      = 0;
    int           status     = -1;
    int           opcode     = -1;
    std::uint32_t byte_len   = 0;
    std::uint32_t imm        = 0;
    bool          has_imm    = false;
    std::uint32_t vendor_err = 0;
    std::uint32_t src_qp     = 0;
    bool          has_sgid   = false;
    ibv_gid       sgid{};
};

class endpoint {
public:
    static constexpr std::size_t buffer_size = 65536;

    struct options {
        cq_kind       kind        = cq_kind::plain;
        std::uint32_t cqe         = 64;
        std::uint32_t send_count  = 32;
        std::uint32_t recv_count  = 32;
        int           rnr_retry   = -1;    ///< -1: not set
        bool          with_events = false; ///< completion channel
        bool          ud          = false;
        std::uint32_t qkey        = verbs::qkey; ///< of the queue pair
        std::uint32_t inline_size = 32;
        bool          write        = false; ///< RDMA writes, which rdma-core 44 has not
        bool          inline_write = false; ///< RDMA writes from the work request, which rdma-core 63 and later can ask for
    };

    endpoint(ibv_context *context, const options &o) : context_(context), options_(o)
    {
        buffer_.resize(buffer_size);
        pd_ = ibv_alloc_pd(context);
        mr_ = pd_ != nullptr ? ibv_reg_mr(pd_, buffer_.data(), buffer_.size(), IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ) : nullptr;
        if (o.with_events) {
            channel_ = ibv_create_comp_channel(context);
        }
        create_cq();
        create_qp();
    }
    ~endpoint()
    {
        for (ibv_ah *ah : ahs_) {
            EXPECT_EQ(0, ibv_destroy_ah(ah));
        }
        destroy_qp();
        if (cq_ != nullptr) {
            EXPECT_EQ(0, ibv_destroy_cq(cq_));
        }
        if (channel_ != nullptr) {
            EXPECT_EQ(0, ibv_destroy_comp_channel(channel_));
        }
        if (mr_ != nullptr) {
            EXPECT_EQ(0, ibv_dereg_mr(mr_));
        }
        if (pd_ != nullptr) {
            EXPECT_EQ(0, ibv_dealloc_pd(pd_));
        }
    }
    endpoint(const endpoint &)            = delete;
    endpoint &operator=(const endpoint &) = delete;

    bool              ok() const { return pd_ && mr_ && cq_ && qp_ && state_error_ == 0; }
    ibv_qp           *qp() const { return qp_; }
    ibv_cq           *cq() const { return cq_; }
    ibv_pd           *pd() const { return pd_; }
    ibv_mr           *mr() const { return mr_; }
    ibv_comp_channel *channel() const { return channel_; }
    char             *buffer() { return buffer_.data(); }

    ibv_gid gid() const
    {
        ibv_gid g{};
        EXPECT_EQ(0, ibv_query_gid(context_, 1, 0, &g));
        return g;
    }
    ibv_ah *ah_to(const endpoint &peer)
    {
        ibv_ah_attr attr{};
        attr.grh.dgid  = peer.gid();
        attr.is_global = 1;
        attr.port_num  = 1;
        ibv_ah *ah     = ibv_create_ah(pd_, &attr);
        if (ah != nullptr) {
            ahs_.push_back(ah);
        }
        return ah;
    }
    void destroy_qp()
    {
        if (qp_ != nullptr) {
            EXPECT_EQ(0, ibv_destroy_qp(qp_));
            qp_ = nullptr;
        }
    }

    int recv(std::uint64_t wr_id, std::size_t offset, std::uint32_t size)
    {
        ibv_sge     sge{reinterpret_cast<std::uint64_t>(buffer() + offset), size, mr_->lkey};
        ibv_recv_wr wr{}, *bad = nullptr;
        wr.wr_id   = wr_id;
        wr.sg_list = &sge;
        wr.num_sge = 1;
        return ibv_post_recv(qp_, &wr, &bad);
    }

    /// Through the old interface.
    int send(std::uint64_t wr_id, const endpoint &peer, ibv_ah *ah, std::vector<ibv_sge> sges, unsigned flags = 0,
             std::optional<std::uint32_t> imm = {})
    {
        ibv_send_wr wr{}, *bad = nullptr;
        wr.wr_id              = wr_id;
        wr.sg_list            = sges.data();
        wr.num_sge            = static_cast<int>(sges.size());
        wr.opcode             = imm ? IBV_WR_SEND_WITH_IMM : IBV_WR_SEND;
        wr.send_flags         = IBV_SEND_SIGNALED | flags;
        wr.imm_data           = imm ? htobe32(*imm) : 0;
        wr.wr.ud.ah           = ah;
        wr.wr.ud.remote_qpn   = peer.qp_->qp_num;
        wr.wr.ud.remote_qkey  = qkey;
        return ibv_post_send(qp_, &wr, &bad);
    }
    ibv_sge sge(std::size_t offset, std::uint32_t size) const
    {
        return {reinterpret_cast<std::uint64_t>(buffer_.data() + offset), size, mr_->lkey};
    }

    /// Through the extended interface.
    int send_ex(std::uint64_t wr_id, std::uint32_t qpn, ibv_ah *ah, const ibv_sge &from, std::uint32_t remote_qkey = verbs::qkey)
    {
        ibv_qp_ex *qpx = ibv_qp_to_qp_ex(qp_);
        ibv_wr_start(qpx);
        qpx->wr_id    = wr_id;
        qpx->wr_flags = IBV_SEND_SIGNALED;
        ibv_wr_send(qpx);
        ibv_wr_set_sge(qpx, from.lkey, from.addr, from.length);
        ibv_wr_set_ud_addr(qpx, ah, qpn, remote_qkey);
        return ibv_wr_complete(qpx);
    }
    int read_ex(std::uint64_t wr_id, std::uint32_t qpn, ibv_ah *ah, const ibv_sge &to, std::uint64_t remote, std::uint32_t rkey)
    {
        ibv_qp_ex *qpx = ibv_qp_to_qp_ex(qp_);
        ibv_wr_start(qpx);
        qpx->wr_id    = wr_id;
        qpx->wr_flags = IBV_SEND_SIGNALED;
        ibv_wr_rdma_read(qpx, rkey, remote);
        ibv_wr_set_sge(qpx, to.lkey, to.addr, to.length);
        ibv_wr_set_ud_addr(qpx, ah, qpn, qkey);
        return ibv_wr_complete(qpx);
    }
    int write_ex(std::uint64_t wr_id, std::uint32_t qpn, ibv_ah *ah, const ibv_sge &from, std::uint64_t remote, std::uint32_t rkey)
    {
        ibv_qp_ex *qpx = ibv_qp_to_qp_ex(qp_);
        ibv_wr_start(qpx);
        qpx->wr_id    = wr_id;
        qpx->wr_flags = IBV_SEND_SIGNALED;
        ibv_wr_rdma_write(qpx, rkey, remote);
        ibv_wr_set_sge(qpx, from.lkey, from.addr, from.length);
        ibv_wr_set_ud_addr(qpx, ah, qpn, qkey);
        return ibv_wr_complete(qpx);
    }

    /// With an immediate, the peer's next receive tells of it.
    int write_inline_ex(std::uint64_t wr_id, std::uint32_t qpn, ibv_ah *ah, const ibv_sge &from, std::uint64_t remote,
                        std::uint32_t rkey, std::optional<std::uint32_t> imm = {})
    {
        ibv_qp_ex *qpx = ibv_qp_to_qp_ex(qp_);
        ibv_wr_start(qpx);
        qpx->wr_id    = wr_id;
        qpx->wr_flags = IBV_SEND_SIGNALED;
        if (imm) {
            ibv_wr_rdma_write_imm(qpx, rkey, remote, htobe32(*imm));
        } else {
            ibv_wr_rdma_write(qpx, rkey, remote);
        }
        ibv_wr_set_inline_data(qpx, reinterpret_cast<void *>(from.addr), from.length);
        ibv_wr_set_ud_addr(qpx, ah, qpn, qkey);
        return ibv_wr_complete(qpx);
    }

    /// The next completion; empty after `seconds` without one.
    std::optional<completion> poll(double seconds = 60)
    {
        timespec start;
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (;;) {
            auto c = poll_once();
            if (c) {
                return c;
            }
            timespec now;
            clock_gettime(CLOCK_MONOTONIC, &now);
            if (static_cast<double>(now.tv_sec - start.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec - start.tv_nsec) > seconds) {
                return {};
            }
        }
    }
    std::optional<completion> poll_once() { return options_.kind == cq_kind::plain ? poll_plain() : poll_extended(); }

private:
    void create_cq()
    {
        if (options_.kind == cq_kind::plain) {
            cq_ = ibv_create_cq(context_, static_cast<int>(options_.cqe), this, channel_, 0);
            return;
        }
        ibv_cq_init_attr_ex attr{};
        attr.cqe      = options_.cqe;
        attr.channel  = channel_;
        attr.cq_context = this;
        attr.wc_flags = IBV_WC_STANDARD_FLAGS;
        if (options_.kind == cq_kind::extended) {
            cq_ex_ = ibv_create_cq_ex(context_, &attr);
        } else {
            efadv_cq_init_attr efa{};
            efa.wc_flags = EFADV_WC_EX_WITH_SGID;
            cq_ex_       = efadv_create_cq(context_, &attr, &efa, sizeof(efa));
        }
        cq_ = cq_ex_ != nullptr ? ibv_cq_ex_to_cq(cq_ex_) : nullptr;
    }

    void create_qp()
    {
        if (cq_ == nullptr || pd_ == nullptr) {
            return;
        }
        ibv_qp_init_attr_ex attr{};
        attr.send_cq          = cq_;
        attr.recv_cq          = cq_;
        attr.cap              = {options_.send_count, options_.recv_count, 2, 1, options_.inline_size};
        attr.qp_type          = options_.ud ? IBV_QPT_UD : IBV_QPT_DRIVER;
        attr.pd               = pd_;
        attr.comp_mask        = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
        attr.send_ops_flags   = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
        efadv_qp_init_attr efa{};
        efa.driver_qp_type = EFADV_QP_DRIVER_TYPE_SRD;
        if (options_.ud) {
            qp_ = ibv_create_qp_ex(context_, &attr);
        } else {
            attr.send_ops_flags |= IBV_QP_EX_WITH_RDMA_READ;
            if (options_.write || options_.inline_write) {
                attr.send_ops_flags |= IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM;
            }
            if (options_.inline_write) {
                // EFADV_QP_FLAGS_INLINE_WRITE of a field that older headers keep reserved: there the provider refuses it.
                constexpr std::uint16_t inline_write = 1 << 1;
                std::memcpy(reinterpret_cast<char *>(&efa) + offsetof(efadv_qp_init_attr, driver_qp_type) + sizeof(efa.driver_qp_type),
                            &inline_write, sizeof(inline_write));
            }
            qp_ = efadv_create_qp_ex(context_, &attr, &efa, sizeof(efa));
        }
        if (qp_ == nullptr) {
            return;
        }
        ibv_qp_attr state{};
        state.qp_state = IBV_QPS_INIT;
        state.port_num = 1;
        state.qkey     = options_.qkey;
        state_error_   = ibv_modify_qp(qp_, &state, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY);
        state.qp_state = IBV_QPS_RTR;
        state_error_ |= ibv_modify_qp(qp_, &state, IBV_QP_STATE);
        state.qp_state  = IBV_QPS_RTS;
        state.rnr_retry = static_cast<std::uint8_t>(options_.rnr_retry);
        state_error_ |= ibv_modify_qp(qp_, &state, IBV_QP_STATE | IBV_QP_SQ_PSN | (options_.rnr_retry >= 0 ? IBV_QP_RNR_RETRY : 0));
    }

    std::optional<completion> poll_plain()
    {
        ibv_wc    wc{};
        const int count = ibv_poll_cq(cq_, 1, &wc);
        EXPECT_GE(count, 0);
        if (count != 1) {
            return {};
        }
        completion c;
        c.wr_id      = wc.wr_id;
        c.status     = wc.status;
        c.opcode     = wc.opcode;
        c.byte_len   = wc.byte_len;
        c.has_imm    = (wc.wc_flags & IBV_WC_WITH_IMM) != 0;
        c.imm        = be32toh(wc.imm_data);
        c.vendor_err = wc.vendor_err;
        c.src_qp     = wc.src_qp;
        return c;
    }

    std::optional<completion> poll_extended()
    {
        ibv_poll_cq_attr attr{};
        const int        error = ibv_start_poll(cq_ex_, &attr);
        if (error != 0) {
            EXPECT_EQ(ENOENT, error);
            return {};
        }
        completion c;
        c.wr_id      = cq_ex_->wr_id;
        c.status     = cq_ex_->status;
        c.opcode     = ibv_wc_read_opcode(cq_ex_);
        c.byte_len   = ibv_wc_read_byte_len(cq_ex_);
        c.has_imm    = (ibv_wc_read_wc_flags(cq_ex_) & IBV_WC_WITH_IMM) != 0;
        c.imm        = be32toh(ibv_wc_read_imm_data(cq_ex_));
        c.vendor_err = ibv_wc_read_vendor_err(cq_ex_);
        c.src_qp     = ibv_wc_read_src_qp(cq_ex_);
        if (options_.kind == cq_kind::efa_sgid) {
            c.has_sgid = efadv_wc_read_sgid(efadv_cq_from_ibv_cq_ex(cq_ex_), &c.sgid) == 0;
        }
        ibv_end_poll(cq_ex_);
        return c;
    }

    ibv_context          *context_;
    options               options_;
    std::vector<char>     buffer_;
    ibv_pd               *pd_          = nullptr;
    ibv_mr               *mr_          = nullptr;
    ibv_comp_channel     *channel_     = nullptr;
    ibv_cq               *cq_          = nullptr;
    ibv_cq_ex            *cq_ex_       = nullptr;
    ibv_qp               *qp_          = nullptr;
    int                   state_error_ = 0;
    std::vector<ibv_ah *> ahs_;
};

} // namespace verbs
