/* What every command that starts another one with our libraries in front needs.
 *
 * Owns: composing LD_PRELOAD, the checks of a library that goes into it, and replacing this process by the command.
 * Refuses to know: which product it is for; whoever calls says its name and its libraries.
 */
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace tools {

using environment = std::map<std::string, std::string>;
using changes     = std::vector<std::pair<std::string, std::string>>;

enum class print_env { no, plain, shell };

/// Exit codes of our own; all others are the command's.
enum exit_code { exit_ok = 0, exit_failed = 1, exit_refused = 2, exit_unused = 3, exit_cannot_run = 126, exit_not_found = 127 };

/// The words of 'current', then those of 'libraries' that are not among them; a sanitizer's runtime that the last library needs
/// goes first.
std::string preload_with(const std::string &current, const std::vector<std::string> &libraries);

/// False: *error_p says why LD_PRELOAD cannot name the file ('what' it is, in words; 'program' is who speaks).
bool check_preload_file(const std::string &path, const char *what, const char *program, std::string *error_p);

/// The variables of a NULL-terminated "NAME=value" array.
environment environment_of(const char *const *variables);

/// One "NAME=value" or "export NAME='value'" line for each change.
std::string changes_text(const changes &changes, print_env form);

/// Applies the changes and becomes the command; says why not, in the name of 'program', and ends with 126 or 127.
[[noreturn]] void exec_command(const char *program, const std::vector<std::string> &command, const changes &changes);

} // namespace tools
