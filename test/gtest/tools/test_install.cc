// Where an installation finds its own files, and the reading of ELF files that may be anything.
#include "tools/install.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <unistd.h>

using namespace tools;

namespace {

/// A file that lives as long as the test.
class scratch_file {
public:
    explicit scratch_file(const std::string &bytes)
    {
        const int fd = mkstemp(name_);
        EXPECT_LE(0, fd);
        EXPECT_EQ(static_cast<ssize_t>(bytes.size()), write(fd, bytes.data(), bytes.size()));
        close(fd);
    }
    ~scratch_file() { unlink(name_); }
    const char *name() const { return name_; }

private:
    char name_[32] = "/tmp/test_install.XXXXXX";
};

std::string read_all(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

} // namespace

TEST(tools_install, paths_follow_the_program)
{
    const install_paths paths = install_paths_of("/somewhere/else/bin/ucx-srd", "../lib/x");
    EXPECT_EQ("/somewhere/else/bin/../lib/x/libucx_srd_loader.so", paths.loader); // unresolved: it does not exist
    EXPECT_EQ("/somewhere/else/bin/../lib/x/ucx/libuct_srd.so.0", paths.transport);
    EXPECT_EQ("/usr/lib/libucx_srd_loader.so", install_paths_of("/usr/bin/ucx-srd", "../lib").loader);
    EXPECT_EQ("/usr/lib/libucx_srd_loader.so", install_paths_of("/opt/ucx-srd", "/usr/lib").loader);
}

TEST(tools_install, paths_with_separators_of_ld_preload_are_recognised)
{
    EXPECT_TRUE(preloadable("/opt/ucx-srd_1.0+x/lib/a.so"));
    EXPECT_FALSE(preloadable("/opt/my folder/a.so"));
    EXPECT_FALSE(preloadable("/opt/a:b/a.so"));
}

TEST(tools_install, needed_of_this_program_has_libc)
{
    const auto needed = elf_needed("/proc/self/exe");
    EXPECT_NE(needed.end(), std::find(needed.begin(), needed.end(), "libc.so.6"));
}

TEST(tools_install, sanitizer_runtime_is_found_exactly_when_this_program_has_one)
{
    const std::string runtime = sanitizer_runtime_of("/proc/self/exe");
#if defined(__SANITIZE_ADDRESS__)
    EXPECT_EQ(0u, runtime.rfind("libasan.so", 0)) << runtime;
#elif defined(__SANITIZE_THREAD__)
    EXPECT_EQ(0u, runtime.rfind("libtsan.so", 0)) << runtime;
#else
    EXPECT_EQ("", runtime);
#endif
}

TEST(tools_install, needed_of_anything_else_is_empty)
{
    EXPECT_TRUE(elf_needed("/does/not/exist").empty());
    EXPECT_TRUE(elf_needed("/tmp").empty());
    EXPECT_TRUE(elf_needed(scratch_file("").name()).empty());
    EXPECT_TRUE(elf_needed(scratch_file("#!/bin/sh\n").name()).empty());
    EXPECT_TRUE(elf_needed(scratch_file("\x7f" "ELF").name()).empty());
}

TEST(tools_install, needed_of_a_damaged_file_stays_inside_the_file)
{
    const std::string whole = read_all("/usr/bin/env");
    ASSERT_LT(4096u, whole.size());
    for (size_t size = 0; size < 2000; size += 7) {
        elf_needed(scratch_file(whole.substr(0, size)).name());
    }
    // Every byte of the headers set to all ones, one at a time: offsets and counts that point far away.
    size_t named = 0;
    for (size_t at = 0; at < 900; at += 3) {
        std::string damaged = whole;
        damaged.replace(at, 3, "\xff\xff\xff");
        named += elf_needed(scratch_file(damaged).name()).size();
    }
    EXPECT_LT(0u, named); // most damage is elsewhere and the names are still found
}
