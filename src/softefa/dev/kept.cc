/* See kept.h. */
#include "softefa/dev/kept.h"

#include "softefa/dev/configure.h"
#include "softefa/dev/helper.h"
#include "softefa/dev/single_copy.h"

namespace softefa::dev {

namespace {

static_assert((limits::kept_grants & (limits::kept_grants - 1)) == 0);
static_assert(limits::devices <= fabric::counted_devices);

/// One place for each key; two that want the same one take it from each other.
kept_grant &place_of(link &l, const op &o) noexcept { return l.kept[(o.rkey ^ o.dst_qpn) & (limits::kept_grants - 1)]; }

bool is_for(const kept_grant &k, const op &o) noexcept
{
    return k.rkey == o.rkey && k.qkey == o.qkey && k.dst_qpn == o.dst_qpn && k.device == o.device && k.src_device == o.owner->device && k.rkey != 0;
}

/// Also for addresses and lengths that wrap.
bool covers(std::uint64_t first, std::uint64_t length, const op &o) noexcept
{
    const std::uint64_t offset = o.remote_address - first;
    return offset <= length && o.total <= length - offset;
}

void add(std::atomic<std::uint64_t> &word, std::uint64_t more) noexcept
{
    word.store(word.load(std::memory_order_relaxed) + more, std::memory_order_release); // one writer: the engine lock
}

} // namespace

bool kept_use(link &l, op &o) noexcept
{
    kept_grant &k = place_of(l, o);
    if (o.by_ring || o.must_ask || !is_for(k, o) || !covers(k.first, k.length, o))
        return false;
    if (l.channel->peer.control()->epoch_kept(k.slot) != k.epoch) {
        k = {};
        return false;
    }
    o.source_address = k.address + (o.remote_address - k.first);
    o.source_epoch   = k.epoch;
    o.source_slot    = k.slot;
    o.unasked        = true;
    return true;
}

bool kept_take(link &l, const op &o, const wire::grant &given) noexcept
{
    if (!covers(given.first, given.length, o) || given.address + (o.remote_address - given.first) != given.now.address)
        return false;
    if (!l.channel->is_self) // who asks himself wakes nobody
        place_of(l, o) = {o.rkey, o.qkey, o.dst_qpn, o.device, o.owner->device, given.now.slot, given.first, given.length, given.address, given.epoch};
    return true;
}

void kept_drop(link &l, const op &o) noexcept
{
    kept_grant &k = place_of(l, o);
    if (is_for(k, o) && k.epoch == o.source_epoch) // else a later question has renewed it
        k = {};
}

void kept_count(link &l, const op &o) noexcept
{
    engine_state       &e       = engine();
    device_counters    &n       = counters_of(o.owner->device);
    fabric::read_count &told    = l.channel->own.control()->unasked[o.device % fabric::counted_devices];
    const std::uint64_t packets = records_of(o.total);
    add(told.reads, 1);
    add(told.bytes, o.total);
    add(told.packets, packets);
    ++l.unasked;
    if (!e.kept_used.load(std::memory_order_relaxed)) {
        e.kept_used.store(true, std::memory_order_relaxed);
        if (e.asleep.load(std::memory_order_relaxed))
            helper_kick(); // it tells, once in a while, and no peer has woken it
    }
    ++n.tx_packets; // the question
    n.rx_packets += packets;
    n.rx_packet_bytes += o.total;
    n.single_copy_unasked += o.total;
}

void kept_tell() noexcept
{
    engine_state &e = engine();
    if (!e.kept_used.load(std::memory_order_relaxed))
        return;
    const engine_guard guard;
    e.kept_used.store(false, std::memory_order_relaxed);
    for (unsigned i = 1; i < e.link_count; ++i) {
        link *l = e.links[i];
        if (l == nullptr || l->unasked == l->unasked_told)
            continue;
        l->unasked_told = l->unasked;
        link_touch(*l);
    }
}

wire::grant kept_open(link &l, qp &q, const mr &m, const wire::window &now) noexcept
{
    q.shown = true;
    engine().kept_given.store(true, std::memory_order_relaxed);
    return {now, m.iova, m.length, m.start, l.channel->own.control()->epoch_kept(now.slot)};
}

void kept_close(qp &q) noexcept
{
    if (!q.shown)
        return;
    q.shown = false;
    kept_close();
}

void kept_close() noexcept
{
    const engine_state &e = engine();
    if (!e.kept_given.load(std::memory_order_relaxed))
        return;
    for (unsigned i = 1; i < e.link_count; ++i)
        if (e.links[i] != nullptr)
            add(e.links[i]->channel->own.control()->epoch_of_rights, 1);
    std::atomic_thread_fence(std::memory_order_seq_cst); // SC-1: the epoch before whatever comes next
}

void kept_settle(link &l) noexcept
{
    const unsigned count = settings_in_force().device_count;
    for (unsigned d = 0; d < count && d < limits::devices; ++d) {
        const fabric::read_count &told    = l.channel->peer.control()->unasked[d];
        auto                     &seen    = l.settled[d];
        const std::uint64_t       packets = told.packets.load(std::memory_order_acquire), bytes = told.bytes.load(std::memory_order_acquire),
                                  reads   = told.reads.load(std::memory_order_acquire);
        if (reads == seen.reads && bytes == seen.bytes && packets == seen.packets) [[likely]]
            continue;
        constexpr std::uint64_t most = std::uint64_t{1} << 62; // any peer's life long
        if (reads < seen.reads || bytes < seen.bytes || packets < seen.packets || reads > most || bytes >> 32 > reads ||
            packets > bytes / limits::chunk_size + reads) {
            link_fail(l, "impossible count of reads");
            return;
        }
        device_counters &n = counters_of(d);
        n.served_read_ops += reads - seen.reads;
        n.served_read_bytes += bytes - seen.bytes;
        n.rx_packets += reads - seen.reads;
        n.tx_packets += packets - seen.packets;
        n.tx_packet_bytes += bytes - seen.bytes;
        seen = {reads, bytes, packets};
    }
}

void kept_settle() noexcept
{
    engine_state &e = engine();
    if (!e.kept_given.load(std::memory_order_relaxed))
        return;
    const engine_guard guard;
    for (unsigned i = 1; i < e.link_count; ++i)
        if (e.links[i] != nullptr && !e.links[i]->failed)
            kept_settle(*e.links[i]);
}

} // namespace softefa::dev
