/* A peer that is killed or stopped by a signal, seen through UCP with error handling: what the log tells of the one, and that the
 * other is not taken for the first.
 *
 *   ucp_signals line ROUNDS BOUND   a peer is killed; within BOUND seconds the error handler was called and the log has a line that names
 *                                   the peer's GID and QPN, the status, the device's status, what that means, and the likely cause.
 *                                   Run with UCX_LOG_LEVEL=diag, at which UCX logs failures (UCX_SRD_FAILURE)
 *   ucp_signals stop ROUNDS SECONDS a peer is stopped for SECONDS, with sends of several sizes to it outstanding, and goes on: no error
 *                                   is reported, everything that was sent arrives, and another peer is served meanwhile. Run with
 *                                   keepalive intervals that are a small part of SECONDS
 */
#include "pair.h"

#include <arpa/inet.h>
#include <array>
#include <cstdarg>
#include <memory>
#include <regex>
#include <ucs/debug/log_def.h>

namespace {

using namespace sys;

constexpr uint64_t              tag_echo = 1, tag_flood = 2, tag_counted = 3;
constexpr std::array<size_t, 4> flood_sizes = {8, 300, 4000, 100000};
constexpr double                patience    = 120; ///< for what has no bound of its own: only a test that hangs takes so long

bool is_done(void *r) { return !UCS_PTR_IS_PTR(r) || ucp_request_check_status(r) != UCS_INPROGRESS; }

void release(void *r)
{
    if (UCS_PTR_IS_PTR(r)) {
        ucp_request_free(r);
    }
}

/// Echoes pings, and takes floods: their messages are numbered, all their bytes are the number. Ends with its standard input.
int play_peer()
{
    worker w;
    write_blob(STDOUT_FILENO, w.address());
    endpoint e;
    w.connect(read_blob(STDIN_FILENO), &e);
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    std::vector<unsigned char> flood(flood_sizes.back());
    uint64_t                   ping = 0, taken = 0;
    void *echo_receive  = w.receive(tag_echo, &ping, sizeof ping);
    void *flood_receive = w.receive(tag_flood, flood.data(), flood.size());
    for (char c = 0; read(STDIN_FILENO, &c, 1) != 0;) {
        if (e.failure != UCS_OK) {
            die(std::string("the survivor was taken for dead: ") + ucs_status_string(e.failure));
        }
        for (int i = 0; i < 64; ++i) {
            ucp_worker_progress(w.handle());
        }
        if (is_done(flood_receive)) {
            release(flood_receive);
            const size_t size = flood_sizes[taken % flood_sizes.size()];
            for (size_t i = 0; i < size; ++i) {
                if (flood[i] != static_cast<unsigned char>(taken)) {
                    die("message " + std::to_string(taken) + " has a wrong byte " + std::to_string(i));
                }
            }
            ++taken;
            flood_receive = w.receive(tag_flood, flood.data(), flood.size());
        }
        if (is_done(echo_receive)) {
            release(echo_receive);
            const uint64_t answer = ping == 0 ? taken : ping; // 0 asks how many there were
            echo_receive          = w.receive(tag_echo, &ping, sizeof ping);
            check(w.wait(w.send(e, tag_echo, &answer, sizeof answer), patience, "echo"), "echo");
        }
        sched_yield();
    }
    _exit(0);
}

struct peer {
    child    process;
    endpoint link;

