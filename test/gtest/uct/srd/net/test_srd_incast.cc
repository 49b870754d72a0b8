/* Many senders into one slow receiver, on a network in memory and in virtual time: how often a message meets no receive, how
 * evenly the senders get through, and how much memory the receiver takes. Real interfaces; the same figures as the system
 * test `ucp_faults incast`, but exact, and the same for each run.
 */
#include "fuzz/net.h"

#include "base/rng.h"

#include <cstring>

#include <gtest/gtest.h>

using fuzz::node;

namespace {

struct scenario {
    unsigned senders        = 64;
    unsigned messages       = 1000; ///< of each sender
    unsigned receive_every  = 16;   ///< the receiver looks once in so many turns
    unsigned senders_a_turn = 64;   ///< so many senders have a processor at a time ...
    unsigned turns_a_slice  = 1;    ///< ... for so many turns
    unsigned stall          = 0;    ///< turns that the receiver sleeps at the start
    unsigned rx_queue_len   = 128;
    bool bcopy              = false;
};

struct result {
    double refused_share; ///< attempts that met no receive, of the messages delivered
    double jain;          ///< of what the senders had got through when the first was done
    std::size_t receives; ///< most receive buffers
    std::uint64_t control; ///< control messages of the receiver
    std::uint64_t turns;
};

struct counting {
    std::vector<std::uint32_t> next;
    std::uint64_t total = 0;
    unsigned goal       = 0;
    std::vector<std::uint32_t> when_first_done;
};

ucs_status_t on_message(void *arg, void *payload, std::size_t length, unsigned)
{
    auto *c = static_cast<counting *>(arg);
    std::uint64_t header;
    std::memcpy(&header, payload, sizeof(header));
    const auto sender = static_cast<std::uint32_t>(header >> 32);
    EXPECT_GE(length, sizeof(header));
    EXPECT_EQ(c->next[sender], static_cast<std::uint32_t>(header)); // in order, exactly once
    ++c->next[sender];
    ++c->total;
    if (c->next[sender] == c->goal && c->when_first_done.empty()) {
        c->when_first_done = c->next;
    }
    return UCS_OK;
}

result play(const scenario &s)
{
    fake::clock_ns   = 1'000'000'000'000;
    fake::clock_step = 0;
    base::rng random(1);
    fuzz::options o;
    o.tx_queue_len = 240;
    o.rx_queue_len = s.rx_queue_len;
    o.max_peers    = 1000;
    node receiver(fuzz::gid_of(0), o);
    EXPECT_EQ(receiver.open(1), UCS_OK);
    fuzz::network net;
    net.nodes.push_back(&receiver);
    fuzz::options small = o;
    small.rx_queue_len  = 16;
    std::vector<std::unique_ptr<node>> senders;
    std::vector<uct_ep_h> eps;
    counting c;
    c.goal = s.messages;
    c.next.resize(s.senders);
    uct_iface_set_am_handler(receiver.handle(), 1, on_message, &c, 0);
    for (unsigned i = 0; i < s.senders; ++i) {
        senders.push_back(std::make_unique<node>(fuzz::gid_of(1 + i), small));
        EXPECT_EQ(senders.back()->open(static_cast<std::uint16_t>(2 + i)), UCS_OK);
        net.nodes.push_back(senders.back().get());
        eps.push_back(senders.back()->connect(receiver.device.gid, receiver.qpn(), receiver.device.qkey));
        EXPECT_NE(eps.back(), nullptr);
    }
    std::vector<unsigned> sent(s.senders, 0);
    std::uint64_t turn = 0;
    result r{};
    for (; c.total < std::uint64_t{s.senders} * s.messages && turn < 20'000'000; ++turn) {
        fake::clock_ns += 1'000;
        // All that have a processor, in an order that favours nobody.
        const unsigned first  = static_cast<unsigned>(turn / s.turns_a_slice) * s.senders_a_turn;
        const unsigned rotate = random.below(s.senders_a_turn);
        for (unsigned k = 0; k < s.senders_a_turn; ++k) {
            const unsigned i = (first + (k + rotate) % s.senders_a_turn) % s.senders;
            // A sender posts what it can, a few in a turn.
            for (unsigned b = 0; b < 4 && sent[i] < s.messages; ++b) {
                const std::uint64_t header = std::uint64_t{i} << 32 | sent[i];
                if (uct_ep_am_short(eps[i], 1, header, nullptr, 0) != UCS_OK) {
                    break;
                }
                ++sent[i];
            }
            senders[i]->progress();
            while (!senders[i]->device.sends.empty()) { // a wire without a queue
                net.carry(*senders[i], random.below(static_cast<std::uint32_t>(senders[i]->device.sends.size())));
            }
        }
        if (turn >= s.stall && turn % s.receive_every == 0) {
            receiver.progress();
            while (!receiver.device.sends.empty()) {
                net.carry(receiver, 0);
            }
        }
        r.receives = std::max(r.receives, receiver.f->rx_bufs.total());
    }
    EXPECT_EQ(c.total, std::uint64_t{s.senders} * s.messages);
    r.turns         = turn;
    r.refused_share = static_cast<double>(net.refused) / static_cast<double>(c.total);
    double sum = 0, squares = 0;
    for (const std::uint32_t n : c.when_first_done) {
        sum += n;
        squares += double(n) * n;
    }
    r.jain    = sum * sum / (squares * s.senders);
    r.control = receiver.f->counters.get(srd::counter::tx_control);
    for (unsigned i = 0; i < s.senders; ++i) {
        senders[i]->handle()->ops.ep_destroy(eps[i]);
    }
    fake::clock_step = 100'000;
    return r;
}

void print(const char *what, const result &r)
{
    std::printf("%s: refused %.4f %%, Jain %.4f, %zu receive buffers, %llu control messages, %llu turns\n", what,
                100 * r.refused_share, r.jain, r.receives, static_cast<unsigned long long>(r.control),
                static_cast<unsigned long long>(r.turns));
}

void expect_good(const char *what, const scenario &s, bool fair = true)
{
    const result r = play(s);
    print(what, r);
    EXPECT_LE(r.refused_share, 0.01);
    if (fair) {
        EXPECT_GE(r.jain, 0.95);
    }
    EXPECT_LE(r.receives, 1024u);
}

} // namespace

TEST(srd_incast, all_senders_at_once) { expect_good("at once", {}); }

TEST(srd_incast, receiver_that_rarely_looks)
{
    scenario s;
    s.receive_every = 200;
    s.messages      = 500;
    expect_good("rarely", s);
}

TEST(srd_incast, senders_take_turns_on_few_processors)
{
    scenario s;
    s.senders_a_turn = 2;
    s.turns_a_slice  = 3000; // a scheduler's slice
    s.receive_every  = 8;
    expect_good("slices", s, false); // who gets through first is the scheduler's choice here
}

TEST(srd_incast, receiver_sleeps_first)
{
    scenario s;
    s.stall = 50000;
    expect_good("asleep", s);
}
