/* How a send is posted: the pieces that every poster of active messages and control messages shares, inline.
 *
 * Owns: the prepared work requests of the interface, and the first values of a record.
 * Refuses to know: whether a post is allowed (srd_am), what happens afterwards (srd_tx).
 *
 * ibv_post_send and not ibv_wr_*: one indirect call and one prepared request against five to six indirect calls. Of the
 * request only what differs is written: where the bytes are, whose completion it is, the immediate, and the peer's route,
 * which lies in the peer as it lies in the request. One-sided requests need ibv_wr_* (srd_rma).
 */
#pragma once

#include "uct/srd/srd_iface.h"

#include <cstring>
#include <endian.h>

namespace srd {

static_assert(sizeof(peer_route) == sizeof(ibv_send_wr::wr.ud) &&
              offsetof(peer_route, qpn) == offsetof(ibv_send_wr, wr.ud.remote_qpn) - offsetof(ibv_send_wr, wr.ud) &&
              offsetof(peer_route, qkey) == offsetof(ibv_send_wr, wr.ud.remote_qkey) - offsetof(ibv_send_wr, wr.ud));

inline int tx_post(iface *f, ibv_send_wr &wr, const peer *p, op *o, std::uint32_t imm) noexcept
{
    wr.wr_id    = reinterpret_cast<std::uintptr_t>(o);
    wr.imm_data = htobe32(imm);
    std::memcpy(&wr.wr.ud, &p->route, sizeof(wr.wr.ud));
    return ibv_post_send(f->tx.qp, &wr, &f->tx.bad_wr);
}

inline op *tx_op_of(const ibv_send_wr &wr) noexcept { return reinterpret_cast<op *>(wr.wr_id); }

inline int tx_post_inline(iface *f, const peer *p, op *o, std::uint32_t imm, const void *bytes, unsigned size) noexcept
{
    f->tx.inline_sge.addr   = reinterpret_cast<std::uintptr_t>(bytes);
    f->tx.inline_sge.length = size;
    return tx_post(f, f->tx.inline_wr, p, o, imm);
}

inline int tx_post_pieces(iface *f, const peer *p, op *o, std::uint32_t imm, const void *bytes, unsigned size,
                          std::uint32_t lkey, int piece_count) noexcept
{
    f->tx.sge[0].addr   = reinterpret_cast<std::uintptr_t>(bytes);
    f->tx.sge[0].length = size;
    f->tx.sge[0].lkey   = lkey;
    f->tx.wr.num_sge    = piece_count;
    return tx_post(f, f->tx.wr, p, o, imm);
}

inline void op_init(op *o, ep *e, peer *p, std::uint32_t imm, unsigned size, op_kind kind) noexcept
{
    o->owner = p;
    o->imm   = imm;
    o->shape = op_shape(kind, size);
    o->ep    = e;
}

/// The record, the psn and the slot are used; the post follows and cannot fail any more.
inline void tx_commit(iface *f, peer *p, op *o, unsigned payload_size, std::uint32_t flags) noexcept
{
    f->ops.take(o);
    tx_slot_take(f);
    if (flags == 0) [[likely]] {
        p->tx.push_ready(o);
    } else {
        p->tx.push_held(o);
    }
    count(f, counter::tx_am);
    count(f, counter::tx_bytes, payload_size);
}

} // namespace srd
