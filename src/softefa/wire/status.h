/* Completion status codes of an EFA device, as they appear in a CQE and in an acknowledgement.
 *
 * Owns: the numbers, nothing else. Codes up to 18 are the device's; the internal ones exist only between two Soft EFA instances and
 * never reach a CQE.
 */
#pragma once

#include <cstdint>

namespace softefa::wire {

enum class efa_status : std::uint8_t {
    ok                = 0,
    flushed           = 1,  ///< the QP went to error before the work was done
    qp_internal       = 2,  ///< the WQE is malformed
    unsupported_op    = 3,
    invalid_ah        = 4,
    invalid_lkey      = 5,  ///< lkey, access right or range of local memory
    bad_length        = 6,  ///< longer than the MTU or than the largest RDMA
    bad_rkey          = 7,  ///< rkey, access right or range of remote memory
    remote_abort      = 8,  ///< the responder went away, or failed inside, in the middle of the operation
    bad_dest_qpn      = 9,  ///< no such QP, wrong qkey, or its process is gone
    rnr               = 10, ///< in an acknowledgement: no receive posted; in a CQE: and the retries are used up
    remote_bad_length = 11, ///< the receive buffer is too small
    bad_response      = 12,
    unresponsive      = 13, ///< it answered before, and does no longer
    unknown_peer      = 14, ///< RDMA: the responder has no address handle for us
    unreachable       = 15, ///< nobody ever answered at that address
    feature_mismatch  = 18, ///< write with immediate: the two QPs disagree about unsolicited receive
    stale_route       = 28, ///< internal: a datagram found no QP; names what pdu.h says instead of an operation
    by_ring           = 29, ///< internal: the bytes could not be had by address; the requester sends them through the ring
    no_such_qpn       = 30, ///< internal: this process does not own the QPN; the requester looks it up once more
};

} // namespace softefa::wire
