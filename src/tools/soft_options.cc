/* See soft_options.h. */
#include "tools/soft_options.h"

#include "softefa/settings.h"

#include <charconv>
#include <cctype>
#include <cstdlib>

namespace tools {

namespace {

constexpr unsigned watch_ms_default = 1000;
constexpr char     prefix[]         = "SOFTEFA_";

struct verb_word {
    const char *word;
    soft_verb   verb;
};
constexpr verb_word verb_words[] = {
    {"run", soft_verb::run},           {"status", soft_verb::status},  {"dump", soft_verb::dump},
    {"clean", soft_verb::clean},       {"settings", soft_verb::settings}, {"limits", soft_verb::limits},
    {"help", soft_verb::help},         {"--help", soft_verb::help},    {"-h", soft_verb::help},
    {"version", soft_verb::version},   {"--version", soft_verb::version},
};

/// Decimal digits and nothing else, up to `most`.
bool parse_count(const std::string &text, unsigned long most, unsigned long *value_p)
{
    if (text.empty() || text.size() > 10) {
        return false;
    }
    *value_p = 0;
    for (const char c : text) {
        if (!isdigit(static_cast<unsigned char>(c))) {
            return false;
        }
        *value_p = *value_p * 10 + static_cast<unsigned long>(c - '0');
    }
    return *value_p >= 1 && *value_p <= most;
}

/// Decimal seconds with a point or without, 0.1 to 3600, whatever the locale.
bool parse_seconds(const std::string &text, unsigned *milliseconds_p)
{
    double      seconds = 0;
    const auto *end     = text.data() + text.size();
    const auto  parsed  = std::from_chars(text.data(), end, seconds, std::chars_format::fixed);
    if (parsed.ec != std::errc() || parsed.ptr != end || !(seconds >= 0.1 && seconds <= 3600)) {
        return false;
    }
    *milliseconds_p = static_cast<unsigned>(seconds * 1000 + 0.5);
    return true;
}

/// Walks over the words of one command line.
class parser {
public:
    parser(const std::vector<std::string> &words, soft_options *options_p, std::string *error_p)
        : words_(words), o_(*options_p), error_(*error_p)
    {
    }

    bool options()
    {
        while (at_ < words_.size() && words_[at_].rfind("-", 0) == 0) {
            if (words_[at_] == "--") {
                ++at_;
                break;
            }
            if (words_[at_] == "--help" || words_[at_] == "-h") {
                o_.verb = soft_verb::help;
                at_     = words_.size();
                return true;
            }
            if (!option()) {
                return false;
            }
        }
        return true;
    }

    size_t at() const { return at_; }
    /// The word here, whatever it is.
    const std::string &take() { return words_[at_++]; }

private:
    bool refuse(const std::string &line)
    {
        error_ = line;
        return false;
    }

    /// "--name=value" or "--name value". False: no value, or not this option.
    bool value_of(const char *name, std::string *value_p, bool *mine_p)
    {
        const std::string &word = words_[at_];
        const std::string  with = std::string(name) + "=";
        *mine_p = word == name || word.rfind(with, 0) == 0;
        if (!*mine_p) {
            return false;
        }
        if (word != name) {
            *value_p = word.substr(with.size());
        } else if (at_ + 1 < words_.size()) {
            *value_p = words_[++at_];
        } else {
            return refuse(std::string(name) + " needs a value");
        }
        ++at_;
        return true;
    }

    bool set(const std::string &assignment)
    {
        const size_t equals = assignment.find('=');
        if (equals == std::string::npos || equals == 0) {
            return refuse("--set " + assignment + ": must be NAME=VALUE; 'softefa settings' lists the names");
        }
        std::string name = assignment.substr(0, equals);
        if (name.rfind(prefix, 0) != 0) {
            name = prefix + name;
        }
        o_.settings.emplace_back(name, assignment.substr(equals + 1));
        return true;
    }

    bool option()
    {
        std::string value;
        bool        mine = false;
        for (const auto &[name, variable] : {std::pair{"--profile", "SOFTEFA_PROFILE"}, std::pair{"--devices", "SOFTEFA_DEVICES"},
                                             std::pair{"--domain", "SOFTEFA_DOMAIN"}}) {
            if (value_of(name, &value, &mine)) {
                o_.settings.emplace_back(variable, value);
                return true;
            }
            if (mine) {
                return false;
            }
        }
        if (value_of("--set", &value, &mine)) {
            return set(value);
        }
        return !mine && (is_setting() ? setting() : flag());
    }

    /// --bandwidth for SOFTEFA_BANDWIDTH, and so on.
    std::string setting_variable() const
    {
        std::string name = words_[at_].substr(2, words_[at_].find('=') - 2);
        for (char &c : name) {
            c = c == '-' ? '_' : static_cast<char>(toupper(static_cast<unsigned char>(c)));
        }
        return prefix + name;
    }

    bool is_setting() const
    {
        static const softefa::settings defaults;
        const std::string              variable = words_[at_].rfind("--", 0) == 0 ? setting_variable() : "";
        for (unsigned i = 0; i < softefa::settings_count(); ++i) {
            softefa::setting_row row;
            softefa::settings_row(i, defaults, &row);
            if (variable == std::string(prefix) + row.name) {
                return true;
            }
        }
        return false;
    }

    bool setting()
    {
        const std::string variable = setting_variable(), option = words_[at_].substr(0, words_[at_].find('='));
        std::string       value;
        bool              mine = false;
        if (!value_of(option.c_str(), &value, &mine)) {
            return false;
        }
        o_.settings.emplace_back(variable, value);
        return true;
    }

