/* Lives that end and begin again, seen through UCT by an interface that stays open.
 *
 *   uct_lives cycles COUNT KILL_EVERY [PACE]
 *                                      COUNT interfaces of other processes come, talk in both directions and go; each KILL_EVERY-th
 *                                      is killed instead. The resident memory of the one that stays is as large at the end as after
 *                                      a fifth of them. It answers at most PACE of them a second: those who went are remembered for
 *                                      a while, so what is remembered grows with the pace, and a long run wants one that it can keep
 *   uct_lives restart ROUNDS           a peer is killed with messages outstanding and comes back with the same queue pair number
 *                                      (SOFTEFA_REUSE_QPN=1): only the endpoint to the life that ended fails, once, and the next one works
 *   uct_lives ah-limit                 on three devices with SOFTEFA_MAX_AH=2: a sender for which the receiver has no address handle
 *                                      fails with a reason, and when another has gone a new one works
 *
 * Run it under `ucx-srd run --soft`. Prints what it saw and a line of counts.
 */
#include "node.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <sys/prctl.h>
#include <utility>

namespace {

using namespace sys;

/// What a visitor sends: who it is and where it wants the answer.
struct greeting {
    uint64_t    number;
    uct_address from;
};

size_t resident_kib()
{
    std::ifstream statm("/proc/self/statm");
    size_t        size = 0, resident = 0;
    statm >> size >> resident;
    return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE)) / 1024;
}

/// Comes and goes as often as it is told, or until it is killed. Says each number when it is done with it.
int play_visitor(uint64_t first, uint64_t last)
{
    uct_address host;
    if (!read_all(STDIN_FILENO, &host, sizeof host)) {
        return 1;
    }
    uct_node n;
    for (uint64_t number = first; number < last; ++number) {
        uint64_t answer = ~uint64_t(0);
        if (number != first) {
            n.reopen();
        }
        n.on_message = [&](const void *data, size_t size) {
            if (size == sizeof answer) {
                std::memcpy(&answer, data, size);
            }
        };
        uct_ep_h ep = n.connect(host);
        const greeting hello{number, n.address()};
        check(n.send(ep, &hello, sizeof hello), "send");
        if (!n.until(30, [&] { return answer == number; })) {
            std::fprintf(stderr, "visitor %llu got no answer\n", (unsigned long long)number);
            return 1;
        }
        check(n.flush(ep), "flush");
        uct_ep_destroy(ep);
        write_all(STDOUT_FILENO, &number, sizeof number);
    }
    return 0;
}

