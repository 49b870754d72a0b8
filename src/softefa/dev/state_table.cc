/* See state_table.h. */
#include "softefa/dev/state_table.h"

namespace softefa::dev {

namespace {

constexpr std::uint32_t known = attr_state | attr_cur_state | attr_sqd_async | attr_pkey | attr_port | attr_qkey | attr_sq_psn |
                                attr_rnr_retry;

struct transition {
    qp_state      from, to;
    std::uint32_t required, optional_srd, optional_ud;
};

constexpr transition transitions[] = {
    {qp_state::reset, qp_state::init, attr_pkey | attr_port | attr_qkey, 0, 0},
    {qp_state::init, qp_state::init, 0, attr_pkey | attr_port | attr_qkey, attr_pkey | attr_port | attr_qkey},
    {qp_state::init, qp_state::rtr, 0, attr_pkey | attr_qkey, attr_pkey | attr_qkey},
    {qp_state::rtr, qp_state::rts, attr_sq_psn, attr_cur_state | attr_qkey | attr_rnr_retry, attr_cur_state | attr_qkey},
    {qp_state::rts, qp_state::rts, 0, attr_cur_state | attr_qkey, attr_cur_state | attr_qkey},
    {qp_state::rts, qp_state::sqd, 0, attr_sqd_async, attr_sqd_async},
    {qp_state::sqd, qp_state::sqd, 0, attr_pkey | attr_qkey, attr_pkey | attr_qkey},
    {qp_state::sqd, qp_state::rts, 0, attr_cur_state | attr_qkey, attr_cur_state | attr_qkey},
    {qp_state::sqe, qp_state::rts, 0, attr_cur_state | attr_qkey, attr_cur_state | attr_qkey},
};

} // namespace

status state_table_check(qp_type type, qp_state from, qp_state to, std::uint32_t attr_mask, bool has_rnr_retry) noexcept
{
    if ((attr_mask & ~(has_rnr_retry ? known : known & ~attr_rnr_retry)) != 0)
        return status::unsupported;
    const std::uint32_t given = attr_mask & ~(attr_state | attr_cur_state);

    if (to == qp_state::reset)
        return given == 0 ? status::ok : status::invalid_argument;
    if (to == qp_state::error) // verbs has RESET to ERR for UD; the SRD table of EFA has not
        return given == 0 && !(type == qp_type::srd && from == qp_state::reset) ? status::ok : status::invalid_argument;
    for (const transition &t : transitions) {
        if (t.from != from || t.to != to)
            continue;
        const std::uint32_t optional = type == qp_type::srd ? t.optional_srd : t.optional_ud;
        const bool cur_ok = (attr_mask & attr_cur_state) == 0 || (optional & attr_cur_state) != 0;
        return (given & t.required) == t.required && (given & ~(t.required | optional)) == 0 && cur_ok ? status::ok
                                                                                                       : status::invalid_argument;
    }
    return status::invalid_argument;
}

} // namespace softefa::dev
