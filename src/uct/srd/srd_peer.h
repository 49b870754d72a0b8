/* Peers: one object for each life of a remote interface that we talk with, and the table that finds it.
 *
 * Owns: both sequence spaces shared with that life (every endpoint and lane uses the same one), its identity, its
 * handshake and its timers; the table from receiver-assigned index to peer (an array, on the data path) and from identity
 * (GID, QPN, qkey) to peer (a hash, for long headers and for endpoint creation).
 * Refuses to know: verbs and UCX's tables; what is sent and when is srd_control's and srd_tx's business.
 *
 * Two cache lines a peer, one for sends and one for receives; what is needed only while something is wrong or new is apart
 * (peer_slow), so that thousands of quiet peers stay small. What can be computed is not kept: the epoch towards a peer
 * follows from a secret and its index, the GID is its address handle's.
 *
 * The table is one range of addresses, reserved for every slot that may be and made writable as slots are needed. So a
 * receive finds its peer by a mask and a sum, and an index that was never issued finds zeroes, which accept nothing.
 * Rejected: chunks behind an array of pointers: two dependent loads and a bound to check for each message.
 *
 * A slot's index carries a generation, and a released slot rests for a quiet time, so a message for a former owner is
 * recognised. A peer object is one life: when the remote end restarts, or fails and is addressed again, a new object with a
 * new epoch is made; the old one keeps its endpoints until they are destroyed, and its records until they drain.
 *
 * Invariants
 *   PEE-1  at most one peer that is not failed for an identity.
 *   PEE-2  pointers to peers stay valid until release(): the table never moves.
 *   PEE-3  an index is never issued twice within a quiet time.
 *   PEE-4  a peer is in at most one work list, and enters it without allocating: what is owed cannot be forgotten.
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
    vacant, ///< no peer: the slot was never used (0: memory that was never written), or rests
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

/// What a peer needs only while something is wrong or new: hello unanswered, receiver not ready, a timer armed, one-sided operations outstanding. From a pool,
/// so an idle peer does not pay for it. Read through peer::slow, which is never null; written through peer_table::slow_get.
struct peer_slow {
    peer *timer_next          = nullptr; ///< in the list of armed timers; in the pool: unused
    base::time_ns timer_due   = 0;       ///< 0 = not armed
    base::time_ns hello_due   = 0;       ///< when to say hello again; 0 = nothing was sent yet
    base::time_ns rnr_since   = 0;       ///< first refusal of the current series; 0 = none
    std::uint32_t epoch_past  = 0;       ///< the peer's life before, whose stragglers are dropped; 0 = none
    std::uint16_t nonce       = 1;       ///< of our latest hello
    std::uint8_t backoff      = 0;       ///< doublings of the delay after a refusal
    std::uint8_t hello_backoff = 0;      ///< doublings of the delay between hellos
    std::uint8_t refusals     = 0;       ///< NAKs "no address handle"; counts while fresh
    std::uint16_t rma_count[2] = {0, 0}; ///< one-sided operations not complete, by group (srd_rma.h)
    base::seq32 consumed_asked{};        ///< psns before this one will be reported when they are consumed; if `asked`
    std::uint8_t rma_turn     = 0;       ///< number of the group that new one-sided operations join; its parity is the group
    bool asked                = false;   ///< a report of consumed_asked is under way
    gid_type gid{};                      ///< of the remote device, until there is a handle, which has it too

    unsigned rma_outstanding() const noexcept { return unsigned{rma_count[0]} + rma_count[1]; }
    /// Nothing in it would be missed. The nonce counts only until the peer has answered, and then no hello is due.
    bool is_idle() const noexcept
    {
        return timer_due == 0 && hello_due == 0 && rnr_since == 0 && epoch_past == 0 && backoff == 0 && rma_outstanding() == 0 &&
               !asked;
    }
};
static_assert(sizeof(peer_slow) == 72);

/// What every peer without a peer_slow of its own shows. Never written.
inline constinit const peer_slow peer_slow_idle{};

/// Address handle, QPN and qkey, as they lie in ibv_send_wr::wr.ud.
struct peer_route {
    struct ibv_ah *ah   = nullptr;
    std::uint32_t qpn  = 0;
    std::uint32_t qkey = 0;
};

struct alignas(64) peer {
    /// `window`: span of unacknowledged messages, at most limits::window_size.
    explicit peer(std::uint32_t window = limits::window_size) noexcept : tx(window, limits::initial_grant) {}

    // line 0: what a send touches
    [[no_unique_address]] peer_tx_window tx;        // what follows lies in its tail
    std::uint16_t waiting_count = 0;                ///< records to be posted again
    union {
        peer_route route{};                         ///< what a work request names
        struct {
            struct ibv_ah *ah;                      ///< == ah_ref->ah
            std::uint32_t qpn;
            std::uint32_t qkey;
        };
    };
    std::uint32_t index_remote  = wire::index_none; ///< what our short headers carry; valid when open
    peer_state state            = peer_state::vacant;
    std::uint8_t want           = 0;                ///< peer_want bits
    std::uint8_t control_in_flight = 0;             ///< at most limits::control_slots
    std::int8_t status_code     = UCS_OK;           ///< why it failed: a ucs_status_t, all of which fit

    // line 1: what a receive touches
    std::uint64_t key = wire::index_none;   ///< index | AH number << 32 | QPN << 48, as a receive shows them; see accept_none
    [[no_unique_address]] peer_rx_window rx; // what follows lies in its tail
    std::uint32_t attention = limits::initial_grant / 2; ///< deliveries until there is more to do than that: rx_set_attention
    [[no_unique_address]] rx_credit credit; // as above
    std::uint8_t activity      = 0;         ///< iface's activity number at the last grant; 0 = not counted as active
    bool in_work : 1           = false;
    bool in_timers : 1         = false;
    bool answered : 1          = false;     ///< nonce_answer was answered
    bool bye_received : 1      = false;
    bool bye_owed : 1          = false;     ///< closing: it is told, once
    bool retime : 1            = false;     ///< a timer could not be armed for want of memory: to be tried again
    bool knows_us : 1          = false;     ///< its device has an address handle for us: it spoke to us, and did not say it has none
    std::uint32_t epoch_remote = 0;         ///< the peer's life; 0 = not heard yet
    std::uint16_t heard_at     = 0;         ///< seconds, low half: the last time the peer was known to live; coarse
    std::uint16_t nonce_answer = 0;         ///< of the peer's latest hello; what hello_ack carries
    struct ep *eps             = nullptr;   ///< endpoints of this peer
    union {
        ah_entry *ah_ref = nullptr;         ///< null until a handle is needed and can be had
        base::time_ns free_since;           ///< vacant: when it was released
    };
    const peer_slow *slow      = &peer_slow_idle;

    /// Assigned by us; in every long header to the peer. Kept in the key, whether that accepts messages or not.
    std::uint32_t index_local() const noexcept { return static_cast<std::uint32_t>(key); }
    const gid_type &gid() const noexcept { return ah_ref != nullptr ? ah_ref->gid : slow->gid; }
    /// No message takes the common path: it would have to come from QPN 0xffff at an address that the device does not know.
    void accept_none() noexcept { key = index_local() | std::uint64_t{0xffffffff} << 32; }
    ucs_status_t status() const noexcept { return static_cast<ucs_status_t>(status_code); }
};
static_assert(static_cast<int>(UCS_ERR_LAST) >= INT8_MIN);
static_assert(sizeof(peer) == 128 && offsetof(peer, key) == 64);

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
        const std::uint32_t number = wire::index_slot(index);
        return number < used_ ? base_ + number : nullptr;
    }

    /// As at(), for any index: what was never used shows a peer that accepts nothing.
    peer *at_any(std::uint32_t index) const noexcept { return base_ + (index & mask_); }

    /// A failed peer by identity and the remote epoch it had: what still arrives from that life is stale.
    peer *find_failed(const gid_type &gid, std::uint16_t qpn, std::uint32_t qkey, std::uint32_t epoch_remote) const noexcept;
    /// A peer that is not failed, by identity.
    peer *find(const gid_type &gid, std::uint16_t qpn, std::uint32_t qkey) const noexcept;
    /// A new peer in state fresh, findable, with an index and an epoch. Null: the bound, or no memory.
    peer *create(const gid_type &gid, std::uint16_t qpn, std::uint32_t qkey, base::time_ns now) noexcept;
    /// The slot becomes free after a quiet time. The caller has let go of everything that refers to it.
    void release(peer *p, base::time_ns now) noexcept;

    /// The peer's slow part, its own from now on. Null: no memory.
    peer_slow *slow_get(peer *p) noexcept;
    /// Takes it back if nothing in it would be missed.
    void slow_put_idle(peer *p) noexcept
    {
        if (p->slow != &peer_slow_idle && p->ah_ref != nullptr && !p->in_timers && p->slow->is_idle()) {
            slow_put(p);
        }
    }

    /// Our life towards the peer: random, never 0, another one for each index.
    std::uint32_t epoch_local(const peer *p) const noexcept
    {
        std::uint64_t mixed = (seed_ ^ p->index_local()) * 0x9e3779b97f4a7c15u;
        mixed               = (mixed ^ (mixed >> 29)) * 0xbf58476d1ce4e5b9u;
        const auto epoch    = static_cast<std::uint32_t>(mixed >> 32);
        return epoch != 0 ? epoch : 1;
    }

    /// A list of peers by one link each: whoever keeps one adds at the tail and takes at the head. PEE-4
    struct work_list {
        std::uint32_t head = wire::index_none, tail = wire::index_none; ///< slots
        bool empty() const noexcept { return head == wire::index_none; }
    };
    void work_push(work_list &list, peer *p) noexcept;
    peer *work_pop(work_list &list) noexcept;
    /// All of `more` follow the peers of `list`; `more` is empty then.
    void work_append(work_list &list, work_list &more) noexcept;

    std::uint32_t slots_used() const noexcept { return used_; }
    std::uint32_t live() const noexcept { return live_; }
    bool is_live(const peer *p) const noexcept { return p->state != peer_state::vacant; }
    /// Bytes that all peers take, vacant slots and pools included.
    std::size_t memory() const noexcept;

private:
    static constexpr std::uint32_t bucket_count = 4096;
    static std::uint32_t bucket_of(const gid_type &gid, std::uint16_t qpn) noexcept;
    peer *slot(std::uint32_t number) const noexcept { return base_ + number; }
    void unlink(peer *p) noexcept;
    std::uint32_t take_slot(base::time_ns now) noexcept;
    bool reserve(std::uint32_t slots) noexcept;
    bool slow_reserve() noexcept;
    void slow_put(peer *p) noexcept;

    /// What links a slot into lists: slots, index_none = last. Beside the peers, which have no room left in their two lines.
    struct links {
        std::uint32_t next; ///< in its bucket; vacant: the slot released next
        std::uint32_t work; ///< in a work_list
    };
    union slow_element {
        peer_slow slow;
        slow_element *next_free;
    };
    struct slow_chunk {
        slow_chunk *next;
        slow_element elements[limits::slows_per_chunk];
    };

    peer *base_;                        ///< of all slots that may ever be
    std::uint32_t mask_;                ///< their number less one: a power of two less one
    links *links_           = nullptr;  ///< one a slot
    slow_element *slow_free_ = nullptr;
    slow_chunk *slow_chunks_ = nullptr;
    std::uint32_t capacity_ = 0;        ///< slots whose memory may be written, and that links_ holds
    std::uint32_t used_     = 0;        ///< slots ever issued
    std::uint32_t live_     = 0;        ///< slots in use
    std::uint32_t max_;                 ///< bound on live_
    std::uint32_t free_head_ = wire::index_none; ///< oldest released slot
    std::uint32_t free_tail_ = wire::index_none;
    std::uint64_t seed_;                ///< of the epochs
    std::uint32_t window_;              ///< of every peer's tx
    std::uint32_t buckets_[bucket_count]; ///< slots; index_none = empty
};

} // namespace srd
