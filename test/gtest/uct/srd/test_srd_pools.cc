/* Unit tests of srd_op.h, srd_buf.h and srd_ah.h: pools and tables whose resources come from fakes that fail on demand. */
#include "uct/srd/srd_ah.h"
#include "uct/srd/srd_buf.h"
#include "uct/srd/srd_op.h"
#include "uct/srd/srd_slab.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <set>
#include <vector>

using namespace srd;

namespace {

struct fake_registrar {
    int live      = 0;
    int made      = 0;
    int fail_from = 1000; ///< the n-th and later ones fail

    static bool reg(void *arg, void *, std::size_t, std::uint32_t *lkey_p, void **handle_p)
    {
        auto *self = static_cast<fake_registrar *>(arg);
        if (self->made >= self->fail_from) {
            return false;
        }
        *lkey_p   = static_cast<std::uint32_t>(++self->made);
        *handle_p = self;
        ++self->live;
        return true;
    }
    static void dereg(void *, void *handle) { --static_cast<fake_registrar *>(handle)->live; }
};

struct elements {
    std::vector<unsigned char *> seen;
    std::set<std::uint32_t> lkeys;
    static void init(void *arg, void *element, std::uint32_t lkey)
    {
        static_cast<elements *>(arg)->seen.push_back(static_cast<unsigned char *>(element));
        static_cast<elements *>(arg)->lkeys.insert(lkey);
    }
};

reg_pool::params pool_of(fake_registrar &registrar, elements &e, std::size_t max)
{
    reg_pool::params p;
    p.source         = {&registrar, fake_registrar::reg, fake_registrar::dereg};
    p.element_size   = 1000;
    p.alignment      = 256;
    p.chunk_elements = 4;
    p.max_elements   = max;
    p.init           = elements::init;
    p.init_arg       = &e;
    return p;
}

struct fake_device {
    int created   = 0;
    int destroyed = 0;
    bool full     = false;

    static ibv_ah *create(void *arg, const gid_type &, std::uint16_t *number_p)
    {
        auto *self = static_cast<fake_device *>(arg);
        if (self->full) {
            errno = ENOMEM;
            return nullptr;
        }
        *number_p = static_cast<std::uint16_t>(++self->created);
        return reinterpret_cast<ibv_ah *>(static_cast<std::uintptr_t>(self->created));
    }
    static void destroy(void *arg, ibv_ah *) { ++static_cast<fake_device *>(arg)->destroyed; }
};

gid_type gid_of(unsigned n)
{
    gid_type gid{};
    gid[3]  = static_cast<std::uint8_t>(n >> 8);
    gid[15] = static_cast<std::uint8_t>(n);
    return gid;
}

} // namespace

TEST(srd_op, get_and_put_recycle_aligned_records)
{
    op_pool pool(32);
    std::set<op *> seen;

    for (unsigned i = 0; i < 3 * limits::ops_per_chunk; ++i) {
        op *o = pool.get();
        ASSERT_NE(o, nullptr);
        ASSERT_EQ(reinterpret_cast<std::uintptr_t>(o) % 64, 0u);
        ASSERT_TRUE(seen.insert(o).second);
    }
    EXPECT_EQ(pool.count_free(), 0u);
    for (op *o : seen) {
        pool.put(o);
    }
    EXPECT_EQ(pool.count_free(), pool.total());
    EXPECT_EQ(pool.get(), *seen.rbegin()); // last in, first out: warm
}

TEST(srd_op, wide_inline_size_makes_room_behind_the_record)
{
    op_pool pool(80);
    op *a = pool.get();
    op *b = pool.get();

    const auto gap = reinterpret_cast<std::uintptr_t>(a < b ? b : a) - reinterpret_cast<std::uintptr_t>(a < b ? a : b);
    EXPECT_GE(gap, offsetof(op, bytes) + 80);
}

TEST(srd_op, wide_inline_writes_fit_into_two_cache_lines)
{
    op_pool pool(80 + op_put_overhead);
    op *a = pool.get();
    op *b = pool.get();

    const auto gap = reinterpret_cast<std::uintptr_t>(a < b ? b : a) - reinterpret_cast<std::uintptr_t>(a < b ? a : b);
    EXPECT_EQ(gap, 128u);
    EXPECT_EQ(op_put_bytes(a) + 80, reinterpret_cast<unsigned char *>(a) + 128);
}

