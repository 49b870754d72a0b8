// Names, masks and speeds: the parts of device discovery that need no device.
#include "uct/srd/srd_device.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace {

std::string md_name(const char *ibdev_name)
{
    char name[UCT_MD_NAME_MAX];
    memset(name, 'x', sizeof(name));
    uct_srd_device_md_name(ibdev_name, name);
    EXPECT_NE(nullptr, memchr(name, '\0', sizeof(name)));
    return name;
}

} // namespace

TEST(srd_device, md_name_short_names_are_kept)
{
    EXPECT_EQ("efa_0", md_name("efa_0"));
    EXPECT_EQ("rdmap113s0", md_name("rdmap113s0"));
    EXPECT_EQ("exactly_15_char", md_name("exactly_15_char"));
}

TEST(srd_device, md_name_long_names_fit_and_stay_apart)
{
    const std::string first  = md_name("a_device_with_a_long_name_0");
    const std::string second = md_name("a_device_with_a_long_name_1");
    EXPECT_LT(first.size(), size_t(UCT_MD_NAME_MAX));
    EXPECT_NE(first, second);
    EXPECT_EQ(first, md_name("a_device_with_a_long_name_0"));
}

TEST(srd_device, cpu_mask_is_parsed_from_the_least_significant_end)
{
    ucs_cpu_set_t cpus;
    ASSERT_TRUE(uct_srd_parse_cpu_mask("3", &cpus));
    EXPECT_TRUE(ucs_cpu_is_set(0, &cpus));
    EXPECT_TRUE(ucs_cpu_is_set(1, &cpus));
    EXPECT_FALSE(ucs_cpu_is_set(2, &cpus));

    ASSERT_TRUE(uct_srd_parse_cpu_mask("00000001,80000000,00000000", &cpus));
    EXPECT_TRUE(ucs_cpu_is_set(64, &cpus));
    EXPECT_TRUE(ucs_cpu_is_set(63, &cpus));
    EXPECT_FALSE(ucs_cpu_is_set(0, &cpus));

    // A short group still counts as 32 bits, as the kernel prints the first one.
    ASSERT_TRUE(uct_srd_parse_cpu_mask("1,00000000", &cpus));
    EXPECT_TRUE(ucs_cpu_is_set(32, &cpus));
    ASSERT_TRUE(uct_srd_parse_cpu_mask("1,1", &cpus));
    EXPECT_TRUE(ucs_cpu_is_set(32, &cpus));
}

TEST(srd_device, cpu_mask_malformed_is_refused)
{
    ucs_cpu_set_t cpus;
    EXPECT_FALSE(uct_srd_parse_cpu_mask("", &cpus));
    EXPECT_FALSE(uct_srd_parse_cpu_mask("0", &cpus));
    EXPECT_FALSE(uct_srd_parse_cpu_mask("xyz", &cpus));
    EXPECT_FALSE(uct_srd_parse_cpu_mask("123456789", &cpus));
    EXPECT_FALSE(uct_srd_parse_cpu_mask(("1" + std::string(300, '0')).c_str(), &cpus));
    std::string beyond = "1";
    for (int group = 0; group < 32; ++group) {
        beyond += ",00000000";
    }
    EXPECT_FALSE(uct_srd_parse_cpu_mask(beyond.c_str(), &cpus)); // bit 1024 of 1024
}

TEST(srd_device, link_bandwidth_follows_width_and_speed)
{
    EXPECT_DOUBLE_EQ(100e9 / 8, uct_srd_link_bandwidth(2, 32));  // 4 lanes of 25
    EXPECT_DOUBLE_EQ(400e9 / 8, uct_srd_link_bandwidth(4, 64));  // 8 lanes of 50
    EXPECT_DOUBLE_EQ(100e9 / 8, uct_srd_link_bandwidth(16, 64)); // 2 lanes of 50
    EXPECT_DOUBLE_EQ(0, uct_srd_link_bandwidth(3, 32));
    EXPECT_DOUBLE_EQ(0, uct_srd_link_bandwidth(2, 5));
}
