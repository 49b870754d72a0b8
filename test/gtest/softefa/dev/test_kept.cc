/* Reads by grants that are kept: that nobody is asked, that both sides count them, and that each thing the answer depended on ends them. */
#include "softefa/dev/child.h"

#include "softefa/dev/publish.h"

#include <algorithm>
#include <stdio_ext.h>

namespace {

using namespace nic;

constexpr std::uint8_t  op_read = 1;
constexpr std::size_t   bytes   = 2 << 20;
constexpr std::uint32_t size    = 256 << 10; ///< of a read that is copied by address

enum class order : std::uint32_t {
    leave = 1,
    report,            ///< what it counted
    take_memory,       ///< deregisters
    show_part,         ///< registers [argument, argument + size) as well; rkey
    show_unreadable,   ///< registers the same memory again, not for reads; rkey
    other_domain,      ///< another queue pair, of another PD; its number
    qp_error, qp_reset, qp_again, qp_destroy,
    take_address,      ///< destroys its address handle
    scribble,          ///< on its epochs
    change,            ///< fills its memory with the argument
    become_another,    ///< program
    close_device,
    counts_raw,        ///< reads that its counters have without a look at what peers say
    exit,              ///< with everything open; its last count of reads goes to the pipe that the argument names
};

struct request {
    order         what;
    std::uint32_t argument = 0;
};

/// What one side counted of reads, and how far the owner has come in the reader's ring.
struct account {
    std::uint64_t reads, bytes, rx_packets, tx_packets, tx_packet_bytes, ring, failed;
};

softefa::dev::link &the_peer() { return *engine().links[engine().link_count - 1]; }

account account_of()
{
    const device_counters n = counted();
    const engine_guard    guard;
    return {n.served_read_ops, n.served_read_bytes, n.rx_packets, n.tx_packets, n.tx_packet_bytes,
            engine().link_count > 1 ? the_peer().channel->rx.position() : 0, engine().peers.peers_failed};
}

/// Offers memory and does as it is told. A new number for each answer that has none: it was done.
class owner {
public:
    explicit owner(pipe_end io) : io_(io), e_(bytes)
    {
        std::fill(e_.memory.begin(), e_.memory.end(), 0x11);
    }
    int serve()
    {
        address peer;
        request r;
        if (!io_.swap(address_of(e_), &peer))
            return 2;
        while (io_.get(&r)) {
            if (r.what == order::leave)
                return 0;
            if (r.what == order::exit)
                exit_telling(static_cast<int>(r.argument));
            const bool done = r.what == order::report ? io_.put(account_of()) : io_.put_word(carry_out(r));
            if (!done)
                return 3;
        }
        return 4;
    }

private:
    [[noreturn]] static void exit_telling(int pipe_end)
    {
        static int to;
        to = pipe_end;
        __fpurge(stdout);
        softefa::dev::publish_to([](unsigned, const device_counters &now) noexcept { return write(to, &now.served_read_ops, 8) == 8; });
        std::exit(0);
    }
    std::uint32_t register_again(std::uint64_t offset, std::uint64_t length, std::uint32_t access)
    {
        const auto at = reinterpret_cast<std::uint64_t>(e_.memory.data()) + offset;
        auto       m  = mr_register(e_.pd, at, length, at, access);
        return m ? m->rkey : 0;
    }
    std::uint32_t carry_out(const request &r)
    {
        switch (r.what) {
        case order::take_memory: return mr_deregister(e_.mr) == base::status::ok;
        case order::show_part: return register_again(r.argument, size, remote_read);
        case order::show_unreadable: return register_again(0, bytes, local_write | remote_write);
        case order::other_domain: {
            const handle pd = e_.at.pd();
            EXPECT_TRUE(second_.open(e_.at, pd, e_.scq.h, e_.rcq.h));
            second_.connect();
            return ah_create(pd, device_gid(0)) ? second_.qpn : 0;
        }
        case order::qp_error: return e_.qp.to(qp_state::error) == base::status::ok;
        case order::qp_reset: return e_.qp.to(qp_state::reset) == base::status::ok;
        case order::qp_again: e_.qp.connect(); return 1;
        case order::qp_destroy: return qp_destroy(e_.qp.h) == base::status::ok;
        case order::take_address: return ah_destroy(e_.ah_handle) == base::status::ok;
        case order::scribble: {
            const engine_guard guard;
            auto              *page = the_peer().channel->own.control();
            base::rng          random(r.argument);
            for (auto &epoch : page->epochs)
                epoch.store(random.next());
            (r.argument % 2 != 0 ? page->epoch_of_rights : page->epoch_of_all).store(random.next());
            return 1;
        }
        case order::change: std::fill(e_.memory.begin(), e_.memory.end(), static_cast<std::uint8_t>(r.argument)); return 1;
        case order::become_another: execl("/bin/sleep", "sleep", "60", static_cast<char *>(nullptr)); return 0;
        case order::close_device: context_close(e_.at.context); return 1;
        case order::counts_raw: {
            const engine_guard guard;
            return static_cast<std::uint32_t>(device_counters_get(0)->served_read_ops);
        }
        default: return 0;
        }
    }

