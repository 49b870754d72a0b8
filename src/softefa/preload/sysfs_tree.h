/* The part of /sys that libibverbs, libfabric and UCX read, as real files and real symlinks in a folder of ours.
 *
 * Owns: what is in the tree, building it, and telling whether an existing one is whole.
 *
 * Invariants
 *   SYS-1  a tree appears under its final name complete, by one rename; nobody sees half of one.
 *   SYS-2  it is never rewritten: libibverbs takes the modification time of a device's folder for the device's identity.
 *          A rebuilt tree of the same content gets the same time, so that it is the same device to running processes.
 */
#pragma once

#include "softefa/settings.h"

namespace softefa::preload {

/// Builds a tree for `values` as folder `name` below the open folder `parent_fd`. 0 or an errno; nothing is left on failure.
int sysfs_build(int parent_fd, const char *name, const settings &values) noexcept;

/// True if `name` below `parent_fd` has every file and link of such a tree.
bool sysfs_is_whole(int parent_fd, const char *name, const settings &values) noexcept;

/// Removes a folder and all below it, never following symlinks.
void remove_tree(int parent_fd, const char *name) noexcept;

} // namespace softefa::preload
