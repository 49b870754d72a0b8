/* Runs these tests with libsoftefa.so preloaded and a domain of their own, which is removed afterwards.
 *
 * The program starts itself again: the loader reads LD_PRELOAD only at the start of a process.
 */
#include "canary.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <ftw.h>
#include <link.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

namespace verbs {
int errno_at_start = -1;
}

namespace {

int remove_entry(const char *path, const struct stat *, int, FTW *) { return remove(path); }

/// A sanitizer's runtime must come first in LD_PRELOAD.
std::string sanitizer_runtime()
{
    std::string found;
    dl_iterate_phdr(
        [](dl_phdr_info *object, std::size_t, void *argument) {
            const std::string name = object->dlpi_name;
            if (name.find("libasan.so") != std::string::npos || name.find("libtsan.so") != std::string::npos) {
                *static_cast<std::string *>(argument) = name + ":";
            }
            return 0;
        },
        &found);
    return found;
}

int run_preloaded(char **argv)
{
    char folder[] = "/tmp/softefa-test-XXXXXX";
    if (mkdtemp(folder) == nullptr) {
        perror("mkdtemp");
        return 1;
    }
    const pid_t child = fork();
    if (child == 0) {
        setenv("LD_PRELOAD", (sanitizer_runtime() + SOFTEFA_LIBRARY).c_str(), 1);
        setenv("SOFTEFA_REGISTRY_DIR", (std::string(folder) + "/domain").c_str(), 1);
        setenv("SOFTEFA_DMABUF", "1", 1);
        setenv("VERBS_TEST_PRELOADED", "1", 1);
        setenv("VERBS_TEST_ERRNO", std::to_string(verbs::errno_at_start).c_str(), 1); // what main finds without us: other libraries begin, too
        setenv("SOFTEFA_PROFILE", "efa3", 0); // the newest; an older rdma-core uses of it what it knows
        unsetenv("SYSFS_PATH");
        // Addresses must come back as they do without a sanitizer: reuse is what the lifetime tests are about.
        const char *asan = getenv("ASAN_OPTIONS");
        setenv("ASAN_OPTIONS", (std::string(asan != nullptr ? asan : "") + ":quarantine_size_mb=0:thread_local_quarantine_size_kb=0").c_str(), 1);
        execv("/proc/self/exe", argv);
        perror("execv");
        _exit(127);
    }
    int status = 1;
    waitpid(child, &status, 0);
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    if (WIFSIGNALED(status)) {
        fprintf(stderr, "killed by signal %d\n", WTERMSIG(status));
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

} // namespace

int main(int argc, char **argv)
{
    verbs::errno_at_start = errno;
    if (dlsym(RTLD_DEFAULT, "softefa_settings_check") == nullptr) {
        if (getenv("VERBS_TEST_PRELOADED") != nullptr) {
            fprintf(stderr, "%s cannot be preloaded\n", SOFTEFA_LIBRARY);
            return 1;
        }
        return run_preloaded(argv);
    }
    if (argc >= 3 && std::string(argv[1]) == "--canary") {
        return verbs::canary_main(argv[2], argv[3]);
    }
    alarm(900); // a hang is a failure
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
