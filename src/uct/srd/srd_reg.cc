/* See srd_reg.h. */
#include "uct/srd/srd_reg.h"

extern "C" {
#include <ucm/api/ucm.h>
}

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <sys/mman.h>
#include <unistd.h>

namespace srd {

namespace {

/// A region of the cache. The cache allocates and clears it; 'mem' is what the user holds.
struct cached_region {
    ucs_rcache_region_t super;
    uct_srd_mem_t       mem;
};

/// Order of our unmap handler among UCX's: the value every UCX cache uses by default.
constexpr int ucm_event_priority = 1000;

/// Part of the device's registrations that the cache may hold; the rest is for buffers and direct registrations.
constexpr unsigned long cache_share_percent = 75;

cached_region *region_of(uct_srd_mem_t *mem) noexcept
{
    return reinterpret_cast<cached_region *>(reinterpret_cast<char *>(mem) - offsetof(cached_region, mem));
}

int full_access(const uct_srd_md_t *md) noexcept
{
    int access = IBV_ACCESS_LOCAL_WRITE;
    access |= md->attr.caps & UCT_SRD_CAP_RDMA_READ ? IBV_ACCESS_REMOTE_READ : 0;
    access |= md->attr.caps & UCT_SRD_CAP_RDMA_WRITE ? IBV_ACCESS_REMOTE_WRITE : 0;
    return access;
}

ucs_status_t status_of_errno(int error) noexcept
{
    switch (error) {
    case ENOMEM:
    case ENOSPC:
    case EAGAIN: return UCS_ERR_NO_MEMORY;
    case EFAULT:
    case EACCES:
    case EINVAL: return UCS_ERR_INVALID_ADDR;
    default: return UCS_ERR_IO_ERROR;
    }
}

/// One registration with the device. On failure errno says why.
bool register_once(uct_srd_md_t *md, void *address, size_t size, int access, uct_srd_mem_t *mem_p) noexcept
{
    struct ibv_mr *mr = ibv_reg_mr(md->pd, address, size, access);
    if (mr == nullptr) {
        __atomic_fetch_add(&md->counters.reg_failed_count, 1, __ATOMIC_RELAXED);
        return false;
    }
    __atomic_fetch_add(&md->counters.reg_count, 1, __ATOMIC_RELAXED);
    mem_p->mr   = mr;
    mem_p->lkey = mr->lkey;
    mem_p->rkey = mr->rkey;
    return true;
}

void unregister(uct_srd_md_t *md, uct_srd_mem_t *mem) noexcept
{
    const int error = ibv_dereg_mr(mem->mr);
    if (error != 0) {
        ucs_warn("%s: ibv_dereg_mr of %zu bytes failed: %s", md->attr.ibdev_name, mem->mr->length, strerror(error));
        return;
    }
    __atomic_fetch_add(&md->counters.dereg_count, 1, __ATOMIC_RELAXED);
    mem->mr = nullptr;
}

/// Registers for everything; memory that cannot be written is registered for reading if 'allow_read_only'. REG-1
ucs_status_t register_memory(uct_srd_md_t *md, void *address, size_t size, bool allow_read_only, bool quiet,
                             uct_srd_mem_t *mem_p, bool *read_only_p) noexcept
{
    const int access = full_access(md);
    *read_only_p = false;
    if (register_once(md, address, size, access, mem_p)) {
        return UCS_OK;
    }
    const int error = errno;
    if (allow_read_only && (error == EFAULT || error == EACCES) &&
        register_once(md, address, size, access & IBV_ACCESS_REMOTE_READ, mem_p)) {
        *read_only_p = true;
        return UCS_OK;
    }
    ucs_log(quiet ? UCS_LOG_LEVEL_DIAG : UCS_LOG_LEVEL_ERROR,
            "%s: cannot register %zu bytes at %p: %s%s", md->attr.ibdev_name, size, address, strerror(error),
            error == ENOMEM ? " (locked memory limit, see 'ulimit -l', or no registration left on the device)" : "");
    return status_of_errno(error);
}

extern "C" ucs_status_t uct_srd_rcache_reg(void *context, ucs_rcache_t *, void *arg, ucs_rcache_region_t *region,
                                           uint16_t rcache_flags) noexcept
{
    auto *md     = static_cast<uct_srd_md_t *>(context);
    auto *cached = reinterpret_cast<cached_region *>(region);
    // A merged region is registered once more on failure, alone; quiet, and never narrowed to reading, because it also
    // stands for memory that was writable before.
    const bool merged = rcache_flags & UCS_RCACHE_MEM_REG_HIDE_ERRORS;
    const bool quiet  = merged || (*static_cast<const unsigned *>(arg) & UCT_MD_MEM_FLAG_HIDE_ERRORS);
    bool read_only;
    const ucs_status_t status = register_memory(md, reinterpret_cast<void *>(region->super.start),
                                                region->super.end - region->super.start, !merged, quiet,
                                                &cached->mem, &read_only);
    cached->mem.cached = true;
    if (status == UCS_OK && read_only) {
        region->prot = PROT_READ;
    }
    return status;
}

extern "C" void uct_srd_rcache_dereg(void *context, ucs_rcache_t *, ucs_rcache_region_t *region) noexcept
{
    unregister(static_cast<uct_srd_md_t *>(context), &reinterpret_cast<cached_region *>(region)->mem);
}

extern "C" void uct_srd_rcache_dump(void *, ucs_rcache_t *, ucs_rcache_region_t *region, char *text,
                                    size_t text_size) noexcept
{
    const uct_srd_mem_t &mem = reinterpret_cast<const cached_region *>(region)->mem;
    snprintf(text, text_size, "lkey 0x%x rkey 0x%x", mem.lkey, mem.rkey);
}

constexpr ucs_rcache_ops_t rcache_ops = bind_rcache_ops(uct_srd_rcache_reg, uct_srd_rcache_dereg, uct_srd_rcache_dump);

unsigned long cache_region_limit(const uct_srd_md_t *md, unsigned long configured) noexcept
{
    if (md->attr.max_mr == 0) {
        return configured;
    }
    const unsigned long share = std::max<unsigned long>(1, md->attr.max_mr * cache_share_percent / 100);
    return std::min(configured, share);
}

} // namespace

ucs_status_t reg_cache_init(uct_srd_md_t *md, const uct_srd_md_config_t *config) noexcept
{
    md->rcache = nullptr;
    if (config->reg_cache == UCS_NO || (config->reg_cache != UCS_YES && ucp_caches_registrations)) {
        return UCS_OK;
    }
    ucs_rcache_params_t params = {};
    params.region_struct_size  = sizeof(cached_region);
    rcache_align(params, static_cast<size_t>(sysconf(_SC_PAGESIZE)));
    params.ucm_events          = UCM_EVENT_VM_UNMAPPED;
    params.ucm_event_priority  = ucm_event_priority;
    params.ops                 = &rcache_ops;
    params.context             = md;
    params.flags               = UCS_RCACHE_FLAG_PURGE_ON_FORK;
    params.max_regions         = cache_region_limit(md, config->rcache_max_regions);
    params.max_size            = config->rcache_max_size;
    params.max_unreleased      = config->rcache_max_unreleased;

    const ucs_status_t status = ucs_rcache_create(&params, md->attr.ibdev_name, nullptr, &md->rcache);
    if (status == UCS_OK) {
        return UCS_OK;
    }
    md->rcache = nullptr;
    if (config->reg_cache == UCS_YES) {
        ucs_error("%s: UCX_SRD_REG_CACHE=y, but UCX cannot make a registration cache: %s", md->attr.ibdev_name,
                  ucs_status_string(status));
        return status;
    }
    ucs_debug("%s: no registration cache: %s", md->attr.ibdev_name, ucs_status_string(status));
    return UCS_OK;
}

void reg_cache_fini(uct_srd_md_t *md) noexcept
{
    if (md->rcache != nullptr) {
        ucs_rcache_destroy(md->rcache);
        md->rcache = nullptr;
    }
}

/// Registers with the device, without the cache.
static ucs_status_t reg_get_direct(uct_srd_md_t *md, void *address, size_t size, bool quiet,
                                   uct_srd_mem_t **mem_p) noexcept
{
    auto *mem = new (std::nothrow) uct_srd_mem_t{};
    if (mem == nullptr) {
        return UCS_ERR_NO_MEMORY;
    }
    bool read_only;
    const ucs_status_t status = register_memory(md, address, size, true, quiet, mem, &read_only);
    if (status != UCS_OK) {
        delete mem;
        return status;
    }
    *mem_p = mem;
    return UCS_OK;
}

ucs_status_t reg_get(uct_srd_md_t *md, void *address, size_t size, unsigned flags, uct_srd_mem_t **mem_p) noexcept
{
    if (md->rcache != nullptr) {
        ucs_rcache_region_t *region;
        const ucs_status_t status = rcache_get(md->rcache, address, size, PROT_READ | PROT_WRITE, &flags, &region);
        if (status == UCS_OK) {
            *mem_p = &reinterpret_cast<cached_region *>(region)->mem;
            return UCS_OK;
        }
        if (status != UCS_ERR_NO_MEMORY) {
            return status;
        }
        // The cache keeps a failed region until its memory is unmapped; a shortage must not last that long. REG-2
    }
    return reg_get_direct(md, address, size, flags & UCT_MD_MEM_FLAG_HIDE_ERRORS, mem_p);
}

bool reg_dmabuf_supported(uct_srd_md_t *md) noexcept
{
    // The kernel looks at the descriptor after it knows that the driver has the call: EBADF means yes.
    struct ibv_mr *mr = ibv_reg_dmabuf_mr(md->pd, 0, static_cast<size_t>(sysconf(_SC_PAGESIZE)), 0, -1, IBV_ACCESS_LOCAL_WRITE);
    if (mr != nullptr) {
        (void)ibv_dereg_mr(mr); // a device that takes anything: nothing of ours
        return false;
    }
    return errno == EBADF;
}

ucs_status_t reg_get_dmabuf(uct_srd_md_t *md, void *address, size_t size, int fd, size_t offset, unsigned flags,
                            uct_srd_mem_t **mem_p) noexcept
{
    auto *mem = new (std::nothrow) uct_srd_mem_t{};
    if (mem == nullptr) {
        return UCS_ERR_NO_MEMORY;
    }
    mem->mr = ibv_reg_dmabuf_mr(md->pd, offset, size, reinterpret_cast<uint64_t>(address), fd, full_access(md));
    if (mem->mr == nullptr) {
        const int error = errno;
        __atomic_fetch_add(&md->counters.reg_failed_count, 1, __ATOMIC_RELAXED);
        ucs_log(flags & UCT_MD_MEM_FLAG_HIDE_ERRORS ? UCS_LOG_LEVEL_DIAG : UCS_LOG_LEVEL_ERROR,
                "%s: cannot register %zu bytes of dmabuf %d at offset %zu: %s", md->attr.ibdev_name, size, fd, offset, strerror(error));
        delete mem;
        return error == EOPNOTSUPP ? UCS_ERR_UNSUPPORTED : status_of_errno(error);
    }
    __atomic_fetch_add(&md->counters.reg_count, 1, __ATOMIC_RELAXED);
    mem->lkey = mem->mr->lkey;
    mem->rkey = mem->mr->rkey;
    *mem_p    = mem;
    return UCS_OK;
}

void reg_put(uct_srd_md_t *md, uct_srd_mem_t *mem) noexcept
{
    if (mem->cached) {
        ucs_rcache_region_put(md->rcache, &region_of(mem)->super);
        return;
    }
    unregister(md, mem);
    delete mem;
}

void reg_invalidate(uct_srd_md_t *md, uct_srd_mem_t *mem, void (*complete)(void *arg), void *arg) noexcept
{
    if (mem->cached) {
        // Taken out of the cache at once, so that no new operation shares it; completed by the last user's put.
        ucs_rcache_region_invalidate(md->rcache, &region_of(mem)->super, complete, arg);
        ucs_rcache_region_put(md->rcache, &region_of(mem)->super);
        return;
    }
    reg_put(md, mem);
    complete(arg);
}

} // namespace srd

ucs_status_t uct_srd_md_reg_internal(uct_srd_md_t *md, void *address, size_t size, int access,
                                     uct_srd_mem_t *mem_p) noexcept
{
    if (srd::register_once(md, address, size, access, mem_p)) {
        return UCS_OK;
    }
    const int error = errno;
    ucs_error("%s: cannot register %zu bytes of interface buffers: %s%s", md->attr.ibdev_name, size, strerror(error),
              error == ENOMEM ? " (see 'ulimit -l')" : "");
    return error == ENOMEM ? UCS_ERR_NO_MEMORY : UCS_ERR_IO_ERROR;
}

void uct_srd_md_dereg_internal(uct_srd_md_t *md, uct_srd_mem_t *mem) noexcept
{
    if (mem->mr != nullptr) {
        srd::unregister(md, mem);
    }
}
