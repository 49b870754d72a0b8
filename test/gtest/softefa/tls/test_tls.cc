/* The device in a program with more static thread-local storage than the helper thread has stack.
 *
 * The linker sends the calls of dlsym and pthread_create that the library makes through the stand-ins here.
 */
#include "softefa/dev/nic.h"

#include <cerrno>
#include <pthread.h>

namespace {

bool     minimum_unknown = false; ///< as with a libc that does not say what a thread needs beside its stack
bool     sizes_refused   = false; ///< every stack size that is asked for is too small
unsigned asked = 0, refused = 0;  ///< threads with a stack size of their own

} // namespace

extern "C" {

void *__real_dlsym(void *handle, const char *name);
void *__wrap_dlsym(void *handle, const char *name)
{
    return minimum_unknown && std::strcmp(name, "__pthread_get_minstack") == 0 ? nullptr : __real_dlsym(handle, name);
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument)
{
    const int error = attributes != nullptr && sizes_refused ? EINVAL : __real_pthread_create(thread, attributes, body, argument);
    asked += attributes != nullptr;
    refused += error == EINVAL;
    return error;
}

} // extern "C"

namespace {

using namespace nic;

thread_local volatile char big[300 << 10];

class thread_local_storage : public device_test {
protected:
    void SetUp() override
    {
        device_test::SetUp();
        minimum_unknown = sizes_refused = false;
        asked = refused = 0;
    }
    /// The device works, which without its thread it does not.
    static void exchange()
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
        EXPECT_EQ(asked, 1u) << "one helper";
    }
};

TEST_F(thread_local_storage, of_the_program_does_not_keep_the_helper_from_starting)
{
    exchange();
    EXPECT_EQ(refused, 0u) << "what it takes beside the stack was not added";
}

TEST_F(thread_local_storage, that_nobody_tells_the_size_of_is_answered_with_a_default_stack)
{
    minimum_unknown = true;
    exchange();
#if !defined(__SANITIZE_THREAD__) // which makes stacks larger by itself
    EXPECT_EQ(refused, 1u) << "there was room for it: the test tests nothing";
#endif
}

TEST_F(thread_local_storage, or_whatever_else_makes_a_stack_too_small_is_answered_with_a_default_stack)
{
    sizes_refused = true;
    exchange();
    EXPECT_EQ(refused, 1u);
}

} // namespace
