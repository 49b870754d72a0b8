/* What an interface of a test is made from: the limits of a usual device, and settings small enough to run out. */
#pragma once

#include "uct/srd/srd_iface.h"

namespace srd {

inline uct_srd_md_t md_of_a_usual_device()
{
    uct_srd_md_t md{};
    md.attr.inline_size      = 32;
    md.attr.max_message_size = 8928;
    md.attr.max_sq_wr        = 256;
    md.attr.max_rq_wr        = 512;
    md.attr.max_cqe          = 4096;
    return md;
}

inline uct_srd_iface_config_t config_of_a_test(unsigned max_peers = 4)
{
    uct_srd_iface_config_t c{};
    c.tx_queue_len = 64;
    c.rx_queue_len = 64;
    c.max_peers    = max_peers;
    c.short_size   = 256;
    return c;
}

} // namespace srd
