/* How many messages each peer may send: shares of the receive queue.
 *
 * Owns: the sum of what active senders may still send, and with it the length of the receive queue.
 * Refuses to know: how a grant reaches the peer (any header carries the newest one; srd_control owes one that is due).
 *
 * All grants together fit the receive queue, so that a correct sender meets a receive (IFC-4). What each active sender has left
 * is summed up exactly; a share is the queue divided by their number, but nobody gets it at once: a sender is granted more as
 * it uses what it has, because whoever comes first would else hold the whole queue when the others come. Where good
 * grants exceed the queue, the queue grows, and shrinks when they are used.
 */
#include "uct/srd/srd_iface.h"

#include <bit>

namespace srd {

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

void grant_told(peer *p) noexcept
{
    p->want &= static_cast<std::uint8_t>(~want_credit);
    rx_set_attention(p); // from now on what counts is where the next grant is due
}

void grant_leave(iface *f, peer *p) noexcept
{
    if (p->activity != 0) {
        f->rx.granted -= p->credit.outstanding();
        --f->rx.active;
        p->activity = 0;
    }
}

void grant_settle(iface *f) noexcept
{
    if (f->rx.target > f->rx.queue_len) {
        const std::uint32_t needed = f->rx.granted + grant_reserve(f);
        rx_set_target(f, needed > f->rx.queue_len ? needed : f->rx.queue_len);
    }
}

} // namespace srd
