/* softefa: gives any program an EFA device in software, and says what such devices are doing.
 *
 * A program of its own, built and installed without UCX; it links nothing but libc, the C++ runtime and the parts of Soft EFA that read
 * settings and published state.
 */
#include "tools/soft_clean.h"
#include "tools/soft_dump.h"
#include "tools/soft_options.h"
#include "tools/soft_run.h"
#include "tools/soft_status.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <cstdio>
#include <exception>

namespace {

int dispatch(const std::vector<std::string> &arguments)
{
    tools::soft_options options;
    std::string         error;
    if (!tools::soft_options_parse(arguments, &options, &error)) {
        fprintf(stderr, "softefa: %s\n", error.c_str());
        return tools::exit_refused;
    }
    switch (options.verb) {
    case tools::soft_verb::run: return tools::soft_run(options, tools::install_paths_of_process());
    case tools::soft_verb::status: return tools::soft_status(options);
    case tools::soft_verb::dump: return tools::soft_dump(options);
    case tools::soft_verb::clean: return tools::soft_clean(options);
    case tools::soft_verb::settings:
    case tools::soft_verb::limits: return tools::soft_list_settings(options);
    case tools::soft_verb::version: printf("softefa %s\n", PACKAGE_VERSION); return tools::exit_ok;
    case tools::soft_verb::help: break;
    }
    fputs(tools::soft_options_help(), stdout);
    return tools::exit_ok;
}

} // namespace

int main(int argument_count, char **arguments)
{
    try {
        return dispatch({arguments + 1, arguments + argument_count});
    } catch (const std::exception &error) {
        fprintf(stderr, "softefa: %s\n", error.what());
        return tools::exit_refused;
    }
}
