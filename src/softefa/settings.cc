/* SOFTEFA_* variables: one table, one parser.
 *
 * Owns: the names, defaults and ranges of every setting, and the words in which a wrong one is refused.
 * Refuses to know: what a setting does.
 *
 * Algorithm: the profile is found first, because it chooses the defaults of the device limits; then every variable of the
 * environment that begins with SOFTEFA_ is looked up in the table and checked. A name that is not in the table is an error
 * like a value out of range: a misspelt setting that is silently ignored would make an experiment lie.
 * Rejected: accepting unknown names with a warning, since nobody reads the warnings of a preloaded library.
 *
 * Invariants
 *   SET-1  settings_get parses once; all callers see one result, whatever happens to the environment later.
 *   SET-2  an error is one line that names the variable, its value and what would be right.
 */
#include "softefa/settings.h"

#include "softefa/wire/pdu.h"

#include <bit>
#include <cctype>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <new>
#include <pthread.h>
#include <strings.h>
#include <sys/stat.h>
#include <type_traits>
#include <unistd.h>

extern char **environ;

namespace softefa {
namespace {

constexpr std::size_t error_size_max = 3072;
constexpr const char *prefix         = "SOFTEFA_";
constexpr char        protocol_name[] = "protocol=";

/// How the text of a variable becomes a value.
enum class value_kind : std::uint8_t {
    profile_name, ///< efa0..efa3
    name,         ///< letters, digits, '_', '.', '-'
    folder,       ///< an absolute path
    percent,      ///< 0..100 with a fraction, kept as parts of 65536
    level,        ///< a word or a number
    record_word,  ///< what the flight recorder keeps
    overrun_word, ///< what happens to a completion that finds its CQ full
    copy_word,    ///< whether a peer's memory is read
    number,       ///< decimal, or hexadecimal with 0x
    duration,     ///< number with ns, us, ms or s, kept as nanoseconds
    bit_rate,     ///< bits per second with k, m, g or t
};

struct variable {
    const char   *name;  ///< without SOFTEFA_
    value_kind    kind;
    std::uint64_t min;   ///< of number
    std::uint64_t max;   ///< of number
    const char   *range; ///< shown to the user; null: "min..max"
    void (*set)(settings &, std::uint64_t);
    std::uint64_t (*get)(const settings &);
    bool          shared; ///< the first process of a domain fixes it for all
    const char   *help;
};

template <auto Member> void set_top(settings &s, std::uint64_t value)
{
    s.*Member = static_cast<std::remove_reference_t<decltype(s.*Member)>>(value);
}
template <auto Member> std::uint64_t get_top(const settings &s) { return static_cast<std::uint64_t>(s.*Member); }

template <auto Member> void set_limit(settings &s, std::uint64_t value)
{
    s.limits.*Member = static_cast<std::remove_reference_t<decltype(s.limits.*Member)>>(value);
}
template <auto Member> std::uint64_t get_limit(const settings &s) { return s.limits.*Member; }

template <auto Member> void set_rude(settings &s, std::uint64_t value)
{
    s.rude.*Member = static_cast<std::remove_reference_t<decltype(s.rude.*Member)>>(value);
}
template <auto Member> std::uint64_t get_rude(const settings &s) { return s.rude.*Member; }

#define TOP(member) set_top<&settings::member>, get_top<&settings::member>
#define LIMIT(member) set_limit<&device_limits::member>, get_limit<&device_limits::member>
#define RUDE(member) set_rude<&rude_settings::member>, get_rude<&rude_settings::member>

constexpr std::uint64_t second = 1'000'000'000; ///< in nanoseconds
constexpr const char   *per_cent = "0..100 (per cent, fractions allowed)";

constexpr const char *profile_names[] = {"efa0", "efa1", "efa2", "efa3"};
constexpr const char *level_names[]   = {"none", "error", "warn", "info", "debug"};
constexpr const char *record_names[]  = {"off", "control", "data"};
constexpr const char *overrun_names[] = {"keep", "error"};
constexpr const char *copy_names[]    = {"n", "y", "auto"};

constexpr variable variables[] = {
    {"PROFILE", value_kind::profile_name, 0, 3, "efa0, efa1, efa2 or efa3", TOP(device_profile), true,
     "feature set: efa0 no RDMA; efa1 RDMA read; efa2 read, write, RNR retry, unsolicited receive; efa3 wide WQEs"},
    {"DEVICES", value_kind::number, 1, 32, nullptr, TOP(device_count), true, "number of devices"},
    {"DOMAIN", value_kind::name, 0, 0, "1 to 32 of A-Z a-z 0-9 _ . -", nullptr, nullptr, false,
     "network: processes of one user with the same name reach each other"},
    {"REGISTRY_DIR", value_kind::folder, 0, 0, "an absolute path of at most 80 characters", nullptr, nullptr, false,
     "private folder of the domain (default: below $XDG_RUNTIME_DIR, else /tmp)"},
    {"SEED", value_kind::number, 0, UINT64_MAX, nullptr, TOP(seed), false, "seed of everything random"},
    {"REORDER", value_kind::percent, 0, 65536, per_cent, TOP(reorder_per_65536), false,
     "chance that two queued messages swap, per cent; 0 = off"},
    {"RNR_TIMER", value_kind::number, 1, 1000000, nullptr, TOP(rnr_timer_us), false, "microseconds before an RNR retry"},
    {"REUSE_QPN", value_kind::number, 0, 1, nullptr, TOP(reuse_qpn), false,
     "1: a new queue pair gets the lowest free number, so that numbers come back at once; 0: numbers rotate"},
    {"LATENCY", value_kind::duration, 0, second, "0, or up to 1s with ns, us, ms or s", TOP(latency_ns), false,
     "modelled one-way latency of the wire; 0 = as fast as memory is"},
    {"BANDWIDTH", value_kind::bit_rate, 0, 10'000'000'000'000, "0, or 1k..10t (bits per second with k, m, g or t)", TOP(bandwidth_bps),
     false, "modelled bandwidth of a device and direction; 0 = no limit"},
    {"UNRESPONSIVE_TIMEOUT", value_kind::duration, 0, 3600 * second, "0, or up to 3600s with ns, us, ms or s", TOP(unresponsive_ns), false,
     "a peer that takes nothing for so long is given up with status 13; 0 = it is waited for"},
    {"DELAY", value_kind::duration, 0, 10 * second, "0, or up to 10s with ns, us, ms or s", RUDE(delay_ns_max), false,
     "longest delay of a work request before it is sent; 0 = off"},
    {"DELAY_MIN", value_kind::duration, 0, 10 * second, "0, or up to 10s with ns, us, ms or s", RUDE(delay_ns_min), false,
     "shortest such delay"},
    {"DELAY_RATE", value_kind::percent, 0, 65536, per_cent, RUDE(delay_per_65536), false, "share of work requests that are delayed"},
    {"RNR_EVERY", value_kind::number, 0, 1u << 30, nullptr, RUDE(rnr_every), false,
     "every so many-th message that arrives is answered: no receive posted; 0 = off"},
    {"RNR_FOR", value_kind::duration, 0, 10 * second, "0, or up to 10s with ns, us, ms or s", RUDE(rnr_for_ns), false,
     "for so long from its first message, a queue pair answers: no receive posted"},
    {"FAIL_STATUS", value_kind::number, 0, 18, nullptr, RUDE(fail_status), false,
     "completion status for work requests that are made to fail; 0 = none is"},
    {"FAIL_AT", value_kind::number, 0, UINT64_MAX, nullptr, RUDE(fail_at), false, "the work request that fails, counted from 1; 0 = by rate"},
    {"FAIL_RATE", value_kind::percent, 0, 65536, per_cent, RUDE(fail_per_65536), false, "share of work requests that fail"},
    {"STOP_AT", value_kind::number, 0, UINT64_MAX, nullptr, RUDE(stop_at), false,
     "the process stops itself (SIGSTOP) at this work request, counted from 1; 0 = never"},
    {"KILL_AT", value_kind::number, 0, UINT64_MAX, nullptr, RUDE(kill_at), false,
     "the process kills itself (SIGKILL) at this work request, counted from 1; 0 = never"},
    {"RUDE_DEVICES", value_kind::number, 0, 0xffffffff, nullptr, RUDE(devices), false,
     "bit mask of the devices whose work requests and messages are concerned"},
    {"RUDE_QPN", value_kind::number, 0, 65535, nullptr, RUDE(qpn), false, "only work to and from this remote queue pair; 0 = every one"},
    {"RUDE_PEERS", value_kind::percent, 0, 65536, per_cent, RUDE(peers_per_65536), false,
     "share of the remote queue pairs that are concerned, chosen by the seed"},
    {"LOG_LEVEL", value_kind::level, 0, 4, "none, error, warn, info, debug or 0..4", TOP(log_level), false,
     "what is written to standard error"},
    {"RECORD", value_kind::record_word, 0, 2, "off, control or data", TOP(record_mode), false,
     "flight recorder, shown by 'softefa dump': nothing; objects, peers and errors; also every message"},
    {"RECORD_COUNT", value_kind::number, 64, 65536, nullptr, TOP(record_count), false,
     "entries that the recorder keeps, of 32 bytes; rounded down to a power of two"},
    {"DMABUF", value_kind::number, 0, 1, nullptr, TOP(dmabuf), false,
     "1: memory can be registered by a descriptor (memfd, udmabuf), as GPU memory is by its dmabuf"},
    {"CQ_OVERRUN", value_kind::overrun_word, 0, 1, "keep or error", TOP(cq_overrun), false,
     "a completion that finds its CQ full waits beside it; or is lost, and the CQ gets an error event"},
    {"DIRECT", value_kind::number, 0, 1, nullptr, TOP(direct), false,
     "1: programs may read and write rings without verbs calls (efadv_query_cq, efadv_query_qp_wqs); their helper thread then looks at doorbells"},
    {"DIRECT_NAP", value_kind::duration, 1000, 100'000'000, "1us..100ms", TOP(direct_nap_ns), false,
     "longest pause between two such looks; 1ms at least after 100ms in which nothing moved"},
    {"SINGLE_COPY", value_kind::copy_word, 0, 2, "auto, y or n", TOP(single_copy), false,
     "RDMA between processes by one copy (process_vm_readv) where the kernel lets them: from 32 KiB, of any size, never"},
    {"MAX_QP", value_kind::number, 1, 4096, nullptr, LIMIT(max_qp), true, "queue pairs of a context"},
    {"MAX_CQ", value_kind::number, 1, 8192, nullptr, LIMIT(max_cq), true, "completion queues of a context"},
    {"MAX_CQE", value_kind::number, 1, 32768, nullptr, LIMIT(max_cqe), true, "entries of a completion queue"},
    {"MAX_MR", value_kind::number, 1, 262144, nullptr, LIMIT(max_mr), true, "memory regions of a context"},
    {"MAX_PD", value_kind::number, 1, 4096, nullptr, LIMIT(max_pd), true, "protection domains of a context"},
    {"MAX_AH", value_kind::number, 1, 65535, nullptr, LIMIT(max_ah), true, "address handles of a context"},
    {"MAX_SQ_WR", value_kind::number, 1, 32768, nullptr, LIMIT(max_sq_wr), true, "work requests of a send queue"},
    {"MAX_RQ_WR", value_kind::number, 1, 32768, nullptr, LIMIT(max_rq_wr), true, "descriptors of a receive queue"},
    {"MAX_SQ_SGE", value_kind::number, 1, 2, nullptr, LIMIT(max_sq_sge), true, "buffers of a send"},
    {"MAX_RQ_SGE", value_kind::number, 1, 3, nullptr, LIMIT(max_rq_sge), true, "buffers of a receive"},
    {"MAX_RDMA_SGE", value_kind::number, 1, 1, nullptr, LIMIT(max_rdma_sge), true, "local buffers of an RDMA operation"},
    {"INLINE_SIZE", value_kind::number, 0, 32, nullptr, LIMIT(inline_size), true, "inline bytes of a 64-byte WQE"},
    {"INLINE_SIZE_EX", value_kind::number, 0, 80, nullptr, LIMIT(inline_size_ex), true,
     "inline bytes of a 128-byte WQE; 0 = no such WQEs"},
    {"MAX_LLQ_SIZE", value_kind::number, 4096, 4194304, nullptr, LIMIT(max_llq_size), true, "bytes of a send queue ring"},
    {"MTU", value_kind::number, 256, 9216, nullptr, LIMIT(mtu), true, "bytes of the largest send"},
    {"MAX_RDMA_SIZE", value_kind::number, 0, 1u << 30, nullptr, LIMIT(max_rdma_size), true,
     "bytes of the largest RDMA operation; 0 = no RDMA"},
    {"VENDOR_PART_ID", value_kind::number, 0xefa0, 0xefa4, "0xefa0..0xefa4", LIMIT(vendor_part_id), true, "PCI device id"},
    {"DEVICE_CAPS", value_kind::number, 0, 0x7f, "0..0x7f", LIMIT(device_caps), true, "capability bits that the device reports"},
};

/// vsnprintf that appends at *length_p and never writes beyond `size`.
__attribute__((format(printf, 4, 5))) void append(char *text, std::size_t size, std::size_t *length_p, const char *format, ...)
{
    const std::size_t at = *length_p < size ? *length_p : size;
    va_list           arguments;
    va_start(arguments, format);
    const int written = vsnprintf(text ? text + at : nullptr, text ? size - at : 0, format, arguments);
    va_end(arguments);
    if (written > 0) {
        *length_p += static_cast<std::size_t>(written);
    }
}

void range_text(const variable &v, char *text, std::size_t size)
{
    if (v.range != nullptr) {
        snprintf(text, size, "%s", v.range);
    } else {
        snprintf(text, size, "%llu..%llu", static_cast<unsigned long long>(v.min), static_cast<unsigned long long>(v.max));
    }
}

struct unit {
    const char   *name;
    std::uint64_t scale;
};
constexpr unit time_units[] = {{"ns", 1}, {"us", 1000}, {"ms", 1'000'000}, {"s", second}};
constexpr unit rate_units[] = {{"k", 1000}, {"m", 1'000'000}, {"g", 1'000'000'000}, {"t", 1'000'000'000'000}};

/// The largest unit that leaves no fraction; 0 without one.
template <std::size_t N> void format_with_unit(const unit (&units)[N], std::uint64_t value, char *text, std::size_t size)
{
    const unit *best = &units[0];
    for (const unit &u : units) {
        best = value % u.scale == 0 ? &u : best;
    }
    if (value == 0) {
        snprintf(text, size, "0");
    } else {
        snprintf(text, size, "%llu%s", static_cast<unsigned long long>(value / best->scale), best->name);
    }
}

void value_text(const variable &v, const settings &values, char *text, std::size_t size)
{
    switch (v.kind) {
    case value_kind::profile_name: snprintf(text, size, "%s", profile_names[v.get(values)]); break;
    case value_kind::name: snprintf(text, size, "%s", values.domain.c_str()); break;
    case value_kind::folder: snprintf(text, size, "%s", values.registry_dir.empty() ? "chosen" : values.registry_dir.c_str()); break;
    case value_kind::level: snprintf(text, size, "%s", level_names[v.get(values)]); break;
    case value_kind::record_word: snprintf(text, size, "%s", record_names[v.get(values)]); break;
    case value_kind::overrun_word: snprintf(text, size, "%s", overrun_names[v.get(values)]); break;
    case value_kind::copy_word: snprintf(text, size, "%s", copy_names[v.get(values)]); break;
    case value_kind::percent: {
        const auto hundredths = static_cast<unsigned>((v.get(values) * 10000 + 32768) / 65536);
        int        length     = snprintf(text, size, "%u.%02u", hundredths / 100, hundredths % 100);
        while (length > 0 && (text[length - 1] == '0' || text[length - 1] == '.')) {
            const bool point = text[length - 1] == '.';
            text[--length]   = '\0';
            if (point) {
                break;
            }
        }
        break;
    }
    case value_kind::number:
        snprintf(text, size, v.min >= 0xefa0 || v.get == get_limit<&device_limits::device_caps> || v.max == 0xffffffff ? "0x%llx" : "%llu",
                 static_cast<unsigned long long>(v.get(values)));
        break;
    case value_kind::duration: format_with_unit(time_units, v.get(values), text, size); break;
    case value_kind::bit_rate: format_with_unit(rate_units, v.get(values), text, size); break;
    }
}

bool parse_number(const char *text, std::uint64_t *value_p)
{
    if (!isdigit(static_cast<unsigned char>(text[0]))) {
        return false; // no sign, no blanks: strtoull would take both
    }
    char *end = nullptr;
    errno     = 0;
    *value_p  = strtoull(text, &end, (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) ? 16 : 10);
    return errno == 0 && *end == '\0';
}

/// "2.5" or "2.5%" to parts of 65536, in integers: the host's locale may use another decimal point.
bool parse_percent(const char *text, std::uint64_t *value_p)
{
    std::uint64_t thousandths = 0;
    int           digits      = 0;
    const char   *p           = text;
    for (; isdigit(static_cast<unsigned char>(*p)) && digits < 4; ++p, ++digits) {
        thousandths = thousandths * 10 + static_cast<std::uint64_t>(*p - '0');
    }
    if (digits == 0) {
        return false;
    }
    std::uint64_t scale = 1000;
    thousandths *= scale;
    if (*p == '.') {
        for (++p; isdigit(static_cast<unsigned char>(*p)) && scale > 1; ++p) {
            scale /= 10;
            thousandths += static_cast<std::uint64_t>(*p - '0') * scale;
        }
    }
    p += *p == '%';
    if (*p != '\0' || thousandths > 100 * 1000) {
        return false;
    }
    *value_p = (thousandths * 65536 + 50 * 1000) / (100 * 1000);
    return true;
}

/// "15us", "1.5ms": a number with a unit, in integers. The unit may be missing only from 0.
template <std::size_t N> bool parse_with_unit(const char *text, const unit (&units)[N], std::uint64_t *value_p)
{
    std::uint64_t whole = 0, fraction = 0, parts = 1;
    const char   *p = text;
    for (; isdigit(static_cast<unsigned char>(*p)) && whole < 1'000'000'000; ++p) {
        whole = whole * 10 + static_cast<std::uint64_t>(*p - '0');
    }
    if (p == text) {
        return false;
    }
    if (*p == '.') {
        for (++p; isdigit(static_cast<unsigned char>(*p)) && parts < 1000; ++p, parts *= 10) {
            fraction = fraction * 10 + static_cast<std::uint64_t>(*p - '0');
        }
    }
    *value_p = 0;
    if (*p == '\0') {
        return whole == 0 && fraction == 0;
    }
    for (const unit &u : units) {
        if (strcasecmp(p, u.name) == 0) {
            *value_p = whole * u.scale + fraction * u.scale / parts; // at most 10^9 * 10^12: no overflow of 2^64
            return whole < UINT64_MAX / u.scale;
        }
    }
    return false;
}

template <std::size_t N> bool parse_word(const char *text, const char *const (&words)[N], std::uint64_t *value_p)
{
    for (std::size_t i = 0; i < N; ++i) {
        if (strcasecmp(text, words[i]) == 0) {
            *value_p = i;
            return true;
        }
    }
    return false;
}

bool is_domain_name(const char *text)
{
    const std::size_t length = strlen(text);
    if (length < 1 || length > 32) {
        return false;
    }
    for (const char *p = text; *p != '\0'; ++p) {
        const auto c = static_cast<unsigned char>(*p);
        if (c > 127 || (!isalnum(c) && strchr("_.-", c) == nullptr)) {
            return false;
        }
    }
    return true;
}

bool assign(const variable &v, const char *text, settings *settings_p)
{
    std::uint64_t value = 0;
    bool          ok    = false;
    switch (v.kind) {
    case value_kind::name:
        ok = is_domain_name(text);
        if (ok) {
            settings_p->domain = text;
        }
        return ok;
    case value_kind::folder:
        // The limit leaves room for the socket names below it: sun_path has 108 bytes.
        ok = text[0] == '/' && strlen(text) <= 80;
        if (ok) {
            settings_p->registry_dir = text;
        }
        return ok;
    case value_kind::profile_name: ok = parse_word(text, profile_names, &value); break;
    case value_kind::percent: ok = parse_percent(text, &value); break;
    case value_kind::level: ok = parse_word(text, level_names, &value) || parse_number(text, &value); break;
    case value_kind::record_word: ok = parse_word(text, record_names, &value); break;
    case value_kind::overrun_word: ok = parse_word(text, overrun_names, &value); break;
    case value_kind::copy_word: ok = parse_word(text, copy_names, &value); break;
    case value_kind::number: ok = parse_number(text, &value); break;
    case value_kind::duration: ok = parse_with_unit(text, time_units, &value); break;
    case value_kind::bit_rate: ok = parse_with_unit(text, rate_units, &value); break;
    }
    if (!ok || value < v.min || value > v.max) {
        return false;
    }
    v.set(*settings_p, value);
    return true;
}

void apply_profile(settings *settings_p)
{
    device_limits &limits = settings_p->limits;
    switch (settings_p->device_profile) {
    case profile::efa0:
        limits.vendor_part_id = 0xefa0;
        limits.device_caps    = 0x04; // completion notifications
        limits.max_rdma_size  = 0;
        break;
    case profile::efa1:
        limits.vendor_part_id = 0xefa1;
        limits.device_caps    = 0x05; // and RDMA read
        break;
    case profile::efa2: break; // the defaults of device_limits
    case profile::efa3:
        limits.inline_size_ex = 80; // the part id stays: rdma-core before 53 does not know 0xefa3 and would show no device
        break;
    }
}

const variable *find_variable(const char *name, std::size_t length)
{
    for (const auto &v : variables) {
        if (strlen(v.name) == length && memcmp(v.name, name, length) == 0) {
            return &v;
        }
    }
    return nullptr;
}

/// Limits that are each in range but make no sense together. Returns the complaint, or null.
const char *contradiction(const settings &s)
{
    const device_limits &limits = s.limits;
    if ((limits.device_caps & 0x21) != 0 && limits.max_rdma_size == 0) {
        return "SOFTEFA_MAX_RDMA_SIZE=0: must be 1..1073741824 while SOFTEFA_DEVICE_CAPS has RDMA read (0x1) or write (0x20)";
    }
    if (limits.inline_size_ex != 0 && limits.inline_size_ex < limits.inline_size) {
        return "SOFTEFA_INLINE_SIZE_EX: must be 0, or SOFTEFA_INLINE_SIZE..80";
    }
    if (s.rude.delay_ns_min > s.rude.delay_ns_max) {
        return "SOFTEFA_DELAY_MIN: must be 0..SOFTEFA_DELAY";
    }
    if (s.rude.fail_status == 0 && (s.rude.fail_at != 0 || s.rude.fail_per_65536 != 0)) {
        return "SOFTEFA_FAIL_STATUS=0: must be 1..18 where SOFTEFA_FAIL_AT or SOFTEFA_FAIL_RATE is set";
    }
    if (s.rude.fail_status != 0 && s.rude.fail_at == 0 && s.rude.fail_per_65536 == 0) {
        return "SOFTEFA_FAIL_STATUS: does nothing without SOFTEFA_FAIL_AT or SOFTEFA_FAIL_RATE";
    }
    // Rings have 2^n entries, and rdma-core rounds what a program asks for up: a limit between two could never be reached.
    if (!std::has_single_bit(limits.max_cqe)) {
        return "SOFTEFA_MAX_CQE: must be a power of two";
    }
    if (!std::has_single_bit(limits.max_sq_wr)) {
        return "SOFTEFA_MAX_SQ_WR: must be a power of two";
    }
    if (!std::has_single_bit(limits.max_rq_wr)) {
        return "SOFTEFA_MAX_RQ_WR: must be a power of two";
    }
    if (s.unresponsive_ns != 0 && s.unresponsive_ns < 10'000'000) {
        return "SOFTEFA_UNRESPONSIVE_TIMEOUT: must be 0, or 10ms..3600s";
    }
    return nullptr;
}

/// $XDG_RUNTIME_DIR if it is ours alone and writable, else /tmp: a folder that others can enter would have to be guarded
/// against names that they put there first. The folder itself is made when a device is first listed.
void default_registry_dir(const char *runtime_dir, settings *settings_p)
{
    const uid_t uid = geteuid();
    char        path[128];
    struct stat st;
    if (runtime_dir != nullptr && runtime_dir[0] == '/' && strlen(runtime_dir) <= 36 && lstat(runtime_dir, &st) == 0 &&
        S_ISDIR(st.st_mode) && st.st_uid == uid && (st.st_mode & 0777) == 0700 && access(runtime_dir, W_OK) == 0) {
        snprintf(path, sizeof(path), "%s/softefa-%s", runtime_dir, settings_p->domain.c_str());
    } else {
        snprintf(path, sizeof(path), "/tmp/softefa-%u-%s", static_cast<unsigned>(uid), settings_p->domain.c_str());
    }
    settings_p->registry_dir = path;
}

struct parsed_environment {
    settings       values;
    bool           ok = false;
    char           error[error_size_max];
};

parsed_environment *parsed; // SET-1: made once, never freed, so that exit handlers may still read it
pthread_once_t      parsed_once = PTHREAD_ONCE_INIT;

void parse_once()
{
    alignas(parsed_environment) static char storage[sizeof(parsed_environment)];
    parsed     = new (storage) parsed_environment;
    parsed->ok = settings_parse(environ, &parsed->values, parsed->error, sizeof(parsed->error));
}

} // namespace

bool settings_parse(const char *const *environment, settings *settings_p, char *error, std::size_t error_size) noexcept
{
    const std::size_t prefix_length = strlen(prefix);
    const char       *runtime_dir   = nullptr;
    *settings_p                     = settings();

    for (auto p = environment; *p != nullptr; ++p) {
        if (strncmp(*p, "XDG_RUNTIME_DIR=", 16) == 0) {
            runtime_dir = *p + 16;
        } else if (strncmp(*p, "SOFTEFA_PROFILE=", 16) == 0 && assign(variables[0], *p + 16, settings_p)) {
            apply_profile(settings_p);
        }
    }

    for (auto p = environment; *p != nullptr; ++p) {
        const char *equals = strchr(*p, '=');
        if (strncmp(*p, prefix, prefix_length) != 0 || equals == nullptr) {
            continue;
        }
        const char     *name = *p + prefix_length;
        const variable *v    = find_variable(name, static_cast<std::size_t>(equals - name));
        std::size_t     used = 0;
        if (v == nullptr) {
            append(error, error_size, &used, "%.*s=%.64s: unknown variable; known are", static_cast<int>(equals - *p), *p,
                   equals + 1);
            for (const auto &known : variables) {
                append(error, error_size, &used, " %s%s", prefix, known.name);
            }
            return false;
        }
        if (!assign(*v, equals + 1, settings_p)) {
            char range[64];
            range_text(*v, range, sizeof(range));
            append(error, error_size, &used, "%s%s=%.64s: must be %s", prefix, v->name, equals + 1, range);
            return false;
        }
    }
    if (const char *complaint = contradiction(*settings_p); complaint != nullptr) {
        snprintf(error, error_size, "%s", complaint);
        return false;
    }
    if (settings_p->registry_dir.empty()) {
        default_registry_dir(runtime_dir, settings_p);
    }
    return true;
}

const settings *settings_get(const char **error_p) noexcept
{
    pthread_once(&parsed_once, parse_once);
    if (!parsed->ok) {
        if (error_p != nullptr) {
            *error_p = parsed->error;
        }
        return nullptr;
    }
    return &parsed->values;
}

unsigned settings_count() noexcept { return static_cast<unsigned>(std::size(variables)); }

void settings_row(unsigned index, const settings &values, setting_row *row_p) noexcept
{
    const variable &v = variables[index];
    *row_p            = setting_row{v.name, "", "", v.help, v.shared};
    range_text(v, row_p->range, sizeof(row_p->range));
    value_text(v, values, row_p->value, sizeof(row_p->value));
}

std::size_t settings_help(char *text, std::size_t size) noexcept
{
    const settings defaults;
    std::size_t    used = 0;
    for (unsigned i = 0; i < settings_count(); ++i) {
        setting_row row;
        settings_row(i, defaults, &row);
        append(text, size, &used, "%s%s (default %s; %s): %s\n", prefix, row.name, row.value, row.range, row.help);
    }
    return used;
}

std::size_t settings_signature(const settings &values, char *text, std::size_t size) noexcept
{
    std::size_t used = 0;
    for (const auto &v : variables) {
        // Profile, count and limits describe the devices; seed, reordering, timers and logging are each process's own.
        if (v.kind == value_kind::profile_name) {
            append(text, size, &used, "%s%s=%s\n", prefix, v.name, profile_names[v.get(values)]);
        } else if (v.shared) {
            append(text, size, &used, "%s%s=%llu\n", prefix, v.name, static_cast<unsigned long long>(v.get(values)));
        }
    }
    append(text, size, &used, "%s%u\n", protocol_name, wire::protocol_version);
    return used;
}

bool settings_signature_difference(const char *theirs, const char *ours, signature_difference *line_p) noexcept
{
    while (*theirs != '\0' && *ours != '\0') {
        *line_p = {theirs, ours, strcspn(theirs, "\n"), strcspn(ours, "\n")};
        if (line_p->theirs_size != line_p->ours_size || memcmp(theirs, ours, line_p->ours_size) != 0) {
            const bool protocol = strncmp(ours, protocol_name, sizeof(protocol_name) - 1) == 0;
            return strncmp(theirs, ours, strcspn(ours, "=")) == 0 && !protocol;
        }
        theirs += line_p->theirs_size + (theirs[line_p->theirs_size] == '\n');
        ours += line_p->ours_size + (ours[line_p->ours_size] == '\n');
    }
    return false;
}

} // namespace softefa
