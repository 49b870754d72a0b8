/* See srd_report.h. */
#include "uct/srd/srd_report.h"
#include "uct/srd/srd_lanes.h"

#include <arpa/inet.h>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <unistd.h>

namespace srd {

namespace {

/// A file below state/: its name, and how its number is read. REP-1
struct state_file {
    const char *name;
    std::uint64_t (*read)(const iface *f);
};

constexpr state_file state_files[] = {
    {"qpn", [](const iface *f) -> std::uint64_t { return f->tx.qp->qp_num; }},
    {"peers", [](const iface *f) -> std::uint64_t { return f->peers.live(); }},
    {"address_handles", [](const iface *f) -> std::uint64_t { return f->ahs.count(); }},
    {"window", [](const iface *f) -> std::uint64_t { return f->window; }},
    {"tx_slots_free", [](const iface *f) -> std::uint64_t { return f->tx.sq_free; }},
    {"tx_outstanding", [](const iface *f) -> std::uint64_t { return f->tx.outstanding; }},
    {"tx_buffers", [](const iface *f) -> std::uint64_t { return f->tx_bufs.total(); }},
    {"tx_memory", [](const iface *f) -> std::uint64_t { return f->tx_bufs.total() * f->tx_bufs.element_size(); }},
    {"control_slots_free", [](const iface *f) -> std::uint64_t { return f->tx.control_free; }},
    {"rx_queue_len", [](const iface *f) -> std::uint64_t { return f->rx.queue_len; }},
    {"rx_target", [](const iface *f) -> std::uint64_t { return f->rx.target; }},
    {"rx_active_senders", [](const iface *f) -> std::uint64_t { return f->rx.active; }},
    {"rx_granted", [](const iface *f) -> std::uint64_t { return f->rx.granted; }},
    {"rx_posted", [](const iface *f) -> std::uint64_t { return f->rx.posted; }},
    {"rx_held", [](const iface *f) -> std::uint64_t { return f->rx.held; }},
    {"rx_buffers", [](const iface *f) -> std::uint64_t { return f->rx_bufs.total(); }},
    {"rx_memory", [](const iface *f) -> std::uint64_t { return f->rx_bufs.total() * f->rx_bufs.element_size(); }},
};

extern "C" void uct_srd_vfs_show_state(void *object, ucs_string_buffer_t *text, void *file, uint64_t) noexcept
{
    ucs_string_buffer_appendf(text, "%llu\n",
                              static_cast<unsigned long long>(static_cast<const state_file *>(file)->read(static_cast<iface *>(object))));
}

extern "C" void uct_srd_vfs_show_numa(void *object, ucs_string_buffer_t *text, void *, uint64_t) noexcept
{
    const locality &where = static_cast<const iface *>(object)->md->locality;
    ucs_string_buffer_appendf(text, "%d %s %s\n", where.node,
                              where.policy == numa_policy::none ? "none" : where.policy == numa_policy::bind ? "bind" : "preferred",
                              where.source);
}

extern "C" void uct_srd_vfs_show_gid(void *object, ucs_string_buffer_t *text, void *, uint64_t) noexcept
{
    char gid[INET6_ADDRSTRLEN] = "";
    inet_ntop(AF_INET6, static_cast<const iface *>(object)->gid.data(), gid, sizeof(gid));
    ucs_string_buffer_appendf(text, "%s\n", gid);
}

lane_facts facts_of(iface *f) noexcept
{
    uct_iface_attr_t attr  = {};
    uct_md_attr_t    md    = {};
    const std::uint32_t caps = f->md->attr.caps;
    (void)f->super.super.ops.iface_query(&f->super.super, &attr);
    (void)uct_md_query(&f->md->super, &md);
    return {attr.cap.flags, attr.cap.event_flags, md.cap.flags, (caps & UCT_SRD_CAP_RDMA_READ) != 0,
            (caps & UCT_SRD_CAP_RDMA_WRITE) != 0};
}

/// `ucx-srd run --require` asks every process of a job how much it carried.
void leave_bytes(const iface *f) noexcept
{
    const char *directory = std::getenv("UCX_SRD_REQUIRE_DIR");
    if (directory == nullptr || directory[0] == '\0') {
        return;
    }
    static unsigned number = 0;
    char path[512];
    std::snprintf(path, sizeof(path), "%s/%d.%u", directory, static_cast<int>(getpid()),
                  __atomic_fetch_add(&number, 1, __ATOMIC_RELAXED));
    std::FILE *file = std::fopen(path, "we");
    if (file == nullptr) {
        ucs_warn("srd: cannot write %s: errno %d", path, errno);
        return;
    }
    std::fprintf(file, "bytes %llu\n",
                 static_cast<unsigned long long>(f->counters.get(counter::tx_bytes) + f->counters.get(counter::rx_bytes) +
                                                 f->counters.get(counter::rma_bytes)));
    std::fclose(file);
}

} // namespace

void report_opened(iface *f) noexcept
{
    if (!ucs_log_is_enabled(UCS_LOG_LEVEL_INFO)) {
        return;
    }
    char lanes[1024];
    lane_summary(facts_of(f), lanes, sizeof(lanes));
    ucs_info("srd: %s QPN %u: %s", f->md->attr.ibdev_name, f->tx.qp->qp_num, lanes);
}

void report_vfs(iface *f) noexcept
{
    for (unsigned i = 0; i < static_cast<unsigned>(counter::count_); ++i) {
        ucs_vfs_obj_add_ro_file(f, ucs_vfs_show_primitive,
                                const_cast<std::uint64_t *>(f->counters.cell(static_cast<counter>(i))), UCS_VFS_TYPE_ULONG,
                                "counters/%s", counter_names[i]);
    }
    for (const state_file &file : state_files) {
        ucs_vfs_obj_add_ro_file(f, uct_srd_vfs_show_state, const_cast<state_file *>(&file), 0, "state/%s", file.name);
    }
    ucs_vfs_obj_add_ro_file(f, uct_srd_vfs_show_gid, nullptr, 0, "state/gid");
    ucs_vfs_obj_add_ro_file(f, uct_srd_vfs_show_numa, nullptr, 0, "state/numa");
}

void report_closed(const iface *f) noexcept
{
    if (f->print_stats) {
        char line[1024];
        int used = 0;
        for (unsigned i = 0; i < static_cast<unsigned>(counter::count_); ++i) {
            const auto value = f->counters.get(static_cast<counter>(i));
            if (value != 0 && used < static_cast<int>(sizeof(line)) - 64) {
                used += std::snprintf(line + used, sizeof(line) - static_cast<std::size_t>(used), " %s=%llu",
                                      counter_names[i], static_cast<unsigned long long>(value));
            }
        }
        ucs_info("srd: %s QPN %u closed:%s", f->md->attr.ibdev_name, f->tx.qp->qp_num, used > 0 ? line : " nothing sent or received");
    }
    leave_bytes(f);
}

} // namespace srd
