/* Faults between real processes, seen through UCP with error handling: what the survivor is told, and when.
 *
 *   ucp_faults peer-kill ROUNDS BOUND   a peer is killed with sends of several sizes outstanding; the survivor hears of it within
 *                                       BOUND seconds, all requests complete, and a third process keeps working
 *   ucp_faults force-close ROUNDS BOUND a peer that never posts a receive again (it sleeps), or is stopped by a signal (every other
 *                                       round); a forced close ends within BOUND seconds, and so do all sends: those to the sleeper
 *                                       while it sleeps, those to the stopped one when it is gone, because until then its device
 *                                       may still take what they point to
 *   ucp_faults incast SENDERS MESSAGES  SENDERS endpoints of as many workers send to one slow receiver; every byte is checked.
 *                                       Prints how evenly they got through (Jain's index of the messages of each, when the first
 *                                       had sent all) and how much the receiver's resident memory grew meanwhile
 *
 * Run it under `ucx-srd run --soft` with UCX_TLS=srd (or any other transport). Prints the times it saw and a line of counts.
 */
#include "pair.h"

#include <algorithm>
#include <fcntl.h>
#include <memory>
#include <random>

namespace {

using namespace sys;

constexpr uint64_t tag_echo = 1, tag_flood = 2, tag_first = 3;
constexpr size_t   flood_sizes[] = {8, 300, 4000, 20000, 300000};

/// Receives floods and echoes pings until its standard input ends.
int play_peer()
{
    worker w;
    write_blob(STDOUT_FILENO, w.address());
    endpoint    e;
    std::string survivor = read_blob(STDIN_FILENO);
    w.connect(survivor, &e);
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);

    std::vector<char> flood(300000);
    uint64_t          ping = 0, first = 0;
    bool              said = false;
    void *echo_receive  = w.receive(tag_echo, &ping, sizeof ping);
    void *flood_receive = w.receive(tag_flood, flood.data(), flood.size());
    void *first_receive = w.receive(tag_first, &first, sizeof first);
    // A receive may complete at once (the message was already here): then there is no request to free.
    const auto done = [](void *r) { return !UCS_PTR_IS_PTR(r) || ucp_request_check_status(r) != UCS_INPROGRESS; };
    const auto release = [](void *r) {
        if (UCS_PTR_IS_PTR(r)) {
            ucp_request_free(r);
        }
    };
    const auto begin    = clock::now();
    for (char c = 0; read(STDIN_FILENO, &c, 1) != 0;) {
        if (c == 's') { // sleep: no receive is posted any more
            fcntl(STDIN_FILENO, F_SETFL, 0);
            (void)read_all(STDIN_FILENO, &c, 1);
            break;
        }
        for (int i = 0; i < 256; ++i) {
            ucp_worker_progress(w.handle());
            if (done(flood_receive)) {
                release(flood_receive);
                flood_receive = w.receive(tag_flood, flood.data(), flood.size());
            }
            if (done(echo_receive)) {
                release(echo_receive);
                echo_receive = w.receive(tag_echo, &ping, sizeof ping);
                (void)w.wait(w.send(e, tag_echo, &ping, sizeof ping), 20, "echo");
            }
        }
        if (!said && done(first_receive)) {
            said = true;
            write_all(STDOUT_FILENO, "r", 1);
        }
        if (seconds_since(begin) > 1800) {
            die("nobody ended this peer");
        }
    }
    _exit(0);
}

/// A process beside the faulty one, to show that only the faulty one fails.
struct witness {
    child    process;
    endpoint link;
    uint64_t count = 0;

    void start(worker &w)
    {
        process.start({"ucp_faults", "peer"});
        w.connect(read_blob(process.in), &link);
        write_blob(process.out, w.address());
    }
    void ping(worker &w)
    {
        uint64_t answer = 0, question = ++count;
        void *receive = w.receive(tag_echo, &answer, sizeof answer);
        check(w.wait(w.send(link, tag_echo, &question, sizeof question), 20, "send to the witness"), "send to the witness");
        check(w.wait(receive, 20, "answer of the witness"), "answer of the witness");
        if (answer != question || link.reports != 0) {
            die("the witness was disturbed");
        }
    }
    void end(worker &w)
    {
        w.close(link, true, 20, "close of the witness");
        ::close(process.out);
        process.out = open("/dev/null", O_WRONLY | O_CLOEXEC);
        process.reap();
    }
};

/// Waits for a byte of the victim while the survivor progresses.
void wait_ready(worker &w, child &victim)
{
    fcntl(victim.in, F_SETFL, O_NONBLOCK);
    char c;
    if (!w.until(30, [&] { return read(victim.in, &c, 1) == 1; })) {
        die("the peer did not become ready within 30 s");
    }
}

struct flood {
    std::vector<std::vector<char>> buffers;
    std::vector<void *>            requests;

