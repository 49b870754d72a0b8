/* What two processes of this machine can do at all, next to shm_pingpong: the yardsticks for Soft EFA's stream and for its wake-ups.
 *
 * Owns: nothing but its own mapping and its one child.
 *
 *   copy_stream   a two-copy pipeline: the parent copies a message from its own memory into a slot of a shared ring, the child copies it out into
 *                 its own memory. That is what every message passing without help of the kernel must do.
 *   futex_reply   the child sleeps in FUTEX_WAIT, the parent stores a word, wakes it, and spins until it has answered. In between the parent
 *                 spins for a while, so that the child is asleep each time. The median counts: a scheduler has a long tail.
 *
 *   REF-1  The child checks the first 8 bytes of every message against its number: a figure of wrong bytes is never printed.
 *   REF-2  Both processes end by themselves: SIGALRM's default action ends each, and the child dies with its parent.
 */
#include "program.h"

#include <atomic>
#include <cstring>
#include <linux/futex.h>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace {

constexpr std::size_t   max_size      = 16u << 20; // bytes of payload
constexpr std::size_t   slot_count    = 16;
constexpr std::size_t   footprint     = 1u << 20;  // bytes of each side's own memory, walked through: as a receive queue does
constexpr double        gap_s         = 200e-6;    // between two wake-ups
constexpr std::uint64_t max_count     = 1'000'000'000u;
constexpr unsigned      max_seconds   = 600;

struct settings {
    std::string   mode;
    int           core[2] = {-1, -1}; // -1 = not pinned
    std::size_t   size    = 8192;     // bytes of payload, at least 8
    std::uint64_t count   = 100'000;  // measured messages, or wake-ups
    unsigned      seconds = 60;       // after which both processes are ended
};

/// Head of the mapping. Each line has one writer.
struct shared {
    alignas(64) std::atomic<std::uint64_t> produced; ///< messages written, by the parent
    alignas(64) std::atomic<std::uint64_t> consumed; ///< messages taken, by the child
    alignas(64) std::atomic<std::uint32_t> asked;    ///< futex word, by the parent
    alignas(64) std::atomic<std::uint32_t> answered; ///< by the child
};
constexpr std::size_t ring_offset = 4096;
static_assert(sizeof(shared) <= ring_offset && std::atomic<std::uint64_t>::is_always_lock_free);

std::size_t slot_size(const settings &wish) { return (wish.size + 63) / 64 * 64; }

/// A side's own memory: several messages, used in turn.
class own_memory {
public:
    explicit own_memory(std::size_t size) : size_(size), places_(std::max<std::size_t>(1, footprint / size)), bytes_(size * places_, 1) {}
    unsigned char *place(std::uint64_t number) { return bytes_.data() + number % places_ * size_; }

private:
    std::size_t                size_, places_;
    std::vector<unsigned char> bytes_;
};

int stream_take(const settings &wish, shared *s, std::uint64_t total)
{
    own_memory           to(wish.size);
    const unsigned char *ring = reinterpret_cast<unsigned char *>(s) + ring_offset;
    for (std::uint64_t n = 0; n < total; ++n) {
        while (s->produced.load(std::memory_order_acquire) == n)
            program::relax();
        unsigned char *place = to.place(n);
        std::memcpy(place, ring + n % slot_count * slot_size(wish), wish.size);
        if (std::memcmp(place, &n, sizeof(n)) != 0)
            return 3;
        s->consumed.store(n + 1, std::memory_order_release);
    }
    return 0;
}

double stream_give(const settings &wish, shared *s, std::uint64_t warmup, std::uint64_t total)
{
    own_memory     from(wish.size);
    unsigned char *ring    = reinterpret_cast<unsigned char *>(s) + ring_offset;
    double         started = program::now_s();
    for (std::uint64_t n = 0; n < total; ++n) {
        if (n == warmup)
            started = program::now_s();
        while (n - s->consumed.load(std::memory_order_acquire) == slot_count)
            program::relax();
        unsigned char *place = from.place(n);
        std::memcpy(place, &n, sizeof(n));
        std::memcpy(ring + n % slot_count * slot_size(wish), place, wish.size);
        s->produced.store(n + 1, std::memory_order_release);
    }
    while (s->consumed.load(std::memory_order_acquire) != total)
        program::relax();
    return (program::now_s() - started) / static_cast<double>(wish.count);
}

