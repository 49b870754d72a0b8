/* The half of `ucx-srd info` that runs in the environment of a command: what verbs and UCX see there.
 *
 * UCT's public calls only, found by dlsym, because ucx-srd itself must start without UCX. The capabilities are those of
 * an interface that UCX opened; the lane classes are UCP's criteria applied to them, in the table that the transport uses.
 */
#include "tools/info.h"
#include "tools/run.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <infiniband/efadv.h>
#include <infiniband/verbs.h>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

#ifdef UCX_SRD_ABI
extern "C" {
#include <ucs/async/async_fwd.h>
#include <uct/api/uct.h>
}
#include "uct/srd/srd_lanes.h"
#endif

namespace tools {

namespace {

/// Bits of efadv's device_caps; later ones are not in older headers.
constexpr uint32_t cap_rdma_read = 1u << 0, cap_rdma_write = 1u << 3;
constexpr struct { uint32_t bit; const char *name; } cap_names[] = {
    {cap_rdma_read, "RDMA read"}, {cap_rdma_write, "RDMA write"}, {1u << 1, "RNR retry"},
    {1u << 2, "sender GID"},     {1u << 4, "unsolicited write receive"},
};

template <class F> F *symbol(void *library, const char *name)
{
    return library == nullptr ? nullptr : reinterpret_cast<F *>(dlsym(library, name));
}

void print_device(const char *name, uint32_t part_id, const struct efadv_device_attr &attr, uint32_t max_message)
{
    printf("%-12s %s: part 0x%04x", "device", name, part_id);
    if (part_id >= 0xefa0 && part_id <= 0xefa9) {
        printf(" (EFA generation %u)", part_id - 0xefa0 + 1);
    }
    printf(", message %u B, inline %u B, queues %u/%u", max_message, attr.inline_buf_size, attr.max_sq_wr,
           attr.max_rq_wr);
    for (const auto &cap : cap_names) {
        if (attr.device_caps & cap.bit) {
            printf(", %s", cap.name);
        }
    }
    if (attr.max_rdma_size != 0) {
        printf(", RDMA up to %u B", attr.max_rdma_size);
    }
    printf("\n");
}

/// efadv's device_caps of each EFA device, by its verbs name.
using caps_by_device = std::map<std::string, uint32_t>;

/// One line for each EFA device that verbs shows.
void report_devices(caps_by_device *caps_p)
{
    void *verbs = dlopen("libibverbs.so.1", RTLD_LAZY | RTLD_LOCAL);
    void *efa   = dlopen("libefa.so.1", RTLD_LAZY | RTLD_LOCAL);
    auto *get_list     = symbol<struct ibv_device **(int *)>(verbs, "ibv_get_device_list");
    auto *get_name     = symbol<const char *(struct ibv_device *)>(verbs, "ibv_get_device_name");
    auto *open_device  = symbol<struct ibv_context *(struct ibv_device *)>(verbs, "ibv_open_device");
    auto *close_device = symbol<int(struct ibv_context *)>(verbs, "ibv_close_device");
    auto *query        = symbol<int(struct ibv_context *, struct ibv_device_attr *)>(verbs, "ibv_query_device");
    auto *query_port   = symbol<int(struct ibv_context *, uint8_t, void *)>(verbs, "ibv_query_port");
    auto *query_efa    = symbol<int(struct ibv_context *, struct efadv_device_attr *, uint32_t)>(efa, "efadv_query_device");
    if (!get_list || !get_name || !open_device || !close_device || !query || !query_port || !query_efa) {
        printf("%-12s none: rdma-core's libibverbs or libefa is missing\n", "device");
        return;
    }
    int count = 0;
    struct ibv_device **list = get_list(&count);
    for (int i = 0; list != nullptr && i < count; ++i) {
        struct ibv_context *context = open_device(list[i]);
        if (context == nullptr) {
            printf("%-12s %s: cannot be opened; is /dev/infiniband readable and writable?\n", "device", get_name(list[i]));
            continue;
        }
        struct efadv_device_attr efa_attr = {};
        struct ibv_device_attr   attr     = {};
        struct ibv_port_attr     port     = {};
        if (query_efa(context, &efa_attr, sizeof(efa_attr)) == 0 && query(context, &attr) == 0 &&
            query_port(context, 1, &port) == 0) {
            print_device(get_name(list[i]), attr.vendor_part_id, efa_attr, port.max_msg_sz);
            (*caps_p)[get_name(list[i])] = efa_attr.device_caps;
        } else {
            printf("%-12s %s: not an EFA device\n", "device", get_name(list[i]));
        }
        close_device(context);
    }
    if (caps_p->empty()) {
        printf("%-12s none: verbs shows no EFA device\n", "device");
    }
}

#ifdef UCX_SRD_ABI

/// UCT's entry points, found in the libuct that a command would get.
#define UCT_ENTRIES(entry) \
    entry(uct_query_components) \
    entry(uct_component_query) \
    entry(uct_release_component_list) \
    entry(uct_md_config_read) \
    entry(uct_md_open) \
    entry(uct_md_query) \
    entry(uct_md_close) \
    entry(uct_md_query_tl_resources) \
    entry(uct_release_tl_resource_list) \
    entry(uct_md_iface_config_read) \
    entry(uct_config_release) \
    entry(uct_worker_create) \
    entry(uct_worker_destroy) \
    entry(uct_iface_open) \
    entry(uct_iface_query) \
    entry(uct_iface_close) \
    entry(ucs_async_context_create) \
    entry(ucs_async_context_destroy) \
    entry(ucs_status_string)

struct uct_api {
#define DECLARE(name) decltype(&::name) name;
    UCT_ENTRIES(DECLARE)
#undef DECLARE

