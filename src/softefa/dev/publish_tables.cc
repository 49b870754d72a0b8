/* The tables of what is published: queue pairs, peers, and the recorder.
 *
 * Owns: every row, from when it is written to when it is void. A reader sees a table whole or knows that it changed meanwhile: the sequence is odd while
 * one is being written (observe/published.h). Rows of queue pairs follow their states at once, what is counted in them and those of peers with
 * a snapshot. Entries of the recorder need no sequence: the head that counts one is stored behind it.
 * Refuses to know where the memory comes from, who reads it, and when a snapshot is due: publish.cc.
 */
#include "softefa/dev/publish_tables.h"

#include "softefa/dev/publish.h"
#include "softefa/dev/record.h"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace softefa::dev {

namespace {

using observe::published;

published *page = nullptr; ///< null: nothing is published
unsigned   mask = 0;       ///< entries of the recorder - 1

/// Scope of a change of the tables. Engine lock held.
class changing {
public:
    explicit changing(published &p) noexcept : page_(p)
    {
        page_.sequence.store(page_.sequence.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_release);
    }
    ~changing()
    {
        page_.snapshot_mono_ns = base::clock_now_ns();
        page_.sequence.store(page_.sequence.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }
    changing(const changing &)            = delete;
    changing &operator=(const changing &) = delete;

private:
    published &page_;
};

std::uint32_t behind(const std::atomic<std::uint32_t> *doorbell, std::uint16_t consumed, std::uint32_t most) noexcept
{
    if (doorbell == nullptr)
        return 0;
    const auto count = static_cast<std::uint16_t>(static_cast<std::uint16_t>(doorbell->load(std::memory_order_relaxed)) - consumed);
    return std::min<std::uint32_t>(count, most);
}

void fill_row(observe::qp_row &row, const qp &q) noexcept
{
    row.qpn       = q.qpn;
    row.live      = 1;
    row.device    = q.device;
    row.type      = static_cast<std::uint8_t>(q.type);
    row.state     = static_cast<std::uint8_t>(q.state);
    row.send_size = q.sq_entries;
    row.send_used = q.sq_entries - std::min(q.free_ops, q.sq_entries) + behind(q.sq_doorbell, q.sq_consumed, q.sq_entries);
    row.recv_size = q.rq_entries;
    row.recv_used = behind(q.rq_doorbell, q.rq_consumed, q.rq_entries);
}

std::uint16_t length(const op_list &list) noexcept
{
    std::uint32_t count = 0;
    for (const op *o = list.head; o != nullptr && count < 65535; o = o->next)
        ++count;
    return static_cast<std::uint16_t>(count);
}

void fill_row(observe::link_row &row, const link &l) noexcept
{
    row.instance     = l.channel->instance;
    row.failed       = l.failed;
    row.is_self      = l.channel->is_self;
    row.reads_out    = static_cast<std::uint16_t>(l.reads_out);
    row.reads_served = static_cast<std::uint16_t>(l.read_count);
    row.waiting      = static_cast<std::uint16_t>(std::min(length(l.pending) + length(l.pending_reads) + length(l.writes), 65535));
}

} // namespace

void tables_begin(published *fresh) noexcept
{
    mask = fresh->record_count - 1;
    page = fresh;
}

published *tables_end() noexcept { return std::exchange(page, nullptr); }

published *tables_page() noexcept { return page; }

void tables_snapshot() noexcept
{
    const engine_guard guard;
    if (page == nullptr)
        return;
    engine_state  &e = engine();
    e.unshown.store(false, std::memory_order_relaxed);
    const changing scope(*page);
    objects().qps.for_each([](qp &q) {
        if (q.sq_entries != 0 || q.rq_entries != 0)
            fill_row(page->qps[q.slot], q);
    });
    for (unsigned i = 0; i < limits::links; ++i) {
        if (i < e.link_count && e.links[i] != nullptr)
            fill_row(page->links[i], *e.links[i]);
        else if (page->links[i].instance != 0)
            page->links[i] = {};
    }
    page->peers_connected = e.peers.peers_connected;
    page->peers_gone      = e.peers.peers_gone;
    page->peers_failed    = e.peers.peers_failed;
    page->parked          = length(e.parked);
    page->helper_asleep   = e.asleep.load(std::memory_order_relaxed);
    if (e.peers.last_failure != nullptr)
        std::snprintf(page->last_failure, sizeof(page->last_failure), "%s", e.peers.last_failure);
}

void publish_qp(const qp &q) noexcept
{
    if (page == nullptr)
        return;
    const changing scope(*page);
    fill_row(page->qps[q.slot], q);
}

void publish_qp_gone(const qp &q) noexcept
{
    if (page == nullptr)
        return;
    const changing scope(*page);
    page->qps[q.slot] = {};
}

void record(record_kind kind, unsigned device, unsigned qpn, unsigned peer_qpn, unsigned status, std::uint64_t a, std::uint64_t b) noexcept
{
    if (page == nullptr || page->record_count == 0)
        return;
    const std::uint64_t at = page->record_head.load(std::memory_order_relaxed);
    observe::record    &r  = page->records[at & mask];
    r = {base::clock_now_ns(), static_cast<std::uint16_t>(kind), static_cast<std::uint16_t>(qpn), static_cast<std::uint16_t>(peer_qpn),
         static_cast<std::uint8_t>(device), static_cast<std::uint8_t>(status), a, b};
    page->record_head.store(at + 1, std::memory_order_release);
}

} // namespace softefa::dev