    pipe_end   io_;
    endpoint   e_;
    queue_pair second_;
};

class kept_grants : public device_test, public testing::WithParamInterface<int> {
protected:
    std::optional<child>    other;
    std::optional<endpoint> e;
    address                 peer;

    void begin()
    {
        use();
        other.emplace([](pipe_end io) { return owner(io).serve(); });
        e.emplace(bytes);
        ASSERT_TRUE(other->end.swap(address_of(*e), &peer));
    }
    void TearDown() override
    {
        e.reset();
        other.reset();
        device_test::TearDown();
    }
    std::uint32_t tell(order what, std::uint32_t argument = 0)
    {
        std::uint32_t word = 0;
        EXPECT_TRUE(other->end.put(request{what, argument}) && other->end.get(&word));
        return word;
    }
    account theirs()
    {
        account a{};
        EXPECT_TRUE(other->end.put(request{order::report}) && other->end.get(&a));
        return a;
    }
    void leave()
    {
        EXPECT_TRUE(other->end.put(request{order::leave}));
        EXPECT_EQ(other->reap(), 0);
    }
    queue_pair::wqe work(std::uint64_t offset, std::uint32_t length, std::uint32_t rkey, std::uint16_t qpn, std::uint16_t id = 1)
    {
        return e->qp.rdma(op_read, id, e->ah, qpn, e->slice(0, length), peer.memory + offset, rkey);
    }
    int read(std::uint64_t offset, std::uint32_t length, std::uint32_t rkey, std::uint16_t qpn)
    {
        e->qp.post(work(offset, length, rkey, qpn));
        const auto done = e->scq.wait();
        return done ? done->status : -1;
    }
    int read(std::uint64_t offset = 4096, std::uint32_t length = size) { return read(offset, length, peer.rkey, peer.qpn); }
    static std::uint64_t unasked() { return counted().single_copy_unasked; }
    /// One read that asks and one that does not.
    void keep()
    {
        ASSERT_EQ(read(), 0);
        const std::uint64_t before = unasked();
        ASSERT_EQ(read(), 0);
        ASSERT_EQ(unasked() - before, size) << "no grant was kept";
    }
    /// The read ends like this, and not by a kept grant.
    void expect_refused(std::initializer_list<int> statuses)
    {
        const std::uint64_t before = unasked();
        const int           status = read();
        EXPECT_TRUE(std::find(statuses.begin(), statuses.end(), status) != statuses.end()) << status;
        EXPECT_EQ(unasked(), before);
    }
};

TEST_F(kept_grants, read_of_the_same_registration_asks_nobody)
{
    begin();
    ASSERT_EQ(read(), 0);
    const account       before = theirs();
    const std::uint64_t copied = unasked();
    tell(order::change, 0x22);
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{4097}, std::uint64_t{bytes - size}}) {
        std::fill(e->memory.begin(), e->memory.end(), 0);
        ASSERT_EQ(read(offset), 0);
        EXPECT_EQ(std::count(e->memory.begin(), e->memory.begin() + size, 0x22), static_cast<long>(size));
        EXPECT_EQ(e->memory[size], 0);
    }
    ASSERT_EQ(read(0, bytes), 0) << "in pieces";
    const account after = theirs();
    EXPECT_EQ(after.ring, before.ring) << "nothing was sent";
    EXPECT_EQ(unasked() - copied, 3 * std::uint64_t{size} + bytes);
    EXPECT_EQ(after.reads - before.reads, 4u);
    EXPECT_EQ(after.bytes - before.bytes, 3 * std::uint64_t{size} + bytes);
    leave();
}

