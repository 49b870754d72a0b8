/* See srd_component.h. */
#include "uct/srd/srd_component.h"
#include "uct/srd/srd_iface.h"
#include "uct/srd/srd_md.h"

#include <cstdlib>
#include <cstring>

namespace {

extern "C" ucs_status_t uct_srd_cm_open(uct_component *, uct_worker_h, const uct_cm_config_t *, uct_cm_h *) noexcept
{
    return UCS_ERR_UNSUPPORTED;
}

extern "C" void uct_srd_md_vfs_init(uct_md_h uct_md) noexcept
{
    uct_srd_md_t *md = uct_srd_md(uct_md);
    const auto show = [&](uint64_t *counter, const char *name) {
        ucs_vfs_obj_add_ro_file(md, ucs_vfs_show_primitive, counter, UCS_VFS_TYPE_ULONG, "%s", name);
    };
    show(&md->counters.reg_count, "registrations");
    show(&md->counters.dereg_count, "deregistrations");
    show(&md->counters.reg_failed_count, "registrations_failed");
}

struct rkey_hooks {
    static constexpr auto rkey_unpack  = uct_srd_rkey_unpack;
    static constexpr auto rkey_release = uct_srd_rkey_release;
};

/// No device for a transport that is not the active one. CMP-1
extern "C" ucs_status_t query_if_active(uct_component *self, uct_md_resource_desc_t **resources_p,
                                        unsigned *count_p) noexcept
{
    const char *other = srd::component_yields_to(self);
    if (other != nullptr) {
        ucs_info("UCX's component %s has a transport srd too: that one is active, this one is not", other);
        *resources_p = nullptr;
        *count_p     = 0;
        return UCS_OK;
    }
    return uct_srd_query_md_resources(self, resources_p, count_p);
}

constinit uct_component component = {};
constinit uct_tl_t      tl        = {};

/// UCS_INPROGRESS until the constructor has run, then what it decided.
constinit ucs_status_t registration_status = UCS_INPROGRESS;

void fill_tables() noexcept
{
    strcpy(component.name, "srd");
    component.query_md_resources = query_if_active;
    component.md_open            = uct_srd_md_open;
    component.cm_open            = uct_srd_cm_open;
    srd::bind_rkey_ops<rkey_hooks>(component);
    component.md_vfs_init        = uct_srd_md_vfs_init;
    component.md_config.name     = "SRD memory domain";
    component.md_config.prefix   = "SRD_";
    component.md_config.table    = uct_srd_md_config_table;
    component.md_config.size     = sizeof(uct_srd_md_config_t);
    component.cm_config.name     = "";
    component.cm_config.prefix   = "";
    ucs_list_head_init(&component.tl_list);

    strcpy(tl.name, "srd");
    tl.query_devices = uct_srd_query_devices;
    tl.iface_open    = uct_srd_iface_open;
    tl.config.name   = "SRD transport";
    tl.config.prefix = "SRD_";
    tl.config.table  = uct_srd_iface_config_table;
    tl.config.size   = sizeof(uct_srd_iface_config_t);
}

__attribute__((constructor)) void uct_srd_register() noexcept
{
    registration_status = srd::component_admit(srd::ucx_facts_of_process(), srd::component_other_srd_present(),
                                               getenv("UCX_SRD_ABI_CHECK"));
    if (registration_status == UCS_OK) {
        fill_tables();
        uct_component_register(&component);
        uct_tl_register(&component, &tl);
    }
}

__attribute__((destructor)) void uct_srd_unregister() noexcept
{
    if (registration_status == UCS_OK) {
        uct_tl_unregister(&tl);
        uct_abi_component_unregister(&component);
        registration_status = UCS_INPROGRESS;
    }
}

} // namespace

/// Called by UCX's loader after the constructors; anything but UCS_OK unloads the plugin.
extern "C" __attribute__((visibility("default"))) ucs_status_t ucs_module_global_init() noexcept
{
    return registration_status;
}
