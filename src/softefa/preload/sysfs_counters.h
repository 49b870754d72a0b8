/* The hw_counters of the sysfs tree: what the kernel's EFA driver shows, from what the processes of a domain count.
 *
 * Owns: which counter of ours stands behind which of the driver's, and adding to the files. The files belong to the domain: as with a
 * card, they are the sum over all of its processes, past ones too, since the tree was built.
 *
 * Algorithm: each process adds what it counted since its last visit, at most once a second and when it ends, under a lock on the folder of the
 * counters. The text has a fixed width and is replaced by one write in place, so that no reader sees half a number and no file changes its size.
 * The lock is only tried: whoever fails adds its share at the next visit; at the last one, a fifth of a second is spent on trying. A process
 * that is killed takes the last second with it.
 * Rejected: files per process (`cat` of a device's counter would show a part of the truth), and one shared binary page (many writers).
 *
 *   SYC-1  a counter never goes back.
 */
#pragma once

#include "softefa/dev/counters.h"

#include <cstdint>

namespace softefa::preload {

/// Has the device show its counters from now on. Idempotent.
void sysfs_counters_start() noexcept;

/// Adds the difference between `now` and `before` to the files of device `index` below `tree` (a path). False and
/// errno: EWOULDBLOCK, somebody else is at it, or why the files are not there; nothing was written.
bool sysfs_counters_add(const char *tree, unsigned index, const dev::device_counters &before, const dev::device_counters &now) noexcept;

} // namespace softefa::preload
