/* Messages that no correct peer sends: each is dropped for one counted reason, or its sender failed; nothing of it is delivered,
 * every receive stays accounted for, and the interface goes on. A remote by hand says them: its bytes are written from
 * docs/transport-protocol.md, so that a decoder is not judged by its own encoder.
 */
#include "two_nodes.h"

#include <array>
#include <initializer_list>

using namespace srd_net;
using srd::counter;

namespace {

constexpr std::uint32_t credit_flag = 1u << 21, long_flag = 1u << 22, control_flag = 1u << 23;
constexpr unsigned hello = 1, nak = 3, credit = 4, nop = 16, bye = 17;
constexpr std::uint32_t no_index = 0xffffffff;

std::uint32_t imm(unsigned id, std::uint32_t psn, std::uint32_t flags) { return flags | id << 16 | (psn & 0xffff); }

void put_le(std::uint8_t *to, std::uint32_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; ++i) {
        to[i] = static_cast<std::uint8_t>(value >> (8 * i));
    }
}

struct remote {
    fake::gid_bytes gid = fuzz::gid_of(7);
    std::uint16_t qpn   = 77;
    std::uint32_t qkey = 0x7777, epoch = 0x70001, known_epoch = 0, index = no_index, consumed = 0, limit = 16;
    std::uint8_t version = 1, version_min = 1;

    std::array<std::uint8_t, 48> long_header() const
    {
        std::array<std::uint8_t, 48> h{};
        put_le(&h[0], index, 4);
        h[4] = version;
        h[5] = version_min;
        put_le(&h[6], 1, 2);
        put_le(&h[8], qkey, 4);
        put_le(&h[12], epoch, 4);
        put_le(&h[16], known_epoch, 4);
        put_le(&h[20], 0x00100000, 4); // what the interface shall call itself
        std::copy(gid.begin(), gid.end(), h.begin() + 24);
        put_le(&h[40], consumed, 4);
        put_le(&h[44], limit, 4);
        return h;
    }
};

class srd_hostile : public testing::Test {
protected:
    void SetUp() override
    {
        fake::clock_ns   = 1'000'000'000'000;
        fake::clock_step = 1'000;
        open({});
    }

    void open(const fuzz::options &o)
    {
        keeper_.keep = false;
        n            = std::make_unique<node>(fuzz::gid_of(1), o);
        ASSERT_EQ(n->open(11), UCS_OK);
        uct_iface_set_am_handler(n->handle(), 1, on_message, &keeper_, 0);
    }

    void TearDown() override
    {
        n->check_conservation();
        n->check_receives();
        while (!n->device.sends.empty()) {
            n->device.complete_send(0, IBV_WC_SUCCESS, 0);
        }
        n.reset(); // checks that nothing is left
        fake::clock_step = 100'000;
    }

    /// What the device shows of a message of `r` is true, unless `as` is given: somebody else's address and queue pair.
    void arrive(const void *bytes, std::size_t size, std::uint32_t imm, const remote &r, bool with_imm = true)
    {
        ASSERT_TRUE(n->device.arrive(bytes, size, imm, with_imm, n->device.number_of(r.gid), r.qpn));
        n->progress();
    }
    void arrive_long(const remote &r, std::uint32_t imm, std::size_t payload = 0)
    {
        std::vector<std::uint8_t> bytes(48 + payload, 0x5a);
        const auto h = r.long_header();
        std::copy(h.begin(), h.end(), bytes.begin());
        arrive(bytes.data(), bytes.size(), imm, r);
    }
    void arrive_short(const remote &r, std::uint32_t index, std::uint32_t imm, std::size_t size = 4)
    {
        std::uint8_t bytes[16] = {};
        put_le(bytes, index, 4);
        arrive(bytes, size, imm, r);
    }

    /// A first message, and all that the interface answers: `r` knows its index and epoch then, as any remote would.
    void greet(remote &r)
    {
        const auto messages = keeper_.messages;
        arrive_long(r, imm(1, 0, long_flag));
        ASSERT_EQ(keeper_.messages, messages + 1);
        n->progress();
        bool answered = false;
        while (!n->device.sends.empty()) {
            const auto bytes = n->device.gather(n->device.sends[0]);
            if (n->device.sends[0].gid == r.gid && n->device.sends[0].qpn == r.qpn && bytes.size() >= 48) {
                answered = true;
                std::memcpy(&r.known_epoch, &bytes[12], 4);
                std::memcpy(&r.index, &bytes[20], 4);
            }
            n->device.complete_send(0, IBV_WC_SUCCESS, 0);
        }
        n->progress();
        ASSERT_TRUE(answered);
        ASSERT_NE(r.index, no_index);
    }

