/* Wrappers around the provider's data path: see verbs_hooks.h.
 *
 * Order: a poll runs the engine first, so that what has arrived is seen by this very poll; a post runs it afterwards, when
 * the doorbell has its new value. The entries that an application took are reported for the overrun account: from ibv_poll_cq
 * by its result, from the extended interface at end_poll, when the provider gives the slots back.
 */
#include "softefa/uverbs/verbs_hooks.h"

#include "softefa/dev/direct.h"
#include "softefa/dev/engine.h"
#include "softefa/uverbs/file.h"
#include "softefa/uverbs/object_table.h"
#include "softefa/uverbs/user_memory.h"

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <infiniband/verbs.h>

namespace softefa::uverbs {
namespace {

// --- data path ---------------------------------------------------------------------------------------------------------
// A handle that is not found means a struct of the parent in a forked child, or one that was destroyed: an error, no crash.

/// After `poll` said that there is nothing. An entry whose queue pair is gone is taken by the provider and handed to nobody: it is missing in
/// the overrun account until a second poll finds nothing either of what was written before it began. *result_p: what that poll says.
template <class Poll> [[gnu::noinline]] void polled_again(const object &slot, std::uint64_t written, int nothing, Poll &&poll, int *result_p)
{
    *result_p = poll();
    if (*result_p == nothing) {
        dev::engine_emptied(slot.device, written);
    }
}

int wrapped_poll_cq(ibv_cq *cq, int count, ibv_wc *wc)
{
    object *slot = object_find(cq->handle, cq);
    if (slot == nullptr) [[unlikely]] {
        errno = EPERM;
        return -1;
    }
    dev::engine_poll(slot->device);
    int polled = slot->hooks->poll_cq(cq, count, wc);
    if (const std::uint64_t written = polled == 0 && count > 0 ? dev::engine_written(slot->device) : 0; written != 0) [[unlikely]] {
        polled_again(*slot, written, 0, [&] { return slot->hooks->poll_cq(cq, count, wc); }, &polled);
    }
    if (polled > 0) { // only what was handed out is certain to be taken
        dev::engine_consumed(slot->device, static_cast<unsigned>(polled));
    }
    return polled;
}

int wrapped_req_notify_cq(ibv_cq *cq, int solicited_only)
{
    object *slot = object_find(cq->handle, cq);
    if (slot == nullptr) [[unlikely]] {
        return EPERM;
    }
    const int error = slot->hooks->req_notify_cq(cq, solicited_only);
    if (error == 0) {
        dev::engine_arm(slot->device);
    }
    return error;
}

int wrapped_post_send(ibv_qp *qp, ibv_send_wr *wr, ibv_send_wr **bad_wr)
{
    object *slot = object_find(qp->handle, qp);
    if (slot == nullptr) [[unlikely]] {
        *bad_wr = wr;
        return EPERM;
    }
    const int error = slot->hooks->post_send(qp, wr, bad_wr);
    dev::engine_posted(slot->device); // also after an error: what stood before the bad one was posted
    return error;
}

int wrapped_post_recv(ibv_qp *qp, ibv_recv_wr *wr, ibv_recv_wr **bad_wr)
{
    object *slot = object_find(qp->handle, qp);
    if (slot == nullptr) [[unlikely]] {
        *bad_wr = wr;
        return EPERM;
    }
    const int error = slot->hooks->post_recv(qp, wr, bad_wr);
    dev::engine_posted_recv(slot->device);
    return error;
}

int wrapped_wr_complete(ibv_qp_ex *qp)
{
    object *slot = object_find(qp->qp_base.handle, qp);
    if (slot == nullptr) [[unlikely]] {
        return EPERM;
    }
    const int error = slot->wr_complete(qp);
    dev::engine_posted(slot->device);
    return error;
}

int wrapped_start_poll(ibv_cq_ex *cq, ibv_poll_cq_attr *attr)
{
    object *slot = object_find(cq->handle, cq);
    if (slot == nullptr) [[unlikely]] {
        return EPERM;
    }
    dev::engine_poll(slot->device);
    int error = slot->start_poll(cq, attr);
    if (const std::uint64_t written = error == ENOENT ? dev::engine_written(slot->device) : 0; written != 0) [[unlikely]] {
        polled_again(*slot, written, ENOENT, [&] { return slot->start_poll(cq, attr); }, &error);
    }
    if (error == 0) {
        slot->polled = 1;
    }
    return error;
}

int wrapped_next_poll(ibv_cq_ex *cq)
{
    object *slot = object_find(cq->handle, cq);
    if (slot == nullptr) [[unlikely]] {
        return EPERM;
    }
    const int error = slot->next_poll(cq);
    slot->polled += error == 0;
    return error;
}

void wrapped_end_poll(ibv_cq_ex *cq)
{
    object *slot = object_find(cq->handle, cq);
    if (slot == nullptr) [[unlikely]] {
        return;
    }
    const unsigned polled = slot->polled; // still under the provider's lock
    slot->polled          = 0;
    slot->end_poll(cq);
    dev::engine_consumed(slot->device, polled);
}

// --- installation ------------------------------------------------------------------------------------------------------

template <class T> bool read_field(std::uint64_t base, std::size_t offset, T *value_p)
{
    return copy_from_user(value_p, base + offset, sizeof(T));
}

template <class T> bool write_field(std::uint64_t base, std::size_t offset, T value)
{
    return copy_to_user(base + offset, &value, sizeof(T));
}

/// Replaces one function pointer; *original_p keeps the provider's. False: unreadable, absent, or wrapped already: once for each table, since what
/// stands there later may be a tool's wrapper around ours.
template <class F> bool wrap(std::uint64_t base, std::size_t offset, F wrapper, F *original_p)
{
    F current = nullptr;
    if (*original_p != nullptr || !read_field(base, offset, &current) || current == nullptr || current == wrapper) {
        return false;
    }
    *original_p = current; // before the wrapper can be called
    if (write_field(base, offset, wrapper)) {
        return true;
    }
    *original_p = nullptr;
    return false;
}

/// HOOK-1. A small number stands in much memory, so a handle that points anywhere could pass for one that points to a context of ours.
bool belongs_to(const open_file &file, std::uint64_t context)
{
    int           cmd_fd = -1;
    std::uint64_t device = 0;
    char          name[sizeof(ibv_device::name)], ours[sizeof(name)];

    if (context == 0 || !read_field(context, offsetof(ibv_context, cmd_fd), &cmd_fd) || cmd_fd != file.app_fd ||
        !read_field(context, offsetof(ibv_context, device), &device) || device == 0 || !read_field(device, offsetof(ibv_device, name), &name)) {
        return false;
    }
    std::snprintf(ours, sizeof(ours), "efa_%u", file.device_index.load(std::memory_order_relaxed));
    return std::strncmp(name, ours, sizeof(name)) == 0;
}

} // namespace

bool hooks_install_context(open_file &file, std::uint64_t user_handle) noexcept
{
    std::uint64_t context = 0;
    if (!read_field(user_handle, offsetof(ibv_cq, context), &context) || !belongs_to(file, context)) {
        return false;
    }
    const std::size_t ops = offsetof(ibv_context, ops);
    wrap(context, ops + offsetof(ibv_context_ops, poll_cq), &wrapped_poll_cq, &file.hooks.poll_cq);
    wrap(context, ops + offsetof(ibv_context_ops, req_notify_cq), &wrapped_req_notify_cq, &file.hooks.req_notify_cq);
    wrap(context, ops + offsetof(ibv_context_ops, post_send), &wrapped_post_send, &file.hooks.post_send);
    wrap(context, ops + offsetof(ibv_context_ops, post_recv), &wrapped_post_recv, &file.hooks.post_recv);
    file.hooks.context = reinterpret_cast<ibv_context *>(context);
    return true;
}

void hooks_install_cq(object &cq) noexcept
{
    if (!cq.from_library) {
        return;
    }
    const auto base = reinterpret_cast<std::uint64_t>(cq.user);
    // end_poll first: a poll that sees the wrapped start_poll must find its partners wrapped as well.
    wrap(base, offsetof(ibv_cq_ex, end_poll), &wrapped_end_poll, &cq.end_poll);
    wrap(base, offsetof(ibv_cq_ex, next_poll), &wrapped_next_poll, &cq.next_poll);
    wrap(base, offsetof(ibv_cq_ex, start_poll), &wrapped_start_poll, &cq.start_poll);
}

void hooks_install_qp(open_file &file, object &qp) noexcept
{
    const auto    base    = reinterpret_cast<std::uint64_t>(qp.user);
    std::uint64_t context = 0;
    std::uint32_t handle  = 0;
    if (base == 0 || !read_field(base, offsetof(ibv_qp, context), &context) || !belongs_to(file, context) ||
        !read_field(base, offsetof(ibv_qp, handle), &handle) || handle != qp.handle.load(std::memory_order_relaxed)) {
        return;
    }
    wrap(base, offsetof(ibv_qp_ex, wr_complete), &wrapped_wr_complete, &qp.wr_complete);
}

void hooks_rings_known(ibv_cq *cq) noexcept
{
    if (const object *slot = object_find(cq->handle, cq); slot != nullptr) {
        dev::direct_cq(slot->device);
    }
}

void hooks_rings_known(ibv_qp *qp) noexcept
{
    if (const object *slot = object_find(qp->handle, qp); slot != nullptr) {
        dev::direct_qp(slot->device);
    }
}

} // namespace softefa::uverbs