int wake_answer(shared *s, std::uint64_t total)
{
    for (std::uint32_t n = 1; n <= total; ++n) {
        std::uint32_t seen;
        while ((seen = s->asked.load(std::memory_order_acquire)) != n)
            syscall(SYS_futex, &s->asked, FUTEX_WAIT, seen, nullptr, nullptr, 0);
        s->answered.store(n, std::memory_order_release);
    }
    return 0;
}

double wake_ask(shared *s, std::uint64_t warmup, std::uint64_t total)
{
    std::vector<double> times;
    for (std::uint32_t n = 1; n <= total; ++n) {
        for (const double until = program::now_s() + gap_s; program::now_s() < until;)
            program::relax();
        const double started = program::now_s();
        s->asked.store(n, std::memory_order_release);
        syscall(SYS_futex, &s->asked, FUTEX_WAKE, 1, nullptr, nullptr, 0);
        while (s->answered.load(std::memory_order_acquire) != n)
            program::relax();
        if (n > warmup)
            times.push_back(program::now_s() - started);
    }
    return program::median(times);
}

int usage(const char *wrong)
{
    if (wrong != nullptr)
        std::fprintf(stderr, "shm_reference: bad value for %s\n", wrong);
    std::fprintf(stderr, "usage: shm_reference -m copy_stream|futex_reply [-c CORE,CORE] [-s BYTES, 8..%zu] [-n COUNT] [-t SECONDS, 1..%u]\n"
                 "Prints one line of JSON: microseconds of a message, or the median of a wake-up with its answer.\n", max_size, max_seconds);
    return 2;
}

bool option_parse(settings *wish, int option, const char *text)
{
    std::uint64_t value = 0;
    switch (option) {
    case 'm': wish->mode = text; return wish->mode == "copy_stream" || wish->mode == "futex_reply";
    case 'c': return program::cores_parse(text, wish->core);
    case 's': return program::number_parse(text, sizeof(std::uint64_t), max_size, &value) && ((wish->size = value), true);
    case 'n': return program::number_parse(text, 1, max_count, &value) && ((wish->count = value), true);
    case 't': return program::number_parse(text, 1, max_seconds, &value) && ((wish->seconds = static_cast<unsigned>(value)), true);
    default: return false;
    }
}

} // namespace

int main(int argc, char **argv)
{
    settings wish;
    for (int option; (option = getopt(argc, argv, "m:c:s:n:t:h")) != -1;) {
        if (option == 'h' || option == '?')
            return usage(nullptr);
        const char name[] = {'-', static_cast<char>(option), '\0'};
        if (!option_parse(&wish, option, optarg))
            return usage(name);
    }
    if (optind != argc || wish.mode.empty())
        return usage(wish.mode.empty() ? "-m" : argv[optind]);

    const std::size_t size   = ring_offset + slot_count * slot_size(wish);
    void             *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("shm_reference: mmap");
        return 1;
    }
    auto               *s      = new (memory) shared{};
    const bool          stream = wish.mode == "copy_stream";
    const std::uint64_t warmup = wish.count / 10 + 10, total = warmup + wish.count;

    // Both cores are tried before the fork: a child that could not be pinned would leave its parent spinning.
    if (!program::pin(wish.core[1]) || !program::pin(wish.core[0])) {
        std::perror("shm_reference: sched_setaffinity");
        return 1;
    }
    const pid_t parent = getpid();
    const pid_t child  = fork();
    if (child < 0) {
        std::perror("shm_reference: fork");
        return 1;
    }
    alarm(wish.seconds); // REF-2
    if (child == 0)
        _exit(!program::child_of(parent) ? 4 : stream ? stream_take(wish, s, total) : wake_answer(s, total));
    (void)program::pin(wish.core[1]);
    const double seconds = stream ? stream_give(wish, s, warmup, total) : wake_ask(s, warmup, total);
    int          status  = 0;
    if (waitpid(child, &status, 0) != child || status != 0) {
        std::fprintf(stderr, "shm_reference: a message arrived with wrong bytes\n");
        return 1;
    }
    std::printf("{\"test\": \"%s\", \"size\": %zu, \"iterations\": %llu, \"us\": %.6f}\n", wish.mode.c_str(), wish.size,
                static_cast<unsigned long long>(wish.count), seconds * 1e6);
    return 0;
}
