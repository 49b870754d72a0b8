/* The pass: one look at everything that may have work.
 *
 * Owns: the order of a pass and its bounds. Doorbells that were announced, timers (now and then), then every peer: first what it answered and
 * sent, then what waits to be sent to it, then the positions, once. Also the poll, which is a pass on behalf of the application, and what it
 * does besides: it notices that the application is back, offers the processor when it finds nothing, and leaves the lock to a command (ENG-5).
 * Refuses to know what an answer or a record means (requester.cc, responder.cc) and how the lock changes hands (engine.cc).
 *
 * A pass takes from each peer at most records_per_run records, bytes_per_run bytes and acks_per_run answers, so that no peer holds up the others.
 * Disorder that was asked for (SOFTEFA_REORDER) is made here: neighbours that have no order are served in the other one.
 */
#include "softefa/dev/engine.h"

#include "base/clock.h"
#include "softefa/dev/engine_lock.h"
#include "softefa/dev/helper.h"
#include "softefa/dev/op_life.h"

#include <bit>
#include <optional>
#include <sched.h>
#include <utility>

namespace softefa::dev {

namespace {

constexpr char     bad_position[] = "position beyond what was sent";
constexpr unsigned polls_to_waken = 64; ///< in a row, until the application counts as polling again
constexpr base::time_ns waken_within = base::ms(32); ///< if they took longer it does not: it waits elsewhere in between

[[gnu::noinline]] bool run_dirty(engine_state &e) noexcept
{
    std::uint64_t words = e.dirty_words.exchange(0, std::memory_order_seq_cst);
    bool          moved = false;
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

[[gnu::noinline]] void requester_answer_uncommon(link &l, const wire::ack &a) noexcept
{
    if (engine().record_data)
        record(record_kind::ack_in, 0, 0, 0, static_cast<unsigned>(a.status), a.op, 0);
    requester_ack(l, a);
}

/// Most answers are the success of a send; what that is not goes the whole way.
inline void requester_answer(engine_state &e, link &l, const wire::ack &a) noexcept
{
    op *o = op_named(l, a.op);
    if (o != nullptr && a.status == wire::efa_status::ok && !a.is_read && o->state == op_state::in_flight && o->kind == op_kind::send &&
        !(e.record_data | e.wire_modelled)) [[likely]]
        op_succeed(*o);
    else
        requester_answer_uncommon(l, wire::ack{a});
}

/// The answer behind the current one comes first.
[[gnu::noinline]] unsigned swap_answers(engine_state &e, link &l) noexcept
{
    wire::ack b;
    if (!l.channel->acks_in.peek_ahead(b, 1))
        return 0;
    requester_answer_uncommon(l, b);
    ++e.counters[0].reorders;
    return 1;
}

bool run_acks(engine_state &e, link &l) noexcept
{
    fabric::ack_rx &in = l.channel->acks_in;
    wire::ack       a;
    unsigned        done = 0;
    while (done < limits::acks_per_run && (!l.failed || l.lingers) && in.peek(a)) {
        if (swap_due(e)) [[unlikely]] {
            if (const unsigned swapped = swap_answers(e, l); swapped != 0) {
                done += swapped;
                in.advance();
            }
        }
        requester_answer(e, l, a);
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

/// Serves the record behind `h` first, then `h`, if both allow it: bytes of the other one, or nothing if they do not. Fails the link if it was given up.
[[gnu::noinline]] std::optional<std::uint32_t> swap_records(engine_state &e, link &l, const wire::header &h) noexcept
{
    fabric::data_rx &in = l.channel->rx;
    wire::header     next;
    if (!swappable(h) || in.peek_next(h, next) != fabric::data_rx::outcome::record || !swappable(next))
        return std::nullopt;
    if (!in.claim(h, &next)) [[unlikely]] {
        link_given_up(l);
        return 0;
    }
    responder_record(l, next, in.payload_next(h));
    responder_record(l, h, in.payload());
    in.advance(h);
    in.advance(next);
    ++e.counters[0].reorders;
    return next.payload_size;
}

/// For the acknowledgement of the next record.
[[gnu::noinline]] void no_room_for_answers(engine_state &e, link &l) noexcept
{
    ++e.counters[0].ring_stalls;
    if (l.channel->acks_out.violated())
        link_fail(l, bad_position);
}

bool run_records(engine_state &e, link &l) noexcept
{
    using outcome = fabric::data_rx::outcome;
    fabric::data_rx &in    = l.channel->rx;
    std::uint32_t    bytes = 0;
    unsigned         done  = 0;
    const auto       begun = in.position();
    while (done < limits::records_per_run && bytes < limits::bytes_per_run && !l.failed && !in.empty()) {
        wire::header  h;
        const outcome seen = in.peek_there(h);
        if (seen != outcome::record) [[unlikely]] {
            if (seen == outcome::violation)
                link_fail(l, "record outside its ring");
            break;
        }
        if (!l.channel->acks_out.has_room(2)) [[unlikely]] {
            no_room_for_answers(e, l);
            break;
        }
        if (swap_due(e)) [[unlikely]] {
            if (const auto other = swap_records(e, l, h)) {
                if (l.failed)
                    break;
                bytes += h.payload_size + *other + std::exchange(l.copied, 0);
                done += 2;
                continue;
            }
        }
        if (!in.claim(h)) [[unlikely]] {
            link_given_up(l);
            break;
        }
        SOFTEFA_POINT(record_claimed);
        responder_record(l, h, in.payload());
        in.advance(h);
        ++done;
        bytes += h.payload_size + std::exchange(l.copied, 0);
    }
    if (in.position() != begun) { // a pad may have been all there was
        l.rx_touched = true;
        link_touch(l); // a sleeping producer may wait for the room
    }
    return done != 0;
}

/// Completion and receive completion have no order either.
[[gnu::noinline]] bool records_first(engine_state &e, link &l) noexcept { return run_records(e, l) | run_acks(e, l); }

[[gnu::noinline]] bool run_lists(link &l) noexcept
{
    if (!l.has_work())
        return false;
    bool moved = requester_link_work(l);
    moved |= responder_reads(l);
    if (l.channel->tx.violated() || l.channel->acks_out.violated()) [[unlikely]] // what waits for room would wait for ever
        link_fail(l, bad_position);
    return moved;
}

/// The part of a pass that concerns one link.
[[gnu::always_inline]] inline bool run_link(engine_state &e, link &l) noexcept
{
    bool       moved = false;
    const bool acks = !l.channel->acks_in.empty(), records = !l.channel->rx.empty();
    if (l.failed) [[unlikely]] {
        if (l.lingers)
            return run_acks(e, l); // CUT-2
    } else if (acks | records) {
        if (swap_due(e)) [[unlikely]] {
            moved = records_first(e, l);
        } else {
            if (acks)
                moved = run_acks(e, l);
            if (records)
                moved |= run_records(e, l);
        }
    }
    if (l.has_lists()) [[unlikely]]
        moved |= run_lists(l);
    if (l.rx_touched) {
        l.rx_touched = false;
        l.channel->rx.publish();
        SOFTEFA_POINT(positions_half);
        l.channel->acks_in.publish();
        SOFTEFA_POINT(positions_given_back);
    }
    return moved;
}

} // namespace

bool engine_run_link(link &l) noexcept { return run_link(engine(), l); }

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

namespace {

[[gnu::noinline]] bool run_timers(engine_state &e) noexcept
{
    return e.has_timers() && ++e.timer_skip % timer_polls == 0 && requester_timers(base::clock_now_ns());
}

[[gnu::noinline]] bool run_queues(engine_state &e) noexcept
{
    bool moved = false;
    if (e.cq_overflowing != 0)
        objects().cqs.for_each([&](cq &c) { moved |= c.overflow_count != 0 && cq_drain_overflow(c); });
    if (e.events_owed != 0)
        cq_settle_events();
    e.rare = (e.has_timers() ? rare_timers : 0) | (e.cq_overflowing != 0 ? rare_overflow : 0) | (e.events_owed != 0 ? rare_events : 0);
    return moved;
}

[[gnu::always_inline]] inline bool run(engine_state &e) noexcept
{
    bool moved = false;
    if (e.dirty_words.load(std::memory_order_seq_cst) != 0) [[unlikely]] // ENG-1
        moved = run_dirty(e);
    if (e.rare != 0) [[unlikely]]
        moved |= run_timers(e);
    for (unsigned i = 0; i < e.link_count; ++i)
        if (link *l = e.links[i]; l != nullptr)
            moved |= run_link(e, *l);
    if (e.rare != 0) [[unlikely]]
        moved |= run_queues(e);
    return moved;
}

} // namespace

bool engine_run() noexcept { return run(engine()); }

namespace {

/// The application polls: peers need not wake the helper any more.
[[gnu::noinline]] void awake(engine_state &e) noexcept
{
    e.park_word = (e.park_word + 2) & ~1u;
    for (unsigned i = 1; i < e.link_count; ++i)
        if (e.links[i] != nullptr)
            e.links[i]->channel->own.control()->park.store(e.park_word, std::memory_order_relaxed);
    e.asleep.store(false, std::memory_order_relaxed);
    helper_kick();
}

/// A poll while the process counts as asleep. True: it does not any more.
[[gnu::noinline]] bool polls_in_earnest(engine_state &e) noexcept
{
    if (e.polls_asleep == 0)
        e.polls_asleep_since = base::clock_now_ns();
    if (++e.polls_asleep < polls_to_waken)
        return false;
    e.polls_asleep = 0;
    if (base::clock_now_ns() - e.polls_asleep_since > waken_within)
        return false;
    awake(e);
    return true;
}

/// ENG-5: whether this poll leaves the lock to a command.
[[gnu::noinline]] bool gives_way(engine_state &e) noexcept
{
    if (e.gave_way.fetch_add(1, std::memory_order_relaxed) % limits::polls_per_pass == 0)
        return false;
    sched_yield(); // whoever waits may be waiting for a processor as well
    return true;
}

} // namespace

void engine_poll(handle) noexcept
{
    engine_state &e = engine();
    if (e.dead.load(std::memory_order_relaxed) || (e.waiters.load(std::memory_order_relaxed) != 0 && gives_way(e)) || !try_lock(e)) [[unlikely]]
        return;
    const bool moved = run(e);
    e.polls.store(e.polls.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (e.asleep.load(std::memory_order_relaxed)) [[unlikely]] {
        if (!polls_in_earnest(e))
            keep_served(e, moved); // this may have been the last poll before the application blocks
    }
    e.idle_polls     = moved ? 0 : e.idle_polls + 1;
    const bool yield = e.idle_polls > e.yield_after;
    if (yield) [[unlikely]]
        e.idle_polls = 0;
    unlock(e);
    if (yield) [[unlikely]]
        sched_yield();
}

} // namespace softefa::dev
