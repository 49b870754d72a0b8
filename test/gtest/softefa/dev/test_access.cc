/* What a remote key allows, byte by byte: every fault leaves the target's memory as it was. And writes with immediate, on both kinds of target. */
#include "softefa/dev/child.h"

#include <algorithm>
#include <set>

namespace {

using namespace nic;

class access_rules : public device_test {
protected:
    static constexpr std::size_t page = 4096;

    struct target_memory {
        std::uint8_t *base;
        target_memory()
            : base(static_cast<std::uint8_t *>(mmap(nullptr, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)))
        {
            std::memset(base, 0x77, 3 * page);
        }
        ~target_memory() { munmap(base, 3 * page); }
        std::uint64_t at(std::size_t offset) const { return reinterpret_cast<std::uint64_t>(base) + offset; }
        std::size_t changed() const
        {
            std::size_t n = 0;
            for (std::size_t i = 0; i < 3 * page; ++i)
                n += base[i] != 0x77;
            return n;
        }
    };

    /// Completion status of one operation from `from` to `to`.
    static int run(endpoint &from, endpoint &to, std::uint8_t op, std::uint64_t remote, std::uint32_t rkey, std::uint32_t size)
    {
        from.qp.post(from.qp.rdma(op, 1, from.ah, to.qp.qpn, from.slice(0, size), remote, rkey));
        auto done = from.scq.wait();
        return done ? done->status : -1;
    }
};

TEST_F(access_rules, faults_of_a_remote_key_leave_memory_untouched)
{
    endpoint      from(1 << 16), to(page);
    target_memory memory;
    auto          key = [&](std::size_t offset, std::size_t size, std::uint32_t rights) {
        auto m = mr_register(to.pd, memory.at(offset), size, memory.at(offset), rights);
        EXPECT_TRUE(static_cast<bool>(m));
        return *m;
    };
    const auto full = key(page, page, local_write | remote_write | remote_read), only_local = key(page, page, local_write),
               only_read = key(page, page, remote_read), none = key(page, page, 0);
    std::memset(from.memory.data(), 0x11, from.memory.size());
    const handle other_domain = to.at.pd();
    auto         foreign = mr_register(other_domain, memory.at(page), page, memory.at(page), local_write | remote_write | remote_read);
    struct fault {
        const char   *what;
        std::uint64_t remote;
        std::uint32_t rkey, size;
        bool          read_too;
    };
    const fault faults[] = {
        {"unknown index", memory.at(page), full.rkey + 1000, 64, true},
        {"another generation", memory.at(page), full.rkey ^ (1u << 18), 64, true},
        {"another high generation", memory.at(page), full.rkey ^ (1u << 30), 64, true},
        {"key zero", memory.at(page), 0, 64, true},
        {"all ones", memory.at(page), 0xffffffff, 64, true},
        {"another protection domain", memory.at(page), foreign->rkey, 64, true},
        {"no rights", memory.at(page), none.rkey, 64, true},
        {"local write only", memory.at(page), only_local.rkey, 64, true},
        {"remote read only", memory.at(page), only_read.rkey, 64, false},
        {"one byte before", memory.at(page - 1), full.rkey, 64, true},
        {"one byte behind", memory.at(page) + 1, full.rkey, page, true},
        {"starts behind", memory.at(2 * page) + 1, full.rkey, 1, true},
        {"ends behind", memory.at(2 * page) - 63, full.rkey, 64, true},
        {"wraps round", ~std::uint64_t{0} - 31, full.rkey, 64, true},
        {"address zero", 0, full.rkey, 64, true},
    };
    for (const fault &f : faults) {
        EXPECT_EQ(run(from, to, 2, f.remote, f.rkey, f.size), 7) << "write: " << f.what;
        if (f.read_too) {
            std::memset(from.memory.data(), 0x11, f.size);
            EXPECT_EQ(run(from, to, 1, f.remote, f.rkey, f.size), 7) << "read: " << f.what;
            EXPECT_EQ(std::count(from.memory.begin(), from.memory.begin() + f.size, 0x11), static_cast<long>(f.size)) << f.what;
        }
        EXPECT_EQ(memory.changed(), 0u) << f.what;
    }
    // Beside them, what is allowed: the whole range, its first and its last byte, and the key that may only be read.
    EXPECT_EQ(run(from, to, 2, memory.at(page), full.rkey, page), 0);
    EXPECT_EQ(memory.changed(), page);
    EXPECT_EQ(run(from, to, 2, memory.at(2 * page) - 1, full.rkey, 1), 0);
    EXPECT_EQ(run(from, to, 1, memory.at(page), only_read.rkey, page), 0);
    EXPECT_EQ(memory.changed(), page);
}

TEST_F(access_rules, zero_length_needs_no_key_and_touches_nothing)
{
    endpoint      from(page), to(page);
    target_memory memory;
    for (std::uint8_t op : {std::uint8_t{1}, std::uint8_t{2}})
        EXPECT_EQ(run(from, to, op, memory.at(0), 12345, 0), 0);
    EXPECT_EQ(memory.changed(), 0u);
}

TEST_F(access_rules, stale_key_is_refused_after_its_index_is_used_again)
{
    endpoint      from(page), to(page);
    target_memory memory;
    std::vector<std::uint32_t> old;
    for (unsigned n = 0; n < 200; ++n) { // indices come round after a few; every earlier key stays dead
        auto m = mr_register(to.pd, memory.at(page), page, memory.at(page), local_write | remote_write | remote_read);
        ASSERT_TRUE(static_cast<bool>(m));
        for (std::uint32_t key : old) {
            ASSERT_NE(key, m->rkey);
            if (n % 20 == 0) {
                ASSERT_EQ(run(from, to, 2, memory.at(page), key, 8), 7) << n;
            }
        }
        old.push_back(m->rkey);
        ASSERT_EQ(mr_deregister(m->mr), base::status::ok);
        ASSERT_EQ(run(from, to, 2, memory.at(page), m->rkey, 8), 7);
    }
    EXPECT_EQ(memory.changed(), 0u);
}

TEST_F(access_rules, local_side_needs_local_write_for_reads_only)
{
    endpoint      from(page), to(page);
    target_memory memory;
    auto          plain = mr_register(from.pd, memory.at(0), page, memory.at(0), 0);
    const auto    remote = reinterpret_cast<std::uint64_t>(to.memory.data());
    const buffer  local{memory.base, 64, plain->lkey};
    for (std::uint8_t op : {std::uint8_t{1}, std::uint8_t{2}}) {
        from.qp.post(from.qp.rdma(op, 1, from.ah, to.qp.qpn, local, remote, to.rkey));
        auto done = from.scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, op == 1 ? 5 : 0);
    }
    EXPECT_EQ(memory.changed(), 0u);
    EXPECT_EQ(std::count(to.memory.begin(), to.memory.begin() + 64, 0x77), 64);
}

