// The environment that ucx-srd gives to a command. ENV-1, ENV-2 of launch_env.h.
#include "tools/launch_env.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

using namespace tools;

namespace {

const install_paths paths = install_paths_of("/opt/x/bin/ucx-srd", "../lib");

options run_options(bool soft, std::vector<std::string> command = {"app"})
{
    options result;
    result.verb    = verb::run;
    result.soft    = soft;
    result.command = std::move(command);
    return result;
}

environment environment_with(const options &options, environment current)
{
    changes     result;
    std::string error;
    EXPECT_TRUE(launch_env(options, paths, current, &result, &error)) << error;
    for (const auto &[name, value] : result) {
        EXPECT_TRUE(name == "LD_PRELOAD" || current.find(name) == current.end()) << name; // ENV-1
        current[name] = value;
    }
    return current;
}

} // namespace

TEST(launch_env, soft_preloads_the_loader_and_the_device)
{
    const environment result = environment_with(run_options(true), {});
    EXPECT_EQ(paths.loader + ":" + paths.soft_efa, result.at("LD_PRELOAD"));
    EXPECT_EQ(paths.module_dir, result.at("UCX_MODULE_DIR"));
    EXPECT_EQ("ucx", result.at("OMPI_MCA_pml"));
    EXPECT_EQ("any", result.at("OMPI_MCA_pml_ucx_tls"));
    EXPECT_EQ("any", result.at("OMPI_MCA_pml_ucx_devices"));
    EXPECT_EQ(5u, result.size()); // nothing else: above all no UCX_TLS
}

TEST(launch_env, hardware_preloads_the_loader_only)
{
    EXPECT_EQ(paths.loader, environment_with(run_options(false), {}).at("LD_PRELOAD"));
}

TEST(launch_env, words_of_the_user_are_kept)
{
    EXPECT_EQ("/a.so:/b.so:" + paths.loader, environment_with(run_options(false), {{"LD_PRELOAD", "/a.so  /b.so:"}}).at("LD_PRELOAD"));
    const environment mine = {{"OMPI_MCA_pml", "ob1"}, {"OMPI_MCA_pml_ucx_tls", "rc"}, {"UCX_TLS", "tcp"}};
    const environment result = environment_with(run_options(true), mine);
    for (const auto &[name, value] : mine) {
        EXPECT_EQ(value, result.at(name));
    }
}

TEST(launch_env, applying_twice_changes_nothing)
{
    options options      = run_options(true);
    options.device_count = 3;
    const environment once = environment_with(options, {{"LD_PRELOAD", "/a.so"}, {"HOME", "/h"}});
    // The module folder of this test does not exist, which the second round would refuse.
    environment without = once;
    without.erase("UCX_MODULE_DIR");
    EXPECT_EQ(once, environment_with(options, without));
}

TEST(launch_env, openshmem_gets_the_setting_without_which_it_crashes)
{
    const char *name = "OMPI_MCA_opal_common_ucx_opal_mem_hooks";
    EXPECT_EQ("0", environment_with(run_options(true, {"/usr/bin/oshrun", "-np", "2"}), {}).at(name));
    EXPECT_EQ("0", environment_with(run_options(true, {"shmemrun"}), {}).at(name));
    EXPECT_EQ(0u, environment_with(run_options(true, {"mpirun"}), {}).count(name));
    EXPECT_EQ("1", environment_with(run_options(true, {"oshrun"}), {{name, "1"}}).at(name));
}

TEST(launch_env, device_count_agrees_with_the_users_or_is_refused)
{
    options options      = run_options(true);
    options.device_count = 3;
    EXPECT_EQ("3", environment_with(options, {}).at("SOFTEFA_DEVICES"));
    EXPECT_EQ("3", environment_with(options, {{"SOFTEFA_DEVICES", "3"}}).at("SOFTEFA_DEVICES"));

    changes     result;
    std::string error;
    EXPECT_FALSE(launch_env(options, paths, {{"SOFTEFA_DEVICES", "2"}}, &result, &error));
    EXPECT_NE(std::string::npos, error.find("SOFTEFA_DEVICES=2")) << error;
}

TEST(launch_env, module_dir_without_the_transport_is_refused)
{
    char folder[] = "/tmp/test_launch_env.XXXXXX";
    ASSERT_NE(nullptr, mkdtemp(folder));
    changes     result;
    std::string error;
    EXPECT_FALSE(launch_env(run_options(true), paths, {{"UCX_MODULE_DIR", folder}}, &result, &error));
    EXPECT_NE(std::string::npos, error.find(folder)) << error;

    const std::string module = std::string(folder) + "/libuct_srd.so.0";
    std::ofstream(module) << "x";
    EXPECT_TRUE(launch_env(run_options(true), paths, {{"UCX_MODULE_DIR", folder}}, &result, &error)) << error;
    unlink(module.c_str());
    rmdir(folder);
}

TEST(launch_env, text_is_plain_or_safe_for_eval)
{
    const changes list = {{"A", "1 2"}, {"B", "it's"}};
    EXPECT_EQ("A=1 2\nB=it's\n", changes_text(list, print_env::plain));
    EXPECT_EQ("export A='1 2'\nexport B='it'\\''s'\n", changes_text(list, print_env::shell));
}

TEST(launch_env, environment_is_split_at_the_first_equals_sign)
{
    const char *const variables[] = {"A=b=c", "EMPTY=", "nonsense", nullptr};
    const environment result = environment_of(variables);
    EXPECT_EQ((environment{{"A", "b=c"}, {"EMPTY", ""}}), result);
}
