/* Completion queues. */
#include "softefa/settings.h"
#include "softefa/uverbs/dispatch.h"
#include "softefa/uverbs/errno_map.h"
#include "softefa/uverbs/file.h"
#include "softefa/uverbs/object_table.h"
#include "softefa/uverbs/user_memory.h"

#include <algorithm>
#include <bit>
#include <cerrno>

namespace softefa::uverbs {
namespace {

constexpr std::uint32_t comp_vector_count = 1;
constexpr std::uint16_t sub_cq_count      = 1;

/// What the EFA provider adds to the command. 0 or an errno.
int read_driver_part(const request &command, dev::cq_request *ask_p)
{
    efa_ibv_create_cq efa{};
    if (command.size(UVERBS_ATTR_UHW_IN) < offsetof(efa_ibv_create_cq, flags) + 1) {
        return EINVAL;
    }
    if (int error = command.read(UVERBS_ATTR_UHW_IN, &efa); error != 0) {
        return error;
    }
    const bool reserved_set = std::any_of(std::begin(efa.reserved_58), std::end(efa.reserved_58), [](auto b) { return b != 0; });
    if (efa.comp_mask != 0 || reserved_set || efa.num_sub_cqs != sub_cq_count ||
        (efa.flags & ~(EFA_CREATE_CQ_WITH_COMPLETION_CHANNEL | EFA_CREATE_CQ_WITH_SGID)) != 0) {
        return EINVAL;
    }
    ask_p->with_sgid  = (efa.flags & EFA_CREATE_CQ_WITH_SGID) != 0;
    ask_p->entry_size = efa.cq_entry_size;
    if (efa.cq_entry_size != 32 && (efa.cq_entry_size != 16 || ask_p->with_sgid)) {
        return EINVAL;
    }
    return 0;
}

int check(const request &command, dev::cq_request *ask_p)
{
    if (command.u32(UVERBS_ATTR_CREATE_CQ_FLAGS) != 0 || command.has(abi::attr_create_cq_buffer_va) ||
        command.has(abi::attr_create_cq_buffer_fd)) {
        return EOPNOTSUPP; // ring memory that the application brings along
    }
    ask_p->cqe         = command.u32(UVERBS_ATTR_CREATE_CQ_CQE);
    ask_p->user_handle = command.u64(UVERBS_ATTR_CREATE_CQ_USER_HANDLE);
    if (ask_p->cqe < 1 || ask_p->cqe > settings_get(nullptr)->limits.max_cqe || !std::has_single_bit(ask_p->cqe) ||
        command.u32(UVERBS_ATTR_CREATE_CQ_COMP_VECTOR) >= comp_vector_count) {
        return EINVAL;
    }
    return read_driver_part(command, ask_p);
}

int answer(const request &command, const dev::cq_request &ask, const dev::cq_reply &cq, std::uint32_t handle)
{
    efa_ibv_create_cq_resp efa{};
    efa.q_mmap_key  = cq.ring.offset;
    efa.q_mmap_size = cq.ring.size;
    efa.cq_idx      = cq.cq_index;
    if (cq.doorbell.size != 0) {
        efa.comp_mask   = EFA_CREATE_CQ_RESP_DB_OFF;
        efa.db_mmap_key = cq.doorbell.offset;
    }
    int error = command.write(UVERBS_ATTR_CREATE_CQ_RESP_CQE, ask.cqe);
    if (error == 0) {
        error = command.write(UVERBS_ATTR_UHW_OUT, efa);
    }
    return error != 0 ? error : command.write_handle(UVERBS_ATTR_CREATE_CQ_HANDLE, handle);
}

/// Takes the CQ down, which nobody finds any more; *reported_p: events that the application has read, of both kinds. 0 or an errno.
int take_down(object *slot, ib_uverbs_destroy_cq_resp *reported_p)
{
    std::uint32_t written = 0, async_written = 0;
    if (int error = errno_of(dev::cq_destroy(slot->device, &written, &async_written)); error != 0) {
        return error;
    }
    if (slot->events != nullptr) {
        // libibverbs waits until the application has acknowledged every event reported here: unread ones must not count.
        const std::uint32_t unread = channel_drain(slot->events, slot->user_handle);
        reported_p->comp_events_reported = written - std::min(written, unread);
        channel_put(slot->events);
    }
    if (async_written != 0) {
        const std::uint32_t unread        = channel_drain_async(*slot->file, slot->user_handle);
        reported_p->async_events_reported = async_written - std::min(async_written, unread);
    }
    object_free(slot);
    return 0;
}

int create(open_file &file, request &command)
{
    dev::cq_request ask;
    if (int error = check(command, &ask); error != 0) {
        return error;
    }
    if (command.has(UVERBS_ATTR_CREATE_CQ_EVENT_FD)) {
        channel *async = channel_get(file, command.fd(UVERBS_ATTR_CREATE_CQ_EVENT_FD), true);
        if (async == nullptr) {
            return EBADF;
        }
        channel_put(async);
    }
    channel *events = nullptr;
    if (command.has(UVERBS_ATTR_CREATE_CQ_COMP_CHANNEL)) {
        events = channel_get(file, command.fd(UVERBS_ATTR_CREATE_CQ_COMP_CHANNEL), false);
        if (events == nullptr) {
            return EBADF;
        }
        ask.event_fd = events->write_fd;
    }
    object *slot = object_new(file, object_kind::cq);
    auto    cq   = slot != nullptr ? dev::cq_create(context_of(file), ask)
                                   : base::result<dev::cq_reply>(base::status::no_memory);
    if (!cq) {
        if (slot != nullptr) {
            object_free(slot);
        }
        if (events != nullptr) {
            channel_put(events);
        }
        return errno_of(cq.error());
    }
    slot->device       = cq->cq;
    slot->user         = reinterpret_cast<const void *>(ask.user_handle);
    slot->user_handle  = ask.user_handle;
    slot->events       = events;
    slot->hooks        = &file.hooks;
    slot->from_library = hooks_install_context(file, ask.user_handle);
    const std::uint32_t handle = object_name(slot);
    const int           error  = answer(command, ask, *cq, handle);
    if (error != 0) {
        ib_uverbs_destroy_cq_resp reported{};
        (void)take_down(slot, &reported);
        return error;
    }
    object_publish(slot, handle);
    return 0;
}

int destroy(open_file &, request &command)
{
    ib_uverbs_destroy_cq_resp reply{};
    object                   *slot = command.resolved(UVERBS_ATTR_DESTROY_CQ_HANDLE);
    // Asked before the handle is retired: another thread that polls meanwhile must not find the CQ gone.
    if (dev::cq_in_use(slot->device)) {
        return EBUSY;
    }
    const std::uint32_t handle = object_retire(slot);
    if (int error = take_down(slot, &reply); error != 0) {
        object_restore(slot, handle);
        return error;
    }
    return command.write(UVERBS_ATTR_DESTROY_CQ_RESP, reply);
}

constexpr attr_spec create_attrs[] = {
    {UVERBS_ATTR_CREATE_CQ_HANDLE, attr_kind::new_handle, true},
    {UVERBS_ATTR_CREATE_CQ_CQE, attr_kind::in, true, 4, 4},
    {UVERBS_ATTR_CREATE_CQ_USER_HANDLE, attr_kind::in, true, 8, 8},
    {UVERBS_ATTR_CREATE_CQ_COMP_CHANNEL, attr_kind::fd, false},
    {UVERBS_ATTR_CREATE_CQ_COMP_VECTOR, attr_kind::in, true, 4, 4},
    {UVERBS_ATTR_CREATE_CQ_FLAGS, attr_kind::in, false, 4, 4},
    {UVERBS_ATTR_CREATE_CQ_RESP_CQE, attr_kind::out, true, 4},
    {UVERBS_ATTR_CREATE_CQ_EVENT_FD, attr_kind::fd, false},
    {abi::attr_create_cq_buffer_va, attr_kind::in, false, 8, 8},
    {abi::attr_create_cq_buffer_length, attr_kind::in, false, 8, 8},
    {abi::attr_create_cq_buffer_fd, attr_kind::fd, false},
    {abi::attr_create_cq_buffer_offset, attr_kind::in, false, 8, 8},
    {UVERBS_ATTR_UHW_IN, attr_kind::in, true, 0, sizeof(efa_ibv_create_cq)},
    {UVERBS_ATTR_UHW_OUT, attr_kind::out, true},
};
constexpr attr_spec destroy_attrs[] = {
    {UVERBS_ATTR_DESTROY_CQ_HANDLE, attr_kind::destroyed, true, 0, 0, object_kind::cq},
    {UVERBS_ATTR_DESTROY_CQ_RESP, attr_kind::out, true, sizeof(ib_uverbs_destroy_cq_resp)},
};
constexpr method_spec methods[] = {
    {UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_CREATE, true, create_attrs, create},
    {UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_DESTROY, true, destroy_attrs, destroy},
};

} // namespace

const std::span<const method_spec> cq_methods{methods};

} // namespace softefa::uverbs
