/* The receive queue: descriptors, from the pool to the device, to the user, and back.
 *
 * Owns: how many receives are posted, when the queue is refilled, when the pool grows, and whether messages may be kept (IFC-3).
 * Refuses to know: what arrives in them.
 *
 * The free list is a list of work requests already, so that a refill is one call without a look at its elements.
 */
#include "uct/srd/srd_iface.h"

#include <new>

namespace srd {

namespace {

extern "C" void rx_release_desc(uct_recv_desc_t *self, void *)
{
    auto *d = reinterpret_cast<rx_desc *>(reinterpret_cast<unsigned char *>(self) - offsetof(rx_desc, release));

    --d->owner->rx.held;
    d->owner->rx.away -= !d->heap;
    rx_recycle(d->owner, d);
}

/// Below the low-water mark and nothing left to post: more memory, or make users copy. IFC-3.
[[gnu::noinline, gnu::cold]] bool rx_grow(iface *f) noexcept
{
    return f->rx_bufs.can_grow() && f->rx_bufs.grow();
}

/// The free list has `free_count` descriptors, more than are missing: what is beyond goes to the spare ones, so that
/// the next refill finds a list of the right length. Returns the length of what stays.
[[gnu::noinline]] std::uint32_t rx_cut_spare(iface *f, std::uint32_t free_count) noexcept
{
    const std::uint32_t missing = f->rx.target - f->rx.posted;
    ibv_recv_wr *last           = f->rx.free_list;

    for (std::uint32_t i = 1; i < missing; ++i) {
        last = last->next;
    }
    ibv_recv_wr *tail = last;
    while (tail->next != nullptr) {
        tail = tail->next;
    }
    tail->next  = f->rx.spare;
    f->rx.spare = last->next;
    last->next  = nullptr;
    f->rx.spare_count += free_count - missing;
    return missing;
}

} // namespace

void rx_init_desc(void *arg, void *element, std::uint32_t lkey) noexcept
{
    auto *f = static_cast<iface *>(arg);
    auto *d = new (element) rx_desc{};

    d->owner      = f;
    d->release.cb = rx_release_desc;
    d->sge.addr   = reinterpret_cast<std::uintptr_t>(element) + f->rx.payload_offset - wire::index_size;
    d->sge.length = static_cast<std::uint32_t>(f->md->attr.max_message_size);
    d->sge.lkey   = lkey;
    d->wr.wr_id   = reinterpret_cast<std::uintptr_t>(d) | 1; // odd: a receive; records of sends are even
    d->wr.sg_list = &d->sge;
    d->wr.num_sge = 1;
    d->wr.next    = f->rx.free_list;
    f->rx.free_list = &d->wr;
}

void rx_set_target(iface *f, std::uint32_t target) noexcept
{
    if (target > f->rx.queue_max) {
        target = f->rx.queue_max;
    }
    const std::uint32_t quarter = target / 4;
    const std::uint32_t batch   = quarter < 1 ? 1 : quarter < limits::refill_batch ? quarter : limits::refill_batch;

    f->rx.target    = target;
    f->rx.refill_at = target - batch + 1;
}

void rx_refill(iface *f) noexcept
{
    while (f->rx.posted < f->rx.target) {
        if (f->rx.free_list == nullptr) [[unlikely]] {
            f->rx.free_list   = f->rx.spare;
            f->rx.spare       = nullptr;
            f->rx.spare_count = 0;
            if (f->rx.free_list == nullptr && !rx_grow(f)) {
                break;
            }
        }
        // The free list already is a list of work requests, and usually all of it is missing: no look at its elements.
        ibv_recv_wr *first = f->rx.free_list;
        std::uint32_t batched =
            static_cast<std::uint32_t>(f->rx_bufs.total()) - f->rx.posted - f->rx.away - f->rx.spare_count;
        if (batched > f->rx.target - f->rx.posted) [[unlikely]] {
            batched = rx_cut_spare(f, batched);
        }
        ibv_recv_wr *bad  = nullptr;
        if (ibv_post_recv(f->tx.qp, first, &bad) != 0) [[unlikely]] {
            for (ibv_recv_wr *wr = first; wr != nullptr && wr != bad; wr = wr->next) {
                ++f->rx.posted;
            }
            f->rx.free_list = bad; // what was not taken stays
            break;
        }
        f->rx.free_list = nullptr;
        f->rx.posted += batched;
    }
    // The next message takes one: at the mark already, what it brings may not be kept. IFC-3
    f->rx.am_flags = f->rx.posted > f->rx.low_water ? UCT_CB_PARAM_FLAG_DESC : 0;
}

} // namespace srd
