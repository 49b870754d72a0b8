/* Finds the method of a command and runs it: see dispatch.h.
 *
 * Every way in is a row of a table; a row says what the command must and may carry, so that handlers only see commands of the
 * right shape. What has no row does not exist: EPROTONOSUPPORT for methods (libibverbs then falls back or remembers the
 * refusal), EOPNOTSUPP for commands of the older interface.
 */
#include "softefa/uverbs/dispatch.h"

#include "softefa/uverbs/errno_map.h"
#include "softefa/uverbs/file.h"
#include "softefa/uverbs/object_table.h"

#include <cerrno>

namespace softefa::uverbs {
namespace {

const method_spec *find_method(std::uint16_t object, std::uint16_t method)
{
    const std::span<const method_spec> tables[] = {device_methods, pd_methods, mr_methods,     ah_methods,
                                                   cq_methods,     qp_methods, channel_methods};
    for (const auto &table : tables) {
        for (const auto &row : table) {
            if (row.object == object && row.method == method) {
                return &row;
            }
        }
    }
    return nullptr;
}

const write_spec *find_write(std::uint32_t command)
{
    const std::span<const write_spec> tables[] = {device_writes, pd_writes, mr_writes,
                                                  ah_writes,     qp_writes, channel_writes};
    for (const auto &table : tables) {
        for (const auto &row : table) {
            if (row.command == command) {
                return &row;
            }
        }
    }
    return nullptr;
}

/// In a refusal's record, the object number that stands for the older interface.
constexpr unsigned write_object = 0xffff;

/// Queries of the device itself and completion channels are answered without it; everything else is a command to it.
bool reaches_device(const method_spec &m)
{
    return m.object != UVERBS_OBJECT_ASYNC_EVENT && (m.object != UVERBS_OBJECT_DEVICE || m.method == UVERBS_METHOD_GET_CONTEXT);
}

bool reaches_device(const write_spec &w)
{
    return w.command == IB_USER_VERBS_CMD_ALLOC_PD || w.command == IB_USER_VERBS_CMD_REG_MR || w.command == IB_USER_VERBS_CMD_CREATE_AH ||
           w.command == IB_USER_VERBS_CMD_MODIFY_QP || w.command == IB_USER_VERBS_CMD_QUERY_QP;
}

dev::command_kind created_by(const method_spec &m)
{
    using kind = dev::command_kind;
    if (m.object == UVERBS_OBJECT_DEVICE && m.method == UVERBS_METHOD_GET_CONTEXT) {
        return kind::context;
    }
    if (m.object == UVERBS_OBJECT_CQ && m.method == UVERBS_METHOD_CQ_CREATE) {
        return kind::cq;
    }
    if (m.object == UVERBS_OBJECT_QP && m.method == UVERBS_METHOD_QP_CREATE) {
        return kind::qp;
    }
    return m.object == UVERBS_OBJECT_MR && m.method == UVERBS_METHOD_REG_DMABUF_MR ? kind::mr : kind::other;
}

dev::command_kind created_by(const write_spec &w)
{
    using kind = dev::command_kind;
    switch (w.command) {
    case IB_USER_VERBS_CMD_ALLOC_PD: return kind::pd;
    case IB_USER_VERBS_CMD_REG_MR: return kind::mr;
    case IB_USER_VERBS_CMD_CREATE_AH: return kind::ah;
    default: return kind::other;
    }
}

} // namespace

int dispatch(open_file &file, std::uint64_t argument) noexcept
{
    request command;
    int     error = command.load(argument, find_method);
    if (error != 0) {
        return error;
    }
    if (command.method().needs_context && context_of(file) == 0) {
        return EINVAL;
    }
    error = command.resolve(file);
    if (error == 0) {
        error = command.method().handler(file, command);
    }
    const method_spec &m = command.method();
    if (m.object != UVERBS_OBJECT_DEVICE || m.method != UVERBS_METHOD_INVOKE_WRITE) { // which has counted what it carried
        dev::command_done(file.device_index, reaches_device(m), created_by(m), m.object, m.method, error);
    }
    return error;
}

int invoke_write(open_file &file, request &command) noexcept
{
    const write_spec *row = find_write(command.u32(UVERBS_ATTR_WRITE_CMD));
    if (row == nullptr) {
        return EOPNOTSUPP;
    }
    // libibverbs probes with a command that carries nothing and expects exactly this error.
    if (command.size(UVERBS_ATTR_CORE_IN) < row->in_min || command.size(UVERBS_ATTR_CORE_OUT) < row->out_min) {
        return ENOSPC;
    }
    if (row->needs_context && context_of(file) == 0) {
        return EINVAL;
    }
    const int error = row->handler(file, command);
    dev::command_done(file.device_index, reaches_device(*row), created_by(*row), write_object, row->command & 0xffff, error);
    return error;
}

dev::handle context_of(const open_file &file) noexcept { return file.context.load(std::memory_order_acquire); }

int destroy_object(object *slot, base::status (*destroy)(dev::handle)) noexcept
{
    const std::uint32_t handle = object_retire(slot);
    const int           error  = errno_of(destroy(slot->device));
    if (error != 0) {
        object_restore(slot, handle);
        return error;
    }
    object_free(slot);
    return 0;
}

int publish_created(object *slot, std::uint32_t handle, int error, base::status (*destroy)(dev::handle)) noexcept
{
    if (error == 0) {
        object_publish(slot, handle);
    } else { // nobody has seen it
        (void)destroy(slot->device);
        object_free(slot);
    }
    return error;
}

int write_lookup(const open_file &file, request &command, std::uint32_t handle, object_kind kind, object **object_p) noexcept
{
    return command.hold(file, handle, kind, object_p) == 0 ? 0 : EINVAL;
}

} // namespace softefa::uverbs
