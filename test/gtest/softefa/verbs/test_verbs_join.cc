// A process that is refused when it looks for devices, and looks again when the reason is gone (REG-4). Each in a process and a domain of its own:
// one that was a member once is not refused like this.
#include "run_apart.h"
#include "verbs_endpoint.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <pthread.h>
#include <string>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace verbs {
namespace {

int device_count()
{
    int          count = 0;
    ibv_device **list  = ibv_get_device_list(&count);
    if (list != nullptr) {
        ibv_free_device_list(list);
    }
    return list != nullptr ? count : 0;
}

std::string domain_folder() { return getenv("SOFTEFA_REGISTRY_DIR"); }

/// A message to oneself through the first device.
void expect_that_it_works()
{
    auto context = open_device();
    ASSERT_NE(nullptr, context);
    endpoint e(context.get(), {});
    ASSERT_TRUE(e.ok());
    ibv_ah *ah = e.ah_to(e);
    ASSERT_NE(nullptr, ah);
    ASSERT_EQ(0, e.recv(1, 0, 64));
    ASSERT_EQ(0, e.send(2, e, ah, {e.sge(100, 8)}));
    for (int i = 0; i < 2; ++i) {
        const auto done = e.poll();
        ASSERT_TRUE(done.has_value());
        EXPECT_EQ(IBV_WC_SUCCESS, done->status);
    }
}

/// Standard error of this process, from the constructor on.
class said {
public:
    said()
    {
        EXPECT_EQ(0, pipe2(ends_, O_CLOEXEC | O_NONBLOCK));
        EXPECT_EQ(STDERR_FILENO, dup2(ends_[1], STDERR_FILENO));
    }
    /// What was added since the last call.
    std::string more() const
    {
        std::string text;
        char        piece[4096];
        for (ssize_t size = 0; (size = read(ends_[0], piece, sizeof(piece))) > 0;) {
            text.append(piece, static_cast<std::size_t>(size));
        }
        return text;
    }

private:
    int ends_[2] = {-1, -1};
};

std::size_t line_count(const std::string &text) { return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')); }

/// Until the destructor every number that is free now is above the limit.
class no_descriptors {
public:
    no_descriptors()
    {
        EXPECT_EQ(0, getrlimit(RLIMIT_NOFILE, &before_));
        const int lowest = dup(STDIN_FILENO);
        close(lowest);
        rlimit low   = before_;
        low.rlim_cur = static_cast<rlim_t>(lowest);
        EXPECT_EQ(0, setrlimit(RLIMIT_NOFILE, &low));
    }
    ~no_descriptors() { EXPECT_EQ(0, setrlimit(RLIMIT_NOFILE, &before_)); }
    no_descriptors(const no_descriptors &)            = delete;
    no_descriptors &operator=(const no_descriptors &) = delete;

private:
    rlimit before_{};
};

TEST(verbs_join, DISABLED_looks_again_after_a_shortage)
{
    const said all;
    {
        const no_descriptors here;
        EXPECT_EQ(0, device_count());
        const std::string why = all.more();
        EXPECT_EQ(1u, line_count(why)) << why;
        EXPECT_NE(std::string::npos, why.find(strerror(EMFILE))) << why;
        EXPECT_EQ(0, device_count());
        EXPECT_EQ("", all.more()) << "the same once more";
    }
    ASSERT_EQ(0, chmod(domain_folder().c_str(), 0755));
    EXPECT_EQ(0, device_count());
    const std::string why = all.more();
    EXPECT_EQ(1u, line_count(why)) << why;
    EXPECT_NE(std::string::npos, why.find("mode 0700")) << "another reason is told: " << why;
    ASSERT_EQ(0, chmod(domain_folder().c_str(), 0700));
    EXPECT_EQ(1, device_count());
    expect_that_it_works();
    EXPECT_EQ("", all.more());
}

TEST(verbs_join, looks_again_after_a_shortage)
{
    EXPECT_EQ(0, run_apart("verbs_join", "looks_again_after_a_shortage", "SOFTEFA_LOG_LEVEL", "error"));
}

/// Started by the test below: a member that chose otherwise, until it is killed. Says so on descriptor 3.
TEST(verbs_join, DISABLED_member_with_one_device)
{
    alarm(300);
    ASSERT_EQ(1, device_count());
    ASSERT_EQ(1, write(3, "m", 1));
    for (;;) {
        pause();
    }
}

pid_t start_member_with_one_device(int tell_fd)
{
    const pid_t child = fork();
    if (child == 0) {
        setenv("SOFTEFA_DEVICES", "1", 1);
        dup2(tell_fd, 3);
        fcntl(3, F_SETFD, 0); // where it was 3 already
        execl("/proc/self/exe", "verbs", "--gtest_also_run_disabled_tests", "--gtest_filter=verbs_join.DISABLED_member_with_one_device",
              "--gtest_output=", nullptr);
        _exit(127);
    }
    return child;
}

TEST(verbs_join, DISABLED_looks_again_after_the_end_of_another_choice)
{
    int told[2];
    ASSERT_EQ(0, pipe2(told, O_CLOEXEC));
    const pid_t member = start_member_with_one_device(told[1]);
    ASSERT_GT(member, 0);
    close(told[1]);
    char       letter = 0;
    const said all;
    EXPECT_EQ(1, read(told[0], &letter, 1));
    EXPECT_EQ(0, device_count());
    const std::string why = all.more();
    EXPECT_NE(std::string::npos, why.find("SOFTEFA_DEVICES=2 refused")) << why;
    EXPECT_EQ(0, device_count());
    EXPECT_EQ("", all.more());
    EXPECT_EQ(0, kill(member, SIGKILL));
    EXPECT_EQ(member, waitpid(member, nullptr, 0));
    EXPECT_EQ(2, device_count());
    expect_that_it_works();
    close(told[0]);
}

TEST(verbs_join, looks_again_after_the_end_of_another_choice)
{
    EXPECT_EQ(0, run_apart("verbs_join", "looks_again_after_the_end_of_another_choice", "SOFTEFA_DEVICES", "2"));
}

/// The lock of the domain, as a process has it that was stopped while it chose.
int lock_of_the_domain()
{
    EXPECT_EQ(0, mkdir(domain_folder().c_str(), 0700));
    const int fd = open((domain_folder() + "/domain").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT_EQ(0, flock(fd, LOCK_EX | LOCK_NB));
    return fd;
}

constexpr const char *node = "/dev/infiniband/uverbs1"; // the second one: a machine with hardware has the first

TEST(verbs_join, DISABLED_looks_again_after_a_lock)
{
    const bool real_node = syscall(SYS_faccessat, AT_FDCWD, node, F_OK) == 0;
    const int  lock      = lock_of_the_domain();
    const said all;
    EXPECT_EQ(0, device_count()) << "and it came back";
    const std::string why = all.more();
    EXPECT_NE(std::string::npos, why.find("stays locked")) << why;
    EXPECT_EQ(0, flock(lock, LOCK_UN));
    struct stat st;
    EXPECT_TRUE(real_node || stat(node, &st) == -1) << "nobody listed it: no reason to wait for the lock once more";
    EXPECT_EQ(2, device_count());
    EXPECT_EQ(0, stat(node, &st));
    expect_that_it_works();
    close(lock);
}

TEST(verbs_join, looks_again_after_a_lock)
{
    EXPECT_EQ(0, run_apart("verbs_join", "looks_again_after_a_lock", "SOFTEFA_DEVICES", "2"));
}

int                   handler_lock  = -1;
std::atomic<unsigned> handler_calls = 0;

/// Looks at the node; with the third call the lock is free.
void look_in_a_handler(int)
{
    const int   saved_errno = errno;
    struct stat st;
    (void)stat(node, &st);
    if (handler_calls.fetch_add(1) == 2) {
        flock(handler_lock, LOCK_UN);
    }
    errno = saved_errno;
}

struct caller {
    pthread_t         target = pthread_self();
    std::atomic<bool> stop{false};
    static void      *run(void *self)
    {
        auto *c = static_cast<caller *>(self);
        while (!c->stop.load()) {
            pthread_kill(c->target, SIGUSR1);
            usleep(20000);
        }
        return nullptr;
    }
};

TEST(verbs_join, DISABLED_handler_that_interrupts_a_look_comes_back)
{
    handler_lock = lock_of_the_domain();
    struct sigaction action{};
    action.sa_handler = look_in_a_handler;
    action.sa_flags   = SA_RESTART;
    ASSERT_EQ(0, sigaction(SIGUSR1, &action, nullptr));
    caller    other;
    pthread_t thread;
    ASSERT_EQ(0, pthread_create(&thread, nullptr, caller::run, &other));
    int count = 0;
    for (int i = 0; i < 5 && count == 0; ++i) { // a signal may also come between two looks, and look itself
        count = device_count();
    }
    other.stop.store(true);
    ASSERT_EQ(0, pthread_join(thread, nullptr));
    EXPECT_EQ(2, count);
    EXPECT_GE(handler_calls.load(), 3u);
    expect_that_it_works();
    close(handler_lock);
}

TEST(verbs_join, handler_that_interrupts_a_look_comes_back)
{
    EXPECT_EQ(0, run_apart("verbs_join", "handler_that_interrupts_a_look_comes_back", "SOFTEFA_DEVICES", "2"));
}

} // namespace
} // namespace verbs
