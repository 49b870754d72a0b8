/* See fabric_client.h. */
#include "softefa/dev/fabric_client.h"

#include "softefa/dev/configure.h"
#include "softefa/dev/engine_state.h"

#include <cstdlib>
#include <new>

namespace softefa::dev {

namespace {

link            *self = nullptr;
fabric::channel *self_channel = nullptr;
std::uint16_t    next_qpn = 1;

} // namespace

void link_fail(link &l, const char *reason) noexcept
{
    if (l.failed)
        return;
    l.failed = true;
    ++engine().peers.peers_failed;
    engine().peers.last_failure = reason;
    requester_link_gone(l);
}

status fabric_start() noexcept
{
    self         = new (std::nothrow) link();
    self_channel = new (std::nothrow) fabric::channel();
    if (self == nullptr || self_channel == nullptr)
        return status::no_memory;
    const status opened = fabric::channel_open_self(*self_channel, 1);
    if (opened != status::ok)
        return opened;
    self->channel = self_channel;
    const engine_guard guard;
    engine_state      &e = engine();
    e.links[0]     = self;
    e.link_count   = 1;
    e.reorder      = settings_in_force().reorder_per_65536;
    e.random       = base::rng(settings_in_force().seed);
    e.rnr_pause_ns = settings_in_force().rnr_timer_us * 1000ull;
    return status::ok;
}

void fabric_stop() noexcept
{
    {
        const engine_guard guard;
        engine().links[0]      = nullptr;
        engine().link_count    = 0;
        engine().touched_count = 0;
    }
    if (self_channel != nullptr)
        fabric::channel_close(*self_channel);
    delete self_channel;
    delete self;
    self         = nullptr;
    self_channel = nullptr;
}

status fabric_publish() noexcept { return status::ok; }

result<std::uint16_t> fabric_claim_qpn(unsigned device, std::uint16_t low_mask, const std::uint64_t *low_used) noexcept
{
    for (unsigned k = 0; k < 65535; ++k) {
        const std::uint16_t qpn = next_qpn;
        next_qpn = static_cast<std::uint16_t>(next_qpn % 65534 + 1);
        const unsigned low = qpn & low_mask;
        if (engine().local_qps[device][qpn] == 0 && ((low_used[low / 64] >> (low % 64)) & 1) == 0)
            return qpn;
    }
    return status::limit;
}

void fabric_release_qpn(unsigned, std::uint16_t) noexcept {}

void fabric_kick() noexcept
{
    engine_state &e = engine();
    while (op *o = e.parked.pop())
        requester_end(*o, wire::efa_status::bad_dest_qpn);
}

void fabric_waiter() noexcept {}

} // namespace softefa::dev
