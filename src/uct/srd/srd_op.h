/* One operation in flight: what is needed to complete it, to post it again after "receiver not ready", and to order it.
 *
 * Owns: the record and its pool. A record lives from the post until it leaves the FIFO of its peer (srd_tx_window.h), so
 * it refers to the peer, never to an endpoint that may be destroyed meanwhile: `ep` is an identity that ep_destroy clears.
 * Refuses to know: how a work request is built from it (srd_tx).
 *
 * The record of an inline send is its own staging buffer: header and payload are copied here and from here by the device,
 * also when they must be sent again. 64 bytes with the device's usual 32 inline bytes, 128 with the 80 of wide work requests.
 */
#pragma once

#include "uct/srd/srd_limits.h"
#include "uct/srd/ucx/uct_abi.h"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#define SRD_POISONS_RECORDS
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SRD_POISONS_RECORDS
#endif
#endif
#ifdef SRD_POISONS_RECORDS
#include <sanitizer/asan_interface.h>
#endif

namespace srd {

struct peer;
struct ep;
struct tx_buf;

enum class op_kind : std::uint8_t {
    am_inline, ///< bytes in the record
    am_buf,    ///< bytes in a bounce buffer
    am_zcopy,  ///< header in a bounce buffer, payload in the user's memory
    control,   ///< unsequenced control message in a control buffer; not in the FIFO
    marker,    ///< posts nothing: completes a flush when it reaches the head of the FIFO
    // One-sided (srd_rma.cc): no psn, no header; `imm` is the remote key, `length` counts the times it was posted again.
    put_inline, ///< write of bytes in the record
    put_buf,   ///< write from a bounce buffer
    put_zcopy, ///< write from the user's memory
    get_buf,   ///< read into a bounce buffer, which the user unpacks
    get_zcopy, ///< read into the user's memory
};

constexpr bool is_one_sided(op_kind kind) noexcept { return kind >= op_kind::put_inline; }
/// Whether memory or a completion of the user hangs on the device's answer: cancel and destroy wait for it.
constexpr bool holds_user(op_kind kind) noexcept { return kind == op_kind::am_zcopy || kind >= op_kind::put_zcopy; }

struct op {
    op *next;             ///< in the peer's FIFO, or in the free list
    struct peer *owner;   ///< whose sequence space; never null while in use
    std::uint32_t imm;    ///< host order; what the receiver gets again when this is posted again
    union {
        struct {
            std::uint16_t length; ///< bytes of the first piece, wire header included
            op_kind kind;
            bool done : 1;      ///< the device has completed it, or it never was posted (marker)
            bool sequenced : 1; ///< carries a psn (set by tx_window)
            bool waiting : 1;   ///< not in the send queue: to be posted again when the peer's timer fires
            bool cancelled : 1; ///< its endpoint asked to cancel it: do not post it again with the user's data
            bool user : 1;      ///< counts as outstanding for flush of the interface
            bool retried : 1;   ///< the peer had no receive buffer for it at least once
            std::uint8_t rma_group : 1; ///< one-sided: which of the peer's two counts it is in (srd_rma.h)
            std::uint8_t unused : 1; ///< 0
        };
        std::uint32_t shape;      ///< all of them in one store or compare: op_shape()
    };
    struct ep *ep;      ///< who posted it; compared, never followed; null after that endpoint is gone
    union {
        unsigned char bytes[32]; ///< am_inline; longer where the device's inline size is
        struct {
            union {
                tx_buf *buf;         ///< am_buf, am_zcopy, control: holds the first piece; put_buf, get_buf: the bytes
                std::uint64_t local; ///< put_zcopy, get_zcopy: the user's memory
            };
            uct_completion_t *comp; ///< am_zcopy, marker, get_buf, put_zcopy, get_zcopy: may be null
            std::uint64_t address;  ///< am_zcopy: second piece; one-sided: the remote memory
            std::uint32_t size;     ///< bytes there; 0 = no second piece
            std::uint32_t lkey;     ///< of the second piece; one-sided: of the local memory
        } ref;
        struct {
            std::uint64_t address;  ///< the remote memory
            std::uint32_t size;
            std::uint32_t reserved;
        } put;                      ///< put_inline; its bytes follow: op_put_bytes
    };
};
static_assert(sizeof(op) == 64, "one cache line");
static_assert(std::endian::native == std::endian::little, "op_shape");

/// The shape of a fresh record of an active message: sequenced and user, nothing else. Tested against the fields.
constexpr std::uint32_t op_shape(op_kind kind, unsigned length) noexcept
{
    return length + ((static_cast<std::uint32_t>(kind) << 16) | 0x12000000u); // a sum is one instruction
}
/// Whether it is that of an inline active message, whatever its length: not waiting, refused, cancelled or withdrawn.
constexpr bool is_plain_inline(std::uint32_t shape) noexcept { return shape >> 16 == op_shape(op_kind::am_inline, 0) >> 16; }
static_assert(offsetof(op, bytes) == 32);

/// What a record needs besides the bytes of an inline write.
inline constexpr std::size_t op_put_overhead = sizeof(op::put);
/// Those bytes: not a member, which the compiler would take for as long as it was declared.
inline unsigned char *op_put_bytes(op *o) noexcept
{
    return reinterpret_cast<unsigned char *>(o) + offsetof(op, put) + op_put_overhead;
}

/// Records of one size, allocated in chunks that are freed together. Get and put are a load and a store.
/// Under the address sanitizer a free record may not be touched, except for its link and the one that top() names.
class op_pool {
public:
    explicit op_pool(std::size_t inline_size) noexcept
        : stride_((offsetof(op, bytes) + (inline_size > 32 ? inline_size : 32) + 63) & ~std::size_t{63})
    {
    }
    op_pool(const op_pool &)            = delete;
    op_pool &operator=(const op_pool &) = delete;
    ~op_pool()
    {
        while (chunks_ != nullptr) {
            chunk *dead = chunks_;
            chunks_     = dead->next;
            std::free(dead);
        }
    }

