/* Registration of the transport with UCX.
 *
 * Owns: the component and transport tables, the decision whether they are registered at all, and the module entry that
 * UCX's loader calls. The only file that uses UCX's registration calls.
 *
 * The plugin may enter a process in three ways: UCX's loader opens it (the usual one, through libucx_srd_loader), it is
 * preloaded, or an application links it. A constructor therefore does the work and the module entry only reports it.
 *
 * Invariants
 *   CMP-1: active at most once in a process, and never beside another transport that calls itself srd: who comes second
 *          does not register, and who is overtaken after it registered offers no device.
 *   CMP-2: a refusal is one line that names what was expected and what was found; it registers nothing.
 */
#pragma once

#include "uct/srd/ucx/abi_check.h"

namespace srd {

/// The whole load-time decision, on facts that a test can make up. UCS_OK: go on and register.
/// 'override_setting' is UCX_SRD_ABI_CHECK; 'other_srd' says that UCX has a transport or component srd already.
ucs_status_t component_admit(const ucx_facts &facts, bool other_srd, const char *override_setting) noexcept;

/// Whether a component or transport named "srd" is registered with libuct now.
bool component_other_srd_present() noexcept;

/// The same question later, when UCX has loaded all its modules and asks `self` for devices: another srd may have come
/// after us, if we were preloaded or linked. UCX's own always wins; of two copies of this plugin the first in UCX's list
/// does, so that both give the same answer. The name of the component that has the other one, or null: go on.
const char *component_yields_to(const uct_component *self) noexcept;

} // namespace srd
