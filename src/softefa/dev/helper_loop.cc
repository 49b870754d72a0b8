/* The helper thread: what it does between two waits, and for how long it waits. Its life is in helper.cc.
 *
 * Sleeping. While the application polls, the helper only looks now and then whether it still does. Once it does not, the helper marks the process
 * as sleeping in every own segment (channel.h, CH-1), serves what there is until nothing moves, and sleeps until a peer, a timer or the
 * application wakes it. Where peers ask for one thing after another it looks on for a while before it sleeps (linger.h). An application that polls
 * many times in a row ends that (engine_poll); one that polls now and then, while it waits elsewhere, does not, and its peers' work does not wait for
 * its polls. An idle process uses no processor time, unless it has rings that are read directly (direct.cc): these wake nobody, so the sleep is a series of naps.
 *
 *   HLP-2  asleep implies that every own park word is odd.
 *   HLP-3  a thread leaves its wait by taking `waiting` back; whoever finds that it is gone touches nothing any more.
 */
#include "softefa/dev/configure.h"
#include "softefa/dev/direct.h"
#include "softefa/dev/helper_state.h"
#include "softefa/dev/publish.h"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::dev {

namespace {

constexpr unsigned     tick_ms_min = 1, tick_ms_max = 4; ///< looks at a polling application
constexpr base::time_ns silent_check = base::sec(1);     ///< between two looks for silent connections
constexpr unsigned     serve_rounds = 4096;              ///< passes before the sockets are looked at again
constexpr base::time_ns poll_gap = base::us(512);        ///< who polls that often, on average, polls; who sleeps in between does so for 1 ms or more

/// Stores the next odd word everywhere: producers that woke us for the last one may do so again.
void mark_asleep() noexcept // engine lock held
{
    engine_state &e = engine();
    e.park_word     = (e.park_word + 2) | 1;
    for (unsigned i = 1; i < e.link_count; ++i)
        if (e.links[i] != nullptr)
            e.links[i]->channel->own.control()->park.store(e.park_word, std::memory_order_relaxed);
    e.asleep = true;
    std::atomic_thread_fence(std::memory_order_seq_cst); // CH-1: the word first, then the last look
}

/// Serves until nothing moves; returns when to look again (0: at once, ~0: when woken). `sleeps`: the application does not poll.
base::time_ns serve(bool sleeps) noexcept
{
    engine_state &e = engine();
    for (unsigned round = 0; round < serve_rounds; ++round) {
        const engine_guard guard;
        if (round == 0) {
            if (sleeps)
                mark_asleep();
            helper.naps  = direct_watched();
            e.timer_skip = timer_polls - 1; // look at the clock in this pass
        }
        const bool posted = direct_look();
        if (!engine_run() && !posted) {
            const base::time_ns now = base::clock_now_ns();
            if (round != 0)
                helper.moved_at = now;
            const base::time_ns next = requester_next_deadline();
            if (next == ~base::time_ns{0})
                return next;
            return next > now ? next - now : 1;
        }
    }
    helper.moved_at = base::clock_now_ns();
    return 0;
}

void wait_events(int epoll_fd, epoll_event *events, int room, int *count_p, base::time_ns pause) noexcept
{
    *count_p = -1;
    if (pause != ~base::time_ns{0}) {
        const timespec limit{static_cast<time_t>(pause / 1'000'000'000u), static_cast<long>(pause % 1'000'000'000u)};
        *count_p = static_cast<int>(syscall(SYS_epoll_pwait2, epoll_fd, events, room, &limit, nullptr, 0ul));
        if (*count_p != -1 || errno == EINTR)
            return;
    } // else, or before Linux 5.11, or denied by a sandbox that does not know it:
    *count_p = epoll_wait(epoll_fd, events, room, pause == ~base::time_ns{0} ? -1 : static_cast<int>((pause + 999'999) / 1'000'000));
    if (*count_p == -1 && errno != EINTR) { // the number is not ours any more: the program closed it behind our back
        const timespec nap{0, 20'000'000};
        syscall(SYS_nanosleep, &nap, nullptr);
    }
}

/// The engine lock is not waited for: who holds it does the same.
bool look() noexcept
{
    if (engine().waiters.load(std::memory_order_relaxed) != 0 || !engine_try_lock()) // ENG-5
        return false;
    const bool posted = direct_look(), moved = engine_run();
    engine_unlock();
    return posted || moved;
}

/// Looks on for a while; for others the process sleeps all the time. The peer that woke us writes nothing more for the same park word, another one writes
/// once, to nobody's harm. False: the application polls again.
bool look_on(const engine_state &e) noexcept
{
    const base::time_ns until = helper.moved_at + helper.lingers.longest_ns;
    for (bool idle = false;;) {
        const base::time_ns offered = base::clock_now_ns();
        sched_yield();
        if (base::clock_now_ns() - offered > helper.lingers.crowded_ns) {
            helper.lingers.wasted(); // others want the processor: who has used his share of it is woken late
            return true;
        }
        const bool moved = look();
        const base::time_ns now = base::clock_now_ns();
        if (!e.asleep.load(std::memory_order_relaxed))
            return false;
        if (moved) {
            helper.moved_at = now;
            if (idle)
                helper.lingers.found();
        } else if (now - helper.moved_at >= helper.lingers.look_ns) {
            helper.lingers.wasted();
            return true;
        }
        idle = !moved;
        if (now >= until || helper.stop.load(std::memory_order_relaxed))
            return true;
    }
}

/// Nobody polls. Serves what there is; returns when to look again, as serve() does. `woken`: by somebody, not by a timer, at `now`.
base::time_ns serve_asleep(const engine_state &e, bool woken, base::time_ns now) noexcept
{
    if (woken && e.asleep.load(std::memory_order_relaxed) && look()) {
        helper.lingers.slept(now - helper.moved_at);
        helper.moved_at = base::clock_now_ns();
        if (helper.lingers.pays() && !look_on(e))
            return base::ms(tick_ms_min);
    }
    return serve(true);
}

/// Whether the application has polled often enough since the last look, or does right now: a pass of many copies takes longer than poll_gap.
bool application_polls(engine_state &e, base::time_ns now) noexcept
{
    const std::uint64_t polls = e.polls.load(std::memory_order_relaxed), fresh = polls - helper.polls_seen;
    const base::time_ns since = now - helper.polls_at;
    helper.polls_seen = polls;
    helper.polls_at   = now;
    helper.waiter_seen = e.waiter.exchange(false, std::memory_order_relaxed);
    return !helper.waiter_seen && fresh != 0 && (fresh * poll_gap >= since || e.lock.load(std::memory_order_relaxed) != 0);
}

/// True: somebody woke us.
bool dispatch(const epoll_event *events, int count) noexcept
{
    bool woken = false;
    for (int k = 0; k < count; ++k) { // bounds: a program may have put an epoll of its own on our number
        const auto     from  = static_cast<source>(events[k].data.u64 >> 32);
        const unsigned index = static_cast<std::uint32_t>(events[k].data.u64);
        std::uint64_t  ignored;
        switch (from) {
        case source::wake: woken |= read(helper.wake_fd, &ignored, sizeof(ignored)) > 0; break;
        case source::listener: peers_accept(); break;
        case source::socket:
            if (index < limits::links && helper.peers[index] != nullptr)
                peer_on_socket(index);
            break;
        case source::pidfd:
            if (index < limits::links && helper.peers[index] != nullptr)
                peer_close(index);
            break;
        }
        if (from != source::wake)
            break; // a slot may have been reused: fresh events only; epoll is level-triggered
    }
    return woken;
}

/// What falls due by the clock, whoever polls.
void look_after_peers(engine_state &e, base::time_ns now) noexcept
{
    if (e.failed_links.exchange(false, std::memory_order_relaxed) || (helper.accepted != 0 && now >= helper.next_silent_check)) {
        peers_drop_failed_and_silent();
        helper.next_silent_check = now + silent_check;
    }
    if (helper.unresponsive != 0 && now >= helper.next_progress_check) {
        peers_drop_unresponsive(now);
        helper.next_progress_check = now + helper.unresponsive / 4;
    }
    if (helper.accept_again != 0 && now >= helper.accept_again)
        helper_watch_listener(true);
}

/// Finds whom parked work is for. True if work is still parked.
bool look_up(engine_state &e, bool parked) noexcept
{
    const bool fresh = e.lookup_wanted.exchange(false, std::memory_order_acq_rel);
    if (fresh || (parked && base::clock_now_ns() >= helper.next_lookup)) {
        parked             = peers_look_up_parked();
        helper.next_lookup = base::clock_now_ns() + lookup_pause;
    }
    return parked;
}

/// `pause`, or less where something else falls due before.
base::time_ns due_within(base::time_ns pause, bool parked) noexcept
{
    if (helper.naps)
        pause = std::min(pause, direct_pause(base::clock_now_ns() - helper.moved_at));
    if (parked)
        pause = std::min(pause, lookup_pause);
    if (helper.unresponsive != 0)
        pause = std::min(pause, helper.unresponsive / 4);
    if (helper.accept_again != 0)
        pause = std::min(pause, accept_pause);
    if (helper.accepted != 0)
        pause = std::min(pause, silent_check);
    return std::min(pause, publish_tick());
}

} // namespace

void *helper_loop(void *generation) noexcept
{
    engine_state &e          = engine();
    const auto    mine       = reinterpret_cast<std::uintptr_t>(generation);
    const int     epoll_fd   = helper.epoll_fd;
    unsigned      tick_ms    = tick_ms_min;
    base::time_ns pause      = base::ms(tick_ms_min);
    bool          parked = false, slept = false;
    epoll_event   events[32];
    helper.polls_seen = e.polls.load(std::memory_order_relaxed);
    helper.polls_at   = base::clock_now_ns();

    if (settings_in_force().direct != 0)
        prctl(PR_SET_TIMERSLACK, 1ul); // of this thread: naps are short

    while (!helper.stop.load(std::memory_order_acquire)) {
        int count = 0;
        helper.waiting.store(mine, std::memory_order_release);
        wait_events(epoll_fd, events, 32, &count, pause);
        if (auto waited = mine; !helper.waiting.compare_exchange_strong(waited, 0, std::memory_order_acq_rel))
            return nullptr; // HLP-3
        const bool woken = dispatch(events, count);
        if (woken)
            helper.wakes.store(helper.wakes.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        const base::time_ns now = base::clock_now_ns();
        look_after_peers(e, now);
        parked = look_up(e, parked);
        const bool polls = application_polls(e, now), asleep = e.asleep.load(std::memory_order_relaxed);
        // Who ended a sleep by polls has shown already that they come often (pass.cc, awake).
        if (!asleep && (polls || (slept && !helper.waiter_seen))) {
            slept   = false;
            tick_ms = std::min(tick_ms * 2, tick_ms_max);
            pause   = base::ms(tick_ms);
            helper.naps = false;
            if (e.direct_any.load(std::memory_order_relaxed)) [[unlikely]]
                pause = std::min(pause, serve(false));
        } else {
            tick_ms = tick_ms_min;
            pause   = serve_asleep(e, woken, now);
            slept   = true;
        }
        pause = due_within(pause, parked);
    }
    return nullptr;
}

} // namespace softefa::dev
