/* Registration of memory with the device: directly, or through a cache of registrations.
 *
 * Owns: ibv_reg_mr and ibv_dereg_mr, the access rights asked for, the use of UCX's registration cache.
 * Refuses to know: where the domain came from, remote keys.
 *
 * UCP 1.13 registers the user's buffer on every zero-copy operation, so without a cache each costs a kernel call. UCX's
 * own cache (exported, header installed) is used rather than one of ours: it already follows the process's unmappings,
 * together with every other UCX component, and a second set of hooks in one process is how memory caches go wrong.
 *
 * Invariants
 *   REG-1: a region is registered for everything the device can do, so that one cached region serves every use; memory
 *          that is mapped read-only is registered for reading only, and the cache is told so.
 *   REG-2: a registration that fails for lack of device resources is not remembered as a property of the memory.
 */
#pragma once

#include "uct/srd/srd_md.h"

namespace srd {

/// Makes the cache as 'config' says. With "try", a cache that cannot be made is a debug line and no cache.
ucs_status_t reg_cache_init(uct_srd_md_t *md, const uct_srd_md_config_t *config) noexcept;
void         reg_cache_fini(uct_srd_md_t *md) noexcept;

/// 'flags' are UCT_MD_MEM_*.
ucs_status_t reg_get(uct_srd_md_t *md, void *address, size_t size, unsigned flags, uct_srd_mem_t **mem_p) noexcept;
/// Registers a part of a dmabuf, without the cache: UCP keeps these itself, and unmapping says nothing about them. The
/// peer's and our own requests name it by 'address', which is not read.
ucs_status_t reg_get_dmabuf(uct_srd_md_t *md, void *address, size_t size, int fd, size_t offset, unsigned flags,
                            uct_srd_mem_t **mem_p) noexcept;
/// Whether device, driver and rdma-core can do that. Asks once, with a descriptor that does not exist.
bool         reg_dmabuf_supported(uct_srd_md_t *md) noexcept;
void         reg_put(uct_srd_md_t *md, uct_srd_mem_t *mem) noexcept;

/// As reg_put, and calls complete(arg) once no peer can reach the memory through this region any more: at the last
/// reg_put of the region, which other operations may share.
void reg_invalidate(uct_srd_md_t *md, uct_srd_mem_t *mem, void (*complete)(void *arg), void *arg) noexcept;

} // namespace srd
