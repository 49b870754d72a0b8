/* EFA devices: which there are, and what each says about itself.
 *
 * Owns: the search of verbs' device list for EFA, opening by name, the attributes that verbs, efadv and sysfs give.
 * Refuses to know: UCX's tables, protection domains, queue pairs.
 *
 * A device counts as EFA if its vendor is Amazon and efadv answers for it. sysfs is read below the path that libibverbs
 * itself reports, so SYSFS_PATH holds for us as it does for verbs.
 *
 * Invariants
 *   DEV-1: an attribute that cannot be had has the value its field names for "unknown"; it never fails the device.
 *   DEV-2: names given to UCX fit its 16 and 32 byte fields and are unique as long as the verbs names are.
 */
#pragma once

#include "uct/srd/ucx/uct_abi.h"

#include <infiniband/efadv.h>
#include <infiniband/verbs.h>

/// Port and GID index that every interface uses: EFA has one of each.
enum { UCT_SRD_PORT = 1, UCT_SRD_GID_INDEX = 0 };

/// What a device can do, in bits of our own: the headers of older rdma-core do not name the later ones.
enum : uint32_t {
    UCT_SRD_CAP_RDMA_READ        = 1u << 0, ///< one-sided read
    UCT_SRD_CAP_RNR_RETRY        = 1u << 1, ///< the retry count of "receiver not ready" can be set
    UCT_SRD_CAP_CQ_WITH_SGID     = 1u << 2, ///< a receive completion can name the sender's GID
    UCT_SRD_CAP_RDMA_WRITE       = 1u << 3, ///< one-sided write
    UCT_SRD_CAP_UNSOLICITED_RECV = 1u << 4, ///< write with immediate without a posted receive
};

/// What the device said when it was opened. Sizes in bytes, counts in entries.
typedef struct uct_srd_device_attr {
    char     ibdev_name[64];    ///< as verbs names it: efa_0, rdmap0s6
    char     bdf[16];           ///< PCI address "0000:00:06.0"; empty if sysfs does not say
    uint32_t vendor_part_id;    ///< 0xefa0 and up: the generation
    uint32_t caps;              ///< UCT_SRD_CAP_*; only what this rdma-core can also express
    size_t   max_message_size;  ///< of one SEND; the device's real figure (8928), not the MTU enum's
    size_t   max_rdma_size;     ///< of one RDMA read or write; 0 without either
    uint32_t inline_size;       ///< largest payload copied into the work request
    uint32_t inline_size_wide;  ///< the same of a work request of 128 bytes; 0: the device or this rdma-core has none
    uint32_t max_sq_wr;         ///< send queue depth
    uint32_t max_rq_wr;         ///< receive queue depth
    uint32_t max_cqe;           ///< completion queue depth
    uint32_t max_ah;            ///< address handles on the device
    uint32_t max_mr;            ///< registrations on the device
    uint16_t max_sq_sge;        ///< pieces of one SEND
    uint16_t max_rq_sge;        ///< pieces of one receive buffer
    uint16_t max_rdma_sge;      ///< local pieces of one RDMA read or write
    uint64_t max_mr_size;       ///< of one registration
    double   link_bandwidth;    ///< bytes per second, from the port's width and speed; 0 if it does not say
    int      numa_node;         ///< -1 if unknown
    ucs_sys_device_t sys_device; ///< UCX's name for the PCI address; UCS_SYS_DEVICE_ID_UNKNOWN if there is none
    union ibv_gid    gid;       ///< entry 0 of port 1: the address of the device
} uct_srd_device_attr_t;

/// Name of the memory domain of a device: its verbs name, or a shortened one with a checksum if that is too long for UCX.
void uct_srd_device_md_name(const char *ibdev_name, char md_name_p[UCT_MD_NAME_MAX]) noexcept;

/// Calls visit(arg, ibdev_name) for every usable EFA device in verbs' order. Returns their number; 'reason' says in one
/// line why there is none when it is zero.
unsigned uct_srd_device_scan(void (*visit)(void *arg, const char *ibdev_name), void *arg, char *reason,
                             size_t reason_size) noexcept;

/// Opens the device whose md name is 'md_name' and reads its attributes. UCS_ERR_NO_DEVICE if there is none.
ucs_status_t uct_srd_device_open(const char *md_name, struct ibv_context **verbs_p,
                                 uct_srd_device_attr_t *attr_p) noexcept;

/// CPUs near the device; false, and all CPUs, if sysfs does not say.
bool uct_srd_device_local_cpus(const struct ibv_context *verbs, ucs_cpu_set_t *cpus_p) noexcept;

/// PCI address, UCX's system device and NUMA node, from the folder of a verbs device in sysfs; names the system device.
void uct_srd_device_read_locality(const char *ibdev_path, uct_srd_device_attr_t *attr_p) noexcept;

/// Pure helpers, tested apart.
bool   uct_srd_parse_cpu_mask(const char *text, ucs_cpu_set_t *cpus_p) noexcept;
double uct_srd_link_bandwidth(unsigned active_width, unsigned active_speed) noexcept;
