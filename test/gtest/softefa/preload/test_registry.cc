// The domain's folder: private or not used; the first process chooses; a damaged tree is replaced.
#include "softefa/preload/registry.h"
#include "softefa/preload/sysfs_counters.h"
#include "softefa/preload/sysfs_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <string>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

namespace softefa::preload {
namespace {

struct registry : ::testing::Test {
    std::string parent;
    settings    values;
    char        error[1024] = "";

    void SetUp() override
    {
        char name[] = "/tmp/softefa-test-XXXXXX";
        ASSERT_NE(nullptr, mkdtemp(name));
        parent              = name;
        values.registry_dir = parent + "/domain-folder";
    }
    void TearDown() override { remove_tree(AT_FDCWD, parent.c_str()); }

    bool enter(const settings &s, int *fd_p) { return registry_enter(s, fd_p, error, sizeof(error)); }
    std::string tree() const
    {
        char          target[128];
        const ssize_t length = readlink((values.registry_dir + "/softefa-sysfs").c_str(), target, sizeof(target));
        return length > 0 ? std::string(target, static_cast<std::size_t>(length)) : "";
    }
    timespec device_time() const
    {
        struct stat st{};
        EXPECT_EQ(0, stat((values.registry_dir + "/softefa-sysfs/class/infiniband/efa_0").c_str(), &st));
        return st.st_mtim;
    }
};

TEST_F(registry, enter_builds_a_private_tree)
{
    int fd = -1;
    ASSERT_TRUE(enter(values, &fd)) << error;
    struct stat st;
    ASSERT_EQ(0, stat(values.registry_dir.c_str(), &st));
    EXPECT_EQ(0700u, st.st_mode & 0777);
    const std::string root = values.registry_dir + "/softefa-sysfs/";
    for (const char *path : {"class/infiniband_verbs/abi_version", "class/infiniband_verbs/uverbs0/ibdev",
                             "class/infiniband/efa_0/device/modalias", "class/infiniband/efa_0/ports/1/pkeys/0",
                             "class/infiniband/efa_0/ports/1/hw_counters/rx_drops"}) {
        EXPECT_EQ(0, access((root + path).c_str(), R_OK)) << path;
    }
    char *driver = realpath((root + "class/infiniband/efa_0/device/driver").c_str(), nullptr);
    ASSERT_NE(nullptr, driver);
    EXPECT_STREQ("/efa", strrchr(driver, '/'));
    free(driver);
    close(fd);
}

TEST_F(registry, enter_whatever_the_umask)
{
    for (const mode_t mask : {0177, 0377, 0777}) {
        const mode_t before = umask(mask);
        int          fd = -1, second = -1;
        const bool   entered = enter(values, &fd);
        umask(before);
        ASSERT_TRUE(entered) << error;
        EXPECT_TRUE(enter(values, &second)) << error << ": by a process with another umask";
        struct stat st;
        ASSERT_EQ(0, stat(values.registry_dir.c_str(), &st));
        EXPECT_EQ(0700u, st.st_mode & 0777);
        for (const char *path : {"softefa-sysfs/class", "softefa-sysfs/devices/pci0000:00"}) {
            ASSERT_EQ(0, stat((values.registry_dir + "/" + path).c_str(), &st)) << path;
            EXPECT_EQ(0755u, st.st_mode & 0777) << path;
        }
        ASSERT_EQ(0, stat((values.registry_dir + "/softefa-sysfs/class/infiniband_verbs/abi_version").c_str(), &st));
        EXPECT_EQ(0444u, st.st_mode & 0777);
        ASSERT_EQ(0, stat((values.registry_dir + "/domain").c_str(), &st));
        EXPECT_EQ(0600u, st.st_mode & 0777);
        close(fd);
        close(second);
        remove_tree(AT_FDCWD, values.registry_dir.c_str());
    }
}

TEST_F(registry, enter_a_folder_that_an_umask_made_unusable)
{
    ASSERT_EQ(0, mkdir(values.registry_dir.c_str(), 0600));
    int fd = -1;
    EXPECT_TRUE(enter(values, &fd)) << error;
    close(fd);
}

TEST_F(registry, enter_under_a_file_size_limit_is_refused_and_ends_nobody)
{
    fflush(stdout); // ThreadSanitizer flushes what is left at the end of the child, and into a file that is a signal as well
    const pid_t child = fork();
    if (child == 0) {
        const rlimit none{0, 0};
        int          fd = -1;
        setrlimit(RLIMIT_FSIZE, &none);
        _exit(enter(values, &fd) ? 1 : strstr(error, strerror(EFBIG)) == nullptr ? 2 : 0);
    }
    int status = -1;
    ASSERT_EQ(child, waitpid(child, &status, 0));
    EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
    EXPECT_EQ(0, WEXITSTATUS(status));
}

TEST_F(registry, enter_tree_says_what_the_kernel_says)
{
    int fd = -1;
    ASSERT_TRUE(enter(values, &fd)) << error;
    const std::string device = values.registry_dir + "/softefa-sysfs/class/infiniband/efa_0/";
    const auto        text   = [&](const char *name) {
        std::ifstream file(device + name);
        return std::string((std::istreambuf_iterator<char>(file)), {});
    };
    EXPECT_EQ("Unknown\n", text("ports/1/link_layer"));
    // Every processor of this host is in the mask, and none that it does not have.
    std::string mask = text("device/local_cpus");
    ASSERT_FALSE(mask.empty());
    ASSERT_EQ('\n', mask.back());
    mask.pop_back();
    int count = 0;
    for (const char c : mask) {
        count += c == ',' ? 0 : __builtin_popcount(static_cast<unsigned>(std::stoul(std::string(1, c), nullptr, 16)));
    }
    EXPECT_EQ(get_nprocs_conf(), count) << mask;
    EXPECT_EQ((count - 1) / 32, std::count(mask.begin(), mask.end(), ','));
    EXPECT_EQ(count > 1 ? "0-" + std::to_string(count - 1) + "\n" : "0\n", text("device/local_cpulist"));
    close(fd);
}

TEST_F(registry, enter_second_process_with_same_wish_shares_the_tree)
{
    int first = -1, second = -1;
    ASSERT_TRUE(enter(values, &first)) << error;
    const auto before = tree();
    ASSERT_TRUE(enter(values, &second)) << error;
    EXPECT_EQ(before, tree());
    close(first);
    close(second);
}

TEST_F(registry, enter_other_wish_is_refused_in_one_line_until_the_last_member_left)
{
    int first = -1, second = -1;
    ASSERT_TRUE(enter(values, &first)) << error;
    settings other     = values;
    other.device_count = 2;
    EXPECT_FALSE(enter(other, &second));
    EXPECT_NE(nullptr, strstr(error, "SOFTEFA_DEVICES=2 refused")) << error;
    EXPECT_NE(nullptr, strstr(error, "SOFTEFA_DEVICES=1")) << error;
    EXPECT_EQ(nullptr, strchr(error, '\n'));
    close(first);
    EXPECT_TRUE(enter(other, &second)) << error;
    EXPECT_EQ(0, access((values.registry_dir + "/softefa-sysfs/class/infiniband/efa_1").c_str(), R_OK));
    close(second);
}

TEST_F(registry, enter_leaves_a_file_that_only_has_the_name_of_the_lock)
{
    ASSERT_EQ(0, mkdir(values.registry_dir.c_str(), 0700));
    const std::string path = values.registry_dir + "/domain", mine = "a list of mine\n";
    int               fd = -1;
    std::ofstream(path) << mine;
    ASSERT_EQ(0, chmod(path.c_str(), 0600));
    EXPECT_FALSE(enter(values, &fd));
    EXPECT_NE(nullptr, strstr(error, "no file of Soft EFA's")) << error;
    std::string left;
    std::getline(std::ifstream(path), left);
    EXPECT_EQ(mine, left + "\n");
}

/// Two versions in one domain would find each other's queue pairs and never connect.
TEST_F(registry, enter_beside_another_version_is_refused_in_one_line)
{
    int first = -1, second = -1;
    ASSERT_TRUE(enter(values, &first)) << error;
    char          text[2048] = "";
    const int     file       = open((values.registry_dir + "/domain").c_str(), O_RDWR | O_CLOEXEC);
    const ssize_t size       = read(file, text, sizeof(text) - 1);
    ASSERT_GT(size, 0);
    const std::string whole  = text;
    const auto        last   = whole.rfind('\n', whole.size() - 2) + 1;
    ASSERT_EQ(last, whole.find("protocol="));
    const std::string without = whole.substr(0, last); // as it was before there was this line
    for (const std::string &theirs : {without + "protocol=1\n", without, whole + "more\n", "SOFTEFA_UNHEARD_OF=1\n" + whole}) {
        ASSERT_EQ(0, ftruncate(file, 0));
        ASSERT_EQ(static_cast<ssize_t>(theirs.size()), pwrite(file, theirs.data(), theirs.size(), 0));
        EXPECT_FALSE(enter(values, &second)) << theirs;
        EXPECT_NE(nullptr, strstr(error, "another version of Soft EFA")) << error;
        EXPECT_NE(nullptr, strstr(error, values.registry_dir.c_str())) << error;
        EXPECT_EQ(nullptr, strchr(error, '\n')) << error;
    }
    close(file);
    close(first);
    EXPECT_TRUE(enter(values, &second)) << error;
    close(second);
}

TEST_F(registry, enter_damaged_tree_is_replaced_and_the_device_stays_the_same)
{
    int first = -1, second = -1;
    ASSERT_TRUE(enter(values, &first)) << error;
    const auto old_tree = tree();
    const auto old_time = device_time();
    ASSERT_EQ(0, unlink((values.registry_dir + "/softefa-sysfs/class/infiniband_verbs/uverbs0/dev").c_str()));
    ASSERT_TRUE(enter(values, &second)) << error;
    EXPECT_NE(old_tree, tree());
    EXPECT_EQ(old_time.tv_sec, device_time().tv_sec);
    EXPECT_EQ(old_time.tv_nsec, device_time().tv_nsec);
    EXPECT_EQ(0, access((values.registry_dir + "/" + old_tree).c_str(), R_OK)) << "another process may still read it";
    close(first);
    close(second);
    ASSERT_TRUE(enter(values, &first)) << error;
    EXPECT_NE(0, access((values.registry_dir + "/" + old_tree).c_str(), R_OK)) << "nobody can be reading it now";
    close(first);
}

/// A machine that went down may leave any of the first two; half a text is what a full disk leaves.
TEST_F(registry, enter_a_torn_domain_file_is_overwritten_by_the_first_member)
{
    ASSERT_EQ(0, mkdir(values.registry_dir.c_str(), 0700));
    for (const std::string &torn : {std::string(), std::string(700, '\0'), std::string("SOFTEFA_PROFILE=ef")}) {
        int fd = -1;
        std::ofstream(values.registry_dir + "/domain", std::ios::binary | std::ios::trunc) << torn;
        ASSERT_EQ(0, chmod((values.registry_dir + "/domain").c_str(), 0600));
        EXPECT_TRUE(enter(values, &fd)) << error;
        close(fd);
    }
}

TEST_F(registry, enter_folder_that_others_can_enter_or_replace_is_refused)
{
    int fd = -1;
    ASSERT_EQ(0, mkdir(values.registry_dir.c_str(), 0755));
    ASSERT_EQ(0, chmod(values.registry_dir.c_str(), 0755));
    EXPECT_FALSE(enter(values, &fd));
    EXPECT_NE(nullptr, strstr(error, "mode 0700")) << error;
    ASSERT_EQ(0, rmdir(values.registry_dir.c_str()));

    const std::string elsewhere = parent + "/elsewhere";
    ASSERT_EQ(0, mkdir(elsewhere.c_str(), 0700));
    ASSERT_EQ(0, symlink(elsewhere.c_str(), values.registry_dir.c_str()));
    EXPECT_FALSE(enter(values, &fd)) << "a symlink";
    ASSERT_EQ(0, unlink(values.registry_dir.c_str()));

    values.registry_dir = parent + "/no/such/parent";
    EXPECT_FALSE(enter(values, &fd));
    EXPECT_NE(nullptr, strstr(error, "cannot make the folder")) << error;
}

TEST_F(registry, sysfs_tree_checker_sees_any_missing_piece)
{
    const int parent_fd = open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_EQ(0, sysfs_build(parent_fd, "t", values));
    EXPECT_TRUE(sysfs_is_whole(parent_fd, "t", values));
    settings other             = values;
    other.limits.vendor_part_id = 0xefa1;
    EXPECT_FALSE(sysfs_is_whole(parent_fd, "t", other)) << "tree of another device";
    for (const char *path : {"t/class/infiniband/efa_0", "t/devices/pci0000:00/0000:00:06.0/modalias",
                             "t/devices/pci0000:00/0000:00:06.0/infiniband/efa_0/ports/1/hw_counters/tx_bytes"}) {
        ASSERT_EQ(0, unlinkat(parent_fd, path, 0)) << path;
        EXPECT_FALSE(sysfs_is_whole(parent_fd, "t", values)) << path;
        remove_tree(parent_fd, "t");
        ASSERT_EQ(0, sysfs_build(parent_fd, "t", values));
    }
    EXPECT_NE(0, sysfs_build(parent_fd, "t", values)) << "never over an existing tree";
    EXPECT_TRUE(sysfs_is_whole(parent_fd, "t", values));
    close(parent_fd);
}

std::string content(const std::string &path)
{
    char          text[64] = "";
    const int     fd   = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const ssize_t size = read(fd, text, sizeof(text));
    close(fd);
    return std::string(text, size > 0 ? static_cast<std::size_t>(size) : 0);
}

TEST_F(registry, counters_of_all_processes_are_added_in_place)
{
    int fd = -1;
    ASSERT_TRUE(enter(values, &fd)) << error;
    const std::string tree = values.registry_dir + "/softefa-sysfs", device = tree + "/class/infiniband/efa_0/";
    const timespec    time = device_time();
    dev::device_counters before{}, now{};
    now.tx_messages = 7;
    now.drop_qkey   = 2;
    now.drop_rkey   = 3;
    now.commands    = 4;
    ASSERT_TRUE(sysfs_counters_add(tree.c_str(), 0, before, now));
    ASSERT_TRUE(sysfs_counters_add(tree.c_str(), 0, now, now)) << "nothing new";
    ASSERT_TRUE(sysfs_counters_add(tree.c_str(), 0, before, now)) << "another process";
    EXPECT_EQ("14                  \n", content(device + "ports/1/hw_counters/send_wrs"));
    EXPECT_EQ("10                  \n", content(device + "ports/1/hw_counters/rx_drops"));
    EXPECT_EQ("8                   \n", content(device + "hw_counters/submitted_cmds"));
    EXPECT_EQ("0                   \n", content(device + "ports/1/hw_counters/recv_wrs"));
    now.tx_messages = UINT64_MAX; // all digits that there are
    ASSERT_TRUE(sysfs_counters_add(tree.c_str(), 0, before, now));
    EXPECT_EQ(21u, content(device + "ports/1/hw_counters/send_wrs").size());
    const timespec after = device_time();
    EXPECT_EQ(time.tv_nsec, after.tv_nsec) << "the device's identity changed";
    EXPECT_TRUE(sysfs_is_whole(AT_FDCWD, tree.c_str(), values)) << "a tree with other counters is still whole";
    close(fd);
}

TEST_F(registry, counters_wait_for_whoever_is_at_them)
{
    int fd = -1;
    ASSERT_TRUE(enter(values, &fd)) << error;
    const std::string    tree   = values.registry_dir + "/softefa-sysfs";
    const int            device = open((tree + "/class/infiniband/efa_0/").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    dev::device_counters before{}, now{};
    now.tx_messages = 7;
    ASSERT_EQ(0, flock(device, LOCK_EX | LOCK_NB));
    EXPECT_FALSE(sysfs_counters_add(tree.c_str(), 0, before, now));
    EXPECT_EQ(EWOULDBLOCK, errno);
    ASSERT_EQ(0, flock(device, LOCK_UN));
    EXPECT_TRUE(sysfs_counters_add(tree.c_str(), 0, before, now));
    EXPECT_FALSE(sysfs_counters_add((tree + "-gone").c_str(), 0, before, now));
    EXPECT_EQ(ENOENT, errno);
    close(device);
    close(fd);
}

TEST_F(registry, first_process_removes_what_killed_ones_published)
{
    int fd = -1;
    ASSERT_TRUE(enter(values, &fd)) << error;
    const std::string left = values.registry_dir + "/0123456789abcdef.f0000001.proc";
    ASSERT_EQ(0, symlink("/proc/4194303/fd/7", left.c_str()));
    int second = -1;
    ASSERT_TRUE(enter(values, &second)) << error;
    struct stat st;
    EXPECT_EQ(0, lstat(left.c_str(), &st)) << "somebody else may know it";
    close(fd);
    close(second);
    const std::string notes = values.registry_dir + "/tree-notes", plans = values.registry_dir + "/building-plans", other = values.registry_dir + "/x.proc";
    ASSERT_EQ(0, mkdir(notes.c_str(), 0700));
    ASSERT_EQ(0, mkdir(plans.c_str(), 0700));
    ASSERT_EQ(0, symlink("/proc/4194303/fd/7", other.c_str()));
    ASSERT_TRUE(enter(values, &fd)) << error;
    EXPECT_NE(0, lstat(left.c_str(), &st));
    for (const auto &path : {notes, plans, other}) {
        EXPECT_EQ(0, lstat(path.c_str(), &st)) << path << " is not ours";
    }
    close(fd);
}

} // namespace
} // namespace softefa::preload
