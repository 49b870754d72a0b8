/* What `ucx-srd run` changes in the environment of a command.
 *
 * Owns: the list of variables and the rule that a variable of the user's is never replaced. Pure: the environment comes in
 * as a map, the changes go out as a list; whoever calls it prints or applies them.
 *
 *   LD_PRELOAD       the user's words, then the loader and, with --soft, Soft EFA; a sanitizer's runtime goes first
 *   UCX_MODULE_DIR   the folder of libuct_srd.so.0
 *   SOFTEFA_DEVICES  the N of --soft=N
 *   OMPI_MCA_*       Open MPI takes UCX only for transports and devices it has heard of, and Debian switches UCX off:
 *                    pml, pml_ucx_tls, pml_ucx_devices; under oshrun also opal_common_ucx_opal_mem_hooks, because
 *                    Open MPI 4.1.4's OpenSHMEM crashes at exit without it, whatever the transport.
 * UCX_TLS is the user's choice and never set. osc is not set either: "ucx" alone there would take shared-memory windows
 * away. SYSFS_PATH is set by Soft EFA itself in each process, for as long as the device exists.
 *
 * Invariants
 *   ENV-1: a variable in the result is either LD_PRELOAD or was unset.
 *   ENV-2: applying the result twice changes nothing the second time.
 */
#pragma once

#include "tools/install.h"
#include "tools/launch.h"
#include "tools/options.h"

#include <string>

namespace tools {

/// False: *error_p is one line saying which variable of the user's cannot go together with the options.
bool launch_env(const options &options, const install_paths &paths, const environment &current, changes *changes_p,
                std::string *error_p);

} // namespace tools
