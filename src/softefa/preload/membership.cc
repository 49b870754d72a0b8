/* This process's membership in its domain: when it enters, and that it stays.
 *
 * Owns: the one membership of the process, through closes and forks, and what the user is told of a refusal. Refuses to know how a domain is entered:
 * registry_enter().
 *
 * A refusal is of one look (REG-4). A program that lists devices again is asked again, whatever refused it: descriptors, room, another profile
 * may be gone. After a refusal the device's nodes alone are no reason to try: nobody heard of them, and each try may wait for seconds. Rejected:
 * pthread_once, which made the first refusal the last word. The lock between threads names its holder in one step, so that a signal handler finds
 * out that it interrupted a look of its own thread; a mutex would name it a moment later, and thread-local storage is the program's to spend.
 */
#include "softefa/preload/registry.h"

#include "softefa/dev/publish.h"
#include "softefa/fabric/private_fd.h"
#include "softefa/preload/report.h"
#include "softefa/preload/sysfs_counters.h"

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::preload {
namespace {

constexpr std::size_t line_size = 1024;

struct joined_domain {
    bool        ever    = false; ///< was a member once
    bool        refused = false; ///< the last look was
    int         lock_fd = -1; ///< membership; open until the process ends
    struct stat lock{};       ///< which file that is
    char        error[line_size] = ""; ///< why the last look was refused
    char        told[line_size]  = ""; ///< what the user was told last
};
joined_domain         joined; ///< of whoever is `looker`
std::atomic<pid_t>    looker{0}; ///< the thread that looks; 0: none
std::atomic<unsigned> tries_ended{0};
pthread_once_t        fork_once = PTHREAD_ONCE_INIT;

/// The lock is of the open file, which a child shares; only its number is not marked there. A thread that was looking is not there, either.
void joined_forked()
{
    looker.store(0, std::memory_order_relaxed);
    fabric::private_fds_forked();
}

void watch_forks() { pthread_atfork(nullptr, nullptr, joined_forked); }

enum class turn { ours, busy, recursive };

/// `ours`: until end_look(). Bounded, although a look is.
turn begin_look()
{
    const auto self = static_cast<pid_t>(syscall(SYS_gettid));
    for (unsigned i = 0; i < 4 * registry_try_count; ++i) {
        pid_t holder = 0;
        if (looker.compare_exchange_strong(holder, self, std::memory_order_acquire)) {
            return turn::ours;
        }
        if (holder == self) {
            return turn::recursive;
        }
        registry_pause();
    }
    return turn::busy;
}

void end_look()
{
    looker.store(0, std::memory_order_release);
}

void keep_membership(int fd)
{
    joined.lock_fd = fabric::fd_settle_private(fd);
    if (fstatat(joined.lock_fd, "", &joined.lock, AT_EMPTY_PATH) != 0) {
        joined.lock = {};
    }
}

/// REG-3: a program may have closed the descriptor behind our back, or before it became private in a forked child.
bool still_member()
{
    struct stat now{};
    if (joined.lock_fd < 0 || fstatat(joined.lock_fd, "", &now, AT_EMPTY_PATH) != 0 || now.st_ino != joined.lock.st_ino || now.st_dev != joined.lock.st_dev ||
        now.st_nlink == 0) {
        return false;
    }
    fabric::fd_mark_private(joined.lock_fd);
    return true;
}

void report_failure(const char *what, const char *path) noexcept
{
    report(severity::error, path[0] != '\0' ? "%s; what led to it: softefa dump %s" : "%s%s", what, path);
}

/// False: `joined.error` says why not this time.
bool join_again()
{
    const char *error = nullptr;
    const auto *s     = settings_get(&error);
    int         fd    = -1;
    if (fabric::fd_is_private(joined.lock_fd)) {
        fabric::fd_close_private(joined.lock_fd); // of a folder that was removed by hand
    } else {
        fabric::fd_forget_private(joined.lock_fd); // whatever has that number now is not ours
    }
    joined.lock_fd = -1;
    if (s == nullptr) { // stays: the environment is read once
        snprintf(joined.error, sizeof(joined.error), "%s", error);
        return false;
    }
    if (!registry_enter(*s, &fd, joined.error, sizeof(joined.error))) {
        return false;
    }
    sysfs_counters_start();
    dev::publish_failures_to(report_failure);
    keep_membership(fd);
    joined.ever = true;
    return true;
}

/// Whether the last refusal answers this look. What another thread heard while this one waited for it is as good as an answer of its own.
bool answered_already(look reason, unsigned tries_before)
{
    const bool waited = tries_ended.load(std::memory_order_relaxed) != tries_before;
    return joined.refused && (waited || (reason == look::node && !joined.ever));
}

} // namespace

bool registry_join(look reason) noexcept
{
    const int      saved_errno  = errno;
    const unsigned tries_before = tries_ended.load(std::memory_order_relaxed);
    char           line[line_size] = "";
    bool           ok = false;
    pthread_once(&fork_once, watch_forks);
    if (begin_look() == turn::ours) {
        ok = still_member();
        if (!ok && !answered_already(reason, tries_before)) {
            ok = join_again();
            tries_ended.fetch_add(1, std::memory_order_relaxed); // before the lock is let go
            if (!ok && strcmp(joined.told, joined.error) != 0) {
                memcpy(joined.told, joined.error, sizeof(joined.told));
                memcpy(line, joined.error, sizeof(line));
            }
        }
        joined.refused = !ok;
        end_look();
    }
    if (line[0] != '\0') { // behind the lock: standard error may be a pipe that nobody reads
        report(severity::error, "%s", line);
    }
    errno = saved_errno;
    return ok;
}

} // namespace softefa::preload
