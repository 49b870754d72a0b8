/* The unpublished structs of UCX 1.13, x86-64 and aarch64, statistics off. Included by uct_abi.h only.
 *
 * Each declaration says what UCX does with the struct; sizes and offsets below each were compared with UCX 1.13.1's own
 * headers (contrib/judges/ucx-abi-check). Tags that uct/api forward-declares keep UCX's names because they must.
 */
#pragma once

extern "C" {

// ---------------------------------------------------------------------------------------------------------------
// Parameters of internal calls. A field counts only if its bit is in field_mask; bits are part of the ABI.

/// Kinds of operation an estimate can be asked for, in UCX's order.
typedef enum uct_ep_operation {
    UCT_EP_OP_AM_SHORT,
    UCT_EP_OP_AM_BCOPY,
    UCT_EP_OP_AM_ZCOPY,
    UCT_EP_OP_PUT_SHORT,
    UCT_EP_OP_PUT_BCOPY,
    UCT_EP_OP_PUT_ZCOPY,
    UCT_EP_OP_GET_SHORT,
    UCT_EP_OP_GET_BCOPY,
    UCT_EP_OP_GET_ZCOPY,
    UCT_EP_OP_EAGER_SHORT,
    UCT_EP_OP_EAGER_BCOPY,
    UCT_EP_OP_EAGER_ZCOPY,
    UCT_EP_OP_RNDV_ZCOPY,
    UCT_EP_OP_ATOMIC_POST,
    UCT_EP_OP_ATOMIC_FETCH,
    UCT_EP_OP_LAST
} uct_ep_operation_t;

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

enum {
    UCT_MD_MEM_DEREG_FIELD_MEMH       = UCS_BIT(0),
    UCT_MD_MEM_DEREG_FIELD_FLAGS      = UCS_BIT(1),
    UCT_MD_MEM_DEREG_FIELD_COMPLETION = UCS_BIT(2)
};

/// Deregistration flag: call 'comp' once the remote side can no longer reach the memory.
enum { UCT_MD_MEM_DEREG_FLAG_INVALIDATE = UCS_BIT(0) };

typedef struct uct_md_mem_dereg_params {
    uint64_t          field_mask;
    unsigned          flags; ///< UCT_MD_MEM_DEREG_FLAG_*
    uct_mem_h         memh;
    uct_completion_t *comp;
} uct_md_mem_dereg_params_t;
static_assert(sizeof(uct_md_mem_dereg_params_t) == 32);
static_assert(offsetof(uct_md_mem_dereg_params_t, memh) == 16);

enum { UCT_MD_MKEY_PACK_FIELD_FLAGS = UCS_BIT(0) };

/// Packing flag: the packed key must stop working when the region is invalidated.
enum { UCT_MD_MKEY_PACK_FLAG_INVALIDATE = UCS_BIT(0) };

typedef struct uct_md_mkey_pack_params {
    uint64_t field_mask;
    unsigned flags; ///< UCT_MD_MKEY_PACK_FLAG_*
} uct_md_mkey_pack_params_t;
static_assert(sizeof(uct_md_mkey_pack_params_t) == 16);

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

/// First member of every memory domain.
struct uct_md {
    uct_md_ops    *ops;
    uct_component *component; ///< written by md_open
};
static_assert(sizeof(uct_md) == 16);

/// First member of every memory domain configuration; its row is uct_md_config_table.
struct uct_md_config {
    char unused;
};

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
// Transport, interface, endpoint.

enum { UCT_ABI_TL_NAME_MAX = 10 };

/// One device as a transport offers it to UCP.
typedef struct uct_tl_device_resource {
    char              name[UCT_DEVICE_NAME_MAX];
    uct_device_type_t type;
    ucs_sys_device_t  sys_device; ///< UCS_SYS_DEVICE_ID_UNKNOWN if it has no bus address
} uct_tl_device_resource_t;
static_assert(sizeof(uct_tl_device_resource_t) == 40);

/// One transport of a component.
typedef struct uct_tl {
    char name[UCT_ABI_TL_NAME_MAX];
    ucs_status_t (*query_devices)(uct_md_h md, uct_tl_device_resource_t **devices_p, unsigned *device_count_p);
    ucs_status_t (*iface_open)(uct_md_h md, uct_worker_h worker, const uct_iface_params_t *params,
                               const uct_iface_config_t *config, uct_iface_h *iface_p);
    ucs_config_global_list_entry_t config; ///< of the interface
    ucs_list_link_t                list;   ///< in uct_component::tl_list
} uct_tl_t;
static_assert(sizeof(uct_tl_t) == 96);
static_assert(offsetof(uct_tl_t, config) == 32);

/// libuct asserts that the first four are set when an interface is opened, and calls them unchecked.
typedef struct uct_iface_internal_ops {
    ucs_status_t (*iface_estimate_perf)(uct_iface_h iface, uct_perf_attr_t *perf_attr);
    void (*iface_vfs_refresh)(uct_iface_h iface);
    ucs_status_t (*ep_query)(uct_ep_h ep, uct_ep_attr_t *attr);
    ucs_status_t (*ep_invalidate)(uct_ep_h ep, unsigned flags);
} uct_iface_internal_ops_t;
static_assert(sizeof(uct_iface_internal_ops_t) == 32);

/// One slot of the active message table.
typedef struct uct_am_handler {
    uct_am_callback_t cb;
    void             *arg;
    uint32_t          flags; ///< UCT_CB_FLAG_*
} uct_am_handler_t;
static_assert(sizeof(uct_am_handler_t) == 24);

/// First member of every interface configuration; its rows are uct_iface_config_table.
struct uct_iface_config {
    struct {
        uct_alloc_method_t *methods;
        unsigned            count;
    } alloc_methods;
    int    failure;     ///< ucs_log_level_t at which a failed endpoint is reported
    size_t max_num_eps; ///< estimated number of endpoints above which UCP calls the interface not scalable
};
static_assert(sizeof(uct_iface_config) == 32);

/// First member of every interface; libuct reads and writes all of it.
typedef struct uct_base_iface {
    uct_iface_t               super;
    uct_iface_internal_ops_t *internal_ops;
    uct_md_h                  md;
    struct uct_priv_worker   *worker;
    uct_am_handler_t          am[UCT_AM_ID_MAX];
    uct_am_tracer_t           am_tracer;
    void                     *am_tracer_arg;
    uct_error_handler_t       err_handler; ///< of the user; may be null
    void                     *err_handler_arg;
    uint32_t                  err_handler_flags;
    struct {
        int      id;       ///< in the worker's callback queue
        uint32_t refcount;
    } prog;
    unsigned progress_flags; ///< UCT_PROGRESS_* that are enabled now
    struct {
        unsigned           alloc_method_count;
        uct_alloc_method_t alloc_methods[UCT_ALLOC_METHOD_LAST];
        ucs_log_level_t    failure_level;
        size_t             max_num_eps;
    } config;
} uct_base_iface_t;
static_assert(sizeof(uct_iface_ops_t) == 400 && sizeof(uct_iface_t) == 400);
static_assert(sizeof(uct_base_iface_t) == 1280);
static_assert(offsetof(uct_base_iface_t, internal_ops) == 400);
static_assert(offsetof(uct_base_iface_t, md) == 408);
static_assert(offsetof(uct_base_iface_t, worker) == 416);
static_assert(offsetof(uct_base_iface_t, am) == 424);
static_assert(offsetof(uct_base_iface_t, err_handler) == 1208);
static_assert(offsetof(uct_base_iface_t, prog) == 1228);
static_assert(offsetof(uct_base_iface_t, progress_flags) == 1236);
static_assert(offsetof(uct_base_iface_t, config) == 1240);

/// First member of every endpoint.
typedef struct uct_base_ep {
    uct_ep_t super;
} uct_base_ep_t;
static_assert(sizeof(uct_base_ep_t) == 8);

} // extern "C"

// Public structs whose size UCX changes between minors; the transport fills them field by field.
static_assert(UCT_AM_ID_MAX == 32 && UCT_PENDING_REQ_PRIV_LEN == 40);
static_assert(UCT_DEVICE_NAME_MAX == 32 && UCT_MD_NAME_MAX == 16 && UCT_COMPONENT_NAME_MAX == 16);
static_assert(sizeof(uct_iface_attr_t) == 536);
static_assert(sizeof(uct_md_attr_t) == 224);
static_assert(sizeof(uct_iface_params_t) == 304);
static_assert(sizeof(uct_ep_params_t) == 144);
static_assert(sizeof(uct_pending_req_t) == 48 && sizeof(uct_completion_t) == 16 && sizeof(uct_iov_t) == 40);
static_assert(sizeof(ucs_rcache_params_t) == 80 && sizeof(ucs_rcache_region_t) == 80);
