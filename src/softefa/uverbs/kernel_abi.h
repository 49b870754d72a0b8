/* Layouts of the kernel's uverbs interface, and the parts of EFA's that the oldest headers we build with do not have.
 *
 * Owns: compile-time proof that what we parse and fill is what the installed kernel headers say, field by field: an equal
 * size would hide swapped fields. Newer fields sit in what old headers call reserved.
 */
#pragma once

#include <rdma/efa-abi.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/ib_user_ioctl_verbs.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_user_ioctl_cmds.h>

#include <cstddef>
#include <cstdint>

namespace softefa::uverbs::abi {

/// Methods and attributes that came after the oldest headers (Linux 6.1).
enum : std::uint16_t {
    method_query_port_speed      = 7,
    method_qp_attach_comp_counter = 2,
    method_mr_efa_query          = 0x1000,
    attr_efa_query_mr_handle     = 0x1000,
    attr_efa_query_mr_validity   = 0x1001,
    attr_efa_query_mr_recv_id    = 0x1002,
    attr_efa_query_mr_read_id    = 0x1003,
    attr_efa_query_mr_resp_id    = 0x1004,
    attr_create_cq_buffer_va     = 8,
    attr_create_cq_buffer_length = 9,
    attr_create_cq_buffer_fd     = 10,
    attr_create_cq_buffer_offset = 11,
    attr_alloc_async_fd          = 0,
    method_async_alloc           = 0,
};

/// efa_ibv_alloc_ucontext_resp with inline_buf_size_ex (rdma-core 63 reads it).
struct alloc_ucontext_resp {
    std::uint32_t comp_mask;
    std::uint32_t cmds_supp_udata_mask;
    std::uint16_t sub_cqs_per_cq;
    std::uint16_t inline_buf_size;
    std::uint32_t max_llq_size; ///< bytes
    std::uint16_t max_tx_batch; ///< units of 64 bytes
    std::uint16_t min_sq_wr;
    std::uint16_t inline_buf_size_ex;
    std::uint8_t  reserved_b0[2];
};

/// efa_ibv_create_qp with flags (rdma-core 52) and service level (55).
struct create_qp_cmd {
    std::uint32_t comp_mask;
    std::uint32_t rq_ring_size; ///< bytes
    std::uint32_t sq_ring_size; ///< bytes
    std::uint32_t driver_qp_type;
    std::uint16_t flags; ///< bit 0: unsolicited write receive
    std::uint8_t  service_level;
    std::uint8_t  reserved_98[5];
};
constexpr std::size_t create_qp_cmd_size_min = 16; ///< rdma-core 44

/// ib_uverbs_query_port_resp_ex with active_speed_ex.
struct query_port_resp {
    ib_uverbs_query_port_resp legacy;
    std::uint16_t             port_cap_flags2;
    std::uint8_t              reserved[2];
    std::uint32_t             active_speed_ex;
};

#define SOFTEFA_AT(type, member, offset) static_assert(offsetof(type, member) == (offset))

static_assert(sizeof(ib_uverbs_ioctl_hdr) == 24 && sizeof(ib_uverbs_attr) == 16);
static_assert(RDMA_VERBS_IOCTL == 0xc0181b01);
SOFTEFA_AT(ib_uverbs_ioctl_hdr, length, 0);
SOFTEFA_AT(ib_uverbs_ioctl_hdr, object_id, 2);
SOFTEFA_AT(ib_uverbs_ioctl_hdr, method_id, 4);
SOFTEFA_AT(ib_uverbs_ioctl_hdr, num_attrs, 6);
SOFTEFA_AT(ib_uverbs_ioctl_hdr, driver_id, 16);
SOFTEFA_AT(ib_uverbs_attr, attr_id, 0);
SOFTEFA_AT(ib_uverbs_attr, len, 2);
SOFTEFA_AT(ib_uverbs_attr, flags, 4);
SOFTEFA_AT(ib_uverbs_attr, data, 8);
static_assert(RDMA_DRIVER_EFA == 17);
static_assert(UVERBS_OBJECT_PD == 1 && UVERBS_OBJECT_CQ == 3 && UVERBS_OBJECT_QP == 4 && UVERBS_OBJECT_AH == 6 &&
              UVERBS_OBJECT_MR == 7 && UVERBS_OBJECT_ASYNC_EVENT == 16);
static_assert(UVERBS_ATTR_UHW_IN == 0x1000 && UVERBS_ATTR_UHW_OUT == 0x1001);
static_assert(UVERBS_METHOD_QUERY_GID_TABLE == 5 && UVERBS_METHOD_QUERY_GID_ENTRY == 6 && UVERBS_METHOD_QUERY_PORT == 2 &&
              UVERBS_METHOD_GET_CONTEXT == 3);
static_assert(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM == 14 && UVERBS_ATTR_CREATE_QP_EVENT_FD == 12);
static_assert(UVERBS_ATTR_REG_DMABUF_MR_RESP_RKEY == 8 && UVERBS_METHOD_REG_DMABUF_MR == 4);

static_assert(sizeof(ib_uverbs_query_device_resp) == 176);
SOFTEFA_AT(ib_uverbs_query_device_resp, max_mr_size, 24);
SOFTEFA_AT(ib_uverbs_query_device_resp, vendor_id, 40);
SOFTEFA_AT(ib_uverbs_query_device_resp, hw_ver, 48);
SOFTEFA_AT(ib_uverbs_query_device_resp, max_qp, 52);
SOFTEFA_AT(ib_uverbs_query_device_resp, max_sge_rd, 68);
SOFTEFA_AT(ib_uverbs_query_device_resp, max_pd, 84);
SOFTEFA_AT(ib_uverbs_query_device_resp, max_ah, 144);
SOFTEFA_AT(ib_uverbs_query_device_resp, max_pkeys, 168);
SOFTEFA_AT(ib_uverbs_query_device_resp, phys_port_cnt, 171);
static_assert(sizeof(ib_uverbs_ex_query_device_resp) == 304);
SOFTEFA_AT(ib_uverbs_ex_query_device_resp, response_length, 180);

static_assert(sizeof(query_port_resp) == 48 && sizeof(ib_uverbs_query_port_resp_ex) == 48);
SOFTEFA_AT(ib_uverbs_query_port_resp, gid_tbl_len, 16);
SOFTEFA_AT(ib_uverbs_query_port_resp, pkey_tbl_len, 20);
SOFTEFA_AT(ib_uverbs_query_port_resp, state, 26);
SOFTEFA_AT(ib_uverbs_query_port_resp, active_width, 34);
SOFTEFA_AT(ib_uverbs_query_port_resp, phys_state, 36);
SOFTEFA_AT(query_port_resp, port_cap_flags2, 40);
SOFTEFA_AT(query_port_resp, active_speed_ex, 44);

static_assert(sizeof(ib_uverbs_gid_entry) == 32);
SOFTEFA_AT(ib_uverbs_gid_entry, gid_index, 16);
SOFTEFA_AT(ib_uverbs_gid_entry, gid_type, 24);

static_assert(sizeof(ib_uverbs_reg_mr) == 40 && sizeof(ib_uverbs_reg_mr_resp) == 12);
SOFTEFA_AT(ib_uverbs_reg_mr, start, 8);
SOFTEFA_AT(ib_uverbs_reg_mr, hca_va, 24);
SOFTEFA_AT(ib_uverbs_reg_mr, access_flags, 36);
static_assert(sizeof(ib_uverbs_create_ah) == 56);
SOFTEFA_AT(ib_uverbs_create_ah, pd_handle, 16);
SOFTEFA_AT(ib_uverbs_create_ah, attr.grh.dgid, 24);
SOFTEFA_AT(ib_uverbs_create_ah, attr.is_global, 53);
static_assert(sizeof(ib_uverbs_modify_qp) == 112);
SOFTEFA_AT(ib_uverbs_modify_qp, qp_handle, 64);
SOFTEFA_AT(ib_uverbs_modify_qp, qkey, 72);
SOFTEFA_AT(ib_uverbs_modify_qp, sq_psn, 80);
SOFTEFA_AT(ib_uverbs_modify_qp, pkey_index, 92);
SOFTEFA_AT(ib_uverbs_modify_qp, qp_state, 96);
SOFTEFA_AT(ib_uverbs_modify_qp, port_num, 104);
SOFTEFA_AT(ib_uverbs_modify_qp, rnr_retry, 107);
static_assert(sizeof(ib_uverbs_query_qp) == 16 && sizeof(ib_uverbs_query_qp_resp) == 128);
SOFTEFA_AT(ib_uverbs_query_qp_resp, max_send_wr, 64);
SOFTEFA_AT(ib_uverbs_query_qp_resp, sq_psn, 92);
SOFTEFA_AT(ib_uverbs_query_qp_resp, qp_state, 108);
SOFTEFA_AT(ib_uverbs_query_qp_resp, rnr_retry, 119);
SOFTEFA_AT(ib_uverbs_query_qp_resp, sq_sig_all, 122);
static_assert(sizeof(ib_uverbs_qp_cap) == 20);
static_assert(sizeof(ib_uverbs_comp_event_desc) == 8 && sizeof(ib_uverbs_async_event_desc) == 16);

static_assert(sizeof(alloc_ucontext_resp) == sizeof(efa_ibv_alloc_ucontext_resp));
SOFTEFA_AT(efa_ibv_alloc_ucontext_resp, max_llq_size, offsetof(alloc_ucontext_resp, max_llq_size));
SOFTEFA_AT(efa_ibv_alloc_ucontext_resp, min_sq_wr, offsetof(alloc_ucontext_resp, min_sq_wr));
SOFTEFA_AT(alloc_ucontext_resp, inline_buf_size_ex, 20);
static_assert(sizeof(efa_ibv_ex_query_device_resp) == 24);
SOFTEFA_AT(efa_ibv_ex_query_device_resp, max_rdma_size, 16);
static_assert(sizeof(efa_ibv_alloc_pd_resp) == 8 && sizeof(efa_ibv_create_ah_resp) == 8);
static_assert(sizeof(efa_ibv_create_cq) == 16 && sizeof(efa_ibv_create_cq_resp) == 40);
SOFTEFA_AT(efa_ibv_create_cq, flags, 10);
SOFTEFA_AT(efa_ibv_create_cq_resp, db_off, 28);
SOFTEFA_AT(efa_ibv_create_cq_resp, db_mmap_key, 32);
static_assert(sizeof(create_qp_cmd) == 24);
SOFTEFA_AT(create_qp_cmd, driver_qp_type, offsetof(efa_ibv_create_qp, driver_qp_type));
SOFTEFA_AT(create_qp_cmd, service_level, 18);
static_assert(sizeof(efa_ibv_create_qp_resp) == 64);
SOFTEFA_AT(efa_ibv_create_qp_resp, rq_mmap_key, 16);
SOFTEFA_AT(efa_ibv_create_qp_resp, llq_desc_mmap_key, 48);

#undef SOFTEFA_AT

} // namespace softefa::uverbs::abi
