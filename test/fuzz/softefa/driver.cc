/* Runs a fuzz program of this folder without a fuzzing engine: PROGRAM [--seed N] [--runs N] [--seconds N] [--max-size N] [--replay] [FILE]...
 *
 * Files as they are, then runs of random bytes and of mutations of earlier inputs, from one seed. A run that breaks leaves its input in
 * crash-SEED-RUN; `--replay` runs the files only. The last line is "N passed, 0 failed".
 */
#include "script.h"

#include "base/rng.h"

#include <csignal>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <unistd.h>
#include <vector>

extern "C" [[gnu::weak]] void __sanitizer_set_death_callback(void (*)());

namespace {

using bytes = std::vector<std::uint8_t>;
bytes current;
char  crash_name[64];

void save_input()
{
    if (std::FILE *file = std::fopen(crash_name, "we")) { // the process dies by its own fault: whatever works is welcome
        std::fwrite(current.data(), 1, current.size(), file);
        std::fclose(file);
    }
    std::fprintf(stderr, "fuzz: the input of this run is in %s\n", crash_name);
}

void save_current(int signal)
{
    save_input();
    std::signal(signal, SIG_DFL);
    raise(signal);
}

bytes next_input(base::rng &random, std::vector<bytes> &pool, std::uint32_t max_size)
{
    bytes b;
    if (random.below(3) == 0) {
        b.resize(1 + random.below(max_size));
        for (auto &byte : b)
            byte = static_cast<std::uint8_t>(random.next());
        return b;
    }
    b = pool[random.below(static_cast<std::uint32_t>(pool.size()))];
    for (unsigned n = 1 + random.below(8); n != 0; --n) {
        const std::uint32_t at = random.below(static_cast<std::uint32_t>(b.size() + 1));
        if (at == b.size() || random.below(4) == 0) {
            const bytes &other = pool[random.below(static_cast<std::uint32_t>(pool.size()))];
            b.insert(b.begin() + at, other.begin(), other.begin() + random.below(static_cast<std::uint32_t>(other.size() + 1)));
        } else if (random.below(4) == 0) {
            b.erase(b.begin() + at);
        } else {
            b[at] = static_cast<std::uint8_t>(random.below(2) != 0 ? random.next() : b[at] ^ (1u << random.below(8)));
        }
    }
    if (b.size() > max_size)
        b.resize(max_size);
    return b;
}

} // namespace

int main(int argc, char **argv)
{
    std::uint64_t      seed = 1, runs = 1000, seconds = 0, done = 0;
    std::uint32_t      max_size = 400;
    bool               replay = false;
    std::vector<bytes> pool(1);
    for (int i = 1; i < argc; ++i) {
        const std::string word   = argv[i];
        const auto        number = [&] { return i + 1 < argc ? std::strtoull(argv[++i], nullptr, 0) : 0; };
        if (word == "--seed")
            seed = number();
        else if (word == "--runs")
            runs = number();
        else if (word == "--seconds")
            seconds = number();
        else if (word == "--max-size")
            max_size = static_cast<std::uint32_t>(number());
        else if (word == "--replay")
            replay = true;
        else {
            std::ifstream file(word, std::ios::binary);
            pool.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
        }
    }
    for (int s : {SIGABRT, SIGALRM})
        std::signal(s, save_current);
    if (__sanitizer_set_death_callback != nullptr) { // its own report of a fault comes first
        __sanitizer_set_death_callback(save_input);
    } else {
        for (int s : {SIGSEGV, SIGBUS, SIGFPE})
            std::signal(s, save_current);
    }
    LLVMFuzzerInitialize(&argc, &argv);
    for (const bytes &b : pool) {
        std::snprintf(crash_name, sizeof(crash_name), "crash-file-%llu", static_cast<unsigned long long>(done++));
        current = b;
        LLVMFuzzerTestOneInput(current.data(), current.size());
    }
    const std::time_t end = std::time(nullptr) + static_cast<std::time_t>(seconds);
    for (std::uint64_t n = 0; !replay && (seconds != 0 ? std::time(nullptr) < end : n < runs); ++n, ++done) {
        base::rng random(seed * 0x9e3779b97f4a7c15u + n);
        current = next_input(random, pool, max_size);
        std::snprintf(crash_name, sizeof(crash_name), "crash-%llu-%llu", static_cast<unsigned long long>(seed),
                      static_cast<unsigned long long>(n));
        if (n % 64 == 0)
            alarm(300); // a hang is a failure with an input; generous, as a soak may get no processor for long
        LLVMFuzzerTestOneInput(current.data(), current.size());
        if (pool.size() < 256)
            pool.push_back(current);
        else
            pool[random.below(256)] = current;
    }
    alarm(0);
    std::printf("%llu passed, 0 failed\n", static_cast<unsigned long long>(done));
    return 0;
}
