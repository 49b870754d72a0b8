/* See canary.h. Programs of few messages, for settings whose mistake a stream of messages between two processes (canary.cc) cannot make. Each with
 * the mistake, and without it:
 *
 *   one_failure_is_everyones, failures_apart   a sender with two peers gives up both when work to one of them fails. SOFTEFA_RUDE_QPN.
 *   pause_is_waited_out, pause_has_an_end      a sender whose peer is stopped takes it that its work waits, and so every completion for a delivery;
 *                                              or sends again what failed. SOFTEFA_UNRESPONSIVE_TIMEOUT.
 *   queue_for_a_batch, queue_for_all           a receiver's completion queue has room for what it polls at a time, not for all that can be there
 *                                              before it polls. SOFTEFA_CQ_OVERRUN.
 *   number_is_a_life, qkey_is_a_life           a receiver makes its queue pair anew and takes it that nothing for the old one gets there: by its
 *                                              number; or by a qkey of its own. SOFTEFA_REUSE_QPN.
 *
 * No verdict rests on time, nor on a poll that finds nothing: each waits for completions that must come, for word of the other side, or for the
 * device's event. A pause lasts until the sender hears of its work; only without the setting, where nothing depends on it, it ends by the clock.
 */
#include "canary.h"

#include "verbs_endpoint.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace verbs {

namespace {

constexpr int           broken = 10, no_peer_left = 12, cannot = 2;
constexpr std::uint32_t size = 64;

bool say(int socket, std::uint32_t word) { return write(socket, &word, sizeof(word)) == sizeof(word); }
bool hear(int socket, std::uint32_t *word_p) { return recv(socket, word_p, sizeof(*word_p), MSG_WAITALL) == sizeof(*word_p); }

/// The next completion, however long it takes: the watchdog ends a hang.
completion next(endpoint &e)
{
    for (;;)
        if (const auto c = e.poll_once())
            return *c;
}

void fill(endpoint &e, std::uint32_t slot, std::uint32_t number)
{
    for (std::uint32_t i = 0; i < size / 4; ++i)
        reinterpret_cast<std::uint32_t *>(e.buffer() + slot * size)[i] = number;
}
/// What was received into that slot; -1: not whole.
std::uint32_t number_in(endpoint &e, std::uint64_t slot)
{
    const auto *words = reinterpret_cast<const std::uint32_t *>(e.buffer() + slot * size);
    for (std::uint32_t i = 1; i < size / 4; ++i)
        if (words[i] != words[0])
            return ~0u;
    return words[0];
}
/// Receives, the slot as their id.
bool post_receives(endpoint &e, std::uint32_t count)
{
    for (std::uint32_t i = 0; i < count; ++i)
        if (e.recv(i, i * size, size) != 0)
            return false;
    return true;
}

endpoint::options roomy()
{
    endpoint::options o;
    o.rnr_retry = 7;
    return o;
}

/// The other process: this program with the other end of *socket_p.
pid_t start_other(const char *bug, int *socket_p)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return -1;
    const std::string end   = std::to_string(pair[1]);
    const pid_t       child = fork();
    if (child == 0) {
        close(pair[0]);
        prctl(PR_SET_PDEATHSIG, SIGKILL); // it may be stopped when the watchdog ends this one
        execl("/proc/self/exe", "gtest_softefa_verbs", "--canary", bug, end.c_str(), static_cast<char *>(nullptr));
        _exit(127);
    }
    close(pair[1]);
    *socket_p = pair[0];
    return child;
}

/// Its exit code; -1: a signal ended it.
int end_of(pid_t child)
{
    int state = 0;
    while (waitpid(child, &state, 0) == -1 && errno == EINTR) {
    }
    return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
}

// One sender, two peers.

constexpr std::uint32_t each_peer = 4; ///< messages; a busy machine may take long over each

int sender_to_two(int socket, bool one_is_all)
{
    const context_ptr context = open_device();
    if (context == nullptr)
        return cannot;
    endpoint e(context.get(), roomy());
    if (!e.ok())
        return cannot;
    struct {
        std::uint32_t qpn = 0, delivered = 0;
        bool          refused = false; ///< the device said so
        bool          given_up = false;
    } peers[2];
    for (auto &p : peers)
        if (!hear(socket, &p.qpn))
            return cannot;
    ibv_ah *ah = e.ah_to(e); // one host, one GID
    for (std::uint32_t n = 0; n < each_peer; ++n)
        for (auto &p : peers) {
            if (p.given_up)
                continue;
            fill(e, 0, n);
            if (e.send_ex(0, p.qpn, ah, e.sge(0, size)) != 0)
                return cannot;
            if (next(e).status == IBV_WC_SUCCESS) {
                ++p.delivered;
                continue;
            }
            p.refused = p.given_up = true;
            if (one_is_all)
                peers[0].given_up = peers[1].given_up = true;
        }
    for (const auto &p : peers)
        if (!say(socket, p.delivered))
            return cannot;
    std::uint32_t word; // the receiver has what was delivered
    if (!hear(socket, &word))
        return cannot;
    if (peers[0].refused && peers[1].refused)
        return no_peer_left;
    for (const auto &p : peers)
        if (!p.refused && p.delivered != each_peer)
            return broken;
    return 0;
}

