/* Unit tests of active messages out (srd_am.cc): which bytes a short one becomes, and from where the device takes them. */
#include "device_that_takes_notes.h"

#include <cstring>

using namespace srd;
using namespace srd::rma_test;

namespace {

class srd_am : public srd_rma {
protected:
    ucs_status_t send(unsigned length) { return uct_srd_ep_am_short(&e_.super.super, 3, header_, payload_, length); }
    void owe_credits()
    {
        p_->want |= want_credit;
        p_->tx.hold();
    }
    /// What the device was given last, after a wire header of `header_size` bytes, is the message.
    void expect_message(unsigned header_size, unsigned length)
    {
        ASSERT_FALSE(device_.got.empty());
        const request &r  = device_.got.back();
        const auto *bytes = reinterpret_cast<const unsigned char *>(r.local);
        ASSERT_EQ(r.size, header_size + sizeof(header_) + length);
        EXPECT_EQ(std::memcmp(bytes + header_size, &header_, sizeof(header_)), 0);
        EXPECT_EQ(std::memcmp(bytes + header_size + sizeof(header_), payload_, length), 0);
        EXPECT_EQ(base::load_le<std::uint32_t>(bytes), p_->index_remote);
        EXPECT_EQ(wire::imm_id(r.imm), 3u);
    }
    bool is_inline() const { return device_.got.back().record->kind == op_kind::am_inline; }

    std::uint64_t header_ = 0x1122334455667788u;
    char payload_[64]     = "what a message says, which is longer than a work request is";
};

constexpr unsigned credit_header = wire::index_size + wire::credit_size;

TEST_F(srd_am, short_that_fits_is_inline)
{
    p_->index_remote = 0x01020304;
    (void)p_->tx.refresh();
    ASSERT_EQ(send(20), UCS_OK); // 4 + 8 + 20: all that one work request carries
    expect_message(wire::index_size, 20);
    EXPECT_TRUE(is_inline());
    ASSERT_EQ(send(21), UCS_OK);
    expect_message(wire::index_size, 21);
    EXPECT_FALSE(is_inline());
    complete_all();
    EXPECT_TRUE(p_->tx.empty());
    EXPECT_EQ(f_->tx.outstanding, 0u);
}

TEST_F(srd_am, short_that_owes_credits_carries_them_inline_if_they_fit)
{
    p_->index_remote    = 0x01020304;
    const tx_buf *first = f_->tx.bufs;
    owe_credits();
    ASSERT_EQ(send(12), UCS_OK);
    expect_message(credit_header, 12);
    EXPECT_TRUE(is_inline());
    EXPECT_TRUE(device_.got.back().imm & wire::imm_credit);
    const auto grant = wire::get_credit(reinterpret_cast<const unsigned char *>(device_.got.back().local) + wire::index_size);
    EXPECT_EQ(grant.limit, p_->credit.limit());
    EXPECT_EQ(p_->want & want_credit, 0);
    EXPECT_EQ(f_->tx.bufs, first);
    complete_all();
    EXPECT_TRUE(p_->tx.empty());
    EXPECT_EQ(f_->tx.sq_free, 16u);
    EXPECT_EQ(f_->tx.outstanding, 0u);

    owe_credits();
    ASSERT_EQ(send(13), UCS_OK); // one byte more than fits
    expect_message(credit_header, 13);
    EXPECT_FALSE(is_inline());
    EXPECT_NE(f_->tx.bufs, first);
    complete_all();
    EXPECT_EQ(f_->tx.bufs, first);
}

/// Else the next one would be noticed when the sender has used it up, and stands still.
TEST_F(srd_am, header_with_credits_makes_the_next_grant_due_at_half_of_it)
{
    p_->credit.renew(base::seq32(0), 64);
    for (unsigned i = 0; i < 40; ++i) {
        p_->rx.advance();
    }
    owe_credits();
    ASSERT_EQ(send(4), UCS_OK);
    ASSERT_EQ(p_->want & want_credit, 0);
    EXPECT_EQ(p_->attention, static_cast<std::uint32_t>(distance(p_->rx.expected(), p_->credit.due_at())));
    EXPECT_LT(p_->attention, p_->credit.outstanding());
    complete_all();
}

TEST_F(srd_am, short_that_carried_credits_inline_is_posted_again_with_them)
{
    owe_credits();
    device_.answer = ENOMEM;
    ASSERT_EQ(send(4), UCS_OK);
    EXPECT_EQ(p_->waiting_count, 1u);
    device_.answer = 0;
    ASSERT_TRUE(tx_repost(f_.get(), p_));
    expect_message(credit_header, 4);
    EXPECT_TRUE(device_.got.back().imm & wire::imm_credit);
    EXPECT_TRUE(is_inline());
    complete_all();
    EXPECT_EQ(f_->tx.sq_free, 16u);
}

TEST_F(srd_am, withdrawn_short_that_carried_credits_inline_keeps_them)
{
    owe_credits();
    ASSERT_EQ(send(4), UCS_OK);
    op *o = last();
    tx_withdraw(f_.get(), o, UCS_ERR_CANCELED);
    EXPECT_EQ(o->length, credit_header); // WIRE 5.6
    EXPECT_TRUE((o->imm & wire::imm_credit) && (o->imm & wire::imm_control));
    complete_all();
    EXPECT_EQ(f_->tx.outstanding, 0u);
    EXPECT_TRUE(p_->tx.empty());
}

TEST_F(srd_am, short_to_a_peer_that_has_not_answered_has_the_long_header)
{
    p_->state = peer_state::fresh;
    p_->tx.hold();
    ASSERT_EQ(send(8), UCS_OK);
    const request &r = device_.got.back();
    EXPECT_TRUE(r.imm & wire::imm_long);
    EXPECT_EQ(r.size, wire::long_size + sizeof(header_) + 8);
    EXPECT_FALSE(is_inline());
}

TEST_F(srd_am, short_fills_a_wide_request)
{
    use_wide_requests();
    ASSERT_EQ(send(44), UCS_OK); // 4 + 8 + 44: short_size, 64 in this test, is less than the 80 bytes
    expect_message(wire::index_size, 44);
    EXPECT_TRUE(is_inline());
    ASSERT_EQ(send(56), UCS_OK);
    expect_message(wire::index_size, 56);
    EXPECT_TRUE(is_inline());
    EXPECT_EQ(send(57), UCS_ERR_INVALID_PARAM);
    owe_credits();
    ASSERT_EQ(send(56), UCS_OK); // 12 + 8 + 56
    expect_message(credit_header, 56);
    EXPECT_TRUE(is_inline());
    p_->state = peer_state::fresh;
    p_->tx.hold();
    ASSERT_EQ(send(24), UCS_OK); // 48 + 8 + 24: so does a first message
    EXPECT_EQ(device_.got.back().size, 80u);
    EXPECT_TRUE(is_inline());
    complete_all();
    EXPECT_TRUE(p_->tx.empty());
    EXPECT_EQ(f_->tx.sq_free, 16u);
}

} // namespace
