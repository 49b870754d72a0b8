/* See srd_md.h.
 *
 * The operations of the domain in the order UCP meets them: list the devices, open one, ask, register, pack a key,
 * unpack it on the other side, close.
 */
#include "uct/srd/srd_md.h"
#include "uct/srd/srd_reg.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

/// Fork safety as verbs offers it. Where the kernel copies pinned pages at fork, nothing is needed and nothing is done.
ucs_status_t init_fork(int setting) noexcept
{
    if (setting == UCS_NO || ibv_is_fork_initialized() == IBV_FORK_UNNEEDED) {
        return UCS_OK;
    }
    const int error = ibv_fork_init();
    if (error == 0) {
        return UCS_OK;
    }
    if (setting == UCS_YES) {
        ucs_error("UCX_SRD_FORK_INIT=y, but ibv_fork_init failed: %s", strerror(error));
        return UCS_ERR_UNSUPPORTED;
    }
    ucs_debug("ibv_fork_init failed: %s", strerror(error));
    return UCS_OK;
}

// ---- operations of an open domain; libuct calls every one of them unchecked ------------------------------------

extern "C" void uct_srd_md_close(uct_md_h uct_md) noexcept
{
    uct_srd_md_t *md = uct_srd_md(uct_md);
    srd::reg_cache_fini(md);
    ibv_dealloc_pd(md->pd);
    ibv_close_device(md->verbs);
    delete md;
}

void uct_srd_md_query(uct_md_h uct_md, srd::md_facts &facts) noexcept
{
    const uct_srd_md_t *md = uct_srd_md(uct_md);
    facts.max_reg           = md->attr.max_mr_size;
    facts.offers_invalidate = md->offers_invalidate;
    facts.offers_dmabuf     = md->offers_dmabuf;
    facts.mem_types         = UCS_BIT(UCS_MEMORY_TYPE_HOST);
    facts.reg_cost          = md->reg_cost;
    facts.rkey_packed_size  = UCT_SRD_RKEY_PACKED_SIZE;
    facts.local_cpus        = &md->local_cpus;
}

ucs_status_t uct_srd_mem_reg(uct_md_h uct_md, void *address, size_t size, const srd::reg_request &request,
                             uct_mem_h *memh_p) noexcept
{
    if (size == 0) {
        return UCS_ERR_INVALID_PARAM;
    }
    uct_srd_mem_t *mem;
    ucs_status_t   status;
    if (request.dmabuf_fd >= 0) {
        status = uct_srd_md(uct_md)->offers_dmabuf ? srd::reg_get_dmabuf(uct_srd_md(uct_md), address, size, request.dmabuf_fd,
                                                                         request.dmabuf_offset, request.flags, &mem) :
                                                     UCS_ERR_UNSUPPORTED;
        *memh_p = status == UCS_OK ? mem : nullptr;
        return status;
    }
    status = srd::reg_get(uct_srd_md(uct_md), address, size, request.flags, &mem);
    if (status == UCS_OK) {
        *memh_p = mem;
    }
    return status;
}

extern "C" void uct_srd_invalidate_done(void *arg) noexcept
{
    auto *comp = static_cast<uct_completion_t *>(arg);
    if (--comp->count == 0) {
        comp->func(comp);
    }
}

extern "C" ucs_status_t uct_srd_mem_dereg(uct_md_h uct_md, const uct_md_mem_dereg_params_t *params) noexcept
{
    if (!(params->field_mask & UCT_MD_MEM_DEREG_FIELD_MEMH) || params->memh == nullptr) {
        return UCS_ERR_INVALID_PARAM;
    }
    auto *mem = static_cast<uct_srd_mem_t *>(params->memh);
    const bool invalidate = (params->field_mask & UCT_MD_MEM_DEREG_FIELD_FLAGS) &&
                            (params->flags & UCT_MD_MEM_DEREG_FLAG_INVALIDATE);
    if (!invalidate) {
        srd::reg_put(uct_srd_md(uct_md), mem);
        return UCS_OK;
    }
    if (!uct_srd_md(uct_md)->offers_invalidate) {
        return UCS_ERR_UNSUPPORTED;
    }
    if (!(params->field_mask & UCT_MD_MEM_DEREG_FIELD_COMPLETION) || params->comp == nullptr) {
        return UCS_ERR_INVALID_PARAM;
    }
    srd::reg_invalidate(uct_srd_md(uct_md), mem, uct_srd_invalidate_done, params->comp);
    return UCS_OK;
}

ucs_status_t uct_srd_mkey_pack(uct_md_h, uct_mem_h memh, bool /*invalidate: of a region, not of a key*/,
                               void *rkey_buffer) noexcept
{
    const uint32_t rkey  = static_cast<const uct_srd_mem_t *>(memh)->rkey;
    auto          *bytes = static_cast<uint8_t *>(rkey_buffer);
    bytes[0] = UCT_SRD_RKEY_VERSION;
    for (unsigned i = 0; i < 4; ++i) {
        bytes[1 + i] = static_cast<uint8_t>(rkey >> (8 * i));
    }
    return UCS_OK;
}

