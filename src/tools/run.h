/* `ucx-srd run`: checks, then the command.
 *
 * Without --require the command replaces this process, so that signals, job control and mpirun see nothing in between.
 * With --require a parent stays, passes signals on, and looks at what the transport left in a private folder.
 *
 * Protocol of --require: UCX_SRD_REQUIRE_DIR names the folder; the transport appends one line "bytes <n>" to the file
 * named by its pid there whenever it closes an interface. The sum must not be zero. Ranks on other hosts are not seen.
 */
#pragma once

#include "tools/launch_env.h"

namespace tools {

/// The checks before anything runs. False: *error_p is one line that names the thing and the way out.
bool run_checks(const options &options, const install_paths &paths, std::string *error_p);

/// Sum of the "bytes <n>" lines of all files in a folder; lines of another form are skipped.
unsigned long long require_bytes(const std::string &folder);

/// Does it all; returns the exit code, or does not return.
int run(const options &options, const install_paths &paths);

} // namespace tools
