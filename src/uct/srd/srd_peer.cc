/* The table of peers: see srd_peer.h. Chunks are allocated on demand and never move; free slots queue first in, first out,
 * so the one that rested longest is issued first. */
#include "uct/srd/srd_peer.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace srd {

peer_table::peer_table(std::uint32_t max_peers, std::uint64_t seed, std::uint32_t window) noexcept
    : max_(max_peers), seed_(seed | 1), window_(window)
{
    constexpr std::uint32_t addressable = 1u << limits::slot_bits;
    if (max_ > addressable) {
        max_ = addressable;
    }
}

peer_table::~peer_table()
{
    for (std::uint32_t i = 0; i < capacity_ / limits::peers_per_chunk; ++i) {
        std::free(chunks_[i]); // peers are trivially destructible: they own nothing
    }
    static_assert(std::is_trivially_destructible_v<peer>);
    std::free(chunks_);
    std::free(rests_);
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
    for (peer *p = buckets_[bucket_of(gid, qpn)]; p != nullptr; p = p->hash_next) {
        if (p->qpn == qpn && p->qkey == qkey && p->gid == gid && p->state != peer_state::failed) {
            return p;
        }
    }
    return nullptr;
}

peer *peer_table::find_failed(const gid_type &gid, std::uint16_t qpn, std::uint32_t qkey,
                              std::uint32_t epoch_remote) const noexcept
{
    for (peer *p = buckets_[bucket_of(gid, qpn)]; p != nullptr; p = p->hash_next) {
        if (p->qpn == qpn && p->qkey == qkey && p->gid == gid && p->state == peer_state::failed &&
            p->epoch_remote == epoch_remote) {
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
    const std::uint32_t grown  = capacity_ + limits::peers_per_chunk;
    const std::uint32_t chunks = grown / limits::peers_per_chunk;

    // Each step leaves a table that is still right if the next one fails.
    auto **pointers = static_cast<peer **>(std::realloc(chunks_, chunks * sizeof(peer *)));
    if (pointers == nullptr) {
        return false;
    }
    chunks_     = pointers;
    auto *rests = static_cast<rest *>(std::realloc(rests_, grown * sizeof(rest)));
    if (rests == nullptr) {
        return false;
    }
    rests_      = rests;
    auto *chunk = static_cast<peer *>(std::aligned_alloc(alignof(peer), limits::peers_per_chunk * sizeof(peer)));
    if (chunk == nullptr) {
        return false;
    }
    for (std::uint32_t i = 0; i < limits::peers_per_chunk; ++i) {
        new (&chunk[i]) peer;
        rests_[capacity_ + i] = {0, 0, wire::index_none};
    }
    chunks_[chunks - 1] = chunk;
    capacity_           = grown;
    return true;
}

std::uint32_t peer_table::take_slot(base::time_ns now) noexcept
{
    constexpr std::uint32_t addressable = 1u << limits::slot_bits;

    if (free_head_ != wire::index_none && now - rests_[free_head_].free_since >= limits::slot_quiet_ns) { // PEE-3
        const std::uint32_t slot = free_head_;
        free_head_               = rests_[slot].next_free;
        if (free_head_ == wire::index_none) {
            free_tail_ = wire::index_none;
        }
        return slot;
    }
    if (used_ < addressable && reserve(used_ + 1)) {
        return used_++;
    }
    return wire::index_none;
}

peer *peer_table::create(const gid_type &gid, std::uint16_t qpn, std::uint32_t qkey, base::time_ns now) noexcept
{
    if (live_ >= max_) {
        return nullptr;
    }
    const std::uint32_t slot = take_slot(now);
    if (slot == wire::index_none) {
        return nullptr;
    }
    rest &r      = rests_[slot];
    r.generation = (r.generation + 1) & ((1u << limits::generation_bits) - 1);
    if (slot == (1u << limits::slot_bits) - 1 && r.generation == (1u << limits::generation_bits) - 1) {
        r.generation = 0; // that index would be index_none
    }

    peer *p = &chunks_[slot / limits::peers_per_chunk][slot % limits::peers_per_chunk];
    new (p) peer;
    p->gid         = gid;
    p->qpn         = qpn;
    p->qkey        = qkey;
    p->index_local = wire::index_make(slot, r.generation);
    do {
        seed_          = seed_ * 6364136223846793005u + 1442695040888963407u;
        p->epoch_local = static_cast<std::uint32_t>(seed_ >> 32);
    } while (p->epoch_local == 0);
    p->tx = peer_tx_window(window_, limits::initial_grant);
    p->tx.hold(); // sends take the slow path, with the long header, until the peer answers
    p->heard_at = static_cast<std::uint32_t>(now / base::sec(1));

    peer *&bucket = buckets_[bucket_of(gid, qpn)];
    p->hash_next  = bucket;
    bucket        = p;
    ++live_;
    return p;
}

void peer_table::unlink(peer *p) noexcept
{
    for (peer **link = &buckets_[bucket_of(p->gid, p->qpn)]; *link != nullptr; link = &(*link)->hash_next) {
        if (*link == p) {
            *link        = p->hash_next;
            p->hash_next = nullptr;
            return;
        }
    }
}

void peer_table::release(peer *p, base::time_ns now) noexcept
{
    const std::uint32_t slot = wire::index_slot(p->index_local);

    unlink(p);
    p->key                 = 0;
    p->index_local         = wire::index_none;
    rests_[slot].free_since = now;
    rests_[slot].next_free  = wire::index_none;
    if (free_tail_ == wire::index_none) {
        free_head_ = slot;
    } else {
        rests_[free_tail_].next_free = slot;
    }
    free_tail_ = slot;
    --live_;
}

} // namespace srd
