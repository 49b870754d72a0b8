// Checks before the command, and the count that --require reads.
#include "tools/probe.h"
#include "tools/program_check.h"
#include "tools/run.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <unistd.h>

using namespace tools;

namespace {

class folder {
public:
    folder() { EXPECT_NE(nullptr, mkdtemp(name_)); }
    ~folder()
    {
        for (const std::string &file : files_) {
            unlink(file.c_str());
        }
        rmdir(name_);
    }
    void write(const std::string &name, const std::string &text)
    {
        files_.push_back(std::string(name_) + "/" + name);
        std::ofstream(files_.back()) << text;
    }
    std::string name() const { return name_; }

private:
    char name_[32] = "/tmp/test_run.XXXXXX";
    std::vector<std::string> files_;
};

} // namespace

TEST(tools_run, require_bytes_adds_what_all_processes_left)
{
    folder folder;
    EXPECT_EQ(0u, require_bytes(folder.name()));
    folder.write("100", "bytes 10\nbytes 5\n");
    folder.write("101", "bytes 18446744073709551000\n");
    EXPECT_EQ(18446744073709551015ull, require_bytes(folder.name()));
}

TEST(tools_run, require_bytes_skips_what_it_does_not_know)
{
    folder folder;
    folder.write("100", "nonsense\nbytes\nbytes x\n\nbytes 7\n");
    folder.write(".hidden", "bytes 100\n");
    EXPECT_EQ(7u, require_bytes(folder.name()));
    EXPECT_EQ(0u, require_bytes("/does/not/exist"));
}

TEST(tools_run, checks_name_the_missing_file)
{
    options     options;
    std::string error;
    options.verb = verb::run;
    EXPECT_FALSE(run_checks(options, install_paths_of("/nowhere/bin/ucx-srd", "../lib"), &error));
    EXPECT_NE(std::string::npos, error.find("libucx_srd_loader.so")) << error;
    EXPECT_FALSE(run_checks(options, install_paths_of("/no where/bin/ucx-srd", "../lib"), &error));
    EXPECT_NE(std::string::npos, error.find("space")) << error;
}

/// It would run without the transport and without the device, and succeed.
TEST(tools_run, command_that_takes_no_libraries_is_refused)
{
    if (access("/sbin/ldconfig", R_OK) != 0) { // static in glibc's own packages
        GTEST_SKIP() << "no static program here";
    }
    options           options;
    install_paths     paths;
    const std::string there = find_program("ls", getenv("PATH")); // any file will do
    std::string       error;
    paths.loader = paths.transport = paths.soft_efa = there;
    options.verb    = verb::run;
    options.command = {"/sbin/ldconfig", "-p"};
    EXPECT_FALSE(run_checks(options, paths, &error));
    EXPECT_NE(std::string::npos, error.find("/sbin/ldconfig is statically linked")) << error;
    options.check = false;
    EXPECT_TRUE(run_checks(options, paths, &error)) << error;
}

TEST(tools_run, ucx_supported_compares_the_minor_version)
{
    const std::string built_for = ucx_built_for();
    if (built_for.empty()) {
        GTEST_SKIP() << "built without the transport";
    }
    EXPECT_TRUE(ucx_supported(built_for));
    EXPECT_TRUE(ucx_supported(built_for.substr(0, built_for.rfind('.')) + ".99"));
    EXPECT_FALSE(ucx_supported("1.99.0"));
    EXPECT_FALSE(ucx_supported("2.13.1"));
    EXPECT_FALSE(ucx_supported(""));
}

TEST(tools_run, ask_child_answers_or_says_how_it_ended)
{
    std::string text;
    EXPECT_TRUE(ask_child([] { return std::string(100000, 'x'); }, &text));
    EXPECT_EQ(std::string(100000, 'x'), text);

    EXPECT_FALSE(ask_child([]() -> std::string { signal(SIGKILL, SIG_DFL); kill(getpid(), SIGKILL); return ""; }, &text));
    EXPECT_NE(std::string::npos, text.find("Killed")) << text;
}

TEST(tools_run, soft_efa_of_another_kind_is_refused_by_name)
{
    install_paths paths;
    std::string   error;
    paths.soft_efa = "/does/not/exist.so";
    EXPECT_FALSE(soft_efa_settings_ok(paths, &error));
    EXPECT_NE(std::string::npos, error.find("/does/not/exist.so")) << error;
    paths.soft_efa = "libc.so.6";
    EXPECT_FALSE(soft_efa_settings_ok(paths, &error));
    EXPECT_NE(std::string::npos, error.find("softefa_settings_check")) << error;
}
