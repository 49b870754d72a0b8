/* Bounded reading and writing of wire bytes: the only way this code base touches them.
 *
 * Owns: little-endian loads and stores at any alignment, and two cursors that refuse to pass the end. A cursor that was
 * asked for too much stays failed, returns zeros, and touches no memory, so a decoder checks once at its end.
 * Refuses to know: any message. There is no struct overlay: layouts live in the codec that names each field.
 *
 * Invariants
 *   BYT-1  no access outside [begin, begin + size).
 *   BYT-2  once failed, always failed, and the cursor does not move.
 */
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace base {

template <class U> inline U load_le(const void *from) noexcept
{
    static_assert(std::is_unsigned_v<U>);
    U value;
    std::memcpy(&value, from, sizeof(value));
    if constexpr (std::endian::native == std::endian::big && sizeof(U) > 1) {
        U swapped = 0;
        for (std::size_t i = 0; i < sizeof(U); ++i) {
            swapped = static_cast<U>((swapped << 8) | ((value >> (8 * i)) & 0xff));
        }
        value = swapped;
    }
    return value;
}

template <class U> inline void store_le(void *to, U value) noexcept
{
    static_assert(std::is_unsigned_v<U>);
    if constexpr (std::endian::native == std::endian::big) {
        for (std::size_t i = 0; i < sizeof(U); ++i) {
            static_cast<unsigned char *>(to)[i] = static_cast<unsigned char>(value >> (8 * i));
        }
    } else {
        std::memcpy(to, &value, sizeof(value));
    }
}

class byte_reader {
public:
    byte_reader(const void *begin, std::size_t size) noexcept
        : begin_(static_cast<const unsigned char *>(begin)), size_(size) {}

    template <class U> U get() noexcept
    {
        if (!take(sizeof(U))) [[unlikely]] {
            return 0;
        }
        return load_le<U>(begin_ + position_ - sizeof(U));
    }

    void get_bytes(void *to, std::size_t n) noexcept
    {
        if (!take(n)) [[unlikely]] {
            std::memset(to, 0, n);
            return;
        }
        std::memcpy(to, begin_ + position_ - n, n);
    }

    bool ok() const noexcept { return !failed_; }
    std::size_t position() const noexcept { return position_; }
    std::size_t remaining() const noexcept { return size_ - position_; }

private:
    bool take(std::size_t n) noexcept
    {
        if (failed_ || n > size_ - position_) {
            failed_ = true;
            return false;
        }
        position_ += n;
        return true;
    }

    const unsigned char *begin_;
    std::size_t size_;         ///< bytes readable at begin_
    std::size_t position_ = 0; ///< bytes taken so far, <= size_
    bool failed_          = false;
};

class byte_writer {
public:
    byte_writer(void *begin, std::size_t size) noexcept : begin_(static_cast<unsigned char *>(begin)), size_(size) {}

    template <class U> void put(U value) noexcept
    {
        if (take(sizeof(U))) [[likely]] {
            store_le<U>(begin_ + position_ - sizeof(U), value);
        }
    }

    void put_bytes(const void *from, std::size_t n) noexcept
    {
        if (take(n)) [[likely]] {
            std::memcpy(begin_ + position_ - n, from, n);
        }
    }

    bool ok() const noexcept { return !failed_; }
    std::size_t position() const noexcept { return position_; }

private:
    bool take(std::size_t n) noexcept
    {
        if (failed_ || n > size_ - position_) {
            failed_ = true;
            return false;
        }
        position_ += n;
        return true;
    }

    unsigned char *begin_;
    std::size_t size_;         ///< bytes writable at begin_
    std::size_t position_ = 0; ///< bytes written so far, <= size_
    bool failed_          = false;
};

/// memcpy for a few bytes that are usually fewer than 32: two overlapping moves instead of a call. Never reads or writes
/// outside [from, from + n) and [to, to + n).
inline void copy_small(void *to, const void *from, std::size_t n) noexcept
{
    auto *d       = static_cast<unsigned char *>(to);
    const auto *s = static_cast<const unsigned char *>(from);

    if (n >= 8) {
        if (n > 16) [[unlikely]] { // no call: a caller that makes none keeps everything in registers that nobody must save
            struct block {
                unsigned char bytes[16];
            } one, last;
            std::memcpy(&last, s + n - 16, 16);
            for (std::size_t at = 0; at < n - 16; at += 16) {
                std::memcpy(&one, s + at, 16);
                std::memcpy(d + at, &one, 16);
            }
            std::memcpy(d + n - 16, &last, 16);
            return;
        }
        std::uint64_t head, tail;
        std::memcpy(&head, s, 8);
        std::memcpy(&tail, s + n - 8, 8);
        std::memcpy(d, &head, 8);
        std::memcpy(d + n - 8, &tail, 8);
    } else if (n >= 4) {
        std::uint32_t head, tail;
        std::memcpy(&head, s, 4);
        std::memcpy(&tail, s + n - 4, 4);
        std::memcpy(d, &head, 4);
        std::memcpy(d + n - 4, &tail, 4);
    } else if (n > 0) {
        d[0]     = s[0]; // one after the other: fewer registers
        d[n / 2] = s[n / 2];
        d[n - 1] = s[n - 1];
    }
}

} // namespace base
