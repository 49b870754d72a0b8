/* See settings_table.h. */
#include "softefa/settings_table.h"

#include "softefa/settings_text.h"

#include <cstdio>
#include <cstring>
#include <type_traits>

namespace softefa {
namespace {

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

constexpr setting table[] = {
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

} // namespace

std::span<const setting> settings_table() noexcept { return table; }

const setting *setting_find(const char *name, std::size_t length)
{
    for (const auto &v : table) {
        if (strlen(v.name) == length && memcmp(v.name, name, length) == 0) {
            return &v;
        }
    }
    return nullptr;
}

bool setting_assign(const setting &v, const char *text, settings *settings_p)
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

void setting_range(const setting &v, char *text, std::size_t size)
{
    if (v.range != nullptr) {
        snprintf(text, size, "%s", v.range);
    } else {
        snprintf(text, size, "%llu..%llu", static_cast<unsigned long long>(v.min), static_cast<unsigned long long>(v.max));
    }
}

void setting_value(const setting &v, const settings &values, char *text, std::size_t size)
{
    switch (v.kind) {
    case value_kind::profile_name: snprintf(text, size, "%s", profile_names[v.get(values)]); break;
    case value_kind::name: snprintf(text, size, "%s", values.domain.c_str()); break;
    case value_kind::folder: snprintf(text, size, "%s", values.registry_dir.empty() ? "chosen" : values.registry_dir.c_str()); break;
    case value_kind::level: snprintf(text, size, "%s", level_names[v.get(values)]); break;
    case value_kind::record_word: snprintf(text, size, "%s", record_names[v.get(values)]); break;
    case value_kind::overrun_word: snprintf(text, size, "%s", overrun_names[v.get(values)]); break;
    case value_kind::copy_word: snprintf(text, size, "%s", copy_names[v.get(values)]); break;
    case value_kind::percent: text_of_percent(v.get(values), text, size); break;
    case value_kind::number:
        snprintf(text, size, v.min >= 0xefa0 || v.get == get_limit<&device_limits::device_caps> || v.max == 0xffffffff ? "0x%llx" : "%llu",
                 static_cast<unsigned long long>(v.get(values)));
        break;
    case value_kind::duration: text_with_unit(v.get(values), time_units, text, size); break;
    case value_kind::bit_rate: text_with_unit(v.get(values), rate_units, text, size); break;
    }
}

} // namespace softefa
