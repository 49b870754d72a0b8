/* Unit tests of one-sided operations and fences (srd_rma.cc): every answer of a post, every state of a fence, and the end of a
 * record by completion, error, cancel and failure. An interface over a device of this file, which notes what it is given.
 */
#include "uct/srd/srd_rma.h"

#include <cerrno>
#include <cstring>
#include <gtest/gtest.h>
#include <memory>
#include <sys/resource.h>
#include <unistd.h>
#include <vector>

using namespace srd;

namespace {

uct_srd_md_t md_of_a_device_that_writes()
{
    uct_srd_md_t md{};
    md.attr.inline_size      = 32;
    md.attr.max_message_size = 8928;
    md.attr.max_rdma_size    = 1u << 20;
    md.attr.max_sq_wr        = 256;
    md.attr.max_rq_wr        = 512;
    md.attr.max_cqe          = 4096;
    return md;
}

uct_srd_iface_config_t config_of_a_test()
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
};

/// What the two ways of posting write down. Verbs gives an operation no argument of ours.
struct device {
    std::vector<request> got;
    int answer = 0; ///< of the next posts
    request open{};
};
device *device_of_test = nullptr;

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
            e->owner             = p_;
            e->peer_next         = p_->eps;
            p_->eps              = e;
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
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "the sanitizer's allocator ends the process when there is none";
#endif
    const auto trial = [&] { // in a process of its own: it uses up all memory
        ah_entry handle{};
        p_->ah_ref = &handle; // known, and idle: its slow part was given back
        p_->state  = peer_state::fresh;
        f_->peers.slow_put_idle(p_);
        const rlimit none{0, 0};
        setrlimit(RLIMIT_DATA, &none);
        setrlimit(RLIMIT_AS, &none);
        static peer taken[2 * limits::slows_per_chunk];
        for (std::size_t size = 65536; size >= 16; size /= 2) {
            void *volatile last; // else the compiler may leave the calls out
            do {
                last = std::malloc(size);
            } while (last != nullptr);
        }
        for (peer &one : taken) {
            f_->peers.slow_get(&one);
        }
        const bool starved = f_->peers.slow_get(p_) == nullptr && p_->slow == &peer_slow_idle;
        const bool retried = put(e_) == UCS_ERR_NO_RESOURCE && p_->retime && (p_->want & want_hello) && p_->in_work;
        _exit(!starved ? 2 : retried ? 0 : 1);
    };
    EXPECT_EXIT(trial(), testing::ExitedWithCode(0), "");
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

// --- fences ----------------------------------------------------------------------------------------------------------------

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
        e_.fence_psn   = p_->tx.next() - ago;
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