    op *top() const noexcept
    {
        allow(free_);
        return free_;
    }
    /// Takes what top() returned, which was not null.
    void take(op *o) noexcept { free_ = o->next; }

    op *get() noexcept
    {
        if (free_ == nullptr && !grow()) [[unlikely]] {
            return nullptr;
        }
        op *o = free_;
        free_ = o->next;
        allow(o);
        return o;
    }

    void put(op *o) noexcept
    {
        o->next = free_;
        free_   = o;
        forbid(o);
    }

    bool grow() noexcept
    {
        const std::size_t size = sizeof(chunk) + limits::ops_per_chunk * stride_;
        auto *fresh            = static_cast<chunk *>(std::aligned_alloc(64, size));
        if (fresh == nullptr) {
            return false;
        }
        fresh->next = chunks_;
        chunks_     = fresh;
        auto *bytes = reinterpret_cast<unsigned char *>(fresh + 1);
        for (std::size_t i = limits::ops_per_chunk; i-- > 0;) {
            put(reinterpret_cast<op *>(bytes + i * stride_));
        }
        total_ += limits::ops_per_chunk;
        return true;
    }

    std::size_t total() const noexcept { return total_; }
    std::size_t count_free() const noexcept
    {
        std::size_t n = 0;
        for (const op *o = free_; o != nullptr; o = o->next) {
            ++n;
        }
        return n;
    }

private:
    struct alignas(64) chunk {
        chunk *next;
    };

    void allow([[maybe_unused]] op *o) const noexcept
    {
#ifdef SRD_POISONS_RECORDS
        if (o != nullptr) {
            __asan_unpoison_memory_region(o, stride_);
        }
#endif
    }
    void forbid([[maybe_unused]] op *o) const noexcept
    {
#ifdef SRD_POISONS_RECORDS
        __asan_poison_memory_region(&o->owner, stride_ - offsetof(op, owner));
#endif
    }

    op *free_           = nullptr;
    chunk *chunks_      = nullptr;
    std::size_t stride_;     ///< bytes from one record to the next
    std::size_t total_  = 0; ///< records in all chunks
};

} // namespace srd
