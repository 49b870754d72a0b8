/* The marked points of this test's own copy of the device: counts, and the signal at the armed one. */
#include "softefa/fabric/points.h"

#include <atomic>
#include <csignal>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::fabric {

namespace {
std::atomic<std::uint32_t> passes[static_cast<unsigned>(point::count)];
std::atomic<std::uint32_t> armed_at[static_cast<unsigned>(point::count)];
std::atomic<int>           armed_signal = SIGKILL;
std::atomic<void (*)()>    calls[static_cast<unsigned>(point::count)];
} // namespace

void point_arm(point p, std::uint32_t at, int signal) noexcept
{
    if (p == point::count)
        return; // none
    armed_signal = signal;
    armed_at[static_cast<unsigned>(p)] = passes[static_cast<unsigned>(p)] + at;
}

void point_call(point p, void (*then)()) noexcept { calls[static_cast<unsigned>(p)] = then; }

std::uint32_t point_passes(point p) noexcept { return passes[static_cast<unsigned>(p)]; }

void point_passed(point p) noexcept
{
    const auto i = static_cast<unsigned>(p);
    if (calls[i].load(std::memory_order_relaxed) != nullptr)
        if (const auto then = calls[i].exchange(nullptr); then != nullptr)
            then();
    if (++passes[i] == armed_at[i])
        syscall(SYS_tgkill, getpid(), gettid(), armed_signal.load()); // this thread stops here; sent to the process, it would run on until another one took it
}

} // namespace softefa::fabric
