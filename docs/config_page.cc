/* Writes docs/config.md from the tables that UCX itself parses.
 *
 * Owns: what the tables cannot say (since which version, what a setting depends on), and the layout of the page. Names,
 * defaults and meanings come from the linked tables of libuct_srd: nothing is parsed, nothing can be written down twice.
 * A row without a note, or a note without a row, is an error: whoever adds a setting says what it depends on.
 *
 *   config_page            the page on stdout
 *   config_page --names    the variables, one a line
 */
#include "uct/srd/srd_config.h"
#include "uct/srd/srd_md.h"

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {

/// What a person wants to know beside the table. 'since' is the first release of ucx-srd that has the setting.
struct note {
    const char *name;
    const char *since;
    const char *depends;
};

constexpr note notes[] = {
    // memory domain
    {"REG_CACHE", "0.1", "UCX's memory hooks, which a sanitizer or a static program may lack"},
    {"RCACHE_MAX_REGIONS", "0.1", "`REG_CACHE`"},
    {"RCACHE_MAX_SIZE", "0.1", "`REG_CACHE`"},
    {"RCACHE_MAX_UNRELEASED", "0.1", "`REG_CACHE`"},
    {"MEM_REG_OVERHEAD", "0.1", "told to UCP while nothing is cached"},
    {"MEM_REG_GROWTH", "0.1", "told to UCP while nothing is cached"},
    {"RCACHE_OVERHEAD", "0.1", "told to UCP while the cache is used"},
    {"NUMA_POLICY", "0.1", "more than one NUMA node; the device's node being known to sysfs or hwloc"},
    {"FORK_INIT", "0.1", "not needed, and not done, where the kernel copies pinned pages at fork"},
    {"INVALIDATE", "0.1", "a device with one-sided operations"},
    {"REQUIRE_DIR", "0.1", "environment only"},
    {"ABI_CHECK", "0.1", "environment only"},
    // interface
    {"TX_QUEUE_LEN", "0.1", "cut to the device's send queue"},
    {"TX_MAX_BUFS", "0.1", ""},
    {"RX_QUEUE_LEN", "0.1", "cut to the device's receive queue, and to its completion queue less the sends"},
    {"RX_QUEUE_MAX", "0.1", "between `RX_QUEUE_LEN` and `RX_MAX_BUFS`; cut as `RX_QUEUE_LEN`"},
    {"RX_MAX_BUFS", "0.1", "never less than `RX_QUEUE_LEN`"},
    {"SHORT_SIZE", "0.1", "cut to the device's message"},
    {"RNR_RETRY_COUNT", "0.1", "device capability \"RNR retry\""},
    {"RNR_TIMEOUT", "0.1", ""},
    {"HELLO_INTERVAL", "0.1", ""},
    {"PROBE_INTERVAL", "0.1", "progress by the program"},
    {"KEEPALIVE_INTERVAL", "0.1", "progress by the program"},
    {"CLOSE_TIMEOUT", "0.1", ""},
    {"MAX_PEERS", "0.1", ""},
    {"LATENCY", "0.1", ""},
    {"OVERHEAD", "0.1", ""},
    {"EVENTS", "0.1", "a completion channel of the device; the kernel driver that serves it"},
    {"STATS", "0.1", "`UCX_LOG_LEVEL=info`"},
};

const note *note_of(const char *name)
{
    for (const note &n : notes) {
        if (std::strcmp(n.name, name) == 0) {
            return &n;
        }
    }
    return nullptr;
}

/// How a value is written, from the parser that reads it; UCX's own words for it differ between versions.
const char *kind_of(const ucs_config_parser_t &parser)
{
    const struct {
        ucs_config_parser_t like;
        const char         *words;
    } kinds[] = {
        {UCS_CONFIG_TYPE_UINT, "number, or inf"},
        {UCS_CONFIG_TYPE_ULUNITS, "number, or inf"},
        {UCS_CONFIG_TYPE_MEMUNITS, "bytes: 256, 8k, 512M, inf"},
        {UCS_CONFIG_TYPE_TIME, "time: 10us, 100ms, 2s"},
        {UCS_CONFIG_TYPE_BOOL, "y, n"},
        {UCS_CONFIG_TYPE_TERNARY, "y, n, try"},
        {UCS_CONFIG_TYPE_STRING, "text"},
    };
    for (const auto &kind : kinds) {
        if (kind.like.read == parser.read) {
            return kind.words;
        }
    }
    static const ucs_config_parser_t some_enum = UCS_CONFIG_TYPE_ENUM(nullptr);
    if (parser.read == some_enum.read) {
        static std::string words;
        words.clear();
        for (auto name = static_cast<const char *const *>(parser.arg); *name != nullptr; ++name) {
            words += (words.empty() ? "" : ", ") + std::string(*name);
        }
        return words.c_str();
    }
    return "see the text";
}

/// Rows of a table that are its own: the first row includes the table that every transport of UCX has.
std::vector<const ucs_config_field_t *> rows_of(const ucs_config_field_t *table)
{
    std::vector<const ucs_config_field_t *> rows;
    for (; table->name != nullptr; ++table) {
        if (table->name[0] != '\0') {
            rows.push_back(table);
        }
    }
    return rows;
}

/// Help text as Markdown: what is indented in `ucx_info -cf` is a list.
void print_help(const char *help)
{
    bool in_list = false;
    for (const char *line = help; line != nullptr && *line != '\0';) {
        const char  *next = std::strchr(line, '\n');
        std::string  text(line, next != nullptr ? static_cast<size_t>(next - line) : std::strlen(line));
        const size_t indent = text.find_first_not_of(' ');
        if (indent == 1 || indent == 2) {
            const size_t word = text.find(' ', indent);
            const size_t rest = word == std::string::npos ? std::string::npos : text.find_first_not_of(" -", word);
            std::printf("%s- `%s` %s\n", in_list ? "" : "\n", text.substr(indent, word - indent).c_str(),
                        rest == std::string::npos ? "" : text.substr(rest).c_str());
            in_list = true;
        } else if (indent != std::string::npos && indent > 2) { // goes on
            std::printf("  %s\n", text.substr(indent).c_str());
        } else {
            std::printf("%s\n", text.c_str());
        }
        line = next != nullptr ? next + 1 : nullptr;
    }
}

void print_table(const char *title, const char *about, const ucs_config_field_t *table)
{
    std::printf("## %s\n\n%s\n\n| variable | default | value | since | depends on |\n|---|---|---|---|---|\n", title, about);
    for (const ucs_config_field_t *row : rows_of(table)) {
        const note *n = note_of(row->name);
        std::printf("| [`UCX_SRD_%s`](#ucx_srd_%s) | %s%s%s | %s | %s | %s |\n", row->name, [&] {
            static std::string anchor;
            anchor = row->name;
            for (char &c : anchor) {
                c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
            }
            return anchor.c_str();
        }(), *row->dfl_value != '\0' ? "`" : "", *row->dfl_value != '\0' ? row->dfl_value : "not set", *row->dfl_value != '\0' ? "`" : "",
                    kind_of(row->parser), n->since, n->depends);
    }
    for (const ucs_config_field_t *row : rows_of(table)) {
        std::printf("\n### UCX_SRD_%s\n\n", row->name);
        print_help(row->doc);
    }
    std::printf("\n");
}

/// Notes and rows name the same settings, and no name is in both tables.
bool check_names()
{
    bool good = true;
    std::vector<std::string> names;
    for (const ucs_config_field_t *table : {uct_srd_md_config_table, uct_srd_iface_config_table}) {
        for (const ucs_config_field_t *row : rows_of(table)) {
            for (const std::string &other : names) {
                if (other == row->name) {
                    std::fprintf(stderr, "config_page: UCX_SRD_%s is in both tables\n", row->name);
                    good = false;
                }
            }
            names.push_back(row->name);
            if (note_of(row->name) == nullptr) {
                std::fprintf(stderr, "config_page: UCX_SRD_%s has no note: add one to docs/config_page.cc\n", row->name);
                good = false;
            }
        }
    }
    for (const note &n : notes) {
        bool found = false;
        for (const std::string &name : names) {
            found = found || name == n.name;
        }
        if (!found) {
            std::fprintf(stderr, "config_page: there is no UCX_SRD_%s: take its note out of docs/config_page.cc\n", n.name);
            good = false;
        }
    }
    return good;
}

} // namespace

