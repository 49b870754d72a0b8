/* See srd_locality.h. */
#include "uct/srd/srd_locality.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <initializer_list>
#include <new>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef HAVE_HWLOC
#include <hwloc.h>
#endif

namespace srd {

namespace {

/// Linux's numbers; numaif.h belongs to libnuma, which is not needed for one system call.
constexpr int mpol_preferred = 1, mpol_bind = 2;
constexpr int nodes_max = 1024;

/// Calls visit(first, last) for each range of a list; false if it is malformed.
template <class Visit> bool walk_list(const char *list, Visit visit) noexcept
{
    for (const char *at = list;;) {
        char *end;
        if (*at < '0' || *at > '9') {
            return false;
        }
        const unsigned long first = strtoul(at, &end, 10);
        unsigned long last = first;
        if (*end == '-') {
            if (end[1] < '0' || end[1] > '9') {
                return false;
            }
            last = strtoul(end + 1, &end, 10);
        }
        if (last < first || last >= nodes_max) {
            return false;
        }
        visit(first, last);
        if (*end == '\0' || *end == '\n') {
            return true;
        }
        if (*end != ',') {
            return false;
        }
        at = end + 1;
    }
}

/// The nodes that have memory, "0-1"; empty if the kernel does not say.
void read_nodes(char *list, size_t size) noexcept
{
    list[0] = '\0';
    for (const char *path : {"/sys/devices/system/node/has_memory", "/sys/devices/system/node/online"}) {
        FILE *file = fopen(path, "re");
        if (file == nullptr) {
            continue;
        }
        const size_t got = fread(list, 1, size - 1, file);
        fclose(file);
        list[got] = '\0';
        if (got > 0) {
            return;
        }
    }
}

#ifdef HAVE_HWLOC

/// "0000:00:06.0"
bool parse_bdf(const char *text, unsigned bdf[4]) noexcept
{
    return sscanf(text, "%x:%x:%x.%x", &bdf[0], &bdf[1], &bdf[2], &bdf[3]) == 4;
}

#define HWLOC_ENTRIES(entry) \
    entry(hwloc_get_api_version) \
    entry(hwloc_topology_init) \
    entry(hwloc_topology_set_type_filter) \
    entry(hwloc_topology_load) \
    entry(hwloc_topology_destroy) \
    entry(hwloc_get_obj_by_depth) \
    entry(hwloc_bitmap_weight) \
    entry(hwloc_bitmap_first) \
    entry(hwloc_bitmap_isequal)

/// hwloc, if it is there and has the interface that we were compiled with: 2.x keeps it.
struct hwloc_library {
#define DECLARE(name) decltype(&::name) name = nullptr;
    HWLOC_ENTRIES(DECLARE)
#undef DECLARE
    bool usable = false;

    hwloc_library() noexcept
    {
        void *library = dlopen("libhwloc.so.15", RTLD_LAZY | RTLD_LOCAL); // 15: every release of hwloc 2
        usable        = library != nullptr;
#define FIND(name) usable = usable && (name = reinterpret_cast<decltype(&::name)>(dlsym(library, #name))) != nullptr;
        HWLOC_ENTRIES(FIND)
#undef FIND
        usable = usable && hwloc_get_api_version() >> 16 == HWLOC_API_VERSION >> 16;
    }
};

const hwloc_library &hwloc_of_process() noexcept
{
    static const hwloc_library library;
    return library;
}

/// The node of one I/O object: that of the nearest ancestor that has processors, unless that is the whole machine.
int node_of(const hwloc_library &hwloc, hwloc_topology_t topology, hwloc_obj_t object) noexcept
{
    while (object != nullptr && object->cpuset == nullptr) {
        object = object->parent;
    }
    const hwloc_obj_t machine = hwloc.hwloc_get_obj_by_depth(topology, 0, 0);
    if (object == nullptr || object->nodeset == nullptr || machine == nullptr || machine->nodeset == nullptr) {
        return -1;
    }
    const int count = hwloc.hwloc_bitmap_weight(object->nodeset);
    if (count < 1 || (count > 1 && hwloc.hwloc_bitmap_isequal(object->nodeset, machine->nodeset))) {
        return -1;
    }
    return hwloc.hwloc_bitmap_first(object->nodeset); // of memories of several kinds the plain one comes first
}

/// All PCI devices and their nodes, read once.
struct pci_nodes {
    struct entry {
        unsigned bdf[4];
        int      node;
    };
    static constexpr unsigned entries_max = 1024;
    entry   *entries = nullptr;
    unsigned count   = 0;

