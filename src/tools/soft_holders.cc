/* See soft_holders.h. */
#include "tools/soft_holders.h"

#include "softefa/observe/names.h"

#include <algorithm>
#include <cstdlib>
#include <dirent.h>
#include <fstream>
#include <memory>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace tools {

namespace {

constexpr size_t holders_max = 64;

struct close_listing {
    void operator()(DIR *listing) const { closedir(listing); }
};
using listing = std::unique_ptr<DIR, close_listing>;

/// Of what is cached: asked for more, a file on a mount that does not answer would hold us up for ever.
bool same_file(int folder_fd, const char *name, const struct stat &wanted)
{
    struct statx st;
    return statx(folder_fd, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &st) == 0 && st.stx_ino == wanted.st_ino &&
           makedev(st.stx_dev_major, st.stx_dev_minor) == wanted.st_dev;
}

bool has_open(const std::string &process_folder, const struct stat &wanted)
{
    const std::string folder = process_folder + "/fd";
    const listing     all(opendir(folder.c_str()));
    while (const struct dirent *entry = all ? readdir(all.get()) : nullptr) {
        if (same_file(dirfd(all.get()), entry->d_name, wanted)) {
            return true;
        }
    }
    return false;
}

std::string program_of(const std::string &process_folder)
{
    std::string name;
    std::getline(std::ifstream(process_folder + "/comm"), name);
    return name.empty() ? "?" : printable(name.c_str(), name.size());
}

bool publishes(const soft_domain &domain, int pid)
{
    return std::any_of(domain.processes.begin(), domain.processes.end(),
                       [pid](const soft_process &p) { return p.pid == pid && p.state != process_state::dead; });
}

} // namespace

std::vector<domain_holder> domain_holders(const soft_domain &domain)
{
    std::vector<domain_holder> holders;
    struct stat                lock;
    if (lstat((domain.folder + "/" + softefa::observe::lock_name).c_str(), &lock) != 0) {
        return holders;
    }
    const listing all(opendir("/proc"));
    while (const struct dirent *entry = all ? readdir(all.get()) : nullptr) {
        const int         pid    = atoi(entry->d_name);
        const std::string folder = std::string("/proc/") + entry->d_name;
        if (pid > 0 && pid != getpid() && !publishes(domain, pid) && holders.size() < holders_max && has_open(folder, lock)) {
            holders.push_back({pid, program_of(folder)});
        }
    }
    std::sort(holders.begin(), holders.end(), [](const auto &a, const auto &b) { return a.pid < b.pid; });
    return holders;
}

} // namespace tools
