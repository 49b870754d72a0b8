/* An interface that exchanges control messages with nobody: posts are remembered. What the tests of the exchange have in common; not
 * in an unnamed namespace, because several files add tests to one suite.
 */
#pragma once

#include "interface_of_a_test.h"

#include <gtest/gtest.h>
#include <memory>
#include <vector>

namespace srd::control_test {

/// Takes every request and remembers it.
struct fake_queue {
    ibv_context context{};
    ibv_qp qp{};
    static inline std::vector<op *> posted;

    fake_queue()
    {
        posted.clear();
        context.ops.post_send = [](ibv_qp *, ibv_send_wr *wr, ibv_send_wr **) {
            posted.push_back(reinterpret_cast<op *>(wr->wr_id));
            return 0;
        };
        qp.context = &context;
    }
};

class srd_control : public testing::Test {
protected:
    srd_control() : f_(std::make_unique<iface>(&md_, config_of_a_test(64), uct_iface_params_t{}, 1))
    {
        f_->tx.qp                      = &queue_.qp;
        f_->super.config.failure_level = UCS_LOG_LEVEL_DEBUG;
        gid_[0]                        = 0xfe;
        for (auto &bytes : bufs_) {
            auto *b             = reinterpret_cast<tx_buf *>(bytes);
            b->next             = f_->tx.control_bufs;
            f_->tx.control_bufs = b;
        }
    }
    ~srd_control() override
    {
        f_->tx.control_bufs = nullptr;
        f_->tx.qp           = nullptr;
    }

    peer *peer_of(std::uint16_t qpn)
    {
        peer *p = f_->peers.create(gid_, qpn, 8, base::clock_now_ns());
        p->ah   = reinterpret_cast<ibv_ah *>(this); // never followed
        return p;
    }

    wire::long_header header(std::uint32_t epoch, std::uint32_t known_epoch) const
    {
        wire::long_header h;
        h.gid         = gid_;
        h.qkey        = 8;
        h.epoch       = epoch;
        h.known_epoch = known_epoch;
        h.your_index  = 5;
        return h;
    }

    static constexpr std::uint32_t control_imm(wire::control type)
    {
        return wire::imm_make(static_cast<unsigned>(type), base::seq32(0), wire::imm_control | wire::imm_long);
    }

    peer *resolve(std::uint32_t imm, const wire::long_header &h) { return control_resolve(f_.get(), imm, h, 7, ah_number_unknown); }

    unsigned char refusal_ = static_cast<unsigned char>(wire::nak_reason::no_address_handle);
    uct_srd_md_t md_       = md_of_a_usual_device();
    fake_queue queue_;
    std::unique_ptr<iface> f_;
    gid_type gid_{};
    alignas(64) unsigned char bufs_[limits::control_slots][sizeof(tx_buf) + limits::control_size_max] = {};
};

} // namespace srd::control_test
