// Litmus of shmem_fence: what it orders towards one PE, round after round, with
// checked contents.
//
//   usage: shmem_litmus [ROUNDS]      (default 500, of each of the three)
//
//   atomic, fence, put   to one word: the put is last
//   put, fence, put      a block and then a flag: who sees the flag, sees the block
//   put, fence, atomic   a block and then a counter: the same
//
// Every PE does it to its right neighbour, all at a time. shmem_fence does not
// order gets, so there is no form with a get. Ends with "OK ..." on PE 0 and
// exit code 0, or with code 1.
#include <shmem.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <vector>

#include "../mpi/pattern.h"

namespace
{

constexpr int batch       = 16;
constexpr int block_words = 2048; // 16 KiB

int me, right, left;
pattern::tally tally;
std::mt19937_64 randoms;
long *words;  // symmetric: batch
long *blocks; // symmetric: batch blocks
long *flag;   // symmetric: how many blocks have been put here
long *seen;   // symmetric: how many of ours the right neighbour has looked at

void atomic_fence_put()
{
    long put[batch];
    for (int i = 0; i < batch; i++) {
        put[i] = long(randoms() & 0xffffff) << 8;
        shmem_long_atomic_add(&words[i], 1, right);
        shmem_fence();
        shmem_long_put_nbi(&words[i], &put[i], 1, right);
    }
    shmem_quiet();
    for (int i = 0; i < batch; i++) {
        long now = shmem_long_g(&words[i], right);
        tally.expect(now == put[i], me, "atomic, fence, put: the put is last", now, put[i]);
    }
}

// Rounds count from 1 and never repeat; each word of a block holds the number of
// its round, from which both sides know how many words there are.
int words_of(long round)
{
    const uint64_t r = pattern::mix(uint64_t(round));
    return 1 + int((r >> 8) % (1u << r % 12));
}

template <class Signal> void put_fence_signal(long first, const char *what, Signal signal)
{
    static std::vector<long> out(batch * block_words);
    for (int i = 0; i < batch; i++) {
        const int count = words_of(first + i);
        long *from      = &out[size_t(i) * block_words];
        std::fill(from, from + count, first + i);
        shmem_long_put_nbi(&blocks[i * block_words], from, size_t(count), right);
        shmem_fence();
        signal(first + i);
    }
    for (int i = 0; i < batch; i++) {
        shmem_long_wait_until(flag, SHMEM_CMP_GE, first + i);
        const volatile long *block = &blocks[i * block_words];
        long wrong                 = 0;
        for (int k = 0; k < words_of(first + i); k++)
            wrong += block[k] != first + i;
        tally.expect(wrong == 0, me, what, first + i, wrong);
    }
    // The left neighbour may overwrite only what has been looked at.
    shmem_long_p(seen, first + batch - 1, left);
    shmem_long_wait_until(seen, SHMEM_CMP_GE, first + batch - 1);
    shmem_quiet();
}

} // namespace

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? std::atol(argv[1]) : 500;
    shmem_init();
    me      = shmem_my_pe();
    int pes = shmem_n_pes();
    right   = (me + 1) % pes;
    left    = (me + pes - 1) % pes;
    randoms.seed(uint64_t(me) + 1);
    words          = static_cast<long *>(shmem_calloc(batch, sizeof(long)));
    blocks         = static_cast<long *>(shmem_calloc(size_t(batch) * block_words, sizeof(long)));
    flag           = static_cast<long *>(shmem_calloc(1, sizeof(long)));
    seen           = static_cast<long *>(shmem_calloc(1, sizeof(long)));
    auto *failures = static_cast<long *>(shmem_calloc(1, sizeof(long)));
    if (!words || !blocks || !flag || !seen || !failures) {
        fprintf(stderr, "PE %d: no symmetric memory\n", me);
        shmem_global_exit(1);
    }
    shmem_barrier_all();
    for (long done = 0; done < rounds; done += batch)
        atomic_fence_put();
    shmem_barrier_all();
    long next = 1;
    for (long done = 0; done < rounds; done += batch, next += batch)
        put_fence_signal(next, "put, fence, put: the flag is last", [](long value) { shmem_long_p(flag, value, right); });
    shmem_barrier_all();
    for (long done = 0; done < rounds; done += batch, next += batch)
        put_fence_signal(next, "put, fence, atomic: the counter is last", [](long) { shmem_long_atomic_inc(flag, right); });
    shmem_barrier_all();

    shmem_long_atomic_add(failures, tally.failed, 0);
    shmem_barrier_all();
    int code = shmem_long_g(failures, 0) == 0 ? 0 : 1;
    if (me == 0 && code == 0)
        printf("OK shmem_litmus: %d PEs, %ld rounds of each of 3 forms\n", pes, (rounds + batch - 1) / batch * batch);
    fflush(stdout);
    shmem_barrier_all();
    shmem_finalize();
    return code;
}
