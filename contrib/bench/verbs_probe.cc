/* What Soft EFA costs a program that uses verbs directly, where no stock program measures it.
 *
 * Owns: its modes, one parent that measures and for most of them one child that is the target. Knows verbs and efadv only, so it runs on a real
 * EFA as well. What a process has of verbs is made in verbs_user.h.
 *
 *   pingpong       messages to and fro, in turns with raw shared memory (verbs_pingpong.cc)
 *   read, write    one RDMA operation after another; the target's program sleeps, its device alone answers
 *   sleeping_read  RDMA reads of a target of which everything sleeps, 200 us apart; in between the initiator polls, as programs do. Median.
 *   poll           empty polls of one completion queue that -q queue pairs complete to
 *   turn           a message to oneself and both its completions, on each of -q queue pairs in turn
 *   idle           processor time that this process's other threads use while it sleeps for -n milliseconds, after it has sent to its peer:
 *                  microseconds for each second
 *
 *   VP-1  Operations that were measured moved the right bytes, or there is no figure.
 *   VP-2  Both processes end by themselves: SIGALRM's default action ends each, and the child dies with its parent.
 */
#include "verbs_pingpong.h"
#include "verbs_user.h"

#include <dirent.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace {

constexpr std::size_t   max_size    = 16u << 20;
constexpr std::uint64_t max_count   = 1'000'000'000u;
constexpr unsigned      max_seconds = 600, max_qps = 256;
constexpr double        gap_s       = 200e-6;

using namespace probe;

/// The target: says where it is, then sleeps until it is asked for the sum of its bytes.
int serve(const settings &wish, const line &to_parent, const pingpong_turns *turns)
{
    user    me(wish, 1, turns != nullptr);
    address theirs{};
    for (std::size_t i = 0; i < wish.size; ++i)
        me.bytes()[i] = static_cast<unsigned char>(i * 7 + 1);
    to_parent.say(me.where());
    if (!to_parent.hear(&theirs))
        return 1;
    ibv_ah *ah = me.reach(theirs.gid);
    if (turns != nullptr) {
        pingpong_prepare(me);
        to_parent.say(1);
        pingpong_echo(*turns, wish, me, ah, theirs);
    } else if (wish.mode == "idle") { // one message each way, so that both are connected
        me.recv(0);
        to_parent.say(1);
        me.complete(1);
    } else {
        to_parent.say(1);
    }
    for (int asked; to_parent.hear(&asked);) {
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < wish.size; ++i)
            sum = sum * 31 + me.bytes()[i];
        to_parent.say(sum);
    }
    return 0;
}

/// Processor time of all threads but the caller, in microseconds.
double others_us()
{
    double total = 0;
    DIR   *tasks = needed(opendir("/proc/self/task"), "/proc/self/task");
    while (const dirent *entry = readdir(tasks)) {
        if (entry->d_name[0] == '.' || std::atol(entry->d_name) == syscall(SYS_gettid))
            continue;
        const std::string  path = std::string("/proc/self/task/") + entry->d_name + "/schedstat";
        unsigned long long ran  = 0;
        if (FILE *file = std::fopen(path.c_str(), "r")) {
            if (std::fscanf(file, "%llu", &ran) == 1)
                total += static_cast<double>(ran) * 1e-3;
            std::fclose(file);
        }
    }
    closedir(tasks);
    return total;
}

void pause_s(double seconds)
{
    timespec left{static_cast<time_t>(seconds), static_cast<long>((seconds - static_cast<double>(static_cast<time_t>(seconds))) * 1e9)};
    while (nanosleep(&left, &left) == -1 && errno == EINTR) {
    }
}

double idle(const settings &wish)
{
    constexpr double settle_s = 1.5; // longer than anything that follows traffic: counters are written up to a second later
    pause_s(settle_s);
    const double before = others_us(), seconds = static_cast<double>(wish.count) * 1e-3;
    pause_s(seconds);
    return (others_us() - before) / seconds * 1e-6;
}

double operations(const settings &wish, user &me, ibv_ah *ah, const address &peer)
{
    const bool         writes = wish.mode == "write";
    const bool         sleeps = wish.mode == "sleeping_read";
    const auto         verb   = writes ? user::verb::write : user::verb::read;
    std::vector<double> times;
    double             started = program::now_s();
    const std::uint64_t warmup = wish.count / 10 + 5;
    for (std::uint64_t n = 0; n < warmup + wish.count; ++n) {
        if (n == warmup)
            started = program::now_s();
        if (sleeps) {
            ibv_wc wc;
            for (const double until = program::now_s() + gap_s; program::now_s() < until;)
                (void)ibv_poll_cq(me.cq(), 1, &wc);
        }
        const double from = program::now_s();
        me.post(verb, ah, peer, wish.size);
        me.complete(1);
        if (n >= warmup)
            times.push_back(program::now_s() - from);
    }
    return sleeps ? program::median(times) : (program::now_s() - started) / static_cast<double>(wish.count);
}

/// The target's bytes are the initiator's, or there is no figure (VP-1).
void sums_compare(const settings &wish, user &me, const line &to_child)
{
    std::uint64_t theirs = 0, mine = 0;
    to_child.say(1);
    for (std::size_t i = 0; i < wish.size; ++i)
        mine = mine * 31 + me.bytes()[i];
    if (!to_child.hear(&theirs) || theirs != mine) {
        std::fprintf(stderr, "verbs_probe: wrong bytes\n");
        std::exit(1);
    }
}

