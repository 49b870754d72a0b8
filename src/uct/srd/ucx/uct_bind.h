/* Puts the transport's functions into UCX's tables, whatever the minor version.
 *
 * Owns: every difference in the *behaviour* of UCX minors that a transport sees: signatures of table slots, where a flag
 * lives, which half of a question is asked where. The transport writes each function once, in the words below; a
 * template wraps it in what the version of this build calls. The wrappers are the only code with UCX_SRD_ABI in it.
 * Refuses to know: what the functions do.
 * Rejected: #if in the transport's files. Each new version would have touched all of them.
 *
 * A set of hooks is a struct with static functions, so that a wrapper is a direct call and no pointer is kept.
 */
#pragma once

#include "uct/srd/ucx/uct_abi.h"

#include <cstdint>
#include <cstdio>

namespace srd {

// --- memory domain ---------------------------------------------------------------------------------------------------------

/// What a memory domain says about itself.
struct md_facts {
    size_t               max_reg;           ///< bytes in one registration
    bool                 offers_invalidate; ///< deregistration can be told to end remote access
    bool                 offers_dmabuf;     ///< memory can be registered by a dmabuf; ignored before 1.14
    uint64_t             mem_types;         ///< bits of the types that it registers and the device accesses
    ucs_linear_func_t    reg_cost;          ///< seconds, of a registration that no cache has
    size_t               rkey_packed_size;
    const ucs_cpu_set_t *local_cpus;
};

/// What to register; the memory itself is named beside it.
struct reg_request {
    unsigned flags         = 0;  ///< UCT_MD_MEM_*
    int      dmabuf_fd     = -1; ///< register this; -1: the memory at the address
    size_t   dmabuf_offset = 0;
};

/// Whether UCP keeps registrations itself. Where it does not, it registers for each zero-copy operation.
inline constexpr bool ucp_caches_registrations = UCX_SRD_ABI >= 1181;

/// Whether UCP can hand over a dmabuf in place of memory.
inline constexpr bool uct_registers_dmabuf = UCX_SRD_ABI >= 1181;

namespace bind {

template <class Hooks> struct md {
#if UCX_SRD_ABI == 1131
    static ucs_status_t query(uct_md_h md, uct_md_attr_t *attr) noexcept
    {
        md_facts facts = {};
        Hooks::query(md, facts);
        *attr                      = {};
        attr->cap.max_reg          = facts.max_reg;
        attr->cap.flags            = UCT_MD_FLAG_REG | UCT_MD_FLAG_NEED_MEMH | UCT_MD_FLAG_NEED_RKEY |
                                     (facts.offers_invalidate ? UCT_MD_FLAG_INVALIDATE : 0);
        attr->cap.reg_mem_types    = facts.mem_types;
        attr->cap.access_mem_types = facts.mem_types;
        attr->reg_cost             = facts.reg_cost;
        attr->rkey_packed_size     = facts.rkey_packed_size;
        attr->local_cpus           = *facts.local_cpus;
        return UCS_OK;
    }

    static ucs_status_t mem_reg(uct_md_h md, void *address, size_t size, unsigned flags, uct_mem_h *memh_p) noexcept
    {
        reg_request request;
        request.flags = flags;
        return Hooks::mem_reg(md, address, size, request, memh_p);
    }

    static ucs_status_t mkey_pack(uct_md_h md, uct_mem_h memh, const uct_md_mkey_pack_params_t *params,
                                  void *buffer) noexcept
    {
        return Hooks::mkey_pack(md, memh, mkey_invalidate(params), buffer);
    }
#else
    // Of one-sided operations and of atomics: the device has none of these, so the promise costs nothing, and a program
    // that knows the older flag alone understands it.
    static constexpr uint64_t invalidate_flags = uint64_t{UCT_MD_FLAG_INVALIDATE} | uint64_t{UCT_MD_FLAG_INVALIDATE_RMA} |
                                                 uint64_t{UCT_MD_FLAG_INVALIDATE_AMO};

    static ucs_status_t query(uct_md_h md, uct_md_attr_v2_t *attr) noexcept
    {
        md_facts facts = {};
        Hooks::query(md, facts);
        uct_md_base_md_query(attr);
        attr->max_reg          = facts.max_reg;
        attr->flags            = UCT_MD_FLAG_REG | UCT_MD_FLAG_NEED_MEMH | UCT_MD_FLAG_NEED_RKEY |
                                 (facts.offers_dmabuf ? UCT_MD_FLAG_REG_DMABUF : 0) |
                                 (facts.offers_invalidate ? invalidate_flags : 0);
        attr->reg_mem_types    = facts.mem_types;
        attr->access_mem_types = facts.mem_types;
        attr->cache_mem_types  = facts.mem_types;
        attr->reg_cost         = facts.reg_cost;
        attr->rkey_packed_size = facts.rkey_packed_size;
        attr->local_cpus       = *facts.local_cpus;
        return UCS_OK;
    }

    static ucs_status_t mem_reg(uct_md_h md, void *address, size_t size, const uct_md_mem_reg_params_t *params,
                                uct_mem_h *memh_p) noexcept
    {
        reg_request request;
        if (params->field_mask & UCT_MD_MEM_REG_FIELD_FLAGS) {
            request.flags = static_cast<unsigned>(params->flags);
        }
        if (params->field_mask & UCT_MD_MEM_REG_FIELD_DMABUF_FD) {
            request.dmabuf_fd = params->dmabuf_fd;
        }
        if (params->field_mask & UCT_MD_MEM_REG_FIELD_DMABUF_OFFSET) {
            request.dmabuf_offset = params->dmabuf_offset;
        }
        return Hooks::mem_reg(md, address, size, request, memh_p);
    }

    static ucs_status_t mkey_pack(uct_md_h md, uct_mem_h memh, void *, size_t, const uct_md_mkey_pack_params_t *params,
                                  void *buffer) noexcept
    {
        return Hooks::mkey_pack(md, memh, mkey_invalidate(params), buffer);
    }
#endif

    static bool mkey_invalidate(const uct_md_mkey_pack_params_t *params) noexcept
    {
        return params != nullptr && (params->field_mask & UCT_MD_MKEY_PACK_FIELD_FLAGS) &&
               (params->flags & UCT_MD_MKEY_PACK_FLAG_INVALIDATE);
    }
};

/// A slot that answers "unsupported", for functions that return a status or a size.
template <class Result, class... Args> constexpr void refuse(Result (*&slot)(Args...)) noexcept
{
    slot = [](Args...) -> Result { return static_cast<Result>(UCS_ERR_UNSUPPORTED); };
}

} // namespace bind

/// The operations of a memory domain: Hooks::close, query, mem_reg, mem_dereg, mkey_pack; the rest answers
/// "unsupported", because libuct calls slots unchecked. ABI-2
template <class Hooks> constexpr uct_md_ops bind_md_ops() noexcept
{
    uct_md_ops ops = {};
    ops.close      = Hooks::close;
    ops.query      = bind::md<Hooks>::query;
    ops.mem_reg    = bind::md<Hooks>::mem_reg;
    ops.mem_dereg  = Hooks::mem_dereg;
    ops.mkey_pack  = bind::md<Hooks>::mkey_pack;
    bind::refuse(ops.mem_alloc);
    bind::refuse(ops.mem_free);
    bind::refuse(ops.mem_advise);
    bind::refuse(ops.mem_query);
    bind::refuse(ops.detect_memory_type);
#if UCX_SRD_ABI == 1131
    ops.is_sockaddr_accessible = [](uct_md_h, const ucs_sock_addr_t *, uct_sockaddr_accessibility_t) { return 0; };
#else
    bind::refuse(ops.mem_attach);
#endif
#if UCX_SRD_ABI >= 1230
    bind::refuse(ops.mem_elem_pack);
    bind::refuse(ops.mem_elem_release);
#endif
    return ops;
}

/// The component's slots for remote keys: Hooks::rkey_unpack(buffer, &rkey, &handle), rkey_release(rkey, handle).
template <class Hooks> void bind_rkey_ops(uct_component &component) noexcept
{
#if UCX_SRD_ABI < 1230
    component.rkey_unpack = [](uct_component *, const void *buffer, uct_rkey_t *rkey_p, void **handle_p) noexcept {
        return Hooks::rkey_unpack(buffer, rkey_p, handle_p);
    };
#else
    component.rkey_unpack = [](uct_component *, const void *buffer, const uct_rkey_unpack_params *, uct_rkey_t *rkey_p,
                               void **handle_p) noexcept { return Hooks::rkey_unpack(buffer, rkey_p, handle_p); };
#endif
    component.rkey_release = [](uct_component *, uct_rkey_t rkey, void *handle) noexcept {
        return Hooks::rkey_release(rkey, handle);
    };
    bind::refuse(component.rkey_ptr);
#if UCX_SRD_ABI >= 1181
    component.rkey_compare = uct_base_rkey_compare; // keys are compared as numbers, which is what they are. MD-3
#endif
}

// --- registration cache ----------------------------------------------------------------------------------------------------

using rcache_reg_fn   = ucs_status_t (*)(void *, ucs_rcache_t *, void *, ucs_rcache_region_t *, uint16_t);
using rcache_dereg_fn = void (*)(void *, ucs_rcache_t *, ucs_rcache_region_t *);
using rcache_dump_fn  = void (*)(void *, ucs_rcache_t *, ucs_rcache_region_t *, char *, size_t);

constexpr ucs_rcache_ops_t bind_rcache_ops(rcache_reg_fn reg, rcache_dereg_fn dereg, rcache_dump_fn dump) noexcept
{
    ucs_rcache_ops_t ops = {};
    ops.mem_reg          = reg;
    ops.mem_dereg        = dereg;
    ops.dump_region      = dump;
#if UCX_SRD_ABI >= 1181
    ops.merge = [](void *, ucs_rcache_t *, void *, ucs_rcache_region_t *) {};
#endif
    return ops;
}

/// Regions start and end at multiples of this; on 1.13 it is a property of the cache, later of each request.
inline void rcache_align(ucs_rcache_params_t &params, size_t page_size) noexcept
{
#if UCX_SRD_ABI == 1131
    params.alignment     = UCS_RCACHE_MIN_ALIGNMENT;
    params.max_alignment = page_size;
#else
    (void)params;
    (void)page_size;
#endif
}

inline ucs_status_t rcache_get(ucs_rcache_t *rcache, void *address, size_t size, int prot, void *arg,
                               ucs_rcache_region_t **region_p) noexcept
{
#if UCX_SRD_ABI == 1131
    return ucs_rcache_get(rcache, address, size, prot, arg, region_p);
#else
    return ucs_rcache_get(rcache, address, size, UCS_RCACHE_MIN_ALIGNMENT, prot, arg, region_p);
#endif
}

// --- settings --------------------------------------------------------------------------------------------------------------

/// Reads a table of settings as libuct does; for programs that make an interface without it.
inline ucs_status_t config_fill(void *settings, ucs_config_field_t *table, size_t size, const char *prefix) noexcept
{
#if UCX_SRD_ABI == 1131
    (void)size;
    return ucs_config_parser_fill_opts(settings, table, "UCX_", prefix, 0);
#else
    ucs_config_global_list_entry_t entry = {};
    entry.name   = prefix;
    entry.prefix = prefix;
    entry.table  = table;
    entry.size   = size;
    return ucs_config_parser_fill_opts(settings, &entry, "UCX_", 0);
#endif
}

// --- interface and endpoint ------------------------------------------------------------------------------------------------

/// Is this address one of ours to reach? Sizes are SIZE_MAX where UCX does not tell them.
struct reach_query {
    const uct_device_addr_t *device      = nullptr;
    size_t                   device_size = SIZE_MAX;
    const uct_iface_addr_t  *iface       = nullptr; ///< null: only the device is asked about
    size_t                   iface_size  = SIZE_MAX;
    bool                     same_device = false;   ///< is it on the very same device?
};

/// Sizes of the addresses that an endpoint is created with; SIZE_MAX where UCX does not tell them.
struct address_sizes {
    size_t device = SIZE_MAX;
    size_t iface  = SIZE_MAX;
};

inline address_sizes ep_address_sizes([[maybe_unused]] const uct_ep_params_t &params) noexcept
{
    address_sizes sizes;
#if UCX_SRD_ABI >= 1181
    if (params.field_mask & UCT_EP_PARAM_FIELD_DEV_ADDR_LENGTH) {
        sizes.device = params.dev_addr_length;
    }
    if (params.field_mask & UCT_EP_PARAM_FIELD_IFACE_ADDR_LENGTH) {
        sizes.iface = params.iface_addr_length;
    }
#endif
    return sizes;
}

/// Interface flags that UCX grew after 1.13: lanes of a transport without this one are taken for same-node lanes.
#if UCX_SRD_ABI >= 1181
inline constexpr uint64_t iface_flags_of_version = UCT_IFACE_FLAG_INTER_NODE;
#else
inline constexpr uint64_t iface_flags_of_version = 0;
#endif

/// What uct_base_iface_query does not set and the transport has nothing to say about.
inline void iface_attr_rest([[maybe_unused]] uct_iface_attr_t *attr) noexcept
{
#if UCX_SRD_ABI >= 1230
    attr->ctl_device = UCS_SYS_DEVICE_ID_UNKNOWN;
#endif
}

namespace bind {

template <class Hooks> struct iface {
    static ucs_status_t ep_query(uct_ep_h, uct_ep_attr_t *) noexcept { return UCS_ERR_UNSUPPORTED; }

#if UCX_SRD_ABI < 1230
    static ucs_status_t ep_invalidate(uct_ep_h ep, unsigned flags) noexcept { return Hooks::ep_invalidate(ep, flags); }
#else
    static ucs_status_t ep_invalidate(uct_ep_h ep, const uct_ep_invalidate_params *) noexcept
    {
        return Hooks::ep_invalidate(ep, 0);
    }
#endif

#if UCX_SRD_ABI == 1131
    static int is_reachable(const uct_iface_h tl_iface, const uct_device_addr_t *device,
                            const uct_iface_addr_t *address) noexcept
    {
        reach_query query;
        query.device = device;
        query.iface  = address;
        return Hooks::why_unreachable(tl_iface, query) == nullptr;
    }
#else
    static int is_reachable_v2(const uct_iface_h tl_iface, const uct_iface_is_reachable_params_t *params) noexcept
    {
        const auto has = [&](uint64_t bit) { return (params->field_mask & bit) != 0; };
        reach_query query;
        if (has(UCT_IFACE_IS_REACHABLE_FIELD_DEVICE_ADDR)) {
            query.device = params->device_addr;
        }
        if (has(UCT_IFACE_IS_REACHABLE_FIELD_IFACE_ADDR)) {
            query.iface = params->iface_addr;
        }
        if (has(UCT_IFACE_IS_REACHABLE_FIELD_DEVICE_ADDR_LENGTH)) {
            query.device_size = params->device_addr_length;
        }
        if (has(UCT_IFACE_IS_REACHABLE_FIELD_IFACE_ADDR_LENGTH)) {
            query.iface_size = params->iface_addr_length;
        }
        query.same_device = has(UCT_IFACE_IS_REACHABLE_FIELD_SCOPE) &&
                            params->scope == UCT_IFACE_REACHABILITY_SCOPE_DEVICE;

        const char *reason = Hooks::why_unreachable(tl_iface, query);
        if (reason != nullptr && has(UCT_IFACE_IS_REACHABLE_FIELD_INFO_STRING) && params->info_string != nullptr &&
            has(UCT_IFACE_IS_REACHABLE_FIELD_INFO_STRING_LENGTH) && params->info_string_length != 0) {
            std::snprintf(params->info_string, params->info_string_length, "%s", reason);
        }
        return reason == nullptr;
    }

    static int ep_is_connected(const uct_ep_h ep, const uct_ep_is_connected_params_t *params) noexcept
    {
        if (!(params->field_mask & UCT_EP_IS_CONNECTED_FIELD_DEVICE_ADDR) ||
            !(params->field_mask & UCT_EP_IS_CONNECTED_FIELD_IFACE_ADDR)) {
            return 0;
        }
        return Hooks::ep_is_connected(ep, params->device_addr, params->iface_addr);
    }
#endif
};

} // namespace bind

/// Operations that UCX keeps apart from uct_iface_ops_t: Hooks::vfs_refresh, ep_invalidate, why_unreachable (null, or the
/// reason) and ep_is_connected (only asked where UCX asks).
template <class Hooks> constexpr uct_iface_internal_ops_t bind_internal_ops() noexcept
{
    uct_iface_internal_ops_t ops = {};
    ops.iface_estimate_perf      = uct_base_iface_estimate_perf;
    ops.iface_vfs_refresh        = Hooks::vfs_refresh;
    ops.ep_query                 = bind::iface<Hooks>::ep_query;
    ops.ep_invalidate            = bind::iface<Hooks>::ep_invalidate;
#if UCX_SRD_ABI >= 1181
    ops.iface_is_reachable_v2 = bind::iface<Hooks>::is_reachable_v2;
    ops.ep_is_connected       = bind::iface<Hooks>::ep_is_connected;
    bind::refuse(ops.ep_connect_to_ep_v2);
#endif
#if UCX_SRD_ABI >= 1230
    ops.iface_query_v2 = uct_iface_base_query_v2;
    bind::refuse(ops.ep_get_device_ep);
    bind::refuse(ops.ep_put_sgl_zcopy);
    bind::refuse(ops.ep_get_sgl_zcopy);
    bind::refuse(ops.ep_outstanding_purge);
#endif
    return ops;
}

/// The public half of the reachability question.
template <class Hooks> constexpr void bind_is_reachable(uct_iface_ops_t &ops) noexcept
{
#if UCX_SRD_ABI == 1131
    ops.iface_is_reachable = bind::iface<Hooks>::is_reachable;
#else
    ops.iface_is_reachable = uct_base_iface_is_reachable; // it asks is_reachable_v2
#endif
}

} // namespace srd
