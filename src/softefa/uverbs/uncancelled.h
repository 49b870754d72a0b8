/* Scope in which the calling thread is not cancelled.
 *
 * open and close are cancellation points, and so are read, nanosleep and pthread_join inside of what we do for them: a thread that went away
 * in the middle would keep our locks for ever. A request for cancellation waits until the scope ends, as with a system call in the kernel.
 */
#pragma once

#include <pthread.h>

namespace softefa::uverbs {

class uncancelled {
public:
    uncancelled() noexcept { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
    ~uncancelled() { pthread_setcancelstate(before_, nullptr); }
    uncancelled(const uncancelled &)            = delete;
    uncancelled &operator=(const uncancelled &) = delete;

private:
    int before_ = PTHREAD_CANCEL_ENABLE;
};

} // namespace softefa::uverbs