TEST_P(kept_grants, counts_are_those_of_reads_that_ask)
{
    wanted.single_copy = static_cast<std::uint8_t>(GetParam());
    begin();
    ASSERT_EQ(read(0, 0), 0);
    const account         before = theirs();
    const device_counters mine   = counted();
    std::uint64_t         all = 0, records = 0, reads = 0;
    for (unsigned round = 0; round < 3; ++round) {
        for (const std::uint32_t length : {1u, 32767u, 32768u, 32769u, 65536u, 524289u, 1048576u, 2097152u}) {
            ASSERT_EQ(read(0, length), 0);
            all += length;
            records += (length + 32767) / 32768;
            ++reads;
        }
    }
    const account         after = theirs();
    const device_counters now   = counted();
    EXPECT_EQ(after.reads - before.reads, reads);
    EXPECT_EQ(after.bytes - before.bytes, all);
    EXPECT_EQ(after.rx_packets - before.rx_packets, reads);
    EXPECT_EQ(after.tx_packets - before.tx_packets, records);
    EXPECT_EQ(after.tx_packet_bytes - before.tx_packet_bytes, all);
    EXPECT_EQ(now.tx_packets - mine.tx_packets, reads);
    EXPECT_EQ(now.rx_packets - mine.rx_packets, records);
    EXPECT_EQ(now.rx_packet_bytes - mine.rx_packet_bytes, all);
    EXPECT_EQ(now.read_ops - mine.read_ops, reads);
    EXPECT_EQ(now.read_bytes - mine.read_bytes, all);
    EXPECT_EQ(now.single_copy_repeats, mine.single_copy_repeats);
    EXPECT_EQ(now.single_copy_unasked != mine.single_copy_unasked, GetParam() != 0);
    leave();
}

INSTANTIATE_TEST_SUITE_P(each, kept_grants, testing::Values(0, 1, 2), [](const testing::TestParamInfo<int> &p) {
    return p.param == 0 ? "off" : p.param == 1 ? "any_size" : "by_size";
});

/// Nobody wakes the owner for a read, but somebody does for its counters.
TEST_F(kept_grants, counters_of_an_owner_that_sleeps_follow)
{
    wanted.snapshot_ns = 1'000'000;
    begin();
    keep();
    const std::uint32_t before = tell(order::counts_raw);
    for (unsigned n = 0; n < 5; ++n)
        ASSERT_EQ(read(), 0);
    EXPECT_TRUE(until([&] { return tell(order::counts_raw) >= before + 5; }));
    leave();
}

/// FAB-1. No snapshot is made before: what the last second brought is what is looked for.
TEST_F(kept_grants, owner_that_exits_has_counted_them)
{
    int told[2];
    ASSERT_EQ(pipe(told), 0);
    wanted.snapshot_ns = base::sec(3600);
    begin();
    const std::uint64_t before = theirs().reads;
    keep();
    for (unsigned n = 0; n < 5; ++n)
        ASSERT_EQ(read(), 0);
    ASSERT_TRUE(other->end.put(request{order::exit, static_cast<std::uint32_t>(told[1])}));
    ::close(told[1]);
    std::uint64_t now = 0, last = 0;
    while (::read(told[0], &now, sizeof(now)) == sizeof(now))
        last = now;
    EXPECT_EQ(last - before, 7u);
    EXPECT_EQ(other->reap(), 0);
    ::close(told[0]);
}

TEST_F(kept_grants, reader_that_leaves_is_counted_to_the_end)
{
    begin();
    const account before = theirs();
    keep();
    e.reset();
    EXPECT_TRUE(until([&] { return theirs().ring == 0; })) << "it forgot us";
    EXPECT_EQ(theirs().reads - before.reads, 2u);
    EXPECT_EQ(theirs().bytes - before.bytes, 2 * std::uint64_t{size});
    leave();
}

TEST_F(kept_grants, process_itself_is_asked_each_time)
{
    use();
    e.emplace(bytes);
    peer = address_of(*e);
    const std::uint64_t before = unasked();
    for (unsigned n = 0; n < 3; ++n)
        EXPECT_EQ(read(bytes / 2), 0);
    EXPECT_EQ(unasked(), before);
}

// --- what ends them

TEST_F(kept_grants, deregistration_ends_them)
{
    begin();
    keep();
    EXPECT_EQ(tell(order::take_memory), 1u);
    tell(order::change, 0xee);
    expect_refused({7});
    EXPECT_EQ(std::count(e->memory.begin(), e->memory.end(), 0xee), 0);
    expect_refused({7});
    leave();
}

TEST_F(kept_grants, end_of_the_queue_pair_ends_them)
{
    begin();
    keep();
    EXPECT_EQ(tell(order::qp_destroy), 1u);
    expect_refused({9});
    leave();
}

