/* The byte formats of an EFA device: work queue entries, receive descriptors and completion entries.
 *
 * Owns: offsets and bits (docs/device-abi.md); pure functions over private copies of the bytes. Decides nothing about validity
 * except the shape of the bytes.
 */
#pragma once

#include <cstdint>
#include <cstring>

namespace softefa::dev::wqe {

template <class T> inline T load(const std::uint8_t *bytes, unsigned offset) noexcept
{
    T value;
    std::memcpy(&value, bytes + offset, sizeof(value));
    return value;
}

// --- send queue: 32 bytes of meta, then data
inline constexpr unsigned op_send = 0, op_rdma_read = 1, op_rdma_write = 2;
inline constexpr unsigned data_offset = 32, rdma_local_offset = 48;

struct meta {
    std::uint16_t req_id;
    std::uint8_t  op;          ///< 4 bits
    bool          has_imm, is_inline, well_formed; ///< well_formed: the bits that are always 1 are
    std::uint16_t dest_qpn, length, ah_number; ///< length: inline bytes, else SGEs
    std::uint32_t imm, qkey;
    std::uint16_t req_id_middle; ///< of a wide id, as is the rest
    std::uint32_t req_id_high;
};

inline meta decode_meta(const std::uint8_t *w) noexcept
{
    const std::uint8_t ctrl1 = w[2], ctrl2 = w[3];
    meta               m{};
    m.req_id      = load<std::uint16_t>(w, 0);
    m.op          = ctrl1 & 0xf;
    m.has_imm     = (ctrl1 & 0x10) != 0;
    m.is_inline   = (ctrl1 & 0x20) != 0;
    m.well_formed = (ctrl1 & 0x80) != 0 && (ctrl2 & 0x0c) == 0x0c;
    m.dest_qpn    = load<std::uint16_t>(w, 4);
    m.length      = load<std::uint16_t>(w, 6);
    m.imm         = load<std::uint32_t>(w, 8);
    m.ah_number   = load<std::uint16_t>(w, 12);
    m.qkey        = load<std::uint32_t>(w, 16);
    m.req_id_middle = load<std::uint16_t>(w, 26);
    m.req_id_high   = load<std::uint32_t>(w, 28);
    return m;
}

/// {u32 length, u32 key, u32 address low, u32 address high}
struct buffer {
    std::uint32_t length, key;
    std::uint64_t address;
};
inline buffer decode_buffer(const std::uint8_t *w, unsigned offset) noexcept
{
    return {load<std::uint32_t>(w, offset), load<std::uint32_t>(w, offset + 4), load<std::uint64_t>(w, offset + 8)};
}

// --- receive queue: 16-byte descriptors
struct recv_descriptor {
    std::uint64_t address;
    std::uint16_t req_id, length;
    std::uint32_t lkey; ///< 24 bits
    bool          first, last;
};
inline recv_descriptor decode_recv(const std::uint8_t *d) noexcept
{
    const auto ctrl = load<std::uint32_t>(d, 12);
    return {load<std::uint64_t>(d, 0), load<std::uint16_t>(d, 8), load<std::uint16_t>(d, 10), ctrl & 0xffffffu,
            (ctrl & (1u << 30)) != 0, (ctrl & (1u << 31)) != 0};
}

// --- completion entries
inline constexpr unsigned queue_send = 1, queue_recv = 2;
inline constexpr std::uint8_t cqe_has_imm = 1u << 3, cqe_unsolicited = 1u << 7;

/// First 8 bytes of an entry, without the phase bit. `tail`: bytes 6 and 7.
constexpr std::uint64_t cqe_word0(std::uint16_t req_id, unsigned status, unsigned queue, unsigned op, std::uint8_t more_flags,
                                  std::uint16_t qpn, std::uint16_t tail) noexcept
{
    const std::uint64_t flags = (queue << 1) | (op << 4) | more_flags;
    return req_id | (std::uint64_t{status} << 16) | (flags << 24) | (std::uint64_t{qpn} << 32) | (std::uint64_t{tail} << 48);
}
inline constexpr std::uint64_t cqe_phase = std::uint64_t{1} << 24;

// Its parts, for the recorder.
constexpr unsigned cqe_req_id(std::uint64_t word0) noexcept { return word0 & 0xffff; }
constexpr unsigned cqe_status(std::uint64_t word0) noexcept { return (word0 >> 16) & 0xff; }
constexpr unsigned cqe_queue(std::uint64_t word0) noexcept { return (word0 >> 25) & 3; }
constexpr unsigned cqe_qpn(std::uint64_t word0) noexcept { return (word0 >> 32) & 0xffff; }

} // namespace softefa::dev::wqe
