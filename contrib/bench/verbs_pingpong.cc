/* A ping-pong by verbs, in turns with one by raw shared memory, between the same two processes on the same two cores.
 *
 * Owns: the blocks. Each block of verbs stands between two of raw shared memory (raw_pingpong.h, what shm_pingpong does) and is divided by their
 * mean: a block takes a fraction of a millisecond, so whatever the host does with the two cores meets both sides alike. Not measured are the first
 * blocks, and the first round trips of each.
 *
 * A message by verbs is what ib_send_lat -c SRD sends: ibv_post_send with a signal, not inline, its completion polled for before the answer is;
 * the receive is posted again before the answer is sent; sends and receives complete to completion queues of their own, polled for one entry; the
 * receives' places are 64 lines, used in turn. Unlike there, both sides look at every message, and no message has a time stamp (-e: it has, in an
 * array of which nothing was touched before).
 *
 *   PP-1  Every completion is a success of the place and the size it should be, and every message carries its number, in both directions and by
 *         both ways, or there is no figure.
 *   PP-2  Nothing is kept back: when a block ends, all that was sent is completed and every receive is posted again.
 */
#include "verbs_pingpong.h"

#include <memory>
#include <sys/wait.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace probe {

namespace {

constexpr std::uint64_t block_trips = 1000; // measured round trips of a block
constexpr std::uint64_t unmeasured  = 100;  // round trips before them
constexpr std::uint64_t warm_blocks = 8;    // of each, at the beginning, unmeasured: a full lap of Soft EFA's ring, whose pages are then touched
constexpr unsigned      receives    = 32;   // posted at any time
constexpr unsigned      places      = 64;   // lines that they are posted to in turn

[[noreturn]] void wrong(const char *what)
{
    std::fprintf(stderr, "verbs_probe: pingpong: %s\n", what);
    std::exit(1);
}

std::uint64_t stamp()
{
#if defined(__x86_64__)
    return __rdtsc();
#else
    return static_cast<std::uint64_t>(program::now_s() * 1e9);
#endif
}

std::uint64_t blocks_of(const settings &wish) { return std::max<std::uint64_t>(1, wish.count / block_trips); }

/// One of the two. `Drives`: it sends first.
template <bool Drives> class player {
public:
    player(const settings &wish, user &me, const raw::slots &slots, ibv_ah *ah, const address &peer)
        : me_(me), qp_(me.qp()), in_(Drives ? slots.back : slots.there), out_(Drives ? slots.there : slots.back), size_(wish.size)
    {
        ready(&send_sge_, places); // behind the receives' places
        send_wr_.sg_list             = &send_sge_;
        send_wr_.num_sge             = 1;
        send_wr_.opcode              = IBV_WR_SEND;
        send_wr_.send_flags          = IBV_SEND_SIGNALED;
        send_wr_.wr.ud.ah            = ah;
        send_wr_.wr.ud.remote_qpn    = peer.qpn;
        send_wr_.wr.ud.remote_qkey   = qkey;
        ready(&recv_sge_, 0);
        recv_wr_.sg_list = &recv_sge_;
        recv_wr_.num_sge = 1;
        if (wish.stamped)
            stamps_.reset(new std::uint64_t[(blocks_of(wish) + warm_blocks) * (block_trips + unmeasured)]); // untouched, as perftest has it
    }

    /// Seconds of one way.
    double raw_block() { return block([this] { raw_trip(); }); }
    double verbs_block() { return stamps_ != nullptr ? block([this] { verbs_trip<true>(); }) : block([this] { verbs_trip<false>(); }); }

private:
    template <class Trip> double block(Trip &&trip)
    {
        for (std::uint64_t n = 0; n < unmeasured; ++n)
            trip();
        const double started = program::now_s();
        for (std::uint64_t n = 0; n < block_trips; ++n)
            trip();
        return (program::now_s() - started) / 2.0 / static_cast<double>(block_trips);
    }

    void raw_trip()
    {
        ++raw_seq_;
        if (Drives)
            raw::slot_send(out_, raw_seq_, buffer_, size_);
        if (!raw::slot_receive(in_, raw_seq_, buffer_, size_))
            wrong("a raw message arrived with wrong bytes");
        if (!Drives)
            raw::slot_send(out_, raw_seq_, buffer_, size_);
    }

    template <bool Stamped> void verbs_trip()
    {
        ++verbs_seq_;
        if (Drives)
            send<Stamped>();
        receive();
        if (!Drives)
            send<Stamped>();
    }

    template <bool Stamped> void send()
    {
        ibv_send_wr *bad = nullptr;
        if (Stamped)
            stamps_[verbs_seq_ - 1] = stamp();
        std::memcpy(me_.bytes() + send_place, &verbs_seq_, sizeof(verbs_seq_));
        send_wr_.wr_id = verbs_seq_;
        needed_zero(ibv_post_send(qp_, &send_wr_, &bad), "ibv_post_send");
        const ibv_wc wc = take(me_.cq());
        if (wc.wr_id != verbs_seq_)
            wrong("the completion of another send");
    }

    void receive()
    {
        const ibv_wc  wc    = take(me_.recv_cq());
        const auto    place = wc.wr_id;
        std::uint64_t found = 0;
        if (place != (verbs_seq_ - 1) % places || wc.byte_len != size_)
            wrong("a receive of another place or size");
        std::memcpy(&found, me_.bytes() + place * line_size, sizeof(found));
        if (found != verbs_seq_)
            wrong("a message arrived with wrong bytes");
        ibv_recv_wr *bad = nullptr;
        recv_wr_.wr_id   = (place + receives) % places;
        recv_sge_.addr   = address_of(recv_wr_.wr_id);
        needed_zero(ibv_post_recv(qp_, &recv_wr_, &bad), "ibv_post_recv");
    }

    ibv_wc take(ibv_cq *cq)
    {
        ibv_wc wc;
        int    seen;
        do {
            seen = ibv_poll_cq(cq, 1, &wc);
        } while (seen == 0);
        if (seen < 0 || wc.status != IBV_WC_SUCCESS)
            wrong("a completion without success");
        return wc;
    }

    static constexpr std::size_t line_size = pingpong_size_max, send_place = places * line_size;

    std::uint64_t address_of(std::uint64_t place) { return reinterpret_cast<std::uint64_t>(me_.bytes()) + place * line_size; }
    void          ready(ibv_sge *sge, std::uint64_t place) { *sge = {address_of(place), static_cast<std::uint32_t>(size_), me_.lkey()}; }

    user           &me_;
    ibv_qp         *qp_;
    const raw::slot *in_;
    raw::slot       *out_;
    std::size_t      size_;
    std::uint64_t    raw_seq_ = 0, verbs_seq_ = 0; // of the last round trip, from 1
    ibv_send_wr      send_wr_{};
    ibv_recv_wr      recv_wr_{};
    ibv_sge          send_sge_{}, recv_sge_{};
    unsigned char    buffer_[pingpong_size_max] = {};
    std::unique_ptr<std::uint64_t[]> stamps_;
};

/// The child ended before its time and has said why: without it the parent would poll for ever.
void child_ended(int) { _exit(1); }

std::string members(std::vector<double> raw, std::vector<double> ratios)
{
    char text[256];
    std::sort(ratios.begin(), ratios.end()); // a tenth at each end is left out: blocks that the kernel or the host interrupted
    const std::size_t tenth = ratios.size() / 10;
    std::snprintf(text, sizeof(text), ", \"raw_us\": %.6f, \"ratio\": %.4f, \"ratio_p10\": %.4f, \"ratio_p90\": %.4f", program::median(raw) * 1e6,
                  program::median(ratios), ratios[tenth], ratios[ratios.size() - 1 - tenth]);
    return text;
}

} // namespace

