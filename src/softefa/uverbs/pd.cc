/* Protection domains. */
#include "softefa/uverbs/dispatch.h"
#include "softefa/uverbs/errno_map.h"
#include "softefa/uverbs/file.h"
#include "softefa/uverbs/object_table.h"

#include <cerrno>

namespace softefa::uverbs {
namespace {

int alloc(open_file &file, request &command)
{
    object *slot = object_new(file, object_kind::pd);
    if (slot == nullptr) {
        return ENOMEM;
    }
    auto pd = dev::pd_alloc(context_of(file));
    if (!pd) {
        object_free(slot);
        return errno_of(pd.error());
    }
    slot->device = pd->pd;
    const ib_uverbs_alloc_pd_resp core{object_name(slot)};
    efa_ibv_alloc_pd_resp         efa{};
    efa.pdn   = pd->pdn;
    int error = command.write(UVERBS_ATTR_CORE_OUT, &core, sizeof(core.pd_handle));
    if (error == 0) {
        error = command.write(UVERBS_ATTR_UHW_OUT, efa);
    }
    return publish_created(slot, core.pd_handle, error, dev::pd_dealloc);
}

int dealloc(open_file &, request &command)
{
    return destroy_object(command.resolved(UVERBS_ATTR_DESTROY_PD_HANDLE), dev::pd_dealloc);
}

constexpr attr_spec dealloc_attrs[] = {
    {UVERBS_ATTR_DESTROY_PD_HANDLE, attr_kind::destroyed, true, 0, 0, object_kind::pd},
};
constexpr method_spec methods[] = {
    {UVERBS_OBJECT_PD, UVERBS_METHOD_PD_DESTROY, true, dealloc_attrs, dealloc},
};
constexpr write_spec writes[] = {
    {IB_USER_VERBS_CMD_ALLOC_PD, sizeof(ib_uverbs_alloc_pd), sizeof(std::uint32_t), true, alloc},
};

} // namespace

const std::span<const method_spec> pd_methods{methods};
const std::span<const write_spec>  pd_writes{writes};

} // namespace softefa::uverbs
