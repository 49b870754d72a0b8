/* Values as a person writes them: what is read, what is refused, and that what is shown is read as the same. */
#include "softefa/settings_text.h"

#include <gtest/gtest.h>

#include <string>

namespace {

using namespace softefa;

constexpr std::uint64_t refused = ~std::uint64_t{0}; ///< no text below means it

template <class Read> std::uint64_t value_of(Read &&read)
{
    std::uint64_t value = 0;
    return read(&value) ? value : refused;
}
std::uint64_t number(const char *text)
{
    return value_of([&](std::uint64_t *p) { return parse_number(text, p); });
}
std::uint64_t share(const char *text)
{
    return value_of([&](std::uint64_t *p) { return parse_percent(text, p); });
}
std::uint64_t duration(const char *text)
{
    return value_of([&](std::uint64_t *p) { return parse_with_unit(text, time_units, p); });
}
std::uint64_t rate(const char *text)
{
    return value_of([&](std::uint64_t *p) { return parse_with_unit(text, rate_units, p); });
}

TEST(settings_text, number_is_whole_and_unsigned)
{
    EXPECT_EQ(0u, number("0"));
    EXPECT_EQ(10u, number("010")) << "decimal";
    EXPECT_EQ(0xefa0u, number("0xEFA0"));
    EXPECT_EQ(18446744073709551614u, number("18446744073709551614"));
    for (const char *text : {"", " 1", "-1", "+1", "1 ", "1x", "0x", "0xg", "1.0", "18446744073709551616"}) {
        EXPECT_EQ(refused, number(text)) << text;
    }
}

TEST(settings_text, percent_is_a_share_of_65536_rounded)
{
    EXPECT_EQ(0u, share("0"));
    EXPECT_EQ(65536u, share("100%"));
    EXPECT_EQ(32768u, share("50"));
    EXPECT_EQ(1638u, share("2.5%")); // 1638.4
    EXPECT_EQ(1u, share("0.001"));   // 0.66
    for (const char *text : {"", ".5", "100.001", "101", "1,5", "5%%", "-1", "0.0005"}) {
        EXPECT_EQ(refused, share(text)) << text;
    }
}

TEST(settings_text, unit_is_wanted_but_for_nothing)
{
    EXPECT_EQ(0u, duration("0"));
    EXPECT_EQ(15'000u, duration("15us"));
    EXPECT_EQ(1'500'000u, duration("1.5MS"));
    EXPECT_EQ(3'600'000'000'000u, duration("3600s"));
    EXPECT_EQ(12'500'000'000u, rate("12.5g"));
    for (const char *text : {"", "5", "0.5", "5 us", "5min", "us", "-1us", "99999999999s", "1.2345us"}) {
        EXPECT_EQ(refused, duration(text)) << text;
    }
}

TEST(settings_text, what_is_shown_is_read_as_the_same)
{
    char text[32];
    for (const std::uint64_t value : {0u, 1u, 999u, 1000u, 1'500'000u, 2'000'000'000u, 4'294'967'295u}) {
        text_with_unit(value, time_units, text, sizeof(text));
        EXPECT_EQ(value, duration(text)) << text;
    }
    for (const std::uint64_t hundredths : {0u, 1u, 10u, 250u, 9'999u, 10'000u}) {
        const std::uint64_t value = (hundredths * 65536 + 5000) / 10000;
        text_of_percent(value, text, sizeof(text));
        EXPECT_EQ(value, share(text)) << text;
    }
    text_of_percent(1638, text, sizeof(text));
    EXPECT_STREQ("2.5", text);
}

TEST(settings_text, append_counts_what_does_not_fit)
{
    char        text[8] = "";
    std::size_t length  = 0;
    text_append(text, sizeof(text), &length, "%s", "12345");
    text_append(text, sizeof(text), &length, "%d", 6789);
    EXPECT_EQ(9u, length);
    EXPECT_STREQ("1234567", text);
    text_append(text, sizeof(text), &length, "x");
    EXPECT_EQ(10u, length);
    EXPECT_STREQ("1234567", text);
}

TEST(settings_text, domain_name_is_short_and_plain)
{
    EXPECT_TRUE(is_domain_name("a") && is_domain_name("A-Z_0.9") && is_domain_name(std::string(32, 'x').c_str()));
    for (const char *text : {"", "a/b", "a b", "\xc3\xa4", "a\n"}) {
        EXPECT_FALSE(is_domain_name(text)) << text;
    }
    EXPECT_FALSE(is_domain_name(std::string(33, 'x').c_str()));
}

} // namespace
