/* The half of `ucx-srd info` that runs in the environment of a command: what verbs and UCX see there.
 *
 * UCT's public calls only, found by dlsym, because ucx-srd itself must start without UCX. The capabilities are those of
 * an interface that UCX opened; the lane classes are UCP's criteria (docs/uct-semantics.md) applied to them.
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

#ifdef UCX_SRD_ABI
extern "C" {
#include <ucs/async/async_fwd.h>
#include <uct/api/uct.h>
}
#endif

namespace tools {

namespace {

/// Bits of efadv's device_caps; later ones are not in older headers.
constexpr struct { uint32_t bit; const char *name; } cap_names[] = {
    {1u << 0, "RDMA read"},      {1u << 3, "RDMA write"}, {1u << 1, "RNR retry"},
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

/// One line for each EFA device that verbs shows. Returns their number.
unsigned report_devices()
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
        return 0;
    }
    unsigned efa_count = 0;
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
            ++efa_count;
        } else {
            printf("%-12s %s: not an EFA device\n", "device", get_name(list[i]));
        }
        close_device(context);
    }
    if (efa_count == 0) {
        printf("%-12s none: verbs shows no EFA device\n", "device");
    }
    return efa_count;
}

#ifdef UCX_SRD_ABI

/// UCT's entry points, found in the libuct that a command would get.
struct uct_api {
#define ENTRY(name) decltype(&::name) name
    ENTRY(uct_query_components);
    ENTRY(uct_component_query);
    ENTRY(uct_release_component_list);
    ENTRY(uct_md_config_read);
    ENTRY(uct_md_open);
    ENTRY(uct_md_close);
    ENTRY(uct_md_query_tl_resources);
    ENTRY(uct_release_tl_resource_list);
    ENTRY(uct_md_iface_config_read);
    ENTRY(uct_config_release);
    ENTRY(uct_worker_create);
    ENTRY(uct_worker_destroy);
    ENTRY(uct_iface_open);
    ENTRY(uct_iface_query);
    ENTRY(uct_iface_close);
    ENTRY(ucs_async_context_create);
    ENTRY(ucs_async_context_destroy);
    ENTRY(ucs_status_string);
#undef ENTRY

    bool load()
    {
        void *uct = dlopen("libuct.so.0", RTLD_LAZY | RTLD_LOCAL);
        bool complete = uct != nullptr; // dlsym also searches libucs, which libuct needs
#define ENTRY(name) complete = complete && (name = symbol<std::remove_pointer_t<decltype(name)>>(uct, #name)) != nullptr
        ENTRY(uct_query_components);
        ENTRY(uct_component_query);
        ENTRY(uct_release_component_list);
        ENTRY(uct_md_config_read);
        ENTRY(uct_md_open);
        ENTRY(uct_md_close);
        ENTRY(uct_md_query_tl_resources);
        ENTRY(uct_release_tl_resource_list);
        ENTRY(uct_md_iface_config_read);
        ENTRY(uct_config_release);
        ENTRY(uct_worker_create);
        ENTRY(uct_worker_destroy);
        ENTRY(uct_iface_open);
        ENTRY(uct_iface_query);
        ENTRY(uct_iface_close);
        ENTRY(ucs_async_context_create);
        ENTRY(ucs_async_context_destroy);
        ENTRY(ucs_status_string);
#undef ENTRY
        return complete;
    }
};

/// One lane class of UCP: what an interface must offer, and what missing it means.
struct lane_class {
    const char *name;
    uint64_t    all_of;
    const char *without;
};

constexpr lane_class lane_classes[] = {
    {"messages", UCT_IFACE_FLAG_AM_BCOPY | UCT_IFACE_FLAG_CB_SYNC | UCT_IFACE_FLAG_PENDING, "UCP cannot use srd at all"},
    {"RMA", UCT_IFACE_FLAG_PUT_SHORT | UCT_IFACE_FLAG_PUT_BCOPY | UCT_IFACE_FLAG_GET_BCOPY | UCT_IFACE_FLAG_PENDING,
     "put and get go as messages"},
    {"bulk RMA", UCT_IFACE_FLAG_PUT_ZCOPY | UCT_IFACE_FLAG_GET_ZCOPY | UCT_IFACE_FLAG_PENDING,
     "large messages are copied, not read by the receiver"},
    {"atomics", UCT_IFACE_FLAG_ATOMIC_CPU | UCT_IFACE_FLAG_ATOMIC_DEVICE, "atomics go as messages"},
    {"peer failure", UCT_IFACE_FLAG_ERRHANDLE_PEER_FAILURE, "endpoints with err_mode=peer cannot be made"},
};

constexpr struct { uint64_t flag; const char *name; } flag_names[] = {
    {UCT_IFACE_FLAG_AM_BCOPY, "am_bcopy"},   {UCT_IFACE_FLAG_CB_SYNC, "cb_sync"},     {UCT_IFACE_FLAG_PENDING, "pending"},
    {UCT_IFACE_FLAG_PUT_SHORT, "put_short"}, {UCT_IFACE_FLAG_PUT_BCOPY, "put_bcopy"}, {UCT_IFACE_FLAG_GET_BCOPY, "get_bcopy"},
    {UCT_IFACE_FLAG_PUT_ZCOPY, "put_zcopy"}, {UCT_IFACE_FLAG_GET_ZCOPY, "get_zcopy"},
};

void print_lane(const lane_class &lane, uint64_t flags)
{
    const bool any_is_enough = lane.all_of == (UCT_IFACE_FLAG_ATOMIC_CPU | UCT_IFACE_FLAG_ATOMIC_DEVICE);
    if (any_is_enough ? (flags & lane.all_of) != 0 : (flags & lane.all_of) == lane.all_of) {
        printf("  %-14s yes\n", lane.name);
        return;
    }
    printf("  %-14s no: %s", lane.name, lane.without);
    const char *separator = " (missing: ";
    for (const auto &flag : flag_names) {
        if (lane.all_of & ~flags & flag.flag) {
            printf("%s%s", separator, flag.name);
            separator = ", ";
        }
    }
    printf("%s\n", *separator == ',' ? ")" : "");
}

void print_interface(const char *device, const uct_iface_attr_t &attr)
{
    printf("%-12s srd on %s: short %zu B, copied %zu B, zero-copy %zu B\n", "UCX", device, attr.cap.am.max_short,
           attr.cap.am.max_bcopy, attr.cap.am.max_zcopy);
    for (const lane_class &lane : lane_classes) {
        print_lane(lane, attr.cap.flags);
    }
    const bool events = attr.cap.event_flags & (UCT_IFACE_FLAG_EVENT_SEND_COMP | UCT_IFACE_FLAG_EVENT_RECV);
    printf("  %-14s %s\n", "wakeup", events ? "yes" : "no: programs that sleep in UCP do not get srd");
}

/// Opens srd on every device of one memory domain. Returns how many could be opened.
unsigned report_md(const uct_api &api, uct_component_h component, const char *md_name, uct_worker_h worker)
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
            print_interface(resources[i].dev_name, attr);
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

unsigned report_component(const uct_api &api, uct_component_h component, uct_worker_h worker)
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
        opened += report_md(api, component, resource.md_name, worker);
    }
    return opened;
}

unsigned report_ucx()
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
                opened += report_component(api, components[i], worker);
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

unsigned report_ucx()
{
    return 0;
}

#endif

} // namespace

int info_inside()
{
    report_devices();
    return report_ucx() > 0 ? exit_ok : exit_refused;
}

} // namespace tools
