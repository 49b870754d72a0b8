/* What stands behind the functions that we interpose.
 *
 * The originals are looked up once, in the constructor (prepare.cc): dlsym may allocate and is not safe in a signal handler. A call before that
 * (another library's constructor) goes to the kernel directly.
 */
#pragma once

#include <atomic>
#include <dlfcn.h>

#define SOFTEFA_EXPORT extern "C" __attribute__((visibility("default")))

namespace softefa::preload {

/// libc's function of that name, or null before the constructor ran.
template <class F> struct original {
    std::atomic<F *> function{nullptr};
    void             resolve(const char *name)
    {
        function.store(reinterpret_cast<F *>(dlsym(RTLD_NEXT, name)), std::memory_order_relaxed);
    }
    F *get() const { return function.load(std::memory_order_relaxed); }
};

void resolve_opening(); ///< interpose.cc
void resolve_closing(); ///< interpose_close.cc

} // namespace softefa::preload
