/* See soft_run.h. */
#include "tools/soft_run.h"

#include "tools/program_check.h"
#include "tools/soft_lock.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern char **environ;

namespace tools {

namespace {

constexpr char program[]     = "softefa";
constexpr char soft_folder[] = "/softefa-sysfs"; ///< how SYSFS_PATH ends if a Soft EFA process set it

bool ends_with(const std::string &text, const std::string &end)
{
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

bool check_command(const soft_options &options, std::string *error_p)
{
    return !options.check || options.command.empty() || command_takes_preloads(options.command[0], error_p);
}

/// One line for each setting, in columns; long meanings go on below.
std::string settings_text(const softefa::settings &values, bool limits_only)
{
    const softefa::settings defaults;
    std::string             text;
    char                    line[512];
    snprintf(line, sizeof(line), "%-24s %-12s %-12s %-24s %s\n", "NAME", "VALUE", "DEFAULT", "RANGE", "MEANING");
    text = line;
    for (unsigned i = 0; i < softefa::settings_count(); ++i) {
        softefa::setting_row now, initial;
        softefa::settings_row(i, values, &now);
        softefa::settings_row(i, defaults, &initial);
        if (limits_only && !now.shared) {
            continue;
        }
        snprintf(line, sizeof(line), "%-24s %-12s %-12s %-24s %s\n", now.name, now.value, initial.value, now.range, now.help);
        text += line;
    }
    return text;
}

/// docs/softefa-settings.md, but for its head.
std::string settings_markdown()
{
    const softefa::settings defaults;
    std::string             text = "| setting | default | range | for all processes of a domain | meaning |\n|---|---|---|---|---|\n";
    for (unsigned i = 0; i < softefa::settings_count(); ++i) {
        softefa::setting_row row;
        softefa::settings_row(i, defaults, &row);
        text += std::string("| `SOFTEFA_") + row.name + "` | " + row.value + " | " + row.range + " | " + (row.shared ? "yes" : "") + " | " + row.help + " |\n";
    }
    return text;
}

} // namespace

bool soft_settings(const soft_options &options, const environment &current, softefa::settings *settings_p, std::string *error_p)
{
    environment effective = current;
    for (const auto &[name, value] : options.settings) {
        effective[name] = value;
    }
    std::vector<std::string>  words;
    std::vector<const char *> pointers;
    for (const auto &[name, value] : effective) {
        words.push_back(name + "=" + value);
    }
    for (const std::string &word : words) {
        pointers.push_back(word.c_str());
    }
    pointers.push_back(nullptr);
    char error[2048] = "";
    if (!softefa::settings_parse(pointers.data(), settings_p, error, sizeof(error))) {
        *error_p = error;
        return false;
    }
    return true;
}

bool soft_env(const soft_options &options, const install_paths &paths, const environment &current, changes *changes_p,
              std::string *error_p)
{
    changes_p->clear();
    softefa::settings checked;
    if (!soft_settings(options, current, &checked, error_p)) {
        return false;
    }
    const auto sysfs = current.find("SYSFS_PATH");
    if (sysfs != current.end() && !ends_with(sysfs->second, soft_folder)) {
        *error_p = "SYSFS_PATH=" + sysfs->second + " is set, so rdma-core would look for devices there and not find Soft EFA's: unset it";
        return false;
    }
    const auto        preload  = current.find("LD_PRELOAD");
    const std::string before   = preload == current.end() ? "" : preload->second;
    const std::string combined = preload_with(before, {paths.soft_efa});
    if (combined != before) {
        changes_p->emplace_back("LD_PRELOAD", combined);
    }
    environment given; // the last word about a name counts
    for (const auto &[name, value] : options.settings) {
        given[name] = value;
    }
    for (const auto &[name, value] : given) {
        const auto found = current.find(name);
        if (found == current.end() || found->second != value) {
            changes_p->emplace_back(name, value);
        }
    }
    // A sanitizer's runtime in front of programs that were not built with it reports their leaks, and fails them.
    if (!sanitizer_runtime_of(paths.soft_efa).empty() && current.find("ASAN_OPTIONS") == current.end()) {
        changes_p->emplace_back("ASAN_OPTIONS", "detect_leaks=0");
    }
    return true;
}

int soft_run(const soft_options &options, const install_paths &paths)
{
    std::string error;
    changes     changes;
    if (!check_preload_file(paths.soft_efa, "Soft EFA", program, &error) ||
        !soft_env(options, paths, environment_of(environ), &changes, &error) || !check_command(options, &error)) {
        fprintf(stderr, "%s: %s\n", program, error.c_str());
        return exit_refused;
    }
    if (options.print_env != print_env::no) {
        fputs(changes_text(changes, options.print_env).c_str(), stdout);
        return exit_ok;
    }
    softefa::settings wish;
    if (soft_settings(options, environment_of(environ), &wish, &error)) {
        error = domain_refusal(wish);
    }
    if (!error.empty()) { // the library would say the same, and COMMAND find no device
        fprintf(stderr, "%s: %s\n", program, error.c_str());
        return exit_refused;
    }
    exec_command(program, options.command, changes);
}

int soft_list_settings(const soft_options &options)
{
    softefa::settings values;
    std::string       error;
    if (!soft_settings(options, environment_of(environ), &values, &error)) {
        fprintf(stderr, "%s: %s\n", program, error.c_str());
        return exit_refused;
    }
    if (options.markdown) {
        fputs(settings_markdown().c_str(), stdout);
        return exit_ok;
    }
    fputs(settings_text(values, options.verb == soft_verb::limits).c_str(), stdout);
    return exit_ok;
}

} // namespace tools
