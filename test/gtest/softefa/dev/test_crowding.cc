/* When a process that polls offers its processor: masks in, verdict out. */
#include "softefa/dev/crowding.h"

#include <gtest/gtest.h>

#include <initializer_list>

namespace {

using softefa::dev::crowding;

cpu_set_t on(std::initializer_list<int> processors)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int p : processors)
        CPU_SET(p, &set);
    return set;
}

bool crowded(const cpu_set_t &own, std::initializer_list<cpu_set_t> others)
{
    crowding all(own);
    for (const cpu_set_t &other : others)
        all.add(other);
    return all.crowded();
}

TEST(crowding, one_processor_each_is_not_crowded)
{
    EXPECT_FALSE(crowded(on({0}), {}));
    EXPECT_FALSE(crowded(on({0}), {on({1})}));
    EXPECT_FALSE(crowded(on({3}), {on({0}), on({1}), on({2})}));
}

TEST(crowding, two_bound_to_one_processor_are_crowded_wherever_others_are)
{
    EXPECT_TRUE(crowded(on({0}), {on({0})}));
    EXPECT_TRUE(crowded(on({0}), {on({0}), on({1, 2, 3, 4})}));
    EXPECT_TRUE(crowded(on({0, 1}), {on({0}), on({1})}));
}

TEST(crowding, unbound_processes_are_crowded_when_they_outnumber_processors)
{
    const cpu_set_t both = on({0, 1});
    EXPECT_FALSE(crowded(both, {both}));
    EXPECT_TRUE(crowded(both, {both, both}));
}

TEST(crowding, bound_process_counts_the_unbound_ones)
{
    EXPECT_FALSE(crowded(on({0}), {on({0, 1})}));
    EXPECT_TRUE(crowded(on({0}), {on({0, 1}), on({0, 1})}));
}

TEST(crowding, processors_beyond_the_count_of_this_machine_are_as_good)
{
    EXPECT_FALSE(crowded(on({CPU_SETSIZE - 1}), {on({0})}));
    EXPECT_TRUE(crowded(on({CPU_SETSIZE - 1}), {on({CPU_SETSIZE - 1})}));
}

} // namespace
