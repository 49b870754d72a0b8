/* See options.h. */
#include "tools/options.h"

#include <cctype>

namespace tools {

namespace {

/// 1..device_count_max, decimal, nothing else.
bool parse_device_count(const std::string &text, unsigned *count_p)
{
    if (text.empty() || text.size() > 2) {
        return false;
    }
    unsigned count = 0;
    for (const char c : text) {
        if (!isdigit(static_cast<unsigned char>(c))) {
            return false;
        }
        count = count * 10 + static_cast<unsigned>(c - '0');
    }
    *count_p = count;
    return count >= 1 && count <= device_count_max;
}

bool parse_option(const std::string &argument, options *options_p, std::string *error_p)
{
    const bool run = options_p->verb == verb::run;
    if (argument == "--soft") {
        options_p->soft = true;
    } else if (argument.rfind("--soft=", 0) == 0) {
        options_p->soft = true;
        if (!parse_device_count(argument.substr(7), &options_p->device_count)) {
            *error_p = argument + ": the number of devices must be 1 to " + std::to_string(device_count_max);
            return false;
        }
    } else if (run && argument == "--require") {
        options_p->require = true;
    } else if (run && argument == "--no-check") {
        options_p->check = false;
    } else if (run && argument == "--print-env") {
        options_p->print_env = print_env::plain;
    } else if (run && argument == "--print-env=sh") {
        options_p->print_env = print_env::shell;
    } else {
        *error_p = argument + ": unknown option; see ucx-srd --help";
        return false;
    }
    return true;
}

} // namespace

bool options_parse(const std::vector<std::string> &arguments, options *options_p, std::string *error_p)
{
    *options_p = {};
    if (arguments.empty()) {
        *error_p = "what to do? 'run COMMAND' or 'info'; see ucx-srd --help";
        return false;
    }
    const std::string &word = arguments[0];
    if (word == "--help" || word == "-h" || word == "help") {
        options_p->verb = verb::help;
        return true;
    }
    if (word == "--version" || word == "version") {
        options_p->verb = verb::version;
        return true;
    }
    if (word != "run" && word != "info") {
        *error_p = word + ": no such thing to do; 'run COMMAND' or 'info'; see ucx-srd --help";
        return false;
    }
    options_p->verb = word == "run" ? verb::run : verb::info;

    size_t i = 1;
    for (; i < arguments.size() && arguments[i].rfind("-", 0) == 0; ++i) {
        if (arguments[i] == "--") {
            ++i;
            break;
        }
        if (arguments[i] == "--help" || arguments[i] == "-h") {
            options_p->verb = verb::help;
            return true;
        }
        if (!parse_option(arguments[i], options_p, error_p)) {
            return false;
        }
    }
    options_p->command.assign(arguments.begin() + static_cast<std::ptrdiff_t>(i), arguments.end());

    if (options_p->verb == verb::info && !options_p->command.empty()) {
        *error_p = options_p->command[0] + ": info takes no command";
        return false;
    }
    if (options_p->verb == verb::run && options_p->command.empty() && options_p->print_env == print_env::no) {
        *error_p = "run what? 'ucx-srd run [--soft] COMMAND [ARGUMENTS]'";
        return false;
    }
    if (!options_p->command.empty() && options_p->command[0].empty()) {
        *error_p = "the command is an empty word";
        return false;
    }
    return true;
}

const char *options_help() noexcept
{
    return "usage: ucx-srd run [--soft[=N]] [--require] [--no-check] [--print-env[=sh]] [--] COMMAND [ARGUMENTS]\n"
           "       ucx-srd info [--soft[=N]]\n"
           "       ucx-srd --help | --version\n"
           "\n"
           "run     runs COMMAND with the transport srd loaded into the UCX that the system has; around mpirun and\n"
           "        oshrun too. It never sets UCX_TLS: say UCX_TLS=srd,self to use nothing else.\n"
           "  --soft[=N]       on N (default 1) EFA devices in software; no EFA, no kernel module, no root needed\n"
           "  --require        fail with 3 if COMMAND succeeds but srd carried no bytes on this host\n"
           "  --no-check       do not look for a device, for UCX or at COMMAND first (a launcher whose ranks run elsewhere)\n"
           "  --print-env      print what would be set, NAME=value; with =sh for 'eval'; run nothing\n"
           "info    says which UCX, rdma-core and devices were found, what the transport can do with them, what is\n"
           "        missing, and what to type next\n"
           "\n"
           "Only loader and Open MPI variables that are unset are set; words in LD_PRELOAD are kept.\n"
           "Exit code: that of COMMAND; 2 if ucx-srd refuses before anything runs; 3 for --require; 126 and 127 as in\n"
           "the shell. Settings of the transport: UCX_SRD_*, see 'ucx-srd run --soft ucx_info -cf'. Settings of the\n"
           "software device: SOFTEFA_*.\n";
}

} // namespace tools
