/* The load-time decision of srd_component.h, apart from the tables so that it is tested without registering anything. */
#include "uct/srd/srd_component.h"

#include <cstring>

namespace srd {

ucs_status_t component_admit(const ucx_facts &facts, bool other_srd, const char *override_setting) noexcept
{
    char reason[256];
    const ucx_verdict verdict = ucx_facts_judge(facts, reason, sizeof(reason));
    if (verdict == ucx_verdict::unusable) {
        ucs_warn("transport srd refused: %s", reason);
        return UCS_ERR_UNSUPPORTED;
    }
    if (verdict == ucx_verdict::other) {
        if (ucx_check_enabled(override_setting)) {
            ucs_warn("transport srd refused: %s (UCX_SRD_ABI_CHECK=n loads it at your own risk)", reason);
            return UCS_ERR_UNSUPPORTED;
        }
        ucs_warn("transport srd: %s; loaded because UCX_SRD_ABI_CHECK=%s", reason, override_setting);
    }
    if (other_srd) {
        ucs_info("UCX has a transport srd already: that one is active, this one is not");
        return UCS_ERR_ALREADY_EXISTS;
    }
    return UCS_OK;
}

namespace {

bool has_transport_srd(const uct_component *component) noexcept
{
    const uct_tl_t *tl;
    ucs_list_for_each(tl, &component->tl_list, list) {
        if (strcmp(tl->name, "srd") == 0) {
            return true;
        }
    }
    return false;
}

} // namespace

bool component_other_srd_present() noexcept
{
    const uct_component *other;
    ucs_list_for_each(other, &uct_components_list, list) {
        if (strcmp(other->name, "srd") == 0 || has_transport_srd(other)) {
            return true;
        }
    }
    return false;
}

const char *component_yields_to(const uct_component *self) noexcept
{
    bool self_seen = false;
    const uct_component *other;
    ucs_list_for_each(other, &uct_components_list, list) {
        if (other == self) {
            self_seen = true;
        } else if (has_transport_srd(other) && (strcmp(other->name, "srd") != 0 || !self_seen)) {
            return other->name;
        }
    }
    return nullptr;
}

} // namespace srd
