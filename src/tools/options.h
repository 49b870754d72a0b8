/* The command line of ucx-srd, parsed.
 *
 * Owns: the grammar, and the line that says what is wrong with it. Pure: no environment, no file, no output.
 */
#pragma once

#include "tools/launch.h"

#include <string>
#include <vector>

namespace tools {

enum class verb { run, info, help, version };

struct options {
    tools::verb              verb          = verb::help;
    bool                     soft          = false;
    unsigned                 device_count  = 0;     ///< of --soft=N; 0 = not given
    bool                     require       = false; ///< fail if srd carried no bytes
    bool                     check         = true;  ///< look for a device and for UCX before running
    tools::print_env         print_env     = print_env::no;
    std::vector<std::string> command;               ///< of run; may be empty only with --print-env
};

/// Largest N of --soft=N: what Soft EFA accepts.
constexpr unsigned device_count_max = 32;

/// Arguments without the program's name. False: *error_p is one line that names the argument and the way out.
bool options_parse(const std::vector<std::string> &arguments, options *options_p, std::string *error_p);

/// The text of --help.
const char *options_help() noexcept;

} // namespace tools
