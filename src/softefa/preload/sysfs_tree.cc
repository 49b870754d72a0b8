/* See sysfs_tree.h.
 *
 * Algorithm: one function walks the content and hands each entry to a visitor; the builder creates it, the checker compares
 * it. So the two cannot disagree.
 * Counters are text of fixed width, written in place by whoever counts; the checker looks at their size only.
 */
#include "softefa/preload/sysfs_tree.h"

#include "softefa/dev/device.h"
#include "softefa/fabric/private_path.h"
#include "softefa/fabric/segment.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <iterator>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

namespace softefa::preload {
namespace {

constexpr unsigned    major_number   = 231; ///< of the uverbs devices of Linux
constexpr unsigned    minor_base     = 192;
constexpr const char *counter_text   = "0                   \n";
constexpr const char *port_counters[] = {
    "tx_bytes", "tx_pkts", "rx_bytes", "rx_pkts", "rx_drops", "send_bytes", "send_wrs", "recv_bytes", "recv_wrs",
    "rdma_read_wrs", "rdma_read_bytes", "rdma_read_wr_err", "rdma_read_resp_bytes", "rdma_write_wrs", "rdma_write_bytes",
    "rdma_write_wr_err", "rdma_write_recv_bytes", "retrans_bytes", "retrans_pkts", "retrans_timeout_events",
    "unresponsive_remote_events", "impaired_remote_conn_events",
};
constexpr const char *device_counters[] = {
    "submitted_cmds", "completed_cmds", "cmds_err", "no_completion_cmds", "keep_alive_rcvd", "alloc_pd_err",
    "create_qp_err", "create_cq_err", "reg_mr_err", "alloc_ucontext_err", "create_ah_err", "mmap_err",
};

enum class entry_kind { folder, file, counter, link };

/// What happens to each entry. False stops the walk.
class visitor {
public:
    visitor(int root) : root_(root) {}
    virtual bool entry(entry_kind kind, const char *path, const char *content) = 0;

protected:
    ~visitor() = default;
    int root_;
};

class builder final : public visitor {
public:
    using visitor::visitor;
    bool entry(entry_kind kind, const char *path, const char *content) override
    {
        switch (kind) {
        case entry_kind::folder: return mkdirat(root_, path, 0755) == 0 ? fabric::permit(root_, path, 0755) : errno == EEXIST;
        case entry_kind::link: return symlinkat(content, root_, path) == 0;
        case entry_kind::file: return write_file(path, content, 0444);
        case entry_kind::counter: return write_file(path, content, 0644);
        }
        return false;
    }

private:
    bool write_file(const char *path, const char *content, mode_t mode)
    {
        const int fd = openat(root_, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd < 0) {
            return false;
        }
        const auto size = static_cast<ssize_t>(strlen(content));
        const bool ok   = fchmod(fd, mode) == 0 && write(fd, content, static_cast<std::size_t>(size)) == size;
        syscall(SYS_close, fd);
        return ok;
    }
};

class checker final : public visitor {
public:
    using visitor::visitor;
    bool entry(entry_kind kind, const char *path, const char *content) override
    {
        char        found[512];
        struct stat st;
        switch (kind) {
        case entry_kind::folder: return fstatat(root_, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
        case entry_kind::counter:
            return fstatat(root_, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
                   st.st_size == static_cast<off_t>(strlen(content));
        case entry_kind::link: return same(content, found, readlinkat(root_, path, found, sizeof(found)));
        case entry_kind::file: break;
        }
        const int fd = openat(root_, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0) {
            return false;
        }
        const ssize_t size = read(fd, found, sizeof(found));
        syscall(SYS_close, fd);
        return same(content, found, size);
    }

private:
    static bool same(const char *content, const char *found, ssize_t size)
    {
        return size == static_cast<ssize_t>(strlen(content)) && memcmp(content, found, static_cast<std::size_t>(size)) == 0;
    }
};

/// Adds one path after the other below a common start.
class walk {
public:
    walk(visitor &v) : visitor_(v) {}

    /// The start of the following paths, without a slash at the end; "" = root.
    __attribute__((format(printf, 2, 3))) void at(const char *format, ...)
    {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(base_, sizeof(base_), format, arguments);
        va_end(arguments);
    }
    void folder(const char *name) { add(entry_kind::folder, name, ""); }
    void counter(const char *name) { add(entry_kind::counter, name, counter_text); }
    __attribute__((format(printf, 3, 4))) void file(const char *name, const char *format, ...)
    {
        va_list arguments;
        va_start(arguments, format);
        add_formatted(entry_kind::file, name, format, arguments);
        va_end(arguments);
    }
    __attribute__((format(printf, 3, 4))) void link(const char *name, const char *format, ...)
    {
        va_list arguments;
        va_start(arguments, format);
        add_formatted(entry_kind::link, name, format, arguments);
        va_end(arguments);
    }
    bool ok() const { return ok_; }

private:
    void add_formatted(entry_kind kind, const char *name, const char *format, va_list arguments)
    {
        char content[640];
        vsnprintf(content, sizeof(content), format, arguments);
        add(kind, name, content);
    }
    void add(entry_kind kind, const char *name, const char *content)
    {
        char path[320];
        snprintf(path, sizeof(path), "%s%s%s", base_, base_[0] != '\0' ? "/" : "", name);
        ok_ = ok_ && visitor_.entry(kind, path, content);
    }

    visitor &visitor_;
    char     base_[200] = "";
    bool     ok_        = true;
};

void visit_counters(walk &w, const char *const *names, std::size_t count)
{
    w.folder("hw_counters");
    for (std::size_t i = 0; i < count; ++i) {
        char path[64];
        snprintf(path, sizeof(path), "hw_counters/%s", names[i]);
        w.counter(path);
    }
    w.file("hw_counters/lifespan", "10\n");
}

void visit_ibdev(walk &w, const char *pci, const char *address, unsigned index)
{
    const dev::gid gid = dev::device_gid(index);
    w.at("%s/infiniband", pci);
    w.folder("");
    w.at("%s/infiniband/efa_%u", pci, index);
    w.folder("");
    w.file("node_type", "7: unspecified\n");
    w.file("node_guid", "0000:0000:0000:0000\n");
    w.file("sys_image_guid", "0000:0000:0000:0000\n");
    w.file("node_desc", "Soft EFA\n");
    w.file("fw_ver", "0.0.0.0\n");
    w.link("device", "../../../%s", address);
    visit_counters(w, device_counters, std::size(device_counters));
    w.folder("ports");
    w.folder("ports/1");
    w.at("%s/infiniband/efa_%u/ports/1", pci, index);
    w.folder("pkeys");
    w.file("pkeys/0", "0xffff\n");
    w.folder("gids");
    w.file("gids/0", "%02x%02x:%02x%02x:%02x%02x:%02x%02x:%02x%02x:%02x%02x:%02x%02x:%02x%02x\n", gid[0], gid[1], gid[2],
           gid[3], gid[4], gid[5], gid[6], gid[7], gid[8], gid[9], gid[10], gid[11], gid[12], gid[13], gid[14], gid[15]);
    w.folder("gid_attrs");
    w.folder("gid_attrs/types");
    w.file("gid_attrs/types/0", "IB/RoCE v1\n");
    w.file("state", "4: ACTIVE\n");
    w.file("phys_state", "5: LinkUp\n");
    w.file("rate", "800 Gb/sec (8X NDR)\n");
    w.file("link_layer", "Unknown\n");
    w.file("lid", "0x0\n");
    w.file("sm_lid", "0x0\n");
    w.file("cap_mask", "0x00000000\n");
    visit_counters(w, port_counters, std::size(port_counters));
}

/// The first `count` processors as the kernel prints a mask: words of 32, the highest first.
const char *cpu_mask(char *text, std::size_t size, int count)
{
    std::size_t used = 0;
    text[0]          = '\0';
    for (int word = (count + 31) / 32; word-- > 0 && used < size;) {
        const int      bits   = count - word * 32 < 32 ? count - word * 32 : 32;
        const unsigned value  = bits < 32 ? (1u << bits) - 1 : ~0u;
        const int      length = snprintf(text + used, size - used, "%s%0*x", used != 0 ? "," : "", (bits + 3) / 4, value);
        used += length > 0 ? static_cast<std::size_t>(length) : size;
    }
    return text;
}

void visit_device(walk &w, const settings &values, unsigned index)
{
    char address[24];
    char pci[80];
    snprintf(address, sizeof(address), "0000:%02x:06.0", index);
    snprintf(pci, sizeof(pci), "devices/pci0000:00/%s", address);
    const unsigned part = values.limits.vendor_part_id;

    w.at("%s", pci);
    w.folder("");
    w.file("modalias", "pci:v00001D0Fd0000%04Xsv00001D0Fsd0000%04Xbc02sc00i00\n", part, part);
    w.file("vendor", "0x1d0f\n");
    w.file("device", "0x%04x\n", part);
    w.file("subsystem_vendor", "0x1d0f\n");
    w.file("subsystem_device", "0x%04x\n", part);
    w.file("class", "0x020000\n");
    w.file("numa_node", "-1\n");
    char cpus[512];
    const int count = std::min(get_nprocs_conf(), 1024);
    w.file("local_cpus", "%s\n", cpu_mask(cpus, sizeof(cpus), count));
    w.file("local_cpulist", count > 1 ? "0-%d\n" : "%d\n", count - 1);
    w.link("driver", "../../../bus/pci/drivers/efa");
    w.link("subsystem", "../../../bus/pci");
    visit_ibdev(w, pci, address, index);

    w.at("%s/infiniband_verbs", pci);
    w.folder("");
    w.at("%s/infiniband_verbs/uverbs%u", pci, index);
    w.folder("");
    w.file("ibdev", "efa_%u\n", index);
    w.file("dev", "%u:%u\n", major_number, minor_base + index);
    w.file("abi_version", "1\n");
    w.link("device", "../../../%s", address);

    w.at("class");
    char name[64];
    snprintf(name, sizeof(name), "infiniband_verbs/uverbs%u", index);
    w.link(name, "../../%s/infiniband_verbs/uverbs%u", pci, index);
    snprintf(name, sizeof(name), "infiniband/efa_%u", index);
    w.link(name, "../../%s/infiniband/efa_%u", pci, index);
    w.at("bus/pci/devices");
    w.link(address, "../../../%s", pci);
    w.at("bus/pci/drivers/efa");
    w.link(address, "../../../../%s", pci);
}

bool visit_all(visitor &v, const settings &values)
{
    walk w(v);
    for (const char *name : {"class", "class/infiniband", "class/infiniband_verbs", "bus", "bus/pci", "bus/pci/devices",
                             "bus/pci/drivers", "bus/pci/drivers/efa", "devices", "devices/pci0000:00"}) {
        w.folder(name);
    }
    w.file("class/infiniband_verbs/abi_version", "6\n");
    for (unsigned index = 0; index < values.device_count; ++index) {
        visit_device(w, values, index);
    }
    return w.ok();
}

/// SYS-2: the same content has the same time. Some second of the past; the nanoseconds tell contents apart.
void fix_times(int root, const settings &values)
{
    char text[2048];
    settings_signature(values, text, sizeof(text));
    std::uint32_t hash = 2166136261u; // FNV-1a
    for (const char *p = text; *p != '\0'; ++p) {
        hash = (hash ^ static_cast<unsigned char>(*p)) * 16777619u;
    }
    const timespec times[2] = {{1500000000, hash % 1000000000}, {1500000000, hash % 1000000000}};
    for (unsigned index = 0; index < values.device_count; ++index) {
        char path[128];
        snprintf(path, sizeof(path), "devices/pci0000:00/0000:%02x:06.0/infiniband/efa_%u", index, index);
        utimensat(root, path, times, 0);
    }
}

} // namespace

int sysfs_build(int parent_fd, const char *name, const settings &values) noexcept
{
    char temporary[80];
    snprintf(temporary, sizeof(temporary), "building-%d-%s", static_cast<int>(getpid()), name);
    remove_tree(parent_fd, temporary); // of an earlier process with our number that was killed
    if (!fabric::raw_may_write_to(4096)) { // a file beyond RLIMIT_FSIZE is a signal that ends the host
        return EFBIG;
    }
    if (mkdirat(parent_fd, temporary, 0700) != 0 || !fabric::permit(parent_fd, temporary, 0700)) {
        return errno;
    }
    int       error = 0;
    const int root  = openat(parent_fd, temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    builder   b(root);
    if (root < 0 || !visit_all(b, values)) {
        error = errno != 0 ? errno : EIO;
    } else {
        fix_times(root, values);
    }
    if (root >= 0) {
        syscall(SYS_close, root);
    }
    if (error == 0 && renameat(parent_fd, temporary, parent_fd, name) != 0) {
        error = errno;
    }
    if (error != 0) {
        remove_tree(parent_fd, temporary);
    }
    return error;
}

bool sysfs_is_whole(int parent_fd, const char *name, const settings &values) noexcept
{
    const int root = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) {
        return false;
    }
    checker    c(root);
    const bool whole = visit_all(c, values);
    syscall(SYS_close, root);
    return whole;
}

void remove_tree(int parent_fd, const char *name) noexcept
{
    const int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        unlinkat(parent_fd, name, 0);
        return;
    }
    DIR *folder = fdopendir(fd);
    if (folder == nullptr) {
        syscall(SYS_close, fd);
        return;
    }
    while (const dirent *entry = readdir(folder)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            remove_tree(fd, entry->d_name);
        }
    }
    closedir(folder);
    unlinkat(parent_fd, name, AT_REMOVEDIR);
}

} // namespace softefa::preload
