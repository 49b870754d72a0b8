/* See canary.h. A sender (child) and a receiver (parent) exchange numbered messages with checked contents; the receiver answers each one.
 *
 * Without a bug the program relies on nothing that SRD does not promise: any order of messages, of completions, and of an answer against the
 * completion of what it answers; a failed send was not delivered and is sent again; a buffer belongs to the device until its completion; the
 * other side may pause, and may die. Each bug is one that programs had.
 *
 * A program that uses a buffer again too early sends a spoiled message now and then on any device: whenever the engine is busy during the post. So
 * spoiled messages are counted, and the bug shows where they are more than that.
 *
 * The environments (test/system/softefa/environments) run it without a bug, and with RDMA before the messages ("rdma").
 */
#include "canary.h"

#include "both_ways.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <deque>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <map>
#include <string_view>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

namespace verbs {

namespace {

constexpr std::uint32_t size = 64, window = 8;
constexpr int           broken = 10;
constexpr std::uint32_t spoiled_percent = 30; ///< of the messages: the bug shows
constexpr double        impatience = 1.5; ///< seconds: a busy machine is to look slow seldom. Not of the first message, which waits for the connection
constexpr double        pause      = 2;   ///< seconds until a stopped sender goes on
std::string_view        bug;

double now()
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct party {
    endpoint::options  options;
    context_ptr        context;
    std::unique_ptr<endpoint> e;
    ibv_ah            *ah = nullptr;
    std::uint32_t      peer_qpn = 0;

    bool open(int socket)
    {
        options.rnr_retry = bug == "rnr_is_success" || bug == "none_without_rnr_retry" ? 0 : 7;
        options.cqe = 512, options.recv_count = 128, options.send_count = 128;
        context = open_device();
        options.write = bug == "rdma";
        e       = context ? std::make_unique<endpoint>(context.get(), options) : nullptr;
        if (e != nullptr && !e->ok() && options.write) { // an older rdma-core or device
            options.write = false;
            e             = std::make_unique<endpoint>(context.get(), options);
        }
        if (e == nullptr || !e->ok())
            return false;
        ah = e->ah_to(*e); // one host, one GID
        const std::uint32_t mine = e->qp()->qp_num;
        for (std::uint64_t i = 0; i < 64; ++i)
            if (e->recv(1000 + i, 32768 + i * size, size) != 0)
                return false;
        return write(socket, &mine, 4) == 4 && read(socket, &peer_qpn, 4) == 4 && ah != nullptr;
    }
    char *slot(std::uint64_t i) { return e->buffer() + i * size; }
    void  fill(std::uint64_t i, std::uint32_t sequence)
    {
        for (unsigned k = 0; k < size / 4; ++k)
            reinterpret_cast<std::uint32_t *>(slot(i))[k] = sequence * 2654435761u + (k == 0 ? 0 : 1);
    }
    bool post(std::uint64_t wr_id, std::uint64_t i)
    {
        return within_verbs([&] { return e->send_ex(wr_id, peer_qpn, ah, e->sge(i * size, size)); }) == 0;
    }
    std::optional<completion> poll() { return within_verbs([&] { return e->poll_once(); }); }
};

std::uint32_t sequence_of(const char *at, bool *whole_p)
{
    const auto *words = reinterpret_cast<const std::uint32_t *>(at);
    *whole_p = true;
    for (unsigned k = 2; k < size / 4; ++k)
        *whole_p &= words[k] == words[1] && words[1] == words[0] + 1;
    return words[0] * 244002641u; // inverse of the factor
}

/// As a container's policy may: no access to other processes' memory (nor to the own one by that way), or the end of who tries. For all threads.
bool deny_process_vm(const char *how)
{
    const std::uint32_t verdict = std::string_view(how) == "kill" ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_ERRNO | EPERM;
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_writev, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, verdict),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog all{std::size(program), program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &all) == 0;
}

ibv_cq                    *polled_by_signals;
timer_t                    next_signal;
std::atomic<std::uint32_t> interrupted; ///< verbs calls that a handler interrupted
constexpr std::uint32_t    enough_interrupted = 5000;

void signal_soon()
{
    const itimerspec once{{0, 0}, {0, 50'000}};
    timer_settime(next_signal, 0, &once, nullptr);
}

/// Polls a queue of its own from a signal handler, 50 us after the last one, whatever the program is doing with the device then.
bool poll_from_signals()
{
    static context_ptr context = open_device();
    polled_by_signals          = context ? ibv_create_cq(context.get(), 16, nullptr, nullptr, 0) : nullptr;
    struct sigaction action {};
    action.sa_handler = [](int) {
        const int saved = errno;
        ibv_wc    wc;
        (void)ibv_poll_cq(polled_by_signals, 1, &wc);
        interrupted.fetch_add(in_verbs != 0 ? 1 : 0, std::memory_order_relaxed);
        signal_soon(); // behind the poll: however slow that is, the program gets on
        errno = saved;
    };
    action.sa_flags = SA_RESTART;
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL; // a timer of its own: the watchdog has the one of alarm()
    event.sigev_signo  = SIGUSR1;
    if (polled_by_signals == nullptr || sigaction(SIGUSR1, &action, nullptr) != 0 || timer_create(CLOCK_MONOTONIC, &event, &next_signal) != 0)
        return false;
    signal_soon();
    return true;
}

/// The RDMA of either side. 0, or the exit code.
int rdma(party &p, int socket, bool receives)
{
    if (bug != "rdma")
        return 0;
    both_ways memory(*p.e, p.ah, p.peer_qpn, socket, p.options.write);
    if (!memory.open(receives ? 1 : 0) || !memory.rounds(4))
        return 12;
    const char *denied = getenv("CANARY_DENY_LATER");
    const bool  killed = denied != nullptr && std::string_view(denied) == "kill";
    if (killed && receives) { // the other one is to live
        std::uint64_t word;
        const iovec   here{&word, sizeof(word)}, there{reinterpret_cast<void *>(memory.peer.address), sizeof(word)};
        if (process_vm_readv(static_cast<pid_t>(memory.peer.pid), &here, 1, &there, 1, 0) != sizeof(word))
            return 77; // nobody may copy here in any case
    }
    if (denied != nullptr && (receives || !killed) && !deny_process_vm(denied))
        return 9;
    const bool signals = polled_by_signals != nullptr;
    if (!memory.rounds(killed ? 400 : 4, [=] { return signals && interrupted < enough_interrupted; }))
        return 12;
    if (killed)
        _exit(13); // at once: a command may use the call, too, to reach memory of the program
    if (signals)
        std::printf("interrupted %u\n", interrupted.load());
    std::fflush(stdout);
    return 0;
}

/// Messages 0..total-1, each once, through a window of buffers.
int sender(int socket, std::uint32_t total)
{
    party p;
    if (!p.open(socket))
        return 2;
    if (const int code = rdma(p, socket, false); code != 0)
        return code;
    std::array<std::uint32_t, window> in_slot{};
    std::uint32_t                     busy = 0, next = 0, completed = 0, answered = 0;
    std::map<std::uint32_t, bool>     done; ///< message: its completion was seen
    std::array<double, window>        since{};
    while (completed < total || answered < total) {
        for (std::uint32_t i = 0; i < window && next < total && next - answered < 24 && (next == 0 || completed != 0); ++i) { // the first message connects the two
            if ((busy >> i & 1) != 0)
                continue;
            p.fill(i, next);
            if (!p.post(i, i))
                return 3;
            since[i]   = now();
            in_slot[i] = next++;
            if (bug == "reuse_before_completion" && in_slot[i] > 0) // the first one waits for the connection in any case
                p.fill(i, 0xffffff);
            busy |= 1u << i;
        }
        if (bug == "short_timeout")
            for (std::uint32_t i = 0; i < window; ++i)
                if ((busy >> i & 1) != 0 && in_slot[i] > 0 && now() - since[i] > impatience)
                    return broken;
        auto c = p.poll();
        if (!c)
            continue;
        if (c->wr_id >= 1000) { // an answer
            bool       whole;
            const auto which = sequence_of(p.e->buffer() + 32768 + (c->wr_id - 1000) * size, &whole);
            if (c->status != IBV_WC_SUCCESS || !whole || which >= total)
                return broken;
            if (bug == "answer_after_completion" && !done[which])
                return broken;
            ++answered;
            if (p.e->recv(c->wr_id, 32768 + (c->wr_id - 1000) * size, size) != 0)
                return 4;
            continue;
        }
        const auto i = static_cast<std::uint32_t>(c->wr_id);
        const bool ignored = bug == "status_is_ignored" || (bug == "rnr_is_success" && c->status == IBV_WC_RNR_RETRY_EXC_ERR);
        if (c->status != IBV_WC_SUCCESS && !ignored) {
            if (!p.post(i, i)) // not delivered: again
                return 5;
            continue;
        }
        if (bug == "completions_in_order" && in_slot[i] != completed)
            return broken;
        done[in_slot[i]] = true;
        ++completed;
        busy &= ~(1u << i);
        if (total > completed && ignored && c->status != IBV_WC_SUCCESS)
            ++answered; // as if it had been: this one's answer will not come
    }
    char word = 0;
    return read(socket, &word, 1) == 1 ? 0 : 6; // the receiver has what it waited for, or is gone
}

int receiver(int socket, std::uint32_t total, pid_t child)
{
    party p;
    if (!p.open(socket))
        return 2;
    if (const int code = rdma(p, socket, true); code != 0)
        return code;
    std::vector<bool> seen(total);
    std::uint32_t     received = 0, spoiled = 0, free_answers = ~0u;
    std::deque<std::uint32_t> owed; // an answer may be there long before its own completion, so the buffers can all be under way
    const auto answer = [&] {
        while (!owed.empty() && free_answers != 0) {
            const auto i = static_cast<std::uint32_t>(__builtin_ctz(free_answers));
            free_answers &= ~(1u << i);
            p.fill(i, owed.front());
            owed.pop_front();
            if (!p.post(i, i))
                return false;
        }
        return true;
    };
    double            heard = 0, stopped_at = 0;
    int               state = 0;
    while (received < total) {
        auto c = p.poll();
        if (!c) {
            if (bug == "silence_is_the_end" && heard != 0 && now() - heard > impatience)
                return broken; // with messages missing
            if (stopped_at != 0 && now() - stopped_at > pause) {
                kill(child, SIGCONT);
                stopped_at = 0;
            }
            if (bug != "waits_for_the_dead" && waitpid(child, &state, WNOHANG | WUNTRACED) == child) {
                if (!WIFSTOPPED(state))
                    return WIFSIGNALED(state) ? 0 : WEXITSTATUS(state); // its end is noticed: that is all that can be asked
                stopped_at = now();
            }
            continue;
        }
        heard = now();
        if (c->wr_id < 1000) { // completion of an answer
            if (c->status != IBV_WC_SUCCESS) {
                if (!p.post(c->wr_id, c->wr_id))
                    return 5;
            } else {
                free_answers |= 1u << c->wr_id;
                if (!answer())
                    return 3;
            }
            continue;
        }
        bool       whole;
        char      *at    = p.e->buffer() + 32768 + (c->wr_id - 1000) * size;
        auto       which = sequence_of(at, &whole);
        if (bug == "reuse_before_completion" && c->status == IBV_WC_SUCCESS && (!whole || which >= total)) {
            ++spoiled;
            which = static_cast<std::uint32_t>(std::find(seen.begin(), seen.end(), false) - seen.begin()); // it is answered like any other
        }
        if (c->status != IBV_WC_SUCCESS || which >= total || (bug != "reuse_before_completion" && (!whole || seen[which])))
            return broken;
        if (bug == "messages_in_order" && which != received)
            return broken;
        seen[which] = true;
        ++received;
        if (p.e->recv(c->wr_id, 32768 + (c->wr_id - 1000) * size, size) != 0)
            return 4;
        owed.push_back(which);
        if (!answer())
            return 3;
    }
    while (free_answers != ~0u || !owed.empty())
        if (auto c = p.poll(); c && c->wr_id < 1000) {
            if (c->status == IBV_WC_SUCCESS || c->status == IBV_WC_REM_INV_RD_REQ_ERR) {
                free_answers |= 1u << c->wr_id;
                if (!answer())
                    return 3;
            } else if (!p.post(c->wr_id, c->wr_id)) {
                return 5;
            }
        }
    const char word = 1;
    if (write(socket, &word, 1) != 1)
        return 8;
    while (waitpid(child, &state, 0) != child) {
    }
    if (!WIFEXITED(state) || WEXITSTATUS(state) != 0)
        return WIFEXITED(state) ? WEXITSTATUS(state) : broken;
    return spoiled * 100 >= total * spoiled_percent ? broken : 0;
}

} // namespace

int canary_main(const char *which, const char *end)
{
    bug = which;
    const std::uint32_t total = bug == "short_timeout" || bug == "none_slow" ? 5 : 400;
    alarm(getenv("CANARY_SECONDS") != nullptr ? static_cast<unsigned>(std::atoi(getenv("CANARY_SECONDS"))) : 5); // a hang is a failure
    if (const char *how = getenv("CANARY_DENY_PROCESS_VM"); how != nullptr && !deny_process_vm(how))
        return 9;
    if (getenv("CANARY_POLL_FROM_SIGNALS") != nullptr && !poll_from_signals())
        return 9;
    if (const auto code = short_canary(which, end))
        return *code;
    if (end != nullptr)
        return sender(std::atoi(end), total);
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return 2;
    const pid_t child = fork();
    if (child == 0) {
        close(pair[0]);
        // Settings are read once in a process: what only the sender is to suffer waits for it under another name.
        for (const char *name : {"STOP_AT", "KILL_AT"})
            if (const char *value = getenv((std::string("CANARY_SENDER_") + name).c_str()))
                setenv((std::string("SOFTEFA_") + name).c_str(), value, 1);
        char path[4096] = "";
        if (const char *within = getenv("CANARY_SENDER_WITHIN"); within != nullptr && readlink("/proc/self/exe", path, sizeof(path) - 1) > 0)
            execl("/bin/sh", "sh", "-c", (std::string("exec ") + within + " \"$0\" --canary \"$1\" \"$2\"").c_str(), path, which,
                  std::to_string(pair[1]).c_str(), static_cast<char *>(nullptr));
        execl("/proc/self/exe", "gtest_softefa_verbs", "--canary", which, std::to_string(pair[1]).c_str(), static_cast<char *>(nullptr));
        _exit(127);
    }
    close(pair[1]);
    const int code = receiver(pair[0], total, child);
    kill(child, SIGKILL);
    return code;
}

} // namespace verbs
