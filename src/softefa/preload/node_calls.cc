/* Functions by which programs look whether a device node is there, and openat.
 *
 * Owns: access, faccessat, eaccess, lstat, fstatat, statx and openat, for the absolute path of a node; all else goes on to libc, or to the kernel
 * before the constructor ran. Launchers and container hooks ask with these before they start a program. fopen is not here: fclose closes with a
 * call of libc's own, so a device that it opened would never be closed.
 * IPO-1 holds (interpose.cc): a path is compared, nothing more.
 */
#undef _FORTIFY_SOURCE // its inline openat() would clash with ours

#include "softefa/preload/node.h"

#include <cerrno>

namespace softefa::preload {
namespace {

original<int(const char *, int)>                                             real_access, real_eaccess, real_euidaccess;
original<int(int, const char *, int, int)>                                   real_faccessat;
original<int(const char *, struct stat *)>                                   real_lstat;
original<int(const char *, struct stat64 *)>                                 real_lstat64;
original<int(int, const char *, struct stat *)>                              real_lxstat;
original<int(int, const char *, struct stat64 *)>                            real_lxstat64;
original<int(int, const char *, struct stat *, int)>                         real_fstatat;
original<int(int, const char *, struct stat64 *, int)>                       real_fstatat64;
original<int(int, int, const char *, struct stat *, int)>                    real_fxstatat;
original<int(int, int, const char *, struct stat64 *, int)>                  real_fxstatat64;
original<int(int, const char *, int, unsigned, struct statx *)>              real_statx;
original<int(int, const char *, int, ...)>                                   real_openat, real_openat64;
original<int(int, const char *, int)>                                        real_openat_2, real_openat64_2;

__attribute__((constructor)) void resolve_node_calls()
{
    const int saved_errno = errno; // main begins with 0; a function that this libc no longer has leaves a trace
    real_access.resolve("access");
    real_eaccess.resolve("eaccess");
    real_euidaccess.resolve("euidaccess");
    real_faccessat.resolve("faccessat");
    real_lstat.resolve("lstat");
    real_lstat64.resolve("lstat64");
    real_lxstat.resolve("__lxstat");
    real_lxstat64.resolve("__lxstat64");
    real_fstatat.resolve("fstatat");
    real_fstatat64.resolve("fstatat64");
    real_fxstatat.resolve("__fxstatat");
    real_fxstatat64.resolve("__fxstatat64");
    real_statx.resolve("statx");
    real_openat.resolve("openat");
    real_openat64.resolve("openat64");
    real_openat_2.resolve("__openat_2");
    real_openat64_2.resolve("__openat64_2");
    errno = saved_errno;
}

/// Everybody may read and write a node, nobody may execute it.
int access_node(int mode)
{
    if ((mode & ~(R_OK | W_OK | X_OK)) != 0 || (mode & X_OK) != 0) {
        errno = (mode & ~(R_OK | W_OK | X_OK)) != 0 ? EINVAL : EACCES;
        return -1;
    }
    return 0;
}

int statx_node(unsigned index, struct statx *st)
{
    memset(st, 0, sizeof(*st));
    st->stx_mask       = STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_UID | STATX_GID | STATX_SIZE | STATX_BLOCKS;
    st->stx_blksize    = 4096;
    st->stx_nlink      = 1;
    st->stx_uid        = geteuid();
    st->stx_gid        = getegid();
    st->stx_mode       = S_IFCHR | 0666;
    st->stx_rdev_major = node_major;
    st->stx_rdev_minor = node_minor_base + index;
    return 0;
}

int kernel_access(int folder_fd, const char *path, int mode, int flags)
{
#ifdef SYS_faccessat2
    if (flags != 0) {
        return static_cast<int>(syscall(SYS_faccessat2, folder_fd, path, mode, flags));
    }
#endif
    return static_cast<int>(syscall(SYS_faccessat, folder_fd, path, mode));
}

} // namespace
} // namespace softefa::preload

using namespace softefa::preload;

SOFTEFA_EXPORT int access(const char *path, int mode) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return access_node(mode);
    }
    auto *real = real_access.get();
    return real != nullptr ? real(path, mode) : kernel_access(AT_FDCWD, path, mode, 0);
}

SOFTEFA_EXPORT int eaccess(const char *path, int mode) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return access_node(mode);
    }
    auto *real = real_eaccess.get();
    return real != nullptr ? real(path, mode) : kernel_access(AT_FDCWD, path, mode, AT_EACCESS);
}

SOFTEFA_EXPORT int euidaccess(const char *path, int mode) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return access_node(mode);
    }
    auto *real = real_euidaccess.get();
    return real != nullptr ? real(path, mode) : kernel_access(AT_FDCWD, path, mode, AT_EACCESS);
}

