// OpenSHMEM put, get, non-blocking put and get, barrier, put-fence-flag, and
// atomics, with checked results.
//
// Knows OpenSHMEM only. Ends with "OK ..." on PE 0 and exit code 0, or with
// code 1. Each step ends with a barrier, so a step never sees the traffic of
// another.
#include <shmem.h>

#include <algorithm>
#include <vector>

#include "../mpi/pattern.h"

using pattern::guarded;
using pattern::stamp;

namespace
{

int me, pes;
pattern::tally tally;
uint8_t *target_storage,
    *source_storage; // symmetric, of guarded::storage_size(size_max)
long *word;          // symmetric: words[0..7], zero between the steps
long *slots;         // symmetric: one word for each PE

void settle()
{
    shmem_barrier_all();
    std::fill(word, word + 8, 0);
    shmem_barrier_all();
}

void put(size_t size, int round, bool blocking)
{
    int right = (me + 1) % pes, left = (me + pes - 1) % pes;
    guarded in(target_storage, size + 97);
    std::vector<uint8_t> out(size + 1);
    pattern::fill(out.data(), size, stamp{me, right, round});
    shmem_barrier_all();
    if (blocking) {
        shmem_putmem(in.data(), out.data(), size, right);
    } else {
        shmem_putmem_nbi(in.data(), out.data(), size, right);
        shmem_quiet();
    }
    shmem_barrier_all();
    in.check(size, stamp{left, me, round}, me, blocking ? "put" : "put_nbi", tally);
    settle();
}

void get(size_t size, int round, bool blocking)
{
    int right = (me + 1) % pes;
    guarded remote(source_storage, size);
    pattern::fill(remote.data(), size, stamp{me, me, round});
    std::vector<uint8_t> storage(guarded::storage_size(size + 97));
    guarded in(storage.data(), size + 97);
    shmem_barrier_all();
    if (blocking) {
        shmem_getmem(in.data(), remote.data(), size, right);
    } else {
        shmem_getmem_nbi(in.data(), remote.data(), size, right);
        shmem_quiet();
    }
    in.check(size, stamp{right, right, round}, me, blocking ? "get" : "get_nbi", tally);
    settle();
    remote.check(size, stamp{me, me, round}, me, "get changed its source", tally);
}

// Data and then, after a fence, a flag: who sees the flag must see the data.
// The last small put overtakes nothing.
void put_fence_flag(int round)
{
    constexpr size_t size = 30000;
    int right = (me + 1) % pes, left = (me + pes - 1) % pes;
    guarded in(target_storage, size);
    std::vector<uint8_t> out(size);
    shmem_barrier_all();
    for (int lap = 1; lap <= 20; lap++) {
        pattern::fill(out.data(), size, stamp{me, right, round + lap});
        shmem_putmem(in.data(), out.data(), size, right);
        shmem_fence();
        shmem_long_p(&word[0], lap, right);
        shmem_long_wait_until(&word[0], SHMEM_CMP_GE, lap);
        in.check(size, stamp{left, me, round + lap}, me, "put, fence, flag", tally);
        // The neighbour may overwrite only what has been looked at.
        shmem_long_p(&word[1], lap, left);
        shmem_long_wait_until(&word[1], SHMEM_CMP_GE, lap);
    }
    settle();
}

// Everybody to everybody: one word each, by p and back by g.
void single_words()
{
    for (int pe = 0; pe < pes; pe++)
        shmem_long_p(&slots[me], 1000L * me + pe, pe);
    shmem_barrier_all();
    for (int pe = 0; pe < pes; pe++) {
        tally.expect(slots[pe] == 1000L * pe + me, me, "p", pe, slots[pe]);
        long value = shmem_long_g(&slots[me], pe);
        tally.expect(value == 1000L * me + pe, me, "g", pe, value);
    }
    settle();
}

// Fetched values of all PEs together must be each of 0..n-1 exactly once.
void fetch_add()
{
    constexpr int times = 100;
    std::vector<long> seen;
    for (int i = 0; i < times; i++)
        seen.push_back(shmem_long_atomic_fetch_add(&word[0], 1, 0));
    tally.expect(std::is_sorted(seen.begin(), seen.end()), me, "fetch_add: a PE's own values grow");
    long sum = 0;
    for (long value : seen)
        sum += value;
    shmem_long_atomic_add(&word[1], sum, 0);
    for (int i = 0; i < times; i++)
        shmem_long_atomic_inc(&word[2], 0);
    shmem_barrier_all();
    long n = long(times) * pes;
    if (me == 0) {
        tally.expect(word[0] == n, me, "fetch_add: total", word[0], n);
        tally.expect(word[1] == n * (n - 1) / 2, me, "fetch_add: sum of fetched values", word[1], n * (n - 1) / 2);
        tally.expect(word[2] == n, me, "inc: total", word[2], n);
    }
    tally.expect(shmem_long_atomic_fetch(&word[0], 0) == n, me, "fetch");
    settle();
}

void swap_and_compare_swap()
{
    // Each PE swaps its tokens in; what comes out of all swaps plus what stays is
    // what went in.
    constexpr long times = 50;
    long in = 0, out = 0;
    for (long i = 0; i < times; i++) {
        long token = 1 + me * times + i;
        in += token;
        out += shmem_long_atomic_swap(&word[0], token, pes - 1);
    }
    shmem_long_atomic_add(&word[1], in - out, pes - 1);
    shmem_barrier_all();
    if (me == pes - 1)
        tally.expect(word[0] == word[1], me, "swap: tokens kept", word[0], word[1]);
    settle();
    // A spin lock from compare_swap guards a non-atomic counter on PE 0. PE 0 does not compete: an atomic on itself may complete
    // without any progress of the library, so that its spinning would starve the holder, whom only PE 0's progress can serve.
    for (int i = 0; i < 20 && me != 0; i++) {
        while (shmem_long_atomic_compare_swap(&word[2], 0, me + 1, 0) != 0) {
        }
        long value = shmem_long_g(&word[3], 0);
        shmem_long_p(&word[3], value + 1, 0);
        shmem_quiet();
        long holder = shmem_long_atomic_swap(&word[2], 0, 0);
        tally.expect(holder == me + 1, me, "compare_swap: lock holder", holder, me + 1);
    }
    shmem_barrier_all();
    if (me == 0)
        tally.expect(word[3] == 20L * (pes - 1), me, "compare_swap: counter under the lock", word[3], 20L * (pes - 1));
    settle();
    auto *small = reinterpret_cast<int *>(&word[4]);
    shmem_int_atomic_fetch_add(small, 3, 0);
    shmem_barrier_all();
    if (me == 0)
        tally.expect(small[0] == 3 * pes && small[1] == 0, me, "32-bit fetch_add", small[0], small[1]);
    settle();
    long old = shmem_long_atomic_compare_swap(&word[5], 77, 1, me);
    tally.expect(old == 0 && word[5] == 0, me, "compare_swap: no swap when the condition differs", old, word[5]);
    settle();
}

// Nobody leaves before all have entered: everybody has put its number before
// its barrier.
void barrier(int round)
{
    for (int pe = 0; pe < pes; pe++)
        shmem_long_p(&slots[me], round, pe);
    shmem_barrier_all();
    bool all = std::all_of(slots, slots + pes, [&](long value) { return value == round; });
    tally.expect(all, me, "barrier completes the puts before it", round);
    shmem_barrier_all();
}

} // namespace

