// Lines to standard error: they reach who reads, and harm nobody where nobody does.
#include "softefa/preload/report.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <csignal>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

namespace softefa::preload {
namespace {

/// Exit status of a process that reports one line, errno 7 before and after, with that as its standard error and SIGPIPE as it is at a start.
int reported_to(int standard_error)
{
    const pid_t pid = fork();
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        signal(SIGPIPE, SIG_DFL);
        sigprocmask(SIG_SETMASK, &none, nullptr);
        dup2(standard_error, STDERR_FILENO);
        errno = 7;
        report(severity::error, "%s of %d", "a line", 7);
        sigset_t after;
        sigprocmask(SIG_SETMASK, nullptr, &after);
        _exit(errno == 7 && sigismember(&after, SIGPIPE) == 0 ? 0 : 1);
    }
    int state = -1;
    waitpid(pid, &state, 0);
    return state;
}

TEST(report, line_reaches_its_reader)
{
    int ends[2];
    ASSERT_EQ(0, pipe(ends));
    EXPECT_EQ(0, reported_to(ends[1]));
    char          text[100];
    const ssize_t length = read(ends[0], text, sizeof(text));
    ASSERT_GT(length, 0);
    EXPECT_EQ("softefa: a line of 7\n", std::string(text, static_cast<std::size_t>(length)));
    close(ends[0]);
    close(ends[1]);
}

TEST(report, line_without_a_reader_ends_no_process)
{
    int ends[2];
    ASSERT_EQ(0, pipe(ends));
    close(ends[0]);
    const int state = reported_to(ends[1]);
    close(ends[1]);
    EXPECT_TRUE(WIFEXITED(state)) << "signal " << WTERMSIG(state);
    EXPECT_EQ(0, WEXITSTATUS(state));
}

} // namespace
} // namespace softefa::preload
