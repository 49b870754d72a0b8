/* See soft_clean.h. */
#include "tools/soft_clean.h"

#include "softefa/observe/names.h"
#include "tools/soft_holders.h"
#include "tools/soft_lock.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace tools {

namespace {

using softefa::observe::name_in;
using softefa::observe::name_kind;

/// Nobody listens behind the socket's name.
bool is_refused(int folder_fd, const std::string &name)
{
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const int length = snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", folder_fd, name.c_str());
    const int fd     = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool      refused = false;
    if (fd >= 0 && length > 0 && length < static_cast<int>(sizeof(address.sun_path))) {
        refused = connect(fd, reinterpret_cast<sockaddr *>(&address), sizeof(address)) != 0 && errno == ECONNREFUSED;
    }
    if (fd >= 0) {
        close(fd);
    }
    return refused;
}

/// A folder and all below it, never following links.
void remove_all(int folder_fd, const char *name)
{
    if (unlinkat(folder_fd, name, 0) == 0 || (errno != EISDIR && errno != EPERM)) {
        return;
    }
    const int fd      = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR      *listing = fd >= 0 ? fdopendir(fd) : nullptr;
    if (listing == nullptr) {
        return;
    }
    while (const struct dirent *entry = readdir(listing)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            remove_all(fd, entry->d_name);
        }
    }
    closedir(listing);
    unlinkat(folder_fd, name, AT_REMOVEDIR);
}

std::vector<std::string> names_in(int folder_fd)
{
    std::vector<std::string> names;
    const int                fd      = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR                     *listing = fd >= 0 ? fdopendir(fd) : nullptr;
    if (listing == nullptr) {
        return names;
    }
    while (const struct dirent *entry = readdir(listing)) {
        names.push_back(entry->d_name);
    }
    closedir(listing);
    return names;
}

/// CLN-2: the lock is held by the caller. The lock's own file goes last: who waits for it finds it gone and begins anew.
void clean_all(int folder_fd, const soft_domain &domain, bool dry_run, std::vector<std::string> *removed_p)
{
    for (const std::string &name : names_in(folder_fd)) {
        const name_kind kind = name_in(folder_fd, name.c_str());
        if (kind != name_kind::foreign && kind != name_kind::domain) {
            removed_p->push_back(name);
            if (!dry_run) {
                remove_all(folder_fd, name.c_str());
            }
        }
    }
    removed_p->push_back(softefa::observe::lock_name);
    if (!dry_run) {
        unlinkat(folder_fd, softefa::observe::lock_name, 0);
        rmdir(domain.folder.c_str()); // refused if something else is in it
    }
}

/// CLN-1
void clean_dead(int folder_fd, bool dry_run, std::vector<std::string> *removed_p)
{
    for (const std::string &name : names_in(folder_fd)) {
        const name_kind kind = name_in(folder_fd, name.c_str());
        const bool      dead = (kind == name_kind::process_link && process_read(folder_fd, name).state == process_state::dead) ||
                          (kind == name_kind::socket && name.ends_with(".sock") && is_refused(folder_fd, name));
        if (dead) {
            removed_p->push_back(name);
            if (!dry_run) {
                unlinkat(folder_fd, name.c_str(), 0);
            }
        }
    }
}

/// Those that publish, else those that only keep the lock.
std::string living_text(const soft_domain &domain)
{
    std::vector<domain_holder> living;
    for (const auto &p : domain.processes) {
        if (p.state != process_state::dead) {
            living.push_back({p.pid, p.program()});
        }
    }
    if (living.empty()) {
        living = domain_holders(domain);
    }
    std::string text;
    for (size_t i = 0; i < living.size() && i < 8; ++i) {
        text += (i == 0 ? " (" : ", ") + std::to_string(living[i].pid) + " " + living[i].program;
    }
    return living.size() > 8 ? text + ", ...)" : text.empty() ? text : text + ")";
}

} // namespace

bool domain_clean(const soft_domain &domain, bool dry_run, std::vector<std::string> *removed_p, std::string *report_p)
{
    removed_p->clear();
    const domain_lock lock(domain.folder, report_p);
    if (lock.state() == lock_state::unusable) {
        return false;
    }
    if (lock.state() == lock_state::nothing) { // what is in the folder is somebody else's
        *report_p = "domain " + domain.name + ": nothing there";
        return true;
    }
    const bool alone = lock.state() == lock_state::taken;
    if (alone) {
        clean_all(lock.folder_fd(), domain, dry_run, removed_p);
    } else {
        clean_dead(lock.folder_fd(), dry_run, removed_p);
    }
    *report_p = "domain " + domain.name + ": " + std::to_string(removed_p->size()) + (dry_run ? " names would go" : " names removed") +
                (alone ? "; nobody lives in it" : "; processes live in it" + living_text(domain) + " and keep the rest");
    return true;
}

int soft_clean(const soft_options &options)
{
    std::vector<soft_domain> domains;
    std::string              error;
    int                      code = exit_ok;
    if (!domains_of_options(options, &domains, &error)) {
        fprintf(stderr, "softefa: %s\n", error.c_str());
        return exit_refused;
    }
    for (soft_domain &domain : domains) {
        std::vector<std::string> removed;
        std::string              report;
        (void)domain_read(&domain, &error);
        if (!domain_clean(domain, options.dry_run, &removed, &report)) {
            fprintf(stderr, "softefa: %s\n", report.c_str());
            code = exit_refused;
            continue;
        }
        if (options.dry_run) {
            for (const std::string &name : removed) {
                printf("%s/%s\n", domain.folder.c_str(), name.c_str());
            }
        }
        printf("%s\n", report.c_str());
    }
    return code;
}

} // namespace tools
