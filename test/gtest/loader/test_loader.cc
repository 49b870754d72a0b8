// The loader against the UCX that is installed: it adds srd and loses nothing, however UCX enters the process.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

namespace {

using names = std::set<std::string>;

/// Runs a probe and gives the modules that it saw, without version suffixes.
names modules(const std::string &probe, const std::string &library, bool with_loader, const std::string &module_dir = MODULE_DIR)
{
    std::string command = "env -u LD_PRELOAD -u UCX_MODULE_DIR ASAN_OPTIONS=detect_leaks=0 ";
    if (with_loader) {
        std::string preload = LOADER;
        std::ifstream maps("/proc/self/maps");
        for (std::string line; std::getline(maps, line);) { // a sanitizer's runtime must come first
            const auto at = line.find("/libasan.so");
            if (at != std::string::npos) {
                preload = line.substr(line.find('/')) + ":" + preload;
                break;
            }
        }
        command += "LD_PRELOAD=" + preload + " UCX_MODULE_DIR=" + module_dir + " ";
    }
    command += probe + " " + library;
    FILE *pipe = popen(command.c_str(), "r");
    EXPECT_NE(nullptr, pipe);
    names result;
    char line[256];
    while (fgets(line, sizeof(line), pipe) != nullptr) {
        result.insert(std::string(line, strcspn(line, ".")));
    }
    EXPECT_EQ(0, pclose(pipe)) << command;
    return result;
}

void expect_srd_added(const std::string &probe, const std::string &library)
{
    const names without = modules(probe, library, false);
    names       with    = modules(probe, library, true);
    EXPECT_LE(2u, without.size()); // Debian's UCX has ib, rdmacm and cma
    EXPECT_EQ(0u, without.count("libuct_srd"));
    EXPECT_EQ(1u, with.erase("libuct_srd"));
    EXPECT_EQ(without, with);
}

} // namespace

TEST(loader, adds_srd_when_the_program_is_linked_with_ucx)
{
    expect_srd_added(PROBE_LINKED, "linked");
}

TEST(loader, adds_srd_when_libuct_enters_with_rtld_local)
{
    expect_srd_added(PROBE, "libuct.so.0");
}

TEST(loader, adds_srd_when_libucp_enters_with_rtld_local)
{
    expect_srd_added(PROBE, "libucp.so.0");
}

TEST(loader, loses_nothing_when_the_transport_is_not_where_it_is_said)
{
    EXPECT_EQ(modules(PROBE, "libuct.so.0", false), modules(PROBE, "libuct.so.0", true, "/does/not/exist"));
}

TEST(loader, loses_nothing_when_the_transport_is_no_library)
{
    char folder[] = "/tmp/test_loader.XXXXXX";
    ASSERT_NE(nullptr, mkdtemp(folder));
    const std::string file = std::string(folder) + "/libuct_srd.so.0";
    std::ofstream(file) << "this is no ELF file";
    EXPECT_EQ(modules(PROBE, "libuct.so.0", false), modules(PROBE, "libuct.so.0", true, folder));
    unlink(file.c_str());
    rmdir(folder);
}
