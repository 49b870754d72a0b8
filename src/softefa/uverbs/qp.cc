/* Queue pairs: create, modify, query, destroy. Transition tables are the device's; the shape of commands is checked here. */
#include "softefa/settings.h"
#include "softefa/uverbs/dispatch.h"
#include "softefa/uverbs/errno_map.h"
#include "softefa/uverbs/file.h"
#include "softefa/uverbs/object_table.h"

#include <algorithm>
#include <cerrno>

namespace softefa::uverbs {
namespace {

enum : std::uint64_t { qpt_ud = 4, qpt_driver = 255 };
enum : std::uint16_t { efa_flag_unsolicited = 1u << 0 };
enum : std::uint32_t { cap_unsolicited = 1u << 6 };

enum attr_mask : std::uint32_t {
    mask_state = 0x1, mask_cur_state = 0x2, mask_sqd_async = 0x4, mask_pkey = 0x10, mask_port = 0x20, mask_qkey = 0x40,
    mask_rnr_retry = 0x800, mask_sq_psn = 0x10000, mask_cap = 0x80000,
};
constexpr std::uint32_t modify_mask_known =
    mask_state | mask_cur_state | mask_sqd_async | mask_pkey | mask_port | mask_qkey | mask_rnr_retry | mask_sq_psn;
constexpr std::uint32_t query_mask_known =
    mask_state | mask_pkey | mask_port | mask_qkey | mask_sq_psn | mask_cap | mask_rnr_retry;

int read_driver_part(const request &command, dev::qp_request *ask_p)
{
    abi::create_qp_cmd efa{};
    if (command.size(UVERBS_ATTR_UHW_IN) < abi::create_qp_cmd_size_min) {
        return EINVAL;
    }
    if (int error = command.read(UVERBS_ATTR_UHW_IN, &efa); error != 0) {
        return error;
    }
    if (efa.comp_mask != 0 || std::any_of(std::begin(efa.reserved_98), std::end(efa.reserved_98), [](auto b) { return b != 0; })) {
        return EINVAL;
    }
    if (ask_p->type == dev::qp_type::srd && efa.driver_qp_type != EFA_QP_DRIVER_TYPE_SRD) {
        return EOPNOTSUPP;
    }
    const bool unsolicited = (efa.flags & efa_flag_unsolicited) != 0;
    if ((efa.flags & ~efa_flag_unsolicited) != 0 ||
        (unsolicited && (settings_get(nullptr)->limits.device_caps & cap_unsolicited) == 0)) {
        return EOPNOTSUPP;
    }
    ask_p->sq_ring_size     = efa.sq_ring_size;
    ask_p->rq_ring_size     = efa.rq_ring_size;
    ask_p->unsolicited_recv = unsolicited;
    return 0;
}

int check_limits(const dev::qp_request &ask)
{
    const device_limits &l          = settings_get(nullptr)->limits;
    const std::uint32_t  inline_max = std::max(l.inline_size, l.inline_size_ex);
    return ask.max_send_wr > l.max_sq_wr || ask.max_recv_wr > l.max_rq_wr || ask.max_send_sge > l.max_sq_sge ||
                   ask.max_recv_sge > l.max_rq_sge || ask.max_inline > inline_max || ask.sq_ring_size > l.max_llq_size
               ? EINVAL
               : 0;
}

int read_create(const request &command, dev::qp_request *ask_p, ib_uverbs_qp_cap *cap_p)
{
    switch (command.u64(UVERBS_ATTR_CREATE_QP_TYPE)) {
    case qpt_ud: ask_p->type = dev::qp_type::ud; break;
    case qpt_driver: ask_p->type = dev::qp_type::srd; break;
    default: return EOPNOTSUPP;
    }
    if ((command.u32(UVERBS_ATTR_CREATE_QP_FLAGS) & ~IB_UVERBS_QP_CREATE_SQ_SIG_ALL) != 0 ||
        command.has(UVERBS_ATTR_CREATE_QP_SRQ_HANDLE) || command.has(UVERBS_ATTR_CREATE_QP_XRCD_HANDLE) ||
        command.has(UVERBS_ATTR_CREATE_QP_IND_TABLE_HANDLE) || command.has(UVERBS_ATTR_CREATE_QP_SOURCE_QPN)) {
        return EOPNOTSUPP;
    }
    if (int error = command.read(UVERBS_ATTR_CREATE_QP_CAP, cap_p); error != 0) {
        return error;
    }
    if (int error = read_driver_part(command, ask_p); error != 0) {
        return error;
    }
    ask_p->max_send_wr  = cap_p->max_send_wr;
    ask_p->max_recv_wr  = cap_p->max_recv_wr;
    ask_p->max_send_sge = cap_p->max_send_sge;
    ask_p->max_recv_sge = cap_p->max_recv_sge;
    ask_p->max_inline   = cap_p->max_inline_data;
    return check_limits(*ask_p);
}

int answer(const request &command, const ib_uverbs_qp_cap &cap, const dev::qp_reply &qp, std::uint32_t handle)
{
    efa_ibv_create_qp_resp efa{};
    efa.rq_mmap_key       = qp.rq_ring.offset;
    efa.rq_mmap_size      = qp.rq_ring.size;
    efa.rq_db_mmap_key    = qp.rq_doorbell.offset;
    efa.sq_db_mmap_key    = qp.sq_doorbell.offset;
    efa.llq_desc_mmap_key = qp.sq_ring.offset;
    int error             = command.write(UVERBS_ATTR_CREATE_QP_RESP_CAP, cap);
    if (error == 0) {
        error = command.write(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM, std::uint32_t{qp.qpn});
    }
    if (error == 0) {
        error = command.write(UVERBS_ATTR_UHW_OUT, efa);
    }
    return error != 0 ? error : command.write_handle(UVERBS_ATTR_CREATE_QP_HANDLE, handle);
}

int create(open_file &file, request &command)
{
    dev::qp_request  ask;
    ib_uverbs_qp_cap cap{};
    if (int error = read_create(command, &ask, &cap); error != 0) {
        return error;
    }
    if (command.has(UVERBS_ATTR_CREATE_QP_EVENT_FD)) {
        channel *async = channel_get(file, command.fd(UVERBS_ATTR_CREATE_QP_EVENT_FD), true);
        if (async == nullptr) {
            return EBADF;
        }
        channel_put(async);
    }
    object *send_cq = command.resolved(UVERBS_ATTR_CREATE_QP_SEND_CQ_HANDLE);
    object *recv_cq = command.resolved(UVERBS_ATTR_CREATE_QP_RECV_CQ_HANDLE);
    ask.pd          = command.resolved(UVERBS_ATTR_CREATE_QP_PD_HANDLE)->device;
    ask.send_cq     = send_cq->device;
    ask.recv_cq     = recv_cq->device;

    object *slot = object_new(file, object_kind::qp);
    if (slot == nullptr) {
        return ENOMEM;
    }
    auto qp = dev::qp_create(context_of(file), ask);
    if (!qp) {
        object_free(slot);
        return errno_of(qp.error());
    }
    slot->device     = qp->qp;
    slot->user       = reinterpret_cast<const void *>(command.u64(UVERBS_ATTR_CREATE_QP_USER_HANDLE));
    slot->hooks      = &file.hooks;
    slot->sq_sig_all = (command.u32(UVERBS_ATTR_CREATE_QP_FLAGS) & IB_UVERBS_QP_CREATE_SQ_SIG_ALL) != 0;
    const std::uint32_t handle = object_name(slot);
    if (int error = publish_created(slot, handle, answer(command, cap, *qp, handle), dev::qp_destroy); error != 0) {
        return error;
    }
    hooks_install_cq(*send_cq);
    hooks_install_cq(*recv_cq);
    return 0;
}

int destroy(open_file &, request &command)
{
    const int error = destroy_object(command.resolved(UVERBS_ATTR_DESTROY_QP_HANDLE), dev::qp_destroy);
    return error != 0 ? error : command.write(UVERBS_ATTR_DESTROY_QP_RESP, ib_uverbs_destroy_qp_resp{});
}

int modify(open_file &file, request &command)
{
    ib_uverbs_modify_qp ask;
    if (int error = command.read(UVERBS_ATTR_CORE_IN, &ask, sizeof(ask)); error != 0) {
        return error;
    }
    object *slot = nullptr;
    if (int error = write_lookup(file, command, ask.qp_handle, object_kind::qp, &slot); error != 0) {
        return error;
    }
    constexpr auto state_last = static_cast<std::uint8_t>(dev::qp_state::error);
    if (((ask.attr_mask & mask_state) != 0 && ask.qp_state > state_last) ||
        ((ask.attr_mask & mask_cur_state) != 0 && ask.cur_qp_state > state_last)) {
        return EINVAL;
    }
    if ((ask.attr_mask & ~modify_mask_known) != 0 || ((ask.attr_mask & mask_port) != 0 && ask.port_num != 1) ||
        ((ask.attr_mask & mask_pkey) != 0 && ask.pkey_index != 0)) {
        return EOPNOTSUPP;
    }
    hooks_install_qp(file, *slot);
    dev::qp_attr attr;
    attr.state      = static_cast<dev::qp_state>(ask.qp_state);
    attr.cur_state  = static_cast<dev::qp_state>(ask.cur_qp_state);
    attr.qkey       = ask.qkey;
    attr.sq_psn     = ask.sq_psn;
    attr.pkey_index = ask.pkey_index;
    attr.port       = ask.port_num;
    attr.rnr_retry  = ask.rnr_retry;
    return errno_of(dev::qp_modify(slot->device, ask.attr_mask, attr));
}

int query(open_file &file, request &command)
{
    ib_uverbs_query_qp ask;
    if (int error = command.read(UVERBS_ATTR_CORE_IN, &ask, sizeof(ask)); error != 0) {
        return error;
    }
    if ((ask.attr_mask & ~query_mask_known) != 0) {
        return EOPNOTSUPP;
    }
    object *slot = nullptr;
    if (int error = write_lookup(file, command, ask.qp_handle, object_kind::qp, &slot); error != 0) {
        return error;
    }
    dev::qp_attr    attr;
    dev::qp_request caps;
    if (int error = errno_of(dev::qp_query(slot->device, &attr, &caps)); error != 0) {
        return error;
    }
    ib_uverbs_query_qp_resp r{};
    r.max_send_wr     = caps.max_send_wr;
    r.max_recv_wr     = caps.max_recv_wr;
    r.max_send_sge    = caps.max_send_sge;
    r.max_recv_sge    = caps.max_recv_sge;
    r.max_inline_data = caps.max_inline;
    r.qkey            = attr.qkey;
    r.sq_psn          = attr.sq_psn;
    r.pkey_index      = attr.pkey_index;
    r.qp_state        = static_cast<std::uint8_t>(attr.state);
    r.cur_qp_state    = static_cast<std::uint8_t>(attr.state);
    r.sq_draining     = attr.sq_draining;
    r.port_num        = attr.port;
    r.rnr_retry       = attr.rnr_retry;
    r.sq_sig_all      = slot->sq_sig_all;
    return command.write(UVERBS_ATTR_CORE_OUT, r);
}

constexpr attr_spec create_attrs[] = {
    {UVERBS_ATTR_CREATE_QP_HANDLE, attr_kind::new_handle, true},
    {UVERBS_ATTR_CREATE_QP_XRCD_HANDLE, attr_kind::in, false},
    {UVERBS_ATTR_CREATE_QP_PD_HANDLE, attr_kind::handle, true, 0, 0, object_kind::pd},
    {UVERBS_ATTR_CREATE_QP_SRQ_HANDLE, attr_kind::in, false},
    {UVERBS_ATTR_CREATE_QP_SEND_CQ_HANDLE, attr_kind::handle, true, 0, 0, object_kind::cq},
    {UVERBS_ATTR_CREATE_QP_RECV_CQ_HANDLE, attr_kind::handle, true, 0, 0, object_kind::cq},
    {UVERBS_ATTR_CREATE_QP_IND_TABLE_HANDLE, attr_kind::in, false},
    {UVERBS_ATTR_CREATE_QP_USER_HANDLE, attr_kind::in, true, 8, 8},
    {UVERBS_ATTR_CREATE_QP_CAP, attr_kind::in, true, sizeof(ib_uverbs_qp_cap), sizeof(ib_uverbs_qp_cap)},
    {UVERBS_ATTR_CREATE_QP_TYPE, attr_kind::in, true, 4, 8},
    {UVERBS_ATTR_CREATE_QP_FLAGS, attr_kind::in, false, 4, 4},
    {UVERBS_ATTR_CREATE_QP_SOURCE_QPN, attr_kind::in, false, 4, 4},
    {UVERBS_ATTR_CREATE_QP_EVENT_FD, attr_kind::fd, false},
    {UVERBS_ATTR_CREATE_QP_RESP_CAP, attr_kind::out, true, sizeof(ib_uverbs_qp_cap)},
    {UVERBS_ATTR_CREATE_QP_RESP_QP_NUM, attr_kind::out, true, 4},
    {UVERBS_ATTR_UHW_IN, attr_kind::in, true, 0, sizeof(abi::create_qp_cmd)},
    {UVERBS_ATTR_UHW_OUT, attr_kind::out, true},
};
constexpr attr_spec destroy_attrs[] = {
    {UVERBS_ATTR_DESTROY_QP_HANDLE, attr_kind::destroyed, true, 0, 0, object_kind::qp},
    {UVERBS_ATTR_DESTROY_QP_RESP, attr_kind::out, true, sizeof(ib_uverbs_destroy_qp_resp)},
};
constexpr method_spec methods[] = {
    {UVERBS_OBJECT_QP, UVERBS_METHOD_QP_CREATE, true, create_attrs, create},
    {UVERBS_OBJECT_QP, UVERBS_METHOD_QP_DESTROY, true, destroy_attrs, destroy},
};
constexpr write_spec writes[] = {
    {IB_USER_VERBS_CMD_MODIFY_QP, sizeof(ib_uverbs_modify_qp), 0, true, modify},
    {IB_USER_VERBS_CMD_QUERY_QP, sizeof(ib_uverbs_query_qp), sizeof(ib_uverbs_query_qp_resp), true, query},
};

} // namespace

const std::span<const method_spec> qp_methods{methods};
const std::span<const write_spec>  qp_writes{writes};

} // namespace softefa::uverbs
