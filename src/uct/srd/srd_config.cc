/* The table behind `ucx_info -cf`. Defaults are argued in the help texts, because that is where people look. */
#include "uct/srd/srd_config.h"

#include <cstddef>

extern "C" {

ucs_config_field_t uct_srd_iface_config_table[] = {
    {"", "", NULL, 0, UCS_CONFIG_TYPE_TABLE(uct_iface_config_table)},

    {"TX_QUEUE_LEN", "240",
     "Sends in flight. With the 16 slots kept for control messages the default makes a queue of 256. One peer uses at\n"
     "most half of it (and at most 256), so that one peer that does not answer leaves room for the others.",
     offsetof(uct_srd_iface_config_t, tx_queue_len), UCS_CONFIG_TYPE_UINT},

    {"TX_MAX_BUFS", "256",
     "Most bounce buffers for sends that are neither inline nor zero-copy. They are allocated 64 at a time, when needed;\n"
     "each takes a message (about 9 KiB).",
     offsetof(uct_srd_iface_config_t, tx_max_bufs), UCS_CONFIG_TYPE_UINT},

    {"RX_QUEUE_LEN", "128",
     "Number of receives kept posted. Each takes a message (about 9 KiB), so an interface costs 1.2 MiB of registered\n"
     "memory with the default, which fits a core's cache, and a node of 96 processes about 110 MiB. Senders are granted\n"
     "credits that share this queue between those that are active; a short queue costs speed under incast, never\n"
     "correctness.",
     offsetof(uct_srd_iface_config_t, rx_queue_len), UCS_CONFIG_TYPE_UINT},

    {"RX_QUEUE_MAX", "768",
     "Most receives posted while very many senders are active at a time: each of them is granted 8 if possible, so more than\n"
     "12 need more than the default of 128, and more than 83 share what this allows (6.9 MiB). The memory stays with the interface.",
     offsetof(uct_srd_iface_config_t, rx_queue_max), UCS_CONFIG_TYPE_UINT},

    {"RX_MAX_BUFS", "inf",
     "Most receive buffers in all: those posted, those that wait for an earlier message, and those the program keeps as\n"
     "unexpected messages. When no more can be had, messages are handed over in a way that makes the program copy them.",
     offsetof(uct_srd_iface_config_t, rx_max_bufs), UCS_CONFIG_TYPE_UINT},

    {"SHORT_SIZE", "256",
     "Largest short active message, its 8-byte header included. What exceeds the device's inline size (32 bytes on the\n"
     "first generations, 80 on later ones with rdma-core 63; 4 of them are ours) is copied into a bounce buffer.",
     offsetof(uct_srd_iface_config_t, short_size), UCS_CONFIG_TYPE_MEMUNITS},

    {"RNR_RETRY_COUNT", "3",
     "How often the device tries again when the receiver has no buffer posted; 7 means for ever. After that the transport\n"
     "itself tries again, with growing delay, so that an operation can be cancelled while the receiver is busy. Ignored\n"
     "where the device cannot set it.",
     offsetof(uct_srd_iface_config_t, rnr_retry_count), UCS_CONFIG_TYPE_UINT},

    {"RNR_TIMEOUT", "0",
     "Fail the peer when it has had no receive buffer for this long. 0 means never: a program that computes for an hour\n"
     "without calling UCX is slow, not dead; a dead one is detected by the device.",
     offsetof(uct_srd_iface_config_t, rnr_timeout), UCS_CONFIG_TYPE_TIME},

    {"HELLO_INTERVAL", "100ms",
     "How long to wait for the answer to a hello before saying it again; doubles up to 32 times this. Until the answer\n"
     "comes, messages carry a longer header.",
     offsetof(uct_srd_iface_config_t, hello_interval), UCS_CONFIG_TYPE_TIME},

    {"PROBE_INTERVAL", "60s",
     "Ask whether a peer is still there when it has been silent for this long and no endpoint leads to it; if it is gone,\n"
     "what is known about it is freed. 0 means never.",
     offsetof(uct_srd_iface_config_t, probe_interval), UCS_CONFIG_TYPE_TIME},

    {"KEEPALIVE_INTERVAL", "2s",
     "Ask whether a peer is still there when endpoints lead to it and nothing has been outstanding to it for this long: a\n"
     "program that waits for a dead peer to act hears of the death within twice this time, plus the time the device needs\n"
     "to give up on a host that does not answer. 0 leaves it to UCP's own keepalive.",
     offsetof(uct_srd_iface_config_t, keepalive_interval), UCS_CONFIG_TYPE_TIME},

    {"CLOSE_TIMEOUT", "100ms",
     "How long closing the interface may wait for what is still in the send queue and for telling peers goodbye.",
     offsetof(uct_srd_iface_config_t, close_timeout), UCS_CONFIG_TYPE_TIME},

    {"MAX_PEERS", "1048575",
     "Most remote interfaces known at a time, heard or addressed.",
     offsetof(uct_srd_iface_config_t, max_peers), UCS_CONFIG_TYPE_UINT},

    {"LATENCY", "1us",
     "Latency that UCP is told when it compares transports and chooses protocols. EFA needs 10 to 20us between hosts;\n"
     "the default keeps srd ahead of TCP, which claims 5us whatever the network.",
     offsetof(uct_srd_iface_config_t, latency), UCS_CONFIG_TYPE_TIME},

    {"OVERHEAD", "75ns",
     "CPU time for one message that UCP is told.",
     offsetof(uct_srd_iface_config_t, overhead), UCS_CONFIG_TYPE_TIME},

    {"EVENTS", "try",
     "Offer wakeup, so that programs that sleep in UCP can use srd. It takes a completion channel of the device, and with\n"
     "the kernel's driver efa one is reported to leak until the device cannot be opened any more (amzn-drivers issue 306,\n"
     "not answered). UCP arms every interface that offers events, whether or not the program ever sleeps, so every job\n"
     "would pay.\n"
     " y    - open a channel; fail if there is none\n"
     " try  - open one unless the kernel's driver efa serves the device, or nothing is known about it\n"
     " n    - no wakeup",
     offsetof(uct_srd_iface_config_t, events), UCS_CONFIG_TYPE_TERNARY},

    {"STATS", "n",
     "Print the interface's counters when it is closed, at log level info.",
     offsetof(uct_srd_iface_config_t, stats), UCS_CONFIG_TYPE_BOOL},

    {NULL}};
}
