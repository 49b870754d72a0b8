/* See run.h. */
#include "tools/run.h"
#include "tools/probe.h"
#include "tools/program_check.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fstream>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

namespace tools {

namespace {

constexpr char require_variable[] = "UCX_SRD_REQUIRE_DIR";

void refuse(const std::string &line)
{
    fprintf(stderr, "ucx-srd: %s\n", line.c_str());
}

bool check_ucx(std::string *error_p)
{
    if (*ucx_built_for() == '\0') {
        return true; // a build of Soft EFA alone
    }
    const std::string version = ucx_version(error_p);
    if (version.empty()) {
        return false;
    }
    if (!ucx_supported(version)) {
        *error_p = "UCX " + version + " is installed, the transport is built for UCX " + ucx_built_for() +
                   ": build it for that version, or say --no-check if the command brings its own UCX";
        return false;
    }
    return true;
}

// ---- --require -------------------------------------------------------------------------------------------------

volatile sig_atomic_t child_pid = 0;

extern "C" void forward_signal(int number, siginfo_t *about, void *)
{
    const int  saved_errno = errno;
    const bool from_terminal = (number == SIGINT || number == SIGQUIT) && about->si_code == SI_KERNEL; // the command has it already
    if (child_pid > 0 && !from_terminal) {
        kill(static_cast<pid_t>(child_pid), number);
    }
    errno = saved_errno;
}

/// The command in a child; its exit code, or 128 plus its signal.
int supervise(const std::vector<std::string> &command, const changes &changes)
{
    const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
    struct sigaction action = {};
    action.sa_sigaction = forward_signal;
    action.sa_flags     = SA_RESTART | SA_SIGINFO;
    const auto inherited = signal(SIGCHLD, SIG_DFL); // an ignored one would take the exit code away
    const pid_t pid = fork();
    if (pid == 0) {
        signal(SIGCHLD, inherited);
        exec_command("ucx-srd", command, changes);
    }
    if (pid < 0) {
        refuse(std::string("fork: ") + strerror(errno));
        return exit_cannot_run;
    }
    child_pid = pid;
    for (const int number : forwarded) {
        sigaction(number, &action, nullptr);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    child_pid = 0;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void remove_folder(const std::string &folder)
{
    DIR *listing = opendir(folder.c_str());
    if (listing == nullptr) {
        return;
    }
    while (const struct dirent *entry = readdir(listing)) {
        unlinkat(dirfd(listing), entry->d_name, 0); // "." and ".." refuse
    }
    closedir(listing);
    rmdir(folder.c_str());
}

int run_required(const options &options, changes changes)
{
    const char *temporary = getenv("TMPDIR");
    std::string folder = std::string(temporary != nullptr && *temporary != '\0' ? temporary : "/tmp") +
                         "/ucx-srd-require.XXXXXX";
    if (mkdtemp(folder.data()) == nullptr) {
        refuse(folder + ": " + strerror(errno) + ": set TMPDIR to a writable folder");
        return exit_refused;
    }
    changes.emplace_back(require_variable, folder);
    const int code = supervise(options.command, changes);
    const unsigned long long bytes = require_bytes(folder);
    remove_folder(folder);
    if (code != 0 || bytes != 0) {
        return code;
    }
    refuse("--require: the command succeeded, but srd carried no bytes on this host: is UCX_TLS set to something "
           "else, or is the command not using UCX? See 'ucx-srd info'");
    return exit_unused;
}

} // namespace

bool run_checks(const options &options, const install_paths &paths, std::string *error_p)
{
    if (!check_preload_file(paths.loader, "the loader of the transport", "ucx-srd", error_p) ||
        !check_preload_file(paths.transport, "the transport", "ucx-srd", error_p)) {
        return false;
    }
    if (options.soft &&
        (!check_preload_file(paths.soft_efa, "Soft EFA", "ucx-srd", error_p) || !soft_efa_settings_ok(paths, error_p))) {
        return false;
    }
    if (!options.check) {
        return true;
    }
    if (!options.command.empty() && !command_takes_preloads(options.command[0], error_p)) {
        return false;
    }
    if (!check_ucx(error_p)) {
        return false;
    }
    if (!options.soft && efa_device_count(error_p) == 0) {
        *error_p += ": use 'ucx-srd run --soft' for a device in software, or --no-check if the command runs elsewhere";
        return false;
    }
    return true;
}

unsigned long long require_bytes(const std::string &folder)
{
    unsigned long long total = 0;
    DIR *listing = opendir(folder.c_str());
    if (listing == nullptr) {
        return 0;
    }
    while (const struct dirent *entry = readdir(listing)) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        std::ifstream file(folder + "/" + entry->d_name);
        std::string line;
        while (std::getline(file, line)) {
            unsigned long long bytes;
            if (sscanf(line.c_str(), "bytes %llu", &bytes) == 1) {
                total += bytes;
            }
        }
    }
    closedir(listing);
    return total;
}

int run(const options &options, const install_paths &paths)
{
    std::string error;
    changes     changes;
    if (!run_checks(options, paths, &error) ||
        !launch_env(options, paths, environment_of(environ), &changes, &error)) {
        refuse(error);
        return exit_refused;
    }
    if (options.print_env != print_env::no) {
        fputs(changes_text(changes, options.print_env).c_str(), stdout);
        return exit_ok;
    }
    if (options.require) {
        return run_required(options, changes);
    }
    exec_command("ucx-srd", options.command, changes);
}

} // namespace tools
