/* Peers: one object for each life of a remote interface that we talk with, and the table that finds it.
 *
 * Owns: both sequence spaces shared with that life (every endpoint and lane uses the same one), its identity, its
 * handshake and its timers; the table from receiver-assigned index to peer (an array, on the data path) and from identity
 * (GID, QPN, qkey) to peer (a hash, for long headers and for endpoint creation).
 * Refuses to know: verbs and UCX's tables; what is sent and when is srd_control's and srd_tx's business.
 *
 * A slot's index carries a generation, and a released slot rests for a quiet time, so a message for a former owner is
 * recognised. A peer object is one life: when the remote end restarts, or fails and is addressed again, a new object with a
 * new epoch is made; the old one keeps its endpoints until they are destroyed, and its records until they drain.
 *
 * Invariants
 *   PEE-1  at most one peer that is not failed for an identity.
 *   PEE-2  pointers to peers stay valid until release(): chunks never move.
 *   PEE-3  an index is never issued twice within a quiet time.
 */
#pragma once

#include "base/clock.h"
#include "uct/srd/srd_ah.h"
#include "uct/srd/srd_credit.h"
#include "uct/srd/srd_limits.h"
#include "uct/srd/srd_op.h"
#include "uct/srd/srd_rx_window.h"
#include "uct/srd/srd_tx_window.h"
#include "uct/srd/srd_wire.h"

#include <cstddef>
#include <cstdint>

namespace srd {

enum class peer_state : std::uint8_t {
    fresh,  ///< sends carry the long header; entered at creation, left when the peer names our epoch
    open,   ///< sends carry the index the peer assigned
    failed, ///< nothing is sent or accepted; entered by peer_fail, left by release
};

/// Control messages and other work owed to a peer. Every one is idempotent: owing it twice is owing it once.
enum peer_want : std::uint8_t {
    want_hello     = 1u << 0,
    want_hello_ack = 1u << 1,
    want_credit    = 1u << 2,
    want_probe     = 1u << 3,
    want_nak       = 1u << 4,
    want_bye       = 1u << 5,
    want_report    = 1u << 6, ///< tell the endpoints of a failed peer
    want_repost    = 1u << 7, ///< records wait for their turn in the send queue
};

using peer_rx_window = rx_window<limits::window_size>;
using peer_tx_window = tx_window<op>;

struct alignas(64) peer {
    // line 0: what a send touches
    peer_tx_window tx{limits::window_size, limits::initial_grant};
    struct ibv_ah *ah           = nullptr;          ///< == ah_ref->ah
    std::uint32_t qkey          = 0;
    std::uint32_t index_remote  = wire::index_none; ///< what our short headers carry; valid when open
    std::uint16_t qpn           = 0;
    peer_state state            = peer_state::fresh;
    std::uint8_t want           = 0;                ///< peer_want bits

    // line 1: what a receive touches
    alignas(64) std::uint64_t key = 0;      ///< index | AH number << 32 | QPN << 48, as a receive shows them; 0 = accept none
    peer_rx_window rx;
    base::seq32 attention{limits::initial_grant / 2}; ///< when rx.expected() gets here there is more to do than deliver
    rx_credit credit;
    std::uint32_t index_local  = wire::index_none; ///< assigned by us; in every long header to the peer
    std::uint32_t epoch_local  = 0;                ///< our life towards the peer; random, never 0
    std::uint32_t epoch_remote = 0;                ///< the peer's life; 0 = not heard yet
    std::uint32_t epoch_past   = 0;                ///< the life before, whose stragglers are dropped; 0 = none
    std::uint8_t activity      = 0;                ///< iface's activity number at the last grant

