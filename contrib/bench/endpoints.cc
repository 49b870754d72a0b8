/* What endpoints cost: time and memory of many endpoints of one interface, each to a peer of its own.
 *
 * Owns: one UCT interface, made as UCP makes it, and endpoints to made-up addresses: the interface's own address with
 * another queue pair and key in it. Nothing is sent, so no peer answers: these are idle endpoints, and each counts with the
 * whole of its peer, which is still waiting to say hello. Memory is what the allocator handed out (mallinfo2, its overhead
 * included) and what the process has resident (/proc/self/statm), before and after.
 * Refuses to know: the transport's structures; the layout of the 8-byte interface address (docs/transport-protocol.md, 4)
 * is all that it relies on.
 */
#include <uct/api/uct.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <unistd.h>
#include <vector>

namespace {

struct memory {
    std::size_t allocated; ///< bytes in use, the allocator's overhead included
    std::size_t resident;  ///< bytes
};

memory memory_now()
{
    const struct mallinfo2 heap = mallinfo2();
    std::size_t total = 0, resident = 0;
    if (std::FILE *file = std::fopen("/proc/self/statm", "re")) {
        if (std::fscanf(file, "%zu %zu", &total, &resident) != 2) {
            resident = 0;
        }
        std::fclose(file);
    }
    return {heap.uordblks + heap.hblkhd, resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE))};
}

[[noreturn]] void die(const char *what, ucs_status_t status)
{
    std::fprintf(stderr, "endpoints: %s: %s\n", what, ucs_status_string(status));
    std::exit(1);
}

void check(const char *what, ucs_status_t status)
{
    if (status != UCS_OK) {
        die(what, status);
    }
}

/// The memory domain of the component `name`, and its first device.
uct_md_h open_md(const char *name, uct_tl_resource_desc_t *tl)
{
    uct_component_h *components;
    unsigned count;
    check("components", uct_query_components(&components, &count));
    for (unsigned i = 0; i < count; ++i) {
        uct_component_attr_t attr{};
        attr.field_mask = UCT_COMPONENT_ATTR_FIELD_NAME | UCT_COMPONENT_ATTR_FIELD_MD_RESOURCE_COUNT;
        check("component", uct_component_query(components[i], &attr));
        if (std::strcmp(attr.name, name) != 0 || attr.md_resource_count == 0) {
            continue;
        }
        std::vector<uct_md_resource_desc_t> mds(attr.md_resource_count);
        attr.field_mask   = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCES;
        attr.md_resources = mds.data();
        check("memory domains", uct_component_query(components[i], &attr));
        uct_md_config_t *config;
        uct_md_h md;
        check("settings", uct_md_config_read(components[i], nullptr, nullptr, &config));
        check("memory domain", uct_md_open(components[i], mds[0].md_name, config, &md));
        uct_config_release(config);
        uct_tl_resource_desc_t *tls;
        unsigned tl_count;
        check("devices", uct_md_query_tl_resources(md, &tls, &tl_count));
        if (tl_count == 0) {
            die("devices", UCS_ERR_NO_DEVICE);
        }
        *tl = tls[0];
        uct_release_tl_resource_list(tls);
        uct_release_component_list(components);
        return md;
    }
    die(name, UCS_ERR_NO_DEVICE);
}

} // namespace

int main(int argc, char **argv)
{
    const unsigned long count = argc == 2 ? std::strtoul(argv[1], nullptr, 10) : 100000;
    if (argc > 2 || count < 1 || count > 1000000) {
        std::fprintf(stderr, "usage: endpoints [COUNT]   (1 to 1000000, default 100000)\n");
        return 2;
    }
    using clock = std::chrono::steady_clock;
    ucs_async_context_t *async;
    uct_worker_h worker;
    uct_tl_resource_desc_t tl;
    check("async context", ucs_async_context_create(UCS_ASYNC_MODE_THREAD_SPINLOCK, &async));
    check("worker", uct_worker_create(async, UCS_THREAD_MODE_SINGLE, &worker));
    uct_md_h md = open_md("srd", &tl);

    const memory before_iface = memory_now();
    uct_iface_config_t *config;
    check("settings", uct_md_iface_config_read(md, tl.tl_name, nullptr, nullptr, &config));
    uct_iface_params_t params{};
    params.field_mask           = UCT_IFACE_PARAM_FIELD_OPEN_MODE | UCT_IFACE_PARAM_FIELD_DEVICE;
    params.open_mode            = UCT_IFACE_OPEN_MODE_DEVICE;
    params.mode.device.tl_name  = tl.tl_name;
    params.mode.device.dev_name = tl.dev_name;
    uct_iface_h iface;
    check("interface", uct_iface_open(md, worker, &params, config, &iface));
    uct_config_release(config);
    const memory before = memory_now();

    uct_iface_attr_t attr;
    check("attributes", uct_iface_query(iface, &attr));
    std::vector<unsigned char> device(attr.device_addr_len), address(attr.iface_addr_len);
    check("device address", uct_iface_get_device_address(iface, reinterpret_cast<uct_device_addr_t *>(device.data())));
    check("address", uct_iface_get_address(iface, reinterpret_cast<uct_iface_addr_t *>(address.data())));
    if (address.size() != 8) {
        die("the interface address", UCS_ERR_UNSUPPORTED);
    }

    std::vector<uct_ep_h> endpoints(count);
    const memory start = memory_now(); // the list is not the endpoints'
    const auto begin   = clock::now();
    for (unsigned long i = 0; i < count; ++i) {
        const std::uint16_t qpn  = static_cast<std::uint16_t>(1 + i % 60000);
        const std::uint32_t qkey = static_cast<std::uint32_t>(1 + i / 60000);
        std::memcpy(address.data() + 2, &qpn, sizeof(qpn));
        std::memcpy(address.data() + 4, &qkey, sizeof(qkey));
        uct_ep_params_t ep{};
        ep.field_mask = UCT_EP_PARAM_FIELD_IFACE | UCT_EP_PARAM_FIELD_DEV_ADDR | UCT_EP_PARAM_FIELD_IFACE_ADDR;
        ep.iface      = iface;
        ep.dev_addr   = reinterpret_cast<uct_device_addr_t *>(device.data());
        ep.iface_addr = reinterpret_cast<uct_iface_addr_t *>(address.data());
        check("endpoint", uct_ep_create(&ep, &endpoints[i]));
    }
    const auto made   = clock::now();
    const memory full = memory_now();
    for (uct_ep_h ep : endpoints) {
        uct_ep_destroy(ep);
    }
    const auto gone = clock::now();

    const auto us  = [](auto from, auto to) { return std::chrono::duration<double, std::micro>(to - from).count(); };
    const double n = static_cast<double>(count);
    std::printf("interface: %.0f KiB allocated, %.0f KiB resident\n",
                static_cast<double>(before.allocated - before_iface.allocated) / 1024,
                static_cast<double>(before.resident - before_iface.resident) / 1024);
    std::printf("%lu endpoints, each with a peer: created in %.2f us each, destroyed in %.2f us each\n", count,
                us(begin, made) / n, us(made, gone) / n);
    std::printf("bytes an endpoint: %.0f of the heap, %.0f resident\n", static_cast<double>(full.allocated - start.allocated) / n,
                static_cast<double>(full.resident - start.resident) / n);
    uct_iface_close(iface);
    uct_md_close(md);
    uct_worker_destroy(worker);
    ucs_async_context_destroy(async);
    return 0;
}
