/* Unit tests of base/counters.h. */
#include "base/counters.h"

#include <gtest/gtest.h>

namespace {
enum class fruit { apple, pear, count_ };
}

TEST(counters, add_changes_only_the_named_one)
{
    base::counters<fruit> c;

    c.add(fruit::pear);
    c.add(fruit::pear, 41);
    EXPECT_EQ(c.get(fruit::apple), 0u);
    EXPECT_EQ(c.get(fruit::pear), 42u);
    EXPECT_EQ(*c.cell(fruit::pear), 42u);
}
