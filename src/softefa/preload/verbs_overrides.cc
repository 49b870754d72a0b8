/* The two verbs functions whose answer must be ours. They take libibverbs' types as void: nothing of them is looked at. */
#include <cerrno>
#include <cstdint>

#define SOFTEFA_EXPORT extern "C" __attribute__((visibility("default")))

/// IBV_FORK_UNNEEDED. libibverbs would ask the kernel's RDMA netlink, hear nothing, and answer "disabled", upon which libfabric
/// aborts the process at its next fork. It is true here: no page is pinned, a child's copy-on-write harms nobody.
SOFTEFA_EXPORT int ibv_is_fork_initialized() noexcept
{
    constexpr int fork_unneeded = 2;
    return fork_unneeded;
}

/// Hands out ring addresses for polling without verbs calls. The engine runs inside verbs calls, so whoever does that would wait
/// for ever; callers fall back to the verbs interface.
SOFTEFA_EXPORT int efadv_query_cq(void *, void *, std::uint32_t) noexcept { return EOPNOTSUPP; }
