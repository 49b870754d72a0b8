/* The process's view: settings, identity of devices, contexts and protection domains, fork.
 *
 * Owns: the control lock, the tables of all objects, and device GIDs. A GID depends on user, domain, registry folder and host boot, so that
 * processes which cannot meet (another user, another domain, another mount of the registry) never take each other for local.
 */
#include "softefa/dev/configure.h"
#include "softefa/dev/engine_state.h"
#include "softefa/dev/fabric_client.h"
#include "softefa/dev/publish.h"
#include "softefa/fabric/registry.h"

#include <bit>
#include <cstdlib>
#include <ctime>
#include <pthread.h>
#include <sys/syscall.h>
#include <type_traits>
#include <unistd.h>

namespace softefa::dev {

namespace {

pthread_mutex_t control_lock = PTHREAD_MUTEX_INITIALIZER;
static_assert(std::is_trivially_destructible_v<process_objects>);
settings      *chosen = nullptr; ///< a copy of what is in force, made once; never freed
bool           configured = false;
gid            gids[limits::devices];
std::atomic<bool> gids_known = false;

const settings &fallback() noexcept
{
    static const settings *const defaults = new (std::nothrow) settings();
    return *defaults;
}

bool choose(const settings &wanted) noexcept
{
    settings *copy = new (std::nothrow) settings(wanted);
    if (copy == nullptr)
        return false;
    delete chosen;
    chosen = copy;
    gids_known.store(false, std::memory_order_release);
    return true;
}

void learn_gids() noexcept
{
    const settings     &s    = settings_in_force();
    const std::uint64_t host = fabric::domain_identity(s.registry_dir.c_str(), s.domain.c_str());
    for (unsigned i = 0; i < limits::devices; ++i) {
        base::rng mix(host + i * 0x9e3779b97f4a7c15u);
        const std::uint64_t bits = mix.next();
        // fe80::/64 and an EUI-64 with the local bit set, as a NIC derives it from its MAC
        gids[i] = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x02, static_cast<std::uint8_t>(bits), static_cast<std::uint8_t>(bits >> 8), 0xff, 0xfe,
                   static_cast<std::uint8_t>(bits >> 16), static_cast<std::uint8_t>(bits >> 24), static_cast<std::uint8_t>(i)};
    }
    gids_known.store(true, std::memory_order_release);
}

status context_init(context &c) noexcept
{
    const device_limits &limit = device_limits_get();
    c.ahs      = static_cast<ah_entry *>(std::calloc(limit.max_ah, sizeof(ah_entry)));
    c.ah_room  = limit.max_ah;
    c.low_used = static_cast<std::uint64_t *>(std::calloc(65536 / 64, sizeof(std::uint64_t)));
    if (c.ahs == nullptr || c.low_used == nullptr)
        return status::no_memory;
    engine_state &e = engine();
    for (auto *by_device : {e.local_qps, e.routes}) { // of all devices: any of them may be a destination
        for (unsigned i = 0; i < settings_in_force().device_count && i < limits::devices; ++i) {
            if (by_device[i] != nullptr)
                continue;
            auto *fresh = static_cast<std::uint16_t *>(std::calloc(65536, sizeof(std::uint16_t)));
            if (fresh == nullptr)
                return status::no_memory;
            const engine_guard guard;
            by_device[i] = fresh;
        }
    }
    return status::ok;
}

void record_locked(record_kind kind, unsigned device, handle h) noexcept
{
    const engine_guard guard;
    record(kind, device, 0, 0, 0, h, 0);
}

/// A forked child opens a device of its own: it begins like any process. What it inherited is forgotten, not freed: the parent's objects may be
/// in any state, and the application's structs that belong to them are refused one layer above (FIL-3).
void revive() noexcept
{
    engine_state &e = engine();
    fabric_revive();
    for (auto *by_device : {e.local_qps, e.routes})
        for (unsigned i = 0; i < limits::devices; ++i)
            std::free(by_device[i]);
    new (&process_tables) process_objects();
    new (&e) engine_state();
}

void context_fini(context &c) noexcept
{
    std::free(c.ahs);
    std::free(c.low_used);
    objects().contexts.erase(c.self);
    if (objects().contexts.count() != 0)
        return;
    if (!fabric_stop())
        return; // what the fabric still uses stays
    engine_state &e = engine();
    for (auto *by_device : {e.local_qps, e.routes}) {
        for (unsigned i = 0; i < limits::devices; ++i) {
            std::uint16_t *const gone = by_device[i];
            std::atomic_ref(by_device[i]).store(nullptr, std::memory_order_seq_cst); // first: another thread may fork
            std::free(gone);
        }
    }
}

} // namespace

constinit process_objects process_tables; // constant-initialised and trivially destroyed: threads may outlive main()

control_guard::control_guard() noexcept { pthread_mutex_lock(&control_lock); }
control_guard::~control_guard() { pthread_mutex_unlock(&control_lock); }

bool control_try_lock(unsigned milliseconds) noexcept
{
    const timespec pause{0, 1'000'000};
    for (unsigned tries = 0; pthread_mutex_trylock(&control_lock) != 0; ++tries) {
        if (tries == milliseconds)
            return false;
        syscall(SYS_nanosleep, &pause, nullptr); // not the function: that one is a cancellation point
    }
    return true;
}

