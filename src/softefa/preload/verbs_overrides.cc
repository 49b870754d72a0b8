/* The verbs functions whose answer must be ours.
 *
 * Owns: whether a program gets the addresses of rings. By default it does not, and falls back to verbs calls: the engine runs inside these, so whoever
 * reads rings would wait for ever. With SOFTEFA_DIRECT=1 the question goes on to libefa, and the device learns which queues it was about.
 * libibverbs' and libefa's types are passed on as they are; nothing of them is looked at here.
 */
#include "softefa/settings.h"
#include "softefa/uverbs/verbs_hooks.h"

#include <cerrno>
#include <cstdint>
#include <dlfcn.h>

#define SOFTEFA_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

bool allowed() noexcept
{
    const softefa::settings *s = softefa::settings_get(nullptr);
    return s != nullptr && s->direct != 0;
}

/// libefa's own function of that name; null: it is too old. It may have been loaded for one library alone, out of reach of a search behind us.
template <class F> F *original(const char *name) noexcept
{
    void *found = dlsym(RTLD_NEXT, name);
    if (found == nullptr) {
        if (void *library = dlopen("libefa.so.1", RTLD_NOW | RTLD_NOLOAD); library != nullptr) {
            found = dlsym(library, name);
            dlclose(library);
        }
    }
    return reinterpret_cast<F *>(found);
}

} // namespace

/// IBV_FORK_UNNEEDED. libibverbs would ask the kernel's RDMA netlink, hear nothing, and answer "disabled", upon which libfabric
/// aborts the process at its next fork. It is true here: no page is pinned, a child's copy-on-write harms nobody.
SOFTEFA_EXPORT int ibv_is_fork_initialized() noexcept
{
    constexpr int fork_unneeded = 2;
    return fork_unneeded;
}

SOFTEFA_EXPORT int efadv_query_cq(ibv_cq *cq, void *attr, std::uint32_t size) noexcept
{
    auto     *real  = allowed() ? original<int(ibv_cq *, void *, std::uint32_t)>("efadv_query_cq") : nullptr;
    const int error = real != nullptr ? real(cq, attr, size) : EOPNOTSUPP;
    if (error == 0) {
        softefa::uverbs::hooks_rings_known(cq);
    }
    return error;
}

/// Always goes on: without the CQ's rings nobody can use those of the QP.
SOFTEFA_EXPORT int efadv_query_qp_wqs(ibv_qp *qp, void *sq_attr, void *rq_attr, std::uint32_t size) noexcept
{
    auto     *real  = original<int(ibv_qp *, void *, void *, std::uint32_t)>("efadv_query_qp_wqs");
    const int error = real != nullptr ? real(qp, sq_attr, rq_attr, size) : EOPNOTSUPP;
    if (error == 0 && allowed()) {
        softefa::uverbs::hooks_rings_known(qp);
    }
    return error;
}
