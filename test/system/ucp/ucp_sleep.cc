/* No lost wake: two processes bounce messages and sleep for every answer, with nothing that would wake them by itself.
 *
 *   ucp_sleep ROUNDS   until this process has slept ROUNDS times; sizes and pauses vary, so that what wakes a sleeper arrives before,
 *                      between and after the steps of arming. A sleep that nothing ends within 30 s is a lost wake.
 *
 * Every timer that could save one is off: the transport's keepalive by its setting, UCP's because endpoints have no error handling.
 * What is left (a hello that is repeated, a probe of a peer that grants no credits) is counted by the transport: some tens in 20,000
 * sleeps, more of them the faster the machine. A transport that sleeps by its timers sets one for each sleep; the test fails if both
 * processes together set more than one for each ten of ROUNDS (few_timers, if that is more). Run it under `ucx-srd run --soft` with UCX_TLS=srd. Prints what it saw and a line of counts.
 */
#include "pair.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <poll.h>
#include <random>

namespace {

using namespace sys;

constexpr uint64_t tag_ping = 1, tag_pong = 2;
constexpr uint64_t few_timers = 100; ///< of the transport, in both processes; never too many, however few the rounds
constexpr int      lost_ms  = 30000;
constexpr size_t   size_max = 12000;
constexpr uint64_t last_round = ~uint64_t(0);

/// What one process saw of its sleeps.
struct sleeps {
    uint64_t slept = 0, busy = 0;
    double   longest = 0; ///< seconds
};

class sleeper {
public:
    explicit sleeper(const char *name) : worker_(UCP_FEATURE_TAG | UCP_FEATURE_WAKEUP), name_(name)
    {
        check(ucp_worker_get_efd(worker_.handle(), &efd_), "ucp_worker_get_efd");
    }

    worker &w() { return worker_; }
    const sleeps &seen() const { return seen_; }

    /// Progresses until there is nothing to do, then sleeps, until the condition holds.
    template <class Condition> void until(Condition condition)
    {
        for (;;) {
            while (ucp_worker_progress(worker_.handle()) != 0) {
            }
            if (condition()) {
                return;
            }
            const ucs_status_t status = ucp_worker_arm(worker_.handle());
            if (status == UCS_ERR_BUSY) {
                ++seen_.busy;
                continue;
            }
            check(status, "ucp_worker_arm");
            pollfd     wait{efd_, POLLIN, 0};
            const auto begin = clock::now();
            if (poll(&wait, 1, lost_ms) != 1) {
                die(std::string(name_) + ": a wake was lost: sleep " + std::to_string(seen_.slept) + " did not end");
            }
            ++seen_.slept;
            seen_.longest = std::max(seen_.longest, seconds_since(begin));
        }
    }

