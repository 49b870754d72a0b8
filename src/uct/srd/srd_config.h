/* Settings of an interface: the UCX_SRD_* variables that are not the memory domain's. */
#pragma once

#include "uct/srd/ucx/uct_abi.h"

extern "C" {

/// What UCX parses the table below into. UCX names a field as it names the same thing elsewhere.
typedef struct uct_srd_iface_config {
    uct_iface_config_t super;
    unsigned tx_queue_len;      ///< send work requests
    unsigned tx_max_bufs;       ///< bounce buffers
    unsigned rx_queue_len;      ///< receives kept posted
    unsigned rx_queue_max;      ///< while many senders are active
    unsigned rx_max_bufs;       ///< receive buffers in all; UINT_MAX = as many as the program holds
    size_t   short_size;        ///< bytes, UCT header included
    unsigned rnr_retry_count;   ///< tries of the device; 7 = for ever
    double   rnr_timeout;       ///< seconds; 0 = for ever
    double   hello_interval;    ///< seconds
    double   keepalive_interval; ///< seconds; 0 = never
    double   probe_interval;    ///< seconds; 0 = never
    double   close_timeout;     ///< seconds
    unsigned max_peers;
    double   latency;           ///< seconds
    double   overhead;          ///< seconds
    int      events;            ///< ucs_ternary_auto_value_t
    int      stats;             ///< print a summary on close
} uct_srd_iface_config_t;

extern ucs_config_field_t uct_srd_iface_config_table[];
}
