/* The library's constructor: what has to be in place before the program's main.
 *
 * Owns: two environment variables, and that the originals are looked up. Nothing else happens here (IPO-2, of interpose.cc): this library is in sh and
 * mpirun too.
 */
#include "softefa/preload/original.h"
#include "softefa/preload/registry.h"
#include "softefa/preload/report.h"
#include "softefa/settings.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace softefa::preload {
namespace {

/// True if `path` is where some Soft EFA process put its tree: inherited from a parent, maybe of another domain.
bool is_soft_tree(const char *path)
{
    const char *last = strrchr(path, '/');
    return last != nullptr && strcmp(last + 1, sysfs_link_name) == 0;
}

/// The variables: where libibverbs finds the tree, and that libfabric must not bypass the verbs calls that drive the engine, unless the helper thread
/// stands in for them.
__attribute__((constructor)) void prepare_process()
{
    const int saved_errno = errno; // main begins with 0
    resolve_opening();
    resolve_closing();
    const settings *s = settings_get(nullptr);
    if (s == nullptr || getuid() != geteuid()) {
        errno = saved_errno;
        return; // complaints wait until somebody looks for a device
    }
    char path[160];
    registry_sysfs_path(*s, path, sizeof(path));
    const char *set = getenv("SYSFS_PATH");
    if (set == nullptr || (is_soft_tree(set) && strcmp(set, path) != 0)) {
        setenv("SYSFS_PATH", path, 1);
    } else if (strcmp(set, path) != 0) {
        report(severity::debug, "SYSFS_PATH=%s was set before and is kept; the devices are below %s", set, path);
    }
    if (s->direct == 0) {
        setenv("FI_EFA_USE_DATA_PATH_DIRECT", "0", 0);
    }
    errno = saved_errno;
}

} // namespace
} // namespace softefa::preload
