/* SOFTEFA_* variables: from the environment to settings.
 *
 * Owns: which variables count, what a profile stands for, what makes no sense together, and the words in which a wrong one is refused.
 * Refuses to know: names and ranges (settings_table.h), how a value is written (settings_text.h), and what a setting does.
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

#include "softefa/settings_table.h"
#include "softefa/settings_text.h"
#include "softefa/wire/pdu.h"

#include <bit>
#include <cstdio>
#include <cstring>
#include <new>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

namespace softefa {
namespace {

constexpr std::size_t error_size_max = 3072;
constexpr const char *prefix         = "SOFTEFA_";
constexpr char        protocol_name[] = "protocol=";

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

/// SET-2: the variable is not known (`v` is null), or its value is not one.
void complain(const setting *v, const char *entry, const char *equals, char *error, std::size_t error_size)
{
    std::size_t used = 0;
    if (v != nullptr) {
        char range[64];
        setting_range(*v, range, sizeof(range));
        text_append(error, error_size, &used, "%s%s=%.64s: must be %s", prefix, v->name, equals + 1, range);
        return;
    }
    text_append(error, error_size, &used, "%.*s=%.64s: unknown variable; known are", static_cast<int>(equals - entry), entry, equals + 1);
    for (const auto &known : settings_table()) {
        text_append(error, error_size, &used, " %s%s", prefix, known.name);
    }
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
        } else if (strncmp(*p, "SOFTEFA_PROFILE=", 16) == 0 && setting_assign(settings_table()[0], *p + 16, settings_p)) {
            apply_profile(settings_p);
        }
    }

    for (auto p = environment; *p != nullptr; ++p) {
        const char *equals = strchr(*p, '=');
        if (strncmp(*p, prefix, prefix_length) != 0 || equals == nullptr) {
            continue;
        }
        const char    *name = *p + prefix_length;
        const setting *v    = setting_find(name, static_cast<std::size_t>(equals - name));
        if (v == nullptr || !setting_assign(*v, equals + 1, settings_p)) {
            complain(v, *p, equals, error, error_size);
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

unsigned settings_count() noexcept { return static_cast<unsigned>(settings_table().size()); }

void settings_row(unsigned index, const settings &values, setting_row *row_p) noexcept
{
    const setting &v = settings_table()[index];
    *row_p            = setting_row{v.name, "", "", v.help, v.shared};
    setting_range(v, row_p->range, sizeof(row_p->range));
    setting_value(v, values, row_p->value, sizeof(row_p->value));
}

std::size_t settings_help(char *text, std::size_t size) noexcept
{
    const settings defaults;
    std::size_t    used = 0;
    for (unsigned i = 0; i < settings_count(); ++i) {
        setting_row row;
        settings_row(i, defaults, &row);
        text_append(text, size, &used, "%s%s (default %s; %s): %s\n", prefix, row.name, row.value, row.range, row.help);
    }
    return used;
}

std::size_t settings_signature(const settings &values, char *text, std::size_t size) noexcept
{
    std::size_t used = 0;
    for (const auto &v : settings_table()) {
        // Profile, count and limits describe the devices; seed, reordering, timers and logging are each process's own.
        if (v.kind == value_kind::profile_name) {
            char name[16];
            setting_value(v, values, name, sizeof(name));
            text_append(text, size, &used, "%s%s=%s\n", prefix, v.name, name);
        } else if (v.shared) {
            text_append(text, size, &used, "%s%s=%llu\n", prefix, v.name, static_cast<unsigned long long>(v.get(values)));
        }
    }
    text_append(text, size, &used, "%s%u\n", protocol_name, wire::protocol_version);
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