/// Modes with a target: its process is there before any verbs call, so that both open the device themselves.
outcome with_target(const settings &wish)
{
    pingpong_turns        mapped;
    const pingpong_turns *turns = wish.mode == "pingpong" ? &mapped : nullptr;
    if (turns != nullptr && !raw::slots_map(wish.size, &mapped.slots))
        give_up("mmap");
    int there[2], back[2];
    if (pipe(there) != 0 || pipe(back) != 0)
        give_up("pipe");
    const pid_t parent = getpid(), child = fork();
    if (child < 0)
        give_up("fork");
    alarm(wish.seconds); // VP-2
    if (child == 0) {
        close(there[1]);
        close(back[0]);
        std::exit(program::child_of(parent) && program::pin(wish.core[0]) ? serve(wish, {there[0], back[1]}, turns) : 4);
    }
    close(there[0]);
    close(back[1]);
    const line to_child{back[0], there[1]};
    address    peer{};
    int        ready = 0;
    if (!program::pin(wish.core[1]))
        give_up("sched_setaffinity");
    user me(wish, 1, turns != nullptr);
    if (wish.mode == "write")
        for (std::size_t i = 0; i < wish.size; ++i)
            me.bytes()[i] = static_cast<unsigned char>(i * 5 + 3);
    if (!to_child.hear(&peer))
        give_up("the target ended");
    to_child.say(me.where());
    if (!to_child.hear(&ready))
        give_up("the target ended");
    outcome found;
    ibv_ah *ah = me.reach(peer.gid);
    if (turns != nullptr) {
        pingpong_prepare(me);
        found = pingpong_drive(*turns, wish, me, ah, peer);
    } else if (wish.mode == "idle") {
        me.post(user::verb::send, ah, peer, 8);
        me.complete(1);
        found.seconds = idle(wish);
    } else {
        found.seconds = operations(wish, me, ah, peer);
        sums_compare(wish, me, to_child);
    }
    close(to_child.out);
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0)
        give_up("the target failed");
    return found;
}

void message_to_self(user &me, ibv_ah *ah, unsigned qp)
{
    me.recv(qp);
    me.post(user::verb::send, ah, me.where(qp), 8, qp);
    me.complete(2);
}

outcome alone(const settings &wish)
{
    if (!program::pin(wish.core[1]))
        give_up("sched_setaffinity");
    alarm(wish.seconds);
    user    me(wish, wish.qps);
    ibv_ah *ah = me.reach(me.where().gid);
    for (unsigned i = 0; i < wish.qps; ++i)
        message_to_self(me, ah, i);
    const bool   turns   = wish.mode == "turn";
    const double started = program::now_s();
    for (std::uint64_t n = 0; n < wish.count; ++n) {
        ibv_wc wc[16];
        if (turns)
            message_to_self(me, ah, static_cast<unsigned>(n % wish.qps));
        else if (ibv_poll_cq(me.cq(), 16, wc) != 0)
            give_up("a completion that nobody asked for");
    }
    return {(program::now_s() - started) / static_cast<double>(wish.count), {}};
}

int usage(const char *wrong)
{
    if (wrong != nullptr)
        std::fprintf(stderr, "verbs_probe: bad value for %s\n", wrong);
    std::fprintf(stderr, "usage: verbs_probe -m pingpong|read|write|sleeping_read|poll|turn|idle [-d DEVICE] [-c CORE,CORE] [-s BYTES, 8..%zu]\n"
                 "                   [-n COUNT] [-q QPS, 1..%u] [-t SECONDS, 1..%u]\n"
                 "       pingpong: 8..%zu bytes; -e takes a time stamp for each message, as perftest does; -v prints every block, in ns\n"
                 "Prints one line of JSON.\n", max_size, max_qps, max_seconds, pingpong_size_max);
    return 2;
}

bool option_parse(settings *wish, int option, const char *text)
{
    std::uint64_t value = 0;
    switch (option) {
    case 'm':
        wish->mode = text;
        for (const char *known : {"pingpong", "read", "write", "sleeping_read", "poll", "turn", "idle"})
            if (wish->mode == known)
                return true;
        return false;
    case 'd': wish->device = text; return true;
    case 'e': return wish->stamped = true;
    case 'v': return wish->every_block = true;
    case 'c': return program::cores_parse(text, wish->core);
    case 's': return program::number_parse(text, 8, max_size, &value) && ((wish->size = value), true);
    case 'n': return program::number_parse(text, 1, max_count, &value) && ((wish->count = value), true);
    case 'q': return program::number_parse(text, 1, max_qps, &value) && ((wish->qps = static_cast<unsigned>(value)), true);
    case 't': return program::number_parse(text, 1, max_seconds, &value) && ((wish->seconds = static_cast<unsigned>(value)), true);
    default: return false;
    }
}

} // namespace

int main(int argc, char **argv)
{
    settings wish;
    for (int option; (option = getopt(argc, argv, "m:d:c:s:n:q:t:evh")) != -1;) {
        if (option == 'h' || option == '?')
            return usage(nullptr);
        const char name[] = {'-', static_cast<char>(option), '\0'};
        if (!option_parse(&wish, option, optarg))
            return usage(name);
    }
    if (optind != argc || wish.mode.empty())
        return usage(wish.mode.empty() ? "-m" : argv[optind]);
    if (wish.mode == "pingpong" && wish.size > pingpong_size_max)
        return usage("-s");
    const outcome found = wish.mode == "poll" || wish.mode == "turn" ? alone(wish) : with_target(wish);
    std::printf("{\"test\": \"%s\", \"size\": %zu, \"iterations\": %llu, \"us\": %.6f%s}\n", wish.mode.c_str(), wish.size,
                static_cast<unsigned long long>(wish.count), found.seconds * 1e6, found.more.c_str());
    return 0;
}
