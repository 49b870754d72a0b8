/* Whether the helper thread should look again for a while before it sleeps.
 *
 * Owns: the decision, from what earlier sleeps and looks were like. Refuses to know clocks and threads: helper_loop.cc.
 *
 * A wake-up costs both sides more than a short wait: a system call at the peer, and 20 to 40 us until the thread runs. Who asks for one thing after
 * another, RDMA above all, made the other side pay that for each. So when sleeps in a row were short, and ended by work, the thread looks on for look_ns behind
 * the work that woke it, and goes on as long as that finds more. A look that found nothing until its end was wasted, and so is one in which others took the
 * processor: then more short sleeps in a row are wanted, twice as many each time, until one finds something again.
 *
 *   LNG-1  behind each sleep that was not short, and each wasted look, the thread sleeps at least once before it looks on: an idle process does
 *          not use the processor, and one with work at a slower pace spends at most look_ns for `wanted_max` wake-ups.
 */
#pragma once

#include "base/clock.h"

namespace softefa::dev {

class linger_rule {
public:
    static constexpr base::time_ns short_ns = base::us(100); ///< from the last work to the end of a short sleep: a look, and a wake-up
    static constexpr unsigned wanted_min = 2, wanted_max = 64;

    constexpr linger_rule() noexcept = default;
    /// For tests: always pays, without an end.
    static constexpr linger_rule endless() noexcept
    {
        linger_rule l;
        l.wanted_ = 0;
        l.look_ns = l.longest_ns = l.crowded_ns = ~base::time_ns{0} / 4;
        return l;
    }

    base::time_ns look_ns    = base::us(50); ///< how long to look behind the last work
    base::time_ns longest_ns = base::ms(4);  ///< in all, until sockets are looked at again
    base::time_ns crowded_ns = base::us(20); ///< an offer of the processor that took longer was accepted by somebody, so looking on does not pay

    /// A sleep ended by work, `gap` behind the work before it.
    void slept(base::time_ns gap) noexcept { short_sleeps_ = gap > short_ns ? 0 : short_sleeps_ + (short_sleeps_ < wanted_max); }
    /// A look found something that was not there yet when it began.
    void found() noexcept { wanted_ = wanted_ < wanted_min ? wanted_ : wanted_min; }
    /// It came to its end without work.
    void wasted() noexcept
    {
        wanted_       = wanted_ < wanted_max ? wanted_ * 2 : wanted_max;
        short_sleeps_ = 0;
    }
    /// Whether to look on.
    bool pays() const noexcept { return short_sleeps_ >= wanted_; }

private:
    unsigned short_sleeps_ = 0; ///< in a row
    unsigned wanted_ = wanted_min;
};

} // namespace softefa::dev
