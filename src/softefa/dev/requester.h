/* What the files of the requester share.
 *
 * Owns: the calls between requester.cc (where an op goes, sends, and what an answer means) and rdma_request.cc (the records of reads and writes, and
 * the bytes that come back). What the rest of the engine calls is in engine_state.h.
 */
#pragma once

#include "softefa/dev/engine_state.h"

namespace softefa::dev {

enum class sent : std::uint8_t { yes, blocked, ended }; ///< ended: it is where it belongs, or completed

// --- requester.cc
/// Publishes a record of the op, with `more_flags` beside its own. There must be room for it.
void requester_commit(const op &o, link &l, wire::pdu_kind kind, std::uint32_t payload, std::uint8_t more_flags) noexcept;
sent requester_end_by_key(op &o) noexcept;         ///< a local key names nothing that may be used
// --- rdma_request.cc
sent rdma_send_read(op &o, link &l) noexcept;
/// One record of a write. `yes`: it was the last one; `blocked`: there is more, or no room. `moved_p` is set if there was something.
sent rdma_send_write(op &o, link &l, bool *moved_p) noexcept;
void rdma_again_by_ring(op &o) noexcept;           ///< once more, with two copies
bool rdma_link_work(link &l) noexcept;             ///< granted reads and unfinished writes; true if anything moved

} // namespace softefa::dev