struct small {
    std::uint64_t words[4] = {1, 2, 3, 4};
};

TEST(srd_slab, elements_are_new_apart_and_never_across_two_lines)
{
    slab<small, 8> pool;
    std::set<small *> seen;

    for (int i = 0; i < 20; ++i) {
        small *one = pool.take();
        ASSERT_NE(one, nullptr);
        EXPECT_EQ(one->words[0] + one->words[3], 5u);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(one) % sizeof(small), 0u);
        EXPECT_TRUE(seen.insert(one).second);
        one->words[0] = one->words[3] = 77;
    }
    EXPECT_EQ(pool.taken(), 20u);
    for (small *one : seen) {
        pool.give(one);
    }
    EXPECT_EQ(pool.taken(), 0u);
    small *again = pool.take();
    EXPECT_EQ(again->words[0] + again->words[3], 5u); // as if new
#ifdef SRD_HIDES_ELEMENTS
    EXPECT_EQ(seen.count(again), 0u); // what was given back stays hidden
#else
    EXPECT_EQ(seen.count(again), 1u);
#endif
}

TEST(srd_buf, grow_hands_out_aligned_elements_up_to_the_bound)
{
    fake_registrar registrar;
    elements e;
    {
        reg_pool pool(pool_of(registrar, e, 6));
        EXPECT_EQ(pool.element_size(), 1024u);
        EXPECT_TRUE(pool.grow());
        EXPECT_TRUE(pool.grow()); // the last chunk is cut to the bound
        EXPECT_FALSE(pool.can_grow());
        EXPECT_FALSE(pool.grow());
        EXPECT_EQ(pool.total(), 6u);
        EXPECT_EQ(e.lkeys.size(), 2u);
        for (unsigned char *element : e.seen) {
            EXPECT_EQ(reinterpret_cast<std::uintptr_t>(element) % 256, 0u);
            element[0] = element[1023] = 1;
        }
        EXPECT_EQ(registrar.live, 2);
    }
    EXPECT_EQ(registrar.live, 0);
}

TEST(srd_buf, grow_without_registrations_fails_and_is_not_tried_again)
{
    fake_registrar registrar;
    elements e;
    reg_pool pool(pool_of(registrar, e, 100));

    registrar.fail_from = 1;
    EXPECT_TRUE(pool.grow());
    EXPECT_FALSE(pool.grow());
    EXPECT_FALSE(pool.can_grow());
    EXPECT_EQ(pool.total(), 4u);
    EXPECT_EQ(e.seen.size(), 4u);
}

TEST(srd_buf, grow_without_memory_fails_and_is_not_tried_again)
{
    fake_registrar registrar;
    elements e;
    auto params         = pool_of(registrar, e, 100);
    params.element_size = std::size_t{1} << 50; // more than any address space
    reg_pool pool(params);

    EXPECT_FALSE(pool.grow());
    EXPECT_FALSE(pool.can_grow());
    EXPECT_EQ(pool.total(), 0u);
    EXPECT_EQ(registrar.live, 0);
}

TEST(srd_ah, get_twice_shares_one_handle_until_the_last_put)
{
    fake_device device;
    auto table = std::make_unique<ah_table>(ah_source{&device, fake_device::create, fake_device::destroy});

    ah_entry *a = table->get(gid_of(1));
    ah_entry *b = table->get(gid_of(1));
    EXPECT_EQ(a, b); // AHT-1
    EXPECT_EQ(device.created, 1);
    table->put(a);
    EXPECT_EQ(device.destroyed, 0);
    EXPECT_EQ(table->find(gid_of(1)), b);
    table->put(b);
    EXPECT_EQ(device.destroyed, 1); // AHT-2
    EXPECT_EQ(table->find(gid_of(1)), nullptr);
}

