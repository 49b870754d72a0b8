/* The engine: lock, entry points, one pass.
 *
 * Owns: who runs when. A pass looks at doorbells that were announced, at timers (now and then), and at every peer: first what it
 * answered and sent, then what waits to be sent to it. Positions and wake-ups are published once per pass. See engine_state.h for the lock.
 *
 * Why ENG-1 holds. Who fails the lock sets its bit (dirty_words), then `again`, then tries the lock once more; the holder takes `again` back,
 * then looks at dirty_words, then lets the lock go, then looks at `again`. All of these are sequentially consistent. Either `again` was set
 * behind the holder's taking it back: then the holder's last look sees it, for the second try found the lock held and so came before its
 * release. Or it was set before: then the bit was set before, too, and the holder's look at dirty_words sees it. An acquire would not do for
 * that look: of several who set `again` it meets the last one alone, whose bit may be older than that of the first.
 */
#include "softefa/dev/engine.h"

#include "base/clock.h"
#include "softefa/dev/engine_state.h"
#include "softefa/dev/fabric_client.h"
#include "softefa/dev/helper.h"

#include <bit>
#include <sched.h>
#include <ctime>
#include <utility>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::dev {

namespace {

constexpr char     bad_position[] = "position beyond what was sent";
constexpr unsigned polls_to_waken = 64; ///< in a row, until the application counts as polling again

bool run_dirty(engine_state &e) noexcept
{
    std::uint64_t words = e.dirty_words.load(std::memory_order_seq_cst); // ENG-1
    bool          moved = false;
    if (words == 0) [[likely]]
        return false;
    words = e.dirty_words.exchange(0, std::memory_order_seq_cst);
    for (; words != 0; words &= words - 1) {
        const unsigned word = static_cast<unsigned>(std::countr_zero(words));
        for (std::uint64_t bits = e.dirty[word].exchange(0, std::memory_order_acq_rel); bits != 0; bits &= bits - 1) {
            qp *q = objects().qps.at(word * 64 + static_cast<unsigned>(std::countr_zero(bits)));
            if (q != nullptr)
                moved |= requester_fetch(*q);
        }
    }
    return moved;
}

void requester_answer(link &l, const wire::ack &a) noexcept
{
    if (engine().record_data) [[unlikely]]
        record(record_kind::ack_in, 0, 0, 0, static_cast<unsigned>(a.status), a.op, 0);
    requester_ack(l, a);
}

bool run_acks(engine_state &e, link &l) noexcept
{
    fabric::ack_rx &in = l.channel->acks_in;
    wire::ack       a, b;
    unsigned        done = 0;
    while (done < limits::acks_per_run && (!l.failed || l.lingers) && in.peek(a)) {
        if (swap_due(e) && in.peek(b, 1)) [[unlikely]] {
            requester_answer(l, b);
            ++e.counters[0].reorders;
            ++done;
            in.advance();
        }
        requester_answer(l, a);
        SOFTEFA_POINT(send_completed);
        in.advance();
        ++done;
    }
    l.rx_touched |= done != 0;
    // A sleeping peer may wait for room for more of them. It has thousands unread behind the position that it believes: the pass that starts
    // behind that one takes as many as a pass may. Asking for a fence each time would cost every message one.
    if (done >= limits::acks_per_run) [[unlikely]]
        link_touch(l);
    return done != 0;
}

/// Records whose neighbours may be served in the other order: whole operations.
bool swappable(const wire::header &h) noexcept
{
    constexpr std::uint8_t whole = wire::flag_first | wire::flag_last;
    return h.kind == wire::pdu_kind::send || (h.kind == wire::pdu_kind::write && (h.flags & whole) == whole) ||
           h.kind == wire::pdu_kind::read_req;
}

} // namespace

/// The peer gave us up while we did not move: what it acknowledged before counts, nothing else of either side will happen.
[[gnu::noinline]] void link_given_up(link &l) noexcept
{
    for (unsigned n = 0; n < limits::ack_rounds && !l.failed && run_acks(engine(), l); ++n) {
    }
    l.end_status = wire::efa_status::unresponsive;
    link_fail(l, "given up by the peer");
}

