/* Unit tests of base/seq.h: distance and order across the wrap, and the expansion of 16 bits to 32. */
#include "base/seq.h"

#include <gtest/gtest.h>

using base::expand;
using base::seq16;
using base::seq32;

TEST(seq, distance_everywhere_is_what_was_added)
{
    for (std::uint32_t start = 0; start <= 0xffff; ++start) {
        for (std::uint32_t n : {0u, 1u, 255u, 256u, 32767u}) {
            const seq16 a(static_cast<std::uint16_t>(start));
            ASSERT_EQ(distance(a, a + static_cast<std::uint16_t>(n)), static_cast<int>(n)); // SEQ-1
            ASSERT_EQ(distance(a + static_cast<std::uint16_t>(n), a), -static_cast<int>(n));
        }
    }
}

TEST(seq, order_across_the_wrap_follows_distance)
{
    const seq32 last(0xffffffffu), first(0);

    EXPECT_TRUE(is_before(last, first));
    EXPECT_TRUE(is_after(first, last));
    EXPECT_FALSE(is_before(last, last));
    EXPECT_EQ(later_of(last, first), first);
    EXPECT_EQ(earlier_of(last, first), last);
}

TEST(seq, increment_at_the_maximum_wraps_to_zero)
{
    seq16 s(0xffff);

    ++s;
    EXPECT_EQ(s.raw(), 0);
    EXPECT_EQ((s - 1).raw(), 0xffff);
}

TEST(seq, expand_near_any_reference_finds_the_nearest)
{
    for (const std::uint32_t reference : {0u, 1u, 0x7fffu, 0x8000u, 0xffffu, 0x10000u, 0x12345678u, 0xffff8000u, 0xffffffffu}) {
        for (std::int32_t offset = -32768; offset < 32768; offset += 97) {
            const std::uint32_t wanted = reference + static_cast<std::uint32_t>(offset);
            ASSERT_EQ(expand(seq32(reference), static_cast<std::uint16_t>(wanted)).raw(), wanted); // SEQ-2
        }
    }
}
