/* Whom trouble on request concerns, carried out by the device: one queue pair by its number, or a share of all peers. */
#include "softefa/dev/nic.h"

namespace {

using namespace nic;

class rude_peers : public device_test {};

/// Numbers come back in the next life, so that one can be named before it is there.
TEST_F(rude_peers, only_the_named_queue_pair_is_met_with_rudeness)
{
    wanted.reuse_qpn = 1;
    use();
    {
        const endpoint e;
        wanted.rude.qpn = e.qp.qpn;
    }
    wanted.rude.fail_status    = 8;
    wanted.rude.fail_per_65536 = 65536;
    use();
    endpoint named, other;
    ASSERT_EQ(named.qp.qpn, wanted.rude.qpn);
    for (std::uint16_t i = 0; i < 20; ++i) {
        for (endpoint *to : {&named, &other}) {
            to->qp.post_recv(i, {to->slice(0, 64)});
            other.qp.post(other.qp.send_inline(i, other.ah, to->qp.qpn, "x"));
            const auto done = other.scq.wait();
            ASSERT_TRUE(done);
            EXPECT_EQ(done->status, to == &named ? 8 : 0) << i;
            EXPECT_EQ(to->rcq.poll_surely().has_value(), to == &other) << i;
        }
    }
}

/// The same for the side that receives: whose messages are not received.
TEST_F(rude_peers, only_the_named_queue_pair_is_not_received)
{
    wanted.reuse_qpn = 1;
    use();
    {
        const endpoint e;
        wanted.rude.qpn = e.qp.qpn;
    }
    wanted.rude.rnr_every = 1;
    use();
    endpoint named(1 << 16, {}, 0), other(1 << 16, {}, 0), to;
    ASSERT_EQ(named.qp.qpn, wanted.rude.qpn);
    for (std::uint16_t i = 0; i < 20; ++i) {
        to.qp.post_recv(i, {to.slice(0, 64)});
        for (endpoint *from : {&named, &other}) {
            from->qp.post(from->qp.send_inline(i, from->ah, to.qp.qpn, "x"));
            const auto done = from->scq.wait();
            ASSERT_TRUE(done);
            EXPECT_EQ(done->status, from == &named ? 10 : 0) << i;
            EXPECT_EQ(to.rcq.poll_surely().has_value(), from == &other) << i;
        }
    }
}

TEST_F(rude_peers, peer_is_bad_or_good_as_long_as_it_lives)
{
    wanted.rude.peers_per_65536 = 65536 / 2;
    wanted.rude.fail_status     = 8;
    wanted.rude.fail_per_65536  = 65536;
    use();
    endpoint                one, two;
    std::vector<queue_pair> peers(40);
    unsigned                bad = 0;
    for (queue_pair &q : peers) {
        ASSERT_TRUE(q.open(one.at, one.pd, one.scq.h, one.rcq.h));
        q.connect();
    }
    std::vector<int> first(peers.size(), -1);
    for (unsigned round = 0; round < 6; ++round) {
        for (std::size_t n = 0; n < peers.size(); ++n) {
            endpoint &from = round % 2 == 0 ? one : two; // whoever asks
            peers[n].post_recv(1, {one.slice(0, 64)});
            from.qp.post(from.qp.send_inline(1, from.ah, peers[n].qpn, "x"));
            const auto done = from.scq.wait();
            ASSERT_TRUE(done);
            ASSERT_TRUE(done->status == 0 || done->status == 8) << int{done->status};
            if (round == 0)
                first[n] = done->status, bad += done->status == 8;
            EXPECT_EQ(done->status, first[n]) << "round " << round;
            EXPECT_EQ(one.rcq.poll_surely().has_value(), done->status == 0);
        }
    }
    EXPECT_GT(bad, 0u);
    EXPECT_LT(bad, peers.size());
}

} // namespace