/// Both peers. Their numbers are known before the sender's settings are read.
int two_receivers(const char *bug)
{
    const context_ptr context = open_device();
    if (context == nullptr)
        return cannot;
    endpoint  first(context.get(), roomy()), second(context.get(), roomy());
    endpoint *both[] = {&first, &second};
    for (endpoint *e : both)
        if (!e->ok() || !post_receives(*e, each_peer))
            return cannot;
    if (const char *aim = getenv("CANARY_SENDER_RUDE_QPN"); aim != nullptr) {
        std::uint32_t beside = 1; // a number that neither has
        while (beside == first.qp()->qp_num || beside == second.qp()->qp_num)
            ++beside;
        setenv("SOFTEFA_RUDE_QPN", std::to_string(std::string_view(aim) == "first" ? first.qp()->qp_num : beside).c_str(), 1);
    }
    int         socket = -1;
    const pid_t child  = start_other(bug, &socket);
    for (const endpoint *e : both)
        if (child < 0 || !say(socket, e->qp()->qp_num))
            return cannot;
    std::uint32_t delivered[2];
    if (!hear(socket, &delivered[0]) || !hear(socket, &delivered[1]))
        return end_of(child);
    for (unsigned i = 0; i < 2; ++i)
        for (std::uint32_t n = 0; n < delivered[i]; ++n)
            if (const completion c = next(*both[i]); c.status != IBV_WC_SUCCESS || number_in(*both[i], c.wr_id) >= each_peer)
                return broken;
    return say(socket, 0) ? end_of(child) : cannot;
}

// A peer that pauses.

constexpr std::uint32_t paused_messages = 8, last_message = paused_messages + 1;

int receiver_that_pauses(int socket)
{
    const context_ptr context = open_device();
    if (context == nullptr)
        return cannot;
    endpoint      e(context.get(), roomy());
    std::uint32_t word, seen = 0;
    if (!e.ok() || !post_receives(e, last_message + 1) || !say(socket, e.qp()->qp_num))
        return cannot;
    const auto take = [&] {
        const completion    c      = next(e);
        const std::uint32_t number = number_in(e, c.wr_id);
        if (c.status != IBV_WC_SUCCESS || number > last_message || (seen >> number & 1) != 0)
            return false;
        seen |= 1u << number;
        return true;
    };
    if (!take() || !hear(socket, &word))
        return broken;
    raise(SIGSTOP);
    while ((seen >> last_message & 1) == 0)
        if (!take())
            return broken;
    return say(socket, seen) ? 0 : cannot;
}

double now()
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

int sender_to_a_pausing_one(const char *bug, bool waits_it_out)
{
    const context_ptr context = open_device();
    if (context == nullptr)
        return cannot;
    endpoint e(context.get(), roomy());
    if (!e.ok())
        return cannot;
    int           socket = -1, state = 0;
    const pid_t   child  = start_other(bug, &socket);
    std::uint32_t qpn    = 0;
    if (child < 0 || !hear(socket, &qpn))
        return cannot;
    ibv_ah    *ah   = e.ah_to(e);
    const auto post = [&](std::uint64_t number) { return e.send_ex(number, qpn, ah, e.sge(number * size, size)) == 0; };
    // Until it is delivered: a busy machine may look like a pause.
    const auto deliver = [&](std::uint32_t number) {
        fill(e, number, number);
        do {
            if (!post(number))
                return false;
        } while (next(e).status != IBV_WC_SUCCESS);
        return true;
    };
    if (!deliver(0) || !say(socket, 0) || waitpid(child, &state, WUNTRACED) != child || !WIFSTOPPED(state))
        return cannot;
    for (std::uint32_t number = 1; number <= paused_messages; ++number) {
        fill(e, number, number);
        if (!post(number))
            return cannot;
    }
    const char  *longest = getenv("CANARY_PAUSE");
    const double end     = now() + (longest != nullptr ? std::atoi(longest) : 0.2);
    auto         c       = e.poll_once();
    while (!c && now() < end)
        c = e.poll_once();
    kill(child, SIGCONT);
    for (std::uint32_t open = paused_messages; open != 0;) {
        if (!c)
            c = next(e);
        if (c->status == IBV_WC_SUCCESS || waits_it_out)
            --open;
        else if (!post(c->wr_id))
            return cannot;
        c.reset();
    }
    std::uint32_t seen = 0;
    if (!deliver(last_message) || !hear(socket, &seen))
        return cannot;
    const int code = end_of(child);
    return code != 0 ? code : seen == (2u << last_message) - 1 ? 0 : broken;
}

