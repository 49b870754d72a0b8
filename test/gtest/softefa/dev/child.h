/* A second process for tests: forked before the parent opens anything, talks over a socket pair, is always reaped. */
#pragma once

#include "softefa/dev/helper_state.h"
#include "softefa/dev/publish.h"
#include "softefa/dev/single_copy.h"
#include "softefa/dev/nic.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <poll.h>
#include <sched.h>
#include <sstream>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

namespace nic {

/// What two endpoints tell each other out of band.
struct address {
    std::uint16_t qpn = 0, unused = 0; ///< no byte of it is left to chance
    std::uint32_t rkey = 0;
    std::uint64_t memory = 0;
};

/// One end of the socket pair.
struct pipe_end {
    int fd = -1;

    template <class T> bool put(const T &v) { return send(fd, &v, sizeof(v), MSG_NOSIGNAL) == sizeof(v); }
    template <class T> bool get(T *v, int milliseconds = 2 * generous_ms)
    {
        pollfd p{fd, POLLIN, 0};
        return ::poll(&p, 1, milliseconds) == 1 && recv(fd, v, sizeof(*v), MSG_WAITALL) == sizeof(*v);
    }
    bool put_word(std::uint32_t w) { return put(w); }
    bool wait_word(std::uint32_t w)
    {
        std::uint32_t got = 0;
        return get(&got) && got == w;
    }
    bool swap(const address &mine, address *theirs) { return put(mine) && get(theirs); }
};

class child {
public:
    pid_t    pid = -1;
    pipe_end end;

    explicit child(const std::function<int(pipe_end)> &body)
    {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
            return;
        fflush(stdout); // else the child would say it, too: twice, and beyond the limit for files that a test gives it
        pid = fork();
        if (pid == 0) {
            ::close(pair[0]);
            alarm(300); // whatever happens, it does not stay
            const int code = body(pipe_end{pair[1]});
            fflush(stdout);
            fflush(stderr);
            _exit(code);
        }
        ::close(pair[1]);
        end.fd = pair[0];
    }
    ~child()
    {
        if (pid > 0)
            kill(SIGKILL), reap();
        ::close(end.fd);
    }
    child(const child &) = delete;

    void kill(int signal) { ::kill(pid, signal); }
    /// Exit code, or minus the signal.
    int reap()
    {
        int state = 0;
        while (waitpid(pid, &state, 0) == -1 && errno == EINTR) {
        }
        pid = -1;
        return WIFEXITED(state) ? WEXITSTATUS(state) : -WTERMSIG(state);
    }
};

/// The file that this process keeps when something fails.
inline std::string failure_file(const std::string &folder)
{
    struct stat space{};
    std::stringstream name;
    EXPECT_EQ(::stat("/proc/self/ns/pid", &space), 0);
    name << folder << "/failure." << getpid() << '.' << std::hex << space.st_ino;
    return name.str();
}

/// Peers that have ended so far, as the helper thread counts them.
inline std::uint64_t peers_gone()
{
    const engine_guard guard;
    return engine().peers.peers_gone;
}

/// The helper thread sleeps and has nothing to do. Asked by a test that has no other thread.
inline bool helper_sleeps()
{
    {
        const engine_guard guard;
        if (!engine().asleep)
            return false;
    }
    pollfd events{softefa::dev::helper.epoll_fd, POLLIN, 0};
    if (softefa::dev::helper.waiting == 0 || ::poll(&events, 1, 0) != 0) // it may sleep on its way to a lock, or have been woken just now
        return false;
    std::error_code failed;
    for (const auto &thread : std::filesystem::directory_iterator("/proc/self/task", failed)) {
        std::ifstream file(thread.path() / "stat");
        std::string   text((std::istreambuf_iterator<char>(file)), {});
        const auto    name_end = text.rfind(')');
        if (thread.path().filename() != std::to_string(gettid()) &&
            (name_end == std::string::npos || text.compare(name_end, 3, ") S") != 0))
            return false;
    }
    return !failed && softefa::dev::helper.waiting != 0;
}

inline address address_of(const endpoint &e) { return {e.qp.qpn, 0, e.rkey, reinterpret_cast<std::uint64_t>(e.memory.data())}; }

inline bool until(const std::function<bool()> &condition, unsigned milliseconds = generous_ms)
{
    const auto end = base::clock_now_ns() + base::ms(milliseconds);
    while (!condition()) {
        if (base::clock_now_ns() > end)
            return false;
        sched_yield(); // outside of the engine, whose lock the condition may take: the helper's turn where threads take turns (valgrind)
    }
    return true;
}

/// What the user is told while this lives: lines for which a file was kept, and others.
struct told_lines {
    static inline std::atomic<unsigned> notices, files;

    told_lines() noexcept
    {
        notices = files = 0;
        publish_failures_to([](const char *, const char *path) noexcept { ++(path[0] == '\0' ? notices : files); });
    }
    ~told_lines() { publish_failures_to(nullptr); }
};

/// Somebody connects to the one process of the folder and says what no Soft EFA of this version says. It is refused and counted.
inline void stranger_speaks(const std::string &folder)
{
    const auto failed = [] {
        const engine_guard guard;
        return fabric_counters_get()->peers_failed;
    };
    const auto  before = failed();
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    ASSERT_TRUE(until([&] {
        for (const auto &entry : std::filesystem::directory_iterator(folder))
            if (entry.path().extension() == ".sock")
                std::snprintf(to.sun_path, sizeof(to.sun_path), "%s", entry.path().c_str());
        return to.sun_path[0] != 0;
    }));
    const int socket = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    ASSERT_TRUE(until([&] { return ::connect(socket, reinterpret_cast<const sockaddr *>(&to), sizeof(to)) == 0; }));
    constexpr std::uint32_t hello[8] = {0x45464148, softefa::wire::protocol_version + 1, 1};
    ASSERT_EQ(::send(socket, hello, sizeof(hello), MSG_NOSIGNAL), static_cast<ssize_t>(sizeof(hello)));
    EXPECT_TRUE(until([&] { return failed() == before + 1; }));
    char nothing;
    EXPECT_EQ(::recv(socket, &nothing, 1, 0), 0) << "it is not answered";
    ::close(socket);
}

/// Connects with an empty read and waits until the peer copies from us: it finds out that it may when it is connected, in its own time.
inline bool peer_copies_from_us(endpoint &e, const address &peer)
{
    e.qp.post(e.qp.rdma(1, 0, e.ah, peer.qpn, e.slice(0, 0), peer.memory, peer.rkey));
    const auto done = e.scq.wait();
    return done && done->status == 0 && until([] {
        const engine_guard  guard;
        const engine_state &s = engine();
        return s.link_count > 1 && s.links[s.link_count - 1] != nullptr && peer_copies(*s.links[s.link_count - 1]);
    });
}

} // namespace nic
