// Which programs cannot have a library preloaded: told from their files, whatever is in them.
#include "tools/program_check.h"

#include "base/rng.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace tools {
namespace {

namespace fs = std::filesystem;

TEST(program_check, programs_that_cannot_be_preloaded_are_told)
{
    EXPECT_EQ("", preload_obstacle(find_program("ls", getenv("PATH"))));
    EXPECT_EQ("", find_program("no-such-program-at-all", getenv("PATH")));
    EXPECT_EQ("", preload_obstacle("/no/such/file"));
    if (access("/sbin/ldconfig", R_OK) == 0) { // static in glibc's own packages
        EXPECT_NE(std::string::npos, preload_obstacle("/sbin/ldconfig").find("statically linked"));
    }
}

TEST(program_check, file_capabilities_are_told_to_whom_they_raise)
{
    const std::string file = testing::TempDir() + "/capable." + std::to_string(getpid());
    fs::copy_file(find_program("ls", getenv("PATH")), file, fs::copy_options::overwrite_existing);
    const std::uint32_t net_raw[5] = {0x02000001, 1u << 13, 0, 0, 0}; // revision 2, effective; permitted, inheritable
    if (setxattr(file.c_str(), "security.capability", net_raw, sizeof(net_raw), 0) != 0) {
        fs::remove(file);
        GTEST_SKIP() << "cannot give a file capabilities: " << strerror(errno);
    }
    EXPECT_EQ("", preload_obstacle(file)) << "root gains nothing by them";
    ASSERT_EQ(0, seteuid(65534));
    const std::string obstacle = preload_obstacle(file);
    ASSERT_EQ(0, seteuid(0));
    EXPECT_NE(std::string::npos, obstacle.find("file capabilities")) << obstacle;
    fs::remove(file);
}

TEST(program_check, random_bytes_behind_an_elf_magic_are_read_within_the_file)
{
    const std::string file = testing::TempDir() + "/spoilt." + std::to_string(getpid());
    base::rng         random(5);
    for (int round = 0; round < 300; ++round) {
        std::string bytes("\177ELF\2\1\1\0", 8);
        for (int i = 0; i < 200; ++i) {
            bytes += static_cast<char>(random.next());
        }
        std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes.substr(0, 8 + random.next() % 200);
        (void)preload_obstacle(file); // must return
    }
    fs::remove(file);
}

} // namespace
} // namespace tools
