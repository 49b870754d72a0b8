// Buffers whose every byte says where it comes from, for the MPI and OpenSHMEM
// programs.
//
// A byte is a function of (from, to, round, position), so a message that is
// delivered to the wrong rank, twice, shifted, cut, or mixed with another one
// is seen. A guarded buffer has a margin on both sides and a tail, all of which
// a transfer must leave alone.
//
// PAT-1: check() of a buffer reports the first byte that differs, inside the
// payload, in a margin or in the tail.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace pattern
{

inline uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

struct stamp {
    int from;
    int to;
    int round;

    // Word `index` of the message, that is bytes 8 * index to 8 * index + 7.
    uint64_t word(size_t index) const
    {
        uint64_t seed = (uint64_t(uint32_t(from)) << 44) ^ (uint64_t(uint32_t(to)) << 24) ^ uint32_t(round);
        return mix(mix(seed + 0x9e3779b97f4a7c15ull) + index);
    }
};

inline void fill(void *buffer, size_t size, const stamp &s)
{
    auto *bytes = static_cast<uint8_t *>(buffer);
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = s.word(at / 8);
        memcpy(bytes + at, &word, size - at < 8 ? size - at : 8);
    }
}

// The position of the first byte that is not as `s` says, or `size`.
inline size_t mismatch(const void *buffer, size_t size, const stamp &s)
{
    const auto *bytes = static_cast<const uint8_t *>(buffer);
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = s.word(at / 8);
        size_t span   = size - at < 8 ? size - at : 8;
        if (memcmp(bytes + at, &word, span) == 0)
            continue;
        const auto *expected = reinterpret_cast<const uint8_t *>(&word);
        for (size_t i = 0; i < span; i++)
            if (bytes[at + i] != expected[i])
                return at + i;
    }
    return size;
}

// What one program has checked; printed by its rank 0 at the end.
struct tally {
    long checked = 0;
    long failed  = 0;

    bool expect(bool good, int rank, const char *what, long a = 0, long b = 0)
    {
        checked++;
        if (good)
            return true;
        // The first few are enough to see what is wrong; a broken transport would
        // print millions.
        if (failed++ < 5) {
            fprintf(stderr, "rank %d: wrong: %s (%ld, %ld)\n", rank, what, a, b);
            fflush(stderr);
        }
        return false;
    }
};

constexpr size_t margin_size  = 64;
constexpr uint8_t margin_byte = 0xa5;

// Room for `capacity` bytes between two margins, within `storage` of
// storage_size(capacity) bytes.
class guarded
{
public:
    static size_t storage_size(size_t capacity) { return capacity + 2 * margin_size; }
    guarded(void *storage, size_t capacity) : storage_(static_cast<uint8_t *>(storage)), capacity_(capacity) { reset(); }
    void reset() { memset(storage_, margin_byte, storage_size(capacity_)); }
    uint8_t *data() const { return storage_ + margin_size; }

    // Exactly `size` bytes of `s` at the start of data(), and nothing else
    // touched.
    bool check(size_t size, const stamp &s, int rank, const char *what, tally &t) const
    {
        size_t bad = mismatch(data(), size, s);
        bool good  = t.expect(bad == size, rank, what, long(bad), long(size));
        bool clean = is_margin(storage_, margin_size) && is_margin(data() + size, capacity_ - size + margin_size);
        return t.expect(clean, rank, "bytes outside of the message were written", long(size), s.round) && good;
    }

private:
    static bool is_margin(const uint8_t *at, size_t size)
    {
        return size == 0 || (at[0] == margin_byte && memcmp(at, at + 1, size - 1) == 0);
    }

    uint8_t *storage_;
    size_t capacity_;
};

// 0 B to 4 MiB: around every power that a transport may cut at, and odd sizes.
constexpr size_t sizes[]  = {0,     1,     7,     8,     9,      31,      64,      100,     255,    1000,
                             1024,  2048,  4095,  4096,  4097,   8100,    8191,    8192,    8193,   8900,
                             16384, 65535, 65536, 65537, 262144, 1000003, 1048576, 4194303, 4194304};
constexpr size_t size_max = 4194304;

} // namespace pattern
