/* A network in memory between nodes (node.h): takes what their devices hold and brings it to its target, or not.
 *
 * Owns: the way of one message: target found by GID and QPN, qkey compared, receive taken, completions written on both
 * sides, as SRD has it: the sender's completion says that the receiver's device has the message.
 * Refuses to know: when, in which order, and which faults; the driver chooses each step, from its input or a seed.
 */
#pragma once

#include "node.h"

#include <algorithm>

namespace fuzz {

enum class outcome { delivered, not_ready, gone };

struct network {
    std::vector<node *> nodes;
    std::uint64_t delivered = 0, refused = 0, one_sided = 0; ///< messages that arrived; attempts that met no posted receive

    node *find(const fake::gid_bytes &gid, std::uint16_t qpn) const
    {
        for (node *n : nodes) {
            if (n->is_open() && n->qpn() == qpn && n->device.gid == gid) {
                return n;
            }
        }
        return nullptr;
    }

    /// Brings the send at `position` of a node's device to its target.
    outcome carry(node &from, std::size_t position)
    {
        const fake::send &s = from.device.sends[position];
        node *to            = find(s.gid, s.qpn);
        if (to == nullptr || to->device.qkey != s.qkey) {
            from.device.complete_send(position, IBV_WC_REM_INV_RD_REQ_ERR, 9);
            return outcome::gone;
        }
        if (fake::is_one_sided(s)) {
            return carry_one_sided(from, *to, position);
        }
        const std::vector<std::uint8_t> bytes = from.device.gather(s);
        if (!to->device.arrive(bytes.data(), bytes.size(), s.imm, true, to->device.number_of(from.device.gid), from.qpn())) {
            ++refused;
            from.device.complete_send(position, IBV_WC_RNR_RETRY_EXC_ERR, 10);
            return outcome::not_ready;
        }
        ++delivered;
        from.device.complete_send(position, IBV_WC_SUCCESS, 0);
        return outcome::delivered;
    }

    /// A put or get, with the checks of the target's device: initiator known, key, range, rights.
    outcome carry_one_sided(node &from, node &to, std::size_t position)
    {
        const fake::send &s = from.device.sends[position];
        const bool read     = s.opcode == IBV_WR_RDMA_READ;
        if (to.device.number_of(from.device.gid) == fake::ah_unknown) {
            from.device.complete_send(position, IBV_WC_REM_OP_ERR, 14);
            return outcome::gone;
        }
        std::uint8_t *there = to.device.reach(s.remote_address, fake::size_of(s), s.rkey, true,
                                              read ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE);
        if (there == nullptr) {
            from.device.complete_send(position, IBV_WC_REM_ACCESS_ERR, 7);
            return outcome::gone;
        }
        if (read) {
            std::uint8_t *here = from.device.landing(s);
            FUZZ_CHECK(here != nullptr, "a read into memory outside its registration");
            std::copy(there, there + s.pieces[0].length, here);
        } else {
            const std::vector<std::uint8_t> bytes = from.device.gather(s);
            std::copy(bytes.begin(), bytes.end(), there);
        }
        ++one_sided;
        from.device.complete_send(position, IBV_WC_SUCCESS, 0);
        return outcome::delivered;
    }
};

inline fake::gid_bytes gid_of(unsigned n)
{
    return {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n)};
}

} // namespace fuzz