    std::uint64_t value(counter c) const { return n->f->counters.get(c); }

    /// Whatever `act` does is dropped, `times` in all, for this reason and no other; nothing is delivered.
    template <class Act> void expect_dropped(counter reason, Act act, unsigned times = 1)
    {
        const auto messages = keeper_.messages;
        const auto before = value(reason), dropped = n->dropped();
        act();
        EXPECT_EQ(value(reason), before + times) << srd::counter_names[static_cast<unsigned>(reason)];
        EXPECT_EQ(n->dropped(), dropped + times);
        EXPECT_EQ(keeper_.messages, messages);
        n->check_conservation();
        n->check_receives();
    }

    std::uint64_t failed() const { return value(counter::peers_failed); }

    std::unique_ptr<node> n;
    keeper keeper_;
};

TEST_F(srd_hostile, a_message_without_an_immediate_is_dropped)
{
    remote r;
    greet(r);
    const std::uint8_t bytes[64] = {};
    for (const std::size_t size : {0, 4, 12, 48, 64}) {
        expect_dropped(counter::rx_dropped_flags, [&] { arrive(bytes, size, imm(1, 1, 0), r, false); });
    }
    EXPECT_EQ(failed(), 0u);
}

TEST_F(srd_hostile, a_flag_that_nobody_knows_is_dropped)
{
    remote r;
    greet(r);
    for (unsigned bit = 25; bit < 32; ++bit) {
        expect_dropped(counter::rx_dropped_flags, [&] { arrive_short(r, r.index, imm(1, 1, 1u << bit)); });
        expect_dropped(counter::rx_dropped_flags, [&] { arrive_long(r, imm(1, 1, long_flag | 1u << bit)); });
    }
    expect_dropped(counter::rx_dropped_flags, [&] { arrive_long(r, imm(1, 1, long_flag | credit_flag)); });
    EXPECT_EQ(failed(), 0u);
    arrive_short(r, r.index, imm(1, 1, 0)); // the psn was not used up
    EXPECT_EQ(keeper_.messages, 2u);
}

TEST_F(srd_hostile, a_message_shorter_than_its_header_is_dropped_at_every_length)
{
    remote r;
    greet(r);
    const auto h = r.long_header();
    for (std::size_t size = 0; size < 48; ++size) {
        expect_dropped(counter::rx_dropped_short, [&] { arrive(h.data(), size, imm(1, 1, long_flag), r); });
    }
    for (std::size_t size = 0; size < 12; ++size) {
        expect_dropped(counter::rx_dropped_short, [&] { arrive_short(r, r.index, imm(1, 1, credit_flag), size); });
    }
    for (std::size_t size = 0; size < 4; ++size) {
        expect_dropped(counter::rx_dropped_short, [&] { arrive_short(r, r.index, imm(1, 1, 0), size); });
    }
    EXPECT_EQ(failed(), 0u);
    arrive_short(r, r.index, imm(1, 1, 0));
    EXPECT_EQ(keeper_.messages, 2u);
}

TEST_F(srd_hostile, a_long_header_that_contradicts_itself_is_dropped)
{
    remote r;
    r.epoch = 0; // no life
    expect_dropped(counter::rx_dropped_control, [&] { arrive_long(r, imm(1, 0, long_flag)); });
    r.epoch       = 5;
    r.version_min = 2; // older than the version
    expect_dropped(counter::rx_dropped_control, [&] { arrive_long(r, imm(1, 0, long_flag)); });
    EXPECT_EQ(value(counter::peers_created), 0u);
}

TEST_F(srd_hostile, a_version_that_we_do_not_speak_is_dropped)
{
    remote r;
    r.version = r.version_min = 2;
    expect_dropped(counter::rx_dropped_version, [&] { arrive_long(r, imm(1, 0, long_flag)); });
    r.version = 255;
    expect_dropped(counter::rx_dropped_version, [&] { arrive_long(r, imm(1, 0, long_flag)); });
    r.version = r.version_min = 0;
    expect_dropped(counter::rx_dropped_version, [&] { arrive_long(r, imm(1, 0, long_flag)); });
    EXPECT_EQ(value(counter::peers_created), 0u);
}

