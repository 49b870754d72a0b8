/* Runs a fuzz program without a fuzzing engine, so that any compiler builds it and a test tier runs it.
 *
 *   PROGRAM [--seed N] [--runs N] [--seconds N] [--max-size N] [--replay] [FILE|FOLDER]...
 *
 * First every file that was named, as it is; then `runs` runs (or `seconds` of them) of random bytes and of mutations of the
 * files and of inputs that were run before, from one seed. A run that fails a check aborts; what it was run with is in
 * crash-SEED-RUN in the current folder, and `PROGRAM --replay FILE` runs it again. The last line counts: "N passed, 0 failed".
 */
#include "node.h"

#include "base/rng.h"

#include <algorithm>
#include <cstring>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <unistd.h>

namespace {

using bytes = std::vector<std::uint8_t>;

bytes current;
char crash_name[64];

/// Only calls that a signal handler may make.
void save_current(int signal)
{
    std::FILE *file = std::fopen(crash_name, "we"); // in a process that is about to die by its own abort
    if (file != nullptr) {
        std::fwrite(current.data(), 1, current.size(), file);
        std::fclose(file);
    }
    std::fprintf(stderr, "fuzz: the input of this run is in %s\n", crash_name);
    ::signal(signal, SIG_DFL);
    raise(signal);
}

bytes read_file(const std::filesystem::path &path)
{
    std::ifstream file(path, std::ios::binary);
    return bytes(std::istreambuf_iterator<char>(file), {});
}

void mutate(bytes &b, base::rng &random, const std::vector<bytes> &pool, std::size_t max_size)
{
    for (unsigned n = 1 + random.below(8); n > 0; --n) {
        const std::uint32_t at = b.empty() ? 0 : random.below(static_cast<std::uint32_t>(b.size()));
        switch (random.below(6)) {
        case 0:
            if (!b.empty()) {
                b[at] = static_cast<std::uint8_t>(random.next());
            }
            break;
        case 1:
            if (!b.empty()) {
                b[at] = static_cast<std::uint8_t>(b[at] ^ (1u << random.below(8)));
            }
            break;
        case 2:
            b.insert(b.begin() + at, static_cast<std::uint8_t>(random.next()));
            break;
        case 3:
            if (!b.empty()) {
                b.erase(b.begin() + at);
            }
            break;
        case 4: { // a part of another one
            const bytes &other = pool[random.below(static_cast<std::uint32_t>(pool.size()))];
            if (!other.empty()) {
                const std::uint32_t from  = random.below(static_cast<std::uint32_t>(other.size()));
                const std::uint32_t count = 1 + random.below(static_cast<std::uint32_t>(other.size() - from));
                b.insert(b.begin() + at, other.begin() + from, other.begin() + from + count);
            }
            break;
        }
        default: { // a part of itself again
            const std::uint32_t count = 1 + random.below(16);
            const bytes part(b.begin() + at, b.begin() + std::min<std::size_t>(b.size(), at + count));
            b.insert(b.begin() + at, part.begin(), part.end());
            break;
        }
        }
    }
    if (b.size() > max_size) {
        b.resize(max_size);
    }
}

void run(const bytes &b)
{
    current = b;
    LLVMFuzzerTestOneInput(current.data(), current.size());
}

} // namespace

int main(int argc, char **argv)
{
    std::uint64_t seed = 1, runs = 1000, seconds = 0, done = 0;
    std::size_t max_size = 1024;
    bool replay          = false;
    std::vector<bytes> pool;
    pool.emplace_back();
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const auto number      = [&] { return i + 1 < argc ? std::strtoull(argv[++i], nullptr, 0) : 0; };
        if (word == "--seed") {
            seed = number();
        } else if (word == "--runs") {
            runs = number();
        } else if (word == "--seconds") {
            seconds = number();
        } else if (word == "--max-size") {
            max_size = number();
        } else if (word == "--replay") {
            replay = true;
        } else if (std::filesystem::is_directory(word)) {
            for (const auto &entry : std::filesystem::directory_iterator(word)) {
                pool.push_back(read_file(entry.path()));
            }
        } else if (std::filesystem::is_regular_file(word)) {
            pool.push_back(read_file(word));
        } else {
            std::fprintf(stderr, "fuzz: what is '%s'?\n", word.c_str());
            return 2;
        }
    }
    std::sort(pool.begin(), pool.end()); // a folder has no order
    std::signal(SIGABRT, save_current);
    LLVMFuzzerInitialize(&argc, &argv);
    for (const bytes &b : pool) {
        std::snprintf(crash_name, sizeof(crash_name), "crash-corpus-%llu", static_cast<unsigned long long>(done));
        run(b);
        ++done;
    }
    const std::time_t end = std::time(nullptr) + static_cast<std::time_t>(seconds);
    for (std::uint64_t n = 0; !replay && (seconds != 0 ? std::time(nullptr) < end : n < runs); ++n) {
        // Each run from the seed and its own number: it can be repeated without those before it only from its file.
        base::rng random(seed * 0x9e3779b97f4a7c15u + n);
        bytes b;
        if (random.below(3) == 0) {
            b.resize(random.below(static_cast<std::uint32_t>(max_size)));
            for (auto &byte : b) {
                byte = static_cast<std::uint8_t>(random.next());
            }
        } else {
            b = pool[random.below(static_cast<std::uint32_t>(pool.size()))];
            mutate(b, random, pool, max_size);
        }
        std::snprintf(crash_name, sizeof(crash_name), "crash-%llu-%llu", static_cast<unsigned long long>(seed),
                      static_cast<unsigned long long>(n));
        run(b);
        ++done;
        if (pool.size() < 256) {
            pool.push_back(b);
        } else {
            pool[random.below(256)] = b; // no coverage to tell which are worth keeping: a drifting population
        }
    }
    std::printf("%llu passed, 0 failed\n", static_cast<unsigned long long>(done));
    return 0;
}