SOFTEFA_EXPORT int faccessat(int folder_fd, const char *path, int mode, int flags) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return access_node(mode);
    }
    auto *real = real_faccessat.get();
    return real != nullptr ? real(folder_fd, path, mode, flags) : kernel_access(folder_fd, path, mode, flags);
}

SOFTEFA_EXPORT int lstat(const char *path, struct stat *st) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return stat_node(index, st);
    }
    auto *real = real_lstat.get();
    return real != nullptr ? real(path, st) : kernel_stat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

SOFTEFA_EXPORT int lstat64(const char *path, struct stat64 *st) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return stat_node(index, st);
    }
    auto *real = real_lstat64.get();
    return real != nullptr ? real(path, st) : kernel_stat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

SOFTEFA_EXPORT int fstatat(int folder_fd, const char *path, struct stat *st, int flags) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return stat_node(index, st);
    }
    auto *real = real_fstatat.get();
    return real != nullptr ? real(folder_fd, path, st, flags) : kernel_stat(folder_fd, path, st, flags);
}

SOFTEFA_EXPORT int fstatat64(int folder_fd, const char *path, struct stat64 *st, int flags) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return stat_node(index, st);
    }
    auto *real = real_fstatat64.get();
    return real != nullptr ? real(folder_fd, path, st, flags) : kernel_stat(folder_fd, path, st, flags);
}

// What lstat and fstatat were in programs linked against glibc before 2.33.
SOFTEFA_EXPORT int __lxstat(int version, const char *path, struct stat *st) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return stat_node(index, st);
    }
    auto *real = real_lxstat.get();
    return real != nullptr ? real(version, path, st) : kernel_stat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

SOFTEFA_EXPORT int __lxstat64(int version, const char *path, struct stat64 *st) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return stat_node(index, st);
    }
    auto *real = real_lxstat64.get();
    return real != nullptr ? real(version, path, st) : kernel_stat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

SOFTEFA_EXPORT int __fxstatat(int version, int folder_fd, const char *path, struct stat *st, int flags) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return stat_node(index, st);
    }
    auto *real = real_fxstatat.get();
    return real != nullptr ? real(version, folder_fd, path, st, flags) : kernel_stat(folder_fd, path, st, flags);
}

SOFTEFA_EXPORT int __fxstatat64(int version, int folder_fd, const char *path, struct stat64 *st, int flags) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return stat_node(index, st);
    }
    auto *real = real_fxstatat64.get();
    return real != nullptr ? real(version, folder_fd, path, st, flags) : kernel_stat(folder_fd, path, st, flags);
}

SOFTEFA_EXPORT int statx(int folder_fd, const char *path, int flags, unsigned mask, struct statx *st) noexcept
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return statx_node(index, st);
    }
    auto *real = real_statx.get();
    return real != nullptr ? real(folder_fd, path, flags, mask, st) : static_cast<int>(syscall(SYS_statx, folder_fd, path, flags, mask, st));
}

SOFTEFA_EXPORT int openat(int folder_fd, const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_argument(flags, arguments);
    va_end(arguments);
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return open_node(index, flags);
    }
    auto *real = real_openat.get();
    return real != nullptr ? real(folder_fd, path, flags, mode) : static_cast<int>(syscall(SYS_openat, folder_fd, path, flags, mode));
}

SOFTEFA_EXPORT int openat64(int folder_fd, const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_argument(flags, arguments);
    va_end(arguments);
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return open_node(index, flags);
    }
    auto *real = real_openat64.get();
    return real != nullptr ? real(folder_fd, path, flags, mode)
                           : static_cast<int>(syscall(SYS_openat, folder_fd, path, flags | O_LARGEFILE, mode));
}

/// What openat becomes under _FORTIFY_SOURCE when the flags are not constant.
SOFTEFA_EXPORT int __openat_2(int folder_fd, const char *path, int flags)
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return open_node(index, flags);
    }
    auto *real = real_openat_2.get();
    return real != nullptr ? real(folder_fd, path, flags) : static_cast<int>(syscall(SYS_openat, folder_fd, path, flags, 0));
}

SOFTEFA_EXPORT int __openat64_2(int folder_fd, const char *path, int flags)
{
    unsigned index;
    if (is_our_node(path, &index)) [[unlikely]] {
        return open_node(index, flags);
    }
    auto *real = real_openat64_2.get();
    return real != nullptr ? real(folder_fd, path, flags) : static_cast<int>(syscall(SYS_openat, folder_fd, path, flags | O_LARGEFILE, 0));
}