    pci_nodes() noexcept
    {
        const hwloc_library &hwloc = hwloc_of_process();
        hwloc_topology_t     topology;
        if (!hwloc.usable || hwloc.hwloc_topology_init(&topology) != 0) {
            return;
        }
        entries = new (std::nothrow) entry[entries_max];
        if (entries != nullptr &&
            hwloc.hwloc_topology_set_type_filter(topology, HWLOC_OBJ_PCI_DEVICE, HWLOC_TYPE_FILTER_KEEP_IMPORTANT) == 0 &&
            hwloc.hwloc_topology_load(topology) == 0) {
            for (hwloc_obj_t device; count < entries_max && (device = hwloc.hwloc_get_obj_by_depth(
                                                                 topology, HWLOC_TYPE_DEPTH_PCI_DEVICE, count)) != nullptr;) {
                const auto &pci    = device->attr->pcidev;
                entries[count++] = {{pci.domain, pci.bus, pci.dev, pci.func}, node_of(hwloc, topology, device)};
            }
        }
        hwloc.hwloc_topology_destroy(topology);
    }

    int find(const char *text) const noexcept
    {
        unsigned bdf[4];
        if (parse_bdf(text, bdf)) {
            for (unsigned i = 0; i < count; ++i) {
                if (memcmp(entries[i].bdf, bdf, sizeof(bdf)) == 0) {
                    return entries[i].node;
                }
            }
        }
        return -1;
    }
};

int hwloc_node(const char *bdf) noexcept
{
    static const pci_nodes nodes;
    return nodes.find(bdf);
}

#else

int hwloc_node(const char *) noexcept { return -1; }

#endif

/// The administrator has told hwloc something that the kernel does not know.
bool hwloc_was_told() noexcept
{
    for (const char *name : {"HWLOC_XMLFILE", "HWLOC_PCI_LOCALITY"}) {
        const char *value = getenv(name);
        if (value != nullptr && value[0] != '\0') {
            return true;
        }
    }
    return false;
}

} // namespace

bool locality_has_hwloc() noexcept
{
#ifdef HAVE_HWLOC
    return hwloc_of_process().usable;
#else
    return false;
#endif
}

int locality_node_in(hwloc_topology *topology, const char *bdf) noexcept
{
#ifdef HAVE_HWLOC
    const hwloc_library &hwloc = hwloc_of_process();
    unsigned wanted[4];
    if (!hwloc.usable || !parse_bdf(bdf, wanted)) {
        return -1;
    }
    hwloc_obj_t device;
    for (unsigned i = 0; (device = hwloc.hwloc_get_obj_by_depth(topology, HWLOC_TYPE_DEPTH_PCI_DEVICE, i)) != nullptr; ++i) {
        const auto &pci = device->attr->pcidev;
        if (pci.domain == wanted[0] && pci.bus == wanted[1] && pci.dev == wanted[2] && pci.func == wanted[3]) {
            return node_of(hwloc, topology, device);
        }
    }
#else
    (void)topology;
    (void)bdf;
#endif
    return -1;
}

unsigned locality_count_nodes(const char *list) noexcept
{
    unsigned long count = 0;
    const bool good = walk_list(list, [&](unsigned long first, unsigned long last) { count += last - first + 1; });
    return good ? static_cast<unsigned>(count) : 0;
}

bool locality_has_node(const char *list, int node) noexcept
{
    bool       found = false;
    const bool good  = walk_list(list, [&](unsigned long first, unsigned long last) {
        found = found || (node >= 0 && first <= static_cast<unsigned long>(node) && static_cast<unsigned long>(node) <= last);
    });
    return good && found;
}

locality locality_of_device(const char *bdf, int sysfs_node, numa_policy wanted) noexcept
{
    char nodes[256];
    read_nodes(nodes, sizeof(nodes));
    const bool told     = hwloc_was_told();
    const bool one_node = locality_count_nodes(nodes) <= 1;
    locality   where;

    if (told || (sysfs_node < 0 && !one_node)) {
        where.node   = bdf[0] != '\0' ? hwloc_node(bdf) : -1;
        where.source = "hwloc";
    }
    if (where.node < 0) {
        where.node   = sysfs_node;
        where.source = "sysfs";
    }
    if (where.node < 0 && one_node) {
        where.node   = 0;
        where.source = "the machine, which has one node";
    }
    if (where.node < 0) {
        where.source = "unknown";
    } else if (locality_has_node(nodes, where.node) && (!one_node || wanted == numa_policy::bind)) { // LOC-2
        where.policy = wanted;
    }
    return where;
}

bool locality_place(const locality &where, void *address, std::size_t size) noexcept
{
    const auto page  = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto begin = (reinterpret_cast<std::uintptr_t>(address) + page - 1) & ~(page - 1);
    const auto end   = (reinterpret_cast<std::uintptr_t>(address) + size) & ~(page - 1);
    if (where.policy == numa_policy::none || where.node < 0 || where.node >= nodes_max || end <= begin) {
        return false;
    }
    constexpr unsigned word_bits = sizeof(unsigned long) * CHAR_BIT;
    unsigned long      mask[nodes_max / word_bits] = {};
    mask[static_cast<unsigned>(where.node) / word_bits] = 1ul << (static_cast<unsigned>(where.node) % word_bits);
    return syscall(SYS_mbind, begin, end - begin, where.policy == numa_policy::bind ? mpol_bind : mpol_preferred, mask,
                   static_cast<unsigned long>(nodes_max), 0u) == 0;
}

} // namespace srd
