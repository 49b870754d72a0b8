/* See fd_marks.h. */
#include "softefa/uverbs/fd_marks.h"

#include "softefa/uverbs/file.h"

#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace softefa::uverbs {
namespace {

class bit_map {
public:
    bool test(int fd) const noexcept { return (words_[fd / 64].load(std::memory_order_relaxed) >> (fd % 64) & 1) != 0; }
    void set(int fd) noexcept { words_[fd / 64].fetch_or(bit(fd), std::memory_order_relaxed); }
    void clear(int fd) noexcept { words_[fd / 64].fetch_and(~bit(fd), std::memory_order_relaxed); }
    void clear_all() noexcept
    {
        for (auto &word : words_) {
            word.store(0, std::memory_order_relaxed);
        }
    }

private:
    static unsigned long bit(int fd) noexcept { return 1ul << (fd % 64); }
    std::atomic<unsigned long> words_[fd_mark_max / 64];
};

bit_map handed_out;

bool in_range(int fd) { return fd >= 0 && fd < fd_mark_max; }

} // namespace

bool fd_is_handed_out(int fd) noexcept { return in_range(fd) ? handed_out.test(fd) : fd >= 0; }

int fd_next_handed_out(int first, int last) noexcept
{
    for (int fd = first; in_range(fd) && fd <= last; ++fd) {
        if (handed_out.test(fd)) {
            return fd;
        }
    }
    return -1;
}

void fd_mark_handed_out(int fd) noexcept
{
    if (in_range(fd)) {
        handed_out.set(fd);
    }
}

void fd_clear_mark(int fd) noexcept
{
    if (in_range(fd)) {
        handed_out.clear(fd);
    }
}

bool fd_identify(int fd, inode *identity_p) noexcept
{
    const int  saved_errno = errno;
    struct statx st;
    const bool ok = fd >= 0 && syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_INO, &st) == 0;
    if (ok) {
        identity_p->device = static_cast<std::uint64_t>(st.stx_dev_major) << 32 | st.stx_dev_minor;
        identity_p->number = st.stx_ino;
    }
    errno = saved_errno;
    return ok;
}

inode inode_shown(std::uint64_t st_dev, std::uint64_t st_ino) noexcept
{
    return {static_cast<std::uint64_t>(major(st_dev)) << 32 | minor(st_dev), st_ino};
}

void fd_marks_forked() noexcept
{
    handed_out.clear_all();
    fabric::private_fds_forked();
}

} // namespace softefa::uverbs
