/* The private folder of a domain, and this process's membership in it.
 *
 * Owns: making the folder safely, the file that says what the domain's first process chose, and publishing the sysfs tree.
 *
 * Invariants
 *   REG-1  the folder is ours alone (0700, our uid, no symlink), or nothing in it is used.
 *   REG-2  as long as one process of the domain lives, profile, devices and limits do not change; the next one after the last
 *          may choose anew. Membership is a shared lock on one file, so it ends with the process, however it ends.
 *   REG-3  whoever opens a device is a member at that moment, whatever was closed or forked since it joined.
 *   REG-4  whoever lists devices and was refused joins with a later list, once what refused it is gone. Only settings that are wrong stay wrong.
 */
#pragma once

#include "softefa/settings.h"

#include <cstddef>

namespace softefa::preload {

/// Name of the link to the current tree below the folder; what SYSFS_PATH ends in.
constexpr const char *sysfs_link_name = "softefa-sysfs";

/// Why somebody looks: the list of devices, or the node of one.
enum class look { list, node };

/// Joins the domain, and again if the membership got lost or was refused; a node alone does not ask again. False: not a member; a reason
/// is told to the user when it is not the one told last. False, too, from a signal handler in the middle of a look of the same thread.
bool registry_join(look reason) noexcept;

/// How often a lock is tried for, a millisecond apart: whoever holds it may be stopped.
constexpr unsigned registry_try_count = 2000;
void registry_pause() noexcept; ///< that millisecond

/// The work of registry_join, for a given choice: *lock_fd_p stays open as the membership. False: `error` has the line.
bool registry_enter(const settings &values, int *lock_fd_p, char *error, std::size_t error_size) noexcept;

/// "<registry_dir>/softefa-sysfs"
void registry_sysfs_path(const settings &values, char *path, std::size_t size) noexcept;

} // namespace softefa::preload
