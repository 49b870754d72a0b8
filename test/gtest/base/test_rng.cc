/* Unit tests of base/rng.h: reproducible, bounded. */
#include "base/rng.h"

#include <gtest/gtest.h>

TEST(rng, same_seed_yields_the_same_sequence)
{
    base::rng a(7), b(7), c(8);
    unsigned differing = 0;

    for (int i = 0; i < 1000; ++i) {
        const auto x = a.next();
        ASSERT_EQ(x, b.next());
        differing += x != c.next();
    }
    EXPECT_GT(differing, 990u);
}

TEST(rng, below_stays_below_and_reaches_every_value)
{
    base::rng r(1);
    unsigned seen[7] = {};

    for (int i = 0; i < 7000; ++i) {
        const auto v = r.below(7);
        ASSERT_LT(v, 7u);
        ++seen[v];
    }
    for (const unsigned n : seen) {
        EXPECT_GT(n, 700u);
    }
}
