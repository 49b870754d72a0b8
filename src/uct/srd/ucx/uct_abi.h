/* What the transport knows of UCX beyond UCX's installed headers.
 *
 * Owns: the choice of one layout file by UCX_SRD_ABI (set by configure from the installed UCX), the declarations of the
 * functions and tables that libuct exports without a header, and the constants the transport was compiled with.
 * Refuses to know: anything of SRD.
 *
 * libucx-dev installs the public half of UCT (uct/api) and of UCS. A transport also fills or embeds a dozen structs
 * that are private to UCX's own tree. They are declared here by hand, one file for each UCX minor version, because they
 * differ between minors in ways that no compiler sees: slots move, bits are renumbered, sizes stay equal.
 * Rejected: building against UCX's source tree. The source that matches a distribution's binary often cannot be had, and
 * then the only thing left to trust is the binary itself; abi_check.h asks it at load time.
 *
 * Adding a UCX version: write layout_<abi>.h, extend the choice below, uct_bind.h and config/m4/ucx.m4, give abi_check.cc
 * its feature symbols, run test_uct_abi.cc against the installed library, and contrib/judges/ucx-abi-check against that
 * version's source where there is one.
 *
 * Invariants
 *   ABI-1: every struct that crosses into libuct has a static_assert for its size and for each offset libuct touches.
 *   ABI-2: tables handed to UCX are cleared first and filled by member name, never by position.
 *   ABI-3: nothing here depends on how UCX was configured, except that statistics are off (they append to the base
 *          interface and the base endpoint); the load-time check sees that in the class sizes.
 */
#pragma once

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#ifndef UCX_SRD_ABI
#error "UCX_SRD_ABI is not set: configure chooses it from the installed UCX"
#endif

#include <cstddef>
#include <cstdint>
#include <sys/socket.h>
#include <sys/types.h>

// Most of these wrap themselves; rcache.h does not, and would give its functions C++ names.
extern "C" {
#include <ucs/config/parser.h>
#include <ucs/config/types.h>
#include <ucs/datastruct/callbackq.h>
#include <ucs/datastruct/linear_func.h>
#include <ucs/datastruct/list.h>
#include <ucs/debug/log_def.h>
#include <ucs/memory/rcache.h>
#include <ucs/sys/stubs.h>
#include <ucs/sys/topo/base/topo.h>
#include <ucs/sys/uid.h>
#include <ucs/type/class.h>
#include <ucs/type/cpu_set.h>
#include <ucs/type/status.h>
#include <ucs/vfs/base/vfs_cb.h>
#include <ucs/vfs/base/vfs_obj.h>
#include <uct/api/uct.h>
#include <uct/api/version.h>
}

static_assert(sizeof(void *) == 8, "layouts are written down for 64-bit machines");

#if UCX_SRD_ABI == 1131
static_assert(UCT_VERNO_MAJOR == 1 && UCT_VERNO_MINOR == 13, "headers and UCX_SRD_ABI disagree");
#include "uct/srd/ucx/layout_1131.h"
#define UCX_SRD_SYMBOL_OWN "uct_md_mkey_pack_v2"
#define UCX_SRD_SYMBOL_LATER "uct_md_query_v2"
#elif UCX_SRD_ABI == 1181
static_assert(UCT_VERNO_MAJOR == 1 && UCT_VERNO_MINOR == 18, "headers and UCX_SRD_ABI disagree");
#include "uct/srd/ucx/layout_1181.h"
#define UCX_SRD_SYMBOL_OWN "uct_rkey_compare"
#define UCX_SRD_SYMBOL_LATER "uct_rkey_unpack_v2"
#elif UCX_SRD_ABI == 1230
static_assert(UCT_VERNO_MAJOR == 1 && UCT_VERNO_MINOR == 23, "headers and UCX_SRD_ABI disagree");
#include "uct/srd/ucx/layout_1230.h"
#define UCX_SRD_SYMBOL_OWN "uct_ep_get_sgl_zcopy"
#define UCX_SRD_SYMBOL_LATER "uct_md_mem_query_dmabuf"
#else
#error "no layout for this UCX_SRD_ABI: see 'Adding a UCX version' above"
#endif

