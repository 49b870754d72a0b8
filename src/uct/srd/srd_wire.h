/* The bytes that two interfaces exchange: docs/transport-protocol.md sections 2 to 5, encoded and decoded. No policy.
 *
 * Owns: the layout of the immediate, of the index word, of the credit extension, of the long header and of the two
 * addresses that travel through UCP. Decoders believe nothing: they return false or a value, never assert.
 * Refuses to know: peers, windows, verbs, UCX.
 *
 * Why so small: an inline send of the first EFA generations has 32 bytes. After hello a message costs 4 of them (the
 * index); active message id, psn and flags ride in the 32-bit immediate, which costs none.
 */
#pragma once

#include "base/bytes.h"
#include "base/seq.h"
#include "uct/srd/srd_limits.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace srd {

using gid_type = std::array<std::uint8_t, 16>;

namespace wire {

/// Version of the protocol spoken, and the oldest one still understood. WIRE 1.1
inline constexpr std::uint8_t version     = 1;
inline constexpr std::uint8_t version_min = 1;

// --- immediate (WIRE 2) ----------------------------------------------------------------------------------------------------
// bits 0-15 psn, 16-20 active message id or control type, 21-31 flags
inline constexpr unsigned imm_id_shift          = 16;
inline constexpr std::uint32_t imm_id_mask      = 0x1f;
inline constexpr std::uint32_t imm_credit       = 1u << 21; ///< a credit extension follows the index
inline constexpr std::uint32_t imm_long         = 1u << 22; ///< the long header replaces index and extension
inline constexpr std::uint32_t imm_control      = 1u << 23; ///< not for the program: the id is a control type
inline constexpr std::uint32_t imm_want_consumed = 1u << 24; ///< tell me as soon as this psn is consumed
inline constexpr std::uint32_t imm_flags_known  = imm_credit | imm_long | imm_control | imm_want_consumed;
inline constexpr std::uint32_t imm_flags_mask   = 0xffe00000u;

constexpr std::uint32_t imm_make(unsigned id, base::seq32 psn, std::uint32_t flags) noexcept
{
    return (psn.raw() & 0xffffu) | (id << imm_id_shift) | flags;
}
constexpr std::uint16_t imm_psn(std::uint32_t imm) noexcept { return static_cast<std::uint16_t>(imm); }
constexpr unsigned imm_id(std::uint32_t imm) noexcept { return (imm >> imm_id_shift) & imm_id_mask; }

// --- control types (WIRE 5) ------------------------------------------------------------------------------------------------
enum class control : std::uint8_t {
    hello     = 1, ///< long header; answer with hello_ack
    hello_ack = 2, ///< long header; the nonce is the one of the hello
    nak       = 3, ///< long header and one byte: nak_reason
    credit    = 4, ///< index and credit extension
    probe     = 5, ///< index; acknowledged by the device alone
    nop       = 16, ///< sequenced: stands for a message that was taken back before the device delivered it
    bye       = 17, ///< sequenced: the last psn of this life
};
inline constexpr unsigned control_first_sequenced = 16;

enum class nak_reason : std::uint8_t {
    no_address_handle = 1, ///< the receiver cannot answer: try again later
    stale             = 2, ///< the receiver does not know this life any more
};

// --- index word (WIRE 3.1) -------------------------------------------------------------------------------------------------
inline constexpr std::size_t index_size       = 4;
inline constexpr std::uint32_t index_none     = 0xffffffffu; ///< never assigned
constexpr std::uint32_t index_make(std::uint32_t slot, std::uint32_t generation) noexcept
{
    return slot | (generation << limits::slot_bits);
}
constexpr std::uint32_t index_slot(std::uint32_t index) noexcept { return index & ((1u << limits::slot_bits) - 1); }
constexpr std::uint32_t index_generation(std::uint32_t index) noexcept { return index >> limits::slot_bits; }

// --- credit extension (WIRE 3.2) -------------------------------------------------------------------------------------------
struct credit {
    base::seq32 consumed; ///< every earlier psn was handled by the program
    base::seq32 limit;    ///< first psn that may not be sent
};
inline constexpr std::size_t credit_size = 8;

inline void put_credit(void *to, const credit &c) noexcept
{
    base::store_le<std::uint32_t>(to, c.consumed.raw());
    base::store_le<std::uint32_t>(static_cast<unsigned char *>(to) + 4, c.limit.raw());
}
inline credit get_credit(const void *from) noexcept
{
    return {base::seq32(base::load_le<std::uint32_t>(from)),
            base::seq32(base::load_le<std::uint32_t>(static_cast<const unsigned char *>(from) + 4))};
}

// --- long header (WIRE 3.3) ------------------------------------------------------------------------------------------------
struct long_header {
    std::uint32_t index       = index_none; ///< what the sender was assigned, if it knows; informative
    std::uint8_t version      = wire::version;
    std::uint8_t version_min  = wire::version_min;
    std::uint16_t nonce       = 0; ///< number of the hello that this is or answers
    std::uint32_t qkey        = 0; ///< of the sender's queue pair
    std::uint32_t epoch       = 0; ///< of the sender's life towards the receiver; never 0
    std::uint32_t known_epoch = 0; ///< the receiver's epoch as the sender knows it; 0 = not heard yet
    std::uint32_t your_index  = index_none; ///< assigned by the sender: the receiver uses it from now on
    gid_type gid{};                         ///< of the sender
    credit grant{};
};
inline constexpr std::size_t long_size = 48;
inline constexpr std::size_t long_nonce_offset = 6;

inline void put_long(void *to, const long_header &h) noexcept
{
    base::byte_writer w(to, long_size);
    w.put(h.index);
    w.put(h.version);
    w.put(h.version_min);
    w.put(h.nonce);
    w.put(h.qkey);
    w.put(h.epoch);
    w.put(h.known_epoch);
    w.put(h.your_index);
    w.put_bytes(h.gid.data(), h.gid.size());
    w.put(h.grant.consumed.raw());
    w.put(h.grant.limit.raw());
}

/// False: too short or not well-formed. A version that is not ours is left to the caller, who can say so.
inline bool get_long(const void *from, std::size_t size, long_header &h) noexcept
{
    base::byte_reader r(from, size);
    h.index       = r.get<std::uint32_t>();
    h.version     = r.get<std::uint8_t>();
    h.version_min = r.get<std::uint8_t>();
    h.nonce       = r.get<std::uint16_t>();
    h.qkey        = r.get<std::uint32_t>();
    h.epoch       = r.get<std::uint32_t>();
    h.known_epoch = r.get<std::uint32_t>();
    h.your_index  = r.get<std::uint32_t>();
    r.get_bytes(h.gid.data(), h.gid.size());
    h.grant.consumed = base::seq32(r.get<std::uint32_t>());
    h.grant.limit    = base::seq32(r.get<std::uint32_t>());
    return r.ok() && h.epoch != 0 && h.version_min <= h.version;
}

/// Two ranges of versions talk when they overlap. WIRE 1.2
constexpr bool versions_overlap(std::uint8_t theirs, std::uint8_t theirs_min) noexcept
{
    return theirs_min <= version && version_min <= theirs;
}

// --- addresses (WIRE 4) ----------------------------------------------------------------------------------------------------
// Device address. Byte 0: 1011 1fvv: bit 3 is set, so that the parser of UCX's own srd takes it for another link layer;
// f = 1: the subnet prefix is fe80::/64 and only the interface id follows; vv = format of the addresses.
inline constexpr std::uint8_t device_tag           = 0xb8;
inline constexpr std::uint8_t device_tag_mask      = 0xf8;
inline constexpr std::uint8_t device_tag_linklocal = 0x04;
inline constexpr std::uint8_t device_tag_format    = 0x03;
inline constexpr std::size_t device_size_linklocal = 9;
inline constexpr std::size_t device_size_full      = 17;
static_assert(device_size_full < 31, "UCP packs the length in five bits");

inline bool gid_is_linklocal(const gid_type &gid) noexcept
{
    static constexpr std::uint8_t prefix[8] = {0xfe, 0x80};
    return std::memcmp(gid.data(), prefix, sizeof(prefix)) == 0;
}
inline std::size_t device_size(const gid_type &gid) noexcept
{
    return gid_is_linklocal(gid) ? device_size_linklocal : device_size_full;
}
inline void put_device(void *to, const gid_type &gid) noexcept
{
    auto *bytes      = static_cast<std::uint8_t *>(to);
    const bool local = gid_is_linklocal(gid);

    bytes[0] = local ? device_tag | device_tag_linklocal : device_tag;
    std::memcpy(bytes + 1, local ? gid.data() + 8 : gid.data(), local ? 8 : 16);
}
/// UCX 1.13 passes no length: the first byte says how many follow. `size` may be SIZE_MAX when unknown.
inline bool get_device(const void *from, std::size_t size, gid_type &gid) noexcept
{
    const auto *bytes = static_cast<const std::uint8_t *>(from);

    if (size < 1 || (bytes[0] & device_tag_mask) != device_tag || (bytes[0] & device_tag_format) != 0) {
        return false;
    }
    const bool local = (bytes[0] & device_tag_linklocal) != 0;
    if (size < (local ? device_size_linklocal : device_size_full)) {
        return false;
    }
    gid = {};
    if (local) {
        gid[0] = 0xfe;
        gid[1] = 0x80;
        std::memcpy(gid.data() + 8, bytes + 1, 8);
    } else {
        std::memcpy(gid.data(), bytes + 1, 16);
    }
    return true;
}

// Interface address: version, oldest version, QPN, qkey.
struct iface_address {
    std::uint8_t version     = wire::version;
    std::uint8_t version_min = wire::version_min;
    std::uint16_t qpn        = 0;
    std::uint32_t qkey       = 0;
};
inline constexpr std::size_t iface_size = 8;
static_assert(iface_size < 63, "UCP packs the length in six bits");

inline void put_iface(void *to, const iface_address &a) noexcept
{
    base::byte_writer w(to, iface_size);
    w.put(a.version);
    w.put(a.version_min);
    w.put(a.qpn);
    w.put(a.qkey);
}
inline bool get_iface(const void *from, std::size_t size, iface_address &a) noexcept
{
    base::byte_reader r(from, size < iface_size ? size : iface_size);
    a.version     = r.get<std::uint8_t>();
    a.version_min = r.get<std::uint8_t>();
    a.qpn         = r.get<std::uint16_t>();
    a.qkey        = r.get<std::uint32_t>();
    return r.ok() && a.version_min <= a.version && a.version != 0;
}

} // namespace wire
} // namespace srd
