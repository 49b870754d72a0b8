/* See private_fd.h. */
#include "softefa/fabric/private_fd.h"

#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <iterator>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::fabric {
namespace {

constexpr int private_fd_min = 200; ///< above what programs with select() or fixed tables use, below common limits

std::atomic<std::uint64_t> marks[fd_mark_max / 64];
std::atomic<std::uint32_t> files[fd_mark_max]; ///< what was marked: a digest of device and inode
std::atomic<pid_t>         marker{0}; ///< process of the marks

bool in_range(int fd) noexcept { return fd >= 0 && fd < fd_mark_max; }
std::uint64_t bit(int fd) noexcept { return std::uint64_t{1} << (fd % 64); }
bool          marked(int fd) noexcept { return in_range(fd) && (marks[fd / 64].load(std::memory_order_acquire) & bit(fd)) != 0; }

/// 0: not open.
std::uint32_t file_behind(int fd) noexcept
{
    const int    saved_errno = errno;
    struct statx st;
    std::uint64_t digest = 0;
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_INO | STATX_TYPE, &st) == 0) {
        digest = (st.stx_ino ^ std::uint64_t{st.stx_dev_minor} << 40 ^ std::uint64_t{st.stx_dev_major} << 52 ^ st.stx_mode >> 12) * 0x9e3779b97f4a7c15u;
        digest = digest >> 32 | 1;
    }
    errno = saved_errno;
    return static_cast<std::uint32_t>(digest);
}

bool still_there(int fd) noexcept { return file_behind(fd) == files[fd].load(std::memory_order_relaxed); }

} // namespace

bool fd_is_private(int fd) noexcept { return marked(fd) && still_there(fd); }

bool fd_may_be_ours(int fd) noexcept
{
    return fd >= 0 && (!in_range(fd) || files[fd].load(std::memory_order_relaxed) == 0 || still_there(fd));
}

int fd_next_private(int first, int last) noexcept
{
    for (int at = first < 0 ? 0 : first; at <= last && at < fd_mark_max;) {
        const std::uint64_t word = marks[at / 64].load(std::memory_order_acquire) & ~(bit(at) - 1);
        if (word != 0) {
            const int found = at / 64 * 64 + std::countr_zero(word);
            if (found > last || still_there(found)) {
                return found <= last ? found : -1;
            }
            at = found + 1;
            continue;
        }
        at = (at / 64 + 1) * 64;
    }
    return -1;
}

int fd_mark_private(int fd) noexcept
{
    if (in_range(fd)) {
        files[fd].store(file_behind(fd), std::memory_order_relaxed);
        marks[fd / 64].fetch_or(bit(fd), std::memory_order_release); // behind what was marked
        marker.store(getpid(), std::memory_order_relaxed);
    }
    return fd;
}

#ifdef __SANITIZE_THREAD__
extern "C" int __interceptor_close(int fd);
#endif

/// ThreadSanitizer keeps book of the numbers that it saw given out, which those we moved to are not: one that goes unseen is still this thread's to it,
/// and the next file of another thread under that number a race.
static void give_back(int fd) noexcept
{
#ifdef __SANITIZE_THREAD__
    if (fd < private_fd_min) {
        __interceptor_close(fd);
        return;
    }
#endif
    syscall(SYS_close, fd);
}

int fd_duplicate_private(int fd) noexcept
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, private_fd_min);
    if (copy < 0) {
        copy = fcntl(fd, F_DUPFD_CLOEXEC, 3); // a low RLIMIT_NOFILE
    }
    return fd_mark_private(copy);
}

int fd_make_private(int fd) noexcept
{
    const int copy = fd_duplicate_private(fd);
    if (copy >= 0) {
        give_back(fd);
    }
    return copy;
}

int fd_settle_private(int fd) noexcept
{
    const int saved_errno = errno;
    const int moved       = fd >= 0 ? fd_make_private(fd) : -1;
    errno                 = saved_errno;
    return moved >= 0 ? moved : fd_mark_private(fd);
}

bool fds_left(unsigned count) noexcept
{
    const int saved_errno = errno;
    int       probes[64];
    unsigned  made = 0;
    bool      out  = false;
    while (!out && made < count && made < std::size(probes)) {
        probes[made] = static_cast<int>(syscall(SYS_eventfd2, 0u, EFD_CLOEXEC));
        if (probes[made] < 0) {
            out = errno == EMFILE || errno == ENFILE;
            break;
        }
        ++made;
    }
    while (made != 0) {
        syscall(SYS_close, probes[--made]);
    }
    errno = saved_errno;
    return !out;
}

void fd_forget_private(int fd) noexcept
{
    if (in_range(fd)) {
        marks[fd / 64].fetch_and(~bit(fd), std::memory_order_relaxed);
        files[fd].store(0, std::memory_order_relaxed);
    }
}

bool fds_private_here() noexcept { return getpid() == marker.load(std::memory_order_relaxed) && fd_next_private(0, fd_mark_max - 1) >= 0; }

void fd_close_private(int fd) noexcept
{
    if (fd < 0) {
        return;
    }
    const bool ours = fd_may_be_ours(fd);
    fd_forget_private(fd);
    if (!ours) {
        return;
    }
    const int saved_errno = errno;
    give_back(fd);
    errno = saved_errno;
}

void fd_drop_private(int &fd) noexcept
{
    const int old = fd;
    fd            = -1;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    fd_close_private(old);
}

void private_fds_forked() noexcept
{
    // What was behind each number stays known: other fork handlers close what was inherited, and nothing else.
    for (auto &word : marks) {
        word.store(0, std::memory_order_relaxed);
    }
}

} // namespace softefa::fabric
