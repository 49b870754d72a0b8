/* A device node as libc's functions show it.
 *
 * Owns: what stat says of a node, and what the files of interposed functions share.
 */
#pragma once

#include <atomic>
#include <cstdarg>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define SOFTEFA_EXPORT extern "C" __attribute__((visibility("default")))

namespace softefa::preload {

inline constexpr unsigned node_major      = 231;
inline constexpr unsigned node_minor_base = 192;

/// libc's function of that name, or null before the constructor ran.
template <class F> struct original {
    std::atomic<F *> function{nullptr};
    void             resolve(const char *name)
    {
        function.store(reinterpret_cast<F *>(dlsym(RTLD_NEXT, name)), std::memory_order_relaxed);
    }
    F *get() const { return function.load(std::memory_order_relaxed); }
};

/// True if `path` is a device node of ours; then devices are available. Preserves errno.
bool is_our_node(const char *path, unsigned *index_p);
/// A descriptor, or -1 with errno.
int open_node(unsigned index, int flags);

template <class Stat> void describe_node(unsigned index, Stat *st)
{
    st->st_mode    = S_IFCHR | 0666;
    st->st_rdev    = makedev(node_major, node_minor_base + index);
    st->st_size    = 0;
    st->st_blocks  = 0;
    st->st_blksize = 4096;
    st->st_nlink   = 1;
}

template <class Stat> int stat_node(unsigned index, Stat *st)
{
    memset(st, 0, sizeof(*st));
    st->st_uid = geteuid();
    st->st_gid = getegid();
    describe_node(index, st);
    return 0;
}

inline int kernel_stat(int folder_fd, const char *path, void *st, int flags)
{
#ifdef SYS_newfstatat
    return static_cast<int>(syscall(SYS_newfstatat, folder_fd, path, st, flags));
#else
    return static_cast<int>(syscall(SYS_fstatat64, folder_fd, path, st, flags));
#endif
}

/// The third argument of open, if there is one.
inline mode_t mode_argument(int flags, va_list arguments)
{
    return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? static_cast<mode_t>(va_arg(arguments, int)) : 0;
}

} // namespace softefa::preload