    void start(worker &w)
    {
        process.start({"ucp_signals", "peer"});
        w.connect(read_blob(process.in), &link);
        write_blob(process.out, w.address());
    }
    uint64_t ask(worker &w, uint64_t question, const char *what)
    {
        uint64_t answer  = 0;
        void    *receive = w.receive(tag_echo, &answer, sizeof answer);
        check(w.wait(w.send(link, tag_echo, &question, sizeof question), patience, what), what);
        check(w.wait(receive, patience, what), what);
        return answer;
    }
};

// --- line ----------------------------------------------------------------------------------------------------------------------

std::vector<std::string> lines;

ucs_log_func_rc_t take_line(const char *, unsigned, const char *, ucs_log_level_t, const ucs_log_component_config_t *, const char *format,
                            va_list arguments)
{
    char    text[1024];
    va_list copy;
    va_copy(copy, arguments);
    std::vsnprintf(text, sizeof text, format, copy);
    va_end(copy);
    if (std::strstr(text, "srd: peer ") != text) {
        return UCS_LOG_FUNC_RC_CONTINUE;
    }
    lines.emplace_back(text);
    return UCS_LOG_FUNC_RC_STOP;
}

void check_line(const std::string &line)
{
    static const std::regex form("srd: peer GID ([0-9a-f:]+) QPN ([0-9]+) failed: (.+) \\(device status ([0-9]+)\\): (.+); likely cause: (.+)");
    std::smatch             part;
    in6_addr                gid;
    if (!std::regex_match(line, part, form)) {
        die("not the line that is promised: " + line);
    }
    if (inet_pton(AF_INET6, part[1].str().c_str(), &gid) != 1 || IN6_IS_ADDR_UNSPECIFIED(&gid) || part[2] == "0") {
        die("it names nobody: " + line);
    }
    static const std::regex of_the_end("8|9|13|14|15"); // what a device says of a process that is no more
    if (!std::regex_match(part[4].str(), of_the_end) || part[3] != ucs_status_string(UCS_ERR_ENDPOINT_TIMEOUT)) {
        die("not the status of a process that ended: " + line);
    }
    if (part[5].length() < 5 || part[6].length() < 10) {
        die("it does not say why: " + line);
    }
}

int line(unsigned rounds, double bound)
{
    worker w;
    ucs_log_push_handler(take_line);
    for (unsigned round = 0; round < rounds; ++round) {
        peer victim;
        lines.clear();
        victim.start(w);
        if (victim.ask(w, 7, "the first ping") != 7 || !lines.empty()) {
            die("a line before anything happened");
        }
        uint64_t data   = 0;
        void    *send   = nullptr;
        victim.process.kill_and_reap(SIGKILL);
        const bool heard = w.until(bound, [&] {
            if (is_done(send) && victim.link.failure == UCS_OK) {
                release(send);
                send = w.send(victim.link, tag_counted, &data, sizeof data);
            }
            return victim.link.failure != UCS_OK;
        });
        if (!heard) {
            die("the death of the peer was not reported within the bound");
        }
        if (UCS_PTR_IS_PTR(send)) {
            (void)w.wait(send, patience, "a send to a dead peer");
        }
        if (lines.empty()) {
            die("the log does not tell of it");
        }
        for (const std::string &l : lines) {
            check_line(l);
        }
        if (round == 0) {
            std::printf("%s\n", lines[0].c_str());
        }
        w.close(victim.link, true, patience, "close after death");
    }
    ucs_log_pop_handler();
    std::printf("%u passed, 0 failed\n", rounds);
    return 0;
}

// --- stop ----------------------------------------------------------------------------------------------------------------------

int stop(unsigned rounds, double seconds)
{
    worker w;
    peer   witness;
    witness.start(w);
    uint64_t served = 0, sent_in_all = 0;
    for (unsigned round = 0; round < rounds; ++round) {
        peer victim;
        victim.start(w);
        if (victim.ask(w, 7, "the first ping") != 7) {
            die("the first ping came back as something else");
        }
        int status = 0;
        kill(victim.process.pid, SIGSTOP);
        if (waitpid(victim.process.pid, &status, WUNTRACED) != victim.process.pid || !WIFSTOPPED(status)) {
            die("the peer did not stop");
        }
        std::vector<std::unique_ptr<std::vector<unsigned char>>> buffers;
        std::vector<void *>                                      sends;
        const auto                                               begin = clock::now();
        do {
            if (buffers.size() < 400) { // more than windows, credits and queues hold
                const auto number = static_cast<unsigned char>(buffers.size());
                buffers.push_back(std::make_unique<std::vector<unsigned char>>(flood_sizes[buffers.size() % flood_sizes.size()], number));
                sends.push_back(w.send(victim.link, tag_flood, buffers.back()->data(), buffers.back()->size()));
            }
            ++served;
            if (witness.ask(w, served, "a ping of the witness") != served) {
                die("the witness was disturbed");
            }
            if (victim.link.reports != 0 || witness.link.reports != 0) {
                die("round " + std::to_string(round) + ": a peer that is only stopped was taken for dead after " +
                    std::to_string(seconds_since(begin)) + " s: " + ucs_status_string(victim.link.failure));
            }
        } while (seconds_since(begin) < seconds);
        kill(victim.process.pid, SIGCONT);
        for (void *r : sends) {
            check(w.wait(r, patience, "a send to a peer that goes on"), "a send to a peer that goes on");
        }
        uint64_t taken = 0;
        const auto resumed = clock::now();
        while ((taken = victim.ask(w, 0, "how many it has")) < sends.size()) {
            if (seconds_since(resumed) > patience) {
                die("of " + std::to_string(sends.size()) + " messages " + std::to_string(taken) + " arrived");
            }
        }
        if (taken != sends.size() || victim.link.reports != 0) {
            die("of " + std::to_string(sends.size()) + " messages " + std::to_string(taken) + " arrived");
        }
        sent_in_all += taken;
        w.close(victim.link, true, patience, "close");
        victim.process.kill_and_reap(SIGKILL);
    }
    w.close(witness.link, true, patience, "close of the witness");
    witness.process.kill_and_reap(SIGKILL);
    std::printf("%llu messages to stopped peers, %llu answers of another meanwhile\n", static_cast<unsigned long long>(sent_in_all),
                static_cast<unsigned long long>(served));
    std::printf("%u passed, 0 failed\n", rounds);
    return 0;
}

} // namespace

int main(int argc, char **argv)
{
    const std::string what = argc > 1 ? argv[1] : "";
    signal(SIGPIPE, SIG_IGN);
    if (what == "peer") {
        return play_peer();
    }
    if (argc == 4) {
        const auto n = unsigned(std::strtoul(argv[2], nullptr, 10));
        if (what == "line" && n > 0) {
            return line(n, std::strtod(argv[3], nullptr));
        }
        if (what == "stop" && n > 0) {
            return stop(n, std::strtod(argv[3], nullptr));
        }
    }
    std::fprintf(stderr, "usage: ucp_signals line ROUNDS BOUND_SECONDS | stop ROUNDS SECONDS\n");
    return 2;
}
