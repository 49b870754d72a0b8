/* What the modes of verbs_probe have in common: one process's device, completion queues, queue pairs and memory, and the line to the other process.
 *
 * Owns: how an SRD queue pair is made, and that whatever fails ends the program with its name. Knows verbs and efadv only.
 * Refuses to know what is measured.
 */
#pragma once

#include "program.h"

#include <cstring>
#include <infiniband/efadv.h>
#include <infiniband/verbs.h>
#include <string>

namespace probe {

inline constexpr std::uint32_t qkey        = 0x11111111;
inline constexpr std::size_t   footprint   = 64 * 1024; // of a buffer, at least

struct settings {
    std::string   mode, device;
    int           core[2] = {-1, -1};
    std::size_t   size    = 8;
    std::uint64_t count   = 10'000;
    unsigned      qps     = 1, seconds = 60;
    bool          stamped = false, every_block = false; // pingpong only
};

[[noreturn]] inline void give_up(const char *what)
{
    std::fprintf(stderr, "verbs_probe: %s: %s\n", what, std::strerror(errno));
    std::exit(1);
}

template <class T> T *needed(T *object, const char *what)
{
    if (object == nullptr)
        give_up(what);
    return object;
}

inline void needed_zero(int error, const char *what)
{
    if (error != 0) {
        errno = error > 0 ? error : errno;
        give_up(what);
    }
}

/// What one side must know of the other.
struct address {
    ibv_gid       gid;
    std::uint32_t qpn, rkey;
    std::uint64_t place;
};

/// Everything of one process. Never torn down: the process ends.
class user {
public:
    /// `own_recv_cq`: receives complete to a completion queue of their own.
    user(const settings &wish, unsigned qps, bool own_recv_cq = false) : bytes_(std::max(wish.size, footprint))
    {
        int          count = 0;
        ibv_device **list  = needed(ibv_get_device_list(&count), "ibv_get_device_list");
        for (int i = 0; i < count && context_ == nullptr; ++i)
            if (wish.device.empty() || wish.device == ibv_get_device_name(list[i]))
                context_ = ibv_open_device(list[i]);
        needed(context_, "no device");
        pd_ = needed(ibv_alloc_pd(context_), "ibv_alloc_pd");
        cq_ = needed(ibv_create_cq(context_, 1024, nullptr, nullptr, 0), "ibv_create_cq");
        recv_cq_ = own_recv_cq ? needed(ibv_create_cq(context_, 1024, nullptr, nullptr, 0), "ibv_create_cq") : cq_;
        const bool writes = wish.mode == "write";
        mr_ = needed(ibv_reg_mr(pd_, bytes_.data(), bytes_.size(),
                                IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | (writes ? IBV_ACCESS_REMOTE_WRITE : 0)), "ibv_reg_mr");
        for (unsigned i = 0; i < qps; ++i)
            qps_.push_back(create_qp(writes));
        needed_zero(ibv_query_gid(context_, 1, 0, &gid_), "ibv_query_gid");
    }

    address where(unsigned qp = 0) const { return {gid_, qps_[qp]->qp_num, mr_->rkey, reinterpret_cast<std::uint64_t>(bytes_.data())}; }
    unsigned char *bytes() { return bytes_.data(); }
    ibv_cq        *cq() { return cq_; }
    ibv_cq        *recv_cq() { return recv_cq_; }
    ibv_qp        *qp(unsigned i = 0) { return qps_[i]; }
    std::uint32_t  lkey() const { return mr_->lkey; }

    ibv_ah *reach(const ibv_gid &gid)
    {
        ibv_ah_attr attr{};
        attr.grh.dgid  = gid;
        attr.is_global = 1;
        attr.port_num  = 1;
        return needed(ibv_create_ah(pd_, &attr), "ibv_create_ah");
    }

    void recv(unsigned qp)
    {
        ibv_sge     sge{reinterpret_cast<std::uint64_t>(bytes_.data()), 64, mr_->lkey};
        ibv_recv_wr wr{}, *bad = nullptr;
        wr.sg_list = &sge;
        wr.num_sge = 1;
        needed_zero(ibv_post_recv(qps_[qp], &wr, &bad), "ibv_post_recv");
    }

