/* What long headers and control messages say: which life of a peer speaks, to which life of ours, and what it asks for.
 *
 * Owns: the decision which peer a long header belongs to, the step from fresh to open, who is answered, what a refusal (NAK)
 * ends, and the address handle of a peer.
 * Refuses to know: how an answer is sent (srd_control owes it), active messages, endpoints (failure is announced through
 * peer_fail).
 *
 * Every long header carries the epochs of both lives, as far as its sender knows them. One from a life that is over is
 * dropped, but who lives and speaks to a life that we gave up is told so, once for each message, by that life: without that it
 * would wait for us for ever. docs/transport-protocol.md, sections 4 and 7.
 */
#include "uct/srd/srd_iface.h"

#include <arpa/inet.h>
#include <cerrno>

namespace srd {

namespace {

/// A life of the sender's with which we have nothing in common, beside one that we hear: remembered as one that we gave up, so that it
/// is told, by its epoch, and what else comes from it is recognised.
void control_disown(iface *f, const wire::long_header &h, std::uint16_t qpn) noexcept
{
    peer *p = f->peers.create(h.gid, qpn, h.qkey, base::clock_now_ns());
    if (p == nullptr) {
        return; // it asks again
    }
    count(f, counter::peers_created);
    p->epoch_remote = h.epoch;
    p->state        = peer_state::failed;
    p->status_code  = UCS_ERR_ENDPOINT_TIMEOUT;
    p->tx.freeze();
    control_want(f, p, want_nak);
}

} // namespace

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
        if (h.known_epoch != 0 && h.known_epoch != f->peers.epoch_local(p)) {
            // WIRE 4.6: it is for a former life of ours, so it can begin nothing, and ends nothing. A hello would not settle it where
            // both sides hear a life of the other's that is over: that one life is told.
            control_disown(f, h, qpn);
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
    p->knows_us = true; // WIRE 4.8
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

} // namespace srd