namespace {

bool run_records(engine_state &e, link &l) noexcept
{
    using outcome = fabric::data_rx::outcome;
    fabric::data_rx &in = l.channel->rx;
    wire::header     h, next;
    std::uint32_t    bytes = 0;
    unsigned         done  = 0;
    while (done < limits::records_per_run && bytes < limits::bytes_per_run && !l.failed) {
        const outcome seen = in.peek(h);
        if (seen == outcome::empty)
            break;
        if (seen == outcome::violation) [[unlikely]] {
            link_fail(l, "record outside its ring");
            break;
        }
        if (!l.channel->acks_out.has_room(2)) [[unlikely]] {
            ++e.counters[0].ring_stalls;
            if (l.channel->acks_out.violated())
                link_fail(l, bad_position);
            break;
        }
        if (swap_due(e) && swappable(h) && in.peek_next(h, next) == outcome::record && swappable(next)) [[unlikely]] {
            if (!in.claim(h, &next)) [[unlikely]] {
                link_given_up(l);
                break;
            }
            responder_record(l, next, in.payload_next(h));
            responder_record(l, h, in.payload());
            in.advance(h);
            in.advance(next);
            bytes += next.payload_size;
            done += 2;
            ++e.counters[0].reorders;
        } else {
            if (!in.claim(h)) [[unlikely]] {
                link_given_up(l);
                break;
            }
            SOFTEFA_POINT(record_claimed);
            responder_record(l, h, in.payload());
            in.advance(h);
            ++done;
        }
        bytes += h.payload_size + std::exchange(l.copied, 0);
    }
    l.rx_touched |= done != 0;
    if (done != 0)
        link_touch(l); // a sleeping producer may wait for the room
    return done != 0;
}

} // namespace

bool engine_run_link(link &l) noexcept
{
    engine_state &e     = engine();
    bool          moved = false;
    if (!l.failed) {
        // Completion and receive completion have no order either.
        if (swap_due(e)) [[unlikely]]
            moved = run_records(e, l) | run_acks(e, l);
        else
            moved = run_acks(e, l) | run_records(e, l);
    }
    if (l.lingers) [[unlikely]]
        return run_acks(e, l); // CUT-2
    if (l.has_work()) {
        moved |= requester_link_work(l);
        moved |= responder_reads(l);
        if (l.channel->tx.violated()) [[unlikely]] // what waits for room would wait for ever
            link_fail(l, bad_position);
    }
    if (l.rx_touched) {
        l.rx_touched = false;
        l.channel->rx.publish();
        SOFTEFA_POINT(positions_half);
        l.channel->acks_in.publish();
        SOFTEFA_POINT(positions_given_back);
        if (l.channel->tx.violated() || l.channel->acks_out.violated()) [[unlikely]]
            link_fail(l, bad_position);
    }
    return moved;
}

namespace {

/// CH-1: records first, one full fence, then the park words.
[[gnu::noinline]] void wake_touched(engine_state &e) noexcept
{
    bool fenced = false;
    for (unsigned i = 0; i < e.touched_count; ++i) {
        link &l = *e.touched[i];
        l.tx_touched = false;
        if (l.channel->is_self)
            continue;
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

/// Every release of the lock does it.
inline void flush_wakes(engine_state &e) noexcept
{
    if (e.touched_count != 0 || e.resolve_wanted)
        wake_touched(e);
}

/// Whether a pass can find anything to do at a link.
inline bool link_calls(const link &l) noexcept
{
    return (l.channel->has_input() && (!l.failed || l.lingers)) || l.has_work() || l.rx_touched;
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

} // namespace

constinit engine_state engine_instance;

bool swap_draw(engine_state &e) noexcept
{
    if (e.reorder == 0)
        return false; // the counter wrapped
    e.swap_in = 1;
    if (e.reorder > 65536 / 4) {
        while (!e.random.chance(e.reorder))
            ++e.swap_in;
    } else {
        e.swap_in += e.random.below(2 * 65536 / e.reorder - 1); // uniform, and 1 / chance on average
    }
    return true;
}

void engine_flush_wakes() noexcept { flush_wakes(engine()); }

bool engine_run() noexcept
{
    engine_state &e     = engine();
    bool          moved = run_dirty(e);

    if (e.has_timers() && (++e.timer_skip % timer_polls == 0)) [[unlikely]]
        moved |= requester_timers(base::clock_now_ns());
    for (unsigned i = 0; i < e.link_count; ++i)
        if (e.links[i] != nullptr && link_calls(*e.links[i]))
            moved |= engine_run_link(*e.links[i]);
    if (e.cq_overflowing != 0) [[unlikely]]
        objects().cqs.for_each([&](cq &c) { moved |= c.overflow_count != 0 && cq_drain_overflow(c); });
    if (e.events_owed != 0) [[unlikely]]
        cq_settle_events();
    return moved;
}

bool engine_try_lock() noexcept
{
    engine_state &e = engine();
    // Sequentially consistent like the mark that is set before it: a stale "held" here would leave work to a holder that has looked already.
    return e.lock.load(std::memory_order_seq_cst) == 0 && e.lock.exchange(1, std::memory_order_seq_cst) == 0;
}

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
        if (enough || e.again.load(std::memory_order_seq_cst) == 0 || !engine_try_lock()) [[likely]]
            return;
    }
}

} // namespace

