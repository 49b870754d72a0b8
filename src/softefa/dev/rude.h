/* Trouble on request: which work request is delayed, made to fail or fatal, which message finds no receive, and how slow the wire is.
 *
 * Owns: decisions only. Knows no queue pair, no clock and no engine: who is asked passes the time in and carries the decision out (held.cc and
 * the responder). The same seed and the same sequence of questions give the same answers; each kind of trouble draws from a stream of its own,
 * so that turning one on leaves the others' choices as they were.
 *
 *   RUDE-1  a pass for every question while everything is off, and nothing is drawn.
 *   RUDE-2  a work request or message of a device or peer that is not concerned is neither counted nor drawn for.
 *   RUDE-3  the wire model never lets anything arrive earlier than latency plus bytes at the bandwidth.
 */
#pragma once

#include "base/rng.h"
#include "softefa/settings.h"
#include "softefa/wire/status.h"

#include <cstdint>

namespace softefa::dev {

/// The other end of a work request or message.
struct rude_peer {
    std::uint8_t  device = 0; ///< in the domain
    std::uint16_t qpn    = 0;
};

class rudeness {
public:
    enum class fate : std::uint8_t { pass, delay, fail, stop, kill };
    struct verdict {
        fate             what     = fate::pass;
        wire::efa_status status   = wire::efa_status::ok; ///< of fail
        std::uint64_t    delay_ns = 0;                    ///< of delay
    };

    void init(const rude_settings &rules, std::uint64_t seed) noexcept;
    /// Any knob of the sending side is on; else send() need not be asked.
    bool sends() const noexcept { return sends_; }
    /// The same for the receiving side and receive().
    bool receives() const noexcept { return receives_; }
    /// A work request was taken from a send queue of the own device `device`.
    verdict send(unsigned device, rude_peer to) noexcept;
    /// A message arrived at a QP whose first one came at `first_ns`. True: answer that no receive is posted.
    bool receive(unsigned device, rude_peer from, std::uint64_t now_ns, std::uint64_t first_ns) noexcept;
    bool concerns(unsigned device, rude_peer peer) const noexcept;

private:
    rude_settings rules_;
    std::uint64_t seed_ = 0;
    std::uint64_t sent_ = 0, received_ = 0; ///< that were concerned
    bool          sends_ = false, receives_ = false;
    base::rng     delays_{1}, failures_{2};
};

/// One direction of a device's wire: bytes follow each other at the bandwidth.
class wire_model {
public:
    void init(std::uint64_t latency_ns, std::uint64_t bandwidth_bps) noexcept;
    bool on() const noexcept { return latency_ns_ != 0 || bandwidth_bps_ != 0; }
    std::uint64_t latency_ns() const noexcept { return latency_ns_; }
    /// Enters `bytes` at `now_ns`; when the last one is at the other end.
    std::uint64_t arrival(std::uint64_t now_ns, std::uint64_t bytes) noexcept;

private:
    std::uint64_t latency_ns_ = 0, bandwidth_bps_ = 0;
    std::uint64_t free_ns_ = 0; ///< when the wire is free again
};

} // namespace softefa::dev
