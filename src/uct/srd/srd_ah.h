/* Address handles: found or created, one for each remote device, counted.
 *
 * Owns: the table from GID to address handle of one interface. Several peers on one remote device share an entry. An
 * entry is destroyed with its last reference: while any peer refers to a device the handle stays, because a target that
 * destroys its handle for an initiator turns that initiator's one-sided operations into errors (status 14).
 * Refuses to know: peers, and when creation is affordable: each creation is an admin command of the device, and the caller caps
 * them per progress turn. Creation comes through `source`, so tests run without a device.
 *
 * Invariants
 *   AHT-1  at most one entry for a GID.
 *   AHT-2  an entry exists exactly while it has references.
 *   AHT-3  while reserve() found a handle to be had, one is kept back, so that a sender can still be told that no handle for
 *          it is left: it is lent for one message and taken back.
 */
#pragma once

#include "uct/srd/srd_wire.h"

#include <cstddef>
#include <cstdint>

struct ibv_ah;

namespace srd {

struct ah_entry {
    gid_type gid;
    struct ibv_ah *ah;       ///< what a send names
    std::uint16_t number;    ///< the device's number for it: what receive completions carry
    std::uint32_t ref_count; ///< >= 1
    ah_entry *next;          ///< in its bucket
};

/// What receive completions carry when the device knows no handle for the sender.
inline constexpr std::uint16_t ah_number_unknown = 0xffff;

struct ah_source {
    void *arg;
    /// Null: the device has none left, errno says why.
    struct ibv_ah *(*create)(void *arg, const gid_type &gid, std::uint16_t *number_p);
    void (*destroy)(void *arg, struct ibv_ah *ah);
};

class ah_table {
public:
    explicit ah_table(const ah_source &source) noexcept : source_(source) {}
    ah_table(const ah_table &)            = delete;
    ah_table &operator=(const ah_table &) = delete;
    ~ah_table();

    /// Without a reference; null when there is none.
    ah_entry *find(const gid_type &gid) const noexcept;
    /// With a reference; null when it cannot be created, errno set.
    ah_entry *get(const gid_type &gid) noexcept;
    void put(ah_entry *entry) noexcept;

    /// Keeps one handle back, made for an address that nobody has. AHT-3
    void reserve(const gid_type &nobody) noexcept;
    /// The place kept back, as a handle for `gid`. Null: nothing is kept, or it is lent. The caller gives it back when the
    /// device has completed the message.
    struct ibv_ah *borrow(const gid_type &gid) noexcept;
    void give_back() noexcept;

    std::size_t count() const noexcept { return count_; }

private:
    static constexpr std::size_t bucket_count = 1024;
    static std::size_t bucket_of(const gid_type &gid) noexcept;

    ah_source source_;
    ah_entry *buckets_[bucket_count] = {};
    std::size_t count_               = 0; ///< entries
    gid_type nobody_{};
    bool reserves_                   = false;   ///< reserve() was called
    struct ibv_ah *kept_             = nullptr; ///< made for nobody_; null while lent, or while none could be had
    struct ibv_ah *lent_             = nullptr;
    gid_type lent_to_{};                        ///< whom lent_ is for
};

} // namespace srd
