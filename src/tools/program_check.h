/* Whether a program can have a library preloaded.
 *
 * Owns: finding the program that a command names, and what its file says about LD_PRELOAD. Reads headers only; every offset in the file
 * is checked before it is used.
 */
#pragma once

#include <string>

namespace tools {

/// The file that execvp would run for 'command', by $PATH; "" if there is none.
std::string find_program(const std::string &command, const char *path_variable);

/// "" if a 64-bit glibc library can be preloaded into the program (scripts included: their interpreter decides); else why not, in words
/// that go behind the program's name.
std::string preload_obstacle(const std::string &file);

/// The same of a command, found as the shell would. False: *error_p is one line. A command that is not there is left to the one who starts it.
bool command_takes_preloads(const std::string &command, std::string *error_p);

} // namespace tools
