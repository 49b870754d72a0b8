/* The memory domain: one opened EFA device, its protection domain, and the memory registered with it.
 *
 * Owns: the ibv_context and the ibv_pd that every interface of this domain shares; what the device said about itself
 * when it was opened; registrations for UCP (with a cache, because UCP 1.13 registers on every zero-copy operation) and
 * for the interfaces (without one); the bytes of a packed remote key.
 * Refuses to know: queue pairs, peers, messages.
 *
 * Invariants
 *   MD-1: the attributes never change after md_open; interfaces read them without a lock.
 *   MD-2: a uct_mem_h of this domain is a uct_srd_mem_t*; its keys stay valid until the last mem_dereg of it.
 *   MD-3: a uct_rkey_t of this component is the 32-bit key itself; nothing is allocated for it.
 *   MD-4: an operation that fails leaves no registration behind.
 */
#pragma once

#include "uct/srd/ucx/uct_abi.h"

#include <infiniband/efadv.h>
#include <infiniband/verbs.h>

/// What a device can do, in bits of our own: the headers of older rdma-core do not name the later ones.
enum : uint32_t {
    UCT_SRD_CAP_RDMA_READ        = 1u << 0, ///< one-sided read
    UCT_SRD_CAP_RNR_RETRY        = 1u << 1, ///< the retry count of "receiver not ready" can be set
    UCT_SRD_CAP_CQ_WITH_SGID     = 1u << 2, ///< a receive completion can name the sender's GID
    UCT_SRD_CAP_RDMA_WRITE       = 1u << 3, ///< one-sided write
    UCT_SRD_CAP_UNSOLICITED_RECV = 1u << 4, ///< write with immediate without a posted receive
};

/// What the device said when it was opened. Sizes in bytes, counts in entries.
typedef struct uct_srd_device_attr {
    char     ibdev_name[64];    ///< as verbs names it: efa_0, rdmap0s6
    char     bdf[16];           ///< PCI address "0000:00:06.0"; empty if sysfs does not say
    uint32_t vendor_part_id;    ///< 0xefa0 and up: the generation
    uint32_t caps;              ///< UCT_SRD_CAP_*; only what this rdma-core can also express
    size_t   max_message_size;  ///< of one SEND; the device's real figure (8928), not the MTU enum's
    size_t   max_rdma_size;     ///< of one RDMA read or write; 0 without either
    uint32_t inline_size;       ///< largest payload copied into the work request
    uint32_t max_sq_wr;         ///< send queue depth
    uint32_t max_rq_wr;         ///< receive queue depth
    uint32_t max_cqe;           ///< completion queue depth
    uint32_t max_ah;            ///< address handles on the device
    uint32_t max_mr;            ///< registrations on the device
    uint16_t max_sq_sge;        ///< pieces of one SEND
    uint16_t max_rq_sge;        ///< pieces of one receive buffer
    uint16_t max_rdma_sge;      ///< local pieces of one RDMA read or write
    uint64_t max_mr_size;       ///< of one registration
    double   link_bandwidth;    ///< bytes per second, from the port's width and speed; 0 if it does not say
    int      numa_node;         ///< -1 if unknown
    ucs_sys_device_t sys_device; ///< UCX's name for the PCI address; UCS_SYS_DEVICE_ID_UNKNOWN if there is none
    union ibv_gid    gid;       ///< entry 0 of port 1: the address of the device
} uct_srd_device_attr_t;

/// One registration; what a uct_mem_h of this component points to.
typedef struct uct_srd_mem {
    struct ibv_mr *mr;   ///< null in the placeholder for an empty range
    uint32_t       lkey; ///< for our own work requests
    uint32_t       rkey; ///< for the peer's one-sided operations; packed by mkey_pack
} uct_srd_mem_t;

/// Counters with one writer under the domain's user lock; read by VFS and by tests.
typedef struct uct_srd_md_counters {
    uint64_t reg_count;   ///< registrations made on the device
    uint64_t dereg_count; ///< and undone
    uint64_t reg_failed_count;
} uct_srd_md_counters_t;

typedef struct uct_srd_md {
    uct_md_t               super;
    struct ibv_context    *verbs;
    struct ibv_pd         *pd;
    uct_srd_device_attr_t  attr;
    ucs_rcache_t          *rcache;   ///< null when registrations are not cached
    ucs_linear_func_t      reg_cost; ///< seconds, as a function of the size
    uct_srd_md_counters_t  counters;
    ucs_cpu_set_t          local_cpus;
} uct_srd_md_t;

/// Port and GID index that every interface uses: EFA has one of each.
enum { UCT_SRD_PORT = 1, UCT_SRD_GID_INDEX = 0 };

static inline uct_srd_md_t *uct_srd_md(uct_md_h md) noexcept
{
    return reinterpret_cast<uct_srd_md_t *>(md);
}

/// Local key of a buffer in an iov; memh must be one of this domain's.
static inline uint32_t uct_srd_memh_lkey(uct_mem_h memh) noexcept
{
    return static_cast<const uct_srd_mem_t *>(memh)->lkey;
}

/// The key the device wants, of an unpacked remote key. MD-3
static inline uint32_t uct_srd_rkey_key(uct_rkey_t rkey) noexcept
{
    return static_cast<uint32_t>(rkey);
}

/// Registers memory of the interface itself (receive buffers, bounce buffers). 'access' is IBV_ACCESS_*.
/// UCS_ERR_NO_MEMORY when the device has no registration left, UCS_ERR_IO_ERROR otherwise; logged either way.
ucs_status_t uct_srd_md_reg_internal(uct_srd_md_t *md, void *address, size_t size, int access,
                                     uct_srd_mem_t *mem_p) noexcept;
void uct_srd_md_dereg_internal(uct_srd_md_t *md, uct_srd_mem_t *mem) noexcept;

/// Packed remote key: version, then the key in little-endian order.
enum { UCT_SRD_RKEY_VERSION = 0xe1, UCT_SRD_RKEY_PACKED_SIZE = 5 };

extern "C" {
// The component's entries; srd_component.cc puts them into UCX's tables.
ucs_status_t uct_srd_query_md_resources(uct_component *component, uct_md_resource_desc_t **resources_p,
                                        unsigned *resource_count_p) noexcept;
ucs_status_t uct_srd_md_open(uct_component *component, const char *md_name, const uct_md_config_t *config,
                             uct_md_h *md_p) noexcept;
ucs_status_t uct_srd_rkey_unpack(uct_component *component, const void *rkey_buffer, uct_rkey_t *rkey_p,
                                 void **handle_p) noexcept;
ucs_status_t uct_srd_rkey_release(uct_component *component, uct_rkey_t rkey, void *handle) noexcept;
ucs_status_t uct_srd_query_devices(uct_md_h md, uct_tl_device_resource_t **devices_p,
                                   unsigned *device_count_p) noexcept;
}

/// Configuration rows and struct of the domain, prefix "SRD_".
typedef struct uct_srd_md_config {
    uct_md_config_t super;
    int             reg_cache;          ///< ucs_ternary_auto_value_t
    unsigned long   rcache_max_regions;
    size_t          rcache_max_size;    ///< bytes
    size_t          rcache_max_unreleased; ///< bytes
    double          mem_reg_overhead;   ///< seconds a registration
    double          mem_reg_growth;     ///< seconds a byte
} uct_srd_md_config_t;
extern ucs_config_field_t uct_srd_md_config_table[];
