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

#include "uct/srd/srd_device.h"
#include "uct/srd/srd_locality.h"
#include "uct/srd/ucx/uct_bind.h"

#include <infiniband/verbs.h>

/// One registration; what a uct_mem_h of this component points to.
typedef struct uct_srd_mem {
    struct ibv_mr *mr;   ///< null once deregistered
    uint32_t       lkey; ///< for our own work requests
    uint32_t       rkey; ///< for the peer's one-sided operations; packed by mkey_pack
    bool           cached; ///< lives inside a region of the registration cache
} uct_srd_mem_t;

/// Counters; atomic, because two threads may register at once. Read by VFS and by tests.
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
    bool                   offers_invalidate; ///< deregistration is told when remote access has ended; set by md_open
    bool                   offers_dmabuf; ///< device memory can be registered by its dmabuf; set by md_open
    srd::locality          locality;   ///< where the device is, and where its buffers go
    ucs_cpu_set_t          local_cpus; ///< near the device; all of them if sysfs does not say
} uct_srd_md_t;

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
ucs_status_t uct_srd_rkey_unpack(const void *rkey_buffer, uct_rkey_t *rkey_p, void **handle_p) noexcept;
ucs_status_t uct_srd_rkey_release(uct_rkey_t rkey, void *handle) noexcept;
ucs_status_t uct_srd_query_devices(uct_md_h md, uct_tl_device_resource_t **devices_p,
                                   unsigned *device_count_p) noexcept;
}

/// Operations of every domain, in the form that the UCX of this build wants; libuct calls them unchecked, so all are set.
extern uct_md_ops uct_srd_md_ops;

/// Configuration rows and struct of the domain, prefix "SRD_".
typedef struct uct_srd_md_config {
    uct_md_config_t super;
    int             reg_cache;          ///< ucs_ternary_auto_value_t
    int             numa_policy;        ///< srd::numa_policy
    int             fork_init;          ///< ucs_ternary_auto_value_t
    int             invalidate;         ///< bool
    char           *require_dir;        ///< documented here, read by the interface when it closes
    int             abi_check;          ///< documented here, read by srd_component.cc before any table exists
    unsigned long   rcache_max_regions;
    size_t          rcache_max_size;    ///< bytes
    size_t          rcache_max_unreleased; ///< bytes
    double          mem_reg_overhead;   ///< seconds a registration
    double          mem_reg_growth;     ///< seconds a byte
    double          rcache_overhead; ///< seconds; of a registration found in the cache
} uct_srd_md_config_t;
extern ucs_config_field_t uct_srd_md_config_table[];