TEST_F(srd_hostile, a_sender_that_claims_to_be_another_is_dropped)
{
    remote r, other;
    other.gid = fuzz::gid_of(8);
    greet(r);
    greet(other);
    const auto h = r.long_header(); // in the name of r, from the device of the other
    expect_dropped(counter::rx_dropped_foreign, [&] {
        ASSERT_TRUE(n->device.arrive(h.data(), h.size(), imm(1, 1, long_flag), true, n->device.number_of(other.gid), r.qpn));
        n->progress();
    });
    EXPECT_EQ(failed(), 0u);
    arrive_short(r, r.index, imm(1, 1, 0));
    EXPECT_EQ(keeper_.messages, 3u);
}

TEST_F(srd_hostile, an_index_that_is_not_the_senders_is_dropped)
{
    remote r, other;
    other.gid = fuzz::gid_of(8);
    other.qpn = 78;
    greet(r);
    greet(other);
    for (const std::uint32_t index : {no_index, r.index + 1, r.index + 2, r.index ^ 1u << 20, other.index, std::uint32_t{0xfffff}}) {
        expect_dropped(counter::rx_dropped_stale, [&] { arrive_short(r, index, imm(1, 1, 0)); });
    }
    std::uint8_t bytes[4];
    put_le(bytes, r.index, 4);
    expect_dropped(counter::rx_dropped_stale, [&] { // another queue pair of its device
        ASSERT_TRUE(n->device.arrive(bytes, 4, imm(1, 1, 0), true, n->device.number_of(r.gid), r.qpn + 1u));
        n->progress();
    });
    expect_dropped(counter::rx_dropped_stale, [&] { // a device that is not known
        ASSERT_TRUE(n->device.arrive(bytes, 4, imm(1, 1, 0), true, fake::ah_unknown, r.qpn));
        n->progress();
    });
    EXPECT_EQ(failed(), 0u);
    arrive_short(r, r.index, imm(1, 1, 0));
    arrive_short(other, other.index, imm(1, 1, 0));
    EXPECT_EQ(keeper_.messages, 4u);
}

TEST_F(srd_hostile, a_message_to_a_former_life_of_ours_is_answered_with_our_epoch)
{
    remote r;
    greet(r);
    const std::uint32_t right = r.known_epoch;
    r.known_epoch             = right + 1;
    expect_dropped(counter::rx_dropped_stale, [&] { arrive_long(r, imm(1, 1, long_flag)); });
    EXPECT_EQ(failed(), 0u);
    n->progress();
    ASSERT_EQ(n->device.sends.size(), 1u);
    const auto bytes = n->device.gather(n->device.sends[0]);
    ASSERT_GE(bytes.size(), 48u);
    EXPECT_EQ(std::memcmp(&bytes[12], &right, 4), 0);
}

TEST_F(srd_hostile, a_new_epoch_ends_the_life_before_and_its_stragglers_begin_none)
{
    remote r;
    greet(r);
    uct_ep_h ep = n->connect(r.gid, r.qpn, r.qkey);
    ASSERT_NE(ep, nullptr);
    remote later      = r;
    later.epoch       = r.epoch + 1;
    later.known_epoch = 0;
    later.index       = no_index;
    greet(later);
    EXPECT_EQ(failed(), 1u);
    EXPECT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_ERR_ENDPOINT_TIMEOUT);
    const auto created = value(counter::peers_created);
    expect_dropped(counter::rx_dropped_stale, [&] { arrive_long(r, imm(1, 1, long_flag)); });
    expect_dropped(counter::rx_dropped_stale, [&] { arrive_short(r, r.index, imm(1, 1, 0)); });
    EXPECT_EQ(value(counter::peers_created), created);
    EXPECT_EQ(failed(), 1u);
    arrive_short(later, later.index, imm(1, 1, 0));
    EXPECT_EQ(keeper_.messages, 3u);
    n->handle()->ops.ep_destroy(ep);
    for (unsigned i = 0; i < 100; ++i) { // until it is forgotten that the former life failed
        fake::clock_ns += 100'000'000;
        n->progress_timers();
        while (!n->device.sends.empty()) {
            n->device.complete_send(0, IBV_WC_SUCCESS, 0);
        }
    }
    EXPECT_EQ(value(counter::peers_released), 1u);
    expect_dropped(counter::rx_dropped_stale, [&] { arrive_long(r, imm(1, 1, long_flag)); });
    EXPECT_EQ(failed(), 1u);
    arrive_short(later, later.index, imm(1, 2, 0));
    EXPECT_EQ(keeper_.messages, 4u);
}

