// Where a device is and where its buffers go: lists of nodes, made-up machines for hwloc, made-up sysfs, policies of real pages.
#include "uct/srd/srd_locality.h"
#include "uct/srd/srd_device.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef HAVE_HWLOC
#include <hwloc.h>
#endif

using namespace srd;

namespace {

constexpr int mpol_default = 0, mpol_preferred = 1, mpol_bind = 2, mpol_f_addr = 2;

/// Pages from mmap, untouched, and the kernel's answer about their policy.
class pages {
public:
    explicit pages(std::size_t size)
        : size_(size), address_(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
    {
    }
    ~pages() { munmap(address_, size_); }
    void *address() const { return address_; }

    /// -1 where the kernel was built without NUMA.
    int policy(unsigned long *nodes_p) const
    {
        int mode = -1;
        unsigned long mask[16] = {};
        if (syscall(SYS_get_mempolicy, &mode, mask, 1024ul, address_, static_cast<unsigned long>(mpol_f_addr)) != 0) {
            return -1;
        }
        *nodes_p = mask[0];
        return mode;
    }

private:
    std::size_t size_;
    void       *address_;
};

locality at(int node, numa_policy policy)
{
    locality where;
    where.node   = node;
    where.policy = policy;
    return where;
}

/// Variables that make hwloc or the test take another view, put back at the end.
class variable {
public:
    variable(const char *name, const std::string &value) : name_(name) { setenv(name, value.c_str(), 1); }
    ~variable() { unsetenv(name_); }

private:
    const char *name_;
};

/// A machine of two packages, each with a node of its own; a NIC below a bridge of the second, another of the whole machine.
const char *const two_nodes = R"(<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc2.dtd">
<topology version="2.0">
 <object type="Machine" os_index="0" cpuset="0x0000000f" complete_cpuset="0x0000000f" allowed_cpuset="0x0000000f"
   nodeset="0x00000003" complete_nodeset="0x00000003" allowed_nodeset="0x00000003" gp_index="1">
  <object type="Package" os_index="0" cpuset="0x00000003" complete_cpuset="0x00000003" nodeset="0x00000001" complete_nodeset="0x00000001" gp_index="2">
   <object type="NUMANode" os_index="0" cpuset="0x00000003" complete_cpuset="0x00000003" nodeset="0x00000001" complete_nodeset="0x00000001" gp_index="3" local_memory="1073741824"/>
   <object type="PU" os_index="0" cpuset="0x00000001" complete_cpuset="0x00000001" nodeset="0x00000001" complete_nodeset="0x00000001" gp_index="4"/>
   <object type="PU" os_index="1" cpuset="0x00000002" complete_cpuset="0x00000002" nodeset="0x00000001" complete_nodeset="0x00000001" gp_index="5"/>
   <object type="Bridge" gp_index="6" bridge_type="0-1" depth="0" bridge_pci="0000:[00-0f]">
    <object type="PCIDev" gp_index="7" pci_busid="0000:00:06.0" pci_type="0200 [1d0f:efa2] [1d0f:efa2] 00" pci_link_speed="0.000000"/>
   </object>
  </object>
  <object type="Package" os_index="1" cpuset="0x0000000c" complete_cpuset="0x0000000c" nodeset="0x00000002" complete_nodeset="0x00000002" gp_index="8">
   <object type="NUMANode" os_index="1" cpuset="0x0000000c" complete_cpuset="0x0000000c" nodeset="0x00000002" complete_nodeset="0x00000002" gp_index="9" local_memory="1073741824"/>
   <object type="PU" os_index="2" cpuset="0x00000004" complete_cpuset="0x00000004" nodeset="0x00000002" complete_nodeset="0x00000002" gp_index="10"/>
   <object type="PU" os_index="3" cpuset="0x00000008" complete_cpuset="0x00000008" nodeset="0x00000002" complete_nodeset="0x00000002" gp_index="11"/>
   <object type="Bridge" gp_index="12" bridge_type="0-1" depth="0" bridge_pci="0000:[10-1f]">
    <object type="Bridge" gp_index="13" bridge_type="1-1" depth="1" bridge_pci="0000:[11-12]" pci_busid="0000:10:00.0" pci_type="0604 [1d0f:0200] [0000:0000] 00" pci_link_speed="0.000000">
     <object type="PCIDev" gp_index="14" pci_busid="0000:11:00.0" pci_type="0200 [1d0f:efa2] [1d0f:efa2] 00" pci_link_speed="0.000000"/>
    </object>
   </object>
  </object>
  <object type="Bridge" gp_index="15" bridge_type="0-1" depth="0" bridge_pci="0001:[00-0f]">
   <object type="PCIDev" gp_index="16" pci_busid="0001:00:06.0" pci_type="0200 [1d0f:efa2] [1d0f:efa2] 00" pci_link_speed="0.000000"/>
  </object>
 </object>
</topology>
)";

#ifdef HAVE_HWLOC
class topology {
public:
    explicit topology(const char *xml, const char *synthetic)
    {
        hwloc_topology_init(&topology_);
        hwloc_topology_set_type_filter(topology_, HWLOC_OBJ_PCI_DEVICE, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
        const int set = xml != nullptr ? hwloc_topology_set_xmlbuffer(topology_, xml, static_cast<int>(std::strlen(xml)) + 1)
                                       : hwloc_topology_set_synthetic(topology_, synthetic);
        EXPECT_EQ(0, set);
        EXPECT_EQ(0, hwloc_topology_load(topology_));
    }
    ~topology() { hwloc_topology_destroy(topology_); }
    hwloc_topology_t get() const { return topology_; }

private:
    hwloc_topology_t topology_ = nullptr;
};
#endif

/// A folder like that of a verbs device in sysfs, with a device link that a PCI device has, or another.
class made_up_sysfs {
public:
    explicit made_up_sysfs(const std::string &device, const char *numa_node)
    {
        EXPECT_NE(nullptr, mkdtemp(root_));
        mkdir((root() + "/" + device).c_str(), 0700);
        mkdir((root() + "/efa_9").c_str(), 0700);
        EXPECT_EQ(0, symlink(("../" + device).c_str(), (root() + "/efa_9/device").c_str()));
        if (numa_node != nullptr) {
            std::ofstream(root() + "/" + device + "/numa_node") << numa_node << "\n";
        }
    }
    ~made_up_sysfs()
    {
        const std::string command = "rm -rf '" + root() + "'";
        EXPECT_EQ(0, std::system(command.c_str()));
    }
    std::string path() const { return root() + "/efa_9"; }
    std::string root() const { return root_; }

private:
    char root_[40] = "/tmp/test_locality.XXXXXX";
};

} // namespace

TEST(srd_locality, lists_of_nodes_are_counted_and_searched)
{
    EXPECT_EQ(1u, locality_count_nodes("0"));
    EXPECT_EQ(1u, locality_count_nodes("0\n"));
    EXPECT_EQ(2u, locality_count_nodes("0-1\n"));
    EXPECT_EQ(4u, locality_count_nodes("0,2-3,7"));
    for (const char *malformed : {"", "\n", "a", "1-", "-1", "3-1", "0,,1", "0;1", "99999999999", "0-1,"}) {
        EXPECT_EQ(0u, locality_count_nodes(malformed)) << malformed;
        EXPECT_FALSE(locality_has_node(malformed, 0)) << malformed;
    }
    EXPECT_TRUE(locality_has_node("0,2-3", 3));
    EXPECT_FALSE(locality_has_node("0,2-3", 1));
    EXPECT_FALSE(locality_has_node("0,2-3", -1));
}

TEST(srd_locality, node_in_a_machine_of_two_is_that_of_the_bridge_above)
{
#ifdef HAVE_HWLOC
    if (!locality_has_hwloc()) {
        GTEST_SKIP() << "libhwloc.so.15 is not there";
    }
    const topology machine(two_nodes, nullptr);
    EXPECT_EQ(0, locality_node_in(machine.get(), "0000:00:06.0"));
    EXPECT_EQ(1, locality_node_in(machine.get(), "0000:11:00.0"));
    EXPECT_EQ(-1, locality_node_in(machine.get(), "0001:00:06.0")) << "of the whole machine: no node is nearer";
    EXPECT_EQ(-1, locality_node_in(machine.get(), "0000:12:00.0")) << "not there";
    EXPECT_EQ(-1, locality_node_in(machine.get(), ""));
    EXPECT_EQ(-1, locality_node_in(machine.get(), "efa_0"));
#else
    GTEST_SKIP() << "built without hwloc";
#endif
}

TEST(srd_locality, node_in_a_machine_without_devices_is_unknown)
{
#ifdef HAVE_HWLOC
    if (!locality_has_hwloc()) {
        GTEST_SKIP() << "libhwloc.so.15 is not there";
    }
    const topology machine(nullptr, "pack:2 [numa] core:2 pu:1");
    EXPECT_EQ(2, hwloc_get_nbobjs_by_type(machine.get(), HWLOC_OBJ_NUMANODE));
    EXPECT_EQ(-1, locality_node_in(machine.get(), "0000:00:06.0"));
#else
    GTEST_SKIP() << "built without hwloc";
#endif
}

// The list of devices is read once in a process, so that this is the only case that asks for a device through it.
TEST(srd_locality, device_is_found_through_the_administrators_topology_before_sysfs)
{
    char file[] = "/tmp/test_locality.xml.XXXXXX";
    const int fd = mkstemp(file);
    ASSERT_LE(0, fd);
    close(fd);
    std::ofstream(file) << two_nodes;
    {
        const variable told("HWLOC_XMLFILE", file);
        const auto begin = std::chrono::steady_clock::now();
        const locality first = locality_of_device("0000:11:00.0", 0, numa_policy::preferred);
        const auto once = std::chrono::steady_clock::now() - begin;
        const locality again = locality_of_device("0000:00:06.0", -1, numa_policy::preferred);
        const auto twice = std::chrono::steady_clock::now() - begin - once;
        RecordProperty("first_us", static_cast<int>(std::chrono::duration_cast<std::chrono::microseconds>(once).count()));
        RecordProperty("again_us", static_cast<int>(std::chrono::duration_cast<std::chrono::microseconds>(twice).count()));
        if (locality_has_hwloc()) {
            EXPECT_EQ(1, first.node) << "sysfs said 0, the administrator's file says 1";
            EXPECT_STREQ("hwloc", first.source);
            EXPECT_EQ(0, again.node);
        } else {
            EXPECT_EQ(0, first.node);
            EXPECT_STREQ("sysfs", first.source);
        }
        const locality no_pci = locality_of_device("", 0, numa_policy::preferred);
        EXPECT_EQ(0, no_pci.node) << "without a PCI address sysfs decides";
        EXPECT_STREQ("sysfs", no_pci.source);
    }
    unlink(file);
}

TEST(srd_locality, node_that_the_machine_lacks_is_not_used)
{
    for (numa_policy wanted : {numa_policy::preferred, numa_policy::bind}) {
        EXPECT_EQ(numa_policy::none, locality_of_device("", 900, wanted).policy);
    }
    EXPECT_EQ(numa_policy::none, locality_of_device("", 0, numa_policy::none).policy);
}

TEST(srd_locality, place_sets_the_policy_of_untouched_pages)
{
    const pages memory(1 << 20);
    unsigned long nodes = 0;
    if (memory.policy(&nodes) < 0) {
        GTEST_SKIP() << "the kernel has no NUMA";
    }
    EXPECT_EQ(mpol_default, memory.policy(&nodes));
    ASSERT_TRUE(locality_place(at(0, numa_policy::preferred), memory.address(), 1 << 20));
    EXPECT_EQ(mpol_preferred, memory.policy(&nodes));
    EXPECT_EQ(1ul, nodes);
    ASSERT_TRUE(locality_place(at(0, numa_policy::bind), memory.address(), 1 << 20));
    EXPECT_EQ(mpol_bind, memory.policy(&nodes));
    std::memset(memory.address(), 1, 1 << 20); // it can be had there
}

TEST(srd_locality, place_without_a_policy_node_or_whole_page_does_nothing)
{
    const pages memory(1 << 16);
    unsigned long nodes = 0;
    EXPECT_FALSE(locality_place(at(0, numa_policy::none), memory.address(), 1 << 16));
    EXPECT_FALSE(locality_place(at(-1, numa_policy::preferred), memory.address(), 1 << 16));
    EXPECT_FALSE(locality_place(at(100000, numa_policy::preferred), memory.address(), 1 << 16));
    EXPECT_FALSE(locality_place(at(900, numa_policy::preferred), memory.address(), 1 << 16)) << "a node that is not there";
    EXPECT_FALSE(locality_place(at(0, numa_policy::preferred), static_cast<char *>(memory.address()) + 8, 4000));
    EXPECT_GE(mpol_default, memory.policy(&nodes));
}

TEST(srd_locality, device_of_sysfs_has_address_system_device_and_node)
{
    const made_up_sysfs sysfs("0000:7b:06.0", "1");
    uct_srd_device_attr_t attr = {};
    std::strcpy(attr.ibdev_name, "efa_9");
    uct_srd_device_read_locality(sysfs.path().c_str(), &attr);
    EXPECT_STREQ("0000:7b:06.0", attr.bdf);
    EXPECT_EQ(1, attr.numa_node);
    ASSERT_NE(UCS_SYS_DEVICE_ID_UNKNOWN, attr.sys_device);
    char name[UCS_SYS_BDF_NAME_MAX];
    EXPECT_STREQ("0000:7b:06.0", ucs_topo_sys_device_bdf_name(attr.sys_device, name, sizeof(name)));
    EXPECT_STREQ("efa_9", ucs_topo_sys_device_get_name(attr.sys_device));

    // UCX itself works out distances, from the real sysfs: of a device that is not there it knows only the one to itself.
    ucs_sys_dev_distance_t distance = {};
    EXPECT_EQ(UCS_OK, ucs_topo_get_distance(attr.sys_device, attr.sys_device, &distance));
    EXPECT_GT(distance.bandwidth, 0);

    const made_up_sysfs other("0000:7b:07.0", nullptr);
    uct_srd_device_attr_t second = {};
    uct_srd_device_read_locality(other.path().c_str(), &second);
    EXPECT_EQ(-1, second.numa_node);
    EXPECT_NE(attr.sys_device, second.sys_device);
}

TEST(srd_locality, device_without_a_pci_parent_has_no_system_device)
{
    const made_up_sysfs sysfs("softefa0", "0");
    uct_srd_device_attr_t attr = {};
    uct_srd_device_read_locality(sysfs.path().c_str(), &attr);
    EXPECT_STREQ("", attr.bdf);
    EXPECT_EQ(UCS_SYS_DEVICE_ID_UNKNOWN, attr.sys_device);
    EXPECT_EQ(0, attr.numa_node);
    uct_srd_device_read_locality("/does/not/exist", &attr);
    EXPECT_EQ(-1, attr.numa_node);
}
