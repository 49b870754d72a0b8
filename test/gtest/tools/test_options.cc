// The command line of ucx-srd: what is accepted, and that every refusal names the argument.
#include "tools/options.h"

#include <gtest/gtest.h>

using namespace tools;

namespace {

options accept(const std::vector<std::string> &arguments)
{
    options     parsed;
    std::string error;
    EXPECT_TRUE(options_parse(arguments, &parsed, &error)) << error;
    return parsed;
}

std::string refuse(const std::vector<std::string> &arguments)
{
    options     parsed;
    std::string error;
    EXPECT_FALSE(options_parse(arguments, &parsed, &error));
    EXPECT_EQ(std::string::npos, error.find('\n'));
    return error;
}

} // namespace

TEST(tools_options, run_takes_options_before_the_command_only)
{
    const options parsed = accept({"run", "--soft", "--require", "ls", "--soft=9", "-l"});
    EXPECT_EQ(verb::run, parsed.verb);
    EXPECT_TRUE(parsed.soft);
    EXPECT_TRUE(parsed.require);
    EXPECT_TRUE(parsed.check);
    EXPECT_EQ(0u, parsed.device_count);
    EXPECT_EQ((std::vector<std::string>{"ls", "--soft=9", "-l"}), parsed.command);
}

TEST(tools_options, double_dash_ends_the_options)
{
    const options parsed = accept({"run", "--no-check", "--", "--odd", "--"});
    EXPECT_FALSE(parsed.check);
    EXPECT_EQ((std::vector<std::string>{"--odd", "--"}), parsed.command);
}

TEST(tools_options, soft_takes_one_to_thirty_two_devices)
{
    EXPECT_EQ(1u, accept({"run", "--soft=1", "x"}).device_count);
    EXPECT_EQ(32u, accept({"info", "--soft=32"}).device_count);
    for (const char *bad : {"--soft=", "--soft=0", "--soft=33", "--soft=-1", "--soft=1x", "--soft= 1", "--soft=100000000000"}) {
        EXPECT_NE(std::string::npos, refuse({"run", bad, "x"}).find(bad));
    }
}

TEST(tools_options, print_env_needs_no_command)
{
    EXPECT_EQ(print_env::plain, accept({"run", "--print-env"}).print_env);
    EXPECT_EQ(print_env::shell, accept({"run", "--soft", "--print-env=sh"}).print_env);
    EXPECT_NE(std::string::npos, refuse({"run", "--print-env=csh"}).find("--print-env=csh"));
}

TEST(tools_options, help_and_version_are_found_everywhere_before_the_command)
{
    EXPECT_EQ(verb::help, accept({"--help"}).verb);
    EXPECT_EQ(verb::help, accept({"-h"}).verb);
    EXPECT_EQ(verb::help, accept({"run", "--help"}).verb);
    EXPECT_EQ(verb::help, accept({"info", "-h"}).verb);
    EXPECT_EQ(verb::version, accept({"--version"}).verb);
    EXPECT_EQ(verb::run, accept({"run", "ls", "--help"}).verb);
    EXPECT_NE(std::string::npos, std::string(options_help()).find("usage:"));
}

TEST(tools_options, malformed_lines_are_refused_by_name)
{
    EXPECT_NE("", refuse({}));
    EXPECT_NE("", refuse({"run"}));
    EXPECT_NE("", refuse({"run", "--"}));
    EXPECT_NE("", refuse({"run", ""}));
    EXPECT_NE(std::string::npos, refuse({"walk", "ls"}).find("walk"));
    EXPECT_NE(std::string::npos, refuse({"run", "--sofd", "ls"}).find("--sofd"));
    EXPECT_NE(std::string::npos, refuse({"info", "--require"}).find("--require"));
    EXPECT_NE(std::string::npos, refuse({"info", "ls"}).find("ls"));
}