    bool load()
    {
        void *uct = dlopen("libuct.so.0", RTLD_LAZY | RTLD_LOCAL);
        bool complete = uct != nullptr; // dlsym also searches libucs, which libuct needs
#define FIND(name) complete = complete && (name = symbol<std::remove_pointer_t<decltype(name)>>(uct, #name)) != nullptr;
        UCT_ENTRIES(FIND)
#undef FIND
        return complete;
    }
};
#undef UCT_ENTRIES

/// One line for a class; a second one where there is something to be done about it.
void print_lane(const srd::lane_class &lane, const srd::lane_facts &facts)
{
    if (lane_usable(lane, facts)) {
        printf("  %-14s yes\n", lane.name);
        return;
    }
    char missing[128];
    lane_missing(lane, facts, missing, sizeof(missing));
    printf("  %-14s no: %s (missing: %s)\n", lane.name, lane.without, missing);
    if (const char *advice = lane_advice(lane, facts)) {
        printf("  %-14s %s\n", "", advice);
    }
}

void print_interface(const char *device, const uct_iface_attr_t &attr, std::uint64_t md_flags, std::uint32_t device_caps)
{
    printf("%-12s srd on %s: short %zu B, copied %zu B, zero-copy %zu B\n", "UCX", device, attr.cap.am.max_short,
           attr.cap.am.max_bcopy, attr.cap.am.max_zcopy);
    const srd::lane_facts facts = {attr.cap.flags, attr.cap.event_flags, md_flags, (device_caps & cap_rdma_read) != 0,
                                   (device_caps & cap_rdma_write) != 0};
    for (const srd::lane_class &lane : srd::lane_classes) {
        print_lane(lane, facts);
    }
}

/// Opens srd on every device of one memory domain. Returns how many could be opened.
unsigned report_md(const uct_api &api, uct_component_h component, const char *md_name, uct_worker_h worker,
                   const caps_by_device &caps)
{
    uct_md_config_t *md_config;
    uct_md_h md;
    ucs_status_t status = api.uct_md_config_read(component, nullptr, nullptr, &md_config);
    if (status == UCS_OK) {
        status = api.uct_md_open(component, md_name, md_config, &md);
        api.uct_config_release(md_config);
    }
    if (status != UCS_OK) {
        printf("%-12s memory domain %s cannot be opened: %s\n", "UCX", md_name, api.ucs_status_string(status));
        return 0;
    }
    uct_md_attr_t md_attr = {};
    (void)api.uct_md_query(md, &md_attr);
    unsigned opened = 0, count = 0;
    uct_tl_resource_desc_t *resources = nullptr;
    status = api.uct_md_query_tl_resources(md, &resources, &count);
    for (unsigned i = 0; status == UCS_OK && i < count; ++i) {
        uct_iface_config_t *config;
        uct_iface_h iface;
        uct_iface_params_t params = {};
        params.field_mask = UCT_IFACE_PARAM_FIELD_OPEN_MODE | UCT_IFACE_PARAM_FIELD_DEVICE;
        params.open_mode  = UCT_IFACE_OPEN_MODE_DEVICE;
        params.mode.device.tl_name  = resources[i].tl_name;
        params.mode.device.dev_name = resources[i].dev_name;
        ucs_status_t opened_status = api.uct_md_iface_config_read(md, resources[i].tl_name, nullptr, nullptr, &config);
        if (opened_status == UCS_OK) {
            opened_status = api.uct_iface_open(md, worker, &params, config, &iface);
            api.uct_config_release(config);
        }
        if (opened_status != UCS_OK) {
            printf("%-12s %s on %s cannot be opened: %s\n", "UCX", resources[i].tl_name, resources[i].dev_name,
                   api.ucs_status_string(opened_status));
            continue;
        }
        uct_iface_attr_t attr = {};
        if (api.uct_iface_query(iface, &attr) == UCS_OK) {
            const std::string name(resources[i].dev_name);
            const auto found = caps.find(name.substr(0, name.rfind(':')));
            print_interface(name.c_str(), attr, md_attr.cap.flags, found == caps.end() ? 0 : found->second);
            ++opened;
        }
        api.uct_iface_close(iface);
    }
    if (status == UCS_OK) {
        api.uct_release_tl_resource_list(resources);
    }
    api.uct_md_close(md);
    return opened;
}

unsigned report_component(const uct_api &api, uct_component_h component, uct_worker_h worker, const caps_by_device &caps)
{
    uct_component_attr_t attr = {};
    attr.field_mask = UCT_COMPONENT_ATTR_FIELD_NAME | UCT_COMPONENT_ATTR_FIELD_MD_RESOURCE_COUNT;
    if (api.uct_component_query(component, &attr) != UCS_OK || strcmp(attr.name, "srd") != 0) {
        return 0;
    }
    std::vector<uct_md_resource_desc_t> resources(attr.md_resource_count);
    attr.field_mask   = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCES;
    attr.md_resources = resources.data();
    if (resources.empty() || api.uct_component_query(component, &attr) != UCS_OK) {
        printf("%-12s the transport is loaded and has no device\n", "UCX");
        return 0;
    }
    unsigned opened = 0;
    for (const auto &resource : resources) {
        opened += report_md(api, component, resource.md_name, worker, caps);
    }
    return opened;
}

unsigned report_ucx(const caps_by_device &caps)
{
    uct_api api;
    ucs_async_context_t *async;
    uct_worker_h worker;
    if (!api.load() || api.ucs_async_context_create(UCS_ASYNC_MODE_THREAD_SPINLOCK, &async) != UCS_OK) {
        printf("%-12s libuct.so.0 cannot be used\n", "UCX");
        return 0;
    }
    unsigned opened = 0, count = 0;
    if (api.uct_worker_create(async, UCS_THREAD_MODE_SINGLE, &worker) == UCS_OK) {
        uct_component_h *components;
        bool found = false;
        if (api.uct_query_components(&components, &count) == UCS_OK) {
            for (unsigned i = 0; i < count; ++i) {
                uct_component_attr_t attr = {};
                attr.field_mask = UCT_COMPONENT_ATTR_FIELD_NAME;
                found = (api.uct_component_query(components[i], &attr) == UCS_OK && strcmp(attr.name, "srd") == 0) || found;
                opened += report_component(api, components[i], worker, caps);
            }
            api.uct_release_component_list(components);
        }
        if (!found) {
            printf("%-12s did not load the transport\n", "UCX");
        }
        api.uct_worker_destroy(worker);
    }
    api.ucs_async_context_destroy(async);
    return opened;
}

#else

unsigned report_ucx(const caps_by_device &)
{
    return 0;
}

#endif

} // namespace

int info_inside()
{
    caps_by_device caps;
    report_devices(&caps);
    return report_ucx(caps) > 0 ? exit_ok : exit_refused;
}

} // namespace tools