TEST_F(srd_hostile, what_was_seen_before_is_dropped)
{
    remote r;
    greet(r);
    arrive_short(r, r.index, imm(1, 1, 0));
    for (const std::uint32_t psn : {1u, 0u, 0xffffu, 0xff80u}) { // also such as never were
        expect_dropped(counter::rx_dropped_duplicate, [&] { arrive_short(r, r.index, imm(1, psn, 0)); });
    }
    EXPECT_EQ(failed(), 0u);
}

TEST_F(srd_hostile, a_psn_beyond_the_window_fails_its_sender)
{
    remote r;
    greet(r);
    uct_ep_h ep = n->connect(r.gid, r.qpn, r.qkey);
    expect_dropped(counter::rx_dropped_window, [&] { arrive_short(r, r.index, imm(1, 1 + 256, 0)); });
    EXPECT_EQ(failed(), 1u);
    EXPECT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_ERR_IO_ERROR);
    n->handle()->ops.ep_destroy(ep);
}

TEST_F(srd_hostile, a_psn_beyond_the_credits_fails_its_sender)
{
    remote r;
    greet(r);
    uct_ep_h ep = n->connect(r.gid, r.qpn, r.qkey);
    expect_dropped(counter::rx_dropped_uncredited, [&] { arrive_short(r, r.index, imm(1, 200, 0)); });
    EXPECT_EQ(failed(), 1u);
    EXPECT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_ERR_IO_ERROR);
    n->handle()->ops.ep_destroy(ep);
}

TEST_F(srd_hostile, impossible_credits_fail_their_sender)
{
    struct pair {
        std::uint32_t consumed, limit;
    };
    unsigned number = 0;
    for (const pair &c : {pair{100, 116}, pair{0, 0x20000}, pair{0, 0x80000001}}) { // of psns that were never sent; more than a window
        remote r;
        r.gid = fuzz::gid_of(20 + number++);
        greet(r);
        uct_ep_h ep            = n->connect(r.gid, r.qpn, r.qkey);
        std::uint8_t bytes[12] = {};
        put_le(bytes, r.index, 4);
        put_le(bytes + 4, c.consumed, 4);
        put_le(bytes + 8, c.limit, 4);
        expect_dropped(counter::rx_dropped_credit, [&] { arrive(bytes, 12, imm(1, 1, credit_flag), r); });
        EXPECT_EQ(failed(), number) << c.consumed << ' ' << c.limit;
        EXPECT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_ERR_IO_ERROR);
        n->handle()->ops.ep_destroy(ep);
    }
}

TEST_F(srd_hostile, an_unknown_or_malformed_control_message_is_dropped)
{
    remote r;
    greet(r);
    for (unsigned type = 0; type < 16; ++type) {
        if (type == 0 || type > 5) {
            expect_dropped(counter::rx_dropped_control, [&] { arrive_short(r, r.index, imm(type, 0, control_flag)); });
            expect_dropped(counter::rx_dropped_control, [&] { arrive_long(r, imm(type, 0, control_flag | long_flag)); });
        }
    }
    for (const unsigned type : {hello, hello + 1, nak, credit}) { // none of them has a short header alone
        expect_dropped(counter::rx_dropped_control, [&] { arrive_short(r, r.index, imm(type, 0, control_flag)); });
    }
    for (const std::size_t extra : {1, 9}) { // bytes that they do not have
        expect_dropped(counter::rx_dropped_control, [&] { arrive_long(r, imm(hello, 0, control_flag | long_flag), extra); });
        expect_dropped(counter::rx_dropped_control, [&] { arrive_long(r, imm(credit, 0, control_flag | long_flag), extra); });
        expect_dropped(counter::rx_dropped_control, [&] { arrive_short(r, r.index, imm(5, 0, control_flag), 4 + extra); });
    }
    expect_dropped(counter::rx_dropped_control, [&] { arrive_long(r, imm(nak, 0, control_flag | long_flag), 0); });
    expect_dropped(counter::rx_dropped_control, [&] { arrive_long(r, imm(nak, 0, control_flag | long_flag), 1); }); // reason 0x5a
    expect_dropped(counter::rx_dropped_control, [&] { arrive_long(r, imm(nak, 0, control_flag | long_flag), 2); });
    EXPECT_EQ(failed(), 0u);
}

