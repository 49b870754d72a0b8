/* The exchange that keeps two interfaces agreed: hello, credits, probes, goodbye; and the timers and housekeeping of peers.
 *
 * Owns: control messages in both directions, the work list of peers that are owed something, the timers, the decision
 * which peer a long header belongs to, and when a peer is forgotten.
 * Refuses to know: active messages, endpoints (failure is announced through peer_fail).
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

#include <arpa/inet.h>
#include <bit>
#include <cerrno>
#include <cstring>

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
        p->want &= static_cast<std::uint8_t>(~want_credit); // those headers carry the newest grant
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

} // namespace

void control_want(iface *f, peer *p, std::uint8_t want) noexcept
{
    p->want |= want;
    if (!p->in_work) {
        p->in_work = true;
        f->peers.work_push(f->work, p);
        f->attention |= attend_work;
        if (f->event.armed) [[unlikely]] {
            event_reschedule(f, 0);
        }
    } else if (!f->questions.empty() && ((p->want & ~(want_probe | want_hello)) != 0 || p->retime)) {
        // It may be among those that wait with a question. A list cannot be left in the middle: all of them are looked at again.
        f->peers.work_append(f->work, f->questions);
        f->attention |= attend_work;
        if (f->event.armed) [[unlikely]] {
            event_reschedule(f, 0);
        }
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
        return;
    }
    switch (e.whose) {
    case fault::not_ready:
        count(f, counter::tx_rnr);
        p->want |= again ? want_of(type) : 0; // owed again, not before the timer: it is not put into the work list
        timer_arm(f, p, base::clock_now_ns() + (base::us(50) << p->slow->backoff));
        peer_backoff(f, p);
        return;
    default: // WIRE 5.8
        peer_fail(f, p, e.status, e.meaning, e.cause, device_status);
        return;
    }
}

// --- receiving -----------------------------------------------------------------------------------------------------------

peer *control_resolve(iface *f, std::uint32_t imm, const wire::long_header &h, std::uint16_t qpn,
                      std::uint16_t ah_number, wire::nak_reason reason) noexcept
{
    // WIRE 7.1: who gave this life up itself is not told that we did. Two that failed each other would go on for ever.
    const unsigned type    = (imm & wire::imm_control) ? wire::imm_id(imm) : 0;
    const bool gave_up_too = type == static_cast<unsigned>(wire::control::nak) || type == static_cast<unsigned>(wire::control::bye);
    const auto drop = [f](counter reason) -> peer * {
        count(f, reason);
        return nullptr;
    };

    if (!wire::versions_overlap(h.version, h.version_min)) {
        return drop(counter::rx_dropped_version); // is_reachable refused its address: somebody skipped that
    }
    if (ah_number != ah_number_unknown) {
        const ah_entry *entry = f->ahs.find(h.gid);
        if (entry != nullptr && entry->number != ah_number) {
            return drop(counter::rx_dropped_foreign);
        }
    }
    peer *p = f->peers.find(h.gid, qpn, h.qkey);
    if (p == nullptr || p->epoch_remote != h.epoch) {
        // The message may be from a life that we gave up. That is said also while we hear another life of the sender: which of
        // the two is the newer one, we cannot know, and one that lives must not wait for us for ever.
        peer *dead = f->peers.find_failed(h.gid, qpn, h.qkey, h.epoch);
        if (dead != nullptr) {
            if (!gave_up_too) {
                control_want(f, dead, want_nak);
            }
            return drop(counter::rx_dropped_stale);
        }
    }
    if (p != nullptr && p->epoch_remote != 0 && p->epoch_remote != h.epoch) {
        // A life of the sender's that is over says nothing of the one that we hear, unless it means the same life of ours: then
        // nothing that this life sends is taken any more. To drop that, too, would leave both sides asking for ever.
        if (type == static_cast<unsigned>(wire::control::nak) && reason == wire::nak_reason::stale &&
            h.known_epoch == f->peers.epoch_local(p)) {
            peer_fail(f, p, UCS_ERR_ENDPOINT_TIMEOUT, "refused by the peer", "the peer gave up this connection", 0, false);
        }
        if (gave_up_too || h.epoch == p->slow->epoch_past) {
            return drop(counter::rx_dropped_stale);
        }
        const std::uint32_t past = p->epoch_remote;
        peer_fail(f, p, UCS_ERR_ENDPOINT_TIMEOUT, "new life of the peer", "the peer restarted, or gave us up", 0,
                  false);
        p = f->peers.create(h.gid, qpn, h.qkey, base::clock_now_ns());
        if (p == nullptr) {
            return drop(counter::rx_dropped_no_peer);
        }
        f->peers.slow_get(p)->epoch_past = past; // a new peer has one
        count(f, counter::peers_created);
    }
    if (p == nullptr && gave_up_too) {
        return drop(counter::rx_dropped_stale); // who says goodbye begins no life
    }
    if (p == nullptr) {
        p = f->peers.create(h.gid, qpn, h.qkey, base::clock_now_ns());
        if (p == nullptr) {
            return drop(counter::rx_dropped_no_peer);
        }
        count(f, counter::peers_created);
    }
    if (h.known_epoch != 0 && h.known_epoch != f->peers.epoch_local(p)) {
        // The sender talks to a former life of ours. The answer tells it our epoch.
        control_want(f, p, want_hello);
        return drop(counter::rx_dropped_stale);
    }
    p->epoch_remote = h.epoch;
    p->heard_at     = static_cast<std::uint16_t>(base::clock_now_ns() / base::sec(1));
    return p;
}

void control_heard_long(iface *f, peer *p, std::uint32_t imm, const wire::long_header &h) noexcept
{
    const bool control  = imm & wire::imm_control;
    const unsigned type = wire::imm_id(imm);

    if (control && type == static_cast<unsigned>(wire::control::nak)) {
        return; // it names our epoch, and refuses all the same
    }
    // WIRE 4.2: short headers only towards a peer that has said it knows our epoch.
    if (p->state == peer_state::fresh && h.known_epoch == f->peers.epoch_local(p) && h.your_index != wire::index_none) {
        p->index_remote = h.your_index;
        p->state        = peer_state::open;
        p->want &= static_cast<std::uint8_t>(~want_hello);
        if (p->slow->hello_due != 0) {
            f->peers.slow_get(p)->hello_due = 0;
        }
        f->peers.slow_put_idle(p);
    }
    // WIRE 4.3: one answer for each nonce; any long header of a peer that asks is a question.
    const bool asks = !control || type == static_cast<unsigned>(wire::control::hello) ||
                      type == static_cast<unsigned>(wire::control::credit) ||
                      type == static_cast<unsigned>(wire::control::probe) ||
                      type == static_cast<unsigned>(wire::control::nop);
    if (asks && !(p->answered && p->nonce_answer == h.nonce)) {
        p->nonce_answer = h.nonce;
        p->answered     = false;
        control_want(f, p, want_hello_ack);
    }
}

namespace {

/// WIRE 4.4: the peer cannot answer us. It tries again, and so do we, but not for ever.
void control_refused(iface *f, peer *p) noexcept
{
    peer_slow *s = f->peers.slow_get(p);

    if (s == nullptr || p->state != peer_state::fresh) {
        return; // an old one: it has answered since
    }
    if (s->refusals++ == 0) {
        char gid[INET6_ADDRSTRLEN] = "?";
        inet_ntop(AF_INET6, p->gid().data(), gid, sizeof(gid));
        ucs_diag("srd: peer GID %s QPN %u has no address handle left to answer us; it tries again", gid, p->qpn);
    }
    if (s->refusals >= limits::refusals_max) {
        peer_fail(f, p, UCS_ERR_UNREACHABLE, "refused by the peer",
                  "its device has no address handle left: it talks to too many devices", 0, false);
    }
}

} // namespace

bool control_receive(iface *f, peer *p, std::uint32_t imm, const unsigned char *body, std::size_t size) noexcept
{
    const bool is_long = imm & wire::imm_long;

    switch (static_cast<wire::control>(wire::imm_id(imm))) {
    case wire::control::hello:
    case wire::control::hello_ack:
        return is_long && size == 0; // all of it is in the header
    case wire::control::credit:
        return (is_long || (imm & wire::imm_credit)) && size == 0;
    case wire::control::probe:
        if (imm & wire::imm_want_consumed) {
            control_want(f, p, want_credit);
        }
        return size == 0;
    case wire::control::nak:
        if (!is_long || size != 1) {
            return false;
        }
        switch (static_cast<wire::nak_reason>(body[0])) {
        case wire::nak_reason::no_address_handle:
            control_refused(f, p);
            return true;
        case wire::nak_reason::stale:
            peer_fail(f, p, UCS_ERR_ENDPOINT_TIMEOUT, "refused by the peer", "the peer gave up this connection", 0, false);
            return true;
        }
        return false;
    default:
        return false;
    }
}

// --- addresses and grants --------------------------------------------------------------------------------------------------

bool peer_address(iface *f, peer *p) noexcept
{
    if (p->ah_ref != nullptr) {
        return true;
    }
    p->ah_ref = f->ahs.get(p->gid());
    if (p->ah_ref == nullptr) {
        const int why = errno;
        f->ah_short_at = base::clock_now_ns();
        if (f->counters.get(counter::ah_failed) == 0) { // say it once
            char gid[INET6_ADDRSTRLEN] = "?";
            inet_ntop(AF_INET6, p->gid().data(), gid, sizeof(gid));
            ucs_warn("srd: no address handle for GID %s (errno %d; %zu in use by this interface, %u on the device): it is told so,"
                     " and waits until one is free", gid, why, f->ahs.count(), f->md->attr.max_ah);
        }
        count(f, counter::ah_failed);
        return false;
    }
    p->ah = p->ah_ref->ah;
    if (p->state != peer_state::failed && !f->closing) { // those two accept nothing, but still answer
        p->key = key_make(p->index_local(), p->ah_ref->number, p->qpn);
    }
    f->peers.slow_put_idle(p);
    return true;
}

// All grants together fit the receive queue, so that a correct sender meets a receive (IFC-4). What each active sender has left
// is summed up exactly; a share is the queue divided by their number, but nobody gets it at once: a sender is granted more as
// it uses what it has, because whoever comes first would else hold the whole queue when the others come. Where good
// grants exceed the queue, the queue grows, and shrinks when they are used.
namespace {

/// Receives that are not granted: a probe or hello of each active sender, and the first messages of new ones.
std::uint32_t grant_reserve(const iface *f) noexcept { return f->rx.queue_len / limits::reserve_divisor + f->rx.active; }

constexpr std::uint32_t left_of(std::uint32_t whole, std::uint32_t part) noexcept { return whole > part ? whole - part : 0; }

} // namespace

void grant_renew(iface *f, peer *p) noexcept
{
    if (p->state == peer_state::failed || f->closing) {
        return; // it is told off, or goodbye
    }
    auto &rx                       = f->rx;
    const std::uint32_t outstanding = p->credit.outstanding();
    const bool used                = p->credit.is_due(p->rx.expected());
    if (p->activity != 0) {
        rx.granted -= outstanding;
    } else {
        ++rx.active;
    }
    p->activity                 = f->activity;
    const std::uint32_t reserve = grant_reserve(f);
    const std::uint32_t largest = left_of(rx.queue_max, reserve) / rx.active; // if the queue grows as far as it can
    const std::uint32_t good    = largest < limits::good_grant ? largest : limits::good_grant;
    const std::uint32_t usual   = left_of(rx.queue_len, reserve) / rx.active;
    std::uint32_t share         = usual < good ? good : usual;
    if (share < 2 * limits::good_grant) {
        share = std::bit_floor(share | 1); // halves of it are whole: else some senders wait for half a grant and some for all
    }
    const std::uint32_t ramp    = used ? outstanding * limits::grant_growth : outstanding;
    const std::uint32_t room    = left_of(rx.queue_max, rx.granted + reserve);
    std::uint32_t grant         = share < ramp ? share : ramp;
    grant                       = grant < room ? grant : room;
    p->credit.renew(p->rx.expected(), grant < f->window ? grant : f->window); // which keeps it between its bounds
    rx.granted += p->credit.outstanding();
    rx_set_attention(p);
    if (rx.granted + reserve > rx.target && rx.target < rx.queue_max) {
        rx_set_target(f, rx.granted + reserve); // posted at the end of the next progress call, before the sender can answer
    }
}

void grant_leave(iface *f, peer *p) noexcept
{
    if (p->activity != 0) {
        f->rx.granted -= p->credit.outstanding();
        --f->rx.active;
        p->activity = 0;
    }
}

// --- time ------------------------------------------------------------------------------------------------------------------

void peer_backoff(iface *f, peer *p) noexcept
{
    peer_slow *s = f->peers.slow_get(p);
    if (s != nullptr && s->backoff < 9) { // 20 us .. 10 ms
        ++s->backoff;
    }
}

void timer_arm(iface *f, peer *p, base::time_ns due) noexcept
{
    peer_slow *s = f->peers.slow_get(p);

    if (s == nullptr) { // no memory: tried again from the next progress call on
        p->retime = true;
        control_want(f, p, 0);
        return;
    }
    if (s->timer_due == 0 || due < s->timer_due) {
        s->timer_due = due;
    }
    if (f->timers == nullptr || s->timer_due < f->timer_min) {
        f->timer_min = s->timer_due;
        if (f->event.armed) [[unlikely]] {
            event_reschedule(f, f->timer_min);
        }
    }
    if (!p->in_timers) {
        p->in_timers  = true;
        s->timer_next = f->timers;
        f->timers     = p;
    }
    if (f->tick > limits::armed_tick) {
        f->tick = limits::armed_tick;
    }
}

namespace {

void timer_fire(iface *f, peer *p, base::time_ns now) noexcept
{
    if (p->state == peer_state::failed) {
        return;
    }
    if (p->waiting_count != 0) {
        control_want(f, p, want_repost);
    }
    if (f->closing) {
        return; // nothing new is begun
    }
    peer_slow *s = f->peers.slow_get(p); // it has one: its timer was armed
    if (p->state == peer_state::fresh && s->hello_due != 0) {
        if (now >= s->hello_due) {
            ++s->nonce;
            s->hello_due = now + (f->hello_interval << s->hello_backoff);
            if (s->hello_backoff < 5) {
                ++s->hello_backoff;
            }
            control_want(f, p, want_hello);
        }
        timer_arm(f, p, s->hello_due);
    }
    if (p->eps != nullptr && p->waiting_count == 0 && !p->tx.may_send()) {
        // WIRE 6.9: out of credits. What is outstanding would tell of the peer's death; with nothing outstanding, ask.
        if (p->tx.empty() && p->control_in_flight == 0) {
            control_want(f, p, want_probe);
        }
        timer_arm(f, p, now + limits::stall_probe_ns);
    }
    if (p->want != 0) {
        control_want(f, p, 0);
    }
}

/// Whether nothing refers to the peer any more and nothing is lost by forgetting it.
bool may_forget(const peer *p, std::uint16_t now_s) noexcept
{
    // A failed one stays a while: what still arrives from that life must not pass for a new one.
    const bool over = (p->state == peer_state::failed && static_cast<std::uint16_t>(now_s - p->heard_at) >= limits::failed_rest_s) ||
                      (p->bye_received && p->rx.held() == 0) ||
                      (p->epoch_remote == 0 && p->tx.next() == base::seq32(0)); // never talked
    return over && p->eps == nullptr && p->tx.empty() && p->control_in_flight == 0 && !p->in_work && !p->in_timers;
}

void forget(iface *f, peer *p, base::time_ns now) noexcept
{
    ah_entry *ah_ref = p->ah_ref;

    grant_leave(f, p);
    rx_purge(f, p);
    f->peers.release(p, now); // looks at the GID, which may be the entry's
    if (ah_ref != nullptr) {
        f->ahs.put(ah_ref);
    }
    count(f, counter::peers_released);
}

/// A share of the peers each millisecond, so that the cost is spread; what a program missed while it slept is made up for.
void housekeep(iface *f, base::time_ns now, base::time_ns since) noexcept
{
    constexpr std::uint64_t slots_per_ms = 64;
    const std::uint64_t slots_per_turn   = slots_per_ms * ((now - since) / base::ms(1));

    const auto now_s         = static_cast<std::uint16_t>(now / base::sec(1));
    const bool handles_short = f->ah_short_at != 0 && now - f->ah_short_at < base::sec(1); // who is gone must give his back

    if (now - f->activity_at >= limits::activity_period_ns) {
        f->activity_at = now;
        f->activity    = f->activity != UINT8_MAX ? static_cast<std::uint8_t>(f->activity + 1) : 1; // 0 means "not counted"
    }
    for (std::uint32_t i = 0; i < slots_per_turn && i < f->peers.slots_used(); ++i) {
        if (f->scan_slot >= f->peers.slots_used()) {
            f->scan_slot = 0;
        }
        peer *p = f->peers.at(f->scan_slot++);
        if (!f->peers.is_live(p)) {
            continue;
        }
        if (may_forget(p, now_s)) {
            forget(f, p, now);
            continue;
        }
        if (p->activity != f->activity && p->activity + 1 != f->activity) {
            grant_leave(f, p); // silent for a period at least: what it has left stays its own, but is not counted on
        }
        // What is outstanding tells of the peer's death by itself; a peer that owes nothing must be asked.
        const base::time_ns interval = p->eps != nullptr ? f->keepalive_interval : handles_short ? base::sec(1) : f->probe_interval;
        if (interval != 0 && p->epoch_remote != 0 && p->tx.empty() && p->control_in_flight == 0 &&
            p->state != peer_state::failed && base::sec(static_cast<std::uint16_t>(now_s - p->heard_at)) >= interval) {
            p->heard_at = now_s;
            control_want(f, p, want_probe);
        }
    }
    if (f->rx.target > f->rx.queue_len) {
        const std::uint32_t needed = f->rx.granted + grant_reserve(f);
        rx_set_target(f, needed > f->rx.queue_len ? needed : f->rx.queue_len);
    }
}

} // namespace

void control_tick(iface *f) noexcept
{
    const base::time_ns now = base::clock_now_ns();
    peer *list              = f->timers;

    f->event.armed = false;
    f->timers      = nullptr;
    while (list != nullptr) {
        peer *p       = list;
        peer_slow *s  = f->peers.slow_get(p);
        list          = s->timer_next;
        s->timer_next = nullptr;
        p->in_timers  = false;
        if (s->timer_due > now) {
            timer_arm(f, p, s->timer_due);
        } else {
            s->timer_due = 0;
            timer_fire(f, p, now);
            f->peers.slow_put_idle(p);
        }
    }
    if (now - f->ticked_at >= base::ms(1)) {
        housekeep(f, now, f->ticked_at);
        f->ticked_at = now;
    }
    f->tick = f->timers != nullptr ? limits::armed_tick : limits::idle_tick;
}

} // namespace srd
