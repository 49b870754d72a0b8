/* See srd_device.h. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include "uct/srd/srd_device.h"

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <unistd.h>

namespace {

constexpr uint32_t amazon_vendor_id = 0x1d0f;

// Later bits of efadv's device_caps, which older headers do not name; the values are libefa's ABI.
constexpr uint32_t efadv_caps_rdma_write       = 1u << 3;
constexpr uint32_t efadv_caps_unsolicited_recv = 1u << 4;

struct free_device_list {
    void operator()(struct ibv_device **list) const noexcept { ibv_free_device_list(list); }
};
using device_list = std::unique_ptr<struct ibv_device *[], free_device_list>;

struct close_device {
    void operator()(struct ibv_context *context) const noexcept { ibv_close_device(context); }
};
using open_device = std::unique_ptr<struct ibv_context, close_device>;

/// Reads a small sysfs file below the device's directory; false if it is not there. The newline is cut.
bool read_device_file(const char *ibdev_path, const char *name, char *text, size_t text_size) noexcept
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/device/%s", ibdev_path, name) >= static_cast<int>(sizeof(path))) {
        return false;
    }
    FILE *file = fopen(path, "re");
    if (file == nullptr) {
        return false;
    }
    const size_t size = fread(text, 1, text_size - 1, file);
    fclose(file);
    text[size] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return size > 0;
}

/// False only if sysfs says plainly that another vendor made it: devices of others are not even opened.
bool may_be_efa(const struct ibv_device *device) noexcept
{
    char text[32];
    return !read_device_file(device->ibdev_path, "vendor", text, sizeof(text)) ||
           strtoul(text, nullptr, 16) == amazon_vendor_id;
}

/// "0000:00:06.0" from the link <ibdev>/device; empty if the device is not on PCI.
void read_bdf(const char *ibdev_path, char bdf_p[16]) noexcept
{
    char path[PATH_MAX], resolved[PATH_MAX];
    unsigned domain, bus, slot, function;
    bdf_p[0] = '\0';
    if (snprintf(path, sizeof(path), "%s/device", ibdev_path) >= static_cast<int>(sizeof(path)) ||
        realpath(path, resolved) == nullptr) {
        return;
    }
    const char *name = strrchr(resolved, '/');
    if (name != nullptr && sscanf(name, "/%4x:%2x:%2x.%1x", &domain, &bus, &slot, &function) == 4) {
        snprintf(bdf_p, 16, "%04x:%02x:%02x.%x", domain & 0xffff, bus & 0xff, slot & 0xff, function & 0xf);
    }
}

uint32_t translate_caps(uint32_t efadv_caps) noexcept
{
    constexpr struct { uint32_t efadv, ours; } pairs[] = {
        {EFADV_DEVICE_ATTR_CAPS_RDMA_READ, UCT_SRD_CAP_RDMA_READ},
        {EFADV_DEVICE_ATTR_CAPS_RNR_RETRY, UCT_SRD_CAP_RNR_RETRY},
        {EFADV_DEVICE_ATTR_CAPS_CQ_WITH_SGID, UCT_SRD_CAP_CQ_WITH_SGID},
        {efadv_caps_rdma_write, UCT_SRD_CAP_RDMA_WRITE},
        {efadv_caps_unsolicited_recv, UCT_SRD_CAP_UNSOLICITED_RECV},
    };
    uint32_t caps = 0;
    for (const auto &pair : pairs) {
        if (efadv_caps & pair.efadv) {
            caps |= pair.ours;
        }
    }
    return caps;
}

/// Inline bytes of a work request of 128 bytes. Older headers have no name for it, and older libraries leave it 0.
uint32_t wide_inline_of([[maybe_unused]] const efadv_device_attr &attr) noexcept
{
#if HAVE_STRUCT_EFADV_DEVICE_ATTR_INLINE_BUF_SIZE_EX
    return attr.inline_buf_size_ex > attr.inline_buf_size ? attr.inline_buf_size_ex : 0;
#else
    return 0;
#endif
}

/// Fills all attributes; false, with the reason, if this is no EFA device that can carry traffic.
bool query_device(struct ibv_context *verbs, uct_srd_device_attr_t *attr_p, const char **reason_p) noexcept
{
    struct ibv_device_attr    device_attr = {};
    struct ibv_port_attr      port_attr   = {};
    struct efadv_device_attr  efa_attr    = {};

    if (ibv_query_device(verbs, &device_attr) != 0 || device_attr.vendor_id != amazon_vendor_id) {
        *reason_p = "is not made by Amazon";
        return false;
    }
    if (efadv_query_device(verbs, &efa_attr, sizeof(efa_attr)) != 0) {
        *reason_p = "does not answer efadv_query_device";
        return false;
    }
    if (ibv_query_port(verbs, UCT_SRD_PORT, &port_attr) != 0 || port_attr.state != IBV_PORT_ACTIVE) {
        *reason_p = "has no active port";
        return false;
    }
    if (ibv_query_gid(verbs, UCT_SRD_PORT, UCT_SRD_GID_INDEX, &attr_p->gid) != 0) {
        *reason_p = "has no GID";
        return false;
    }

    snprintf(attr_p->ibdev_name, sizeof(attr_p->ibdev_name), "%s", ibv_get_device_name(verbs->device));
    attr_p->vendor_part_id   = device_attr.vendor_part_id;
    attr_p->caps             = translate_caps(efa_attr.device_caps);
    attr_p->max_message_size = port_attr.max_msg_sz;
    attr_p->max_rdma_size    = attr_p->caps & (UCT_SRD_CAP_RDMA_READ | UCT_SRD_CAP_RDMA_WRITE) ?
                               efa_attr.max_rdma_size : 0;
    attr_p->inline_size      = efa_attr.inline_buf_size;
    attr_p->inline_size_wide = wide_inline_of(efa_attr);
    attr_p->max_sq_wr        = efa_attr.max_sq_wr;
    attr_p->max_rq_wr        = efa_attr.max_rq_wr;
    attr_p->max_cqe          = static_cast<uint32_t>(device_attr.max_cqe);
    attr_p->max_ah           = static_cast<uint32_t>(device_attr.max_ah);
    attr_p->max_mr           = static_cast<uint32_t>(device_attr.max_mr);
    attr_p->max_sq_sge       = efa_attr.max_sq_sge;
    attr_p->max_rq_sge       = efa_attr.max_rq_sge;
    attr_p->max_rdma_sge     = static_cast<uint16_t>(device_attr.max_sge_rd);
    attr_p->max_mr_size      = device_attr.max_mr_size;
    attr_p->link_bandwidth   = uct_srd_link_bandwidth(port_attr.active_width, port_attr.active_speed);
    uct_srd_device_read_locality(verbs->device->ibdev_path, attr_p);
    return true;
}

/// Opens one device of the list if it is EFA; empty otherwise, with the reason.
open_device try_open(struct ibv_device *device, uct_srd_device_attr_t *attr_p, const char **reason_p) noexcept
{
    if (!may_be_efa(device)) {
        *reason_p = "is not made by Amazon";
        return nullptr;
    }
    open_device context(ibv_open_device(device));
    if (!context) {
        *reason_p = "cannot be opened (is /dev/infiniband readable and writable?)";
        return nullptr;
    }
    *attr_p = {};
    if (!query_device(context.get(), attr_p, reason_p)) {
        return nullptr;
    }
    return context;
}

} // namespace

void uct_srd_device_read_locality(const char *ibdev_path, uct_srd_device_attr_t *attr_p) noexcept
{
    char text[32];
    read_bdf(ibdev_path, attr_p->bdf);
    attr_p->sys_device = UCS_SYS_DEVICE_ID_UNKNOWN;
    if (attr_p->bdf[0] != '\0' &&
        ucs_topo_find_device_by_bdf_name(attr_p->bdf, &attr_p->sys_device) != UCS_OK) {
        attr_p->sys_device = UCS_SYS_DEVICE_ID_UNKNOWN;
    }
    if (attr_p->sys_device != UCS_SYS_DEVICE_ID_UNKNOWN && attr_p->ibdev_name[0] != '\0') {
        uct_abi_name_sys_device(attr_p->sys_device, attr_p->ibdev_name); // what UCX prints where it names the device
    }
    attr_p->numa_node = read_device_file(ibdev_path, "numa_node", text, sizeof(text)) ? atoi(text) : -1;
}

void uct_srd_device_md_name(const char *ibdev_name, char md_name_p[UCT_MD_NAME_MAX]) noexcept
{
    const size_t size = strlen(ibdev_name);
    if (size < UCT_MD_NAME_MAX) {
        memcpy(md_name_p, ibdev_name, size + 1);
        return;
    }
    // FNV-1a of the whole name: two long names that share their first letters stay apart. DEV-2
    uint32_t checksum = 2166136261u;
    for (const char *c = ibdev_name; *c != '\0'; ++c) {
        checksum = (checksum ^ static_cast<uint8_t>(*c)) * 16777619u;
    }
    snprintf(md_name_p, UCT_MD_NAME_MAX, "%.6s~%08x", ibdev_name, checksum);
}

unsigned uct_srd_device_scan(void (*visit)(void *arg, const char *ibdev_name), void *arg, char *reason,
                             size_t reason_size) noexcept
{
    int device_count = 0;
    device_list list(ibv_get_device_list(&device_count));
    if (!list) {
        snprintf(reason, reason_size, errno == ENOSYS ? "the kernel has no RDMA support" : "verbs gives no device list: %s",
                 strerror(errno));
        return 0;
    }
    snprintf(reason, reason_size, "verbs lists no device");

    unsigned usable_count = 0;
    for (int i = 0; i < device_count; ++i) {
        uct_srd_device_attr_t attr;
        const char *why = "";
        if (try_open(list[i], &attr, &why)) {
            ++usable_count;
            visit(arg, attr.ibdev_name);
        } else {
            snprintf(reason, reason_size, "%s %s", ibv_get_device_name(list[i]), why);
        }
    }
    return usable_count;
}

ucs_status_t uct_srd_device_open(const char *md_name, struct ibv_context **verbs_p,
                                 uct_srd_device_attr_t *attr_p) noexcept
{
    int device_count = 0;
    device_list list(ibv_get_device_list(&device_count));
    for (int i = 0; list && i < device_count; ++i) {
        char        candidate[UCT_MD_NAME_MAX];
        const char *why = "";
        uct_srd_device_md_name(ibv_get_device_name(list[i]), candidate);
        if (strcmp(candidate, md_name) != 0) {
            continue;
        }
        open_device context = try_open(list[i], attr_p, &why);
        if (!context) {
            ucs_debug("%s %s", ibv_get_device_name(list[i]), why);
            return UCS_ERR_NO_DEVICE;
        }
        *verbs_p = context.release();
        return UCS_OK;
    }
    return UCS_ERR_NO_DEVICE;
}

bool uct_srd_device_local_cpus(const struct ibv_context *verbs, ucs_cpu_set_t *cpus_p) noexcept
{
    char text[1024];
    if (read_device_file(verbs->device->ibdev_path, "local_cpus", text, sizeof(text)) && uct_srd_parse_cpu_mask(text, cpus_p)) {
        return true;
    }
    memset(cpus_p, 0xff, sizeof(*cpus_p));
    return false;
}

bool uct_srd_parse_cpu_mask(const char *text, ucs_cpu_set_t *cpus_p) noexcept
{
    // Groups of at most 8 hex digits, most significant first, separated by commas: walk from the end.
    memset(cpus_p, 0, sizeof(*cpus_p));
    const size_t size = strlen(text);
    size_t bit = 0, group_digits = 0;
    bool   any = false;
    for (size_t i = size; i-- > 0;) {
        const char c = text[i];
        if (c == ',') {
            bit += (8 - group_digits) * 4;
            group_digits = 0;
            continue;
        }
        unsigned digit;
        if (c >= '0' && c <= '9') {
            digit = static_cast<unsigned>(c - '0');
        } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
            digit = static_cast<unsigned>((c | 0x20) - 'a') + 10;
        } else {
            return false;
        }
        if (++group_digits > 8) {
            return false;
        }
        for (unsigned b = 0; b < 4; ++b, ++bit) {
            if (digit >> b & 1) {
                if (bit >= UCS_CPU_SETSIZE) {
                    return false;
                }
                UCS_CPU_SET(static_cast<int>(bit), cpus_p);
                any = true;
            }
        }
    }
    return any;
}

double uct_srd_link_bandwidth(unsigned active_width, unsigned active_speed) noexcept
{
    unsigned lane_count;
    switch (active_width) {
    case 1: lane_count = 1; break;
    case 2: lane_count = 4; break;
    case 4: lane_count = 8; break;
    case 8: lane_count = 12; break;
    case 16: lane_count = 2; break;
    default: return 0;
    }
    double lane_gbps;
    switch (active_speed) {
    case 1: lane_gbps = 2.5; break;
    case 2: lane_gbps = 5; break;
    case 4:
    case 8: lane_gbps = 10; break;
    case 16: lane_gbps = 14; break;
    case 32: lane_gbps = 25; break;
    case 64: lane_gbps = 50; break;
    case 128: lane_gbps = 100; break;
    default: return 0;
    }
    return lane_count * lane_gbps * 1e9 / 8;
}
