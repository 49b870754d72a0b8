/* See sysfs_counters.h. */
#include "softefa/preload/sysfs_counters.h"

#include "softefa/dev/publish.h"
#include "softefa/preload/registry.h"
#include "softefa/settings.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::preload {
namespace {

using counters = dev::device_counters;

struct mapping {
    const char *file;
    std::uint64_t (*value)(const counters &);
};

std::uint64_t drops(const counters &c)
{
    return c.drop_no_qp + c.drop_qp_state + c.drop_qkey + c.drop_ud_no_recv + c.drop_ud_length + c.drop_recv_length + c.drop_recv_lkey +
           c.drop_recv_malformed + c.drop_rkey + c.drop_no_ah + c.drop_feature + c.drop_fault + c.drop_stale + c.drop_protocol;
}

// What is not here stays 0: no time-outs, no retransmission and no keep-alive exist between processes of one host.
constexpr mapping port_files[] = {
    {"tx_bytes", [](const counters &c) { return c.tx_packet_bytes; }},
    {"tx_pkts", [](const counters &c) { return c.tx_packets; }},
    {"rx_bytes", [](const counters &c) { return c.rx_packet_bytes; }},
    {"rx_pkts", [](const counters &c) { return c.rx_packets; }},
    {"rx_drops", drops},
    {"send_bytes", [](const counters &c) { return c.tx_bytes; }},
    {"send_wrs", [](const counters &c) { return c.tx_messages; }},
    {"recv_bytes", [](const counters &c) { return c.rx_bytes; }},
    {"recv_wrs", [](const counters &c) { return c.rx_messages; }},
    {"rdma_read_wrs", [](const counters &c) { return c.read_ops + c.read_errors; }},
    {"rdma_read_bytes", [](const counters &c) { return c.read_bytes; }},
    {"rdma_read_wr_err", [](const counters &c) { return c.read_errors; }},
    {"rdma_read_resp_bytes", [](const counters &c) { return c.served_read_bytes; }},
    {"rdma_write_wrs", [](const counters &c) { return c.write_ops + c.write_errors; }},
    {"rdma_write_bytes", [](const counters &c) { return c.write_bytes; }},
    {"rdma_write_wr_err", [](const counters &c) { return c.write_errors; }},
    {"rdma_write_recv_bytes", [](const counters &c) { return c.served_write_bytes; }},
    {"unresponsive_remote_events", [](const counters &c) { return c.unresponsive; }},
};
constexpr mapping device_files[] = {
    {"submitted_cmds", [](const counters &c) { return c.commands; }},
    {"completed_cmds", [](const counters &c) { return c.commands; }},
    {"cmds_err", [](const counters &c) { return c.command_errors; }},
    {"alloc_ucontext_err", [](const counters &c) { return c.context_errors; }},
    {"alloc_pd_err", [](const counters &c) { return c.pd_errors; }},
    {"reg_mr_err", [](const counters &c) { return c.mr_errors; }},
    {"create_ah_err", [](const counters &c) { return c.ah_errors; }},
    {"create_cq_err", [](const counters &c) { return c.cq_errors; }},
    {"create_qp_err", [](const counters &c) { return c.qp_errors; }},
};

constexpr int width = 20; ///< digits and blanks, before the newline

void add_to_file(int folder_fd, const char *name, std::uint64_t more)
{
    const int fd = openat(folder_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return;
    }
    char               text[width + 2] = "";
    unsigned long long value = 0;
    if (pread(fd, text, width + 1, 0) == width + 1 && text[width] == '\n' && sscanf(text, "%20llu", &value) == 1) {
        snprintf(text, sizeof(text), "%-*llu\n", width, value + more);
        (void)!pwrite(fd, text, width + 1, 0);
    }
    syscall(SYS_close, fd);
}

template <std::size_t N> bool any_changed(const mapping (&files)[N], const counters &before, const counters &now)
{
    bool changed = false;
    for (const mapping &m : files) {
        changed |= m.value(now) != m.value(before);
    }
    return changed;
}

template <std::size_t N> void add_all(int device_fd, const char *folder, const mapping (&files)[N], const counters &before, const counters &now)
{
    for (const mapping &m : files) {
        if (m.value(now) > m.value(before)) { // SYC-1
            char name[64];
            snprintf(name, sizeof(name), "%s/%s", folder, m.file);
            add_to_file(device_fd, name, m.value(now) - m.value(before));
        }
    }
}

/// By the helper thread, or by the thread that closes the last context.
bool show(unsigned index, const counters &live) noexcept
{
    static counters shown[32];
    static pid_t    process = 0; // a forked child counts from 0
    const settings *s       = settings_get(nullptr);
    char            tree[128];
    if (s == nullptr || index >= 32 || !fabric::raw_may_write_to(64)) {
        return true;
    }
    if (process != getpid()) {
        memset(shown, 0, sizeof(shown));
        process = getpid();
    }
    counters now;
    memcpy(&now, &live, sizeof(now)); // one state, for the files and for what is remembered
    registry_sysfs_path(*s, tree, sizeof(tree));
    const bool added = sysfs_counters_add(tree, index, shown[index], now);
    if (added) {
        shown[index] = now;
    }
    return added || errno != EWOULDBLOCK;
}

} // namespace

void sysfs_counters_start() noexcept { dev::publish_to(show); }

bool sysfs_counters_add(const char *tree, unsigned index, const counters &before, const counters &now) noexcept
{
    if (!any_changed(port_files, before, now) && !any_changed(device_files, before, now)) {
        return true;
    }
    char folder[320];
    snprintf(folder, sizeof(folder), "%s/class/infiniband/efa_%u/", tree, index); // a link: the slash asks for the folder behind it
    const int  fd     = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (locked) {
        add_all(fd, "ports/1/hw_counters", port_files, before, now);
        add_all(fd, "hw_counters", device_files, before, now);
        flock(fd, LOCK_UN);
    }
    const int why = errno;
    if (fd >= 0) {
        syscall(SYS_close, fd);
    }
    errno = why;
    return locked;
}

} // namespace softefa::preload