int main(int argc, char **argv)
{
    if (!check_names()) {
        return 1;
    }
    if (argc == 2 && std::strcmp(argv[1], "--names") == 0) {
        for (const ucs_config_field_t *table : {uct_srd_md_config_table, uct_srd_iface_config_table}) {
            for (const ucs_config_field_t *row : rows_of(table)) {
                std::printf("UCX_SRD_%s\n", row->name);
            }
        }
        return 0;
    }
    std::printf("# Settings of the transport\n\n"
                "Generated from the tables that UCX parses (`make -C docs config.md` in the build folder); a test compares the two. The same\n"
                "text, with the values that are in force, comes from `ucx-srd run --soft ucx_info -cf | grep -B8 UCX_SRD_`.\n\n"
                "A setting is an environment variable, or a line of UCX's configuration file (`ucx.conf`, except where \"environment only\" is\n"
                "said). UCX warns of a `UCX_` variable that nothing reads. Settings of Soft EFA begin with `SOFTEFA_`.\n\n"
                "UCX adds the rows that every transport has: `UCX_SRD_ALLOC`, `UCX_SRD_FAILURE`, `UCX_SRD_MAX_NUM_EPS`; `ucx_info -cf` explains them.\n\n");
    print_table("The device: memory and registration", "Read when UCX opens the device.", uct_srd_md_config_table);
    print_table("The interface: queues, peers, time", "Read when a UCP worker is made, for each device.", uct_srd_iface_config_table);
    std::printf("## UCX's own settings that decide what srd is used for\n\n"
                "| variable | |\n|---|---|\n"
                "| `UCX_TLS` | transports allowed: `srd`, `srd,self`, `srd,self,sm` |\n"
                "| `UCX_NET_DEVICES` | devices allowed: `efa_0:1,efa_1:1` |\n"
                "| `UCX_MAX_EAGER_LANES` | devices that one endpoint uses for eager messages; 1 unless raised in UCX 1.13 |\n"
                "| `UCX_MAX_RNDV_LANES` | devices that one endpoint uses for rendezvous |\n"
                "| `UCX_KEEPALIVE_INTERVAL` | UCP's own question whether a peer lives |\n"
                "| `UCX_LOG_LEVEL=info` | one line for each interface: the lane classes of UCP that it qualifies for, and what the others lack |\n"
                "| `UCX_VFS_ENABLE` | whether the files of [uct-semantics.md](uct-semantics.md), \"What can be watched\", can be mounted |\n");
    return 0;
}