    flood()
    {
        for (size_t size : flood_sizes) {
            buffers.emplace_back(size, 'x');
        }
    }
    void top_up(worker &w, endpoint &e, size_t depth)
    {
        std::erase_if(requests, [](void *r) {
            if (ucp_request_check_status(r) == UCS_INPROGRESS) {
                return false;
            }
            ucp_request_free(r);
            return true;
        });
        for (size_t i = requests.size(); i < depth && e.failure == UCS_OK; ++i) {
            const auto &b = buffers[i % buffers.size()];
            void *r       = w.send(e, tag_flood, b.data(), b.size());
            if (UCS_PTR_IS_PTR(r)) {
                requests.push_back(r);
            }
        }
    }
    /// All outstanding requests end, with whatever status.
    void drain(worker &w, double limit)
    {
        for (void *r : requests) {
            (void)w.wait(r, limit, "a send to a dead peer");
        }
        requests.clear();
    }
};

void print_times(const char *what, std::vector<double> &times)
{
    std::sort(times.begin(), times.end());
    std::printf("%s: %zu times, median %.4f s, p99 %.4f s, max %.4f s\n", what, times.size(), times[times.size() / 2],
                times[size_t(double(times.size() - 1) * 0.99)], times.back());
}

int peer_kill(unsigned rounds, double bound)
{
    worker              w;
    witness             third;
    std::vector<double> heard, closed;
    std::mt19937        random(1);
    third.start(w);
    for (unsigned round = 0; round < rounds; ++round) {
        child    victim;
        endpoint e;
        victim.start({"ucp_faults", "peer"});
        w.connect(read_blob(victim.in), &e);
        write_blob(victim.out, w.address());
        check(w.wait(w.send(e, tag_first, &round, sizeof round), 30, "first send"), "first send");
        wait_ready(w, victim);

        flood      work;
        const auto delay = std::chrono::microseconds(random() % 5000);
        const auto begin = clock::now();
        while (clock::now() - begin < delay) {
            work.top_up(w, e, 10);
            ucp_worker_progress(w.handle());
        }
        work.top_up(w, e, 10);
        victim.kill_and_reap(SIGKILL);
        const auto killed = clock::now();
        if (!w.until(bound, [&] { work.top_up(w, e, 10); return e.failure != UCS_OK; })) {
            die("round " + std::to_string(round) + ": the death of the peer was not reported within the bound");
        }
        heard.push_back(seconds_since(killed));
        work.drain(w, bound);
        closed.push_back(w.close(e, true, bound, "close after death"));
        if (e.reports != 1) {
            die("the error handler was called " + std::to_string(e.reports) + " times");
        }
        third.ping(w);
    }
    third.end(w);
    print_times("death reported", heard);
    print_times("forced close", closed);
    std::printf("%u passed, 0 failed\n", rounds);
    return 0;
}

int force_close(unsigned rounds, double bound)
{
    worker              w;
    witness             third;
    std::vector<double> closed;
    third.start(w);
    for (unsigned round = 0; round < rounds; ++round) {
        child    victim;
        endpoint e;
        victim.start({"ucp_faults", "peer"});
        w.connect(read_blob(victim.in), &e);
        write_blob(victim.out, w.address());
        check(w.wait(w.send(e, tag_first, &round, sizeof round), 30, "first send"), "first send");
        wait_ready(w, victim);
        const bool stopped = round % 2 == 1;
        if (stopped) {
            kill(victim.pid, SIGSTOP);
        } else {
            write_all(victim.out, "s", 1);
        }
        flood      work;
        const auto begin = clock::now();
        while (seconds_since(begin) < 0.05) { // long enough to run out of receives, queue entries and credits
            work.top_up(w, e, 2000);
            ucp_worker_progress(w.handle());
        }
        closed.push_back(w.close(e, true, bound, "forced close"));
        third.ping(w);
        if (stopped) {
            victim.kill_and_reap(SIGKILL);
            work.drain(w, bound);
        } else {
            work.drain(w, bound);
            victim.kill_and_reap(SIGKILL);
        }
    }
    third.end(w);
    print_times("forced close", closed);
    std::printf("%u passed, 0 failed\n", rounds);
    return 0;
}