    // line 2: rare
    alignas(64) ah_entry *ah_ref = nullptr; ///< null until a handle is needed and can be had
    struct ep *eps               = nullptr; ///< endpoints of this peer
    peer *work_next              = nullptr; ///< in the work list
    peer *timer_next             = nullptr; ///< in the list of armed timers
    base::time_ns timer_due      = 0;       ///< 0 = not armed
    base::time_ns hello_due      = 0;       ///< when to say hello again; 0 = nothing was sent yet
    base::time_ns rnr_since      = 0;       ///< first refusal of the current series; 0 = none
    peer *hash_next              = nullptr;
    std::uint16_t control_in_flight = 0;
    std::uint16_t waiting_count  = 0;       ///< records to be posted again
    std::uint16_t nonce          = 1;       ///< of our latest hello
    std::uint16_t nonce_answer   = 0;       ///< of the peer's latest hello; what hello_ack carries
    std::uint8_t backoff         = 0;       ///< doublings of the delay after a refusal
    std::uint8_t hello_backoff   = 0;       ///< doublings of the delay between hellos
    bool in_work : 1             = false;
    bool in_timers : 1           = false;
    bool answered : 1            = false;   ///< nonce_answer was answered
    bool bye_received : 1        = false;
    std::uint8_t nak             = 0;       ///< reason of the NAK that is owed
    ucs_status_t status          = UCS_OK;  ///< why it failed
    std::uint32_t heard_at       = 0;       ///< seconds: the last time the peer was known to live; coarse
    gid_type gid{};                         ///< of the remote device
};
static_assert(sizeof(peer) == 256 && offsetof(peer, key) == 64 && offsetof(peer, ah_ref) == 128);

class peer_table {
public:
    /// `window`: span of unacknowledged messages towards one peer, at most limits::window_size.
    peer_table(std::uint32_t max_peers, std::uint64_t seed, std::uint32_t window = limits::window_size) noexcept;
    peer_table(const peer_table &)            = delete;
    peer_table &operator=(const peer_table &) = delete;
    ~peer_table();

    /// The slot an index names, whatever its generation; null when out of range. Compare `key` before use.
    peer *at(std::uint32_t index) const noexcept
    {
        const std::uint32_t slot = wire::index_slot(index);
        return slot < used_ ? &chunks_[slot / limits::peers_per_chunk][slot % limits::peers_per_chunk] : nullptr;
    }

    /// A failed peer by identity and the remote epoch it had: what still arrives from that life is stale.
    peer *find_failed(const gid_type &gid, std::uint16_t qpn, std::uint32_t qkey, std::uint32_t epoch_remote) const noexcept;
    /// A peer that is not failed, by identity.
    peer *find(const gid_type &gid, std::uint16_t qpn, std::uint32_t qkey) const noexcept;
    /// A new peer in state fresh, findable, with an index and an epoch. Null: the bound, or no memory.
    peer *create(const gid_type &gid, std::uint16_t qpn, std::uint32_t qkey, base::time_ns now) noexcept;
    /// The slot becomes free after a quiet time. The caller has let go of everything that refers to it.
    void release(peer *p, base::time_ns now) noexcept;

    std::uint32_t slots_used() const noexcept { return used_; }
    std::uint32_t live() const noexcept { return live_; }
    bool is_live(const peer *p) const noexcept { return p->index_local != wire::index_none; }

private:
    static constexpr std::uint32_t bucket_count = 4096;
    static std::uint32_t bucket_of(const gid_type &gid, std::uint16_t qpn) noexcept;
    void unlink(peer *p) noexcept;
    std::uint32_t take_slot(base::time_ns now) noexcept;
    bool reserve(std::uint32_t slots) noexcept;

    /// What outlives the peer in a slot.
    struct rest {
        base::time_ns free_since;
        std::uint32_t generation;
        std::uint32_t next_free; ///< slot; index_none = last
    };

    peer **chunks_          = nullptr;
    rest *rests_            = nullptr;  ///< one a slot
    std::uint32_t capacity_ = 0;        ///< slots that chunks_ and rests_ hold
    std::uint32_t used_     = 0;        ///< slots ever issued
    std::uint32_t live_     = 0;        ///< slots in use
    std::uint32_t max_;                 ///< bound on live_
    std::uint32_t free_head_ = wire::index_none; ///< oldest released slot
    std::uint32_t free_tail_ = wire::index_none;
    std::uint64_t seed_;                ///< of the epochs
    std::uint32_t window_;              ///< of every peer's tx
    peer *buckets_[bucket_count] = {};
};

} // namespace srd