int cycles(uint64_t count, uint64_t kill_every, uint64_t pace)
{
    // One huge page more or less would be twice what this process may grow by.
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    uct_node              host;
    std::vector<greeting> waiting;
    uint64_t              greeted = 0, answered = 0, unanswered = 0, killed = 0, done = 0;
    size_t                early_kib = 0;
    std::mt19937          random(1);
    const uct_address     here = host.address();
    host.on_message            = [&](const void *data, size_t size) {
        greeting g;
        if (size == sizeof g) {
            std::memcpy(&g, data, size);
            ++greeted;
            waiting.push_back(g);
        }
    };
    const auto begin = clock::now();
    auto       said  = begin;
    auto       due   = begin; // of the next answer
    const auto turn  = std::chrono::nanoseconds(pace == 0 ? 0 : 1'000'000'000 / pace);
    while (done < count) {
        // One process is the next visitors, until it is time to kill one.
        child          visitor;
        const uint64_t last = std::min(count, done + kill_every);
        visitor.start({"uct_lives", "visitor", std::to_string(done), std::to_string(last)});
        write_all(visitor.out, &here, sizeof here);
        fcntl(visitor.in, F_SETFL, O_NONBLOCK);
        const bool kill_it = last == done + kill_every;
        const auto delay   = std::chrono::microseconds(random() % 3000);
        auto       moved   = clock::now();
        while (done < last) {
            host.progress();
            // More come while these are answered.
            for (const greeting &g : clock::now() < due ? std::vector<greeting>() : std::exchange(waiting, {})) {
                due = clock::now() + turn;
                uct_ep_h ep;
                if (host.try_connect(g.from, &ep) != UCS_OK) {
                    die("no endpoint to a visitor");
                }
                if (host.send(ep, &g.number, sizeof g.number) == UCS_OK && host.flush(ep) == UCS_OK) {
                    ++answered;
                } else {
                    ++unanswered; // it was killed
                }
                uct_ep_destroy(ep);
            }
            uint64_t number;
            if (read(visitor.in, &number, sizeof number) == sizeof number) {
                done  = number + 1;
                moved = clock::now();
            }
            if (kill_it && done == last - 1 && clock::now() - moved > delay) {
                kill(visitor.pid, SIGKILL);
                ++killed;
                ++done;
            }
            if (seconds_since(moved) > 60) {
                std::fprintf(stderr, "visitor %llu does not go on: %llu greeted, %llu answered, %llu not\n", (unsigned long long)done,
                             (unsigned long long)greeted, (unsigned long long)answered, (unsigned long long)unanswered);
                kill(visitor.pid, SIGKILL);
                return 1;
            }
            if (early_kib == 0 && done >= count / 5) {
                early_kib = resident_kib();
            }
        }
        visitor.reap();
        if (seconds_since(said) > 30) {
            said = clock::now();
            std::printf("%llu gone, %zu KiB\n", (unsigned long long)done, resident_kib());
            std::fflush(stdout);
        }
    }
    const size_t end_kib = resident_kib();
    std::printf("%llu came and went in %.1f s: %llu greeted, %llu answered, %llu not, %llu killed\n", (unsigned long long)done,
                seconds_since(begin), (unsigned long long)greeted, (unsigned long long)answered, (unsigned long long)unanswered,
                (unsigned long long)killed);
    std::printf("resident: %zu KiB after a fifth, %zu KiB at the end\n", early_kib, end_kib);
    const unsigned failed = unsigned(end_kib > early_kib + 1024) + unsigned(greeted + killed < count);
    std::printf("%u passed, %u failed\n", 2 - failed, failed);
    return failed != 0;
}

/// Receives until it is killed or its standard input ends.
int play_target()
{
    uct_node n;
    const uct_address here = n.address();
    uint64_t          count = 0;
    n.on_message = [&](const void *, size_t) { ++count; };
    write_all(STDOUT_FILENO, &here, sizeof here);
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    uint64_t told = 0;
    for (char c; read(STDIN_FILENO, &c, 1) != 0;) {
        n.progress();
        if (count >= told + 8) {
            told = count;
            write_all(STDOUT_FILENO, "r", 1);
        }
    }
    return 0;
}

uint16_t qpn_of(const uct_address &a) { return uint16_t(uint8_t(a.iface[2]) | uint8_t(a.iface[3]) << 8); }

int restart(unsigned rounds)
{
    uct_node                       n;
    std::map<uct_ep_h, unsigned>   reports;
    std::map<uct_ep_h, ucs_status_t> statuses;
    unsigned                       same = 0, bad = 0;
    uint16_t                       before = 0;
    uct_ep_h                       old = nullptr;
    n.on_failure = [&](uct_ep_h ep, ucs_status_t status) {
        ++reports[ep];
        statuses[ep] = status;
    };
    child witness;
    witness.start({"uct_lives", "target"});
    uct_address witness_address;
    (void)read_all(witness.in, &witness_address, sizeof witness_address);
    uct_ep_h third = n.connect(witness_address);
    for (unsigned round = 0; round < rounds; ++round) {
        child       target;
        uct_address there;
        target.start({"uct_lives", "target"});
        if (!read_all(target.in, &there, sizeof there)) {
            die("the peer did not start");
        }
        same += round != 0 && qpn_of(there) == before;
        before = qpn_of(there);
        uct_ep_h ep = n.connect(there);
        for (uint64_t i = 0; i < 8; ++i) {
            check(n.send(ep, &i, sizeof i), "send to a new life");
        }
        fcntl(target.in, F_SETFL, O_NONBLOCK);
        char c;
        if (!n.until(30, [&] { return read(target.in, &c, 1) == 1; })) {
            die("round " + std::to_string(round) + ": the new life got nothing");
        }
        if (reports[ep] != 0 || reports[third] != 0) {
            die("an endpoint to a living peer failed");
        }
        if (old != nullptr) { // the life before stays failed, whoever has its number now
            uint64_t word = 0;
            bad += n.send(old, &word, sizeof word) != statuses[old] || reports[old] != 1;
            uct_ep_destroy(old);
            reports.erase(old);
        }
        for (uint64_t i = 0; i < 100; ++i) {
            (void)n.send(ep, &i, sizeof i);
        }
        target.kill_and_reap(SIGKILL);
        const auto killed = clock::now();
        if (!n.until(20, [&] {
                uint64_t word = 0; // something is outstanding
                (void)uct_ep_am_short(ep, 1, word, &word, sizeof word);
                return reports[ep] != 0;
            })) {
            die("round " + std::to_string(round) + ": the end of the peer was not reported");
        }
        if (seconds_since(killed) > 10) {
            ++bad;
        }
        old = ep;
    }
    uint64_t word = 0;
    bad += n.send(third, &word, sizeof word) != UCS_OK || n.flush(third) != UCS_OK || reports[third] != 0;
    uct_ep_destroy(old);
    uct_ep_destroy(third);
    witness.kill_and_reap(SIGKILL);
    std::printf("%u lives, %u of them with the queue pair number of the life before\n", rounds, same);
    const unsigned failed = (bad != 0) + (same + 1 < rounds); // the witness keeps its own
    std::printf("%u passed, %u failed\n", 2 - failed, failed);
    return failed != 0;
}

int ah_limit()
{
    const std::string devices[] = {"efa_0:1", "efa_1:1", "efa_2:1"};
    uct_node          host(devices[0]);
    auto              first = std::make_unique<uct_node>(devices[1]);
    uct_node          second(devices[2]);
    const uct_address here = host.address();
    uint64_t          got  = 0;
    unsigned          failures = 0, bad = 0;
    ucs_status_t      why = UCS_OK;
    host.on_message   = [&](const void *, size_t) { ++got; };
    second.on_failure = [&](uct_ep_h, ucs_status_t status) {
        ++failures;
        why = status;
    };
    const auto progress_all = [&] {
        host.progress();
        second.progress();
        if (first) {
            first->progress();
        }
    };
    const auto until = [&](double seconds, const std::function<bool()> &condition) {
        const auto begin = clock::now();
        while (!condition() && seconds_since(begin) < seconds) {
            progress_all();
        }
        return condition();
    };
    // The first one gets the receiver's last handle: its messages beyond the first grant prove that it was answered.
    uct_ep_h ep_1 = first->connect(here);
    uint64_t sent = 0;
    const auto try_send = [&](uct_ep_h ep) {
        const ucs_status_t status = uct_ep_am_short(ep, 1, sent, &sent, sizeof sent);
        sent += status == UCS_OK;
        return status;
    };
    if (!until(60, [&] { (void)try_send(ep_1); return got >= 200; })) {
        die("the first sender does not get through");
    }
    uct_ep_h   ep_2  = second.connect(here);
    const auto begin = clock::now();
    if (!until(180, [&] { (void)try_send(ep_2); return failures != 0; })) {
        std::printf("the second sender hangs: it was never told\n0 passed, 1 failed\n");
        return 1;
    }
    const double told_after = seconds_since(begin);
    std::printf("told after %.1f s: %s\n", told_after, ucs_status_string(why));
    bad += told_after < 2; // it tries for a while
    bad += failures != 1 || why != UCS_ERR_UNREACHABLE || try_send(ep_2) != why;
    uct_ep_destroy(ep_2);
    uint64_t before = got;
    bad += !until(60, [&] { (void)try_send(ep_1); return got >= before + 200; }); // only the second one failed

    check(first->flush(ep_1), "flush");
    uct_ep_destroy(ep_1);
    first.reset(); // says goodbye: its handle is free
    before = got;
    failures = 0;
    ep_2 = second.connect(here);
    const bool works = until(60, [&] { (void)try_send(ep_2); return got >= before + 200 || failures != 0; }) && failures == 0;
    std::printf("after the first one left: %s\n", works ? "works" : "does not work");
    bad += !works;
    uct_ep_destroy(ep_2);
    std::printf("%u passed, %u failed\n", bad == 0, bad != 0);
    return bad != 0;
}

} // namespace

int main(int argc, char **argv)
{
    const std::string what = argc > 1 ? argv[1] : "";
    const auto number = [&](int i) { return std::strtoull(argv[i], nullptr, 10); };
    signal(SIGPIPE, SIG_IGN);
    if (what == "target") {
        return play_target();
    }
    if (what == "visitor" && argc == 4) {
        return play_visitor(number(2), number(3));
    }
    if (what == "cycles" && (argc == 4 || argc == 5) && number(2) >= 5 && number(3) > 0) {
        return cycles(number(2), number(3), argc == 5 ? number(4) : 0);
    }
    if (what == "restart" && argc == 3 && number(2) > 0) {
        return restart(unsigned(number(2)));
    }
    if (what == "ah-limit" && argc == 2) {
        return ah_limit();
    }
    std::fprintf(stderr, "usage: uct_lives cycles COUNT KILL_EVERY [PACE] | restart ROUNDS | ah-limit\n");
    return 2;
}
