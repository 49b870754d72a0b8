/* ucx-srd: runs any command with the transport srd loaded, and says what the transport finds on this machine.
 *
 * A program rather than a shell script: it must read ELF files and ask verbs and UCX, must not depend on what else is
 * installed, and must not be a shell that is itself subject to the preloads it arranges.
 */
#include "tools/info.h"
#include "tools/options.h"
#include "tools/run.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <cstdio>
#include <exception>

namespace {

int dispatch(const std::vector<std::string> &arguments)
{
    if (arguments.size() == 1 && arguments[0] == tools::info_inside_word) {
        return tools::info_inside();
    }
    tools::options options;
    std::string    error;
    if (!tools::options_parse(arguments, &options, &error)) {
        fprintf(stderr, "ucx-srd: %s\n", error.c_str());
        return tools::exit_refused;
    }
    switch (options.verb) {
    case tools::verb::run: return tools::run(options, tools::install_paths_of_process());
    case tools::verb::info: return tools::info(options, tools::install_paths_of_process());
    case tools::verb::version: printf("ucx-srd %s\n", PACKAGE_VERSION); return tools::exit_ok;
    case tools::verb::help: break;
    }
    fputs(tools::options_help(), stdout);
    return tools::exit_ok;
}

} // namespace

int main(int argument_count, char **arguments)
{
    try {
        return dispatch({arguments + 1, arguments + argument_count});
    } catch (const std::exception &error) {
        fprintf(stderr, "ucx-srd: %s\n", error.what());
        return tools::exit_refused;
    }
}