int main()
{
    shmem_init();
    me             = shmem_my_pe();
    pes            = shmem_n_pes();
    target_storage = static_cast<uint8_t *>(shmem_malloc(guarded::storage_size(pattern::size_max + 97)));
    source_storage = static_cast<uint8_t *>(shmem_malloc(guarded::storage_size(pattern::size_max)));
    word           = static_cast<long *>(shmem_calloc(8, sizeof(long)));
    slots          = static_cast<long *>(shmem_calloc(size_t(pes), sizeof(long)));
    auto *failures = static_cast<long *>(shmem_calloc(2, sizeof(long)));
    if (!target_storage || !source_storage || !word || !slots || !failures) {
        fprintf(stderr, "PE %d: no symmetric memory\n", me);
        shmem_global_exit(2);
    }
    shmem_barrier_all();
    int round = 1;
    for (size_t size : pattern::sizes) {
        put(size, round++, true);
        put(size, round++, false);
        get(size, round++, true);
        get(size, round++, false);
    }
    put_fence_flag(1000);
    single_words();
    fetch_add();
    swap_and_compare_swap();
    for (int i = 1; i <= 20; i++)
        barrier(100000 + i);
    shmem_long_atomic_add(&failures[0], tally.checked, 0);
    shmem_long_atomic_add(&failures[1], tally.failed, 0);
    shmem_barrier_all();
    long checked = shmem_long_g(&failures[0], 0), failed = shmem_long_g(&failures[1], 0);
    if (me == 0 && failed == 0)
        printf("OK shmem_checks: %d PEs, %ld checks\n", pes, checked);
    if (me == 0 && failed != 0)
        printf("WRONG shmem_checks: %ld of %ld checks\n", failed, checked);
    fflush(stdout);
    shmem_finalize();
    return failed == 0 ? 0 : 1;
}
