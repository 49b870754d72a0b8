// What the process around the device does: it forks and goes on with verbs, closes everything it can count to, cancels threads, registers memory
// that it may not write, and lets a completion queue overrun.
#include "run_apart.h"
#include "verbs_endpoint.h"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <functional>
#include <linux/close_range.h>
#include <poll.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace verbs {
namespace {

/// One message to oneself; 0, or where it stopped.
int exchange(endpoint &e)
{
    ibv_ah *ah = e.ah_to(e);
    if (ah == nullptr || e.recv(1, 0, 64) != 0 || e.send(2, e, ah, {e.sge(100, 8)}) != 0) {
        return 1;
    }
    const auto first = e.poll(), second = e.poll();
    return first && second && first->status == IBV_WC_SUCCESS && second->status == IBV_WC_SUCCESS ? 0 : 2;
}

/// The exit code of a child that opened the device, exchanged a message with itself, and then did what `body` does; 1 if it came not so far.
int with_device_in_child(const std::function<int(ibv_context *, endpoint &)> &body)
{
    const pid_t child = fork();
    if (child == 0) {
        alarm(300);
        auto     context = open_device();
        endpoint e(context.get(), {});
        _exit(!e.ok() || exchange(e) != 0 ? 1 : body(context.get(), e));
    }
    return wait_for(child);
}

/// libnl, for one, leaves ENOENT behind where it finds none of its files.
TEST(verbs_process, DISABLED_main_begins_without_an_errno) { EXPECT_EQ(atoi(getenv("VERBS_TEST_ERRNO")), errno_at_start); }

TEST(verbs_process, main_begins_without_an_errno)
{
    const pid_t child = fork();
    if (child == 0) {
        unsetenv("SOFTEFA_REGISTRY_DIR");
        unsetenv("SYSFS_PATH");
        setenv("XDG_RUNTIME_DIR", "/dev/null/nowhere", 1); // where the folder is looked for, before main
        execl("/proc/self/exe", "verbs", "--gtest_also_run_disabled_tests", "--gtest_filter=verbs_process.DISABLED_main_begins_without_an_errno",
              "--gtest_output=", nullptr);
        _exit(127);
    }
    EXPECT_EQ(0, wait_for(child));
}

TEST(verbs_process, forked_child_opens_a_device_of_its_own_and_the_parent_goes_on)
{
    auto     context = open_device();
    endpoint e(context.get(), {});
    ASSERT_TRUE(e.ok());
    ASSERT_EQ(0, exchange(e));
    const pid_t child = fork();
    if (child == 0) {
        alarm(300);
        ibv_wc wc;
        if (ibv_poll_cq(e.cq(), 1, &wc) >= 0) { // what is the parent's stays dead
            _exit(10);
        }
        auto mine = open_device();
        if (mine == nullptr) {
            _exit(11);
        }
        endpoint own(mine.get(), {});
        if (!own.ok()) {
            _exit(12);
        }
        if (ibv_poll_cq(e.cq(), 1, &wc) >= 0) {
            _exit(13);
        }
        _exit(exchange(own) == 0 ? 0 : 14);
    }
    EXPECT_EQ(0, wait_for(child));
    EXPECT_EQ(0, exchange(e));
}

TEST(verbs_process, forked_child_and_parent_talk_to_each_other)
{
    auto     context = open_device();
    endpoint e(context.get(), {});
    ASSERT_TRUE(e.ok());
    ASSERT_EQ(0, exchange(e));
    ASSERT_EQ(0, e.recv(7, 0, 64));
    const std::uint32_t target = e.qp()->qp_num;
    const pid_t         child  = fork();
    if (child == 0) {
        alarm(300);
        auto     mine = open_device();
        endpoint own(mine.get(), {});
        ibv_ah  *ah = own.ok() ? own.ah_to(own) : nullptr; // processes of a host share the device's GID
        if (ah == nullptr || own.send_ex(3, target, ah, own.sge(0, 8)) != 0) {
            _exit(1);
        }
        const auto sent = own.poll();
        _exit(sent && sent->status == IBV_WC_SUCCESS ? 0 : 2);
    }
    const auto got = e.poll();
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(IBV_WC_SUCCESS, got->status);
    EXPECT_EQ(8u, got->byte_len);
    EXPECT_EQ(0, wait_for(child));
}

/// A process that has exchanged a message with another one closes all that it can count to, and goes on.
TEST(verbs_process, closing_every_descriptor_leaves_the_device_working)
{
    EXPECT_EQ(0, with_device_in_child([](ibv_context *context, endpoint &e) {
        const int keep = context->cmd_fd > context->async_fd ? context->cmd_fd : context->async_fd;
        for (int fd = keep + 1; fd < 1024; ++fd) {
            (void)close(fd); // EBADF for what is the device's own
        }
        if (exchange(e) != 0) {
            return 2;
        }
        if (close_range(static_cast<unsigned>(keep) + 1, ~0u, 0) != 0 || exchange(e) != 0) {
            return 3;
        }
        closefrom(keep + 1);
        if (exchange(e) != 0) {
            return 4;
        }
        endpoint later(context, {}); // a QPN and a socket need the registry's descriptors
        return later.ok() && exchange(later) == 0 ? 0 : 5;
    }));
}

/// A flag that the kernel does not know closes nothing, here and in the kernel.
TEST(verbs_process, close_range_that_the_kernel_refuses_leaves_the_device_alone)
{
    EXPECT_EQ(0, with_device_in_child([](ibv_context *context, endpoint &e) {
        const auto fd = static_cast<unsigned>(context->cmd_fd);
        errno = 0;
        if (close_range(fd, fd, 0x40) != -1 || errno != EINVAL || fcntl(context->cmd_fd, F_GETFD) == -1) {
            return 2;
        }
        endpoint later(context, {});
        return later.ok() && exchange(later) == 0 && exchange(e) == 0 ? 0 : 3;
    }));
}

/// Its caller has a table of descriptors of its own then: the others still have the device.
TEST(verbs_process, close_range_of_a_thread_that_unshares_leaves_the_device_alone)
{
    EXPECT_EQ(0, with_device_in_child([](ibv_context *context, endpoint &e) {
        pthread_t thread;
        const auto apart = [](void *fd_p) -> void * {
            const auto fd = static_cast<unsigned>(*static_cast<int *>(fd_p));
            return reinterpret_cast<void *>(static_cast<std::intptr_t>(close_range(fd, fd, CLOSE_RANGE_UNSHARE)));
        };
        void *result = nullptr;
        if (pthread_create(&thread, nullptr, apart, &context->cmd_fd) != 0 || pthread_join(thread, &result) != 0 || result != nullptr) {
            return 2;
        }
        endpoint later(context, {});
        return later.ok() && exchange(later) == 0 && exchange(e) == 0 ? 0 : 3;
    }));
}

TEST(verbs_process, close_range_over_the_device_closes_it)
{
    EXPECT_EQ(0, with_device_in_child([](ibv_context *context, endpoint &e) {
        if (close_range(static_cast<unsigned>(context->cmd_fd), static_cast<unsigned>(context->cmd_fd), 0) != 0) {
            return 4;
        }
        ibv_wc wc;
        if (ibv_poll_cq(e.cq(), 1, &wc) >= 0) {
            return 2; // its objects went with it
        }
        auto     again = open_device();
        endpoint other(again.get(), {});
        return other.ok() && exchange(other) == 0 ? 0 : 3;
    }));
}

/// Somebody holds the lock of this test's domain, which nobody but this test's processes is in.
bool domain_is_held()
{
    const std::string path = getenv("SOFTEFA_REGISTRY_DIR") + std::string("/domain");
    const int         fd   = open(path.c_str(), O_RDWR | O_CLOEXEC);
    const bool        held = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK;
    close(fd);
    return held;
}

/// Run by the test below, where no other process holds the domain.
TEST(verbs_process, DISABLED_membership_outlives_closing_and_forking)
{
    int           count = 0;
    ibv_device  **list  = ibv_get_device_list(&count);
    ASSERT_NE(0, count);
    ibv_free_device_list(list);
    ASSERT_TRUE(domain_is_held());
    closefrom(3); // before any device is open
    EXPECT_TRUE(domain_is_held());
    int pair[2];
    ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
    const pid_t parent = fork();
    char        word   = 0;
    if (parent == 0) { // a daemon closes everything, its parent ends, and it opens a device
        if (fork() != 0) {
            _exit(0);
        }
        alarm(300);
        dup2(pair[1], 3);
        closefrom(4);
        if (read(3, &word, 1) != 1) {
            _exit(1);
        }
        auto context = open_device();
        word         = context != nullptr && domain_is_held() ? 'y' : 'n';
        _exit(write(3, &word, 1) == 1 ? 0 : 1);
    }
    EXPECT_EQ(0, wait_for(parent));
    dup2(pair[0], 3);
    syscall(SYS_close_range, 4u, ~0u, 0u); // behind the library's back: now only the daemon can be a member
    ASSERT_EQ(1, write(3, "g", 1));
    ASSERT_EQ(1, read(3, &word, 1));
    EXPECT_EQ('y', word);
    for (int tries = 0; tries < 60000 && domain_is_held(); ++tries) { // it is ending
        usleep(1000);
    }
    EXPECT_FALSE(domain_is_held());
    auto context = open_device();
    ASSERT_NE(nullptr, context);
    EXPECT_TRUE(domain_is_held());
}

TEST(verbs_process, membership_outlives_closing_and_forking)
{
    EXPECT_EQ(0, run_apart("verbs_process", "membership_outlives_closing_and_forking", "SOFTEFA_LOG_LEVEL", "error"));
}

void *open_while_cancelled(void *opened)
{
    pthread_cancel(pthread_self()); // acted upon at the next cancellation point
    *static_cast<int *>(opened) = open("/dev/infiniband/uverbs0", O_RDWR | O_CLOEXEC);
    pthread_testcancel();
    return nullptr;
}

/// Run by the test below where no device was opened yet: the first one also joins the domain, which takes files and locks.
TEST(verbs_process, DISABLED_first_open_is_cancelled)
{
    for (int i = 0; i < 3; ++i) {
        int       fd = -1;
        void     *result = nullptr;
        pthread_t thread;
        ASSERT_EQ(0, pthread_create(&thread, nullptr, open_while_cancelled, &fd));
        ASSERT_EQ(0, pthread_join(thread, &result));
        EXPECT_EQ(PTHREAD_CANCELED, result) << "later, not never";
        ASSERT_GE(fd, 0) << i;
        EXPECT_EQ(0, close(fd));
        auto     context = open_device();
        ASSERT_NE(nullptr, context);
        endpoint e(context.get(), {});
        ASSERT_TRUE(e.ok());
        ASSERT_EQ(0, exchange(e));
    }
}

TEST(verbs_process, cancelled_thread_leaves_no_lock_behind)
{
    EXPECT_EQ(0, run_apart("verbs_process", "first_open_is_cancelled", "SOFTEFA_LOG_LEVEL", "error"));
}

TEST(verbs_process, memory_without_the_rights_is_refused)
{
    auto    context = open_device();
    ibv_pd *pd      = ibv_alloc_pd(context.get());
    ASSERT_NE(nullptr, pd);
    for (const std::size_t size : {std::size_t{4096}, std::size_t{1} << 20}) { // touched, and looked up in the list of mappings
        void *at = mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ASSERT_NE(MAP_FAILED, at);
        errno = 0;
        EXPECT_EQ(nullptr, ibv_reg_mr(pd, at, size, IBV_ACCESS_LOCAL_WRITE)) << size;
        EXPECT_EQ(EFAULT, errno) << size;
        ibv_mr *readable = ibv_reg_mr(pd, at, size, IBV_ACCESS_REMOTE_READ);
        EXPECT_NE(nullptr, readable) << size;
        if (readable != nullptr) {
            EXPECT_EQ(0, ibv_dereg_mr(readable));
        }
        ASSERT_EQ(0, mprotect(at, size, PROT_NONE));
        EXPECT_EQ(nullptr, ibv_reg_mr(pd, at, size, IBV_ACCESS_REMOTE_READ)) << size;
        ASSERT_EQ(0, mprotect(at, size, PROT_READ | PROT_WRITE));
        // One page in the middle is enough.
        ASSERT_EQ(0, mprotect(static_cast<char *>(at) + size - 4096, 4096, PROT_READ));
        EXPECT_EQ(nullptr, ibv_reg_mr(pd, at, size, IBV_ACCESS_LOCAL_WRITE)) << size;
        ASSERT_EQ(0, mprotect(at, size, PROT_READ | PROT_WRITE));
        ibv_mr *writable = ibv_reg_mr(pd, at, size, IBV_ACCESS_LOCAL_WRITE);
        EXPECT_NE(nullptr, writable) << size;
        if (writable != nullptr) {
            EXPECT_EQ(0, ibv_dereg_mr(writable));
        }
        munmap(at, size);
    }
    EXPECT_EQ(0, ibv_dealloc_pd(pd));
}

/// Run by the test below in a process whose settings say that an overrun is an error.
TEST(verbs_process, DISABLED_overrun_is_an_error_here)
{
    auto context = open_device();
    ASSERT_NE(nullptr, context);
    for (const bool read_it : {true, false}) { // the CQ can be destroyed in both cases: libibverbs waits for what was read only
        endpoint::options o;
        o.cqe = 16;
        endpoint e(context.get(), o);
        ASSERT_TRUE(e.ok());
        ibv_ah *ah = e.ah_to(e);
        for (int i = 0; i < 20; ++i) {
            ASSERT_EQ(0, e.recv(static_cast<std::uint64_t>(i), 0, 64));
        }
        for (int i = 0; i < 20; ++i) {
            ASSERT_EQ(0, e.send(static_cast<std::uint64_t>(100 + i), e, ah, {e.sge(100, 8)}));
        }
        ibv_cq *other = ibv_create_cq(context.get(), 1, nullptr, nullptr, 0);
        ASSERT_NE(nullptr, other);
        ibv_wc wc;
        pollfd readable{context->async_fd, POLLIN, 0};
        for (int i = 0; i < 60000 && poll(&readable, 1, 1) == 0; ++i) {
            EXPECT_EQ(0, ibv_poll_cq(other, 1, &wc)); // drives the device, takes nothing out of the full one
        }
        ASSERT_EQ(1, poll(&readable, 1, 0));
        if (read_it) {
            ibv_async_event event{};
            ASSERT_EQ(0, ibv_get_async_event(context.get(), &event));
            EXPECT_EQ(IBV_EVENT_CQ_ERR, event.event_type);
            EXPECT_EQ(e.cq(), event.element.cq);
            ibv_ack_async_event(&event);
        }
        int found = 0;
        while (e.poll(0.2)) {
            ++found;
        }
        EXPECT_EQ(16, found) << "entries that were in the queue stay good";
        EXPECT_EQ(0, ibv_destroy_cq(other));
    }
    pollfd readable{context->async_fd, POLLIN, 0};
    EXPECT_EQ(0, poll(&readable, 1, 0)) << "an event of a queue that is gone";
}

TEST(verbs_process, overrun_can_be_made_an_error)
{
    EXPECT_EQ(0, run_apart("verbs_process", "overrun_is_an_error_here", "SOFTEFA_CQ_OVERRUN", "error"));
}

/// Run by the test below for each profile.
TEST(verbs_process, DISABLED_what_a_profile_answers)
{
    const std::string profile = getenv("SOFTEFA_PROFILE");
    auto              context = open_device();
    ASSERT_NE(nullptr, context);
    efadv_device_attr efa{};
    ASSERT_EQ(0, efadv_query_device(context.get(), &efa, sizeof(efa)));
    ibv_device_attr device{};
    ASSERT_EQ(0, ibv_query_device(context.get(), &device));
    const bool reads = profile != "efa0", newer = profile == "efa2" || profile == "efa3";
    EXPECT_EQ(reads, (efa.device_caps & EFADV_DEVICE_ATTR_CAPS_RDMA_READ) != 0);
    EXPECT_EQ(newer, (efa.device_caps & EFADV_DEVICE_ATTR_CAPS_RNR_RETRY) != 0);
    EXPECT_EQ(reads ? 1u << 30 : 0u, efa.max_rdma_size);
    EXPECT_EQ(reads ? 1 : 0, device.max_sge_rd);
    EXPECT_GE(efa.inline_buf_size, 32u);
    EXPECT_EQ(4096u, efa.max_sq_wr);
    EXPECT_EQ(32768u, efa.max_rq_wr);
    EXPECT_EQ(2u, efa.max_sq_sge);
    EXPECT_EQ(3u, efa.max_rq_sge);
    EXPECT_EQ(0x1d0fu, device.vendor_id);
    EXPECT_EQ(profile == "efa0" ? 0xefa0u : profile == "efa1" ? 0xefa1u : 0xefa2u, device.vendor_part_id);
    EXPECT_EQ(256, device.max_qp);
    EXPECT_EQ(512, device.max_cq);
    EXPECT_EQ(1024, device.max_ah);
    ibv_pd *pd = ibv_alloc_pd(context.get());
    char    memory[64];
    ibv_mr *readable = ibv_reg_mr(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
    EXPECT_EQ(reads, readable != nullptr) << "a right that the device does not have is refused";
    if (readable != nullptr) {
        EXPECT_EQ(0, ibv_dereg_mr(readable));
    }
    EXPECT_EQ(0, ibv_dealloc_pd(pd));
}

TEST(verbs_process, each_profile_answers_queries_by_its_features)
{
    for (const char *profile : {"efa0", "efa1", "efa2", "efa3"}) {
        EXPECT_EQ(0, run_apart("verbs_process", "what_a_profile_answers", "SOFTEFA_PROFILE", profile)) << profile;
    }
}

} // namespace
} // namespace verbs
