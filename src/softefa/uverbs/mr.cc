/* Memory regions of host memory, and of descriptors.
 *
 * Registration by a dmabuf is refused with EOPNOTSUPP, which callers expect of older kernels, unless SOFTEFA_DMABUF=1: then any
 * descriptor that can be mapped stands in for the dmabuf of a GPU (a memfd, or a true dmabuf of udmabuf). The device works on a
 * mapping of its own, so what the application does with its mapping, and with the descriptor, changes nothing.
 */
#include "softefa/fabric/segment.h"
#include "softefa/settings.h"
#include "softefa/uverbs/dispatch.h"
#include "softefa/uverbs/errno_map.h"
#include "softefa/uverbs/file.h"
#include "softefa/uverbs/object_table.h"

#include <cerrno>
#include <cstdint>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace softefa::uverbs {
namespace {

enum : std::uint32_t {
    access_local_write   = 1u << 0,
    access_remote_write  = 1u << 1,
    access_remote_read   = 1u << 2,
    access_remote_atomic = 1u << 3,
    access_optional      = 0x3ff00000, ///< relaxed ordering and the like: may be ignored
};
enum : std::uint32_t { cap_rdma_read = 1u << 0, cap_rdma_write = 1u << 5 };

int check_access(std::uint32_t access)
{
    if ((access & (access_remote_write | access_remote_atomic)) != 0 && (access & access_local_write) == 0) {
        return EINVAL;
    }
    const std::uint32_t caps      = settings_get(nullptr)->limits.device_caps;
    std::uint32_t       supported = access_local_write;
    supported |= (caps & cap_rdma_read) != 0 ? access_remote_read : 0u;
    supported |= (caps & cap_rdma_write) != 0 ? access_remote_write : 0u;
    return (access & ~supported) == 0 ? 0 : EOPNOTSUPP;
}

int reg(open_file &file, request &command)
{
    ib_uverbs_reg_mr ask;
    if (int error = command.read(UVERBS_ATTR_CORE_IN, &ask, sizeof(ask)); error != 0) {
        return error;
    }
    const std::uint64_t page_mask = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) - 1;
    const std::uint32_t access    = ask.access_flags & ~access_optional;
    if ((ask.start & page_mask) != (ask.hca_va & page_mask) || ask.length == 0 || ask.start + ask.length < ask.start) {
        return EINVAL;
    }
    if (int error = check_access(access); error != 0) {
        return error;
    }
    object *pd = nullptr;
    if (int error = write_lookup(file, command, ask.pd_handle, object_kind::pd, &pd); error != 0) {
        return error;
    }

    object *slot = object_new(file, object_kind::mr);
    if (slot == nullptr) {
        return ENOMEM;
    }
    auto mr = dev::mr_register(pd->device, ask.start, ask.length, ask.hca_va, access);
    if (!mr) {
        object_free(slot);
        return errno_of(mr.error());
    }
    slot->device = mr->mr;
    const std::uint32_t reply[] = {object_name(slot), mr->lkey, mr->rkey};
    static_assert(sizeof(reply) == sizeof(ib_uverbs_reg_mr_resp));
    return publish_created(slot, reply[0], command.write(UVERBS_ATTR_CORE_OUT, reply), dev::mr_deregister);
}

int dereg(open_file &, request &command)
{
    return destroy_object(command.resolved(UVERBS_ATTR_DESTROY_MR_HANDLE), dev::mr_deregister);
}

/// Maps the whole pages of a part of a descriptor. 0 or an errno; the kernel's where it has one for this.
int map_descriptor(int fd, std::uint64_t offset, std::uint64_t length, std::uint32_t access, object *slot)
{
    const auto          page  = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    const std::uint64_t begin = offset & ~(page - 1);
    struct stat         status;
    if (length == 0 || offset + length < offset || offset + length > INT64_MAX) {
        return EINVAL;
    }
    if (fstat(fd, &status) != 0) {
        return errno;
    }
    if (offset + length > static_cast<std::uint64_t>(status.st_size)) {
        return EINVAL; // also keeps us from pages that a load would end with SIGBUS
    }
    const int protection = PROT_READ | ((access & access_local_write) != 0 ? PROT_WRITE : 0);
    void     *mapping    = fabric::raw_mmap(offset + length - begin, protection, MAP_SHARED, fd, begin);
    if (mapping == nullptr) {
        return errno == EACCES ? EPERM : errno;
    }
    slot->mapping      = mapping;
    slot->mapping_size = offset + length - begin;
    return 0;
}