TEST(srd_ah, get_on_a_full_device_is_null_and_leaves_nothing)
{
    fake_device device;
    auto table = std::make_unique<ah_table>(ah_source{&device, fake_device::create, fake_device::destroy});

    device.full = true;
    EXPECT_EQ(table->get(gid_of(1)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    EXPECT_EQ(table->count(), 0u);
    device.full = false;
    EXPECT_NE(table->get(gid_of(1)), nullptr); // the cause is gone
}

TEST(srd_ah, a_handle_whose_number_means_unknown_is_refused)
{
    fake_device device;
    auto table = std::make_unique<ah_table>(ah_source{&device,
        [](void *arg, const gid_type &gid, std::uint16_t *number_p) {
            ibv_ah *ah = fake_device::create(arg, gid, number_p);
            *number_p  = ah_number_unknown;
            return ah;
        }, fake_device::destroy});

    EXPECT_EQ(table->get(gid_of(1)), nullptr);
    EXPECT_EQ(errno, ERANGE);
    EXPECT_EQ(table->count(), 0u);
    EXPECT_EQ(device.destroyed, device.created);
}

TEST(srd_ah, the_handle_kept_back_is_lent_once_and_kept_again)
{
    fake_device device;
    {
        auto table = std::make_unique<ah_table>(ah_source{&device, fake_device::create, fake_device::destroy});
        table->reserve(gid_of(99)); // AHT-3
        EXPECT_EQ(device.created - device.destroyed, 1);
        EXPECT_NE(table->borrow(gid_of(1)), nullptr);
        EXPECT_EQ(device.created - device.destroyed, 1);
        EXPECT_EQ(table->borrow(gid_of(2)), nullptr); // one at a time
        EXPECT_EQ(table->get(gid_of(1)), nullptr);    // it would share the place
        EXPECT_EQ(errno, EBUSY);
        table->give_back();
        EXPECT_EQ(device.created - device.destroyed, 1);
        EXPECT_NE(table->borrow(gid_of(2)), nullptr);
        device.full = true;
        table->give_back(); // somebody else took the place
        EXPECT_EQ(table->borrow(gid_of(3)), nullptr);
        table->give_back();
    }
    EXPECT_EQ(device.created, device.destroyed);
}

TEST(srd_ah, many_devices_are_all_found_and_all_destroyed_with_the_table)
{
    fake_device device;
    {
        auto table = std::make_unique<ah_table>(ah_source{&device, fake_device::create, fake_device::destroy});
        for (unsigned i = 0; i < 5000; ++i) {
            ASSERT_NE(table->get(gid_of(i)), nullptr);
        }
        for (unsigned i = 0; i < 5000; ++i) {
            ASSERT_EQ(table->find(gid_of(i))->number, static_cast<std::uint16_t>(i + 1));
        }
        EXPECT_EQ(table->count(), 5000u);
    }
    EXPECT_EQ(device.destroyed, 5000);
}

TEST(srd_op, shape_is_what_the_fields_say)
{
    op o{};
    o.shape = op_shape(op_kind::am_zcopy, 0x1234);

    EXPECT_EQ(o.length, 0x1234u);
    EXPECT_EQ(o.kind, op_kind::am_zcopy);
    EXPECT_TRUE(o.sequenced);
    EXPECT_TRUE(o.user);
    EXPECT_FALSE(o.done || o.waiting || o.cancelled || o.retried || o.rma_group || o.unused);
}

TEST(srd_op, plain_inline_is_nothing_else)
{
    op o{};
    const auto fresh = [&o] { o.shape = op_shape(op_kind::am_inline, 12); };

    fresh();
    EXPECT_TRUE(is_plain_inline(o.shape));
    o.length = 32;
    EXPECT_TRUE(is_plain_inline(o.shape));
    o.retried = true;
    EXPECT_FALSE(is_plain_inline(o.shape));
    fresh();
    o.user = false;
    EXPECT_FALSE(is_plain_inline(o.shape));
    fresh();
    o.waiting = true;
    EXPECT_FALSE(is_plain_inline(o.shape));
    for (op_kind kind : {op_kind::am_buf, op_kind::am_zcopy, op_kind::control, op_kind::marker, op_kind::put_buf}) {
        EXPECT_FALSE(is_plain_inline(op_shape(kind, 12)));
    }
}
