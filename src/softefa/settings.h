/* What a user may set, after parsing: plain values, no environment.
 *
 * Owns: the settings of one process, and their defaults (settings.cc parses SOFTEFA_* once, refuses what it does not know
 * and says so in one line; ranges are in settings_table.h). The first process of a domain fixes what concerns all of them (profile, devices);
 * later processes with a different wish are refused.
 */
#pragma once

#include "base/status.h"

#include <cstddef>
#include <cstdint>
#include <string>

namespace softefa {

/// Feature sets, not claims about an instance type.
enum class profile : std::uint8_t { efa0, efa1, efa2, efa3 };

/// Numbers of one emulated device. Every one can be overridden by SOFTEFA_<NAME>.
struct device_limits {
    std::uint32_t max_qp              = 256;
    std::uint32_t max_cq              = 512;
    std::uint32_t max_cqe             = 32768;
    std::uint32_t max_mr              = 262144;
    std::uint32_t max_pd              = 256;
    std::uint32_t max_ah              = 1024;
    std::uint32_t max_sq_wr           = 4096;
    std::uint32_t max_rq_wr           = 32768;
    std::uint16_t max_sq_sge          = 2;
    std::uint16_t max_rq_sge          = 3;
    std::uint16_t max_rdma_sge        = 1;
    std::uint16_t inline_size         = 32;
    std::uint16_t inline_size_ex      = 0;          ///< wide-WQE inline; 0 = same as inline_size
    std::uint32_t max_llq_size        = 4096 * 64;  ///< bytes
    std::uint32_t mtu                 = 8928;       ///< largest SEND, bytes
    std::uint32_t max_rdma_size       = 1u << 30;   ///< bytes; 0 = no RDMA
    std::uint16_t vendor_part_id      = 0xefa2;
    std::uint32_t device_caps         = 0x7f;       ///< capability bits as in docs/device-abi.md, section 4
};

/// Trouble on request (dev/rude.h). All off by default.
struct rude_settings {
    std::uint32_t devices           = 0xffffffff; ///< bit mask: devices of this process that are concerned
    std::uint32_t qpn               = 0;          ///< the one remote QPN that is concerned; 0 = every one
    std::uint32_t peers_per_65536   = 65536;      ///< share of remote QPs that are concerned, chosen by the seed
    std::uint64_t delay_ns_max      = 0;          ///< longest delay of a work request; 0 = off
    std::uint64_t delay_ns_min      = 0;
    std::uint32_t delay_per_65536   = 65536;      ///< share of work requests that are delayed
    std::uint32_t rnr_every         = 0;          ///< every so many-th message that arrives is answered "not ready"; 0 = off
    std::uint64_t rnr_for_ns        = 0;          ///< each QP is "not ready" for so long from its first message
    std::uint32_t fail_status       = 0;          ///< completion status that is made up; 0 = off
    std::uint64_t fail_at           = 0;          ///< for this work request, counted from 1; 0 = by rate
    std::uint32_t fail_per_65536    = 0;
    std::uint64_t stop_at           = 0;          ///< the process stops itself with this work request; 0 = off
    std::uint64_t kill_at           = 0;          ///< the same, SIGKILL
};

struct settings {
    profile       device_profile      = profile::efa2;
    std::uint32_t device_count        = 1;          ///< 1..32
    std::string   domain              = "default";  ///< [A-Za-z0-9_.-]{1,32}
    std::string   registry_dir;                     ///< private folder of this user and domain, 0700
    std::uint64_t seed                = 1;          ///< of everything random that a user may want to replay
    std::uint32_t reorder_per_65536   = 1638;       ///< chance that two queued messages swap; 0 = off. Default 2.5 %
    std::uint32_t rnr_timer_us        = 100;        ///< pause before an RNR retry
    std::uint8_t  reuse_qpn           = 0;          ///< 1: the lowest free QPN, so that a number comes back at once
    std::uint32_t log_level           = 1;          ///< 0 none, 1 errors, 2 warnings, 3 info, 4 debug
    std::uint64_t latency_ns          = 0;          ///< one way, of the modelled wire; 0 = as fast as memory is
    std::uint64_t bandwidth_bps       = 0;          ///< bits per second and direction of a device; 0 = no limit
    std::uint64_t unresponsive_ns     = 0;          ///< a peer that takes nothing for so long is given up; 0 = it is waited for
    std::uint32_t record_mode         = 1;          ///< flight recorder: 0 off, 1 control events, 2 also every message
    std::uint32_t record_count        = 4096;       ///< entries that it keeps
    std::uint32_t dmabuf              = 0;          ///< 1: any descriptor that can be mapped is taken for a dmabuf
    std::uint32_t cq_overrun          = 0;          ///< a completion that finds its CQ full: 0 waits, 1 is lost with an error event
    std::uint8_t  direct              = 0;          ///< 1: programs may ask for the addresses of rings and doorbells
    std::uint64_t direct_nap_ns       = 20'000;     ///< longest pause between two looks at doorbells of such programs
    std::uint64_t snapshot_ns         = 1'000'000'000; ///< pause between two snapshots of counters that change; no variable sets it
    std::uint8_t  single_copy         = 2;          ///< large RDMA by one copy from the other process: 0 never, 1 any size, 2 from the size where it gains
    device_limits limits;
    rude_settings rude;
};

/// Parses the environment once. On failure the message is one line that names the variable, the value and the range.
/// Never allocates after the first call; thread-safe.
const settings *settings_get(const char **error_p) noexcept;

/// The same, of an environment that is passed in (NULL-terminated "NAME=value" strings). False: *error has the line.
bool settings_parse(const char *const *environment, settings *settings_p, char *error, std::size_t error_size) noexcept;

/// One setting as a person reads it.
struct setting_row {
    const char *name = nullptr; ///< without SOFTEFA_
    char        value[96];      ///< in the settings that were asked for
    char        range[64];      ///< in words
    const char *help = nullptr;
    bool        shared = false; ///< the first process of a domain fixes it for all
};
unsigned settings_count() noexcept;
/// Row `index`, with the value that it has in `values`.
void settings_row(unsigned index, const settings &values, setting_row *row_p) noexcept;

/// One line of text for each variable: name, default, range, meaning. Returns the length needed, like snprintf.
std::size_t settings_help(char *text, std::size_t size) noexcept;

/// What the first process of a domain fixes for all, as canonical text; the last line is the language that processes speak to each other.
/// Returns the length needed, like snprintf.
std::size_t settings_signature(const settings &values, char *text, std::size_t size) noexcept;
/// The first line in which two signatures differ.
struct signature_difference {
    const char *theirs = nullptr, *ours = nullptr; ///< no terminator
    std::size_t theirs_size = 0, ours_size = 0;
};
/// False: one side has a line that the other one does not know, or speaks another language.
bool settings_signature_difference(const char *theirs, const char *ours, signature_difference *line_p) noexcept;

} // namespace softefa

/// For tools: 0 if the SOFTEFA_* variables are in order, else 2 (the tool's exit code) and *error_p names the fault.
extern "C" __attribute__((visibility("default"))) int softefa_settings_check(const char **error_p) noexcept;
