/* What a receiver grants to one sender: the credits of docs/transport-protocol.md section 6, without I/O.
 *
 * Owns: the limit that was granted, and the psn at which the next grant is due. Grants are absolute numbers, so a lost, repeated or
 * overtaken credit message does no harm. A grant is due when half of the last one is consumed; the sender therefore
 * never stops while the receiver keeps up and the return path takes less than half a window.
 * Refuses to know: how the grant travels (piggyback or alone) and how large it should be (grant_renew decides).
 *
 * Invariants
 *   CRD-1  the limit never goes back.
 *   CRD-2  limit - consumed <= the largest grant <= window: what is buffered for one sender is bounded.
 *   CRD-3  due_at is in (consumed, limit]: a sender that has used its whole grant has made the next one due.
 */
#pragma once

#include "base/seq.h"
#include "uct/srd/srd_limits.h"

#include <cstdint>

namespace srd {

class rx_credit {
public:
    explicit rx_credit(base::seq32 first = base::seq32(0)) noexcept
        : limit_(first + limits::initial_grant)
    {
    }

    base::seq32 limit() const noexcept { return limit_; }
    /// Whether a correct sender may have sent `psn`. BYE needs no credit: it may be the first one past the limit.
    bool covers(base::seq32 psn) const noexcept { return distance(limit_, psn) <= 0; }
    /// Half a grant before the limit.
    base::seq32 due_at() const noexcept { return limit_ - grant_ / 2u; }

    /// Credits the sender had left when the last grant was made: what it may use before the next one.
    std::uint32_t outstanding() const noexcept { return grant_; }

    /// True once `consumed` reached the point where a new grant should be on its way.
    bool is_due(base::seq32 consumed) const noexcept { return !is_before(consumed, due_at()); }

    /// True when the sender is about to stop: waiting for something to piggyback on is over.
    bool is_urgent(base::seq32 consumed) const noexcept
    {
        return distance(consumed, limit_) <= static_cast<std::int32_t>(grant_ / 4);
    }

    /// Raises the limit to `grant` psns past `consumed`. Call it when the number is put on the wire.
    void renew(base::seq32 consumed, std::uint32_t grant) noexcept
    {
        if (grant < limits::min_grant) {
            grant = limits::min_grant;
        }
        if (grant > limits::window_size) {
            grant = limits::window_size;
        }
        limit_ = later_of(limit_, consumed + grant);
        // CRD-2: what an earlier, larger grant left is at most that grant. CRD-3: and at least this one, which is at least 2.
        grant_ = static_cast<std::uint16_t>(distance(consumed, limit_));
        static_assert(limits::min_grant >= 2);
    }

private:
    base::seq32 limit_;                                                            ///< first psn not granted
    std::uint16_t grant_ = static_cast<std::uint16_t>(limits::initial_grant);      ///< limit - consumed at the last grant
};

} // namespace srd
