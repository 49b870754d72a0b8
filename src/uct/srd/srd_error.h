/* Completion status -> what it means and whose fault it is.
 *
 * Owns: the one translation of the device's status codes. `vendor_err` carries the device's own code and is the same in
 * every rdma-core; the ibv_wc_status it is mapped to is not (14 and 15 changed between releases), so the code decides and the
 * wc status is the fallback for a device that sets none.
 * Refuses to know: what is done about it.
 */
#pragma once

#include "uct/srd/ucx/uct_abi.h"

#include <infiniband/verbs.h>

#include <cstdint>

namespace srd {

/// Whose fault a failed send is; decides what else fails with it.
enum class fault : std::uint8_t {
    none,        ///< it succeeded
    not_ready,   ///< the receiver had no buffer: certainly not delivered, may be sent again
    operation,   ///< this work request was wrong: certainly not delivered, nothing else is affected
    peer,        ///< may or may not have been delivered: nothing can follow it
    interface_,  ///< our queue pair is going away
};

struct error_meaning {
    fault whose;
    ucs_status_t status;  ///< for completions and for the error handler
    const char *meaning;  ///< of the code
    const char *cause;    ///< likely cause, for a human
};

/// Of a completed send. `device_status` is ibv_wc::vendor_err.
error_meaning error_of_completion(enum ibv_wc_status wc_status, std::uint32_t device_status) noexcept;

} // namespace srd
