/* The pure parts: handles, QP transitions, windows of the memfd, names of operations. */
#include "softefa/dev/handle_table.h"
#include "softefa/dev/region_allocator.h"
#include "softefa/dev/state_table.h"
#include "softefa/wire/pdu.h"

#include "base/rng.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <cstring>
#include <map>
#include <memory>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace {

using namespace softefa::dev;
using base::status;

using small_table = handle_table<int, object_kind::mr, 256>;

TEST(handle_table, finds_live_handles_and_refuses_all_others)
{
    static small_table      table; // its chunks stay for the life of the process
    small_table            *t = &table;
    std::map<handle, int>   live;
    std::vector<handle>     dead;
    base::rng               random(5);
    for (int step = 0; step < 20000; ++step) {
        if (live.size() < 200 && random.chance(36000)) {
            handle h = 0;
            int   *v = t->insert(&h);
            ASSERT_NE(v, nullptr);
            ASSERT_NE(h, 0u);
            ASSERT_EQ(live.count(h), 0u);
            *v = step;
            live[h] = step;
        } else if (!live.empty()) {
            auto it = live.begin();
            std::advance(it, random.below(static_cast<std::uint32_t>(live.size())));
            t->erase(it->first);
            dead.push_back(it->first);
            live.erase(it);
        }
        if (dead.size() > 100)
            dead.erase(dead.begin());
        for (handle h : dead)
            ASSERT_TRUE(live.count(h) != 0 || t->find(h) == nullptr);
    }
    for (auto &[h, value] : live)
        EXPECT_EQ(*t->find(h), value);
}

TEST(handle_table, wrong_kind_zero_and_full)
{
    static small_table                                table;
    static handle_table<int, object_kind::cq, 256> others;
    auto *t = &table;
    auto *other = &others;
    handle h = 0, first = 0;
    t->insert(&first);
    EXPECT_EQ(other->find(first), nullptr);
    EXPECT_EQ(t->find(0), nullptr);
    EXPECT_EQ(t->find(~0u), nullptr);
    for (int i = 1; i < 256; ++i)
        ASSERT_NE(t->insert(&h), nullptr);
    EXPECT_EQ(t->insert(&h), nullptr);
    t->erase(first);
    EXPECT_NE(t->insert(&h), nullptr);
    EXPECT_EQ(t->find(first), nullptr);
}

TEST(state_table, srd_table_of_efa)
{
    using enum qp_state;
    const auto check = [](qp_state from, qp_state to, std::uint32_t mask) { return state_table_check(qp_type::srd, from, to, mask | attr_state, true); };
    EXPECT_EQ(check(reset, init, attr_pkey | attr_port | attr_qkey), status::ok);
    EXPECT_EQ(check(reset, init, attr_pkey | attr_port), status::invalid_argument);
    EXPECT_EQ(check(reset, init, attr_pkey | attr_port | attr_qkey | attr_sq_psn), status::invalid_argument);
    EXPECT_EQ(check(init, rtr, 0), status::ok);
    EXPECT_EQ(check(rtr, rts, attr_sq_psn), status::ok);
    EXPECT_EQ(check(rtr, rts, attr_sq_psn | attr_rnr_retry), status::ok);
    EXPECT_EQ(check(rtr, rts, 0), status::invalid_argument);
    EXPECT_EQ(check(reset, rts, attr_sq_psn), status::invalid_argument);
    EXPECT_EQ(check(init, rts, attr_sq_psn), status::invalid_argument);
    EXPECT_EQ(check(rts, sqd, 0), status::ok);
    EXPECT_EQ(check(sqd, rts, 0), status::ok);
    EXPECT_EQ(check(reset, error, 0), status::invalid_argument);
    for (qp_state from : {init, rtr, rts, sqd, sqe, error})
        EXPECT_EQ(check(from, error, 0), status::ok);
    for (qp_state from : {reset, init, rtr, rts, sqd, sqe, error})
        EXPECT_EQ(check(from, reset, 0), status::ok);
    EXPECT_EQ(check(rtr, rts, attr_sq_psn | attr_cap), status::unsupported);
    EXPECT_EQ(check(rtr, rts, attr_sq_psn | 0x100), status::unsupported);
}

TEST(state_table, ud_has_no_rnr_retry_and_devices_may_lack_it)
{
    EXPECT_EQ(state_table_check(qp_type::ud, qp_state::rtr, qp_state::rts, attr_state | attr_sq_psn | attr_rnr_retry, true),
              status::invalid_argument);
    EXPECT_EQ(state_table_check(qp_type::srd, qp_state::rtr, qp_state::rts, attr_state | attr_sq_psn | attr_rnr_retry, false),
              status::unsupported);
}

TEST(region_allocator, windows_do_not_overlap_and_are_zero_again)
{
    const int        fd = memfd_create("regions", MFD_CLOEXEC);
    region_allocator a(fd);
    base::rng        random(11);
    std::vector<mapped_region> live;
    for (int step = 0; step < 2000; ++step) {
        if (live.size() < 60 && random.chance(36000)) {
            auto r = a.allocate(1 + random.below(40000));
            ASSERT_TRUE(static_cast<bool>(r));
            EXPECT_EQ(r->where.offset % 4096, 0u);
            EXPECT_NE(r->where.offset, 0u);
            for (std::uint64_t i = 0; i < r->where.size; i += 512)
                ASSERT_EQ(r->base[i], 0);
            for (const auto &o : live)
                ASSERT_TRUE(o.where.offset + o.where.size <= r->where.offset || r->where.offset + r->where.size <= o.where.offset);
            std::memset(r->base, 0xee, r->where.size);
            live.push_back(*r);
        } else if (!live.empty()) {
            const auto at = random.below(static_cast<std::uint32_t>(live.size()));
            a.release(live[at]);
            live.erase(live.begin() + at);
        }
    }
    auto none = a.allocate(0);
    ASSERT_TRUE(static_cast<bool>(none));
    EXPECT_EQ(none->base, nullptr);
    for (auto &r : live)
        a.release(r);
    EXPECT_EQ(a.count(), 0u);
    close(fd);
}

TEST(op_id, packs_every_field)
{
    using softefa::wire::op_id;
    for (op_id id : {op_id{0, 0, 0}, op_id{(1u << 27) - 1, 4095, 32767}, op_id{1, 2, 3}}) {
        EXPECT_EQ(op_id::unpack(id.pack()), id);
        softefa::wire::ack a{id.pack(), softefa::wire::efa_status::no_such_qpn, true};
        const auto b = softefa::wire::ack::unpack(a.pack(9));
        EXPECT_EQ(b.op, id.pack());
        EXPECT_EQ(b.status, a.status);
        EXPECT_TRUE(b.is_read);
        EXPECT_EQ(softefa::wire::ack::lap(a.pack(9)), 9u);
    }
}

} // namespace