extern "C" {

// Registration of a component and its transports. 'component' and 'tl' must stay valid until unregistered.
void uct_component_register(uct_component *component);
void uct_component_unregister(uct_component *component);
void uct_tl_register(uct_component *component, uct_tl_t *tl);
void uct_tl_unregister(uct_tl_t *tl);

// Resource lists are allocated by these (libuct frees them with its own allocator wrapper, which is free()).
ucs_status_t uct_md_query_single_md_resource(uct_component *component, uct_md_resource_desc_t **resources_p,
                                             unsigned *resource_count_p);
ucs_status_t uct_md_query_empty_md_resource(uct_md_resource_desc_t **resources_p, unsigned *resource_count_p);
ucs_status_t uct_single_device_resource(uct_md_h md, const char *device_name, uct_device_type_t device_type,
                                        ucs_sys_device_t sys_device, uct_tl_device_resource_t **devices_p,
                                        unsigned *device_count_p);

// Head of the list of all registered components; components link themselves in through uct_component::list.
extern ucs_list_link_t uct_components_list;

// Configuration rows that every interface and every memory domain table starts with.
extern ucs_config_field_t uct_iface_config_table[];
extern ucs_config_field_t uct_md_config_table[];

// Classes of the base objects; 'size' is what libuct was compiled with and is the load-time truth about layout.
extern ucs_class_t uct_iface_t_class;
extern ucs_class_t uct_ep_t_class;
extern ucs_class_t uct_base_iface_t_class;
extern ucs_class_t uct_base_ep_t_class;

// Constructors: '*init_count' must be 1 on entry and is raised by libuct; on failure pass its value to
// ucs_class_call_cleanup_chain(cls, object, *init_count). On close: ucs_class_call_cleanup_chain(cls, object, -1).
// 'ops' is copied by value, 'internal_ops' is kept by pointer and must outlive the interface.
ucs_status_t uct_base_iface_t_init(uct_base_iface_t *iface, ucs_class_t *cls, int *init_count, uct_iface_ops_t *ops,
                                   uct_iface_internal_ops_t *internal_ops, uct_md_h md, uct_worker_h worker,
                                   const uct_iface_params_t *params, const uct_iface_config_t *config);
ucs_status_t uct_base_ep_t_init(uct_base_ep_t *ep, ucs_class_t *cls, int *init_count, uct_base_iface_t *iface);

// Defaults that a transport may use as its operations or call from them.
void uct_base_iface_query(uct_base_iface_t *iface, uct_iface_attr_t *attr);
void uct_base_iface_progress_enable(uct_iface_h iface, unsigned flags);
void uct_base_iface_progress_disable(uct_iface_h iface, unsigned flags);
ucs_status_t uct_base_iface_flush(uct_iface_h iface, unsigned flags, uct_completion_t *comp);
ucs_status_t uct_base_iface_fence(uct_iface_h iface, unsigned flags);
ucs_status_t uct_base_iface_estimate_perf(uct_iface_h iface, uct_perf_attr_t *perf_attr);
ucs_status_t uct_base_ep_flush(uct_ep_h ep, unsigned flags, uct_completion_t *comp);
ucs_status_t uct_base_ep_fence(uct_ep_h ep, unsigned flags);
ucs_status_t uct_base_ep_am_short_iov(uct_ep_h ep, uint8_t id, const uct_iov_t *iov, size_t iovcnt);

// Alignment that the user of the interface wants for the payload of received messages (only with descriptors).
ucs_status_t uct_iface_param_am_alignment(const uct_iface_params_t *params, size_t element_size, size_t base_offset,
                                          size_t payload_offset, size_t *align_p, size_t *align_offset_p);

// Reports the failure of one endpoint to its user; UCS_OK when somebody handles it.
ucs_status_t uct_iface_handle_ep_err(uct_iface_h iface, uct_ep_h ep, ucs_status_t status);

// Seeds from time and pid; exported by libucs, in an installed header only from 1.14 on.
uint64_t ucs_generate_uuid(uint64_t seed);

} // extern "C"

/// Hands one received message to its handler. The table is read for every message: UCP replaces handlers at any time.
static inline ucs_status_t uct_abi_invoke_am(uct_base_iface_t *iface, size_t am_id, void *payload, unsigned size,
                                             unsigned flags)
{
    const uct_am_handler_t *handler = &iface->am[am_id];
    return handler->cb(handler->arg, payload, size, flags);
}

/// Gives UCX's system device the name that people know; later versions want to know whose name wins.
static inline void uct_abi_name_sys_device(ucs_sys_device_t device, const char *name)
{
#if UCX_SRD_ABI == 1131
    (void)ucs_topo_sys_device_set_name(device, name);
#else
    (void)ucs_topo_sys_device_set_name(device, name, 10);
#endif
}

/// Unregisters and leaves no trace: UCX 1.13 unlinks the configuration of a component but not the component, so a
/// plugin that is unloaded would stay in the list as a dangling pointer.
static inline void uct_abi_component_unregister(uct_component *component)
{
    uct_component_unregister(component);
    for (ucs_list_link_t *link = uct_components_list.next; link != &uct_components_list; link = link->next) {
        if (link == &component->list) {
            ucs_list_del(link);
            return;
        }
    }
}
