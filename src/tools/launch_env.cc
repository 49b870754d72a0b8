/* See launch_env.h. */
#include "tools/launch_env.h"

namespace tools {

namespace {

std::string base_name(const std::string &path)
{
    return path.substr(path.rfind('/') + 1);
}

bool is_openshmem_launcher(const std::vector<std::string> &command)
{
    if (command.empty()) {
        return false;
    }
    const std::string name = base_name(command[0]);
    return name == "oshrun" || name == "shmemrun";
}

} // namespace

bool launch_env(const options &options, const install_paths &paths, const environment &current, changes *changes_p,
                std::string *error_p)
{
    changes_p->clear();
    const auto value_of = [&](const char *name) {
        const auto found = current.find(name);
        return found == current.end() ? std::string() : found->second;
    };
    const auto set_if_unset = [&](const char *name, const std::string &value) {
        if (current.find(name) == current.end()) {
            changes_p->emplace_back(name, value);
        }
    };

    const std::string preload = preload_with(value_of("LD_PRELOAD"), options.soft ? std::vector{paths.loader, paths.soft_efa} :
                                                                                    std::vector{paths.loader});
    if (preload != value_of("LD_PRELOAD")) {
        changes_p->emplace_back("LD_PRELOAD", preload);
    }

    const auto module_dir = current.find("UCX_MODULE_DIR");
    if (module_dir != current.end() && !file_exists(module_dir->second + "/libuct_srd.so.0")) {
        *error_p = "UCX_MODULE_DIR=" + module_dir->second + " has no libuct_srd.so.0: unset it, or link " +
                   paths.transport + " into it";
        return false;
    }
    set_if_unset("UCX_MODULE_DIR", paths.module_dir);

    if (options.device_count != 0) {
        const std::string count = std::to_string(options.device_count);
        const auto        users = current.find("SOFTEFA_DEVICES");
        if (users != current.end() && users->second != count) {
            *error_p = "--soft=" + count + " and SOFTEFA_DEVICES=" + users->second + " disagree: give one of them";
            return false;
        }
        set_if_unset("SOFTEFA_DEVICES", count);
    }

    set_if_unset("OMPI_MCA_pml", "ucx");
    set_if_unset("OMPI_MCA_pml_ucx_tls", "any");
    set_if_unset("OMPI_MCA_pml_ucx_devices", "any");
    if (is_openshmem_launcher(options.command)) {
        set_if_unset("OMPI_MCA_opal_common_ucx_opal_mem_hooks", "0");
    }
    // A sanitizer's runtime in front of programs that were not built with it reports their leaks, and fails them.
    if (!sanitizer_runtime_of(paths.loader).empty()) {
        set_if_unset("ASAN_OPTIONS", "detect_leaks=0");
    }
    return true;
}

} // namespace tools
