/* Commands of the device itself: context, attributes, port, GID table.
 *
 * Answers come from the settings' limits; facts of the format (one port, one GID, one sub-CQ) are constants here.
 */
#include "softefa/settings.h"
#include "softefa/uverbs/dispatch.h"
#include "softefa/uverbs/errno_map.h"
#include "softefa/uverbs/file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace softefa::uverbs {
namespace {

constexpr std::uint32_t vendor_id         = 0x1d0f;
constexpr std::uint64_t max_mr_size       = std::uint64_t{1} << 46; ///< bytes
constexpr std::uint64_t page_size_cap     = 0xfffffffffffff000;     ///< every power of two from 4 KiB
constexpr std::uint32_t comp_vector_count = 1;
constexpr std::uint32_t port_num          = 1;
constexpr std::uint8_t  port_active = 4, phys_link_up = 5, mtu_4096 = 5, width_8x = 4, speed_ndr = 128;
// Memory is the wire of this device. Programs divide the rate among the ranks of a host and compare it with the speed of a copy: at the rate
// of a first-generation card they would choose to copy what the device takes as it is.
constexpr std::uint64_t port_speed = 8000; ///< units of 100 Mb/s: 8X NDR

const device_limits &limits() { return settings_get(nullptr)->limits; } // a file exists only after the settings were accepted

int get_context(open_file &file, request &command)
{
    std::uint64_t understood = 0; // comp_mask of the library: what it can honour; nothing is demanded of it here
    if (command.has(UVERBS_ATTR_UHW_IN)) {
        if (int error = command.read(UVERBS_ATTR_UHW_IN, &understood); error != 0) {
            return error;
        }
    }
    if (context_of(file) != 0) {
        return EINVAL;
    }
    auto context = dev::context_open(file.device_index, file.memory_fd);
    if (!context) {
        return errno_of(context.error());
    }

    abi::alloc_ucontext_resp reply{};
    reply.cmds_supp_udata_mask = EFA_USER_CMDS_SUPP_UDATA_QUERY_DEVICE | EFA_USER_CMDS_SUPP_UDATA_CREATE_AH;
    reply.sub_cqs_per_cq       = 1;
    reply.inline_buf_size      = limits().inline_size;
    reply.inline_buf_size_ex   = limits().inline_size_ex;
    reply.max_llq_size         = limits().max_llq_size;
    int error = command.write(UVERBS_ATTR_GET_CONTEXT_NUM_COMP_VECTORS, comp_vector_count);
    if (error == 0) {
        error = command.write(UVERBS_ATTR_GET_CONTEXT_CORE_SUPPORT, std::uint64_t{0});
    }
    if (error == 0) {
        error = command.write(UVERBS_ATTR_UHW_OUT, reply);
    }
    dev::handle none = 0;
    if (error == 0 && !file.context.compare_exchange_strong(none, *context)) {
        error = EINVAL; // another thread was first
    }
    if (error != 0) {
        dev::context_close(*context);
    }
    return error;
}

ib_uverbs_query_device_resp device_attributes()
{
    const device_limits        &l = limits();
    ib_uverbs_query_device_resp r{};
    r.max_mr_size    = max_mr_size;
    r.page_size_cap  = page_size_cap;
    r.vendor_id      = vendor_id;
    r.vendor_part_id = l.vendor_part_id;
    r.hw_ver         = l.vendor_part_id;
    r.max_qp         = l.max_qp;
    r.max_qp_wr      = std::min(l.max_sq_wr, l.max_rq_wr);
    r.max_sge        = std::min(l.max_sq_sge, l.max_rq_sge);
    r.max_sge_rd     = l.max_rdma_size != 0 ? l.max_rdma_sge : 0;
    r.max_cq         = l.max_cq;
    r.max_cqe        = l.max_cqe;
    r.max_mr         = l.max_mr;
    r.max_pd         = l.max_pd;
    r.max_ah         = l.max_ah;
    r.max_pkeys      = 1;
    r.phys_port_cnt  = 1;
    return r;
}

int query_device(open_file &, request &command)
{
    return command.write(UVERBS_ATTR_CORE_OUT, device_attributes());
}

int query_device_ex(open_file &, request &command)
{
    ib_uverbs_ex_query_device ask;
    if (int error = command.read(UVERBS_ATTR_CORE_IN, &ask); error != 0) {
        return error;
    }
    if (ask.comp_mask != 0 || ask.reserved != 0) {
        return EINVAL;
    }
    const device_limits           &l = limits();
    ib_uverbs_ex_query_device_resp core{};
    core.base            = device_attributes();
    core.response_length = sizeof(core);
    efa_ibv_ex_query_device_resp efa{};
    efa.max_sq_wr     = l.max_sq_wr;
    efa.max_rq_wr     = l.max_rq_wr;
    efa.max_sq_sge    = l.max_sq_sge;
    efa.max_rq_sge    = l.max_rq_sge;
    efa.max_rdma_size = l.max_rdma_size;
    efa.device_caps   = l.device_caps;
    const int error   = command.write(UVERBS_ATTR_CORE_OUT, core);
    return error != 0 ? error : command.write(UVERBS_ATTR_UHW_OUT, efa);
}

int query_port(open_file &, request &command)
{
    if (command.u64(UVERBS_ATTR_QUERY_PORT_PORT_NUM) != port_num) {
        return EINVAL;
    }
    abi::query_port_resp r{};
    r.legacy.max_msg_sz   = limits().mtu;
    r.legacy.gid_tbl_len  = 1;
    r.legacy.pkey_tbl_len = 1;
    r.legacy.state        = port_active;
    r.legacy.max_mtu      = mtu_4096;
    r.legacy.active_mtu   = mtu_4096;
    r.legacy.lmc          = 1;
    r.legacy.max_vl_num   = 1;
    r.legacy.active_width = width_8x;
    r.legacy.active_speed = speed_ndr;
    r.legacy.phys_state   = phys_link_up;
    return command.write(UVERBS_ATTR_QUERY_PORT_RESP, r);
}

int query_port_speed(open_file &, request &command)
{
    return command.u64(0) == port_num ? command.write(1, port_speed) : EINVAL;
}

ib_uverbs_gid_entry gid_entry(const open_file &file)
{
    const dev::gid      gid = dev::device_gid(file.device_index);
    ib_uverbs_gid_entry entry{};
    static_assert(sizeof(entry.gid) == sizeof(gid));
    memcpy(entry.gid, gid.data(), sizeof(entry.gid));
    entry.port_num = port_num;
    entry.gid_type = IB_UVERBS_GID_TYPE_IB;
    return entry;
}

enum : std::uint16_t { gid_entry_port, gid_entry_index, gid_entry_flags, gid_entry_resp };
enum : std::uint16_t { gid_table_entry_size, gid_table_flags, gid_table_entries, gid_table_count };

int query_gid_entry(open_file &file, request &command)
{
    if (command.u32(gid_entry_flags) != 0 || command.u64(gid_entry_port) != port_num ||
        command.u64(gid_entry_index) != 0) {
        return EINVAL;
    }
    return command.write(gid_entry_resp, gid_entry(file));
}

int query_gid_table(open_file &file, request &command)
{
    const std::uint64_t entry_size = command.u64(gid_table_entry_size);
    if (command.u32(gid_table_flags) != 0 || entry_size == 0) {
        return EINVAL;
    }
    if (command.size(gid_table_entries) < entry_size || command.size(gid_table_entries) < sizeof(ib_uverbs_gid_entry)) {
        return EINVAL; // no room for the one entry
    }
    const auto entry = gid_entry(file);
    const int  error = command.write(gid_table_entries, &entry, std::min<std::size_t>(entry_size, sizeof(entry)));
    return error != 0 ? error : command.write(gid_table_count, std::uint64_t{1});
}

constexpr attr_spec invoke_write_attrs[] = {
    {UVERBS_ATTR_CORE_IN, attr_kind::in, false},
    {UVERBS_ATTR_CORE_OUT, attr_kind::out, false},
    {UVERBS_ATTR_WRITE_CMD, attr_kind::in, true, 4, 8},
    {UVERBS_ATTR_UHW_IN, attr_kind::in, false},
    {UVERBS_ATTR_UHW_OUT, attr_kind::out, false},
};
constexpr attr_spec get_context_attrs[] = {
    {UVERBS_ATTR_GET_CONTEXT_NUM_COMP_VECTORS, attr_kind::out, false, 4},
    {UVERBS_ATTR_GET_CONTEXT_CORE_SUPPORT, attr_kind::out, false, 8},
    {UVERBS_ATTR_UHW_IN, attr_kind::in, false, 0, sizeof(efa_ibv_alloc_ucontext_cmd)},
    {UVERBS_ATTR_UHW_OUT, attr_kind::out, false},
};
constexpr attr_spec query_port_attrs[] = {
    {UVERBS_ATTR_QUERY_PORT_PORT_NUM, attr_kind::in, true, 1, 8},
    {UVERBS_ATTR_QUERY_PORT_RESP, attr_kind::out, true, sizeof(ib_uverbs_query_port_resp)},
};
constexpr attr_spec query_port_speed_attrs[] = {
    {0, attr_kind::in, true, 4, 8},
    {1, attr_kind::out, true, 8},
};
constexpr attr_spec gid_entry_attrs[] = {
    {gid_entry_port, attr_kind::in, true, 4, 8},
    {gid_entry_index, attr_kind::in, true, 4, 8},
    {gid_entry_flags, attr_kind::in, false, 4, 4},
    {gid_entry_resp, attr_kind::out, true, 1},
};
constexpr attr_spec gid_table_attrs[] = {
    {gid_table_entry_size, attr_kind::in, true, 4, 8},
    {gid_table_flags, attr_kind::in, false, 4, 4},
    {gid_table_entries, attr_kind::out, true, 0},
    {gid_table_count, attr_kind::out, true, 8},
};

constexpr method_spec methods[] = {
    {UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE, false, invoke_write_attrs, invoke_write},
    {UVERBS_OBJECT_DEVICE, UVERBS_METHOD_GET_CONTEXT, false, get_context_attrs, get_context},
    {UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_PORT, true, query_port_attrs, query_port},
    {UVERBS_OBJECT_DEVICE, abi::method_query_port_speed, true, query_port_speed_attrs, query_port_speed},
    {UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_GID_ENTRY, true, gid_entry_attrs, query_gid_entry},
    {UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_GID_TABLE, true, gid_table_attrs, query_gid_table},
};

constexpr write_spec writes[] = {
    {IB_USER_VERBS_CMD_QUERY_DEVICE, sizeof(ib_uverbs_query_device), sizeof(ib_uverbs_query_device_resp), true, query_device},
    {IB_USER_VERBS_CMD_FLAG_EXTENDED | IB_USER_VERBS_EX_CMD_QUERY_DEVICE, sizeof(ib_uverbs_ex_query_device),
     sizeof(ib_uverbs_query_device_resp) + 8, true, query_device_ex},
};

} // namespace

const std::span<const method_spec> device_methods{methods};
const std::span<const write_spec>  device_writes{writes};

} // namespace softefa::uverbs
