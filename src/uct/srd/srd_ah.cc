/* Address handles: see srd_ah.h. */
#include "uct/srd/srd_ah.h"

#include <cerrno>
#include <cstdlib>

namespace srd {

ah_table::~ah_table()
{
    if (kept_ != nullptr) {
        source_.destroy(source_.arg, kept_);
    }
    if (lent_ != nullptr) {
        source_.destroy(source_.arg, lent_);
    }
    for (ah_entry *&bucket : buckets_) {
        while (bucket != nullptr) {
            ah_entry *dead = bucket;
            bucket         = dead->next;
            source_.destroy(source_.arg, dead->ah);
            std::free(dead);
        }
    }
}

std::size_t ah_table::bucket_of(const gid_type &gid) noexcept
{
    const std::uint64_t mixed = base::load_le<std::uint64_t>(gid.data() + 8) ^ base::load_le<std::uint64_t>(gid.data());
    return (mixed * 0x9e3779b97f4a7c15u) >> (64 - 10);
}

ah_entry *ah_table::find(const gid_type &gid) const noexcept
{
    static_assert(bucket_count == 1u << 10);
    for (ah_entry *entry = buckets_[bucket_of(gid)]; entry != nullptr; entry = entry->next) {
        if (entry->gid == gid) {
            return entry;
        }
    }
    return nullptr;
}

ah_entry *ah_table::get(const gid_type &gid) noexcept
{
    ah_entry *entry = find(gid);
    if (entry != nullptr) {
        ++entry->ref_count;
        return entry;
    }
    if (lent_ != nullptr && lent_to_ == gid) {
        errno = EBUSY; // a second handle for one address shares its place, which is to be kept back again: AHT-3
        return nullptr;
    }
    entry = static_cast<ah_entry *>(std::malloc(sizeof(ah_entry)));
    if (entry == nullptr) {
        return nullptr;
    }
    entry->ah = source_.create(source_.arg, gid, &entry->number);
    if (entry->ah != nullptr && entry->number == ah_number_unknown) {
        // Receives from any sender without a handle carry this number: they would pass for this peer's.
        source_.destroy(source_.arg, entry->ah);
        entry->ah = nullptr;
        errno     = ERANGE;
    }
    if (entry->ah == nullptr) {
        std::free(entry);
        return nullptr;
    }
    entry->gid       = gid;
    entry->ref_count = 1;
    entry->next      = buckets_[bucket_of(gid)];
    buckets_[bucket_of(gid)] = entry;
    ++count_;
    return entry;
}

void ah_table::put(ah_entry *entry) noexcept
{
    if (--entry->ref_count != 0) {
        return;
    }
    ah_entry **link = &buckets_[bucket_of(entry->gid)];
    while (*link != entry) {
        link = &(*link)->next;
    }
    *link = entry->next;
    --count_;
    source_.destroy(source_.arg, entry->ah);
    std::free(entry);
    if (reserves_ && kept_ == nullptr && lent_ == nullptr) {
        reserve(nobody_);
    }
}

void ah_table::reserve(const gid_type &nobody) noexcept
{
    std::uint16_t number;

    nobody_   = nobody;
    reserves_ = true;
    kept_     = source_.create(source_.arg, nobody, &number);
}

ibv_ah *ah_table::borrow(const gid_type &gid) noexcept
{
    std::uint16_t number;

    if (kept_ == nullptr) {
        return nullptr;
    }
    source_.destroy(source_.arg, kept_);
    kept_ = nullptr;
    lent_ = source_.create(source_.arg, gid, &number);
    lent_to_ = gid;
    if (lent_ == nullptr) {
        reserve(nobody_);
    }
    return lent_;
}

void ah_table::give_back() noexcept
{
    if (lent_ != nullptr) {
        source_.destroy(source_.arg, lent_);
        lent_ = nullptr;
        reserve(nobody_);
    }
}

} // namespace srd
