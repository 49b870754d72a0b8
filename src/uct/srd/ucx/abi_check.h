/* Asks the UCX that is loaded whether it is the one we were compiled for.
 *
 * UCX's loader has no version handshake and its libraries carry no symbol versions, so a plugin built for another minor
 * version loads without complaint and then overwrites memory. Three questions tell versions apart:
 *   1. The sizes of the four base classes, which libuct exports as data. A difference is fatal: no override.
 *   2. ucp_get_version of the libucp in the process, where there is one. Sizes do not tell 1.16 from 1.18; this does.
 *   3. Symbols that came or went with a minor version, where there is no libucp.
 * Owns: the facts and the verdict. Refuses to know: how the verdict is reported, what is registered afterwards.
 *
 * Invariants
 *   CHK-1: unknown means refuse. UCX_SRD_ABI_CHECK=n turns questions 2 and 3 off, never question 1.
 */
#pragma once

#include "uct/srd/ucx/uct_abi.h"

namespace srd {

/// What was found out about the loaded UCX.
struct ucx_facts {
    size_t   iface_size;        ///< uct_iface_t_class.size, and so on
    size_t   ep_size;
    size_t   base_iface_size;
    size_t   base_ep_size;
    bool     has_libucp;        ///< a libucp is loaded and told its version
    unsigned ucp_major;
    unsigned ucp_minor;
    unsigned ucp_release;
    bool     has_own_symbol;    ///< libuct exports UCX_SRD_SYMBOL_OWN, which no older one does
    bool     has_later_symbol;  ///< libuct exports UCX_SRD_SYMBOL_LATER, which the one built for does not
};

enum class ucx_verdict {
    same,       ///< as compiled for
    other,      ///< another version by its number or symbols; the override may accept it
    unusable,   ///< base objects have another size; nothing may accept it
};

/// Looks at the libraries in this process.
ucx_facts ucx_facts_of_process() noexcept;

/// Pure. On anything but 'same' writes one line into 'reason': what we were built for and what was found.
ucx_verdict ucx_facts_judge(const ucx_facts &facts, char *reason, size_t reason_size) noexcept;

/// False if the user turned the check off with UCX_SRD_ABI_CHECK=n (or no, off, 0).
bool ucx_check_enabled(const char *setting) noexcept;

} // namespace srd
