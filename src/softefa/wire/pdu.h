/* What two Soft EFA instances say to each other, whatever carries it.
 *
 * Owns: the kinds of protocol data unit, the 48-byte header that precedes a payload, and the 8-byte acknowledgement. Knows no ring, no socket
 * and no QP. Both ends run on little-endian or both on big-endian hosts when the fabric is shared memory; a fabric between hosts
 * encodes the same fields in its own way.
 *
 *   send       one message of at most one MTU; answered by an ack
 *   read_req   asks for `length` bytes at (rkey, address); answered by read_data units in order, or by an ack with an error
 *   read_data  payload for offset `address` of the read that `op` names; the last one carries flag_last
 *   write      payload for `address + offset so far`; flag_first starts a write, flag_last ends it and is answered by an ack
 *   read_grant instead of read data: where the bytes are, for a requester that copies them itself (payload: a grant)
 *   ack        final word on an operation (or RNR, which asks for another try after a pause)
 *   pad        ring filler, carries nothing
 *
 * A write with flag_by_address carries no bytes but a window: the target copies them from there. A read_req with that flag takes a grant as
 * well as data.
 *
 * An operation is named by its requester: {generation, QP slot, work slot}; the responder only echoes the name. A datagram has no answer; if its
 * QPN is nobody's in the process that it went to, an ack with the status stale_route names the destination (route_name).
 */
#pragma once

#include "softefa/wire/status.h"

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace softefa::wire {

/// Of everything that processes of a domain say to each other or read of each other: first words, segments, records. Another one is refused when a
/// process joins the domain (settings_signature).
inline constexpr std::uint32_t protocol_version = 5;

enum class pdu_kind : std::uint8_t { none = 0, send = 1, read_req = 2, read_data = 3, write = 4, ack = 5, pad = 6, read_grant = 7 };

enum pdu_flags : std::uint8_t {
    flag_has_imm     = 1u << 0,
    flag_ud          = 1u << 1, ///< unreliable datagram: no answer, dropped in silence
    flag_first       = 1u << 2,
    flag_last        = 1u << 3,
    flag_unsolicited = 1u << 4, ///< the sending QP expects no receive WR to be used for its immediate
    flag_by_address  = 1u << 5, ///< see above
    flag_repeated    = 1u << 6, ///< of a read_req: its grant was of no use
};

/// Name of an operation, unique among the operations that its requester has in flight.
struct op_id {
    std::uint32_t generation = 0; ///< 27 bits, of which operations use 26
    std::uint16_t qp_slot    = 0; ///< 12 bits
    std::uint16_t slot       = 0; ///< 15 bits

    static constexpr unsigned generation_bits = 27, qp_bits = 12, slot_bits = 15;

    constexpr std::uint64_t pack() const noexcept
    {
        return (std::uint64_t{generation} << (qp_bits + slot_bits)) | (std::uint64_t{qp_slot} << slot_bits) | slot;
    }
    static constexpr op_id unpack(std::uint64_t word) noexcept
    {
        return {static_cast<std::uint32_t>((word >> (qp_bits + slot_bits)) & ((1u << generation_bits) - 1)),
                static_cast<std::uint16_t>((word >> slot_bits) & ((1u << qp_bits) - 1)),
                static_cast<std::uint16_t>(word & ((1u << slot_bits) - 1))};
    }
    constexpr bool operator==(const op_id &) const = default;
};

/// In place of an op_id: a destination. No operation has its name: theirs have generations below `first`.
struct route_name {
    std::uint8_t  device = 0;
    std::uint16_t qpn    = 0;

    static constexpr std::uint32_t first = 1u << (op_id::generation_bits - 1);

    constexpr std::uint64_t pack() const noexcept { return op_id{first | qpn, device, 0}.pack(); }
    static constexpr route_name unpack(std::uint64_t word) noexcept
    {
        const op_id id = op_id::unpack(word);
        return {static_cast<std::uint8_t>(id.qp_slot), static_cast<std::uint16_t>(id.generation)};
    }
};

struct header {
    std::uint32_t commit       = 0; ///< shared memory only: stored last; names the position, so that an old lap is not taken for new
    pdu_kind      kind         = pdu_kind::none;
    std::uint8_t  flags        = 0; ///< pdu_flags
    std::uint16_t src_qpn      = 0;
    std::uint16_t dst_qpn      = 0;
    std::uint8_t  src_device   = 0; ///< index in the domain
    std::uint8_t  dst_device   = 0;
    std::uint32_t payload_size = 0; ///< bytes that follow this header
    std::uint64_t op           = 0; ///< op_id::pack()
    std::uint32_t qkey         = 0;
    std::uint32_t imm          = 0; ///< as in the WQE: host order of the value
    std::uint64_t address      = 0; ///< remote address (read_req, write) or offset (read_data)
    std::uint32_t rkey         = 0;
    std::uint32_t length       = 0; ///< bytes of the whole read or write
};
static_assert(sizeof(header) == 48 && std::is_trivially_copyable_v<header>);
static_assert(offsetof(header, op) == 16 && offsetof(header, address) == 32);

/// Memory of the sender that the receiver may copy from, as long as its epoch has not passed (fabric/ring.h, SC-1).
struct window {
    std::uint64_t address = 0; ///< in the sender's address space
    std::uint64_t epoch   = 0; ///< of its slot when the window was made
    std::uint32_t length  = 0; ///< bytes
    std::uint32_t slot    = 0; ///< where the sender tells that the epoch has passed
};
static_assert(sizeof(window) == 24 && std::is_trivially_copyable_v<window>);

/// Answer to a read: the window that it may copy from, and the whole registration that the window lies in. Later reads of it with the same rkey, qkey and
/// pair of devices through the same QP may be copied without asking, as long as the second epoch has not passed.
struct grant {
    window        now;
    std::uint64_t first   = 0; ///< remote address of the registration, as reads name it
    std::uint64_t length  = 0; ///< bytes
    std::uint64_t address = 0; ///< of its first byte in the sender's address space
    std::uint64_t epoch   = 0; ///< of the same slot, for grants that are kept
};
static_assert(sizeof(grant) == 56 && std::is_trivially_copyable_v<grant>);

/// Acknowledgement as one word: {4 lap, 5 status, 1 is_read, 54 op}. The lap makes the store of the word its own commit.
struct ack {
    std::uint64_t op      = 0; ///< op_id::pack()
    efa_status    status  = efa_status::ok;
    bool          is_read = false;

    static constexpr unsigned op_bits = 54;
    constexpr std::uint64_t pack(unsigned lap) const noexcept
    {
        return (std::uint64_t{lap & 0xf} << 60) | (std::uint64_t{static_cast<std::uint8_t>(status) & 0x1fu} << 55) |
               (std::uint64_t{is_read} << 54) | op;
    }
    static constexpr unsigned lap(std::uint64_t word) noexcept { return static_cast<unsigned>(word >> 60); }
    static constexpr ack unpack(std::uint64_t word) noexcept
    {
        return {word & ((std::uint64_t{1} << op_bits) - 1), static_cast<efa_status>((word >> 55) & 0x1f), ((word >> 54) & 1) != 0};
    }
};
static_assert(op_id::generation_bits + op_id::qp_bits + op_id::slot_bits == ack::op_bits);

} // namespace softefa::wire
