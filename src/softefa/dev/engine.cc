/* The engine: its lock, and how work changes hands with it.
 *
 * Owns: who runs when. Posts, arming and the account of what the application consumed enter here; the poll is in pass.cc with the pass that it
 * makes. Whoever holds the lock does what others left behind, and wakes peers once, before it lets go. See engine_state.h for the lock's promises.
 * Refuses to know what a pass finds.
 *
 * Why ENG-1 holds. Who fails the lock sets its bit (dirty_words), then `again`, then tries the lock once more; the holder takes `again` back,
 * then looks at dirty_words, then lets the lock go, then looks at `again`. All of these are sequentially consistent. Either `again` was set
 * behind the holder's taking it back: then the holder's last look sees it, for the second try found the lock held and so came before its
 * release. Or it was set before: then the bit was set before, too, and the holder's look at dirty_words sees it. An acquire would not do for
 * that look: of several who set `again` it meets the last one alone, whose bit may be older than that of the first.
 */
#include "softefa/dev/engine.h"

#include "softefa/dev/engine_lock.h"
#include "softefa/dev/fabric_client.h"
#include "softefa/dev/helper.h"

#include <ctime>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::dev {

constexpr unsigned yields_of_waiter = 4; ///< before a command sleeps: on a crowded processor each may cost a slice of everybody else's

constinit engine_state engine_instance;

/// CH-1: records first, one full fence, then the park words.
[[gnu::noinline]] void wake_touched(engine_state &e) noexcept
{
    bool fenced = false;
    for (unsigned i = 0; i < e.touched_count; ++i) {
        link &l = *e.touched[i];
        l.tx_touched = false;
        if (!fenced)
            std::atomic_thread_fence(std::memory_order_seq_cst);
        fenced = true;
        fabric::channel_wake(*l.channel);
    }
    e.touched_count = 0;
    if (e.resolve_wanted) [[unlikely]] {
        e.resolve_wanted = false;
        fabric_kick();
    }
}

/// ENG-3: behind a pass that the application made. Peers wake the helper for what they send; for the next step of what the process sends to
/// itself, for bytes that it copies from a peer, and for a pause that has begun, there is only this.
void keep_served(const engine_state &e, bool moved) noexcept
{
    if (!moved || !e.asleep.load(std::memory_order_relaxed)) [[likely]]
        return;
    const link *self = e.links[0];
    bool        copies = false;
    for (unsigned i = 0; i < e.link_count; ++i)
        copies |= e.links[i] != nullptr && !e.links[i]->granted.empty();
    if (copies || e.has_timers() || e.dirty_words.load(std::memory_order_relaxed) != 0 ||
        (self != nullptr && (self->has_work() || self->channel->has_input())))
        helper_kick();
}

void engine_flush_wakes() noexcept { flush_wakes(engine()); }

bool engine_try_lock() noexcept { return try_lock(engine()); }

namespace {

/// The lock is held.
void arm(engine_state &e, cq &c) noexcept
{
    c.arm_wanted.store(false, std::memory_order_relaxed);
    if (c.event_fd < 0)
        return;
    c.armed = true;
    engine_run();
    keep_served(e, true); // the last call before the application blocks: also for what began to wait before this pass
    if (c.armed && cq_has_unconsumed(c))
        cq_fire(c);
    fabric_waiter();
}

/// ENG-4
[[gnu::noinline]] void arm_wanted(engine_state &e) noexcept
{
    e.arms_wanted.exchange(false, std::memory_order_seq_cst);
    objects().cqs.for_each([&](cq &c) {
        if (c.arm_wanted.load(std::memory_order_relaxed))
            arm(e, c);
    });
}

} // namespace

/// Does what others left behind, as often as it may, and unlocks.
[[gnu::noinline]] void unlock_and_combine(engine_state &e) noexcept
{
    for (unsigned round = 0;; ++round) {
        const bool again = e.again.load(std::memory_order_relaxed) != 0;
        const bool last  = again && round >= limits::combine_rounds;
        if (last) [[unlikely]] {
            if (e.asleep.load(std::memory_order_relaxed))
                helper_kick(); // ENG-1: the mark stays for the next holder, and this makes sure that there is one
        } else if (again) [[unlikely]] {
            // Not a store: that could take effect behind the pass's first look, over the mark of somebody whose doorbell the look did not see.
            e.again.exchange(0, std::memory_order_seq_cst);
            engine_run();
            keep_served(e, true); // whoever left the mark may have begun a pause that the pass did not move
        }
        if (e.arms_wanted.load(std::memory_order_seq_cst)) [[unlikely]]
            arm_wanted(e);
        flush_wakes(e);
        e.lock.store(0, std::memory_order_seq_cst);
        const bool enough = last && !e.arms_wanted.load(std::memory_order_seq_cst); // whoever wants to arm will not call again
        if (enough || e.again.load(std::memory_order_seq_cst) == 0 || !try_lock(e)) [[likely]]
            return;
    }
}

void engine_unlock() noexcept { unlock(engine()); }

