/* Questions about this system, each asked in a child process: UCX, verbs and Soft EFA are other people's code, run
 * constructors and may crash; whatever they do, ucx-srd keeps a clean process and answers.
 *
 * Owns: opening those libraries by name, so that a missing one is a sentence and not a failure of the dynamic linker.
 */
#pragma once

#include "tools/install.h"

#include <functional>
#include <string>

namespace tools {

/// Runs 'question' in a child with a time limit and gives what it wrote. False: it crashed or did not end; *text_p says so.
bool ask_child(const std::function<std::string()> &question, std::string *text_p);

/// "1.13.1" of the libucp that a program started now would get; "" if there is none, *error_p says what to install.
std::string ucx_version(std::string *error_p);

/// Whether that version is the one the transport was built for.
bool ucx_supported(const std::string &version);

/// Version the transport was built for, "1.13.1"; "" in a build without the transport.
const char *ucx_built_for() noexcept;

/// "44.0" of the libibverbs that a program would get; "" if there is none.
std::string rdma_core_version(std::string *error_p);

/// Number of EFA devices that verbs shows, without Soft EFA; 0 with the reason in *error_p.
unsigned efa_device_count(std::string *error_p);

/// True if Soft EFA accepts the SOFTEFA_* variables of this process; else *error_p is its line.
bool soft_efa_settings_ok(const install_paths &paths, std::string *error_p);

} // namespace tools
