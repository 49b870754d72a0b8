/* See rude.h. */
#include "softefa/dev/rude.h"

namespace softefa::dev {

namespace {

constexpr std::uint64_t delay_stream = 0x64656c6179, failure_stream = 0x6661696c; ///< "delay", "fail"

} // namespace

void rudeness::init(const rude_settings &rules, std::uint64_t seed) noexcept
{
    rules_    = rules;
    seed_     = seed;
    sent_     = 0;
    received_ = 0;
    delays_   = base::rng(seed ^ delay_stream);
    failures_ = base::rng(seed ^ failure_stream);
    sends_    = rules.delay_ns_max != 0 || rules.fail_status != 0 || rules.stop_at != 0 || rules.kill_at != 0;
    receives_ = rules.rnr_every != 0 || rules.rnr_for_ns != 0;
}

bool rudeness::concerns(unsigned device, rude_peer peer) const noexcept
{
    if (device >= 32 || ((rules_.devices >> device) & 1) == 0 || (rules_.qpn != 0 && rules_.qpn != peer.qpn))
        return false;
    if (rules_.peers_per_65536 >= 65536)
        return true;
    base::rng lot(seed_ ^ (std::uint64_t{peer.device} << 16) ^ peer.qpn); // the same for ever: a peer is bad or good
    return lot.chance(rules_.peers_per_65536);
}

rudeness::verdict rudeness::send(unsigned device, rude_peer to) noexcept
{
    if (!sends_ || !concerns(device, to))
        return {};
    ++sent_;
    // Every stream moves once for each work request, whatever the others say.
    const bool          fails   = rules_.fail_per_65536 != 0 && failures_.chance(rules_.fail_per_65536);
    const bool          delayed = rules_.delay_ns_max != 0 && delays_.chance(rules_.delay_per_65536);
    const std::uint64_t part    = rules_.delay_ns_max != 0 ? delays_.next() >> 40 : 0; // of 2^24
    if (sent_ == rules_.kill_at)
        return {fate::kill};
    if (sent_ == rules_.stop_at)
        return {fate::stop};
    if (rules_.fail_status != 0 && (fails || sent_ == rules_.fail_at))
        return {fate::fail, static_cast<wire::efa_status>(rules_.fail_status)};
    if (delayed) // at most 10 s in ns: 34 bits
        return {fate::delay, wire::efa_status::ok, rules_.delay_ns_min + (((rules_.delay_ns_max - rules_.delay_ns_min) * part) >> 24)};
    return {};
}

bool rudeness::receive(unsigned device, rude_peer from, std::uint64_t now_ns, std::uint64_t first_ns) noexcept
{
    if (!receives_ || !concerns(device, from))
        return false;
    ++received_;
    return (rules_.rnr_every != 0 && received_ % rules_.rnr_every == 0) || now_ns - first_ns < rules_.rnr_for_ns;
}

void wire_model::init(std::uint64_t latency_ns, std::uint64_t bandwidth_bps) noexcept
{
    latency_ns_    = latency_ns;
    bandwidth_bps_ = bandwidth_bps;
    free_ns_       = 0;
}

std::uint64_t wire_model::arrival(std::uint64_t now_ns, std::uint64_t bytes) noexcept
{
    const std::uint64_t start = now_ns > free_ns_ ? now_ns : free_ns_;
    // At most 2^30 bytes: 8 * 10^9 * 2^30 is below 2^63. Rounded up (RUDE-3).
    const std::uint64_t busy = bandwidth_bps_ != 0 ? (bytes * 8 * 1'000'000'000 + bandwidth_bps_ - 1) / bandwidth_bps_ : 0;
    free_ns_ = start + busy;
    return free_ns_ + latency_ns_;
}

} // namespace softefa::dev
