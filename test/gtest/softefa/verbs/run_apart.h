/* This program once more, for one test whose process needs a setting or a domain of its own. */
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

namespace verbs {

extern int errno_at_start; ///< as main found it

inline int wait_for(pid_t child)
{
    int status = -1;
    EXPECT_EQ(child, waitpid(child, &status, 0));
    EXPECT_TRUE(WIFEXITED(status)) << status;
    return WEXITSTATUS(status);
}

/// With one of its disabled tests, a domain of its own and one more setting. Its exit code.
inline int run_apart(const char *suite, const char *test, const char *name, const char *value)
{
    const pid_t child = fork();
    if (child == 0) {
        alarm(300);
        const std::string folder = getenv("SOFTEFA_REGISTRY_DIR") + std::string(".") + test;
        const std::string filter = std::string("--gtest_filter=") + suite + ".DISABLED_" + test;
        setenv(name, value, 1);
        setenv("SOFTEFA_REGISTRY_DIR", folder.c_str(), 1);
        unsetenv("SYSFS_PATH");
        execl("/proc/self/exe", "verbs", "--gtest_also_run_disabled_tests", filter.c_str(), "--gtest_output=", nullptr);
        _exit(127);
    }
    return wait_for(child);
}

} // namespace verbs
