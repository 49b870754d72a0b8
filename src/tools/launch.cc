/* See launch.h. */
#include "tools/launch.h"

#include "tools/install.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace tools {

namespace {

/// Words of LD_PRELOAD, which separates at spaces and colons.
std::vector<std::string> preload_words(const std::string &text)
{
    std::vector<std::string> words;
    size_t at = 0;
    while ((at = text.find_first_not_of(" \t\n:", at)) != std::string::npos) {
        const size_t end = text.find_first_of(" \t\n:", at);
        words.push_back(text.substr(at, end - at));
        at = end;
        if (end == std::string::npos) {
            break;
        }
    }
    return words;
}

} // namespace

std::string preload_with(const std::string &current, const std::vector<std::string> &libraries)
{
    std::vector<std::string> words = preload_words(current);
    const auto add = [&](const std::string &word, bool first) {
        if (std::find(words.begin(), words.end(), word) == words.end()) {
            words.insert(first ? words.begin() : words.end(), word);
        }
    };
    for (const std::string &library : libraries) {
        add(library, false);
    }
    const std::string runtime = libraries.empty() ? "" : sanitizer_runtime_of(libraries.back());
    if (!runtime.empty()) {
        add(runtime, true);
    }
    std::string text;
    for (const std::string &word : words) {
        text += (text.empty() ? "" : ":") + word;
    }
    return text;
}

bool check_preload_file(const std::string &path, const char *what, const char *program, std::string *error_p)
{
    if (!preloadable(path)) {
        *error_p = path + ": LD_PRELOAD cannot name a path with a space or a colon: install " + program + " elsewhere";
        return false;
    }
    if (!file_exists(path) && access("/proc/self/exe", F_OK) != 0) {
        *error_p = "/proc is not mounted: " + std::string(program) + " finds its own libraries by it, and programs their devices";
        return false;
    }
    if (!file_exists(path)) {
        *error_p = path + " is missing (" + what + "): run 'make install' again";
        return false;
    }
    return true;
}

environment environment_of(const char *const *variables)
{
    environment result;
    for (; *variables != nullptr; ++variables) {
        const char *equals = strchr(*variables, '=');
        if (equals != nullptr) {
            result.emplace(std::string(*variables, equals), equals + 1);
        }
    }
    return result;
}

std::string changes_text(const changes &changes, print_env form)
{
    std::string text;
    for (const auto &[name, value] : changes) {
        if (form != print_env::shell) {
            text += name + "=" + value + "\n";
            continue;
        }
        std::string quoted;
        for (const char c : value) {
            quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
        }
        text += "export " + name + "='" + quoted + "'\n";
    }
    return text;
}

void exec_command(const char *program, const std::vector<std::string> &command, const changes &changes)
{
    for (const auto &[name, value] : changes) {
        setenv(name.c_str(), value.c_str(), 1);
    }
    std::vector<char *> arguments;
    for (const std::string &word : command) {
        arguments.push_back(const_cast<char *>(word.c_str()));
    }
    arguments.push_back(nullptr);
    execvp(arguments[0], arguments.data());
    const int error = errno;
    fprintf(stderr, "%s: %s: %s\n", program, command[0].c_str(), strerror(error));
    _exit(error == ENOENT ? exit_not_found : exit_cannot_run);
}

} // namespace tools
