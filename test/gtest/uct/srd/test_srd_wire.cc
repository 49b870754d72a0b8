/* Unit tests of srd_wire.h: every field survives a round trip, every truncation and foreign byte is refused. */
#include "uct/srd/srd_wire.h"
#include "base/rng.h"

#include <gtest/gtest.h>

using base::seq32;
namespace wire = srd::wire;

TEST(srd_wire, imm_make_keeps_id_psn_and_flags_apart)
{
    for (unsigned id = 0; id < 32; ++id) {
        for (const std::uint32_t psn : {0u, 1u, 0x7fffu, 0xffffu, 0x10000u, 0xffffffffu}) {
            const auto imm = wire::imm_make(id, seq32(psn), wire::imm_credit | wire::imm_want_consumed);
            ASSERT_EQ(wire::imm_id(imm), id);
            ASSERT_EQ(wire::imm_psn(imm), psn & 0xffff);
            ASSERT_EQ(imm & wire::imm_flags_mask, wire::imm_credit | wire::imm_want_consumed);
        }
    }
    EXPECT_EQ(wire::imm_flags_known & ~wire::imm_flags_mask, 0u);
}

TEST(srd_wire, index_make_splits_slot_and_generation)
{
    const auto index = wire::index_make(0xfffff, 0x7ff);
    EXPECT_EQ(wire::index_slot(index), 0xfffffu);
    EXPECT_EQ(wire::index_generation(index), 0x7ffu);
}

TEST(srd_wire, long_header_round_trip_and_every_truncation)
{
    wire::long_header in, out;
    in.index       = 5;
    in.nonce       = 0x1234;
    in.qkey        = 0x01020304;
    in.epoch       = 0xaabbccdd;
    in.known_epoch = 0x55667788;
    in.your_index  = wire::index_make(7, 3);
    for (unsigned i = 0; i < 16; ++i) {
        in.gid[i] = static_cast<std::uint8_t>(i + 1);
    }
    in.grant = {seq32(17), seq32(33)};
    unsigned char bytes[wire::long_size];
    wire::put_long(bytes, in);
    ASSERT_TRUE(wire::get_long(bytes, sizeof(bytes), out));
    EXPECT_EQ(out.index, in.index);
    EXPECT_EQ(out.version, wire::version);
    EXPECT_EQ(out.nonce, in.nonce);
    EXPECT_EQ(out.qkey, in.qkey);
    EXPECT_EQ(out.epoch, in.epoch);
    EXPECT_EQ(out.known_epoch, in.known_epoch);
    EXPECT_EQ(out.your_index, in.your_index);
    EXPECT_EQ(out.gid, in.gid);
    EXPECT_EQ(out.grant.consumed, in.grant.consumed);
    EXPECT_EQ(out.grant.limit, in.grant.limit);
    for (std::size_t size = 0; size < sizeof(bytes); ++size) {
        EXPECT_FALSE(wire::get_long(bytes, size, out)) << size;
    }
}

TEST(srd_wire, long_header_without_epoch_is_refused)
{
    wire::long_header in, out;
    unsigned char bytes[wire::long_size];
    wire::put_long(bytes, in); // epoch 0
    EXPECT_FALSE(wire::get_long(bytes, sizeof(bytes), out));
    in.epoch       = 1;
    in.version     = 1;
    in.version_min = 2;
    wire::put_long(bytes, in);
    EXPECT_FALSE(wire::get_long(bytes, sizeof(bytes), out));
}

TEST(srd_wire, versions_overlap_talks_with_the_next_or_refuses)
{
    EXPECT_TRUE(wire::versions_overlap(1, 1));
    EXPECT_TRUE(wire::versions_overlap(2, 1));  // N+1 that still understands N
    EXPECT_FALSE(wire::versions_overlap(2, 2)); // N+1 that does not
    EXPECT_FALSE(wire::versions_overlap(0, 0));
}

/// UCX's own srd has the device address of UCX's InfiniBand transports. Bit 3 of its first byte says Ethernet; an EFA
/// port is none, and the parser calls an address of the other kind unreachable before it reads on.
static bool parser_of_ucx_may_reach(unsigned char first) { return (first & 0x08) == 0; }

TEST(srd_wire, device_address_of_both_kinds_round_trips)
{
    srd::gid_type local{}, global{}, out;
    local[0] = 0xfe;
    local[1] = 0x80;
    local[15] = 9;
    global[0] = 0x20;
    global[15] = 7;
    for (const auto &gid : {local, global}) {
        unsigned char bytes[wire::device_size_full] = {};
        wire::put_device(bytes, gid);
        EXPECT_FALSE(parser_of_ucx_may_reach(bytes[0]));
        ASSERT_TRUE(wire::get_device(bytes, wire::device_size(gid), out));
        EXPECT_EQ(out, gid);
        ASSERT_TRUE(wire::get_device(bytes, SIZE_MAX, out)); // UCX 1.13 passes no length
        EXPECT_EQ(out, gid);
        for (std::size_t size = 0; size < wire::device_size(gid); ++size) {
            EXPECT_FALSE(wire::get_device(bytes, size, out));
        }
    }
    EXPECT_EQ(wire::device_size(local), 9u);
}

TEST(srd_wire, device_address_with_foreign_first_byte_is_refused)
{
    unsigned char bytes[wire::device_size_full] = {};
    srd::gid_type out;
    unsigned accepted = 0;
    for (unsigned first = 0; first < 256; ++first) {
        bytes[0] = static_cast<unsigned char>(first);
        const bool ours = wire::get_device(bytes, sizeof(bytes), out);
        accepted += ours;
        // Whatever UCX's own srd can write is no address to us, and the other way round. UCX 1.18 passes lengths too.
        EXPECT_FALSE(ours && parser_of_ucx_may_reach(bytes[0])) << first;
        if (parser_of_ucx_may_reach(bytes[0])) {
            EXPECT_FALSE(wire::get_device(bytes, SIZE_MAX, out)) << first;
            EXPECT_FALSE(wire::get_device(bytes, 1, out)) << first;
        }
    }
    EXPECT_EQ(accepted, 2u); // link-local and full, format 0
}

TEST(srd_wire, iface_address_round_trip_and_truncation)
{
    wire::iface_address in, out;
    in.qpn  = 0xfffe;
    in.qkey = 0x7fffffff;
    unsigned char bytes[wire::iface_size];
    wire::put_iface(bytes, in);
    ASSERT_TRUE(wire::get_iface(bytes, SIZE_MAX, out));
    EXPECT_EQ(out.qpn, in.qpn);
    EXPECT_EQ(out.qkey, in.qkey);
    for (std::size_t size = 0; size < wire::iface_size; ++size) {
        EXPECT_FALSE(wire::get_iface(bytes, size, out));
    }
}

TEST(srd_wire, decoders_of_random_bytes_never_read_past_the_end)
{
    base::rng rng(11);
    for (int i = 0; i < 20000; ++i) {
        unsigned char bytes[64];
        for (auto &b : bytes) {
            b = static_cast<unsigned char>(rng.next());
        }
        const std::size_t size = rng.below(64);
        wire::long_header h;
        wire::iface_address a;
        srd::gid_type gid;
        if (wire::get_long(bytes + 64 - size, size, h)) {
            ASSERT_GE(size, wire::long_size);
        }
        if (wire::get_iface(bytes + 64 - size, size, a)) {
            ASSERT_GE(size, wire::iface_size);
        }
        if (size > 0 && wire::get_device(bytes + 64 - size, size, gid)) {
            ASSERT_GE(size, wire::device_size_linklocal);
        }
    }
}
