/* Two whole interfaces on a network in memory: what the tests of this folder have in common. One endpoint leads from left to right;
 * at the right a handler counts what arrives, and keeps what it may.
 */
#pragma once

#include "fuzz/net.h"

#include <gtest/gtest.h>

#include <cstring>

namespace srd_net {

using fuzz::node;

struct keeper {
    std::vector<void *> kept;
    unsigned messages = 0;
    bool keep         = true;
};

inline ucs_status_t on_message(void *arg, void *payload, std::size_t, unsigned flags)
{
    auto *k = static_cast<keeper *>(arg);
    ++k->messages;
    if (k->keep && (flags & UCT_CB_PARAM_FLAG_DESC)) {
        k->kept.push_back(payload);
        return UCS_INPROGRESS;
    }
    return UCS_OK;
}

inline void release(void *payload)
{
    uct_recv_desc_t *desc;
    std::memcpy(&desc, static_cast<char *>(payload) - sizeof(desc), sizeof(desc));
    desc->cb(desc, payload);
}

class two_nodes : public testing::Test {
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
        uct_iface_set_am_handler(right->handle(), 1, on_message, &keeper_, 0);
        ep = left->connect(right->device.gid, right->qpn(), right->device.qkey);
        ASSERT_NE(ep, nullptr);
    }

    /// Everything that can move does, in order.
    void settle(unsigned rounds = 50)
    {
        for (unsigned i = 0; i < rounds; ++i) {
            fake::clock_ns += 50'000'000;
            for (node *n : {left.get(), right.get()}) {
                n->progress_timers();
                while (!n->device.sends.empty() && n->device.completions.size() < 200) {
                    net.carry(*n, 0);
                }
            }
        }
    }

    /// Sends so many, settling whenever it must wait.
    void send(unsigned count)
    {
        for (unsigned sent = 0, tries = 0; sent < count && tries < 10 * count + 100; ++tries) {
            const ucs_status_t status = uct_ep_am_short(ep, 1, sent, nullptr, 0);
            if (status == UCS_OK) {
                ++sent;
            } else {
                ASSERT_EQ(status, UCS_ERR_NO_RESOURCE);
                settle(2);
            }
        }
        settle();
    }

    void TearDown() override
    {
        fake::clock_step = 100'000;
        if (ep != nullptr) {
            left->handle()->ops.ep_destroy(ep);
        }
        for (void *payload : keeper_.kept) {
            release(payload);
        }
        right.reset(); // the nodes check that nothing is left
        left.reset();
    }

    std::unique_ptr<node> left, right;
    fuzz::network net;
    keeper keeper_;
    uct_ep_h ep = nullptr;
};

} // namespace srd_net
