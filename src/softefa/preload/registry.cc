/* See registry.h.
 *
 * Algorithm: the file `domain` is locked exclusively by whoever finds nobody else, who writes the choice into it and then
 * holds it shared; everybody else locks it shared and compares. The tree is a folder with a number; a link points at the
 * current one and is replaced by rename if the tree is stale or damaged.
 * Waiting is bounded: a process that is stopped while it holds the lock exclusively must not hang others.
 *
 * Here is one try to enter; when this process tries, and that it stays a member, is in membership.cc.
 */
#include "softefa/preload/registry.h"

#include "softefa/fabric/private_fd.h"
#include "softefa/fabric/private_path.h"
#include "softefa/fabric/segment.h"
#include "softefa/observe/names.h"
#include "softefa/preload/sysfs_tree.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::preload {
namespace {

constexpr std::size_t choice_size = 2048;

void close_raw(int fd) { syscall(SYS_close, fd); }

/// REG-1: the folder, opened; -1: `error` has the line.
int open_folder(const char *path, char *error, std::size_t error_size)
{
    const int made = fabric::make_private_folder(path);
    if (made != 0 && made != ENOTDIR && made != ELOOP) { // those are said below, where it is opened
        snprintf(error, error_size, "cannot make the folder %s: %s", path, strerror(made));
        return -1;
    }
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        snprintf(error, error_size, "cannot use the folder %s: %s", path, strerror(errno));
        return -1;
    }
    struct stat st;
    if (fstatat(fd, "", &st, AT_EMPTY_PATH) != 0 || st.st_uid != geteuid() || (st.st_mode & 0777) != 0700) {
        snprintf(error, error_size, "the folder %s must belong to uid %u with mode 0700; have SOFTEFA_REGISTRY_DIR name a folder that does not exist yet",
                 path, static_cast<unsigned>(geteuid()));
        close_raw(fd);
        return -1;
    }
    return fd;
}

bool write_choice(int fd, const char *text)
{
    const auto size = static_cast<ssize_t>(strlen(text));
    if (!fabric::raw_may_write_to(choice_size)) { // beyond RLIMIT_FSIZE a write is a signal that ends the host
        errno = EFBIG;
        return false;
    }
    return pwrite(fd, text, static_cast<std::size_t>(size), 0) == size && ftruncate(fd, size) == 0;
}

ssize_t read_choice(int fd, char *text)
{
    const ssize_t size = pread(fd, text, choice_size - 1, 0);
    text[size > 0 ? size : 0] = '\0';
    return size;
}

void explain_difference(const char *theirs, const char *ours, const char *path, char *error, std::size_t error_size)
{
    signature_difference line;
    if (settings_signature_difference(theirs, ours, &line)) {
        snprintf(error, error_size, "%.*s refused: the processes that already run in this domain (%s) have %.*s; set SOFTEFA_DOMAIN to be apart",
                 static_cast<int>(line.ours_size), line.ours, path, static_cast<int>(line.theirs_size), line.theirs);
    } else {
        snprintf(error, error_size, "the domain in %s was made by another version of Soft EFA that is still running; set SOFTEFA_DOMAIN to be apart", path);
    }
}

enum class membership { first, member, refused };

/// Bounded: whoever holds the lock may be stopped, and every caller of the library waits behind this.
bool share_lock(int fd)
{
    for (unsigned i = 0; i < registry_try_count; ++i) {
        if (flock(fd, LOCK_SH | LOCK_NB) == 0) {
            return true;
        }
        registry_pause();
    }
    return false;
}

/// REG-2. On `first` the lock is still exclusive.
membership lock_choice(int fd, const char *ours, const char *path, char *error, std::size_t error_size)
{
    for (unsigned i = 0; i < registry_try_count; ++i) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            char before[choice_size];
            if (read_choice(fd, before) > 0 && !observe::lock_text_is_ours(before)) {
                snprintf(error, error_size, "%s/domain is no file of Soft EFA's; have SOFTEFA_REGISTRY_DIR name a folder that does not exist yet", path);
                return membership::refused;
            }
            if (write_choice(fd, ours)) {
                return membership::first;
            }
            snprintf(error, error_size, "cannot write %s/domain: %s", path, strerror(errno));
            return membership::refused;
        }
        if (flock(fd, LOCK_SH | LOCK_NB) == 0) {
            char theirs[choice_size];
            if (read_choice(fd, theirs) > 0) {
                if (strcmp(theirs, ours) == 0) {
                    return membership::member;
                }
                explain_difference(theirs, ours, path, error, error_size);
                return membership::refused;
            }
            flock(fd, LOCK_UN);
        }
        registry_pause();
    }
    snprintf(error, error_size, "%s/domain stays locked by another process", path);
    return membership::refused;
}

/// `softefa clean` takes a domain that nobody lives in away, its lock with it: who waited for that lock begins anew.
bool was_removed(int fd)
{
    struct stat st;
    return fstatat(fd, "", &st, AT_EMPTY_PATH) != 0 || st.st_nlink == 0;
}