int play_sender(unsigned index, unsigned messages)
{
    worker   w;
    endpoint e;
    const std::string target = read_blob(STDIN_FILENO);
    w.connect(target, &e);
    char go = 'r';
    write_all(STDOUT_FILENO, &go, 1); // all begin at once, or fairness would measure who was started first
    if (!read_all(STDIN_FILENO, &go, 1)) {
        die("nobody said go");
    }
    std::vector<std::vector<uint32_t>> buffers(8, std::vector<uint32_t>(16));
    std::vector<void *>                window(buffers.size(), nullptr);
    for (unsigned m = 0; m < messages; ++m) {
        auto &r = window[m % window.size()];
        check(w.wait(r, 120, "a send of the incast"), "a send of the incast");
        for (size_t i = 0; i < 16; ++i) {
            buffers[m % window.size()][i] = index * 1000003u + m * 31u + uint32_t(i);
        }
        r = w.send(e, (uint64_t(index) << 32) | 7, buffers[m % window.size()].data(), 64);
    }
    for (void *r : window) {
        check(w.wait(r, 120, "a send of the incast"), "a send of the incast");
    }
    // A completed send may still need this side (a receiver without buffers is tried again): progress until it has everything.
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    char c;
    if (!w.until(240, [&] { return read(STDIN_FILENO, &c, 1) >= 0; })) {
        die("the receiver did not end");
    }
    w.close(e, false, 60, "close of a sender");
    return 0;
}

/// Resident bytes of this process.
long resident()
{
    long        pages = 0;
    std::FILE *file  = std::fopen("/proc/self/statm", "re");
    if (file == nullptr || std::fscanf(file, "%*d %ld", &pages) != 1) {
        die("cannot read /proc/self/statm");
    }
    std::fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

double jain(const std::vector<unsigned> &counts)
{
    double sum = 0, squares = 0;
    for (const unsigned n : counts) {
        sum += n;
        squares += double(n) * n;
    }
    return sum * sum / (squares * double(counts.size()));
}

int incast(unsigned senders, unsigned messages)
{
    worker             w;
    std::vector<child> children(senders);
    const std::string  address = w.address();
    for (unsigned s = 0; s < senders; ++s) {
        children[s].start({"ucp_faults", "sender", std::to_string(s), std::to_string(messages)});
        write_blob(children[s].out, address);
    }
    for (child &c : children) {
        char ready;
        if (!read_all(c.in, &ready, 1)) {
            die("a sender did not become ready");
        }
    }
    for (child &c : children) {
        write_all(c.out, "g", 1);
    }
    std::vector<unsigned> next(senders, 0);
    std::vector<uint32_t> data(16);
    const auto begin   = clock::now();
    const long  before = resident();
    double      even   = 0;
    for (uint64_t n = 0; n < uint64_t(senders) * messages; ++n) {
        ucp_tag_recv_info_t info;
        ucp_tag_message_h   message = nullptr;
        if (!w.until(60, [&] { return (message = ucp_tag_probe_nb(w.handle(), 7, 0xffffffff, 1, &info)) != nullptr; })) {
            die("message " + std::to_string(n) + " of the incast did not come");
        }
        ucp_request_param_t param = {};
        check(w.wait(ucp_tag_msg_recv_nbx(w.handle(), data.data(), 64, message, &param), 20, "receive"), "receive");
        const unsigned s = unsigned(info.sender_tag >> 32);
        if (s >= senders || info.length != 64) {
            die("a message from nobody");
        }
        for (uint32_t i = 0; i < 16; ++i) {
            if (data[i] != s * 1000003u + next[s] * 31u + i) {
                die("sender " + std::to_string(s) + ": message " + std::to_string(next[s]) + " is wrong or out of order");
            }
        }
        if (++next[s] == messages && even == 0) {
            even = jain(next);
        }
        if (n % 8 == 0) {
            usleep(500); // a slow receiver: the senders wait for it, not for a processor
        }
    }
    std::printf("%u senders, %u messages each in %.2f s\n", senders, messages, seconds_since(begin));
    std::printf("jain %.4f memory %ld\n", even, resident() - before);
    std::fflush(stdout); // the children have it too
    unsigned bad = 0;
    for (auto &c : children) {
        write_all(c.out, "x", 1);
    }
    for (auto &c : children) {
        while (true) {
            int        status = 0;
            const bool ended  = waitpid(c.pid, &status, WNOHANG) == c.pid;
            ucp_worker_progress(w.handle());
            if (ended) {
                bad += status != 0;
                break;
            }
            if (seconds_since(begin) > 300) {
                die("a sender does not end");
            }
        }
    }
    std::printf("%u passed, %u failed\n", senders - bad, bad);
    return bad != 0;
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
        const unsigned n = unsigned(std::strtoul(argv[2], nullptr, 10));
        if (what == "peer-kill" && n > 0) {
            return peer_kill(n, std::strtod(argv[3], nullptr));
        }
        if (what == "force-close" && n > 0) {
            return force_close(n, std::strtod(argv[3], nullptr));
        }
        if (what == "incast" && n > 0) {
            return incast(n, unsigned(std::strtoul(argv[3], nullptr, 10)));
        }
        if (what == "sender") {
            return play_sender(n, unsigned(std::strtoul(argv[3], nullptr, 10)));
        }
    }
    std::fprintf(stderr, "usage: ucp_faults peer-kill|force-close ROUNDS BOUND_SECONDS | incast SENDERS MESSAGES\n");
    return 2;
}
