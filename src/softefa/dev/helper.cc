/* See helper.h. The thread's life: started, stopped, left behind by a fork. What it does in between is in helper_loop.cc.
 *
 * Ending. The thread is joined when the last context is closed. A program that closed or replaced our descriptors behind our back has cut the
 * wire on which it would be woken; such a thread is abandoned where it waits (HLP-3), and everything else is freed.
 */
#include "softefa/dev/configure.h"
#include "softefa/dev/helper_state.h"

#include <cerrno>
#include <csignal>
#include <ctime>
#include <dlfcn.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::dev {

constinit helper_state helper;

namespace {

void close_all() noexcept
{
    for (unsigned i = 1; i < limits::links; ++i) {
        if (helper.peers[i] == nullptr)
            continue;
        if (fabric::fd_may_be_ours(helper.peers[i]->socket))
            (void)fabric::message_send(helper.peers[i]->socket, {fabric::message_kind::bye, helper.instance, helper.peers[i]->instance});
        peer_close(i);
    }
    for (int *fd : {&helper.listen_fd, &helper.epoll_fd, &helper.wake_fd})
        fabric::fd_drop_private(*fd);
    helper.accept_again = 0;
}

/// CUT-1: where the kernel offers a barrier for all processes, consumers need no fence.
std::uint32_t barrier_rule() noexcept
{
    const long offered = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    const bool works   = offered > 0 && (offered & MEMBARRIER_CMD_GLOBAL) != 0 && syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0;
    return works ? fabric::cut_barrier : fabric::cut_fence;
}

constexpr std::size_t stack_size = 256 * 1024;

/// What the thread needs beside its stack: glibc takes static thread-local storage of the whole program out of the same piece of memory.
std::size_t stack_beside() noexcept
{
    using minimum = std::size_t (*)(const pthread_attr_t *);
    const auto ask = reinterpret_cast<minimum>(dlsym(RTLD_DEFAULT, "__pthread_get_minstack")); // exported for this purpose, declared nowhere
    pthread_attr_t attributes;
    if (ask == nullptr || pthread_attr_init(&attributes) != 0)
        return 0;
    const std::size_t size = ask(&attributes);
    pthread_attr_destroy(&attributes);
    return size;
}

bool start_thread() noexcept
{
    sigset_t       all, before;
    pthread_attr_t attributes;
    sigfillset(&all);
    for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS}) // blocked, one would end the process without the report of its handler
        sigdelset(&all, fault);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack_size + stack_beside());
    pthread_sigmask(SIG_SETMASK, &all, &before);
    void *const generation = reinterpret_cast<void *>(++helper.generation);
    int         failed     = pthread_create(&helper.thread, &attributes, helper_loop, generation);
    if (failed == EINVAL) // a stack too small for something we do not know of
        failed = pthread_create(&helper.thread, nullptr, helper_loop, generation);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
    if (failed == 0)
        pthread_setname_np(helper.thread, "softefa");
    return failed == 0;
}

/// HLP-3: also where the thread cannot be woken any more.
void join_thread() noexcept
{
    for (;;) {
        timespec limit{};
        clock_gettime(CLOCK_REALTIME, &limit);
        ++limit.tv_sec;
        if (pthread_timedjoin_np(helper.thread, nullptr, &limit) != ETIMEDOUT)
            return;
        if (auto waits = helper.generation; helper.waiting.compare_exchange_strong(waits, 0, std::memory_order_acq_rel)) {
            pthread_detach(helper.thread);
            return;
        }
    }
}

} // namespace

status helper_start(fabric::registry &names, std::uint64_t instance) noexcept
{
    if (helper.running.load(std::memory_order_relaxed))
        return status::ok;
    helper.names    = &names;
    helper.instance = instance;
    helper.stop.store(false, std::memory_order_relaxed);
    helper.unresponsive = settings_in_force().unresponsive_ns;
    helper.cut_rule     = helper.unresponsive != 0 ? barrier_rule() : std::uint32_t{fabric::cut_never};
    helper.wake_fd  = fabric::fd_settle_private(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    helper.epoll_fd = fabric::fd_settle_private(epoll_create1(EPOLL_CLOEXEC));
    auto listener = names.listen();
    if (!listener && listener.error() != status::unsupported) {
        close_all();
        return listener.error();
    }
    helper.listen_fd = listener ? *listener : -1;
    if (helper.wake_fd < 0 || helper.epoll_fd < 0 || !helper_watch(helper.wake_fd, source::wake, 0) ||
        (helper.listen_fd >= 0 && !helper_watch(helper.listen_fd, source::listener, 0))) {
        close_all();
        return status::limit;
    }
    helper.process = getpid();
    if (!start_thread()) {
        close_all();
        return status::no_memory;
    }
    helper.running.store(true, std::memory_order_release);
    return status::ok;
}

void helper_stop() noexcept
{
    if (!helper.running.load(std::memory_order_acquire) || helper.process != getpid())
        return;
    helper.stop.store(true, std::memory_order_release);
    if (fabric::fd_may_be_ours(helper.wake_fd)) // else eight bytes would go into a file of the program's, and HLP-3 helps
        helper_kick();
    join_thread();
    {
        // Kicks happen under the engine lock: none is under way when the descriptor's number is given back.
        const engine_guard guard;
        helper.running.store(false, std::memory_order_release);
        engine().asleep.store(false, std::memory_order_relaxed);
    }
    close_all();
}

void helper_forked() noexcept
{
    const auto drop = [](int &fd) {
        fabric::raw_close(fd);
        fd = -1;
    };
    for (peer *p : helper.peers) {
        if (p == nullptr)
            continue;
        for (int *fd : {&p->socket, &p->pidfd, &p->own.fd, &p->channel.own.fd, &p->channel.peer.fd, &p->channel.wake_fd})
            drop(*fd);
    }
    for (int *fd : {&helper.listen_fd, &helper.epoll_fd, &helper.wake_fd})
        drop(*fd);
    helper.running.store(false, std::memory_order_relaxed);
    helper.scarce_until = 0;
    helper.told_full = helper.told_scarce = helper.told_foreign = false; // what the parent said, it said of itself
}

void helper_revive() noexcept
{
    for (peer *&p : helper.peers) {
        if (p == nullptr)
            continue;
        fabric::segment_close(p->own);
        fabric::channel_close(p->channel);
        delete p;
        p = nullptr;
    }
    helper.next_lookup = helper.next_silent_check = helper.accept_again = 0;
    helper.accepted  = 0;
}

void helper_leave() noexcept
{
    if (helper.running.load(std::memory_order_acquire) && helper.process == getpid())
        pthread_detach(helper.thread);
}

bool helper_running() noexcept { return helper.running.load(std::memory_order_acquire); }

void helper_kick() noexcept
{
    const int           saved = errno;
    const std::uint64_t one   = 1;
    if (helper.running.load(std::memory_order_acquire))
        (void)!syscall(SYS_write, helper.wake_fd, &one, sizeof(one));
    errno = saved;
}

} // namespace softefa::dev
