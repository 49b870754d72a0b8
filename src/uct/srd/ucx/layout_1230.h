/* The unpublished structs of UCX 1.23, where they differ between minors; x86-64 and aarch64, statistics off. Included by
 * uct_abi.h only.
 *
 * Written for the release candidate in Debian testing, which no tag of UCX's repository equals: a moving target. Sizes were
 * measured on that package; slots that the transport does not fill are declared without their parameters.
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
    UCT_PERF_ATTR_FIELD_PATH_BANDWIDTH     = UCS_BIT(9),
    UCT_PERF_ATTR_FIELD_LATENCY            = UCS_BIT(10),
    UCT_PERF_ATTR_FIELD_MAX_INFLIGHT_EPS   = UCS_BIT(11),
    UCT_PERF_ATTR_FIELD_FLAGS              = UCS_BIT(12)
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
    uct_ppn_bandwidth_t path_bandwidth;
    ucs_linear_func_t   latency;
    size_t              max_inflight_eps;
    uint64_t            flags;
} uct_perf_attr_t;
static_assert(sizeof(uct_perf_attr_t) == 112);
static_assert(offsetof(uct_perf_attr_t, send_pre_overhead) == 24);
static_assert(offsetof(uct_perf_attr_t, latency) == 80);

/// Out only; the addresses are for transports that connect by socket address, the token for those that resume.
typedef struct uct_ep_attr {
    uint64_t                field_mask;
    struct sockaddr_storage local_address;
    struct sockaddr_storage remote_address;
    void                   *tx_token;
} uct_ep_attr_t;
static_assert(sizeof(uct_ep_attr_t) == 272);

enum {
    UCT_MD_MEM_REG_FIELD_FLAGS         = UCS_BIT(0),
    UCT_MD_MEM_REG_FIELD_DMABUF_FD     = UCS_BIT(1),
    UCT_MD_MEM_REG_FIELD_DMABUF_OFFSET = UCS_BIT(2)
};

typedef struct uct_md_mem_reg_params {
    uint64_t field_mask;
    uint64_t flags;         ///< UCT_MD_MEM_*
    int      dmabuf_fd;     ///< register this rather than the memory at the address; not set: none
    size_t   dmabuf_offset; ///< of the address within it
    ucs_memory_type_t mem_type;
} uct_md_mem_reg_params_t;
static_assert(sizeof(uct_md_mem_reg_params_t) == 40);
static_assert(offsetof(uct_md_mem_reg_params_t, dmabuf_offset) == 24);

/// Packing flags: the packed key must stop working, for one-sided operations or for atomics, when the region is
/// invalidated; or it is to be attached by a process on the same device.
enum {
    UCT_MD_MKEY_PACK_FLAG_INVALIDATE     = UCS_BIT(0),
    UCT_MD_MKEY_PACK_FLAG_INVALIDATE_AMO = UCS_BIT(1),
    UCT_MD_MKEY_PACK_FLAG_EXPORT         = UCS_BIT(2)
};

/// Flags of a memory domain beyond those of uct.h.
enum {
    UCT_MD_FLAG_INVALIDATE_RMA = UCS_BIT(11),
    UCT_MD_FLAG_INVALIDATE_AMO = UCS_BIT(12)
};
static_assert(UCT_MD_FLAG_LAST == UCS_BIT(11));

/// What a domain says about itself. uct_md_base_md_query clears it and sets the defaults; 'field_mask' is the caller's.
typedef struct uct_md_attr_v2 {
    uint64_t          field_mask;
    uint64_t          max_alloc;
    size_t            max_reg;
    uint64_t          flags; ///< UCT_MD_FLAG_*
    uint64_t          reg_mem_types;
    uint64_t          reg_nonblock_mem_types;
    uint64_t          cache_mem_types; ///< UCP keeps registrations of these
    uint64_t          gva_mem_types;
    uint64_t          detect_mem_types;
    uint64_t          alloc_mem_types;
    uint64_t          access_mem_types;
    uint64_t          dmabuf_mem_types; ///< for which the domain makes a dmabuf
    ucs_linear_func_t reg_cost;
    char              component_name[UCT_COMPONENT_NAME_MAX]; ///< written by libuct
    size_t            rkey_packed_size;
    ucs_cpu_set_t     local_cpus;
    size_t            exported_mkey_packed_size;
    char              global_id[256];
    size_t            reg_alignment;
    uint8_t           required_mem_flags; ///< without which the domain does not register
} uct_md_attr_v2_t;
static_assert(sizeof(uct_md_attr_v2_t) == 544);
static_assert(offsetof(uct_md_attr_v2_t, reg_cost) == 96);
static_assert(offsetof(uct_md_attr_v2_t, rkey_packed_size) == 128);
static_assert(offsetof(uct_md_attr_v2_t, reg_alignment) == 528);

enum {
    UCT_IFACE_IS_REACHABLE_FIELD_DEVICE_ADDR        = UCS_BIT(0),
    UCT_IFACE_IS_REACHABLE_FIELD_IFACE_ADDR         = UCS_BIT(1),
    UCT_IFACE_IS_REACHABLE_FIELD_INFO_STRING        = UCS_BIT(2),
    UCT_IFACE_IS_REACHABLE_FIELD_INFO_STRING_LENGTH = UCS_BIT(3),
    UCT_IFACE_IS_REACHABLE_FIELD_SCOPE              = UCS_BIT(4),
    UCT_IFACE_IS_REACHABLE_FIELD_DEVICE_ADDR_LENGTH = UCS_BIT(5),
    UCT_IFACE_IS_REACHABLE_FIELD_IFACE_ADDR_LENGTH  = UCS_BIT(6)
};

typedef enum {
    UCT_IFACE_REACHABILITY_SCOPE_DEVICE, ///< is it the same device?
    UCT_IFACE_REACHABILITY_SCOPE_NETWORK ///< can it be reached?
} uct_iface_reachability_scope_t;

/// In: the addresses and their scope (network, if not set). Out: why not, if the user gave room for it.
typedef struct uct_iface_is_reachable_params {
    uint64_t                       field_mask;
    const uct_device_addr_t       *device_addr;
    const uct_iface_addr_t        *iface_addr;
    char                          *info_string;
    size_t                         info_string_length;
    uct_iface_reachability_scope_t scope;
    size_t                         device_addr_length;
    size_t                         iface_addr_length;
} uct_iface_is_reachable_params_t;
static_assert(sizeof(uct_iface_is_reachable_params_t) == 64);
static_assert(offsetof(uct_iface_is_reachable_params_t, device_addr_length) == 48);

enum {
    UCT_EP_IS_CONNECTED_FIELD_DEVICE_ADDR = UCS_BIT(0),
    UCT_EP_IS_CONNECTED_FIELD_IFACE_ADDR  = UCS_BIT(1),
    UCT_EP_IS_CONNECTED_FIELD_EP_ADDR     = UCS_BIT(2)
};

typedef struct uct_ep_is_connected_params {
    uint64_t                 field_mask;
    const uct_device_addr_t *device_addr;
    const uct_iface_addr_t  *iface_addr;
    const uct_ep_addr_t     *ep_addr;
} uct_ep_is_connected_params_t;
static_assert(sizeof(uct_ep_is_connected_params_t) == 32);

/// A slot that the transport only refuses.
typedef ucs_status_t (*uct_abi_refused_fn)(void);

/// Parameters that are never looked into.
struct uct_rkey_unpack_params;
struct uct_ep_invalidate_params;
struct uct_iface_attr_v2;
struct uct_ep_connect_to_ep_params;
struct uct_md_mem_attach_params;
struct uct_rkey_compare_params;

// ---------------------------------------------------------------------------------------------------------------
// Memory domain and component.

/// libuct calls every slot without looking whether it is set.
struct uct_md_ops {
    void (*close)(uct_md_h md);
    ucs_status_t (*query)(uct_md_h md, uct_md_attr_v2_t *attr);
    uct_abi_refused_fn mem_alloc;
    ucs_status_t (*mem_free)(uct_md_h md, uct_mem_h memh);
    ucs_status_t (*mem_advise)(uct_md_h md, uct_mem_h memh, void *address, size_t size, unsigned advice);
    ucs_status_t (*mem_reg)(uct_md_h md, void *address, size_t size, const uct_md_mem_reg_params_t *params,
                            uct_mem_h *memh_p);
    ucs_status_t (*mem_dereg)(uct_md_h md, const uct_md_mem_dereg_params_t *params);
    uct_abi_refused_fn mem_query;
    ucs_status_t (*mkey_pack)(uct_md_h md, uct_mem_h memh, void *address, size_t size,
                              const uct_md_mkey_pack_params_t *params, void *rkey_buffer);
    ucs_status_t (*mem_attach)(uct_md_h md, const void *mkey_buffer, uct_md_mem_attach_params *params,
                               uct_mem_h *memh_p);
    ucs_status_t (*detect_memory_type)(uct_md_h md, const void *address, size_t size, ucs_memory_type_t *mem_type_p);
    uct_abi_refused_fn mem_elem_pack;
    uct_abi_refused_fn mem_elem_release;
};
static_assert(sizeof(uct_md_ops) == 104);
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
    ucs_status_t (*rkey_unpack)(uct_component *component, const void *rkey_buffer,
                                const uct_rkey_unpack_params *params, uct_rkey_t *rkey_p, void **handle_p);
    ucs_status_t (*rkey_ptr)(uct_component *component, uct_rkey_t rkey, void *handle, uint64_t remote_address,
                             void **local_address_p);
    ucs_status_t (*rkey_release)(uct_component *component, uct_rkey_t rkey, void *handle);
    ucs_status_t (*rkey_compare)(uct_component *component, uct_rkey_t rkey1, uct_rkey_t rkey2,
                                 const uct_rkey_compare_params *params, int *result_p);
    ucs_config_global_list_entry_t md_config;
    ucs_config_global_list_entry_t cm_config;
    ucs_list_link_t                tl_list; ///< uct_tl_t::list of its transports; initialised by the plugin
    ucs_list_link_t                list;    ///< in uct_components_list; written by uct_component_register
    uint64_t                       flags;   ///< UCT_COMPONENT_FLAG_*
    void (*md_vfs_init)(uct_md_h md);
};
static_assert(sizeof(ucs_config_field_t) == 88);
static_assert(sizeof(ucs_config_global_list_entry_t) == 56);
static_assert(sizeof(uct_component) == 232);
static_assert(offsetof(uct_component, md_config) == 72);
static_assert(offsetof(uct_component, tl_list) == 184);
static_assert(offsetof(uct_component, md_vfs_init) == 224);

// ---------------------------------------------------------------------------------------------------------------
// Transport and interface.

static_assert(sizeof(uct_tl_t) == 104);
static_assert(offsetof(uct_tl_t, config) == 32);

/// libuct asserts that some are set when an interface is opened, and calls others unchecked.
struct uct_iface_internal_ops {
    ucs_status_t (*iface_query_v2)(uct_iface_h iface, uct_iface_attr_v2 *attr);
    ucs_status_t (*iface_estimate_perf)(uct_iface_h iface, uct_perf_attr_t *perf_attr);
    void (*iface_vfs_refresh)(uct_iface_h iface);
    ucs_status_t (*ep_query)(uct_ep_h ep, uct_ep_attr_t *attr);
    ucs_status_t (*ep_invalidate)(uct_ep_h ep, const uct_ep_invalidate_params *params);
    ucs_status_t (*ep_connect_to_ep_v2)(uct_ep_h ep, const uct_device_addr_t *device_addr, const uct_ep_addr_t *ep_addr,
                                        const uct_ep_connect_to_ep_params *params);
    int (*iface_is_reachable_v2)(const uct_iface_h iface, const uct_iface_is_reachable_params_t *params);
    int (*ep_is_connected)(const uct_ep_h ep, const uct_ep_is_connected_params_t *params);
    uct_abi_refused_fn ep_get_device_ep;
    uct_abi_refused_fn ep_put_sgl_zcopy;
    uct_abi_refused_fn ep_get_sgl_zcopy;
    uct_abi_refused_fn ep_outstanding_purge; ///< must be set; a refusal is allowed
};
static_assert(sizeof(uct_iface_internal_ops_t) == 96);

// Exported by this libuct beyond what uct_abi.h declares for every version.
void uct_md_base_md_query(uct_md_attr_v2_t *attr);
int  uct_base_iface_is_reachable(const uct_iface_h iface, const uct_device_addr_t *device_addr,
                                 const uct_iface_addr_t *iface_addr);
ucs_status_t uct_base_rkey_compare(uct_component *component, uct_rkey_t rkey1, uct_rkey_t rkey2,
                                   const uct_rkey_compare_params *params, int *result_p);
ucs_status_t uct_iface_base_query_v2(uct_iface_h iface, uct_iface_attr_v2 *attr);

} // extern "C"

// Public structs whose size UCX changes between minors.
static_assert(sizeof(uct_ep_params_t) == 160);
static_assert(sizeof(ucs_rcache_params_t) == 64 && sizeof(ucs_rcache_region_t) == 88);
