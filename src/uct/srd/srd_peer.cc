/* The table of peers: see srd_peer.h. Slots become memory on demand, a chunk at a time; free slots queue first in, first out,
 * so the one that rested longest is issued first. */
#include "uct/srd/srd_peer.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <sys/mman.h>

namespace srd {

namespace {

/// Where every index leads when not even addresses could be had: a peer whose key no receive shows. Never written.
struct alignas(64) no_peer_type {
    std::uint64_t words[sizeof(peer) / 8] = {};
    constexpr no_peer_type() noexcept { words[offsetof(peer, key) / 8] = ~std::uint64_t{0}; }
};
constinit const no_peer_type no_peer;

} // namespace

peer_table::peer_table(std::uint32_t max_peers, std::uint64_t seed, std::uint32_t window) noexcept
    : max_(max_peers), seed_(seed), window_(window)
{
    constexpr std::uint32_t addressable = 1u << limits::slot_bits;
    std::uint32_t slots                 = addressable;
    if (max_ > addressable) {
        max_ = addressable;
    }
    // Addresses, not memory: nothing is committed before it is written. Where they are limited, fewer peers have to do.
    for (void *range = MAP_FAILED; range == MAP_FAILED; slots /= 2) {
        if (slots < limits::peers_per_chunk) {
            base_ = reinterpret_cast<peer *>(const_cast<no_peer_type *>(&no_peer)); // create() finds no slot
            mask_ = 0;
            break;
        }
        range = mmap(nullptr, slots * sizeof(peer), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        base_ = static_cast<peer *>(range);
        mask_ = slots - 1;
    }
    // Slots that were never used read as zeroes: the key of index 0. Slot 0 alone can be asked for that.
    if (mask_ != 0 && !reserve(1)) {
        munmap(base_, (std::size_t{mask_} + 1) * sizeof(peer));
        base_ = reinterpret_cast<peer *>(const_cast<no_peer_type *>(&no_peer));
        mask_ = 0;
    } else if (mask_ != 0) {
        new (base_) peer;
        base_->key = wire::index_make(0, 0);
        base_->accept_none();
    }
    for (std::uint32_t &bucket : buckets_) {
        bucket = wire::index_none;
    }
}

peer_table::~peer_table()
{
    if (mask_ != 0) {
        munmap(base_, (std::size_t{mask_} + 1) * sizeof(peer)); // peers are trivially destructible: they own nothing
    }
    static_assert(std::is_trivially_destructible_v<peer> && std::is_trivially_destructible_v<peer_slow>);
    std::free(links_);
    while (slow_chunks_ != nullptr) {
        slow_chunk *dead = slow_chunks_;
        slow_chunks_     = dead->next;
        std::free(dead);
    }
}

std::uint32_t peer_table::bucket_of(const gid_type &gid, std::uint16_t qpn) noexcept
{
    const std::uint64_t mixed = base::load_le<std::uint64_t>(gid.data() + 8) ^
                                (base::load_le<std::uint64_t>(gid.data()) * 31) ^ (std::uint64_t{qpn} << 40);
    return static_cast<std::uint32_t>((mixed * 0x9e3779b97f4a7c15u) >> (64 - 12));
}

peer *peer_table::find(const gid_type &gid, std::uint16_t qpn, std::uint32_t qkey) const noexcept
{
    static_assert(bucket_count == 1u << 12);
    for (std::uint32_t at = buckets_[bucket_of(gid, qpn)]; at != wire::index_none; at = links_[at].next) {
        peer *p = slot(at);
        if (p->qpn == qpn && p->qkey == qkey && p->state != peer_state::failed && p->gid() == gid) {
            return p;
        }
    }
    return nullptr;
}

peer *peer_table::find_failed(const gid_type &gid, std::uint16_t qpn, std::uint32_t qkey,
                              std::uint32_t epoch_remote) const noexcept
{
    for (std::uint32_t at = buckets_[bucket_of(gid, qpn)]; at != wire::index_none; at = links_[at].next) {
        peer *p = slot(at);
        if (p->qpn == qpn && p->qkey == qkey && p->state == peer_state::failed && p->epoch_remote == epoch_remote &&
            p->gid() == gid) {
            return p;
        }
    }
    return nullptr;
}

bool peer_table::reserve(std::uint32_t slots) noexcept
{
    if (slots <= capacity_) {
        return true;
    }
    const std::uint32_t grown = capacity_ + limits::peers_per_chunk;
    if (grown > mask_ + 1) {
        return false;
    }
    // Each step leaves a table that is still right if the next one fails.
    auto *more = static_cast<links *>(std::realloc(links_, grown * sizeof(links)));
    if (more == nullptr) {
        return false;
    }
    links_ = more;
    if (mprotect(base_ + capacity_, limits::peers_per_chunk * sizeof(peer), PROT_READ | PROT_WRITE) != 0) {
        return false;
    }
    for (std::uint32_t i = 0; i < limits::peers_per_chunk; ++i) {
        links_[capacity_ + i] = {wire::index_none, wire::index_none};
    }
    capacity_ = grown;
    return true;
}

std::uint32_t peer_table::take_slot(base::time_ns now) noexcept
{
    constexpr std::uint32_t addressable = 1u << limits::slot_bits;

    if (free_head_ != wire::index_none && now - slot(free_head_)->free_since >= limits::slot_quiet_ns) { // PEE-3
        const std::uint32_t taken = free_head_;
        free_head_                = links_[taken].next;
        if (free_head_ == wire::index_none) {
            free_tail_ = wire::index_none;
        }
        return taken;
    }
    if (used_ < addressable && reserve(used_ + 1)) {
        return used_++;
    }
    return wire::index_none;
}

peer *peer_table::create(const gid_type &gid, std::uint16_t qpn, std::uint32_t qkey, base::time_ns now) noexcept
{
    if (live_ >= max_ || !slow_reserve()) {
        return nullptr;
    }
    const std::uint32_t taken = take_slot(now);
    if (taken == wire::index_none) {
        return nullptr;
    }
    peer *p = slot(taken);
    std::uint32_t generation = (wire::index_generation(p->index_local()) + 1) & ((1u << limits::generation_bits) - 1);
    if (taken == (1u << limits::slot_bits) - 1 && generation == (1u << limits::generation_bits) - 1) {
        generation = 0; // that index would be index_none
    }

    new (p) peer(window_);
    p->key   = wire::index_make(taken, generation);
    p->accept_none(); // until its address handle is there
    p->state = peer_state::fresh;
    p->qpn   = qpn;
    p->qkey  = qkey;
    p->tx.hold(); // sends take the slow path, with the long header, until the peer answers
    p->heard_at      = static_cast<std::uint16_t>(now / base::sec(1));
    slow_get(p)->gid = gid; // cannot fail: reserved above

    std::uint32_t &bucket = buckets_[bucket_of(gid, qpn)];
    links_[taken]         = {bucket, wire::index_none};
    bucket                = taken;
    ++live_;
    return p;
}

void peer_table::unlink(peer *p) noexcept
{
    const std::uint32_t own = wire::index_slot(p->index_local());

    for (std::uint32_t *link = &buckets_[bucket_of(p->gid(), p->qpn)]; *link != wire::index_none; link = &links_[*link].next) {
        if (*link == own) {
            *link = links_[own].next;
            return;
        }
    }
}

void peer_table::release(peer *p, base::time_ns now) noexcept
{
    const std::uint32_t own = wire::index_slot(p->index_local());

    unlink(p);
    if (p->slow != &peer_slow_idle) {
        slow_put(p);
    }
    p->accept_none();
    p->state         = peer_state::vacant;
    p->free_since    = now;
    links_[own].next = wire::index_none;
    if (free_tail_ == wire::index_none) {
        free_head_ = own;
    } else {
        links_[free_tail_].next = own;
    }
    free_tail_ = own;
    --live_;
}

// --- the slow part -----------------------------------------------------------------------------------------------------

bool peer_table::slow_reserve() noexcept
{
    if (slow_free_ != nullptr) {
        return true;
    }
    auto *chunk = static_cast<slow_chunk *>(std::malloc(sizeof(slow_chunk)));
    if (chunk == nullptr) {
        return false;
    }
    chunk->next  = slow_chunks_;
    slow_chunks_ = chunk;
    for (slow_element &element : chunk->elements) {
        element.next_free = slow_free_;
        slow_free_        = &element;
    }
    return true;
}

peer_slow *peer_table::slow_get(peer *p) noexcept
{
    if (p->slow == &peer_slow_idle) {
        if (!slow_reserve()) {
            return nullptr;
        }
        slow_element *element = slow_free_;
        slow_free_            = element->next_free;
        p->slow               = new (&element->slow) peer_slow;
    }
    return const_cast<peer_slow *>(p->slow); // from the pool: not the constant one
}

void peer_table::slow_put(peer *p) noexcept
{
    auto *element      = reinterpret_cast<slow_element *>(const_cast<peer_slow *>(p->slow));
    p->slow            = &peer_slow_idle;
    element->next_free = slow_free_;
    slow_free_         = element;
}

// --- lists and sizes ---------------------------------------------------------------------------------------------------

void peer_table::work_push(work_list &list, peer *p) noexcept
{
    const std::uint32_t own = wire::index_slot(p->index_local());

    links_[own].work = wire::index_none;
    if (list.empty()) {
        list.head = own;
    } else {
        links_[list.tail].work = own;
    }
    list.tail = own;
}

peer *peer_table::work_pop(work_list &list) noexcept
{
    if (list.empty()) {
        return nullptr;
    }
    peer *p   = slot(list.head);
    list.head = links_[list.head].work;
    return p;
}

void peer_table::work_append(work_list &list, work_list &more) noexcept
{
    if (more.empty()) {
        return;
    }
    if (list.empty()) {
        list.head = more.head;
    } else {
        links_[list.tail].work = more.head;
    }
    list.tail = more.tail;
    more      = {};
}

std::size_t peer_table::memory() const noexcept
{
    std::size_t bytes = capacity_ * (sizeof(peer) + sizeof(links));

    for (const slow_chunk *chunk = slow_chunks_; chunk != nullptr; chunk = chunk->next) {
        bytes += sizeof(slow_chunk);
    }
    return bytes;
}

} // namespace srd
