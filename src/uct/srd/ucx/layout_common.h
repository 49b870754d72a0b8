/* The unpublished structs of UCX that are the same in every supported minor version, x86-64 and aarch64, statistics off.
 *
 * Included by each layout_<abi>.h before the structs that differ. A struct moves from here into the layouts when a minor
 * version changes it. Tags that uct/api forward-declares keep UCX's names because they must.
 */
#pragma once

extern "C" {

struct uct_md_ops;
typedef struct uct_iface_internal_ops uct_iface_internal_ops_t;

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

typedef struct uct_md_mkey_pack_params {
    uint64_t field_mask;
    unsigned flags; ///< UCT_MD_MKEY_PACK_FLAG_*
} uct_md_mkey_pack_params_t;
static_assert(sizeof(uct_md_mkey_pack_params_t) == 16);

// ---------------------------------------------------------------------------------------------------------------
// Memory domain.

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

// Public structs that have one size in every supported minor; the transport fills them field by field.
static_assert(UCT_AM_ID_MAX == 32 && UCT_PENDING_REQ_PRIV_LEN == 40);
static_assert(UCT_DEVICE_NAME_MAX == 32 && UCT_MD_NAME_MAX == 16 && UCT_COMPONENT_NAME_MAX == 16);
static_assert(sizeof(uct_iface_attr_t) == 536);
static_assert(sizeof(uct_md_attr_t) == 224);
static_assert(sizeof(uct_iface_params_t) == 304);
static_assert(sizeof(uct_pending_req_t) == 48 && sizeof(uct_completion_t) == 16 && sizeof(uct_iov_t) == 40);