    void finish(void *request, const char *what)
    {
        if (UCS_PTR_IS_ERR(request)) {
            check(UCS_PTR_STATUS(request), what);
        }
        if (request == nullptr) {
            return;
        }
        until([&] { return ucp_request_check_status(request) != UCS_INPROGRESS; });
        check(ucp_request_check_status(request), what);
        ucp_request_free(request);
    }

private:
    worker      worker_;
    const char *name_;
    int         efd_ = -1;
    sleeps      seen_;
};

/// A message is its round, then bytes that follow from it.
void fill(std::vector<char> &bytes, size_t size, uint64_t round)
{
    bytes.assign(size, char(round * 31));
    std::memcpy(bytes.data(), &round, sizeof round);
}

size_t size_of_round(uint64_t round) { return round % 7 == 0 ? 9000 + round % 3000 : round % 5 == 0 ? 500 : sizeof round; }

/// Answers each ping with the same bytes.
int play_echo()
{
    sleeper s("echo");
    write_blob(STDOUT_FILENO, s.w().address());
    endpoint e;
    s.w().connect(read_blob(STDIN_FILENO), &e, false);
    std::vector<char> bytes(size_max);
    for (;;) {
        const auto asked = [&] {
            ucp_tag_recv_info_t info;
            return ucp_tag_probe_nb(s.w().handle(), tag_ping, ~uint64_t(0), 0, &info) != nullptr;
        };
        s.until(asked);
        ucp_tag_recv_info_t info;
        (void)ucp_tag_probe_nb(s.w().handle(), tag_ping, ~uint64_t(0), 0, &info);
        bytes.resize(size_max);
        s.finish(s.w().receive(tag_ping, bytes.data(), size_max), "ping");
        bytes.resize(info.length);
        uint64_t round = 0;
        std::memcpy(&round, bytes.data(), sizeof round);
        s.finish(s.w().send(e, tag_pong, bytes.data(), bytes.size()), "send of a pong");
        if (round == last_round) {
            break;
        }
    }
    s.finish(ucp_worker_flush_nbx(s.w().handle(), std::vector<ucp_request_param_t>(1).data()), "flush");
    write_all(STDOUT_FILENO, &s.seen(), sizeof(sleeps));
    char end;
    (void)read_all(STDIN_FILENO, &end, 1);
    ucp_request_param_t param = {};
    (void)s.w().wait(ucp_ep_close_nbx(e.ep, &param), 20, "close");
    return 0;
}

/// How many timers the interfaces set, from the summaries that the transport wrote when they were closed.
uint64_t timers_in(const std::string &logs, unsigned &interfaces)
{
    uint64_t sum = 0;
    for (const auto &file : std::filesystem::directory_iterator(logs)) {
        std::ifstream log(file.path());
        for (std::string line; std::getline(log, line);) {
            if (line.find(" closed:") == std::string::npos) {
                continue;
            }
            ++interfaces;
            const size_t at = line.find("event_timer=");
            sum += at == std::string::npos ? 0 : std::strtoull(line.c_str() + at + 12, nullptr, 10);
        }
    }
    return sum;
}

void show(const char *name, const sleeps &s)
{
    std::printf("%s: slept %llu times, arming refused %llu times, longest sleep %.4f s\n", name, (unsigned long long)s.slept,
                (unsigned long long)s.busy, s.longest);
}

int bounce(uint64_t rounds)
{
    child  echo;
    sleeps theirs, ours;
    echo.start({"ucp_sleep", "echo"});
    {
        sleeper  s("main");
        endpoint e;
        s.w().connect(read_blob(echo.in), &e, false);
        write_blob(echo.out, s.w().address());
        std::mt19937      random(1);
        std::vector<char> ping, pong(size_max);
        const auto        begin = clock::now();
        bool              last  = false;
        for (uint64_t round = 0; !last; ++round) {
            last = s.seen().slept >= rounds;
            fill(ping, size_of_round(round), last ? last_round : round);
            void *answer = s.w().receive(tag_pong, pong.data(), pong.size());
            s.finish(s.w().send(e, tag_ping, ping.data(), ping.size()), "send of a ping");
            s.finish(answer, "pong");
            if (std::memcmp(ping.data(), pong.data(), ping.size()) != 0) {
                die("a wrong answer");
            }
            if (random() % 64 == 0) { // the other side falls asleep first
                const auto pause = clock::now();
                while (seconds_since(pause) < 50e-6 * double(random() % 8)) {
                }
            }
        }
        ours = s.seen();
        std::printf("%.1f s, %.1f us a sleep\n", seconds_since(begin), seconds_since(begin) / double(ours.slept) * 1e6);
        if (!read_all(echo.in, &theirs, sizeof theirs)) {
            die("the echo ended");
        }
        write_all(echo.out, "e", 1);
        ucp_request_param_t param = {};
        (void)s.w().wait(ucp_ep_close_nbx(e.ep, &param), 20, "close");
    }
    const bool echo_ended_well = echo.reap() == 0;
    show("main", ours);
    show("echo", theirs);
    // The echo must have slept, too.
    return !echo_ended_well || theirs.slept < rounds / 10;
}

/// Runs both processes with every setting in place, then looks at what their transports counted: UCX writes its log when
/// a process ends.
int judge(const char *rounds, const std::string &logs)
{
    child real;
    real.start({"ucp_sleep", "bounce", rounds});
    for (char c; read(real.in, &c, 1) == 1;) {
        write_all(STDOUT_FILENO, &c, 1);
    }
    unsigned   interfaces = 0;
    const bool slept_well = real.reap() == 0;
    const uint64_t timers = timers_in(logs, interfaces);
    const uint64_t most   = std::max<uint64_t>(few_timers, std::strtoull(rounds, nullptr, 10) / 10);
    const unsigned failed = unsigned(!slept_well) + unsigned(interfaces != 2 || timers > most);
    std::printf("timers set: %llu, at most %llu, by %u interfaces\n", (unsigned long long)timers, (unsigned long long)most, interfaces);
    std::printf("%u passed, %u failed\n", 2 - failed, failed);
    return failed != 0;
}

} // namespace

int main(int argc, char **argv)
{
    const std::string what = argc > 1 ? argv[1] : "";
    signal(SIGPIPE, SIG_IGN);
    if (what == "echo") {
        return play_echo();
    }
    if (what == "bounce" && argc == 3) {
        return bounce(std::strtoull(argv[2], nullptr, 10));
    }
    if (argc != 2 || std::strtoull(argv[1], nullptr, 10) == 0) {
        std::fprintf(stderr, "usage: ucp_sleep ROUNDS\n");
        return 2;
    }
    std::string logs = "/tmp/ucp_sleep.XXXXXX";
    if (mkdtemp(logs.data()) == nullptr) {
        die("mkdtemp failed");
    }
    setenv("UCX_LOG_FILE", (logs + "/%p").c_str(), 1);
    setenv("UCX_LOG_LEVEL", "info", 1);
    setenv("UCX_SRD_STATS", "y", 1);
    setenv("UCX_SRD_KEEPALIVE_INTERVAL", "0", 1);
    setenv("UCX_SRD_EVENTS", "y", 1);
    const int result = judge(argv[1], logs);
    std::filesystem::remove_all(logs);
    return result;
}
