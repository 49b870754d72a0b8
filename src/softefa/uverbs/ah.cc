/* Address handles: a destination GID within a protection domain. */
#include "softefa/uverbs/dispatch.h"
#include "softefa/uverbs/errno_map.h"
#include "softefa/uverbs/file.h"
#include "softefa/uverbs/object_table.h"

#include <cerrno>
#include <cstring>

namespace softefa::uverbs {
namespace {

int create(open_file &file, request &command)
{
    ib_uverbs_create_ah ask;
    if (int error = command.read(UVERBS_ATTR_CORE_IN, &ask, sizeof(ask)); error != 0) {
        return error;
    }
    if (ask.attr.port_num != 1) {
        return EINVAL;
    }
    object *pd = nullptr;
    if (int error = write_lookup(file, command, ask.pd_handle, object_kind::pd, &pd); error != 0) {
        return error;
    }
    object *slot = object_new(file, object_kind::ah);
    if (slot == nullptr) {
        return ENOMEM;
    }
    dev::gid destination;
    memcpy(destination.data(), ask.attr.grh.dgid, destination.size());
    auto ah = dev::ah_create(pd->device, destination);
    if (!ah) {
        object_free(slot);
        return errno_of(ah.error());
    }
    slot->device = ah->ah;
    const std::uint32_t    handle = object_name(slot);
    efa_ibv_create_ah_resp efa{};
    efa.efa_address_handle = ah->ah_number;
    int error = command.write(UVERBS_ATTR_CORE_OUT, handle);
    if (error == 0) {
        error = command.write(UVERBS_ATTR_UHW_OUT, efa);
    }
    return publish_created(slot, handle, error, dev::ah_destroy);
}

int destroy(open_file &, request &command)
{
    return destroy_object(command.resolved(0), dev::ah_destroy);
}

constexpr std::uint16_t method_ah_destroy = 0;

constexpr attr_spec destroy_attrs[] = {
    {0, attr_kind::destroyed, true, 0, 0, object_kind::ah},
};
constexpr method_spec methods[] = {
    {UVERBS_OBJECT_AH, method_ah_destroy, true, destroy_attrs, destroy},
};
constexpr write_spec writes[] = {
    {IB_USER_VERBS_CMD_CREATE_AH, sizeof(ib_uverbs_create_ah), sizeof(std::uint32_t), true, create},
};

} // namespace

const std::span<const method_spec> ah_methods{methods};
const std::span<const write_spec>  ah_writes{writes};

} // namespace softefa::uverbs
