/* The input of a fuzz run, read as a program: every byte string is one. Past its end everything is 0. */
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

extern "C" int LLVMFuzzerInitialize(int *argc, char ***argv);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size);

namespace fuzz {

class script {
public:
    script(const std::uint8_t *data, std::size_t size) : at_(data), end_(data + size) {}
    bool          more() const { return at_ != end_; }
    std::uint8_t  u8() { return at_ != end_ ? *at_++ : 0; }
    std::uint16_t u16() { return static_cast<std::uint16_t>(u8() | (u8() << 8)); }
    std::uint32_t u32() { return u16() | (std::uint32_t{u16()} << 16); }
    std::uint64_t u64() { return u32() | (std::uint64_t{u32()} << 32); }
    /// Values near the edges that matter, or any.
    std::uint64_t edge()
    {
        const std::uint8_t how = u8();
        const std::uint64_t near = static_cast<std::uint64_t>(static_cast<std::int64_t>(how & 7) - 3);
        switch (how >> 3 & 7) {
        case 0: return near;
        case 1: return (std::uint64_t{1} << (u8() & 63)) + near;
        case 2: return 0xffffffff + near;
        case 3: return 0xffff + near;
        case 4: return ~std::uint64_t{0} + near;
        case 5: return u8();
        case 6: return u32();
        default: return u64();
        }
    }

private:
    const std::uint8_t *at_, *end_;
};

/// What must hold in every run; a run that breaks it ends the program, and the driver keeps its input.
inline void must(bool condition, const char *what)
{
    if (!condition) {
        std::fprintf(stderr, "fuzz: does not hold: %s\n", what);
        std::abort();
    }
}

inline constexpr std::uint8_t guard_byte = 0xa5; ///< fills what must not change

/// Guard memory: every byte equals the one before it, and the first is right.
inline bool untouched(const std::uint8_t *memory, std::size_t size)
{
    return memory[0] == guard_byte && std::memcmp(memory, memory + 1, size - 1) == 0;
}

/// Pages full of guard bytes. Declared before the queues whose work names them: an application may not unmap what its work still uses.
class guarded_pages {
public:
    explicit guarded_pages(std::size_t size) : size_(size)
    {
        void *at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(at != MAP_FAILED, "guarded pages");
        at_ = static_cast<std::uint8_t *>(at);
        std::memset(at_, guard_byte, size);
    }
    ~guarded_pages() { munmap(at_, size_); }
    guarded_pages(const guarded_pages &) = delete;
    operator std::uint8_t *() const { return at_; }

private:
    std::size_t   size_;
    std::uint8_t *at_;
};

inline std::uint64_t commands; ///< steps of all runs, printed at the end
inline void count_at_exit(const char *what)
{
    static const char *name = what;
    std::atexit([] { std::fprintf(stderr, "fuzz: %llu %s\n", static_cast<unsigned long long>(commands), name); });
}

} // namespace fuzz
