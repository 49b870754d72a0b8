/* See registry.h. */
#include "softefa/fabric/registry.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace softefa::fabric {

namespace {

std::uint64_t mix(std::uint64_t hash, const void *bytes, std::uint64_t size) noexcept // FNV-1a
{
    const auto *at = static_cast<const unsigned char *>(bytes);
    for (std::uint64_t i = 0; i < size; ++i)
        hash = (hash ^ at[i]) * 0x100000001b3u;
    return hash;
}

std::uint64_t mix(std::uint64_t hash, const char *text) noexcept
{
    std::uint64_t size = 0;
    while (text[size] != '\0')
        ++size;
    return mix(hash, text, size);
}

} // namespace

std::uint64_t domain_identity(const char *folder, const char *domain) noexcept
{
    std::uint64_t hash = mix(0xcbf29ce484222325u, domain);
    const uid_t   user = geteuid();
    hash = mix(hash, &user, sizeof(user));

    char      boot[64] = {};
    const int fd       = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, boot, sizeof(boot) - 1) < 0)
            boot[0] = '\0';
        close(fd);
    }
    hash = mix(hash, boot);

    struct stat about;
    if (folder[0] != '\0' && (mkdir(folder, 0700) == 0 || true) && stat(folder, &about) == 0) {
        hash = mix(hash, &about.st_dev, sizeof(about.st_dev));
        hash = mix(hash, &about.st_ino, sizeof(about.st_ino));
    }
    return hash;
}

} // namespace softefa::fabric
