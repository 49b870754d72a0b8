/* The handle table: see object_table.h.
 *
 * Algorithm: chunks of slots, mapped on demand by a raw system call (the host process may have hooks on mmap), a free list,
 * and a generation in the upper bits of each handle. The lock guards the free list and ownership; no device call and no
 * allocation happens under it.
 */
#include "softefa/uverbs/object_table.h"

#include "softefa/fabric/segment.h"

#include <cerrno>
#include <new>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::uverbs {

std::atomic<object *> object_chunks[object_chunks_max];

namespace {

constexpr std::uint32_t index_mask      = (1u << object_index_bits) - 1;
constexpr std::uint32_t generation_mask = (1u << (32 - object_index_bits)) - 1;

pthread_mutex_t table_lock  = PTHREAD_MUTEX_INITIALIZER;
std::uint32_t   free_head   = 0; ///< index + 1
std::uint32_t   slot_count  = 0; ///< slots that exist

class guard {
public:
    guard() { pthread_mutex_lock(&table_lock); }
    ~guard() { pthread_mutex_unlock(&table_lock); }
    guard(const guard &)            = delete;
    guard &operator=(const guard &) = delete;
};

object *slot_at(std::uint32_t index)
{
    object *chunk = object_chunks[index / object_chunk_count].load(std::memory_order_relaxed);
    return chunk != nullptr ? &chunk[index % object_chunk_count] : nullptr;
}

bool add_chunk()
{
    if (slot_count / object_chunk_count >= object_chunks_max) {
        return false;
    }
    const long address = syscall(SYS_mmap, nullptr, sizeof(object) * object_chunk_count, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == -1) {
        return false;
    }
    auto *chunk = reinterpret_cast<object *>(address);
    for (std::uint32_t i = object_chunk_count; i-- > 0;) {
        new (&chunk[i]) object;
        chunk[i].index     = slot_count + i;
        chunk[i].next_free = free_head;
        free_head          = slot_count + i + 1;
    }
    object_chunks[slot_count / object_chunk_count].store(chunk, std::memory_order_release);
    slot_count += object_chunk_count;
    return true;
}

void free_locked(object *slot)
{
    if (slot->mapping != nullptr) {
        fabric::raw_munmap(slot->mapping, slot->mapping_size); // libc's may be hooked, by one who deregisters: that would want this lock
        slot->mapping = nullptr;
    }
    slot->file      = nullptr;
    slot->kind      = object_kind::none;
    slot->user      = nullptr;
    slot->users     = 0;
    slot->next_free = free_head;
    free_head       = slot->index + 1;
}

} // namespace

object *object_new(open_file &file, object_kind kind) noexcept
{
    guard g;
    if (free_head == 0 && !add_chunk()) {
        return nullptr;
    }
    object *slot      = slot_at(free_head - 1);
    free_head         = slot->next_free;
    slot->device      = 0;
    slot->user        = nullptr;
    slot->hooks       = nullptr;
    slot->start_poll  = nullptr;
    slot->next_poll   = nullptr;
    slot->end_poll    = nullptr;
    slot->wr_complete = nullptr;
    slot->polled      = 0;
    slot->kind        = kind;
    slot->from_library = false;
    slot->sq_sig_all  = false;
    slot->file        = &file;
    slot->events      = nullptr;
    slot->mapping     = nullptr;
    slot->user_handle = 0;
    slot->send_cq     = 0;
    slot->recv_cq     = 0;
    return slot;
}

std::uint32_t object_name(object *slot) noexcept
{
    slot->generation = (slot->generation + 1) & generation_mask;
    if (slot->generation == 0) {
        slot->generation = 1; // handle 0 is nobody's
    }
    return slot->generation << object_index_bits | slot->index;
}

void object_publish(object *slot, std::uint32_t handle) noexcept { slot->handle.store(handle, std::memory_order_release); }

std::uint32_t object_retire(object *slot) noexcept { return slot->handle.exchange(0, std::memory_order_acq_rel); }

void object_restore(object *slot, std::uint32_t handle) noexcept { slot->handle.store(handle, std::memory_order_release); }

void object_free(object *slot) noexcept
{
    guard g;
    free_locked(slot);
}

int object_get(const open_file &file, std::uint64_t handle, object_kind kind, object_use use, object **object_p) noexcept
{
    guard g;
    const auto index = static_cast<std::uint32_t>(handle) & index_mask;
    object    *slot  = handle <= UINT32_MAX && handle != 0 && index < slot_count ? slot_at(index) : nullptr;
    if (slot == nullptr || slot->handle.load(std::memory_order_acquire) != handle || slot->file != &file) {
        return ENOENT;
    }
    if (slot->kind != kind) {
        return EINVAL;
    }
    if (slot->users < 0 || (use == object_use::exclusive && slot->users != 0)) {
        return EBUSY;
    }
    slot->users = use == object_use::exclusive ? -1 : slot->users + 1;
    *object_p   = slot;
    return 0;
}

void object_put(object *slot, std::uint32_t handle, object_use use) noexcept
{
    guard g;
    if (slot->handle.load(std::memory_order_relaxed) == handle) { // else it was destroyed by this very command, and the slot may be another's
        slot->users = use == object_use::exclusive ? 0 : slot->users - 1;
    }
}

void object_free_all(const open_file &file) noexcept
{
    guard g;
    for (std::uint32_t index = 0; index < slot_count; ++index) {
        object *slot = slot_at(index);
        if (slot->file == &file) {
            slot->handle.store(0, std::memory_order_release);
            free_locked(slot);
        }
    }
}

void object_table_forked() noexcept
{
    // Another thread of the parent may have held the lock: its state in the child is unknown, so nothing of it is used.
    table_lock = PTHREAD_MUTEX_INITIALIZER;
    free_head  = 0;
    slot_count = 0;
    for (auto &chunk : object_chunks) {
        chunk.store(nullptr, std::memory_order_release);
    }
}

} // namespace softefa::uverbs