engine_guard::engine_guard() noexcept
{
    if (engine_try_lock()) [[likely]]
        return;
    engine_state &e = engine();
    e.waiters.fetch_add(1, std::memory_order_relaxed); // ENG-5
    for (unsigned tries = 0; !engine_try_lock(); ++tries) {
        if (tries < yields_of_waiter) {
            sched_yield();
        } else {
            const timespec pause{0, 50'000};
            syscall(SYS_nanosleep, &pause, nullptr); // not the function: that one is a cancellation point
        }
    }
    e.waiters.fetch_sub(1, std::memory_order_relaxed);
}

engine_guard::~engine_guard() { engine_unlock(); }

namespace {

/// Send and receive queue work have no order: what arrived meanwhile is served before what was posted.
[[gnu::noinline]] bool receives_first(engine_state &e) noexcept
{
    bool moved = false;
    for (unsigned i = 0; i < e.link_count; ++i)
        if (e.links[i] != nullptr)
            moved |= engine_run_link(*e.links[i]);
    ++e.counters[0].reorders;
    engine_draw_queue_swap(e);
    return moved;
}

/// What was posted while the helper sleeps is in no snapshot: it is woken for one, once until that is made.
void show_soon(engine_state &e) noexcept
{
    if (!e.unshown.load(std::memory_order_relaxed)) {
        e.unshown.store(true, std::memory_order_relaxed);
        helper_kick();
    }
}

/// ENG-1: the holder serves it; true: nobody holds the lock any more, we do.
[[gnu::noinline]] bool leave_doorbell(engine_state &e, const qp &q) noexcept
{
    qp_mark_dirty(q);
    e.again.store(1, std::memory_order_seq_cst);
    return try_lock(e);
}

/// The helper sleeps, and nobody wakes it for a receive.
[[gnu::noinline]] void posted_unseen() noexcept
{
    engine_state &e = engine();
    if (e.unshown.load(std::memory_order_relaxed) || e.dead.load(std::memory_order_relaxed) || !engine_try_lock())
        return;
    show_soon(e);
    engine_unlock();
}

} // namespace

void engine_draw_queue_swap(engine_state &e) noexcept
{
    e.queues_swap_in = e.reorder != 0 ? 1 + e.random.below(2 * 65536 / e.reorder) : 0; // as often as pairs are swapped, on average
}

void engine_posted_recv(handle h) noexcept
{
    // A receive lets nothing move that waits in this process: a sender that found none asks again by itself. Only a QP in error takes it at once.
    std::atomic_thread_fence(std::memory_order_seq_cst); // the doorbell before, the state behind: qp_modify() does the opposite
    qp *q = objects().qps.find(h);
    if (q != nullptr && std::atomic_ref(q->state).load(std::memory_order_relaxed) == qp_state::error) [[unlikely]]
        engine_posted(h);
    else if (q != nullptr && engine().asleep.load(std::memory_order_relaxed)) [[unlikely]]
        posted_unseen();
}

void engine_posted(handle h) noexcept
{
    engine_state &e = engine();
    qp           *q = e.dead.load(std::memory_order_relaxed) ? nullptr : objects().qps.find(h);
    if (q == nullptr) [[unlikely]]
        return;
    if (!try_lock(e)) [[unlikely]] {
        if (!leave_doorbell(e, *q))
            return;
    }
    bool moved = false;
    if (e.queues_swap_in != 0 && --e.queues_swap_in == 0) [[unlikely]]
        moved = receives_first(e);
    moved |= requester_fetch(*q);
    if (e.asleep.load(std::memory_order_relaxed)) [[unlikely]] {
        moved |= engine_run(); // nobody polls
        keep_served(e, moved);
        show_soon(e);
    }
    unlock(e);
}

void engine_consumed(handle h, unsigned count) noexcept
{
    cq *c = objects().cqs.find(h);
    if (c == nullptr)
        return;
    tsan_observed(c);
    c->consumed.fetch_add(count, std::memory_order_release);
}

std::uint64_t engine_written(handle h) noexcept
{
    cq *c = objects().cqs.find(h);
    if (c == nullptr || !c->behind.load(std::memory_order_relaxed)) [[likely]]
        return 0;
    return std::atomic_ref(c->produced).load(std::memory_order_acquire);
}

void engine_emptied(handle h, std::uint64_t written) noexcept
{
    cq *c = objects().cqs.find(h);
    if (c == nullptr)
        return;
    for (std::uint64_t seen = c->emptied.load(std::memory_order_relaxed); seen < written;)
        if (c->emptied.compare_exchange_weak(seen, written, std::memory_order_release, std::memory_order_relaxed))
            break;
    if (c->consumed.load(std::memory_order_acquire) < written || !engine_try_lock())
        return;
    if (c->produced == written) // no queue pair that was destroyed meanwhile had an entry that nobody took
        c->behind.store(false, std::memory_order_relaxed);
    engine_unlock();
}

void engine_arm(handle h) noexcept
{
    engine_state &e = engine();
    if (e.dead.load(std::memory_order_relaxed))
        return;
    cq *c = objects().cqs.find(h);
    if (c == nullptr)
        return;
    if (!engine_try_lock()) [[unlikely]] { // ENG-4: the holder may be the thread that a signal handler has interrupted, so nobody waits for it
        c->arm_wanted.store(true, std::memory_order_relaxed);
        e.arms_wanted.exchange(true, std::memory_order_seq_cst); // not a store: whoever takes it back then sees every wish before it
        e.again.store(1, std::memory_order_seq_cst);
        if (!engine_try_lock())
            return;
    }
    arm(e, *c);
    engine_unlock();
}

} // namespace softefa::dev
