/* Folders and files of one user, whatever the umask.
 *
 * Owns: the permissions of what is made in the file system. A program that writes private files may have a umask that takes bits from their owner
 * as well (0177): a folder made so could not be entered, by nobody, also later, when its maker is gone.
 * Refuses to know: what is in them.
 */
#pragma once

#include <sys/types.h>

namespace softefa::fabric {

/// Makes the folder unless it exists. One that is ours and nobody else's, but lacks rights for ourselves, gets 0700. 0 or an errno.
int make_private_folder(const char *path) noexcept;
/// Opens or makes a file that its owner may read and write, and nobody else may. The descriptor, or -1 and errno.
int open_private_file(int folder, const char *name, int flags) noexcept;
/// After something was made: the permissions that were meant. False and errno: it failed.
bool permit(int folder, const char *name, mode_t mode) noexcept;

} // namespace softefa::fabric