TEST_F(kept_grants, error_and_reset_of_the_queue_pair_end_them_until_it_is_ready_again)
{
    begin();
    for (const order how : {order::qp_error, order::qp_reset}) {
        keep();
        EXPECT_EQ(tell(how), 1u);
        expect_refused({9});
        if (how == order::qp_error) {
            EXPECT_EQ(tell(order::qp_reset), 1u);
        }
        tell(order::qp_again);
    }
    keep();
    leave();
}

TEST_F(kept_grants, end_of_the_owners_address_handle_ends_them)
{
    begin();
    keep();
    EXPECT_EQ(tell(order::take_address), 1u);
    expect_refused({14});
    leave();
}

TEST_F(kept_grants, closed_device_ends_them)
{
    begin();
    keep();
    EXPECT_EQ(tell(order::close_device), 1u);
    expect_refused({8, 9});
    leave();
}

TEST_F(kept_grants, killed_owner_ends_them)
{
    begin();
    keep();
    other->kill(SIGKILL);
    EXPECT_EQ(other->reap(), -SIGKILL);
    expect_refused({8, 9});
}

TEST_F(kept_grants, program_that_replaced_the_owner_is_not_read)
{
    begin();
    keep();
    ASSERT_TRUE(other->end.put(request{order::become_another}));
    char gone = 0;
    ASSERT_EQ(recv(other->end.fd, &gone, 1, 0), 0); // its end closed with the new program
    expect_refused({8, 9});
}

/// As with a card: memory can be read whether its program runs or not.
TEST_F(kept_grants, stopped_owner_is_read)
{
    begin();
    keep();
    const account before = theirs();
    int           state = 0;
    other->kill(SIGSTOP);
    ASSERT_EQ(waitpid(other->pid, &state, WUNTRACED), other->pid);
    ASSERT_TRUE(WIFSTOPPED(state));
    EXPECT_EQ(read(), 0);
    other->kill(SIGCONT);
    EXPECT_EQ(theirs().reads - before.reads, 1u);
    leave();
}

// --- what they do not cover

TEST_F(kept_grants, range_partly_outside_is_asked_for_and_refused)
{
    begin();
    constexpr std::uint32_t at = 512 << 10;
    const std::uint32_t     rkey = tell(order::show_part, at);
    ASSERT_EQ(read(at, size, rkey, peer.qpn), 0);
    std::uint64_t before = unasked();
    ASSERT_EQ(read(at + 1, size - 1, rkey, peer.qpn), 0);
    EXPECT_EQ(unasked() - before, size - 1);
    before = unasked();
    EXPECT_EQ(read(at + 1, size, rkey, peer.qpn), 7);
    EXPECT_EQ(read(at - 1, size, rkey, peer.qpn), 7);
    EXPECT_EQ(read(at + size, size, rkey, peer.qpn), 7);
    EXPECT_EQ(read(at + size - 40960, 65536, rkey, peer.qpn), 7);
    EXPECT_EQ(read(~std::uint64_t{0} - peer.memory - 65536, 131072, rkey, peer.qpn), 7) << "wraps";
    EXPECT_EQ(unasked(), before);
    leave();
}

TEST_F(kept_grants, registration_with_other_rights_is_another_one)
{
    begin();
    keep();
    const std::uint32_t rkey = tell(order::show_unreadable);
    ASSERT_NE(rkey, 0u);
    const std::uint64_t before = unasked();
    EXPECT_EQ(read(4096, size, rkey, peer.qpn), 7);
    EXPECT_EQ(unasked(), before);
    EXPECT_EQ(tell(order::take_memory), 1u) << "the readable one";
    expect_refused({7});
    leave();
}

TEST_F(kept_grants, other_queue_pair_domain_or_qkey_is_asked_for)
{
    begin();
    keep();
    const auto          second = static_cast<std::uint16_t>(tell(order::other_domain));
    const std::uint64_t before = unasked();
    EXPECT_EQ(read(4096, size, peer.rkey, second), 7) << "of another PD";
    auto w = work(4096, size, peer.rkey, peer.qpn);
    w.set32(16, qkey + 1);
    e->qp.post(w);
    const auto done = e->scq.wait();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, 9);
    EXPECT_EQ(unasked(), before);
    leave();
}

