/* Whether busy processes outnumber the processors they may run on.
 *
 * Owns: the arithmetic over affinity masks, nothing else. A process that polls offers its processor to others only where one of them may have
 * none. How many processors this process may use says nothing about that by itself: ranks that are bound to one processor each are not crowded, two
 * on the same one are. Every process that it is connected to counts as busy.
 *
 * Crowded is: more processes confined to processors of ours than there are of these, or more processes in all than processors in all. Both are
 * needed, neither finds every crowded set (that would be a matching); what they miss is a process that shares a part of its processors, which
 * the kernel's scheduler can move.
 */
#pragma once

#include <sched.h>

namespace softefa::dev {

class crowding {
public:
    explicit crowding(const cpu_set_t &own) noexcept : own_(own), all_(own) {}

    /// Another process and where it may run.
    void add(const cpu_set_t &theirs) noexcept
    {
        cpu_set_t outside;
        CPU_XOR(&outside, &own_, &theirs);
        CPU_AND(&outside, &outside, &theirs);
        confined_ += CPU_COUNT(&outside) == 0;
        ++live_;
        CPU_OR(&all_, &all_, &theirs);
    }

    bool crowded() const noexcept { return confined_ > CPU_COUNT(&own_) || live_ > CPU_COUNT(&all_); }

private:
    cpu_set_t own_, all_;
    int       confined_ = 1; ///< processes, this one included, that may run on processors of `own_` only
    int       live_     = 1;
};

} // namespace softefa::dev
