/* Creating and destroying completion queues. See completion.cc for their use. */
#include "softefa/dev/direct.h"
#include "softefa/dev/engine_state.h"

#include <bit>
#include <cstdlib>

namespace softefa::dev {

void cq_release(cq &c) noexcept
{
    {
        const engine_guard engine_lock;
        if (c.overflow_count != 0)
            --engine().cq_overflowing;
        if (c.event_owed)
            --engine().events_owed;
        direct_forget(c);
        c.ring  = nullptr;
        c.armed = c.event_owed = false;
        c.overflow_count       = 0;
        record(record_kind::cq_destroy, c.owner->device, 0, 0, 0, c.self, c.entries);
    }
    context &owner = *c.owner;
    owner.regions.release(c.ring_region);
    owner.regions.release(c.doorbell_region);
    std::free(c.overflow);
    --owner.cq_count;
    objects().cqs.erase(c.self);
}

result<cq_reply> cq_create(handle owner, const cq_request &request) noexcept
{
    const control_guard  guard;
    const device_limits &limit = device_limits_get();
    context             *o     = guard.dead() ? nullptr : objects().contexts.find(owner);
    if (o == nullptr)
        return guard.dead() ? status::permission : status::not_found;
    if (request.cqe < 1 || request.cqe > limit.max_cqe || request.cqe > 32768 || !std::has_single_bit(request.cqe) ||
        (request.entry_size != 32 && (request.entry_size != 16 || request.with_sgid)))
        return status::invalid_argument;
    if (o->cq_count >= limit.max_cq)
        return status::limit;
    handle h = 0;
    cq    *c = objects().cqs.insert(&h);
    if (c == nullptr)
        return status::no_memory;
    auto ring     = o->regions.allocate(std::uint64_t{request.cqe} * request.entry_size);
    auto doorbell = o->regions.allocate(request.event_fd >= 0 ? 4096 : 0);
    if (!ring || !doorbell) {
        if (ring)
            o->regions.release(*ring);
        if (doorbell)
            o->regions.release(*doorbell);
        objects().cqs.erase(h);
        return status::no_memory;
    }
    {
        const engine_guard engine_lock;
        c->self            = h;
        c->owner           = o;
        c->ring            = ring->base;
        c->entry_size      = request.entry_size;
        c->entries         = request.cqe;
        c->doorbell        = reinterpret_cast<std::atomic<std::uint32_t> *>(doorbell->base);
        c->with_sgid       = request.with_sgid;
        c->event_fd        = request.event_fd;
        c->user_handle     = request.user_handle;
        c->index           = static_cast<std::uint16_t>(cq_table::index_of(h));
        c->ring_region     = *ring;
        c->doorbell_region = *doorbell;
        record(record_kind::cq_create, o->device, 0, 0, 0, h, request.cqe);
    }
    ++o->cq_count;
    return cq_reply{h, c->index, ring->where, doorbell->where};
}

bool cq_in_use(handle h) noexcept
{
    const control_guard guard;
    const cq *c = guard.dead() ? nullptr : objects().cqs.find(h);
    return c != nullptr && c->users != 0;
}

status cq_destroy(handle h, std::uint32_t *events_p, std::uint32_t *async_events_p) noexcept
{
    const control_guard guard;
    cq *c = guard.dead() ? nullptr : objects().cqs.find(h);
    if (c == nullptr)
        return guard.dead() ? status::permission : status::not_found;
    if (c->users != 0)
        return status::busy;
    {
        const engine_guard engine_lock; // no event after this, neither a new one nor one that is owed: the numbers are final
        c->armed = false;
        if (c->event_owed)
            --engine().events_owed;
        c->event_owed = false;
        if (events_p != nullptr)
            *events_p = c->events;
        if (async_events_p != nullptr)
            *async_events_p = c->async_events;
    }
    cq_release(*c);
    return status::ok;
}

} // namespace softefa::dev
