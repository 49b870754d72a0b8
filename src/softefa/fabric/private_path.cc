/* See private_path.h. */
#include "softefa/fabric/private_path.h"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::fabric {

int make_private_folder(const char *path) noexcept
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return errno;
    // O_PATH: needs no right on the folder itself, and what is looked at is what is changed.
    const auto fd = static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (fd < 0)
        return errno;
    struct stat about;
    int         error = fstatat(fd, "", &about, AT_EMPTY_PATH) == 0 ? 0 : errno;
    if (error == 0 && about.st_uid == geteuid() && (about.st_mode & 077) == 0 && (about.st_mode & 0700) != 0700) {
        char itself[32];
        std::snprintf(itself, sizeof(itself), "/proc/self/fd/%d", fd);
        error = chmod(itself, 0700) == 0 ? 0 : errno;
    }
    syscall(SYS_close, fd);
    return error;
}

int open_private_file(int folder, const char *name, int flags) noexcept
{
    const auto  fd = static_cast<int>(syscall(SYS_openat, folder, name, flags | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    struct stat about;
    // Whoever made it has it open, whatever its mode.
    if (fd >= 0 && fstatat(fd, "", &about, AT_EMPTY_PATH) == 0 && (about.st_mode & 0600) != 0600)
        (void)!fchmod(fd, 0600);
    return fd;
}

bool permit(int folder, const char *name, mode_t mode) noexcept { return fchmodat(folder, name, mode, 0) == 0; }

} // namespace softefa::fabric
