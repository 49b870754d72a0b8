/* `softefa run` and `softefa settings`: which settings hold, and what they change in the environment of a command.
 *
 * Settings of the command line win over those of the environment, as with env(1); together they are checked against the one table
 * (softefa/settings.cc) before anything runs, so that a mistake is one line here and not one of each process of a job.
 *
 *   LD_PRELOAD   the user's words, then Soft EFA; a sanitizer's runtime goes first
 *   SOFTEFA_*    what the command line gives
 * SYSFS_PATH and FI_EFA_USE_DATA_PATH_DIRECT are set by Soft EFA itself in each process that it is loaded into.
 */
#pragma once

#include "softefa/settings.h"
#include "tools/install.h"
#include "tools/launch.h"
#include "tools/soft_options.h"

#include <string>

namespace tools {

/// The settings that hold in 'current' with the options on top. False: *error_p is one line.
bool soft_settings(const soft_options &options, const environment &current, softefa::settings *settings_p, std::string *error_p);

/// What to change in 'current' for the command. False: *error_p is one line.
bool soft_env(const soft_options &options, const install_paths &paths, const environment &current, changes *changes_p,
              std::string *error_p);

/// softefa run: returns the exit code, or does not return.
int soft_run(const soft_options &options, const install_paths &paths);

/// softefa settings, softefa limits.
int soft_list_settings(const soft_options &options);

} // namespace tools
