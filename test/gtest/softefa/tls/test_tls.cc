/* The device in a program with more static thread-local storage than the helper thread has stack. */
#include "softefa/dev/nic.h"

namespace {

using namespace nic;

thread_local volatile char big[300 << 10];

class thread_local_storage : public device_test {};

TEST_F(thread_local_storage, of_the_program_does_not_keep_the_helper_from_starting)
{
    big[0]               = 1; // it is there
    big[sizeof(big) - 1] = 1;
    endpoint e;
    e.qp.post_recv(1, {e.slice(0, 64)});
    e.qp.post(e.qp.send_inline(2, e.ah, e.qp.qpn, "x"));
    auto got = e.rcq.wait(), done = e.scq.wait();
    ASSERT_TRUE(got && done);
    EXPECT_EQ(got->status, 0);
    EXPECT_EQ(done->status, 0);
    EXPECT_EQ(big[0] + big[sizeof(big) - 1], 2);
}

} // namespace
