// Descriptors that the program does not know of. ThreadSanitizer is part of what is tested: a report of it fails the program.
#include "softefa/fabric/private_fd.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <thread>
#include <unistd.h>

namespace softefa::fabric {
namespace {

/// The helper thread has got a descriptor, and moves it out of the way or closes it; at once the program opens a file, which gets the number.
TEST(private_fd, number_that_is_given_back_is_free_for_every_thread)
{
    for (const bool moves : {true, false}) {
        std::atomic<int> given_back = -1;
        int              moved      = -1;
        std::thread      helper([&] {
            const int fd = eventfd(0, EFD_CLOEXEC); // as those that come with a message: ThreadSanitizer keeps more about it than about a file
            if (moves)
                moved = fd_settle_private(fd);
            else
                fd_close_private(fd_mark_private(fd)); // where no other number is to be had
            given_back.store(fd, std::memory_order_relaxed); // nothing else tells the two threads of each other
        });
        while (given_back.load(std::memory_order_relaxed) == -1)
            std::this_thread::yield();
        const int own = open("/dev/null", O_RDONLY | O_CLOEXEC);
        helper.join();
        EXPECT_EQ(own, given_back);
        EXPECT_EQ(0, close(own));
        if (moves) {
            ASSERT_GT(moved, given_back);
            fd_close_private(moved);
            EXPECT_EQ(-1, fcntl(moved, F_GETFD));
            EXPECT_EQ(EBADF, errno);
        }
    }
}

} // namespace
} // namespace softefa::fabric
