/* Completion queues: writing entries so that a consumer that polls memory never sees half of one, and never loses one.
 *
 * Owns: phase, room, overflow and events of a CQ. The ring lives in the context's memfd and is mapped read-only by the provider, but the
 * process can write it: nothing here reads it back.
 *
 * An entry may be written only where the application has consumed. For a CQ with a channel the provider writes its consumer index into
 * the doorbell; for the others the wrapper of poll tells us (engine_consumed). An entry that finds the ring full goes to an overflow list, which
 * was sized when the QPs were created; work that could exceed even that is not begun (cq_has_room), so the debt is bounded. Of a CQ that is read
 * without verbs calls nothing is known: it is taken to have room (direct.cc).
 *
 *   CQ-1  an entry is visible only when whole: its first word, with the phase bit, is stored last with release.
 *   CQ-2  an unread entry is never overwritten, unless the CQ is read without verbs calls.
 *   CQ-3  entries in ring + overflow + reserved never exceed entries + overflow_room.
 *   CQ-4  nothing of a QP is written after it was destroyed or reset: what waits in the overflow list goes with it.
 *   CQ-5  where the provider may have taken an entry without handing it out, which it does when the QP is gone, what it took is counted from below:
 *         by what it handed out, and by polls that found nothing. Such a CQ is never said to have overrun.
 */
#include "softefa/dev/direct.h"
#include "softefa/dev/engine_state.h"
#include "softefa/dev/helper.h"
#include "softefa/dev/op_life.h"
#include "softefa/dev/publish.h"
#include "softefa/dev/wqe.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::dev {

namespace {

/// Learns what the application has consumed. A value that no correct program can write is ignored.
void refresh(cq &c) noexcept
{
    if (c.direct) [[unlikely]] {
        c.believed = c.produced;
        return;
    }
    std::uint64_t seen = std::max(c.consumed.load(std::memory_order_acquire), c.emptied.load(std::memory_order_acquire));
    if (c.doorbell != nullptr) {
        const auto index = static_cast<std::uint16_t>(c.doorbell->load(std::memory_order_acquire));
        const std::uint64_t told = c.believed + static_cast<std::uint16_t>(index - static_cast<std::uint16_t>(c.believed));
        if (told <= c.produced && told > seen)
            seen = told;
    }
    if (seen > c.believed && seen <= c.produced)
        c.believed = seen;
}

bool ring_has_room(cq &c) noexcept
{
    if (c.produced - c.believed < c.entries) [[likely]]
        return true;
    refresh(c);
    return c.produced - c.believed < c.entries;
}

/// As a device that has no room beside its rings: the entry is lost, the CQ takes no other, and the application is told.
void overrun(cq &c) noexcept
{
    c.failed = true;
    ++counters_of(c.owner->device).cq_lost;
    record(record_kind::cq_overrun, c.owner->device, 0, 0, 0, c.self, c.entries);
    publish_failure("a completion queue overran");
    helper_kick();
    c.async_events += async_write(*c.owner, async_event::cq_error, c.user_handle);
}

bool write_event(cq &c) noexcept
{
    const int  saved   = errno;
    const long written = syscall(SYS_write, c.event_fd, &c.user_handle, sizeof(c.user_handle));
    const bool again   = written == -1 && errno == EAGAIN;
    errno = saved;
    if (written == sizeof(c.user_handle))
        ++c.events;
    return !again; // any other failure: the channel is gone, nobody waits
}

} // namespace

bool async_write(const context &c, async_event type, std::uint64_t element) noexcept
{
    const struct {
        std::uint64_t element;
        std::uint32_t type, reserved;
    } event{element, static_cast<std::uint32_t>(type), 0};
    if (c.async_fd < 0)
        return false;
    const int  saved   = errno;
    const bool written = syscall(SYS_write, c.async_fd, &event, sizeof(event)) == static_cast<long>(sizeof(event));
    errno = saved;
    counters_of(c.device).async_events += written;
    record(record_kind::async_event, c.device, 0, 0, 0, event.type, element);
    return written;
}

bool cq_has_room_now(cq &c, unsigned count) noexcept
{
    refresh(c);
    return c.produced - c.believed + c.overflow_count + c.reserved + count <= std::uint64_t{c.entries} + c.overflow_room;
}