    enum class verb { send, read, write };
    void post(verb what, ibv_ah *ah, const address &to, std::size_t size, unsigned qp = 0)
    {
        ibv_qp_ex *q = ibv_qp_to_qp_ex(qps_[qp]);
        ibv_wr_start(q);
        q->wr_id    = 1;
        q->wr_flags = IBV_SEND_SIGNALED;
        if (what == verb::send)
            ibv_wr_send(q);
        else if (what == verb::read)
            ibv_wr_rdma_read(q, to.rkey, to.place);
        else
            ibv_wr_rdma_write(q, to.rkey, to.place);
        ibv_wr_set_sge(q, mr_->lkey, reinterpret_cast<std::uint64_t>(bytes_.data()), static_cast<std::uint32_t>(size));
        ibv_wr_set_ud_addr(q, ah, to.qpn, qkey);
        needed_zero(ibv_wr_complete(q), "ibv_wr_complete");
    }

    /// Waits for so many good completions.
    void complete(unsigned count)
    {
        for (ibv_wc wc[16]; count != 0;) {
            const int seen = ibv_poll_cq(cq_, 16, wc);
            if (seen < 0)
                give_up("ibv_poll_cq");
            for (int i = 0; i < seen; ++i)
                if (wc[i].status != IBV_WC_SUCCESS) {
                    std::fprintf(stderr, "verbs_probe: completion with status %d, vendor error %u\n", wc[i].status, wc[i].vendor_err);
                    std::exit(1);
                }
            count -= static_cast<unsigned>(seen);
        }
    }

private:
    ibv_qp *create_qp(bool writes)
    {
        ibv_qp_init_attr_ex attr{};
        attr.send_cq        = cq_;
        attr.recv_cq        = recv_cq_;
        attr.cap            = {64, 64, 1, 1, 0};
        attr.qp_type        = IBV_QPT_DRIVER;
        attr.pd             = pd_;
        attr.comp_mask      = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
        attr.send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_READ | (writes ? IBV_QP_EX_WITH_RDMA_WRITE : 0);
        efadv_qp_init_attr efa{};
        efa.driver_qp_type = EFADV_QP_DRIVER_TYPE_SRD;
        ibv_qp *qp         = efadv_create_qp_ex(context_, &attr, &efa, sizeof(efa));
        if (qp == nullptr && writes) {
            std::fprintf(stderr, "verbs_probe: not possible: this rdma-core, or the device, has no RDMA write\n");
            std::exit(1);
        }
        needed(qp, "efadv_create_qp_ex");
        ibv_qp_attr state{};
        state.qp_state = IBV_QPS_INIT;
        state.port_num = 1;
        state.qkey     = qkey;
        needed_zero(ibv_modify_qp(qp, &state, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY), "to INIT");
        state.qp_state = IBV_QPS_RTR;
        needed_zero(ibv_modify_qp(qp, &state, IBV_QP_STATE), "to RTR");
        state.qp_state = IBV_QPS_RTS;
        needed_zero(ibv_modify_qp(qp, &state, IBV_QP_STATE | IBV_QP_SQ_PSN), "to RTS");
        return qp;
    }

    ibv_context               *context_ = nullptr;
    ibv_pd                    *pd_      = nullptr;
    ibv_cq                    *cq_      = nullptr;
    ibv_cq                    *recv_cq_ = nullptr;
    ibv_mr                    *mr_      = nullptr;
    std::vector<ibv_qp *>      qps_;
    std::vector<unsigned char> bytes_;
    ibv_gid                    gid_{};
};

/// Both directions between parent and child.
struct line {
    int in = -1, out = -1;

    template <class T> void say(const T &value) const
    {
        if (write(out, &value, sizeof(value)) != static_cast<ssize_t>(sizeof(value)))
            give_up("write to the other process");
    }
    template <class T> bool hear(T *value_p) const { return read(in, value_p, sizeof(*value_p)) == static_cast<ssize_t>(sizeof(*value_p)); }
};

} // namespace probe