int reg_dmabuf(open_file &file, request &command)
{
    if (settings_get(nullptr)->dmabuf == 0) {
        return EOPNOTSUPP;
    }
    const std::uint64_t offset = command.u64(UVERBS_ATTR_REG_DMABUF_MR_OFFSET);
    const std::uint64_t length = command.u64(UVERBS_ATTR_REG_DMABUF_MR_LENGTH);
    const std::uint64_t iova   = command.u64(UVERBS_ATTR_REG_DMABUF_MR_IOVA);
    const std::uint32_t access = command.u32(UVERBS_ATTR_REG_DMABUF_MR_ACCESS_FLAGS) & ~access_optional;
    const std::uint64_t page_mask = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) - 1;
    if ((offset & page_mask) != (iova & page_mask)) {
        return EINVAL;
    }
    if (int error = check_access(access); error != 0) {
        return error;
    }
    object *slot = object_new(file, object_kind::mr);
    if (slot == nullptr) {
        return ENOMEM;
    }
    const int fd = command.fd(UVERBS_ATTR_REG_DMABUF_MR_FD);
    if (int error = map_descriptor(fd, offset, length, access, slot); error != 0) {
        object_free(slot);
        return error;
    }
    const std::uint64_t start = reinterpret_cast<std::uint64_t>(slot->mapping) + (offset & page_mask);
    auto mr = dev::mr_register(command.resolved(UVERBS_ATTR_REG_DMABUF_MR_PD_HANDLE)->device, start, length, iova, access);
    if (!mr) {
        object_free(slot);
        return errno_of(mr.error());
    }
    slot->device = mr->mr;
    const std::uint32_t handle = object_name(slot);
    int error = command.write_handle(UVERBS_ATTR_REG_DMABUF_MR_HANDLE, handle);
    if (error == 0) {
        error = command.write(UVERBS_ATTR_REG_DMABUF_MR_RESP_LKEY, mr->lkey);
    }
    if (error == 0) {
        error = command.write(UVERBS_ATTR_REG_DMABUF_MR_RESP_RKEY, mr->rkey);
    }
    return publish_created(slot, handle, error, dev::mr_deregister);
}

/// efadv_query_mr: no interconnect ids are valid.
int efa_query(open_file &, request &command)
{
    for (const std::uint16_t id : {abi::attr_efa_query_mr_validity, abi::attr_efa_query_mr_recv_id,
                                   abi::attr_efa_query_mr_read_id, abi::attr_efa_query_mr_resp_id}) {
        if (int error = command.write(id, std::uint16_t{0}); error != 0) {
            return error;
        }
    }
    return 0;
}

constexpr attr_spec dereg_attrs[] = {
    {UVERBS_ATTR_DESTROY_MR_HANDLE, attr_kind::destroyed, true, 0, 0, object_kind::mr},
};
constexpr attr_spec reg_dmabuf_attrs[] = {
    {UVERBS_ATTR_REG_DMABUF_MR_HANDLE, attr_kind::new_handle, true},
    {UVERBS_ATTR_REG_DMABUF_MR_PD_HANDLE, attr_kind::handle, true, 0, 0, object_kind::pd},
    {UVERBS_ATTR_REG_DMABUF_MR_OFFSET, attr_kind::in, true, 8, 8},
    {UVERBS_ATTR_REG_DMABUF_MR_LENGTH, attr_kind::in, true, 8, 8},
    {UVERBS_ATTR_REG_DMABUF_MR_IOVA, attr_kind::in, true, 8, 8},
    {UVERBS_ATTR_REG_DMABUF_MR_FD, attr_kind::in, true, 0, 8},
    {UVERBS_ATTR_REG_DMABUF_MR_ACCESS_FLAGS, attr_kind::in, true, 4, 8},
    {UVERBS_ATTR_REG_DMABUF_MR_RESP_LKEY, attr_kind::out, true, 4},
    {UVERBS_ATTR_REG_DMABUF_MR_RESP_RKEY, attr_kind::out, true, 4},
};
constexpr attr_spec efa_query_attrs[] = {
    {abi::attr_efa_query_mr_handle, attr_kind::handle, true, 0, 0, object_kind::mr},
    {abi::attr_efa_query_mr_validity, attr_kind::out, true, 2},
    {abi::attr_efa_query_mr_recv_id, attr_kind::out, true, 2},
    {abi::attr_efa_query_mr_read_id, attr_kind::out, true, 2},
    {abi::attr_efa_query_mr_resp_id, attr_kind::out, true, 2},
};

constexpr method_spec methods[] = {
    {UVERBS_OBJECT_MR, UVERBS_METHOD_MR_DESTROY, true, dereg_attrs, dereg},
    {UVERBS_OBJECT_MR, UVERBS_METHOD_REG_DMABUF_MR, true, reg_dmabuf_attrs, reg_dmabuf},
    {UVERBS_OBJECT_MR, abi::method_mr_efa_query, true, efa_query_attrs, efa_query},
};
constexpr write_spec writes[] = {
    {IB_USER_VERBS_CMD_REG_MR, sizeof(ib_uverbs_reg_mr), sizeof(ib_uverbs_reg_mr_resp), true, reg},
};

} // namespace

const std::span<const method_spec> mr_methods{methods};
const std::span<const write_spec>  mr_writes{writes};

} // namespace softefa::uverbs
