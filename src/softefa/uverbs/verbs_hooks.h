/* The application's verbs calls drive the engine: wrappers around the provider's functions.
 *
 * Owns: which function pointers of libibverbs' public structs are replaced, when, and how the provider's own are found again.
 * They are replaced from inside commands (CREATE_CQ, CREATE_QP, MODIFY_QP), because those name the structs and run before
 * the first use; no libibverbs symbol is interposed, so a library that was loaded RTLD_LOCAL works too.
 *
 * Invariants
 *   HOOK-1  no struct is believed before it is seen to belong to this file: its context's cmd_fd is the command's fd, and
 *           its device has our name.
 *   HOOK-2  originals are kept per context, per CQ and per QP: providers have variants.
 *   HOOK-3  wrappers run outside the provider's locks (before its poll, after its post) and take none of their own.
 */
#pragma once

#include <cstdint>

struct ibv_context;
struct ibv_cq;
struct ibv_qp;
struct ibv_wc;
struct ibv_send_wr;
struct ibv_recv_wr;

namespace softefa::uverbs {

struct object;
struct open_file;

/// The provider's functions of one context.
struct context_hooks {
    ibv_context *context = nullptr; ///< null = nothing installed
    int (*poll_cq)(ibv_cq *, int, ibv_wc *)                      = nullptr;
    int (*req_notify_cq)(ibv_cq *, int)                          = nullptr;
    int (*post_send)(ibv_qp *, ibv_send_wr *, ibv_send_wr **)    = nullptr;
    int (*post_recv)(ibv_qp *, ibv_recv_wr *, ibv_recv_wr **)    = nullptr;
};

/// CREATE_CQ: true if `user_handle` is a struct ibv_cq of `file`; its context is wrapped then.
bool hooks_install_context(open_file &file, std::uint64_t user_handle) noexcept;
/// CREATE_QP: the extended poll functions, which the provider fills in after CREATE_CQ.
void hooks_install_cq(object &cq) noexcept;
/// MODIFY_QP: wr_complete, which the provider fills in after CREATE_QP.
void hooks_install_qp(open_file &file, object &qp) noexcept;

/// The application was given the addresses of the rings of `cq` or `qp`.
void hooks_rings_known(ibv_cq *cq) noexcept;
void hooks_rings_known(ibv_qp *qp) noexcept;

} // namespace softefa::uverbs
