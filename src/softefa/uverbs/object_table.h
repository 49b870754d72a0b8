/* Handles that applications hold: which object of the device, of which open file, and what the verbs wrappers need.
 *
 * Owns: the map from a 32-bit handle to an object. Slots never move and are never freed, so that the data path looks one up
 * without a lock: two loads and a comparison.
 *
 * Invariants
 *   OBJ-1  a handle names one object for ever: the slot's generation changes with every reuse.
 *   OBJ-2  a handle of another open file, of another kind, or of the past is refused like one that never was.
 *   OBJ-3  while a command works on an object it is not destroyed, and its slot is nobody else's: EBUSY, as the kernel answers. The data path does
 *          not count: who polls or posts to what another thread destroys is refused when the handle is retired.
 */
#pragma once

#include "softefa/dev/device.h"

#include <atomic>
#include <cstddef>
#include <cstdint>

struct ibv_cq_ex;
struct ibv_poll_cq_attr;
struct ibv_qp_ex;

namespace softefa::uverbs {

struct open_file;
struct channel;
struct context_hooks;

enum class object_kind : std::uint8_t { none, pd, mr, ah, cq, qp };

/// Everything of one handle. The first cache line is what a poll or a post reads.
struct alignas(64) object {
    std::atomic<std::uint32_t> handle{0};        ///< 0 = free; set last, cleared first
    dev::handle                device = 0;       ///< what the device calls it
    const void                *user   = nullptr; ///< struct ibv_cq or ibv_qp of the application; never dereferenced unchecked
    const context_hooks       *hooks  = nullptr; ///< the provider's own functions of this context
    int (*start_poll)(ibv_cq_ex *, ibv_poll_cq_attr *) = nullptr; ///< CQ: the provider's; null = not wrapped
    int (*next_poll)(ibv_cq_ex *)                      = nullptr;
    void (*end_poll)(ibv_cq_ex *)                      = nullptr;
    int (*wr_complete)(ibv_qp_ex *)                    = nullptr; ///< QP: the provider's; null = not wrapped

    std::uint32_t polled       = 0;                 ///< CQ: entries since start_poll; written under the provider's CQ lock
    object_kind   kind         = object_kind::none;
    bool          from_library = false;             ///< CQ: `user` was seen to be a struct ibv_cq of this file
    bool          sq_sig_all   = false;             ///< QP
    open_file    *file         = nullptr;           ///< owner
    channel      *events       = nullptr;           ///< CQ: where its events go; null = none
    std::uint64_t user_handle  = 0;                 ///< CQ: what an event record carries
    std::uint32_t send_cq      = 0;                 ///< QP: handle of this table
    std::uint32_t recv_cq      = 0;                 ///< QP: handle of this table
    void         *mapping      = nullptr;           ///< MR of a descriptor: our mapping of it, undone with the object
    std::size_t   mapping_size = 0;
    std::uint32_t generation   = 0;                 ///< of the slot; survives reuse
    std::int32_t  users        = 0;                 ///< commands that work on it; -1: one that destroys it. Under the table's lock
    std::uint32_t next_free    = 0;                 ///< index + 1; 0 = end of the list
    std::uint32_t index        = 0;                 ///< of the slot itself
};

/// A free slot with kind and file set, not yet findable; null: no memory or the table is full.
object *object_new(open_file &file, object_kind kind) noexcept;
/// The handle that the slot is going to have.
std::uint32_t object_name(object *slot) noexcept;
/// Makes it findable by that handle. Call when every other field is set and the answer to the command is written.
void object_publish(object *slot, std::uint32_t handle) noexcept;
/// Takes the handle away, of an object that the caller got to destroy; returns it.
std::uint32_t object_retire(object *slot) noexcept;
/// The other way round, after a refused destroy.
void object_restore(object *slot, std::uint32_t handle) noexcept;
/// Back to the free list. The handle must have been retired or never published.
void object_free(object *slot) noexcept;

enum class object_use : std::uint8_t {
    shared,    ///< it must not go meanwhile
    exclusive, ///< to destroy it
};
/// As the kernel answers: ENOENT if there is none, EINVAL if it is of another kind, EBUSY if others work on it (OBJ-3); 0 and *object_p.
int object_get(const open_file &file, std::uint64_t handle, object_kind kind, object_use use, object **object_p) noexcept;
/// The end of that. Nothing happens if the caller has destroyed it.
void object_put(object *slot, std::uint32_t handle, object_use use) noexcept;

/// Everything that `file` still has goes back to the free list.
void object_free_all(const open_file &file) noexcept;

/// In a forked child: the table starts anew; old slots are abandoned.
void object_table_forked() noexcept;

constexpr std::uint32_t object_index_bits  = 20;
constexpr std::uint32_t object_chunk_count = 512; ///< objects in a chunk
constexpr std::uint32_t object_chunks_max  = (1u << object_index_bits) / object_chunk_count;

extern std::atomic<object *> object_chunks[object_chunks_max];

/// Data path: the live object with that handle that belongs to that struct of the application; null: none.
inline object *object_find(std::uint32_t handle, const void *user) noexcept
{
    const std::uint32_t index = handle & ((1u << object_index_bits) - 1);
    object             *chunk = object_chunks[index / object_chunk_count].load(std::memory_order_acquire);
    if (chunk == nullptr) [[unlikely]] {
        return nullptr;
    }
    object *slot = &chunk[index % object_chunk_count];
    if (slot->handle.load(std::memory_order_acquire) != handle || slot->user != user) [[unlikely]] {
        return nullptr;
    }
    return slot;
}

} // namespace softefa::uverbs