void control_unlock() noexcept { pthread_mutex_unlock(&control_lock); }
bool control_guard::dead() const noexcept { return engine().dead.load(std::memory_order_relaxed); }

bool configure(const settings &wanted) noexcept
{
    const control_guard guard;
    if (objects().contexts.count() != 0 || !choose(wanted))
        return false;
    configured = true;
    return true;
}

const settings &settings_in_force() noexcept
{
    if (chosen == nullptr) {
        const settings *parsed = settings_get(nullptr);
        if (parsed == nullptr || !choose(*parsed))
            return fallback();
    }
    return *chosen;
}

const device_limits &device_limits_get() noexcept { return settings_in_force().limits; }

const device_counters *device_counters_get(unsigned index) noexcept
{
    return index < limits::devices ? &engine().counters[index] : nullptr;
}

const fabric_counters *fabric_counters_get() noexcept { return &engine().peers; }

gid device_gid(unsigned index) noexcept
{
    if (!gids_known.load(std::memory_order_acquire))
        learn_gids();
    return gids[index % limits::devices];
}

std::uint8_t device_by_gid(const gid &g) noexcept
{
    const unsigned index = g[15];
    const unsigned count = settings_in_force().device_count;
    return index < limits::devices && index < count && device_gid(index) == g ? static_cast<std::uint8_t>(index) : device_unknown;
}

result<handle> context_open(unsigned device_index, int memfd) noexcept
{
    const control_guard guard;
    if (guard.dead())
        revive();
    const settings &s = settings_in_force();
    if (device_index >= s.device_count || device_index >= limits::devices || memfd < 0)
        return status::invalid_argument;
    handle   h = 0;
    context *c = objects().contexts.insert(&h);
    if (c == nullptr)
        return status::limit;
    c->~context();
    new (c) context(memfd);
    c->self   = h;
    c->device = device_index;
    status outcome = context_init(*c);
    if (outcome == status::ok && objects().contexts.count() == 1)
        outcome = fabric_start();
    if (outcome != status::ok) {
        context_fini(*c);
        return outcome;
    }
    publish_contexts(objects().contexts.count());
    record_locked(record_kind::context_open, device_index, h);
    return h;
}

void context_close(handle h) noexcept
{
    const control_guard guard;
    process_objects    &all = objects();
    context            *c   = all.contexts.find(h);
    if (guard.dead() || c == nullptr)
        return;
    all.qps.for_each([&](qp &q) { if (q.owner == c) qp_release(q); });
    all.cqs.for_each([&](cq &q) { if (q.owner == c) cq_release(q); });
    all.mrs.for_each([&](mr &m) { if (m.domain->owner == c) mr_release(m); });
    ah_release_all(*c);
    record_locked(record_kind::context_close, c->device, h);
    publish_contexts(all.contexts.count() - 1);
    all.pds.for_each([&](pd &p) { if (p.owner == c) all.pds.erase(p.self); });
    context_fini(*c);
}

void context_set_async(handle h, int fd) noexcept
{
    const control_guard guard;
    context            *c = guard.dead() ? nullptr : objects().contexts.find(h);
    const engine_guard  engine_lock;
    if (c != nullptr)
        c->async_fd = fd;
}

void process_forked() noexcept
{
    // The locks may be held by threads that do not exist here. A child that inherits no context may use the device like any process.
    pthread_mutex_init(&control_lock, nullptr);
    fabric_forked();
    if (objects().contexts.count() != 0 || fabric_up()) // or another thread was about to start or to stop it
        engine().dead.store(true, std::memory_order_seq_cst);
    else {
        engine().lock.store(0, std::memory_order_seq_cst);
        engine().waiters.store(0, std::memory_order_relaxed);
    }
}

result<pd_reply> pd_alloc(handle owner) noexcept
{
    const control_guard guard;
    context *c = guard.dead() ? nullptr : objects().contexts.find(owner);
    if (c == nullptr)
        return guard.dead() ? status::permission : status::not_found;
    if (c->pd_count >= device_limits_get().max_pd)
        return status::limit;
    handle h = 0;
    pd    *p = objects().pds.insert(&h);
    if (p == nullptr)
        return status::no_memory;
    unsigned word = 0;
    while (word < limits::pds / 64 && c->pdn_used[word] == ~std::uint64_t{0})
        ++word;
    if (word == limits::pds / 64) {
        objects().pds.erase(h);
        return status::limit;
    }
    const auto bit = static_cast<unsigned>(std::countr_one(c->pdn_used[word]));
    c->pdn_used[word] |= std::uint64_t{1} << bit;
    p->self  = h;
    p->owner = c;
    p->pdn   = static_cast<std::uint16_t>(word * 64 + bit);
    for (auto &number : p->ah_by_device)
        number = ah_unknown;
    ++c->pd_count;
    return pd_reply{h, p->pdn};
}

status pd_dealloc(handle h) noexcept
{
    const control_guard guard;
    pd *p = guard.dead() ? nullptr : objects().pds.find(h);
    if (p == nullptr)
        return guard.dead() ? status::permission : status::not_found;
    if (p->users != 0)
        return status::busy;
    p->owner->pdn_used[p->pdn / 64] &= ~(std::uint64_t{1} << (p->pdn % 64));
    --p->owner->pd_count;
    objects().pds.erase(h);
    return status::ok;
}

} // namespace softefa::dev
