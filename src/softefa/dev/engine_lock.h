/* The engine lock, taken and released without a call.
 *
 * Owns: the two short ways, because a post and a poll take them for every message. What makes a way long (work that others left behind, peers to
 * be woken) is out of line, in engine.cc, which explains why nothing is lost (ENG-1). Only engine.cc and pass.cc include this; everybody else
 * has engine_guard, or engine_try_lock() and engine_unlock().
 */
#pragma once

#include "softefa/dev/engine_state.h"

namespace softefa::dev {

void wake_touched(engine_state &e) noexcept;                     ///< CH-1: fences, then looks at the park words of touched links
void unlock_and_combine(engine_state &e) noexcept;               ///< does what others left behind, as often as it may, and unlocks
void keep_served(const engine_state &e, bool moved) noexcept;    ///< ENG-3: behind a pass that the application made

/// Every release of the lock does it.
inline void flush_wakes(engine_state &e) noexcept
{
    if (e.touched_count != 0 || e.resolve_wanted)
        wake_touched(e);
}

/// Sequentially consistent like the mark that is set before it: a stale "held" here would leave work to a holder that has looked already.
inline bool try_lock(engine_state &e) noexcept
{
    return e.lock.load(std::memory_order_seq_cst) == 0 && e.lock.exchange(1, std::memory_order_seq_cst) == 0;
}

inline void unlock(engine_state &e) noexcept
{
    if (e.again.load(std::memory_order_relaxed) == 0) [[likely]] {
        flush_wakes(e);
        e.lock.store(0, std::memory_order_seq_cst);
        if (e.again.load(std::memory_order_seq_cst) == 0 || !try_lock(e)) [[likely]]
            return;
    }
    unlock_and_combine(e);
}

} // namespace softefa::dev
