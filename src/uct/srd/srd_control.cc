/* Control messages out: what peers are owed (hello, credits, probes, refusals, goodbye) and how it is paid.
 *
 * Owns: the work list of peers that are owed something, the control slots of the send queue, and what the end of a control
 * message means for its peer.
 * Refuses to know: active messages, endpoints (failure is announced through peer_fail), what control messages that arrive mean
 * (srd_hello), when something falls due (srd_housekeeping).
 *
 * Owed work is a bit per kind and peer (peer_want), not a queue of messages: saying it twice is saying it once, nothing is
 * allocated, and a control message that could not be sent or was refused is simply owed again. The list runs at the start
 * of a progress call and so serves what earlier calls queued: a reply sent by the program in between carries the
 * credits, and only one-way traffic pays for messages of their own.
 *
 * Control has send queue slots and buffers of its own (IFC-2). Address handles are created a few at a time, because each
 * is an admin command of the device and a burst of new senders must not stall the senders that are known.
 * Questions (probes, and hellos to peers never heard), to which a dead host does not answer and which then
 * hold a slot until the device gives up, may take half of them: the living go on while a host of a hundred peers dies.
 */
#include "uct/srd/srd_iface.h"

namespace srd {

namespace {

/// The control message that pays each debt, in the order in which they are sent.
struct debt {
    std::uint8_t want;
    wire::control type;
};
constexpr debt debts[] = {
    {want_hello_ack, wire::control::hello_ack}, {want_hello, wire::control::hello}, {want_credit, wire::control::credit},
    {want_probe, wire::control::probe},         {want_nak, wire::control::nak},     {want_bye, wire::control::bye},
};

std::uint8_t want_of(wire::control type) noexcept
{
    for (const debt &d : debts) {
        if (d.type == type) {
            return d.want;
        }
    }
    return 0;
}

bool needs_long(const peer *p, wire::control type) noexcept
{
    return p->state == peer_state::fresh || p->state == peer_state::failed || type == wire::control::hello ||
           type == wire::control::hello_ack || type == wire::control::nak;
}

/// Sends one control message. False: no slot, buffer or record now.
bool control_send(iface *f, peer *p, wire::control type, wire::nak_reason reason = wire::nak_reason::stale) noexcept
{
    if (f->tx.control_free == 0 || f->tx.control_bufs == nullptr) {
        return false;
    }
    op *o = f->ops.get();
    if (o == nullptr) {
        return false;
    }
    tx_buf *buf = f->tx.control_bufs;
    const std::uint32_t header_flags = needs_long(p, type) ? wire::imm_long :
                                       type == wire::control::credit ? wire::imm_credit : 0;
    const unsigned header_size = tx_put_header(f, p, buf->payload, header_flags);
    unsigned body_size         = 0;
    base::seq32 psn(0);

    if (type == wire::control::hello_ack) { // WIRE 4.3: the nonce of the hello that it answers
        base::store_le<std::uint16_t>(buf->payload - header_size + wire::long_nonce_offset, p->nonce_answer);
    } else if (type == wire::control::nak) {
        buf->payload[0] = static_cast<unsigned char>(reason); // WIRE 5.3
        body_size       = 1;
    } else if (type == wire::control::bye) {
        psn = p->tx.next(); // nothing is outstanding, nothing follows: it needs no place in the window
    }
    *o         = {};
    o->owner   = p;
    o->imm     = wire::imm_make(static_cast<unsigned>(type), psn,
                                header_flags | wire::imm_control |
                                    (type == wire::control::probe ? wire::imm_want_consumed : 0));
    o->length  = static_cast<std::uint16_t>(header_size + body_size);
    o->kind    = op_kind::control;
    o->ref.buf = buf;
    if (tx_post_control(f, p, o, buf->payload - header_size, o->length) != 0) {
        f->ops.put(o);
        return false;
    }
    f->tx.control_bufs = buf->next;
    --f->tx.control_free;
    ++p->control_in_flight;
    if (reason == wire::nak_reason::stale) {
        p->want &= static_cast<std::uint8_t>(~want_of(type));
    }
    if (header_flags != 0) {
        grant_told(p); // those headers carry the newest grant
    }
    if (type == wire::control::hello_ack) {
        p->answered = true;
    }
    count(f, counter::tx_control);
    return true;
}

/// Whether it is the message that says "no address handle", which went out with the one that is kept back.
bool is_refusal(const op *o) noexcept
{
    return wire::imm_id(o->imm) == static_cast<unsigned>(wire::control::nak) &&
           o->ref.buf->payload[0] == static_cast<unsigned char>(wire::nak_reason::no_address_handle);
}

/// Asks whether the peer lives, or whether there is one: nothing else depends on it being sent now.
bool is_question(const peer *p, std::uint8_t want) noexcept
{
    return want == want_probe || (want == want_hello && p->epoch_remote == 0);
}

bool questions_may_go(const iface *f) noexcept { return f->tx.control_free > limits::control_slots / 2; }

/// `again`: what else is owed to the peer may follow now.
void control_finished(iface *f, op *o, bool again) noexcept
{
    tx_buf *buf        = o->ref.buf;
    peer *p            = o->owner;
    if (is_refusal(o)) {
        f->ahs.give_back();
    }
    buf->next          = f->tx.control_bufs;
    f->tx.control_bufs = buf;
    ++f->tx.control_free;
    --p->control_in_flight;
    f->ops.put(o);
    if (!f->questions.empty() && questions_may_go(f)) {
        f->attention |= attend_work;
    }
    if (again && p->want != 0 && p->ah != nullptr) {
        control_want(f, p, 0); // what its share of the slots did not allow before
    }
}

/// A peer has one control message under way, or two while most slots are free: peers that do not answer, because they are stopped
/// or their host is gone, hold slots for seconds, and a few of them must not hold all.
bool share_is_used(const iface *f, const peer *p) noexcept
{
    return p->control_in_flight >= (f->tx.control_free > limits::control_slots / 2 ? 2 : 1);
}

/// No address handle can be had for the peer. It is told with the one that is kept back, if that is free (AHT-3).
void control_refuse(iface *f, peer *p) noexcept
{
    if (p->state == peer_state::failed || f->closing || share_is_used(f, p)) {
        return;
    }
    p->ah = f->ahs.borrow(p->gid());
    if (p->ah != nullptr && !control_send(f, p, wire::control::nak, wire::nak_reason::no_address_handle)) {
        f->ahs.give_back();
    }
    p->ah = nullptr; // the request that was posted names it
}

peer *work_pop(iface *f) noexcept
{
    peer *p = f->peers.work_pop(f->work);
    if (p != nullptr) {
        p->in_work = false;
    }
    return p;
}

/// A timer that could not be armed for want of memory. False: still none.
bool control_retime(iface *f, peer *p) noexcept
{
    peer_slow *s = f->peers.slow_get(p);
    if (s == nullptr) {
        return false;
    }
    p->retime                = false;
    const base::time_ns due = base::clock_now_ns() + f->hello_interval;
    if (p->state == peer_state::fresh && s->hello_due == 0) {
        s->hello_due = due;
    }
    timer_arm(f, p, due);
    return true;
}

/// Pays what is owed to one peer, as far as slots go. False: it must wait in the list. What waits for a place in the send queue
/// holds back no control message, which has its own.
bool control_pay(iface *f, peer *p, unsigned &ah_budget, unsigned &told) noexcept
{
    if (p->retime && !control_retime(f, p)) [[unlikely]] {
        return false;
    }
    if (p->want & want_report) {
        p->want &= static_cast<std::uint8_t>(~want_report);
        tx_drain(f, p); // what peer_fail left, if it was called from a callback
        told += peer_report(f, p);
    }
    if (p->state == peer_state::failed) {
        p->want &= want_nak;
    } else if ((p->want & want_repost) && tx_repost(f, p)) {
        p->want &= static_cast<std::uint8_t>(~want_repost);
    }
    const bool reposted = !(p->want & want_repost);
    if ((p->want & static_cast<std::uint8_t>(~want_repost)) == 0) {
        return reposted;
    }
    if (p->ah == nullptr) {
        if (p->in_timers) {
            return reposted; // there was none for it a moment ago: not before the timer
        }
        if (ah_budget == 0) {
            return false;
        }
        --ah_budget;
        if (!peer_address(f, p)) {
            if (p->state == peer_state::failed) {
                p->want = 0; // it is not worth a handle
                return true;
            }
            control_refuse(f, p);
            timer_arm(f, p, base::clock_now_ns() + f->hello_interval);
            return true;
        }
    }
    bool held_back = false;
    for (const debt &d : debts) {
        if (!(p->want & d.want)) {
            continue;
        }
        if (share_is_used(f, p)) {
            return reposted; // control_finished brings it back
        }
        if (is_question(p, d.want) && !questions_may_go(f)) {
            held_back = true;
        } else if (!control_send(f, p, d.type)) {
            return false;
        }
    }
    if (held_back && reposted && !p->in_work) {
        p->in_work = true;
        f->peers.work_push(f->questions, p);
    }
    return reposted;
}

/// The receiver was not ready: owed again, not before the timer. It is not put into the work list.
void control_again_later(iface *f, peer *p, std::uint8_t want) noexcept
{
    count(f, counter::tx_rnr);
    p->want |= want;
    timer_arm(f, p, base::clock_now_ns() + (base::us(50) << p->slow->backoff));
    peer_backoff(f, p);
}

} // namespace

void control_want(iface *f, peer *p, std::uint8_t want) noexcept
{
    p->want |= want;
    bool due = p->want != want_repost; // that waits for a completion, which wakes
    if (!p->in_work) {
        p->in_work = true;
        f->peers.work_push(f->work, p);
        f->attention |= attend_work;
        due = true;
    } else if (!f->questions.empty() && ((p->want & ~(want_probe | want_hello)) != 0 || p->retime)) {
        // It may be among those that wait with a question. A list cannot be left in the middle: all of them are looked at again.
        f->peers.work_append(f->work, f->questions);
        f->attention |= attend_work;
        due = true;
    }
    if (due && f->event.armed) [[unlikely]] {
        event_reschedule(f, 0);
    }
}

void control_hello_now(iface *f, peer *p) noexcept
{
    if (p->ah == nullptr || share_is_used(f, p)) {
        return; // it is still owed
    }
    if (p->want & want_hello_ack) {
        (void)control_send(f, p, wire::control::hello_ack); // says all that a hello says
    } else if ((p->want & want_hello) && (!is_question(p, want_hello) || questions_may_go(f))) {
        (void)control_send(f, p, wire::control::hello);
    }
}

bool control_can_go_on(iface *f) noexcept
{
    if (!f->questions.empty() && questions_may_go(f)) {
        return true;
    }
    if (f->tx.sq_free != 0) {
        return !f->work.empty();
    }
    // A full send queue: who waits only to send again waits for a completion, which wakes.
    peer_table::work_list looked_at;
    bool found = false;
    while (peer *p = f->peers.work_pop(f->work)) {
        found |= p->want != want_repost || p->retime || p->state == peer_state::failed;
        f->peers.work_push(looked_at, p);
    }
    f->work = looked_at;
    return found;
}

unsigned control_run(iface *f) noexcept
{
    unsigned ah_budget = limits::ah_creations_per_turn;
    unsigned told      = 0;

    for (unsigned free = f->tx.control_free; free > limits::control_slots / 2 && !f->questions.empty(); --free) {
        f->peers.work_push(f->work, f->peers.work_pop(f->questions));
    }
    for (unsigned turn = 0; turn < limits::control_per_turn; ++turn) {
        peer *p = work_pop(f);
        if (p == nullptr) {
            break;
        }
        if (!control_pay(f, p, ah_budget, told)) {
            control_want(f, p, 0);
        }
    }
    if (f->work.empty() && (f->questions.empty() || !questions_may_go(f))) {
        f->attention &= static_cast<std::uint8_t>(~attend_work);
    }
    return told;
}

void control_complete(iface *f, op *o) noexcept
{
    peer *p = o->owner;

    p->heard_at = static_cast<std::uint16_t>(base::clock_now_ns() / base::sec(1));
    if (p->slow->backoff != 0 && p->slow->rnr_since == 0) { // what control messages raised; tx_rnr_over looks after the others
        f->peers.slow_get(p)->backoff = 0;
        f->peers.slow_put_idle(p);
    }
    control_finished(f, o, true);
}

void control_complete_error(iface *f, op *o, const error_meaning &e, std::uint32_t device_status) noexcept
{
    peer *p         = o->owner;
    const auto type = static_cast<wire::control>(wire::imm_id(o->imm));
    const bool again = !is_refusal(o); // its timer repeats that
    const bool over  = f->closing || p->state == peer_state::failed;

    // Not ready for this message is not ready for the others that are owed: the timer brings them back, too.
    control_finished(f, o, over || e.whose != fault::not_ready);
    if (over) {
        if (!f->closing && again && type == wire::control::nak && e.whose == fault::not_ready) {
            // It lives, and must learn that we gave it up: a life that is forgotten before would talk into nothing for ever.
            control_again_later(f, p, want_nak);
            p->heard_at = static_cast<std::uint16_t>(base::clock_now_ns() / base::sec(1)); // may_forget counts from here
        }
        return;
    }
    switch (e.whose) {
    case fault::not_ready:
        control_again_later(f, p, again ? want_of(type) : 0);
        return;
    default: // WIRE 5.8
        peer_fail(f, p, e.status, e.meaning, e.cause, device_status);
        return;
    }
}

} // namespace srd
