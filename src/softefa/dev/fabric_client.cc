/* See fabric_client.h.
 *
 * The end. A last close of a context ends the fabric: thread, links, names. The end of a process does not: threads and destructors of others may
 * still work with the device, and nobody may wait for a thread in exit().
 *
 *   FAB-1  exit() takes the names out of the registry and counts what was not counted yet; thread and links go on until the kernel ends them, and
 *          peers see that as they see a kill. From then on a close of the last context ends nothing either.
 *   FAB-2  exit() waits for nothing without a bound.
 */
#include "softefa/dev/fabric_client.h"

#include "base/clock.h"
#include "softefa/dev/configure.h"
#include "softefa/dev/engine_state.h"
#include "softefa/dev/helper.h"
#include "softefa/dev/publish.h"
#include "softefa/dev/single_copy.h"

#include <ctime>
#include <cxxabi.h>
#include <new>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

namespace softefa::dev {

namespace {

link            *self = nullptr;
fabric::channel *self_channel = nullptr;
std::uint64_t    instance = 0; ///< of this process since its first context
pid_t            process  = 0; ///< that started the fabric
bool             leaving  = false; ///< FAB-1; control lock

fabric::registry &names() noexcept
{
    alignas(fabric::registry) static unsigned char memory[sizeof(fabric::registry)];
    static fabric::registry *const                 only = new (memory) fabric::registry(); // outlives every destructor
    return *only;
}

std::uint64_t new_instance() noexcept
{
    std::uint64_t id = 0;
    while (id == 0)
        if (syscall(SYS_getrandom, &id, sizeof(id), 0u) != sizeof(id))
            id = base::clock_now_ns() ^ (static_cast<std::uint64_t>(getpid()) << 40);
    return id;
}

bool engine_is_free_soon() noexcept
{
    const timespec pause{0, 1'000'000};
    for (unsigned tries = 0; !engine_try_lock(); ++tries) {
        if (tries == 100)
            return false;
        syscall(SYS_nanosleep, &pause, nullptr); // not the function: that one is a cancellation point
    }
    engine_unlock();
    return true;
}

/// The last that is done in a process that ends with contexts open (FAB-1, FAB-2).
void leave(void *) noexcept
{
    // Whoever calls exit() may hold either lock (in a signal handler, say): then the names stay, and the next start sweeps them.
    if (!control_try_lock(500))
        return;
    if (instance != 0 && process == getpid() && !leaving && engine_is_free_soon()) {
        int before = 0;
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before); // files are written, and nothing may unwind from here
        leaving = true;
        helper_leave();
        publish_withdraw();
        names().withdraw();
        pthread_setcancelstate(before, nullptr);
    }
    control_unlock();
}

/// Ours is the first library whose destructors run, since it is preloaded, and others may send in theirs. What is registered meanwhile is called
/// when all that was registered before has returned, and the destructors of all libraries are one such call.
[[gnu::destructor]] void leave_when_all_have_ended() noexcept
{
    if (abi::__cxa_atexit(leave, nullptr, nullptr) != 0)
        leave(nullptr);
}

} // namespace

void link_fail(link &l, const char *reason) noexcept
{
    if (l.failed)
        return;
    engine_state &e = engine();
    l.failed        = true;
    ++e.peers.peers_failed;
    e.peers.last_failure = reason;
    // Who was given up broke nothing: it was stopped, and its one report of a failure stays for one.
    const bool broken = l.end_status != wire::efa_status::unresponsive;
    if (broken)
        ++e.counters[0].drop_protocol;
    // A process whose own ring is damaged can never complete anything again: its devices are lost.
    if (l.channel->is_self)
        objects().contexts.for_each([](context &c) { (void)async_write(c, async_event::device_fatal, 0); });
    requester_link_gone(l);
    if (broken) {
        publish_failure(l.channel->is_self ? "a device is lost: this process's own ring is damaged" : "a peer broke the protocol and was cut off");
        record(record_kind::peer_failed, 0, 0, 0, 0, l.channel->instance, l.index);
    }
    e.failed_links.store(true, std::memory_order_relaxed);
    helper_kick();
}