// A completion queue that is polled late.

int late_poll(bool for_all)
{
    constexpr std::uint32_t messages = 20, at_a_time = 16;
    const context_ptr       context  = open_device();
    if (context == nullptr)
        return cannot;
    endpoint::options o = roomy();
    o.cqe               = for_all ? messages : at_a_time;
    endpoint from(context.get(), roomy()), to(context.get(), o);
    if (!from.ok() || !to.ok() || !post_receives(to, messages))
        return cannot;
    ibv_ah *ah = from.ah_to(to);
    for (std::uint32_t i = 0; i < messages; ++i) {
        fill(from, i, i);
        if (from.send_ex(i, to.qp()->qp_num, ah, from.sge(i * size, size)) != 0)
            return cannot;
    }
    for (std::uint32_t i = 0; i < messages; ++i) // all are received then
        if (next(from).status != IBV_WC_SUCCESS)
            return cannot;
    pollfd told{context->async_fd, POLLIN, 0};
    for (std::uint32_t seen = 0, found = 0; found < messages;) {
        const auto c = to.poll_once();
        if (!c) {
            if (poll(&told, 1, 0) == 1)
                return broken; // the rest is lost
            continue;
        }
        const std::uint32_t number = number_in(to, c->wr_id);
        if (c->status != IBV_WC_SUCCESS || number >= messages || (seen >> number & 1) != 0)
            return cannot;
        seen |= 1u << number;
        ++found;
    }
    return 0;
}

// A queue pair that is made anew.

int second_life(bool qkey_of_its_own)
{
    constexpr std::uint32_t messages = 4, second = 100; // the numbers of the second life's messages
    const context_ptr       context  = open_device();
    if (context == nullptr)
        return cannot;
    endpoint from(context.get(), roomy());
    if (!from.ok())
        return cannot;
    endpoint::options o  = roomy();
    auto              to = std::make_unique<endpoint>(context.get(), o);
    if (!to->ok() || !post_receives(*to, messages))
        return cannot;
    ibv_ah    *ah   = from.ah_to(from);
    const auto send = [&](std::uint32_t number, std::uint32_t qpn, std::uint32_t key) {
        fill(from, 0, number);
        return from.send_ex(0, qpn, ah, from.sge(0, size), key) == 0 ? next(from).status : -1;
    };
    const std::uint32_t old = to->qp()->qp_num, old_qkey = o.qkey;
    if (send(0, old, old_qkey) != IBV_WC_SUCCESS || number_in(*to, next(*to).wr_id) != 0)
        return cannot;
    to.reset();
    o.qkey += qkey_of_its_own ? 1 : 0;
    to = std::make_unique<endpoint>(context.get(), o);
    if (!to->ok() || !post_receives(*to, messages))
        return cannot;
    if (send(1, old, old_qkey) < 0) // the sender has not heard yet; how it ends is all the same to it
        return cannot;
    for (std::uint32_t n = 0; n < messages - 1; ++n)
        if (send(second + n, to->qp()->qp_num, o.qkey) != IBV_WC_SUCCESS)
            return cannot;
    for (std::uint32_t n = 0; n < messages - 1; ++n)
        if (const completion c = next(*to); c.status != IBV_WC_SUCCESS || number_in(*to, c.wr_id) < second)
            return broken; // one for the old one
    return 0;
}

} // namespace

std::optional<int> short_canary(const char *which, const char *end)
{
    const std::string_view bug    = which;
    const int              socket = end != nullptr ? std::atoi(end) : -1;
    if (bug == "one_failure_is_everyones" || bug == "failures_apart")
        return end != nullptr ? sender_to_two(socket, bug == "one_failure_is_everyones") : two_receivers(which);
    if (bug == "pause_is_waited_out" || bug == "pause_has_an_end")
        return end != nullptr ? receiver_that_pauses(socket) : sender_to_a_pausing_one(which, bug == "pause_is_waited_out");
    if (bug == "queue_for_a_batch" || bug == "queue_for_all")
        return late_poll(bug == "queue_for_all");
    if (bug == "number_is_a_life" || bug == "qkey_is_a_life")
        return second_life(bug == "qkey_is_a_life");
    return {};
}

} // namespace verbs