void pingpong_prepare(user &me)
{
    for (unsigned place = 0; place < receives; ++place) {
        ibv_sge     sge{reinterpret_cast<std::uint64_t>(me.bytes()) + place * pingpong_size_max, pingpong_size_max, me.lkey()};
        ibv_recv_wr wr{}, *bad = nullptr;
        wr.wr_id   = place;
        wr.sg_list = &sge;
        wr.num_sge = 1;
        needed_zero(ibv_post_recv(me.qp(), &wr, &bad), "ibv_post_recv");
    }
}

void pingpong_echo(const pingpong_turns &turns, const settings &wish, user &me, ibv_ah *ah, const address &peer)
{
    player<false> echo(wish, me, turns.slots, ah, peer);
    for (std::uint64_t n = 0; n < blocks_of(wish) + warm_blocks; ++n) {
        (void)echo.verbs_block();
        (void)echo.raw_block();
    }
}

outcome pingpong_drive(const pingpong_turns &turns, const settings &wish, user &me, ibv_ah *ah, const address &peer)
{
    std::signal(SIGCHLD, child_ended);
    player<true> drive(wish, me, turns.slots, ah, peer);
    double before = 0;
    for (std::uint64_t n = 0; n < warm_blocks; ++n) {
        (void)drive.verbs_block();
        before = drive.raw_block();
    }
    std::vector<double> raw, verbs, ratios;
    for (std::uint64_t n = 0; n < blocks_of(wish); ++n) {
        verbs.push_back(drive.verbs_block());
        const double after = drive.raw_block();
        raw.push_back((before + after) / 2.0);
        ratios.push_back(verbs.back() / raw.back());
        before = after;
    }
    std::signal(SIGCHLD, SIG_DFL);
    if (wish.every_block)
        for (std::size_t i = 0; i < raw.size(); ++i)
            std::printf("raw %.1f verbs %.1f ratio %.3f\n", raw[i] * 1e9, verbs[i] * 1e9, ratios[i]);
    return {program::median(verbs), members(raw, ratios)};
}

} // namespace probe