status fabric_start() noexcept
{
    if (leaving)
        return status::ok; // it has not ended
    const settings &s = settings_in_force();
    self         = new (std::nothrow) link();
    self_channel = new (std::nothrow) fabric::channel();
    instance     = new_instance();
    process      = getpid();
    if (self == nullptr || self_channel == nullptr)
        return status::no_memory;
    status opened = fabric::channel_open_self(*self_channel, instance);
    if (opened == status::ok)
        opened = names().open(s.registry_dir.c_str(), instance);
    if (opened != status::ok)
        return opened;
    self->channel    = self_channel;
    self->tx_touched = true; // it never needs to be woken, so it is never among those that may
    publish_open(instance);
    const engine_guard guard;
    engine_state      &e = engine();
    single_copy_start(instance);
    single_copy_offer(*self_channel->own.control());
    single_copy_open(*self, process, -1);
    e.links[0]     = self;
    e.link_count   = 1;
    e.yield_after  = yield_never;
    e.reorder      = s.reorder_per_65536;
    e.cq_overrun_is_error = s.cq_overrun != 0;
    e.random       = base::rng(s.seed);
    (void)swap_draw(e);
    e.rnr_pause_ns = s.rnr_timer_us * 1000ull;
    engine_draw_queue_swap(e);
    e.rude.init(s.rude, s.seed);
    for (unsigned d = 0; d < limits::devices; ++d) {
        e.wire_out[d].init(s.latency_ns, s.bandwidth_bps);
        e.wire_in[d].init(s.latency_ns, s.bandwidth_bps);
    }
    e.wire_modelled = e.wire_out[0].on();
    e.posts_held    = e.wire_modelled || e.rude.sends();
    return status::ok;
}

bool fabric_stop() noexcept
{
    if (leaving)
        return false;
    helper_stop();
    publish_close();
    names().close();
    {
        const engine_guard guard;
        engine().links[0]      = nullptr;
        engine().link_count    = 0;
        engine().touched_count = 0;
    }
    fabric::channel *const channel = std::exchange(self_channel, nullptr); // a child that is forked meanwhile closes what it finds
    if (channel != nullptr)
        fabric::channel_close(*channel);
    delete channel;
    delete std::exchange(self, nullptr);
    instance = 0;
    return true;
}

bool fabric_up() noexcept { return instance != 0; }

void fabric_forked() noexcept
{
    publish_forked();
    leaving = false;
    process = 0; // not getpid(): a child in another PID namespace may have the parent's
    helper_forked();
    if (instance == 0)
        return;
    names().forget();
    if (self_channel != nullptr) {
        for (int *fd : {&self_channel->own.fd, &self_channel->peer.fd}) {
            fabric::raw_close(*fd);
            *fd = -1;
        }
    }
}

void fabric_revive() noexcept
{
    helper_revive();
    if (self_channel != nullptr)
        fabric::channel_close(*self_channel);
    delete self_channel;
    delete self;
    self         = nullptr;
    self_channel = nullptr;
    instance     = 0;
}

status fabric_publish() noexcept
{
    if (leaving && !helper_running())
        return status::limit; // nobody would take that name away again
    return helper_start(names(), instance);
}

result<std::uint16_t> fabric_claim_qpn(unsigned device, std::uint16_t low_mask, const std::uint64_t *low_used) noexcept
{
    return names().claim(device, engine().local_qps[device], low_mask, low_used, settings_in_force().reuse_qpn != 0);
}

void fabric_release_qpn(unsigned device, std::uint16_t qpn) noexcept { names().release(device, qpn); }

void fabric_kick() noexcept
{
    engine().lookup_wanted.store(true, std::memory_order_release);
    helper_kick();
}

void fabric_waiter() noexcept
{
    engine_state &e = engine();
    e.polls_asleep  = 0;
    if (e.asleep.load(std::memory_order_relaxed))
        return;
    e.waiter.store(true, std::memory_order_relaxed);
    helper_kick();
}

} // namespace softefa::dev
