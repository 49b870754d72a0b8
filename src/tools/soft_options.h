/* The command line of softefa, parsed.
 *
 * Owns: the grammar, and the line that says what is wrong with it. Pure: no environment, no file, no output. Settings that options
 * give (--profile, --devices, --domain, --set) come out as SOFTEFA_* assignments; whether their values make sense is for the table of
 * settings to say.
 */
#pragma once

#include "tools/launch.h"

#include <string>
#include <vector>

namespace tools {

enum class soft_verb { run, status, dump, clean, settings, limits, help, version };

struct soft_options {
    soft_verb                verb      = soft_verb::help;
    changes                  settings;            ///< SOFTEFA_NAME, value: in the order given
    tools::print_env         print_env = print_env::no;
    bool                     check     = true;    ///< of run: look at the command before it runs
    bool                     json      = false;   ///< of status
    bool                     all       = false;   ///< of status and clean: every domain of this user
    bool                     markdown  = false;   ///< of settings: a table of the defaults, for the pages
    bool                     dry_run   = false;   ///< of clean: only say what would go
    unsigned                 watch_ms  = 0;       ///< of status: pause between two looks; 0 = look once
    int                      pid       = 0;       ///< of dump; 0: a file
    std::string              file;                ///< of dump: what a failed process kept
    std::vector<std::string> command;             ///< of run; may be empty only with --print-env
};

/// Arguments without the program's name. False: *error_p is one line that names the argument and the way out.
bool soft_options_parse(const std::vector<std::string> &arguments, soft_options *options_p, std::string *error_p);

/// The text of --help.
const char *soft_options_help() noexcept;

} // namespace tools
