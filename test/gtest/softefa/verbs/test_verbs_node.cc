// The device node as programs look at it before they open it: every function that takes a path says the same, and others are left alone.
#include "verbs_endpoint.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace verbs {
namespace {

constexpr char node[]    = "/dev/infiniband/uverbs0";
constexpr char missing[] = "/dev/infiniband/uverbs99";

TEST(verbs_node, may_be_read_and_written_by_all_who_ask)
{
    const int here = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_GE(here, 0);
    errno = 77;
    for (const int mode : {F_OK, R_OK, W_OK, R_OK | W_OK}) {
        EXPECT_EQ(0, access(node, mode)) << mode;
        EXPECT_EQ(0, eaccess(node, mode)) << mode;
        EXPECT_EQ(0, euidaccess(node, mode)) << mode;
        EXPECT_EQ(0, faccessat(AT_FDCWD, node, mode, 0)) << mode;
        EXPECT_EQ(0, faccessat(here, node, mode, AT_EACCESS)) << "the folder does not matter";
    }
    EXPECT_EQ(77, errno);
    EXPECT_EQ(-1, access(node, X_OK));
    EXPECT_EQ(EACCES, errno);
    EXPECT_EQ(-1, faccessat(AT_FDCWD, node, 64, 0));
    EXPECT_EQ(EINVAL, errno);
    close(here);
}

TEST(verbs_node, is_the_same_character_device_for_all_who_ask)
{
    struct stat   st[3] = {};
    struct stat64 st64[2] = {};
    ASSERT_EQ(0, stat(node, &st[0]));
    ASSERT_EQ(0, lstat(node, &st[1]));
    ASSERT_EQ(0, fstatat(AT_FDCWD, node, &st[2], AT_SYMLINK_NOFOLLOW));
    ASSERT_EQ(0, lstat64(node, &st64[0]));
    ASSERT_EQ(0, fstatat64(AT_FDCWD, node, &st64[1], 0));
    for (const auto &s : st) {
        EXPECT_EQ(S_IFCHR | 0666u, s.st_mode);
        EXPECT_EQ(st[0].st_rdev, s.st_rdev);
    }
    for (const auto &s : st64) {
        EXPECT_EQ(S_IFCHR | 0666u, s.st_mode);
        EXPECT_EQ(st[0].st_rdev, s.st_rdev);
    }
    struct statx x = {};
    ASSERT_EQ(0, statx(AT_FDCWD, node, 0, STATX_BASIC_STATS, &x));
    EXPECT_EQ(S_IFCHR | 0666u, unsigned{x.stx_mode});
    EXPECT_EQ(st[0].st_rdev, makedev(x.stx_rdev_major, x.stx_rdev_minor));
    EXPECT_NE(0u, x.stx_mask & STATX_TYPE);
}

TEST(verbs_node, opens_below_any_folder)
{
    for (const int fd : {openat(AT_FDCWD, node, O_RDWR | O_CLOEXEC), openat64(AT_FDCWD, node, O_RDWR | O_CLOEXEC)}) {
        struct stat st = {};
        ASSERT_GE(fd, 0);
        EXPECT_EQ(0, fstat(fd, &st));
        EXPECT_TRUE(S_ISCHR(st.st_mode));
        EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
        EXPECT_EQ(0, close(fd));
        EXPECT_EQ(-1, fcntl(fd, F_GETFD));
    }
}

TEST(verbs_node, other_paths_are_left_alone)
{
    struct stat  st = {};
    struct statx x = {};
    for (const char *path : {missing, "/dev/infiniband/uverbs0x", "/dev/infiniband/uverbs", "/nonexistent"}) {
        errno = 0;
        EXPECT_TRUE(access(path, F_OK) == -1 && errno == ENOENT) << path;
        errno = 0;
        EXPECT_TRUE(faccessat(AT_FDCWD, path, F_OK, 0) == -1 && errno == ENOENT) << path;
        errno = 0;
        EXPECT_TRUE(lstat(path, &st) == -1 && errno == ENOENT) << path;
        errno = 0;
        EXPECT_TRUE(fstatat(AT_FDCWD, path, &st, 0) == -1 && errno == ENOENT) << path;
        errno = 0;
        EXPECT_TRUE(statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &x) == -1 && errno == ENOENT) << path;
        errno = 0;
        EXPECT_TRUE(openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC) == -1 && errno == ENOENT) << path;
    }
    EXPECT_EQ(0, access("/", X_OK));
    EXPECT_EQ(0, lstat("/proc/self", &st));
    EXPECT_TRUE(S_ISLNK(st.st_mode));
    EXPECT_EQ(0, fstatat(AT_FDCWD, "/proc/self", &st, AT_SYMLINK_NOFOLLOW));
    EXPECT_TRUE(S_ISLNK(st.st_mode));
    EXPECT_EQ(0, statx(AT_FDCWD, "/", 0, STATX_BASIC_STATS, &x));
    EXPECT_TRUE(S_ISDIR(x.stx_mode));
    const int folder = openat(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_GE(folder, 0);
    EXPECT_EQ(0, fstatat(folder, "", &st, AT_EMPTY_PATH));
    const int made = openat(AT_FDCWD, "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0640); // the mode arrives
    if (made >= 0) {
        EXPECT_EQ(0, fstat(made, &st));
        EXPECT_EQ(0u, st.st_mode & 0137);
        EXPECT_NE(0u, st.st_mode & 0600);
        close(made);
    }
    close(folder);
}

} // namespace
} // namespace verbs
