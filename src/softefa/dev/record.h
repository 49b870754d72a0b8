/* The flight recorder: what this process did last.
 *
 * Owns: writing entries into the ring that the process publishes (observe/published.h). Control events are always recorded, unless the
 * recorder is off; each message only with SOFTEFA_RECORD=data, and costs one predicted branch otherwise.
 * Engine lock held in all of these.
 *
 *   kind              a                      b
 *   context_*         handle
 *   cq_*              handle                 entries
 *   qp_create         type                   send and receive entries: low and high half
 *   qp_state          state before           (status: state after)
 *   command_refused   object << 16 | method  errno
 *   work_error        request id             remote key         (status: completion status)
 *   bad_doorbell      value                  consumed
 *   cq_overrun        CQ handle              entries
 *   async_event       event type             element
 *   peer_*            instance               link index
 *   single_copy       instance               errno, 0: from now on (status: 1 on, 0 off)
 *   no_owner                                                    (peer_qpn: destination)
 *   doorbell          work requests taken
 *   pdu_out, pdu_in   kind << 32 | payload   operation id
 *   ack_out, ack_in   operation id                              (status: completion status)
 *   cqe               request id             queue (1 send, 2 receive)
 */
#pragma once

#include "softefa/observe/published.h"

namespace softefa::dev {

using observe::record_kind;

void record(record_kind kind, unsigned device, unsigned qpn, unsigned peer_qpn, unsigned status, std::uint64_t a, std::uint64_t b) noexcept;

} // namespace softefa::dev
