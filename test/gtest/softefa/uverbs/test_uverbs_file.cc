// Files and channels: fds are known by what they are, not by their number; forked children and lost ends do no harm.
#include "uverbs_client.h"

#include "softefa/uverbs/fd_marks.h"

#include <atomic>
#include <csignal>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <set>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

namespace softefa::uverbs {
namespace {

std::set<int> open_fds()
{
    std::set<int> fds;
    DIR          *folder = opendir("/proc/self/fd");
    while (const dirent *entry = readdir(folder)) {
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(folder)) {
            fds.insert(atoi(entry->d_name));
        }
    }
    closedir(folder);
    return fds;
}

/// As fstat sees it.
bool shown_as_device(int fd, unsigned *index_p)
{
    struct stat st;
    return fstat(fd, &st) == 0 && file_recognise(inode_shown(st.st_dev, st.st_ino), index_p);
}

TEST(uverbs_file, ioctl_on_other_files_is_not_ours)
{
    uverbs_client client;
    int           error = 0;
    EXPECT_FALSE(file_ioctl(0, nullptr, &error));
    EXPECT_FALSE(file_ioctl(-1, nullptr, &error));
    EXPECT_FALSE(file_ioctl(54321, nullptr, &error));
}

TEST(uverbs_file, duplicate_of_the_fd_is_the_same_file)
{
    uverbs_client client;
    const int     copy = dup(client.fd());
    unsigned      index = 99;
    EXPECT_TRUE(shown_as_device(copy, &index));
    EXPECT_EQ(0u, index);
    ::close(copy);
}

std::atomic<unsigned> looks{0};
int                   looked_at = -1;

TEST(uverbs_file, fstat_in_a_signal_handler_waits_for_nobody)
{
    uverbs_client client;
    looked_at = client.fd();
    looks     = 0;
    struct sigaction handler{}, before{};
    handler.sa_handler = [](int) {
        unsigned index = 99;
        if (shown_as_device(looked_at, &index)) {
            looks.fetch_add(1, std::memory_order_relaxed);
        }
    };
    ASSERT_EQ(0, sigaction(SIGALRM, &handler, &before));
    const itimerval often{{0, 50}, {0, 50}}, never{};
    ASSERT_EQ(0, setitimer(ITIMER_REAL, &often, nullptr));
    int error = 0;
    while (looks.load(std::memory_order_relaxed) < 5000) { // a handler that meets a lock in these commands never returns
        file_ioctl(client.fd(), nullptr, &error);
        file_ioctl(0, nullptr, &error);
    }
    setitimer(ITIMER_REAL, &never, nullptr);
    sigaction(SIGALRM, &before, nullptr);
}

TEST(uverbs_file, number_reused_by_another_file_is_not_taken_for_ours)
{
    uverbs_client client;
    const int     number = client.fd();
    const int     other  = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    ASSERT_EQ(number, dup2(other, number)); // the device's fd is gone without a close that we could see
    unsigned index = 99;
    EXPECT_FALSE(shown_as_device(number, &index));
    int error = 0;
    EXPECT_FALSE(file_ioctl(number, nullptr, &error));
    EXPECT_EQ(close_verdict::pass, file_closing(number));
    ::close(other);
}

TEST(uverbs_file, close_gives_everything_back)
{
    {
        uverbs_client warm_up; // what is opened once for the process
    }
    const auto before = open_fds();
    for (int i = 0; i < 50; ++i) {
        uverbs_client client;
        const int     channel = client.create_channel();
        std::uint32_t cq      = 0;
        uverbs_client::cq_ask ask;
        ask.channel_fd = channel;
        ask.efa.flags  = EFA_CREATE_CQ_WITH_COMPLETION_CHANNEL;
        ASSERT_EQ(0, client.create_cq(ask, &cq));
        if (i % 2 == 0) {
            ASSERT_EQ(0, client.destroy_cq(cq));
        }
        int fd = channel;
        if (i % 3 == 0) {
            uverbs_client::close_fd(&fd); // the channel before its CQ and its file
        }
        client.close();
        uverbs_client::close_fd(&fd);
    }
    EXPECT_EQ(before, open_fds());
}

TEST(uverbs_file, private_fd_cannot_be_closed_by_the_application)
{
    const auto    before = open_fds();
    uverbs_client client;
    unsigned      refused = 0;
    for (int fd : open_fds()) {
        if (before.count(fd) == 0 && fd != client.fd()) {
            refused += file_closing(fd) == close_verdict::refused;
        }
    }
    EXPECT_GE(refused, 1u);
}

/// The number of a descriptor that was closed behind our back is the application's, and its file stays when the device goes.
TEST(uverbs_file, private_number_that_became_the_applications_can_be_closed)
{
    int number = -1;
    {
        uverbs_client client;
        number = fabric::fd_next_private(0, fd_mark_max - 1);
        ASSERT_GE(number, 0);
        ASSERT_EQ(close_verdict::refused, file_closing(number));
        syscall(SYS_close, number);
        EXPECT_EQ(close_verdict::pass, file_closing(number)); // EBADF is for the kernel to say
        const int other = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
        ASSERT_EQ(number, dup2(other, number));
        ::close(other);
        EXPECT_EQ(close_verdict::pass, file_closing(number));
        EXPECT_NE(number, fabric::fd_next_private(number, number));
    }
    EXPECT_NE(-1, fcntl(number, F_GETFD));
    ::close(number);
}

TEST(uverbs_file, channel_drain_takes_only_the_events_of_one_queue)
{
    uverbs_client client;
    const int     fd = client.create_channel();
    uverbs_client::cq_ask ask;
    ask.channel_fd  = fd;
    ask.efa.flags   = EFA_CREATE_CQ_WITH_COMPLETION_CHANNEL;
    std::uint32_t cq = 0;
    ASSERT_EQ(0, client.create_cq(ask, &cq));

    // Records as the engine writes them, through a write end of our own.
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    const int           writer   = ::open(path, O_WRONLY | O_CLOEXEC);
    const std::uint64_t events[] = {1, ask.user_handle, 2, ask.user_handle, 3};
    ASSERT_EQ(static_cast<ssize_t>(sizeof(events)), write(writer, events, sizeof(events)));

    std::uint32_t reported = 99;
    EXPECT_EQ(0, client.destroy_cq(cq, &reported));
    EXPECT_EQ(0u, reported) << "none of its events was read";
    std::uint64_t left[8];
    EXPECT_EQ(24, read(fd, left, sizeof(left)));
    EXPECT_EQ(1u, left[0]);
    EXPECT_EQ(2u, left[1]);
    EXPECT_EQ(3u, left[2]);
    ::close(writer);
    int closing = fd;
    uverbs_client::close_fd(&closing);
}

TEST(uverbs_file, async_fd_is_silent_and_accepted)
{
    uverbs_client  client;
    uverbs_command alloc(UVERBS_OBJECT_ASYNC_EVENT, 0);
    ASSERT_EQ(0, alloc.handle(0, 0).send(client.fd()));
    int    fd = static_cast<int>(alloc.attr(0).data);
    pollfd p{fd, POLLIN, 0};
    EXPECT_EQ(0, poll(&p, 1, 0));
    uverbs_client::close_fd(&fd);
}

TEST(uverbs_file, vfork_child_that_closes_leaves_the_parents_device_alone)
{
    uverbs_client       client;
    const std::uint32_t pd    = client.alloc_pd();
    const pid_t         child = vfork();
    if (child == 0) {
        (void)file_closing(client.fd()); // close() before exec: same memory, other descriptors
        _exit(0);
    }
    int status = -1;
    ASSERT_EQ(child, waitpid(child, &status, 0));
    unsigned index = 99;
    EXPECT_TRUE(shown_as_device(client.fd(), &index));
    EXPECT_EQ(0, client.dealloc_pd(pd));
}

TEST(uverbs_file, forked_child_gets_eio_and_parent_is_unharmed)
{
    uverbs_client       client;
    const std::uint32_t pd    = client.alloc_pd();
    const pid_t         child = fork();
    if (child == 0) {
        abi::query_port_resp reply;
        const int inherited = uverbs_command(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_PORT)
                                  .in(0, std::uint64_t{1}).out(1, &reply).send(client.fd());
        client.close();
        _exit(inherited == EIO ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(child, waitpid(child, &status, 0));
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_EQ(0, client.dealloc_pd(pd));
}

} // namespace
} // namespace softefa::uverbs
