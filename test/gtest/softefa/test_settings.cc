// Settings: every way to get one wrong is refused by name, and what is right arrives.
#include "softefa/settings.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <unistd.h>
#include <vector>

namespace softefa {
namespace {

struct parse_result {
    bool        ok;
    settings    values;
    std::string error;
};

parse_result parse(std::vector<const char *> environment)
{
    environment.push_back(nullptr);
    parse_result r;
    char         error[2048] = "";
    r.ok                     = settings_parse(environment.data(), &r.values, error, sizeof(error));
    r.error                  = error;
    return r;
}

TEST(settings, parse_empty_environment_gives_defaults)
{
    const auto r = parse({"HOME=/root", "SOFTEFA=not ours", "XSOFTEFA_DEVICES=9"});
    ASSERT_TRUE(r.ok) << r.error;
    EXPECT_EQ(profile::efa2, r.values.device_profile);
    EXPECT_EQ(1u, r.values.device_count);
    EXPECT_EQ("default", r.values.domain);
    EXPECT_EQ(0x7fu, r.values.limits.device_caps);
    EXPECT_EQ("/tmp/softefa-" + std::to_string(geteuid()) + "-default", r.values.registry_dir);
}

TEST(settings, parse_values_in_range_are_taken)
{
    const auto r = parse({"SOFTEFA_DEVICES=32", "SOFTEFA_DOMAIN=job-1.a_B", "SOFTEFA_SEED=0xffffffffffffffff",
                          "SOFTEFA_REORDER=100", "SOFTEFA_RNR_TIMER=1000000", "SOFTEFA_LOG_LEVEL=debug",
                          "SOFTEFA_MAX_QP=2", "SOFTEFA_REGISTRY_DIR=/tmp/x"});
    ASSERT_TRUE(r.ok) << r.error;
    EXPECT_EQ(32u, r.values.device_count);
    EXPECT_EQ("job-1.a_B", r.values.domain);
    EXPECT_EQ(UINT64_MAX, r.values.seed);
    EXPECT_EQ(65536u, r.values.reorder_per_65536);
    EXPECT_EQ(1000000u, r.values.rnr_timer_us);
    EXPECT_EQ(4u, r.values.log_level);
    EXPECT_EQ(2u, r.values.limits.max_qp);
    EXPECT_EQ("/tmp/x", r.values.registry_dir);
}

TEST(settings, parse_takes_times_and_rates_with_their_unit_only)
{
    const auto r = parse({"SOFTEFA_LATENCY=15us", "SOFTEFA_BANDWIDTH=100g", "SOFTEFA_DELAY=1.5ms", "SOFTEFA_DELAY_MIN=20ns",
                          "SOFTEFA_UNRESPONSIVE_TIMEOUT=2s", "SOFTEFA_FAIL_STATUS=13", "SOFTEFA_FAIL_AT=7"});
    ASSERT_TRUE(r.ok) << r.error;
    EXPECT_EQ(15'000u, r.values.latency_ns);
    EXPECT_EQ(100'000'000'000u, r.values.bandwidth_bps);
    EXPECT_EQ(1'500'000u, r.values.rude.delay_ns_max);
    EXPECT_EQ(20u, r.values.rude.delay_ns_min);
    EXPECT_EQ(2'000'000'000u, r.values.unresponsive_ns);
    EXPECT_EQ(13u, r.values.rude.fail_status);
    EXPECT_EQ(7u, r.values.rude.fail_at);
    EXPECT_EQ(0u, parse({"SOFTEFA_LATENCY=0"}).values.latency_ns);
    for (const char *wrong : {"SOFTEFA_LATENCY=15", "SOFTEFA_LATENCY=us", "SOFTEFA_LATENCY=2s", "SOFTEFA_LATENCY=-1us", "SOFTEFA_LATENCY=1 us",
                              "SOFTEFA_LATENCY=1.us.", "SOFTEFA_BANDWIDTH=100", "SOFTEFA_BANDWIDTH=11t", "SOFTEFA_DELAY=99999999999999999999s",
                              "SOFTEFA_UNRESPONSIVE_TIMEOUT=1ms", "SOFTEFA_FAIL_AT=1", "SOFTEFA_FAIL_STATUS=19", "SOFTEFA_DELAY_MIN=1us",
                              "SOFTEFA_FAIL_STATUS=13", "SOFTEFA_MAX_CQE=100", "SOFTEFA_MAX_SQ_WR=50", "SOFTEFA_MAX_RQ_WR=60"}) {
        const auto refused = parse({wrong});
        EXPECT_FALSE(refused.ok) << wrong;
        EXPECT_NE(std::string::npos, refused.error.find(std::string(wrong, strcspn(wrong, "=")))) << refused.error;
    }
}

TEST(settings, parse_percent_takes_fractions)
{
    EXPECT_EQ(0u, parse({"SOFTEFA_REORDER=0"}).values.reorder_per_65536);
    EXPECT_EQ(1638u, parse({"SOFTEFA_REORDER=2.5"}).values.reorder_per_65536);
    EXPECT_EQ(32768u, parse({"SOFTEFA_REORDER=50%"}).values.reorder_per_65536);
    EXPECT_EQ(7u, parse({"SOFTEFA_REORDER=0.01"}).values.reorder_per_65536);
}

TEST(settings, parse_bad_value_names_variable_value_and_range)
{
    const struct {
        const char *text;
        const char *range;
    } cases[] = {
        {"SOFTEFA_DEVICES=0", "1..32"},
        {"SOFTEFA_DEVICES=33", "1..32"},
        {"SOFTEFA_DEVICES=", "1..32"},
        {"SOFTEFA_DEVICES=-1", "1..32"},
        {"SOFTEFA_DEVICES= 2", "1..32"},
        {"SOFTEFA_DEVICES=2x", "1..32"},
        {"SOFTEFA_SEED=18446744073709551616", "0..18446744073709551615"},
        {"SOFTEFA_PROFILE=efa9", "efa0, efa1, efa2 or efa3"},
        {"SOFTEFA_REORDER=100.001", "0..100"},
        {"SOFTEFA_REORDER=.", "0..100"},
        {"SOFTEFA_REORDER=1e1", "0..100"},
        {"SOFTEFA_DOMAIN=", "1 to 32 of"},
        {"SOFTEFA_DOMAIN=a/b", "1 to 32 of"},
        {"SOFTEFA_DOMAIN=123456789012345678901234567890123", "1 to 32 of"},
        {"SOFTEFA_REGISTRY_DIR=relative", "an absolute path"},
        {"SOFTEFA_LOG_LEVEL=5", "none, error, warn, info, debug"},
        {"SOFTEFA_MTU=100", "256..9216"},
        {"SOFTEFA_MAX_QP=4097", "1..4096"},
        {"SOFTEFA_VENDOR_PART_ID=0xefb0", "0xefa0..0xefa4"},
        {"SOFTEFA_DEVICE_CAPS=0x80", "0..0x7f"},
    };
    for (const auto &c : cases) {
        const auto r = parse({c.text});
        EXPECT_FALSE(r.ok) << c.text;
        EXPECT_EQ(0u, r.error.find(c.text)) << r.error;
        EXPECT_NE(std::string::npos, r.error.find(c.range)) << r.error;
        EXPECT_EQ(std::string::npos, r.error.find('\n')) << r.error;
    }
}

TEST(settings, parse_unknown_name_is_refused_by_name)
{
    const auto r = parse({"SOFTEFA_DEVICE=1"});
    EXPECT_FALSE(r.ok);
    EXPECT_EQ(0u, r.error.find("SOFTEFA_DEVICE=1: unknown variable")) << r.error;
    EXPECT_NE(std::string::npos, r.error.find("SOFTEFA_DEVICES")) << r.error;
}

TEST(settings, parse_profile_sets_limits_that_a_variable_overrides_in_any_order)
{
    EXPECT_EQ(0xefa0u, parse({"SOFTEFA_PROFILE=efa0"}).values.limits.vendor_part_id);
    EXPECT_EQ(0u, parse({"SOFTEFA_PROFILE=efa0"}).values.limits.max_rdma_size);
    EXPECT_EQ(0x05u, parse({"SOFTEFA_PROFILE=efa1"}).values.limits.device_caps);
    EXPECT_EQ(80u, parse({"SOFTEFA_PROFILE=efa3"}).values.limits.inline_size_ex);
    EXPECT_EQ(0xefa2u, parse({"SOFTEFA_PROFILE=efa3"}).values.limits.vendor_part_id) << "visible to every rdma-core";
    EXPECT_EQ(0x01u, parse({"SOFTEFA_DEVICE_CAPS=1", "SOFTEFA_PROFILE=efa1"}).values.limits.device_caps);
    EXPECT_EQ(0x01u, parse({"SOFTEFA_PROFILE=efa1", "SOFTEFA_DEVICE_CAPS=1"}).values.limits.device_caps);
}

TEST(settings, parse_contradicting_limits_are_refused)
{
    EXPECT_FALSE(parse({"SOFTEFA_MAX_RDMA_SIZE=0"}).ok);
    EXPECT_FALSE(parse({"SOFTEFA_PROFILE=efa0", "SOFTEFA_DEVICE_CAPS=1"}).ok);
    EXPECT_TRUE(parse({"SOFTEFA_MAX_RDMA_SIZE=0", "SOFTEFA_DEVICE_CAPS=4"}).ok);
}

TEST(settings, signature_tells_devices_apart_but_not_private_choices)
{
    const auto signature = [](std::vector<const char *> environment) {
        char text[4096];
        settings_signature(parse(std::move(environment)).values, text, sizeof(text));
        return std::string(text);
    };
    const std::string plain = signature({});
    EXPECT_EQ(plain, signature({"SOFTEFA_SEED=7", "SOFTEFA_REORDER=0", "SOFTEFA_LOG_LEVEL=4", "SOFTEFA_RNR_TIMER=5"}));
    EXPECT_NE(plain, signature({"SOFTEFA_DEVICES=2"}));
    EXPECT_EQ(0u, signature({"SOFTEFA_PROFILE=efa1"}).find("SOFTEFA_PROFILE=efa1\n"));
    EXPECT_NE(plain, signature({"SOFTEFA_PROFILE=efa3"}));
    EXPECT_NE(plain, signature({"SOFTEFA_MAX_AH=7"}));
}

TEST(settings, signatures_differ_by_a_line_or_by_a_version)
{
    char text[4096];
    settings_signature(settings(), text, sizeof(text));
    const std::string    ours = text, language = ours.substr(ours.rfind('\n', ours.size() - 2) + 1);
    signature_difference line;
    const auto           by_a_line = [&](const std::string &theirs) { return settings_signature_difference(theirs.c_str(), ours.c_str(), &line); };
    std::string          theirs = ours;
    theirs.replace(theirs.find("DEVICES=1"), 9, "DEVICES=12");
    ASSERT_TRUE(by_a_line(theirs));
    EXPECT_EQ("SOFTEFA_DEVICES=12", std::string(line.theirs, line.theirs_size));
    EXPECT_EQ("SOFTEFA_DEVICES=1", std::string(line.ours, line.ours_size));

    ASSERT_EQ(0u, language.find("protocol="));
    const std::string without = ours.substr(0, ours.size() - language.size());
    for (const std::string &other : {without, without + "protocol=0\n", ours + "more\n", "SOFTEFA_UNHEARD_OF=1\n" + ours, std::string()}) {
        EXPECT_FALSE(by_a_line(other)) << other;
    }
}

TEST(settings, help_has_a_line_for_every_shared_variable)
{
    char              text[8192];
    const std::size_t length = settings_help(text, sizeof(text));
    ASSERT_LT(length, sizeof(text));
    char signature[4096];
    settings_signature(settings(), signature, sizeof(signature));
    const std::string help = text;
    std::size_t       names = 0;
    for (const char *p = signature; (p = strstr(p, "SOFTEFA_")) != nullptr; ++names) {
        const std::string name(p, strcspn(p, "="));
        EXPECT_NE(std::string::npos, help.find(name + " (default ")) << name;
        p += name.size();
    }
    EXPECT_GT(names, 15u);
}

} // namespace
} // namespace softefa