struct md_hooks {
    static constexpr auto close     = uct_srd_md_close;
    static constexpr auto query     = uct_srd_md_query;
    static constexpr auto mem_reg   = uct_srd_mem_reg;
    static constexpr auto mem_dereg = uct_srd_mem_dereg;
    static constexpr auto mkey_pack = uct_srd_mkey_pack;
};

/// The list under construction while the devices are scanned.
struct resource_list {
    uct_md_resource_desc_t *resources;
    unsigned                count;
    bool                    out_of_memory;
};

void append_resource(void *arg, const char *ibdev_name) noexcept
{
    auto *list  = static_cast<resource_list *>(arg);
    auto *grown = static_cast<uct_md_resource_desc_t *>(
        realloc(list->resources, (list->count + 1) * sizeof(uct_md_resource_desc_t)));
    if (grown == nullptr) {
        list->out_of_memory = true;
        return;
    }
    list->resources = grown;
    uct_srd_device_md_name(ibdev_name, grown[list->count].md_name);
    ++list->count;
}

} // namespace

constinit uct_md_ops uct_srd_md_ops = srd::bind_md_ops<md_hooks>();

/// In the order of srd::numa_policy.
static const char *uct_srd_numa_policy_names[] = {"none", "preferred", "bind", nullptr};

ucs_config_field_t uct_srd_md_config_table[] = {
    {"", "", nullptr, offsetof(uct_srd_md_config_t, super), UCS_CONFIG_TYPE_TABLE(uct_md_config_table)},

    {"REG_CACHE", "try",
     "Keep registrations of the user's memory for later use, below UCP:\n"
     "  y    required, the device is not used without it;\n"
     "  try  where UCP does not keep them itself (UCX 1.13), if UCX can follow the\n"
     "       process's memory mappings;\n"
     "  n    register whenever UCP asks: on UCX 1.13 for each zero-copy operation.",
     offsetof(uct_srd_md_config_t, reg_cache), UCS_CONFIG_TYPE_TERNARY},

    {"RCACHE_MAX_REGIONS", "inf",
     "Maximal number of regions in the registration cache; never more than three\n"
     "quarters of what the device can register.",
     offsetof(uct_srd_md_config_t, rcache_max_regions), UCS_CONFIG_TYPE_ULUNITS},

    {"RCACHE_MAX_SIZE", "inf", "Maximal total size of registration cache regions.",
     offsetof(uct_srd_md_config_t, rcache_max_size), UCS_CONFIG_TYPE_MEMUNITS},

    {"RCACHE_MAX_UNRELEASED", "512M",
     "Maximal size of regions that wait to be deregistered, after which a cleanup is\n"
     "triggered.",
     offsetof(uct_srd_md_config_t, rcache_max_unreleased), UCS_CONFIG_TYPE_MEMUNITS},

    {"MEM_REG_OVERHEAD", "16us", "Time that one memory registration takes, whatever its size.",
     offsetof(uct_srd_md_config_t, mem_reg_overhead), UCS_CONFIG_TYPE_TIME},

    {"MEM_REG_GROWTH", "0.06ns", "Time that a memory registration takes for each byte.",
     offsetof(uct_srd_md_config_t, mem_reg_growth), UCS_CONFIG_TYPE_TIME},

    {"RCACHE_OVERHEAD", "180ns",
     "Time that a registration found in the cache takes; told to UCP in place of the two above while the cache is used.",
     offsetof(uct_srd_md_config_t, rcache_overhead), UCS_CONFIG_TYPE_TIME},

    {"NUMA_POLICY", "preferred",
     "Where the buffers of interfaces go on a machine with several NUMA nodes:\n"
     " none       where the thread that opens the interface runs;\n"
     " preferred  on the device's node as long as it has room;\n"
     " bind       on the device's node and nowhere else. Memory that cannot be had there ends the process: for\n"
     "            measurements.",
     offsetof(uct_srd_md_config_t, numa_policy), UCS_CONFIG_TYPE_ENUM(uct_srd_numa_policy_names)},

    {"FORK_INIT", "try", "Make verbs safe to use in a process that forks, with ibv_fork_init().",
     offsetof(uct_srd_md_config_t, fork_init), UCS_CONFIG_TYPE_TERNARY},

    {"INVALIDATE", "y",
     "Let UCP take keys back when a peer fails, which it asks for before it lets peers\n"
     "access memory directly on endpoints with error handling. Rests on the device to\n"
     "end remote access before it has deregistered the memory, as the kernel does when\n"
     "it releases the pages. With n, large messages of such endpoints are copied.",
     offsetof(uct_srd_md_config_t, invalidate), UCS_CONFIG_TYPE_BOOL},

    {"REQUIRE_DIR", "",
     "Folder in which every interface leaves the number of bytes it carried when it\n"
     "closes; set by 'ucx-srd run --require'.",
     offsetof(uct_srd_md_config_t, require_dir), UCS_CONFIG_TYPE_STRING},

    {"ABI_CHECK", "y",
     "Refuse a UCX whose version is not the one that the transport was built for.\n"
     "Read from the environment alone, before any configuration file.",
     offsetof(uct_srd_md_config_t, abi_check), UCS_CONFIG_TYPE_BOOL},

    {nullptr, nullptr, nullptr, 0, {}}};

