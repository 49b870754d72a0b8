/* A ping-pong over shared memory between two processes: what two cores of this machine can do at all.
 *
 * Owns: nothing but its own mapping and its one child. It is the yardstick for Soft EFA's one-way latency; what it does for a message is in
 * raw_pingpong.h, and both sides check each message (RAW-1).
 *
 *   SHM-1  Both processes end by themselves: SIGALRM's default action ends each, and the child dies with its parent.
 */
#include "raw_pingpong.h"

#include <sys/wait.h>

namespace {

constexpr std::size_t   max_size    = 16u << 20; // bytes of payload
constexpr std::uint64_t max_count   = 1'000'000'000u;
constexpr unsigned      max_seconds = 600;

struct settings {
    int           core[2] = {-1, -1};  // -1 = not pinned
    std::size_t   size    = 8;         // bytes of payload, at least 8: the sequence number travels in it
    std::uint64_t count   = 1'000'000; // measured round trips
    unsigned      seconds = 60;        // after which both processes are ended
};

using raw::slot, raw::slot_receive, raw::slot_send;

/// Echoes `total` messages. Returns the process' exit code.
int serve(const settings &wish, slot *in, slot *out, std::uint64_t total)
{
    std::vector<unsigned char> buffer(wish.size);
    for (std::uint64_t seq = 1; seq <= total; ++seq) {
        if (!slot_receive(in, seq, buffer.data(), wish.size)) {
            return 3;
        }
        slot_send(out, seq, buffer.data(), wish.size);
    }
    return 0;
}

/// Sends `total` messages, measures all but the first `warmup`. Seconds of the measured part, negative on wrong bytes.
double drive(const settings &wish, slot *out, slot *in, std::uint64_t warmup, std::uint64_t total)
{
    std::vector<unsigned char> buffer(wish.size);
    double                     started = program::now_s();
    for (std::uint64_t seq = 1; seq <= total; ++seq) {
        if (seq == warmup + 1) {
            started = program::now_s();
        }
        slot_send(out, seq, buffer.data(), wish.size);
        if (!slot_receive(in, seq, buffer.data(), wish.size)) {
            return -1.0;
        }
    }
    return program::now_s() - started;
}

int usage(const char *wrong)
{
    if (wrong != nullptr) {
        std::fprintf(stderr, "shm_pingpong: bad value for %s\n", wrong);
    }
    std::fprintf(stderr, "usage: shm_pingpong [-c CORE,CORE] [-s BYTES, 8..%zu] [-n ROUND_TRIPS] [-t SECONDS, 1..%u]\n"
                 "Prints one line of JSON with the mean one-way time of a message.\n", max_size, max_seconds);
    return 2;
}

bool option_parse(settings *wish, int option, const char *text)
{
    std::uint64_t value = 0;
    switch (option) {
    case 'c':
        return program::cores_parse(text, wish->core);
    case 's':
        return program::number_parse(text, sizeof(std::uint64_t), max_size, &value) && ((wish->size = value), true);
    case 'n':
        return program::number_parse(text, 1, max_count, &value) && ((wish->count = value), true);
    case 't':
        return program::number_parse(text, 1, max_seconds, &value) && ((wish->seconds = static_cast<unsigned>(value)), true);
    default:
        return false;
    }
}

} // namespace

int main(int argc, char **argv)
{
    settings wish;
    for (int option; (option = getopt(argc, argv, "c:s:n:t:h")) != -1;) {
        if (option == 'h' || option == '?') {
            return usage(nullptr);
        }
        if (!option_parse(&wish, option, optarg)) {
            const char name[] = {'-', static_cast<char>(option), '\0'};
            return usage(name);
        }
    }
    if (optind != argc) {
        return usage(argv[optind]);
    }

    raw::slots slots;
    if (!raw::slots_map(wish.size, &slots)) {
        std::perror("shm_pingpong: mmap");
        return 1;
    }
    const std::uint64_t warmup = wish.count / 10 + 10;
    const std::uint64_t total  = warmup + wish.count;

    // Both cores are tried before the fork: a child that could not be pinned would leave its parent spinning.
    if (!program::pin(wish.core[1]) || !program::pin(wish.core[0])) {
        std::perror("shm_pingpong: sched_setaffinity");
        return 1;
    }
    const pid_t parent = getpid();
    const pid_t child  = fork();
    if (child < 0) {
        std::perror("shm_pingpong: fork");
        return 1;
    }
    alarm(wish.seconds);
    if (child > 0) {
        (void)program::pin(wish.core[1]);
    }
    if (child == 0) {
        _exit(program::child_of(parent) ? serve(wish, slots.there, slots.back, total) : 4);
    }
    const double seconds = drive(wish, slots.there, slots.back, warmup, total);
    if (seconds < 0.0) {
        kill(child, SIGKILL);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0 || seconds <= 0.0) {
        std::fprintf(stderr, "shm_pingpong: a message arrived with wrong bytes\n");
        return 1;
    }
    std::printf("{\"size\": %zu, \"iterations\": %llu, \"one_way_us\": %.6f}\n", wish.size,
                static_cast<unsigned long long>(wish.count), seconds * 1e6 / 2.0 / static_cast<double>(wish.count));
    return 0;
}