/// More registrations than places, so that they take each other's.
TEST_F(kept_grants, many_registrations_are_read_right)
{
    begin();
    constexpr unsigned         count = 3 * limits::kept_grants;
    std::vector<std::uint32_t> rkeys;
    for (unsigned n = 0; n < count; ++n)
        rkeys.push_back(tell(order::show_part, n * 8192));
    for (unsigned round = 0; round < 3; ++round)
        for (unsigned n = 0; n < count; ++n) {
            ASSERT_EQ(read(n * 8192, size, rkeys[n], peer.qpn), 0);
            ASSERT_EQ(read(n * 8192 + 1, size, rkeys[n], peer.qpn), 7) << n;
        }
    leave();
}

// --- races

/// The owner takes memory or queue pair back in the middle and uses the memory for something else: no read that succeeds has any of that.
TEST_F(kept_grants, reads_beside_their_end_are_whole_or_refused)
{
    begin();
    constexpr unsigned    rounds = 40, reads = 4;
    constexpr std::size_t each = bytes / reads;
    std::uint64_t         refused = 0;
    for (unsigned n = 0; n < rounds; ++n) {
        tell(order::change, 0x5a);
        keep();
        std::fill(e->memory.begin(), e->memory.end(), 0);
        for (std::uint16_t i = 0; i < reads; ++i)
            e->qp.post(e->qp.rdma(op_read, i, e->ah, peer.qpn, e->slice(i * each, each), peer.memory + i * each, peer.rkey));
        ASSERT_TRUE(other->end.put(request{order::qp_reset}) && other->end.put(request{order::change, 0xee}));
        for (unsigned i = 0; i < reads; ++i) {
            const auto done = e->scq.wait();
            ASSERT_TRUE(done) << n;
            const auto first = e->memory.begin() + static_cast<long>(done->req_id * each);
            ASSERT_TRUE(done->status == 0 || done->status == 9 || done->status == 8) << int{done->status};
            refused += done->status != 0;
            if (done->status == 0) {
                ASSERT_EQ(std::count(first, first + each, 0x5a), static_cast<long>(each)) << "round " << n;
            }
        }
        ASSERT_TRUE(other->end.wait_word(1) && other->end.wait_word(1));
        expect_refused({9});
        tell(order::qp_again);
    }
    RecordProperty("refused", static_cast<int>(refused));
    leave();
}

TEST_F(kept_grants, readers_own_queue_pair_in_error_ends_every_read_once)
{
    begin();
    keep();
    constexpr unsigned reads = 8;
    for (std::uint16_t i = 0; i < reads; ++i)
        e->qp.post(e->qp.rdma(op_read, i, e->ah, peer.qpn, e->slice(0, bytes), peer.memory, peer.rkey));
    EXPECT_EQ(e->qp.to(qp_state::error), base::status::ok);
    unsigned seen = 0;
    for (unsigned i = 0; i < reads; ++i) {
        const auto done = e->scq.wait();
        ASSERT_TRUE(done);
        EXPECT_TRUE(done->status == 0 || done->status == 1) << int{done->status};
        EXPECT_EQ(seen & 1u << done->req_id, 0u);
        seen |= 1u << done->req_id;
    }
    EXPECT_FALSE(e->scq.poll_surely());
    leave();
}

// --- a neighbour that writes where it should not

TEST_F(kept_grants, epochs_that_jump_cost_a_question)
{
    begin();
    for (std::uint32_t n = 0; n < 20; ++n) {
        ASSERT_EQ(read(), 0);
        tell(order::scribble, n);
        std::fill(e->memory.begin(), e->memory.end(), 0);
        const std::uint64_t before = unasked();
        ASSERT_EQ(read(), 0);
        EXPECT_EQ(std::count(e->memory.begin(), e->memory.begin() + size, 0x11), static_cast<long>(size));
        EXPECT_EQ(unasked(), before);
    }
    leave();
}

TEST_F(kept_grants, impossible_counts_cut_their_writer_off)
{
    for (unsigned which = 0; which < 4; ++which) {
        begin();
        keep();
        const account before = theirs();
        {
            const engine_guard guard;
            auto              &told = the_peer().channel->own.control()->unasked[0];
            switch (which) {
            case 0: told.bytes.store(~std::uint64_t{0}); break;
            case 1: told.reads.store(0); break;
            case 2: told.packets.store(1000); break;
            default: told.reads.store(~std::uint64_t{0}); break;
            }
        }
        const account after = theirs();
        EXPECT_EQ(after.failed - before.failed, 1u) << which;
        EXPECT_EQ(after.reads, before.reads) << which;
        EXPECT_EQ(after.bytes, before.bytes) << which;
        EXPECT_TRUE(until([&] { return read() == 0; })) << "it is connected to again";
        leave();
        e.reset();
        other.reset();
    }
}

} // namespace
