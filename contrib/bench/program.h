/* What the small benchmark programs have in common: pinning, time, numbers from the command line, medians.
 *
 * Owns: no state. Each program is one file with this header, a pair of processes by itself, and prints one line of JSON.
 */
#pragma once

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <vector>

namespace program {

/// True if the caller runs on `core` from now on; negative = anywhere.
inline bool pin(int core)
{
    if (core < 0) {
        return true;
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    return sched_setaffinity(0, sizeof(set), &set) == 0;
}

inline double now_s()
{
    timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return static_cast<double>(ts.tv_sec) + static_cast<double>(ts.tv_nsec) * 1e-9;
}

inline void relax()
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/// False if `text` is no whole number within the range.
inline bool number_parse(const char *text, std::uint64_t least, std::uint64_t most, std::uint64_t *value_p)
{
    char *end = nullptr;
    errno     = 0;
    if (*text < '0' || *text > '9') {
        return false;
    }
    *value_p = std::strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *value_p >= least && *value_p <= most;
}

/// "A,B": two cores.
inline bool cores_parse(const char *text, int core[2])
{
    char rest = 0;
    return std::sscanf(text, "%d,%d%c", &core[0], &core[1], &rest) == 2 && core[0] >= 0 && core[0] < CPU_SETSIZE && core[1] >= 0 &&
           core[1] < CPU_SETSIZE;
}

/// The child's half of a fork: it ends with its parent. False: the parent is gone already.
inline bool child_of(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return getppid() == parent;
}

/// Of at least one number; reorders them.
inline double median(std::vector<double> &numbers)
{
    const auto middle = numbers.begin() + static_cast<std::ptrdiff_t>(numbers.size() / 2);
    std::nth_element(numbers.begin(), middle, numbers.end());
    return *middle;
}

} // namespace program
