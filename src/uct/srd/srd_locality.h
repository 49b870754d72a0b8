/* Where a device is in the machine, and memory that is put beside it.
 *
 * Owns: the NUMA node of a device, the use of hwloc for it, and the policy that is set on pages before anybody touches them.
 * Refuses to know: what the memory is for, and the data path: nothing here runs after an interface is open.
 *
 * A node is found by what is cheapest first. One node in the machine: there is nothing to find. Else sysfs, which is one
 * small file of the device; it says -1 where the firmware does not tell, which is common in virtual machines. Then hwloc,
 * which also knows what a bridge above the device says, knows the firmware's errors, and takes the administrator's word
 * (HWLOC_XMLFILE, HWLOC_PCI_LOCALITY): if one of those is set, hwloc is asked before sysfs. Loading a topology took
 * 31 to 57 ms on a machine of 2 cores, so it is done at most once in a process, when first needed, and only the list of devices
 * and nodes is kept.
 *
 * hwloc is opened with dlopen: a transport that is loaded into every process must not fail to load, or take longer, for a
 * library that few machines need. Pages are placed with mbind itself, for which no topology is needed; rejected:
 * hwloc_set_area_membind, which wants the topology to be kept, for the same system call.
 *
 * Invariants
 *   LOC-1: no failure here is an error: memory that cannot be placed is used where it is.
 *   LOC-2: a node is used only if the machine has it.
 */
#pragma once

#include <cstddef>

struct hwloc_topology;

namespace srd {

enum class numa_policy : int {
    none,      ///< where the first touch puts it
    preferred, ///< on the device's node while it has room
    bind,      ///< on the device's node, or the allocation fails: for measurements
};

/// What the memory domain keeps about its device.
struct locality {
    int         node   = -1;                ///< NUMA node as the kernel numbers them; -1 = unknown
    numa_policy policy = numa_policy::none; ///< none if there is nothing to choose
    const char *source = "unknown";         ///< who said so: "sysfs", "hwloc"
};

/// The whole decision. 'bdf' may be empty; 'sysfs_node' is -1 if sysfs does not know. Asks hwloc if it must.
locality locality_of_device(const char *bdf, int sysfs_node, numa_policy wanted) noexcept;

/// Sets the policy on whole pages that nobody has touched. False: not done, which is no error. LOC-1
bool locality_place(const locality &where, void *address, std::size_t size) noexcept;

/// Node of a PCI device in a loaded topology; -1 if the topology does not have it or does not say. For tests.
int locality_node_in(hwloc_topology *topology, const char *bdf) noexcept;

/// Whether the transport was built with hwloc and the library is there.
bool locality_has_hwloc() noexcept;

/// Pure helpers, tested apart: number of nodes in a list such as "0-1,4", 0 if malformed; and whether a node is in it.
unsigned locality_count_nodes(const char *list) noexcept;
bool     locality_has_node(const char *list, int node) noexcept;

} // namespace srd