TEST_F(access_rules, write_with_immediate_takes_a_receive_unless_the_target_wants_none)
{
    for (const bool unsolicited : {false, true}) {
        qp_request r;
        r.unsolicited_recv = unsolicited;
        endpoint   from(1 << 18, r), to(1 << 18, r);
        const auto remote = reinterpret_cast<std::uint64_t>(to.memory.data());
        std::memset(from.memory.data(), 0x33, 100'000);
        if (!unsolicited)
            to.qp.post_recv(9, {to.slice(200'000, 16)}); // its buffer is not used
        from.qp.post(queue_pair::with_imm(from.qp.rdma(2, 1, from.ah, to.qp.qpn, from.slice(0, 100'000), remote, to.rkey), 0xabcd1234));
        auto got = to.rcq.wait(), done = from.scq.wait();
        ASSERT_TRUE(got && done);
        EXPECT_EQ(done->status, 0);
        EXPECT_EQ(got->status, 0);
        EXPECT_EQ(got->op, 2);
        EXPECT_TRUE(got->has_imm);
        EXPECT_EQ(got->imm, 0xabcd1234u);
        EXPECT_EQ(got->length, 100'000u); // 32 bits of it
        EXPECT_EQ(got->unsolicited, unsolicited);
        if (!unsolicited) {
            EXPECT_EQ(got->req_id, 9);
        }
        EXPECT_EQ(std::count(to.memory.begin(), to.memory.begin() + 100'000, 0x33), 100'000);
        EXPECT_EQ(std::count(to.memory.begin() + 200'000, to.memory.begin() + 200'016, 0), 16);
    }
}

TEST_F(access_rules, write_with_immediate_waits_for_a_receive_and_writes_once)
{
    endpoint   from(page), to(page);
    const auto remote = reinterpret_cast<std::uint64_t>(to.memory.data());
    const auto before = counted();
    from.memory[0] = 1;
    from.qp.post(queue_pair::with_imm(from.qp.rdma(2, 1, from.ah, to.qp.qpn, from.slice(0, 8), remote, to.rkey), 5));
    ASSERT_TRUE(until([&] { from.scq.poll(); return counted().rnr_retries - before.rnr_retries > 2; }));
    to.memory[0] = 99; // the data is there already; the retry repeats the immediate alone
    to.qp.post_recv(9, {to.slice(64, 8)});
    auto got = to.rcq.wait(), done = from.scq.wait();
    ASSERT_TRUE(got && done);
    EXPECT_EQ(got->imm, 5u);
    EXPECT_EQ(got->length, 8u);
    EXPECT_EQ(done->status, 0);
    EXPECT_EQ(to.memory[0], 99);
    EXPECT_EQ(counted().served_write_ops - before.served_write_ops, 1u);
    EXPECT_EQ(counted().served_write_bytes - before.served_write_bytes, 8u);
}

TEST_F(access_rules, write_with_immediate_gives_up_after_its_retries)
{
    endpoint from(page, {}, 1), to(page);
    from.qp.post(queue_pair::with_imm(from.qp.rdma(2, 1, from.ah, to.qp.qpn, from.slice(0, 8),
                                                   reinterpret_cast<std::uint64_t>(to.memory.data()), to.rkey), 5));
    auto done = from.scq.wait();
    ASSERT_TRUE(done);
    EXPECT_EQ(done->status, 10);
    EXPECT_FALSE(to.rcq.poll_surely());
}

TEST_F(access_rules, sides_that_disagree_about_unsolicited_receive_are_refused_before_a_byte)
{
    qp_request r;
    r.unsolicited_recv = true;
    endpoint plain(page), special(page, r);
    std::memset(plain.memory.data(), 0x55, page);
    for (auto [from, to] : {std::pair{&plain, &special}, std::pair{&special, &plain}}) {
        std::fill(from->memory.begin(), from->memory.end(), 0x55);
        std::fill(to->memory.begin(), to->memory.end(), 0);
        to->qp.post_recv(1, {to->slice(64, 8)});
        from->qp.post(queue_pair::with_imm(from->qp.rdma(2, 1, from->ah, to->qp.qpn, from->slice(0, 8),
                                                         reinterpret_cast<std::uint64_t>(to->memory.data()), to->rkey), 5));
        auto done = from->scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, 18);
        EXPECT_EQ(std::count(to->memory.begin(), to->memory.end(), 0), static_cast<long>(page));
        EXPECT_FALSE(to->rcq.poll_surely());
    }
}

/// A QPN belongs to one life of a queue pair: what was meant for the one before is not delivered to the next.
TEST_F(access_rules, work_for_a_destroyed_queue_pair_does_not_reach_its_successor)
{
    endpoint                from(page), holder(page);
    std::set<std::uint16_t> used;
    std::uint16_t           last = 0;
    for (unsigned n = 0; n < 300; ++n) {
        queue_pair q;
        ASSERT_TRUE(q.open(holder.at, holder.pd, holder.scq.h, holder.rcq.h));
        q.connect();
        EXPECT_TRUE(used.insert(q.qpn).second) << "QPN reused after " << n;
        q.post_recv(1, {holder.slice(0, 64)});
        if (last != 0) {
            from.qp.post(from.qp.send_inline(1, from.ah, last, "for the one before"));
            auto done = from.scq.wait();
            ASSERT_TRUE(done);
            ASSERT_EQ(done->status, 9);
        }
        last = q.qpn;
        ASSERT_EQ(qp_destroy(q.h), base::status::ok);
    }
    EXPECT_FALSE(holder.rcq.poll_surely());
}

} // namespace