/// What killed processes left and nobody can be using: called while this process is the only member.
void remove_old_trees(int folder_fd, const char *current)
{
    const int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR      *folder = fd >= 0 ? fdopendir(fd) : nullptr;
    if (folder == nullptr) {
        if (fd >= 0) {
            close_raw(fd);
        }
        return;
    }
    while (const dirent *entry = readdir(folder)) {
        const observe::name_kind kind = observe::name_in(folder_fd, entry->d_name); // NAM-1
        if (kind == observe::name_kind::tree && strcmp(entry->d_name, current) != 0) {
            remove_tree(folder_fd, entry->d_name);
        } else if (kind == observe::name_kind::process_link) {
            unlinkat(folder_fd, entry->d_name, 0);
        }
    }
    closedir(folder);
}

/// The link points at a whole tree afterwards. 0 or an errno.
int publish_tree(int folder_fd, const settings &values, bool alone)
{
    char current[64] = "";
    const ssize_t length = readlinkat(folder_fd, sysfs_link_name, current, sizeof(current) - 1);
    if (length < 0 || strncmp(current, "tree-", 5) != 0 || !sysfs_is_whole(folder_fd, current, values)) {
        timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        char link[64];
        snprintf(current, sizeof(current), "tree-%d-%llx", static_cast<int>(getpid()),
                 static_cast<unsigned long long>(now.tv_sec) * 1000000000u + static_cast<unsigned long long>(now.tv_nsec));
        snprintf(link, sizeof(link), "building-link-%d", static_cast<int>(getpid()));
        if (const int error = sysfs_build(folder_fd, current, values); error != 0) {
            return error;
        }
        unlinkat(folder_fd, link, 0);
        if (symlinkat(current, folder_fd, link) != 0 || renameat(folder_fd, link, folder_fd, sysfs_link_name) != 0) {
            return errno;
        }
    }
    if (alone) {
        remove_old_trees(folder_fd, current);
    }
    return 0;
}

enum class entry { member, refused, again };

/// With the file open, which the caller closes unless this process is a member.
entry enter_locked(int folder_fd, int fd, const settings &values, char *error, std::size_t error_size)
{
    const char *path = values.registry_dir.c_str();
    char        ours[choice_size];
    settings_signature(values, ours, sizeof(ours));
    const membership role = lock_choice(fd, ours, path, error, error_size);
    if (role == membership::refused) {
        return entry::refused;
    }
    if (was_removed(fd)) {
        return entry::again;
    }
    if (const int failure = publish_tree(folder_fd, values, role == membership::first); failure != 0) {
        snprintf(error, error_size, "cannot build the device tree in %s: %s", path, strerror(failure));
        return entry::refused;
    }
    if (role == membership::member) {
        return entry::member;
    }
    // Changing an exclusive lock to a shared one lets go of it for a moment, in which another process may choose.
    char now[choice_size] = "";
    if (!share_lock(fd)) {
        snprintf(error, error_size, "%s/domain stays locked by another process", path);
        return entry::refused;
    }
    if (was_removed(fd)) { // `softefa clean` was in between
        return entry::again;
    }
    if (read_choice(fd, now) <= 0 || strcmp(now, ours) != 0) {
        explain_difference(now, ours, path, error, error_size);
        return entry::refused;
    }
    return entry::member;
}

entry enter_once(const settings &values, int *lock_fd_p, char *error, std::size_t error_size)
{
    const char *path      = values.registry_dir.c_str();
    const int   folder_fd = open_folder(path, error, error_size);
    if (folder_fd < 0) {
        return entry::refused;
    }
    const int fd = fabric::open_private_file(folder_fd, observe::lock_name, O_RDWR);
    if (fd < 0) {
        const bool removed = errno == ENOENT; // between the two opens
        snprintf(error, error_size, "cannot open %s/domain: %s", path, strerror(errno));
        close_raw(folder_fd);
        return removed ? entry::again : entry::refused;
    }
    const entry outcome = enter_locked(folder_fd, fd, values, error, error_size);
    close_raw(folder_fd);
    if (outcome == entry::member) {
        *lock_fd_p = fd;
    } else {
        close_raw(fd);
    }
    return outcome;
}

} // namespace

void registry_pause() noexcept
{
    const timespec pause{0, 1000000};
    nanosleep(&pause, nullptr);
}

bool registry_enter(const settings &values, int *lock_fd_p, char *error, std::size_t error_size) noexcept
{
    entry outcome = entry::again;
    for (unsigned tries = 0; tries < 16 && outcome == entry::again; ++tries) {
        outcome = enter_once(values, lock_fd_p, error, error_size);
    }
    return outcome == entry::member;
}

void registry_sysfs_path(const settings &values, char *path, std::size_t size) noexcept
{
    snprintf(path, size, "%s/%s", values.registry_dir.c_str(), sysfs_link_name);
}

} // namespace softefa::preload
