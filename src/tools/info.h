/* `ucx-srd info`: what this machine has, what the transport can do with it, what is missing, what to type next.
 *
 * The report is made in two processes: this one looks at what is installed; then it starts itself once more in the
 * environment that `ucx-srd run` would give a command, and that second process asks verbs and UCX what they see there.
 * So the lines about devices and lanes are true for commands, not only for this program.
 */
#pragma once

#include "tools/launch_env.h"

namespace tools {

/// The whole report on stdout; exit_ok if a command would find the transport on a device, else exit_refused.
int info(const options &options, const install_paths &paths);

/// The second process. Lines for the report on stdout; 0 if UCX offers srd on at least one device.
int info_inside();

/// First argument that starts the second process.
constexpr char info_inside_word[] = "--info-inside";

} // namespace tools