TEST_F(srd_hostile, an_unknown_control_message_in_sequence_fails_its_sender)
{
    unsigned number = 0;
    for (const unsigned type : {bye + 1, 25u, 31u}) {
        remote r;
        r.gid = fuzz::gid_of(20 + number++);
        greet(r);
        expect_dropped(counter::rx_dropped_control, [&] { arrive_short(r, r.index, imm(type, 1, control_flag)); });
        EXPECT_EQ(failed(), number); // its psn is lost: nothing behind it could ever be delivered
    }
}

TEST_F(srd_hostile, more_senders_than_there_is_room_for_are_dropped)
{
    n.reset();
    fuzz::options few;
    few.max_peers = 2;
    open(few);
    remote known;
    greet(known);
    for (unsigned i = 0; i < 20; ++i) {
        remote r;
        r.gid = fuzz::gid_of(30 + i);
        if (i == 0) {
            greet(r);
        } else {
            expect_dropped(counter::rx_dropped_no_peer, [&] { arrive_long(r, imm(1, 0, long_flag)); });
        }
    }
    arrive_short(known, known.index, imm(1, 1, 0));
    EXPECT_EQ(keeper_.messages, 3u);
    EXPECT_EQ(failed(), 0u);
}

TEST_F(srd_hostile, what_arrives_while_the_interface_closes_is_dropped)
{
    remote r;
    greet(r);
    n->f->closing = true; // as iface_close has it while it waits for its sends
    n->f->peers.at(0)->accept_none();
    expect_dropped(counter::rx_dropped_closing, [&] { arrive_short(r, r.index, imm(1, 1, 0)); });
    expect_dropped(counter::rx_dropped_closing, [&] { arrive_long(r, imm(1, 1, long_flag)); });
    n->f->closing = false;
}

TEST_F(srd_hostile, a_receive_that_fails_is_counted_and_posted_again)
{
    remote r;
    greet(r);
    const auto messages        = keeper_.messages;
    const std::uint8_t none[4] = {};
    for (const ibv_wc_status status : {IBV_WC_LOC_LEN_ERR, IBV_WC_LOC_PROT_ERR, IBV_WC_GENERAL_ERR}) {
        const auto before = value(counter::rx_error);
        ASSERT_TRUE(n->device.arrive(none, 0, 0, false, 0, 0, status, 5));
        n->progress();
        EXPECT_EQ(value(counter::rx_error), before + 1);
    }
    for (std::uint32_t psn = 1; psn < 3; ++psn) {
        arrive_short(r, r.index, imm(1, psn, 0));
    }
    EXPECT_EQ(keeper_.messages, messages + 2);
    EXPECT_EQ(failed(), 0u);
}

TEST_F(srd_hostile, a_message_that_fills_its_receive_is_delivered_whole)
{
    remote r;
    std::vector<std::uint8_t> got;
    uct_iface_set_am_handler(n->handle(), 2, [](void *arg, void *data, std::size_t size, unsigned) {
        static_cast<std::vector<std::uint8_t> *>(arg)->assign(static_cast<std::uint8_t *>(data), static_cast<std::uint8_t *>(data) + size);
        return UCS_OK;
    }, &got, 0);
    greet(r);
    std::vector<std::uint8_t> bytes(n->opts.message_size);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<std::uint8_t>(i * 7);
    }
    put_le(bytes.data(), r.index, 4);
    arrive(bytes.data(), bytes.size(), imm(2, 1, 0), r);
    EXPECT_EQ(got, std::vector<std::uint8_t>(bytes.begin() + 4, bytes.end()));
    const auto h = r.long_header();
    std::copy(h.begin(), h.end(), bytes.begin());
    arrive(bytes.data(), bytes.size(), imm(2, 2, long_flag), r);
    EXPECT_EQ(got, std::vector<std::uint8_t>(bytes.begin() + 48, bytes.end()));
}

TEST_F(srd_hostile, an_active_message_that_nobody_handles_is_taken_and_changes_nothing)
{
    remote r;
    greet(r);
    for (unsigned id = 2, psn = 1; id < 4; ++id, ++psn) {
        arrive_short(r, r.index, imm(id, psn, 0), 16);
    }
    EXPECT_EQ(keeper_.messages, 1u);
    EXPECT_EQ(value(counter::rx_am), 3u);
    EXPECT_EQ(failed(), 0u);
}

} // namespace
