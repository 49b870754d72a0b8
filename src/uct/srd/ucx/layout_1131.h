/* The unpublished structs of UCX 1.13, where they differ between minors; x86-64 and aarch64, statistics off. Included by
 * uct_abi.h only.
 *
 * Each declaration says what UCX does with the struct; sizes and offsets below each were compared with UCX 1.13.1's own
 * headers (contrib/judges/ucx-abi-check). Tags that uct/api forward-declares keep UCX's names because they must.
 */
#pragma once

#include "uct/srd/ucx/layout_common.h"

extern "C" {

// ---------------------------------------------------------------------------------------------------------------
// Parameters of internal calls. A field counts only if its bit is in field_mask; bits are part of the ABI.

enum {
    UCT_PERF_ATTR_FIELD_OPERATION          = UCS_BIT(0),
    UCT_PERF_ATTR_FIELD_LOCAL_MEMORY_TYPE  = UCS_BIT(1),
    UCT_PERF_ATTR_FIELD_REMOTE_MEMORY_TYPE = UCS_BIT(2),
    UCT_PERF_ATTR_FIELD_LOCAL_SYS_DEVICE   = UCS_BIT(3),
    UCT_PERF_ATTR_FIELD_REMOTE_SYS_DEVICE  = UCS_BIT(4),
    UCT_PERF_ATTR_FIELD_SEND_PRE_OVERHEAD  = UCS_BIT(5),
    UCT_PERF_ATTR_FIELD_SEND_POST_OVERHEAD = UCS_BIT(6),
    UCT_PERF_ATTR_FIELD_RECV_OVERHEAD      = UCS_BIT(7),
    UCT_PERF_ATTR_FIELD_BANDWIDTH          = UCS_BIT(8),
    UCT_PERF_ATTR_FIELD_LATENCY            = UCS_BIT(9),
    UCT_PERF_ATTR_FIELD_MAX_INFLIGHT_EPS   = UCS_BIT(10)
};

/// In: operation, memory types, system devices. Out: the rest, seconds and bytes per second.
typedef struct {
    uint64_t            field_mask;
    uct_ep_operation_t  operation;
    ucs_memory_type_t   local_memory_type;
    ucs_memory_type_t   remote_memory_type;
    ucs_sys_device_t    local_sys_device;
    ucs_sys_device_t    remote_sys_device;
    double              send_pre_overhead;
    double              send_post_overhead;
    double              recv_overhead;
    uct_ppn_bandwidth_t bandwidth;
    ucs_linear_func_t   latency;
    size_t              max_inflight_eps;
} uct_perf_attr_t;
static_assert(sizeof(uct_perf_attr_t) == 88);
static_assert(offsetof(uct_perf_attr_t, send_pre_overhead) == 24);
static_assert(offsetof(uct_perf_attr_t, latency) == 64);

/// Out only; both addresses are for transports that connect by socket address.
typedef struct uct_ep_attr {
    uint64_t                field_mask;
    struct sockaddr_storage local_address;
    struct sockaddr_storage remote_address;
} uct_ep_attr_t;
static_assert(sizeof(uct_ep_attr_t) == 264);

/// Packing flag: the packed key must stop working when the region is invalidated.
enum { UCT_MD_MKEY_PACK_FLAG_INVALIDATE = UCS_BIT(0) };

// ---------------------------------------------------------------------------------------------------------------
// Memory domain and component.

/// libuct calls every slot without looking whether it is set.
struct uct_md_ops {
    void (*close)(uct_md_h md);
    ucs_status_t (*query)(uct_md_h md, uct_md_attr_t *attr);
    ucs_status_t (*mem_alloc)(uct_md_h md, size_t *size_p, void **address_p, ucs_memory_type_t mem_type, unsigned flags,
                              const char *name, uct_mem_h *memh_p);
    ucs_status_t (*mem_free)(uct_md_h md, uct_mem_h memh);
    ucs_status_t (*mem_advise)(uct_md_h md, uct_mem_h memh, void *address, size_t size, unsigned advice);
    ucs_status_t (*mem_reg)(uct_md_h md, void *address, size_t size, unsigned flags, uct_mem_h *memh_p);
    ucs_status_t (*mem_dereg)(uct_md_h md, const uct_md_mem_dereg_params_t *params);
    ucs_status_t (*mem_query)(uct_md_h md, const void *address, size_t size, uct_md_mem_attr_t *attr);
    ucs_status_t (*mkey_pack)(uct_md_h md, uct_mem_h memh, const uct_md_mkey_pack_params_t *params, void *rkey_buffer);
    int (*is_sockaddr_accessible)(uct_md_h md, const ucs_sock_addr_t *sockaddr, uct_sockaddr_accessibility_t mode);
    ucs_status_t (*detect_memory_type)(uct_md_h md, const void *address, size_t size, ucs_memory_type_t *mem_type_p);
};
static_assert(sizeof(uct_md_ops) == 88);
static_assert(offsetof(uct_md_ops, mkey_pack) == 64);

/// One plugin's entry in libuct's list of components.
struct uct_component {
    char name[UCT_COMPONENT_NAME_MAX];
    ucs_status_t (*query_md_resources)(uct_component *component, uct_md_resource_desc_t **resources_p,
                                       unsigned *resource_count_p);
    ucs_status_t (*md_open)(uct_component *component, const char *md_name, const uct_md_config_t *config,
                            uct_md_h *md_p);
    ucs_status_t (*cm_open)(uct_component *component, uct_worker_h worker, const uct_cm_config_t *config,
                            uct_cm_h *cm_p);
    ucs_status_t (*rkey_unpack)(uct_component *component, const void *rkey_buffer, uct_rkey_t *rkey_p,
                                void **handle_p);
    ucs_status_t (*rkey_ptr)(uct_component *component, uct_rkey_t rkey, void *handle, uint64_t remote_address,
                             void **local_address_p);
    ucs_status_t (*rkey_release)(uct_component *component, uct_rkey_t rkey, void *handle);
    ucs_config_global_list_entry_t md_config;
    ucs_config_global_list_entry_t cm_config;
    ucs_list_link_t                tl_list; ///< uct_tl_t::list of its transports; initialised by the plugin
    ucs_list_link_t                list;    ///< in uct_components_list; written by uct_component_register
    uint64_t                       flags;   ///< UCT_COMPONENT_FLAG_*
    void (*md_vfs_init)(uct_md_h md);
};
static_assert(sizeof(ucs_config_field_t) == 80);
static_assert(sizeof(ucs_config_global_list_entry_t) == 48);
static_assert(sizeof(uct_component) == 208);
static_assert(offsetof(uct_component, md_config) == 64);
static_assert(offsetof(uct_component, tl_list) == 160);
static_assert(offsetof(uct_component, md_vfs_init) == 200);

// ---------------------------------------------------------------------------------------------------------------
// Transport and interface.

static_assert(sizeof(uct_tl_t) == 96);
static_assert(offsetof(uct_tl_t, config) == 32);

/// libuct asserts that the first four are set when an interface is opened, and calls them unchecked.
struct uct_iface_internal_ops {
    ucs_status_t (*iface_estimate_perf)(uct_iface_h iface, uct_perf_attr_t *perf_attr);
    void (*iface_vfs_refresh)(uct_iface_h iface);
    ucs_status_t (*ep_query)(uct_ep_h ep, uct_ep_attr_t *attr);
    ucs_status_t (*ep_invalidate)(uct_ep_h ep, unsigned flags);
};
static_assert(sizeof(uct_iface_internal_ops_t) == 32);

} // extern "C"

// Public structs whose size UCX changes between minors.
static_assert(sizeof(uct_ep_params_t) == 144);
static_assert(sizeof(ucs_rcache_params_t) == 80 && sizeof(ucs_rcache_region_t) == 80);
