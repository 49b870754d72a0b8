/* See abi_check.h. */
#include "uct/srd/ucx/abi_check.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <initializer_list>
#include <strings.h>

#ifndef UCX_SRD_BUILT_FOR
#define UCX_SRD_BUILT_FOR UCT_VERNO_STRING
#endif

namespace srd {

namespace {

constexpr unsigned built_for_major = UCT_VERNO_MAJOR;
constexpr unsigned built_for_minor = UCT_VERNO_MINOR;

/// Symbols of libuct, wherever in the process it is: it may have entered with RTLD_LOCAL.
bool libuct_exports(const char *symbol) noexcept
{
    void *libuct = dlopen("libuct.so.0", RTLD_LAZY | RTLD_NOLOAD);
    void *address = dlsym(libuct != nullptr ? libuct : RTLD_DEFAULT, symbol);
    if (libuct != nullptr) {
        dlclose(libuct);
    }
    return address != nullptr;
}

void ask_libucp(ucx_facts &facts) noexcept
{
    void *libucp = dlopen("libucp.so.0", RTLD_LAZY | RTLD_NOLOAD);
    if (libucp == nullptr) {
        return;
    }
    using get_version_t = void (*)(unsigned *, unsigned *, unsigned *);
    auto get_version = reinterpret_cast<get_version_t>(dlsym(libucp, "ucp_get_version"));
    if (get_version != nullptr) {
        get_version(&facts.ucp_major, &facts.ucp_minor, &facts.ucp_release);
        facts.has_libucp = true;
    }
    dlclose(libucp);
}

} // namespace

ucx_facts ucx_facts_of_process() noexcept
{
    ucx_facts facts       = {};
    facts.iface_size      = uct_iface_t_class.size;
    facts.ep_size         = uct_ep_t_class.size;
    facts.base_iface_size = uct_base_iface_t_class.size;
    facts.base_ep_size    = uct_base_ep_t_class.size;
    ask_libucp(facts);
    facts.has_own_symbol   = libuct_exports(UCX_SRD_SYMBOL_OWN);
    facts.has_later_symbol = libuct_exports(UCX_SRD_SYMBOL_LATER);
    return facts;
}

ucx_verdict ucx_facts_judge(const ucx_facts &facts, char *reason, size_t reason_size) noexcept
{
    if (facts.iface_size != sizeof(uct_iface_t) || facts.ep_size != sizeof(uct_ep_t) ||
        facts.base_iface_size != sizeof(uct_base_iface_t) || facts.base_ep_size != sizeof(uct_base_ep_t)) {
        char found[32] = "another UCX";
        if (facts.has_libucp) {
            snprintf(found, sizeof(found), "UCX %u.%u.%u", facts.ucp_major, facts.ucp_minor, facts.ucp_release);
        }
        snprintf(reason, reason_size,
                 "built for UCX " UCX_SRD_BUILT_FOR ", but %s is loaded, whose base interface and endpoint have "
                 "%zu and %zu bytes instead of %zu and %zu (a build with statistics has such sizes)",
                 found, facts.base_iface_size, facts.base_ep_size, sizeof(uct_base_iface_t), sizeof(uct_base_ep_t));
        return ucx_verdict::unusable;
    }
    if (facts.has_libucp) {
        if (facts.ucp_major == built_for_major && facts.ucp_minor == built_for_minor) {
            return ucx_verdict::same;
        }
        snprintf(reason, reason_size, "built for UCX " UCX_SRD_BUILT_FOR ", but UCX %u.%u.%u is loaded",
                 facts.ucp_major, facts.ucp_minor, facts.ucp_release);
        return ucx_verdict::other;
    }
    if (facts.has_own_symbol && !facts.has_later_symbol) {
        return ucx_verdict::same;
    }
    snprintf(reason, reason_size, "built for UCX " UCX_SRD_BUILT_FOR ", but the libuct that is loaded is %s than %u.%u",
             facts.has_later_symbol ? "newer" : "older", built_for_major, built_for_minor);
    return ucx_verdict::other;
}

bool ucx_check_enabled(const char *setting) noexcept
{
    if (setting == nullptr) {
        return true;
    }
    for (const char *off : {"n", "no", "off", "0"}) {
        if (strcasecmp(setting, off) == 0) {
            return false;
        }
    }
    return true;
}

} // namespace srd