ucs_status_t uct_srd_query_md_resources(uct_component *, uct_md_resource_desc_t **resources_p,
                                        unsigned *resource_count_p) noexcept
{
    resource_list list = {};
    char          reason[128];
    if (uct_srd_device_scan(append_resource, &list, reason, sizeof(reason)) == 0) {
        ucs_info("srd: no EFA device: %s", reason);
    }
    if (list.out_of_memory) {
        free(list.resources);
        return UCS_ERR_NO_MEMORY;
    }
    *resources_p      = list.resources;
    *resource_count_p = list.count;
    return UCS_OK;
}

ucs_status_t uct_srd_md_open(uct_component *component, const char *md_name, const uct_md_config_t *uct_config,
                             uct_md_h *md_p) noexcept
{
    const auto *config = reinterpret_cast<const uct_srd_md_config_t *>(uct_config);
    ucs_status_t status = init_fork(config->fork_init);
    if (status != UCS_OK) {
        return status;
    }

    auto *md = new (std::nothrow) uct_srd_md_t{};
    if (md == nullptr) {
        return UCS_ERR_NO_MEMORY;
    }
    md->super.ops       = &uct_srd_md_ops;
    md->super.component = component;

    status = uct_srd_device_open(md_name, &md->verbs, &md->attr);
    if (status != UCS_OK) {
        goto err_free;
    }
    uct_srd_device_local_cpus(md->verbs, &md->local_cpus);
    md->offers_invalidate = config->invalidate && (md->attr.caps & (UCT_SRD_CAP_RDMA_READ | UCT_SRD_CAP_RDMA_WRITE)) != 0; // HA-5
    md->locality = srd::locality_of_device(md->attr.bdf, md->attr.numa_node, static_cast<srd::numa_policy>(config->numa_policy));
    ucs_debug("%s: NUMA node %d says %s, buffers %s", md->attr.ibdev_name, md->locality.node, md->locality.source,
              uct_srd_numa_policy_names[static_cast<int>(md->locality.policy)]);

    md->pd = ibv_alloc_pd(md->verbs);
    if (md->pd == nullptr) {
        ucs_error("%s: cannot allocate a protection domain: %m", md->attr.ibdev_name);
        status = UCS_ERR_IO_ERROR;
        goto err_close;
    }
    md->offers_dmabuf = srd::uct_registers_dmabuf && srd::reg_dmabuf_supported(md);
    status = srd::reg_cache_init(md, config);
    if (status != UCS_OK) {
        goto err_dealloc_pd;
    }
    // UCP weighs this against copying, for each operation: with a cache, all but the first use of a buffer find it there.
    md->reg_cost = md->rcache != nullptr ? ucs_linear_func_make(config->rcache_overhead, 0)
                                         : ucs_linear_func_make(config->mem_reg_overhead, config->mem_reg_growth);

    *md_p = &md->super;
    return UCS_OK;

err_dealloc_pd:
    ibv_dealloc_pd(md->pd);
err_close:
    ibv_close_device(md->verbs);
err_free:
    delete md;
    return status;
}

ucs_status_t uct_srd_rkey_unpack(const void *rkey_buffer, uct_rkey_t *rkey_p, void **handle_p) noexcept
{
    const auto *bytes = static_cast<const uint8_t *>(rkey_buffer);
    if (bytes[0] != UCT_SRD_RKEY_VERSION) {
        ucs_debug("remote key of version 0x%x, expected 0x%x", bytes[0], UCT_SRD_RKEY_VERSION);
        return UCS_ERR_INVALID_PARAM;
    }
    uint32_t rkey = 0;
    for (unsigned i = 0; i < 4; ++i) {
        rkey |= static_cast<uint32_t>(bytes[1 + i]) << (8 * i);
    }
    *rkey_p   = rkey;
    *handle_p = nullptr;
    return UCS_OK;
}

ucs_status_t uct_srd_rkey_release(uct_rkey_t, void *) noexcept
{
    return UCS_OK;
}

ucs_status_t uct_srd_query_devices(uct_md_h uct_md, uct_tl_device_resource_t **devices_p,
                                   unsigned *device_count_p) noexcept
{
    const uct_srd_md_t *md = uct_srd_md(uct_md);
    char name[UCT_DEVICE_NAME_MAX];
    // "<ibdev>:<port>", as UCX's InfiniBand transports do: Open MPI finds the driver in sysfs by it.
    snprintf(name, sizeof(name), "%.*s:%d", UCT_DEVICE_NAME_MAX - 3, md->attr.ibdev_name, UCT_SRD_PORT);
    return uct_single_device_resource(uct_md, name, UCT_DEVICE_TYPE_NET, md->attr.sys_device, devices_p,
                                      device_count_p);
}
