/* Unit tests of base/bytes.h: bounds, byte order, and the small copy at every length and alignment. */
#include "base/bytes.h"

#include <gtest/gtest.h>

#include <vector>

TEST(bytes, store_and_load_are_little_endian_at_any_alignment)
{
    for (std::size_t shift = 0; shift < 8; ++shift) {
        unsigned char buffer[16] = {};

        base::store_le<std::uint32_t>(buffer + shift, 0x01020304u);
        EXPECT_EQ(buffer[shift], 4);
        EXPECT_EQ(buffer[shift + 3], 1);
        EXPECT_EQ(base::load_le<std::uint32_t>(buffer + shift), 0x01020304u);
    }
}

TEST(bytes, reader_past_the_end_fails_and_stays_failed)
{
    const unsigned char data[5] = {1, 2, 3, 4, 5};
    base::byte_reader r(data, sizeof(data));

    EXPECT_EQ(r.get<std::uint32_t>(), 0x04030201u);
    EXPECT_EQ(r.get<std::uint16_t>(), 0); // one byte is left
    EXPECT_FALSE(r.ok());
    EXPECT_EQ(r.get<std::uint8_t>(), 0);  // BYT-2: although it would fit
    EXPECT_EQ(r.position(), 4u);
}

TEST(bytes, writer_past_the_end_touches_nothing)
{
    unsigned char data[6];
    std::memset(data, 0xee, sizeof(data));
    base::byte_writer w(data, 4);

    w.put<std::uint16_t>(0x0201);
    w.put<std::uint32_t>(0xffffffffu);
    EXPECT_FALSE(w.ok());
    EXPECT_EQ(w.position(), 2u);
    for (std::size_t i = 2; i < sizeof(data); ++i) {
        EXPECT_EQ(data[i], 0xee) << i; // BYT-1
    }
}

TEST(bytes, reader_bytes_past_the_end_yields_zeros)
{
    const unsigned char data[2] = {7, 7};
    unsigned char out[4]        = {9, 9, 9, 9};
    base::byte_reader r(data, sizeof(data));

    r.get_bytes(out, sizeof(out));
    EXPECT_FALSE(r.ok());
    for (const unsigned char byte : out) {
        EXPECT_EQ(byte, 0);
    }
}

TEST(bytes, copy_small_of_every_length_copies_exactly_that)
{
    for (std::size_t n = 0; n <= 96; ++n) {
        for (std::size_t shift = 0; shift < 8; ++shift) {
            std::vector<unsigned char> from(n + 16), to(n + 16, 0xee);
            for (std::size_t i = 0; i < from.size(); ++i) {
                from[i] = static_cast<unsigned char>(i * 7 + n);
            }
            base::copy_small(to.data() + shift, from.data() + 1, n);
            for (std::size_t i = 0; i < to.size(); ++i) {
                const bool inside = i >= shift && i < shift + n;
                ASSERT_EQ(to[i], inside ? from[1 + i - shift] : 0xee) << "n=" << n << " shift=" << shift << " i=" << i;
            }
        }
    }
}
