/* See info.h. */
#include "tools/info.h"
#include "tools/probe.h"
#include "tools/run.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

namespace tools {

namespace {

void line(const char *what, const std::string &text)
{
    printf("%-12s %s\n", what, text.c_str());
}

/// Starts this program again as commands would be started. False if it cannot be.
bool run_inside(const install_paths &paths, const changes &changes, int *code_p)
{
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        for (const auto &[name, value] : changes) {
            setenv(name.c_str(), value.c_str(), 1);
        }
        execl(paths.program.c_str(), paths.program.c_str(), info_inside_word, nullptr);
        _exit(exit_cannot_run);
    }
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (pid < 0 || !WIFEXITED(status)) {
        return false;
    }
    *code_p = WEXITSTATUS(status);
    return true;
}

/// Lines about what is installed. Returns whether a command could run with it; *next_p is the advice if not.
bool report_installed(const options &options, const install_paths &paths, std::string *next_p)
{
    std::string error;
    bool usable = true;
    const auto missing = [&](const std::string &advice) {
        usable = false;
        if (next_p->empty()) {
            *next_p = advice;
        }
    };

    line("ucx-srd", PACKAGE_VERSION + std::string(*ucx_built_for() != '\0' ? ", built for UCX " : "") + ucx_built_for());
    const std::string ucx = ucx_version(&error);
    if (ucx.empty()) {
        line("UCX", error);
        missing("apt install libucx0 ucx-utils");
    } else if (!ucx_supported(ucx)) {
        line("UCX", ucx + ": not supported, the transport is built for " + ucx_built_for());
        missing("./configure && make install, with the headers of UCX " + ucx + " (libucx-dev)");
    } else {
        line("UCX", ucx + ": supported");
    }
    const std::string rdma_core = rdma_core_version(&error);
    line("rdma-core", rdma_core.empty() ? error : rdma_core);
    if (rdma_core.empty()) {
        missing("apt install libibverbs1 ibverbs-providers");
    }
    for (const auto &[what, path] : {std::pair("loader", paths.loader), std::pair("transport", paths.transport),
                                     std::pair("Soft EFA", paths.soft_efa)}) {
        const bool present = file_exists(path);
        line(what, path + (present ? "" : ": missing"));
        if (!present && (options.soft || path != paths.soft_efa)) {
            missing("make install");
        }
    }
    if (options.soft && file_exists(paths.soft_efa) && !soft_efa_settings_ok(paths, &error)) {
        line("settings", error);
        missing("correct or unset that variable");
    }
    return usable;
}

} // namespace

int info(const options &options, const install_paths &paths)
{
    std::string next, error;
    bool usable = report_installed(options, paths, &next);

    changes changes;
    if (usable && !launch_env(options, paths, environment_of(environ), &changes, &error)) {
        line("environment", error);
        next   = "unset that variable";
        usable = false;
    }
    int code = exit_refused;
    if (usable && !run_inside(paths, changes, &code)) {
        line("devices", "asking UCX and verbs crashed");
    }
    if (usable && code != exit_ok && next.empty()) {
        next = options.soft ? "UCX_LOG_LEVEL=info UCX_MODULE_LOG_LEVEL=debug ucx-srd run --soft ucx_info -d" :
                              "ucx-srd info --soft   (or, on an EFA instance: lsmod | grep efa; ibv_devices)";
    }
    if (next.empty()) {
        next = std::string("ucx-srd run ") + (options.soft ? "--soft " : "") + "ucx_info -d";
    }
    line("next", next);
    return usable && code == exit_ok ? exit_ok : exit_refused;
}

} // namespace tools