void op_failed(const op &o, wire::efa_status status) noexcept
{
    device_counters &n = counters_of(o.owner->device);
    ++n.completion_errors;
    n.read_errors += o.kind == op_kind::read;
    n.write_errors += o.kind == op_kind::write;
    n.unresponsive += status == wire::efa_status::unresponsive || status == wire::efa_status::unreachable;
    if (status != wire::efa_status::flushed) // a flush of a whole queue would push everything else out of the recorder
        record(record_kind::work_error, o.owner->device, o.owner->qpn, o.dst_qpn, static_cast<unsigned>(status), 
               std::uint64_t{o.req_id_high} << 32 | std::uint32_t{o.req_id_middle} << 16 | o.req_id, o.rkey);
}

void op_complete(op &o, wire::efa_status status) noexcept
{
    device_counters &n = counters_of(o.owner->device);
    if (status != wire::efa_status::ok) [[unlikely]]
        op_failed(o, status);
    else if (o.kind == op_kind::read) {
        ++n.read_ops;
        n.read_bytes += o.total;
    } else if (o.kind == op_kind::write) {
        ++n.write_ops;
        n.write_bytes += o.total;
    }
    op_write(o, status);
}

void cq_write_uncommon(cq &c, const cqe_bytes &entry) noexcept
{
    if (engine().record_data) [[unlikely]]
        record(record_kind::cqe, c.owner->device, wqe::cqe_qpn(entry.words[0]), 0, wqe::cqe_status(entry.words[0]), wqe::cqe_req_id(entry.words[0]),
               wqe::cqe_queue(entry.words[0]));
    if (c.failed) [[unlikely]] {
        ++counters_of(c.owner->device).cq_lost;
        return;
    }
    if (c.overflow_count != 0) [[unlikely]]
        cq_drain_overflow(c); // room in the ring may be what cq_has_room() counted on
    if (c.overflow_count == 0 && ring_has_room(c)) [[likely]] {
        cq_store(c, entry);
    } else if (engine().cq_overrun_is_error && !c.behind.load(std::memory_order_relaxed)) {
        overrun(c);
    } else if (c.overflow_count < c.overflow_room) {
        c.overflow[(c.overflow_head + c.overflow_count) % c.overflow_room] = entry;
        if (c.overflow_count++ == 0)
            ++engine().cq_overflowing;
        engine().rare |= rare_overflow;
        ++counters_of(c.owner->device).cq_overflows;
    } else {
        assert(!"CQ-3: callers reserve");
    }
    if (c.armed) [[unlikely]]
        cq_fire(c);
}

bool cq_drain_overflow(cq &c) noexcept
{
    bool moved = false;
    while (c.overflow_count != 0 && ring_has_room(c)) {
        cq_store(c, c.overflow[c.overflow_head]);
        c.overflow_head = (c.overflow_head + 1) % c.overflow_room;
        moved           = true;
        if (--c.overflow_count == 0)
            --engine().cq_overflowing;
    }
    return moved;
}

void cq_drop_qpn(cq &c, std::uint16_t qpn) noexcept
{
    const std::uint32_t before = c.overflow_count;
    std::uint32_t       kept   = 0;
    for (std::uint32_t i = 0; i < before; ++i) {
        const cqe_bytes &entry = c.overflow[(c.overflow_head + i) % c.overflow_room];
        if (wqe::cqe_qpn(entry.words[0]) != qpn)
            c.overflow[(c.overflow_head + kept++) % c.overflow_room] = entry;
    }
    c.overflow_count = kept;
    if (before != 0 && kept == 0)
        --engine().cq_overflowing;
}

void cq_user_gone(cq &c) noexcept
{
    if (c.doorbell == nullptr && cq_has_unconsumed(c))
        c.behind.store(true, std::memory_order_relaxed);
    --c.users;
}

bool cq_has_unconsumed(cq &c) noexcept
{
    refresh(c);
    return c.produced != c.believed;
}

void cq_fire(cq &c) noexcept
{
    c.armed = false;
    if (c.event_fd < 0)
        return;
    direct_fired(c);
    ++counters_of(c.owner->device).events;
    if (!write_event(c) && !c.event_owed) {
        c.event_owed = true;
        ++engine().events_owed;
        engine().rare |= rare_events;
    }
}

void cq_settle_events() noexcept
{
    objects().cqs.for_each([](cq &c) {
        if (c.event_owed && write_event(c)) {
            c.event_owed = false;
            --engine().events_owed;
        }
    });
}

} // namespace softefa::dev