    bool flag()
    {
        const std::string &word   = words_[at_++];
        const bool         status = o_.verb == soft_verb::status, clean = o_.verb == soft_verb::clean, run = o_.verb == soft_verb::run;
        if (status && word == "--json") {
            o_.json = true;
        } else if (status && word == "--watch") {
            o_.watch_ms = watch_ms_default;
        } else if (status && word.rfind("--watch=", 0) == 0) {
            if (!parse_seconds(word.substr(8), &o_.watch_ms)) {
                return refuse(word + ": must be 0.1..3600 seconds");
            }
        } else if ((status || clean) && word == "--all") {
            o_.all = true;
        } else if (clean && word == "--dry-run") {
            o_.dry_run = true;
        } else if (o_.verb == soft_verb::settings && word == "--markdown") {
            o_.markdown = true;
        } else if (run && word == "--no-check") {
            o_.check = false;
        } else if (run && word == "--print-env") {
            o_.print_env = print_env::plain;
        } else if (run && word == "--print-env=sh") {
            o_.print_env = print_env::shell;
        } else {
            return refuse(word + ": unknown option; see softefa --help");
        }
        return true;
    }

    const std::vector<std::string> &words_;
    soft_options                   &o_;
    std::string                    &error_;
    size_t                          at_ = 1;
};

bool check_rest(const std::vector<std::string> &rest, soft_options *options_p, std::string *error_p)
{
    switch (options_p->verb) {
    case soft_verb::run:
        options_p->command = rest;
        if (rest.empty() && options_p->print_env == print_env::no) {
            *error_p = "run what? 'softefa run COMMAND [ARGUMENTS]'";
            return false;
        }
        if (!rest.empty() && rest[0].empty()) {
            *error_p = "the command is an empty word";
            return false;
        }
        return true;
    case soft_verb::dump: {
        unsigned long pid = 0;
        if (rest.size() == 1 && rest[0].find('/') != std::string::npos) {
            options_p->file = rest[0];
            return true;
        }
        if (rest.size() != 1 || !parse_count(rest[0], 4194304, &pid)) {
            *error_p = "dump which process? 'softefa dump PID', or the path of a file that a failed one kept; 'softefa status' lists processes";
            return false;
        }
        options_p->pid = static_cast<int>(pid);
        return true;
    }
    case soft_verb::help:
    case soft_verb::version: return true;
    default:
        if (!rest.empty()) {
            *error_p = rest[0] + ": one word too many; see softefa --help";
            return false;
        }
        return true;
    }
}

} // namespace

bool soft_options_parse(const std::vector<std::string> &arguments, soft_options *options_p, std::string *error_p)
{
    *options_p = {};
    if (arguments.empty()) {
        *error_p = "what to do? 'run COMMAND', 'status', 'dump PID', 'clean', 'settings' or 'limits'; see softefa --help";
        return false;
    }
    const verb_word *found = nullptr;
    for (const verb_word &v : verb_words) {
        if (arguments[0] == v.word) {
            found = &v;
        }
    }
    if (found == nullptr) {
        *error_p = arguments[0] + ": no such thing to do; see softefa --help";
        return false;
    }
    options_p->verb = found->verb;
    parser words(arguments, options_p, error_p);
    if (!words.options()) {
        return false;
    }
    std::vector<std::string> rest;
    while (words.at() < arguments.size()) {
        rest.push_back(words.take());
        if (found->verb != soft_verb::run && !words.options()) { // behind run's command they are the command's
            return false;
        }
    }
    return check_rest(rest, options_p, error_p);
}

const char *soft_options_help() noexcept
{
    return "usage: softefa run [SETTINGS] [--no-check] [--print-env[=sh]] [--] COMMAND [ARGUMENTS]\n"
           "       softefa status [--watch[=SECONDS]] [--json] [--all] [SETTINGS]\n"
           "       softefa dump PID|FILE [SETTINGS]\n"
           "       softefa clean [--all] [--dry-run] [SETTINGS]\n"
           "       softefa settings | limits [SETTINGS]\n"
           "       softefa --help | --version\n"
           "\n"
           "run       runs COMMAND with EFA devices in software, for any program that uses rdma-core: no EFA, no kernel\n"
           "          module, no root. Around mpirun and shell scripts too.\n"
           "  --no-check           do not look at COMMAND first (is it a program that can have libraries preloaded?)\n"
           "  --print-env[=sh]     print what would be set, NAME=value; with =sh for 'eval'; run nothing\n"
           "status    what runs in a domain: devices, processes, queue pairs, peers, counters, drops by reason\n"
           "  --watch[=SECONDS]    again and again, every second or as often as said, with rates\n"
           "  --json               for programs; with --watch one object a line\n"
           "  --all                every domain of this user; of empty ones only the number\n"
           "dump      what one process recorded last: its queue pairs, peers, errors; with --set RECORD=data in its run\n"
           "          also each message; or what is in a file that a process kept when something failed\n"
           "clean     removes what processes left behind that were killed; never what a living process uses\n"
           "  --all                every domain of this user\n"
           "  --dry-run            only say what would be removed\n"
           "settings  every setting: value, range, meaning; 'limits' only those that describe the devices\n"
           "  --markdown           the defaults as a table for a document\n"
           "\n"
           "SETTINGS, for every command; they win over variables SOFTEFA_* of the environment:\n"
           "  --profile efa0|efa1|efa2|efa3    what the devices can do (default efa2)\n"
           "  --devices N                      how many (default 1)\n"
           "  --domain NAME                    processes with the same name reach each other (default: default)\n"
           "  --set NAME=VALUE                 any setting of 'softefa settings'; --name VALUE says the same:\n"
           "                                   --latency 15us --bandwidth 100g\n"
           "\n"
           "Exit code: that of COMMAND; 1 if status finds nobody or dump no such process; 2 if softefa refuses; 126 and 127\n"
           "as in the shell.\n";
}

} // namespace tools
