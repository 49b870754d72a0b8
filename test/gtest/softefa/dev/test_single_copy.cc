/* RDMA by one copy from the other process: what it moves, and every reason for which the two copies through the ring take over. */
#include "softefa/dev/child.h"

#include <algorithm>
#include <cstddef>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

namespace {

using namespace nic;

constexpr std::uint8_t op_read = 1, op_write = 2;

/// From now on this process may not read the memory of another one, as in a container whose profile says so.
bool deny_reading()
{
    sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog program{std::size(rules), rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0; // the helper thread too
}

enum class may_read { yes, never, until_told };

/// What one process says of itself when it is asked to leave.
struct account {
    std::uint64_t copied, repeated, served_write_bytes, served_read_bytes;
};

account counted_before; ///< counters belong to the process, also to what a child inherits
account account_of()
{
    const device_counters  now = counted();
    const device_counters *n   = &now;
    return {n->single_copy_bytes - counted_before.copied, n->single_copy_repeats - counted_before.repeated,
            n->served_write_bytes - counted_before.served_write_bytes, n->served_read_bytes - counted_before.served_read_bytes};
}
void account_begin()
{
    counted_before = {};
    counted_before = account_of();
}

/// Offers memory and sleeps. Word 1: its account and the end; 2: from now on it may not read.
int target(pipe_end io, std::size_t bytes, may_read rights)
{
    if (rights == may_read::never && !deny_reading())
        return 77;
    endpoint e(bytes);
    address  peer;
    account_begin();
    if (!io.swap(address_of(e), &peer))
        return 2;
    std::uint32_t word = 0;
    while (io.get(&word) && word != 1)
        if (word != 2 || !deny_reading() || !io.put_word(2))
            return 77;
    return io.put(account_of()) ? 0 : 3;
}

std::uint8_t byte_at(std::size_t i, unsigned salt) { return static_cast<std::uint8_t>(i * 31 + (i >> 8) * 7 + salt); }

class single_copies : public device_test, public testing::WithParamInterface<int> {
protected:
    static constexpr std::size_t bytes = (3 << 20) + 8192;

    static int run(endpoint &e, std::uint8_t op, const address &peer, buffer local, std::uint64_t offset)
    {
        e.qp.post(e.qp.rdma(op, 1, e.ah, peer.qpn, local, peer.memory + offset, peer.rkey));
        const auto done = e.scq.wait();
        return done ? done->status : -1;
    }
    /// Writes, reads it back to elsewhere, and looks at every byte, and at those around.
    static void there_and_back(endpoint &e, const address &peer, std::uint32_t size, std::size_t offset, unsigned salt)
    {
        std::uint8_t *memory = e.memory.data();
        for (std::size_t i = 0; i < size; ++i)
            memory[offset + i] = byte_at(i, salt);
        ASSERT_EQ(run(e, op_write, peer, e.slice(offset, size), offset * 3), 0) << size;
        std::fill_n(memory, offset + size + 64, 0x77);
        ASSERT_EQ(run(e, op_read, peer, e.slice(offset, size), offset * 3), 0) << size;
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < size; ++i)
            wrong += memory[offset + i] != byte_at(i, salt);
        EXPECT_EQ(wrong, 0u) << size << " at " << offset;
        EXPECT_EQ(std::count(memory, memory + offset, 0x77), static_cast<long>(offset)) << size;
        EXPECT_EQ(std::count(memory + offset + size, memory + offset + size + 64, 0x77), 64) << size;
    }
    void mode(int single_copy)
    {
        wanted.single_copy = static_cast<std::uint8_t>(single_copy);
        use();
        account_begin();
    }
    static void leave(child &other, account *account_p)
    {
        ASSERT_TRUE(other.end.put_word(1) && other.end.get(account_p));
        EXPECT_EQ(other.reap(), 0);
    }
};

TEST_P(single_copies, move_every_byte_of_any_size_at_any_offset)
{
    mode(GetParam());
    child    other([](pipe_end io) { return target(io, bytes, may_read::yes); });
    endpoint e(bytes);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    const std::uint32_t sizes[] = {1,      2,       63,      4095,    4097,    limits::single_copy_min - 1, limits::single_copy_min, limits::single_copy_min + 1,
                                   limits::single_copy_max, limits::single_copy_max + 1, 1 << 20, (3 << 20) - 13};
    if (GetParam() != 0) {
        ASSERT_TRUE(peer_copies_from_us(e, peer));
    }
    std::uint64_t all = 0, by_address = 0;
    unsigned      salt = 0;
    const std::uint64_t rx_before = counted().rx_packet_bytes;
    for (const std::size_t offset : {0u, 1u, 4093u / 3u}) {
        for (const std::uint32_t size : sizes) {
            there_and_back(e, peer, size, offset, ++salt);
            all += size;
            if (GetParam() == 1 || (GetParam() == 2 && size >= limits::single_copy_min))
                by_address += size;
        }
    }
    const account mine = account_of();
    account       theirs{};
    leave(other, &theirs);
    EXPECT_EQ(mine.copied, by_address) << "reads";
    EXPECT_EQ(theirs.copied, by_address) << "writes";
    EXPECT_EQ(mine.repeated, 0u);
    EXPECT_EQ(theirs.served_write_bytes, all);
    EXPECT_EQ(theirs.served_read_bytes, all);
    EXPECT_EQ(counted().rx_packet_bytes - rx_before, all) << "what came in, whichever way";
}

INSTANTIATE_TEST_SUITE_P(each, single_copies, testing::Values(0, 1, 2), [](const testing::TestParamInfo<int> &p) {
    return p.param == 0 ? "off" : p.param == 1 ? "any_size" : "by_size";
});

/// Each side is asked: what one refuses is done by two copies, the other way stays.
TEST_F(single_copies, refused_from_the_start_take_the_ring)
{
    mode(1);
    child    other([](pipe_end io) { return target(io, bytes, may_read::never); });
    endpoint e(bytes);
    address  peer;
    if (!other.end.swap(address_of(e), &peer)) {
        ASSERT_EQ(other.reap(), 77);
        GTEST_SKIP() << "no seccomp filters here";
    }
    for (const std::uint32_t size : {1u, 65536u, 2u << 20})
        there_and_back(e, peer, size, 5, size);
    account theirs{};
    leave(other, &theirs);
    EXPECT_EQ(theirs.copied, 0u) << "it may not read: writes take the ring";
    EXPECT_EQ(account_of().copied, 1u + 65536u + (2u << 20)) << "we may: reads do not";
    EXPECT_EQ(account_of().repeated, 0u) << "known beforehand";
}

TEST_F(single_copies, refused_later_are_repeated_once)
{
    mode(1);
    child    other([](pipe_end io) { return target(io, bytes, may_read::until_told); });
    endpoint e(bytes);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    ASSERT_TRUE(peer_copies_from_us(e, peer));
    there_and_back(e, peer, 2u << 20, 5, 1);
    if (!other.end.put_word(2) || !other.end.wait_word(2)) {
        ASSERT_EQ(other.reap(), 77);
        GTEST_SKIP() << "no seccomp filters here";
    }
    for (unsigned salt = 2; salt < 5; ++salt)
        there_and_back(e, peer, 2u << 20, 5, salt);
    account theirs{};
    leave(other, &theirs);
    EXPECT_EQ(account_of().repeated, 1u) << "the first write; then it is known";
    EXPECT_EQ(theirs.copied, 2u << 20);
    EXPECT_EQ(theirs.served_write_bytes, 4u * (2u << 20)) << "each counts once";
}

/// Either side's memory is gone from under its registration: the status that the ring gives, and nobody dies.
TEST_F(single_copies, unmapped_memory_ends_in_the_status_of_its_side)
{
    mode(1);
    constexpr std::size_t room = 1 << 20, hole = 768 << 10; // in the second piece
    const auto            holed = [](handle domain, mr_reply *m_p) {
        auto *at = static_cast<std::uint8_t *>(mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        auto  m  = mr_register(domain, reinterpret_cast<std::uint64_t>(at), room, reinterpret_cast<std::uint64_t>(at), local_write | remote_write | remote_read);
        std::memset(at, 1, room);
        munmap(at + hole, 4096);
        *m_p = *m;
        return at;
    };
    child other([&](pipe_end io) {
        endpoint e(4096);
        address  peer;
        mr_reply m;
        auto    *at = holed(e.pd, &m);
        std::uint32_t       word;
        const std::uint64_t before = counted().drop_fault;
        if (!io.swap({e.qp.qpn, 0, m.rkey, reinterpret_cast<std::uint64_t>(at)}, &peer))
            return 2;
        return io.get(&word) && io.put(counted().drop_fault - before) ? 0 : 3;
    });
    endpoint e(room);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    ASSERT_TRUE(peer_copies_from_us(e, peer));
    mr_reply      mine;
    std::uint8_t *at = holed(e.pd, &mine);
    for (const std::uint8_t op : {op_read, op_write}) {
        EXPECT_EQ(run(e, op, peer, e.slice(0, room), 0), 7) << "theirs, op " << int{op};
        EXPECT_EQ(run(e, op, peer, e.slice(0, 4096), hole), 7) << "theirs alone, op " << int{op};
        EXPECT_EQ(run(e, op, peer, e.slice(0, hole), 0), 0) << "up to there, op " << int{op};
        EXPECT_EQ(run(e, op, peer, {at + hole - 65536, 2 * 65536, mine.lkey}, 0), 5) << "ours, op " << int{op};
        EXPECT_EQ(run(e, op, peer, {at, hole, mine.lkey}, 0), 0) << "ours up to there, op " << int{op};
    }
    std::uint64_t faults = 0;
    ASSERT_TRUE(other.end.put_word(1) && other.end.get(&faults));
    EXPECT_EQ(faults, 4u) << "one for each that met theirs";
    EXPECT_EQ(other.reap(), 0);
    munmap(at, room);
}

/// The owner deregisters while it is read and uses the memory for something else at once: no read that succeeds has any of that.
TEST_F(single_copies, reads_beside_deregistrations_are_whole_or_refused)
{
    mode(1);
    constexpr unsigned rounds = 60;
    child other([](pipe_end io) {
        endpoint      e(bytes);
        address       peer;
        std::uint32_t word;
        if (!io.swap(address_of(e), &peer))
            return 2;
        for (unsigned n = 0; n < rounds; ++n) {
            std::fill(e.memory.begin(), e.memory.end(), 0x5a);
            const auto at = reinterpret_cast<std::uint64_t>(e.memory.data());
            auto       m  = mr_register(e.pd, at, bytes, at, remote_read);
            if (!m || !io.put_word(m->rkey) || !io.get(&word)) // the reads are posted
                return 3;
            if (n % 2 != 0)
                usleep(n * 10); // anywhere in them; nothing depends on it
            if (mr_deregister(m->mr) != base::status::ok)
                return 4;
            std::fill(e.memory.begin(), e.memory.end(), 0xee);
            if (!io.put_word(1) || !io.get(&word))
                return 5;
        }
        return 0;
    });
    constexpr unsigned    reads = 4;
    constexpr std::size_t each = bytes / reads;
    endpoint e(bytes);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    for (unsigned n = 0; n < rounds; ++n) {
        std::uint32_t rkey = 0;
        std::fill(e.memory.begin(), e.memory.end(), 0);
        ASSERT_TRUE(other.end.get(&rkey)) << n;
        for (std::uint16_t i = 0; i < reads; ++i)
            e.qp.post(e.qp.rdma(op_read, i, e.ah, peer.qpn, e.slice(i * each, each), peer.memory + i * each, rkey));
        ASSERT_TRUE(other.end.put_word(1));
        for (unsigned i = 0; i < reads; ++i) {
            const auto done = e.scq.wait();
            ASSERT_TRUE(done) << n;
            const auto first = e.memory.begin() + static_cast<long>(done->req_id * each);
            ASSERT_TRUE(done->status == 0 || done->status == 7 || done->status == 8) << int{done->status};
            if (done->status == 0) {
                ASSERT_EQ(std::count(first, first + each, 0x5a), static_cast<long>(each)) << "round " << n;
            }
        }
        ASSERT_TRUE(other.end.wait_word(1) && other.end.put_word(1));
    }
    EXPECT_EQ(other.reap(), 0);
}

/// A process that became another program: its address space is not the one that was connected to.
TEST_F(single_copies, program_that_replaced_the_owner_is_not_read)
{
    mode(1);
    child other([](pipe_end io) {
        endpoint e(bytes);
        address  peer;
        if (!io.swap(address_of(e), &peer))
            return 2;
        std::uint32_t word;
        if (!io.get(&word))
            return 3;
        execl("/bin/sleep", "sleep", "60", static_cast<char *>(nullptr));
        return 4;
    });
    endpoint e(bytes);
    address  peer;
    ASSERT_TRUE(other.end.swap(address_of(e), &peer));
    ASSERT_EQ(run(e, op_read, peer, e.slice(0, 1 << 20), 0), 0);
    const std::uint64_t copied = account_of().copied;
    other.end.put_word(1);
    char gone = 0;
    ASSERT_EQ(recv(other.end.fd, &gone, 1, 0), 0); // its end closed with the new program
    const int status = run(e, op_read, peer, e.slice(0, 1 << 20), 0);
    EXPECT_TRUE(status == 8 || status == 9) << status;
    EXPECT_EQ(account_of().copied, copied);
    other.kill(SIGKILL);
}

} // namespace
