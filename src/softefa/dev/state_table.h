/* Which QP transitions exist and which attributes each needs: the verbs tables for SRD and UD on EFA.
 *
 * Owns: the tables and the check; pure. Source: the kernel's EFA driver, as described in docs/device-abi.md.
 */
#pragma once

#include "softefa/dev/device.h"

namespace softefa::dev {

/// IBV_QP_* bits, repeated because dev knows no libibverbs header.
enum attr_bits : std::uint32_t {
    attr_state     = 0x1,
    attr_cur_state = 0x2,
    attr_sqd_async = 0x4,
    attr_pkey      = 0x10,
    attr_port      = 0x20,
    attr_qkey      = 0x40,
    attr_rnr_retry = 0x800,
    attr_sq_psn    = 0x10000,
    attr_cap       = 0x80000,
};

/// ok, unsupported (attribute that EFA does not have) or invalid_argument (transition, missing or extra attribute).
status state_table_check(qp_type type, qp_state from, qp_state to, std::uint32_t attr_mask, bool has_rnr_retry) noexcept;

} // namespace softefa::dev