void engine_unlock() noexcept
{
    engine_state &e = engine();
    if (e.again.load(std::memory_order_relaxed) == 0) [[likely]] {
        flush_wakes(e);
        e.lock.store(0, std::memory_order_seq_cst);
        if (e.again.load(std::memory_order_seq_cst) == 0 || !engine_try_lock()) [[likely]]
            return;
    }
    unlock_and_combine(e);
}

engine_guard::engine_guard() noexcept
{
    for (unsigned tries = 0; !engine_try_lock(); ++tries) {
        if (tries < 64) {
            sched_yield();
        } else {
            const timespec pause{0, 50'000};
            syscall(SYS_nanosleep, &pause, nullptr); // not the function: that one is a cancellation point
        }
    }
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
}

void engine_posted(handle h) noexcept
{
    engine_state &e = engine();
    qp           *q = e.dead.load(std::memory_order_relaxed) ? nullptr : objects().qps.find(h);
    if (q == nullptr) [[unlikely]]
        return;
    if (!engine_try_lock()) [[unlikely]] {
        qp_mark_dirty(*q);
        e.again.store(1, std::memory_order_seq_cst);
        if (!engine_try_lock())
            return;
    }
    bool moved = false;
    if (e.queues_swap_in != 0 && --e.queues_swap_in == 0) [[unlikely]]
        moved = receives_first(e);
    moved |= requester_fetch(*q);
    if (e.asleep.load(std::memory_order_relaxed)) [[unlikely]] {
        moved |= engine_run(); // nobody polls
        keep_served(e, moved);
    }
    engine_unlock();
}

namespace {

/// The application polls: peers need not wake the helper any more.
[[gnu::noinline]] void awake(engine_state &e) noexcept
{
    e.polls_asleep = 0;
    e.park_word    = (e.park_word + 2) & ~1u;
    for (unsigned i = 1; i < e.link_count; ++i)
        if (e.links[i] != nullptr)
            e.links[i]->channel->own.control()->park.store(e.park_word, std::memory_order_relaxed);
    e.asleep.store(false, std::memory_order_relaxed);
    helper_kick();
}

} // namespace

void engine_poll(handle) noexcept
{
    engine_state &e = engine();
    if (e.dead.load(std::memory_order_relaxed) || !engine_try_lock()) [[unlikely]]
        return;
    const bool moved = engine_run();
    e.polls.store(e.polls.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (e.asleep.load(std::memory_order_relaxed)) [[unlikely]] {
        if (++e.polls_asleep >= polls_to_waken)
            awake(e);
        else
            keep_served(e, moved); // this may have been the last poll before the application blocks
    }
    e.idle_polls     = moved ? 0 : e.idle_polls + 1;
    const bool yield = e.idle_polls > e.yield_after;
    if (yield)
        e.idle_polls = 0;
    engine_unlock();
    if (yield) [[unlikely]]
        sched_yield();
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
