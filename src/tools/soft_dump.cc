/* See soft_dump.h. */
#include "tools/soft_dump.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <ctime>

namespace tools {

namespace observe = softefa::observe;

namespace {

constexpr const char *kind_texts[] = {
#define SOFTEFA_TEXT(name, text) text,
    SOFTEFA_RECORDS(SOFTEFA_TEXT)
#undef SOFTEFA_TEXT
};
constexpr const char *states[]    = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};
constexpr const char *pdu_kinds[] = {"none", "send", "read request", "read data", "write", "ack", "pad", "read grant"};

template <size_t N> const char *word(const char *const (&words)[N], std::uint64_t index)
{
    return index < N ? words[index] : "?";
}

/// What a and b say, by kind.
std::string details(const observe::record &r)
{
    char text[160] = "";
    switch (static_cast<observe::record_kind>(r.kind)) {
    case observe::record_kind::context_open:
    case observe::record_kind::context_close: snprintf(text, sizeof(text), "handle %" PRIx64, r.a); break;
    case observe::record_kind::cq_create:
    case observe::record_kind::cq_overrun:
    case observe::record_kind::cq_destroy: snprintf(text, sizeof(text), "CQ %" PRIx64 ", %" PRIu64 " entries", r.a, r.b); break;
    case observe::record_kind::qp_create:
        snprintf(text, sizeof(text), "%s, %" PRIu64 " sends, %" PRIu64 " receive descriptors", r.a == 0 ? "SRD" : "UD", r.b & 0xffffffff, r.b >> 32);
        break;
    case observe::record_kind::qp_state: snprintf(text, sizeof(text), "%s -> %s", word(states, r.a), word(states, r.status)); break;
    case observe::record_kind::command_refused:
        if (r.a >> 16 == 0xffff) {
            snprintf(text, sizeof(text), "write %" PRIu64 ": %s", r.a & 0xffff, strerror(static_cast<int>(r.b & 0xfff)));
        } else {
            snprintf(text, sizeof(text), "ioctl %" PRIu64 "/%" PRIu64 ": %s", r.a >> 16, r.a & 0xffff, strerror(static_cast<int>(r.b & 0xfff)));
        }
        break;
    case observe::record_kind::work_error:
        snprintf(text, sizeof(text), "status %u, request %" PRIu64 ", rkey 0x%" PRIx64, r.status, r.a & 0xffff, r.b);
        break;
    case observe::record_kind::bad_doorbell: snprintf(text, sizeof(text), "%" PRIu64 " behind %" PRIu64, r.a, r.b); break;
    case observe::record_kind::async_event: snprintf(text, sizeof(text), "event %" PRIu64 ", element 0x%" PRIx64, r.a, r.b); break;
    case observe::record_kind::peer_up:
    case observe::record_kind::peer_gone:
    case observe::record_kind::peer_failed: snprintf(text, sizeof(text), "instance %016" PRIx64, r.a); break;
    case observe::record_kind::single_copy:
        snprintf(text, sizeof(text), "instance %016" PRIx64 ": %s", r.a, r.status != 0 ? "yes" : r.b != 0 ? strerror(static_cast<int>(r.b)) : "no");
        break;
    case observe::record_kind::no_owner: snprintf(text, sizeof(text), "status %u", r.status); break;
    case observe::record_kind::doorbell: snprintf(text, sizeof(text), "%" PRIu64 " work requests", r.a); break;
    case observe::record_kind::pdu_out:
    case observe::record_kind::pdu_in:
        snprintf(text, sizeof(text), "%s, %" PRIu64 " B, operation %" PRIx64, word(pdu_kinds, r.a >> 32), r.a & 0xffffffff, r.b);
        break;
    case observe::record_kind::ack_out:
    case observe::record_kind::ack_in: snprintf(text, sizeof(text), "status %u, operation %" PRIx64, r.status, r.a); break;
    case observe::record_kind::cqe: snprintf(text, sizeof(text), "%s, request %" PRIu64 ", status %u", r.b == 1 ? "send" : "receive", r.a, r.status); break;
    default: break;
    }
    return text;
}

/// ISO 8601 with microseconds, so that the dumps of two processes can be laid side by side.
std::string utc_text(std::uint64_t real_ns)
{
    const time_t seconds = static_cast<time_t>(real_ns / 1'000'000'000u);
    struct tm    parts;
    char         day[32], text[64];
    if (gmtime_r(&seconds, &parts) == nullptr || strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &parts) == 0) {
        return "at an unknown time"; // a year beyond what calendars have: spoilt by somebody
    }
    snprintf(text, sizeof(text), "%s.%06uZ", day, static_cast<unsigned>(real_ns % 1'000'000'000u / 1000u));
    return text;
}

} // namespace

std::string dump_text(const soft_process &process)
{
    const auto          records = process.records();
    const std::uint64_t head    = process.page->record_head.load();
    std::string         text;
    char                line[320];
    snprintf(line, sizeof(line), "process %d (%s), instance %016" PRIx64 ": %zu entries of %" PRIu64 "%s\n", process.pid, process.program().c_str(),
             process.instance, records.size(), head,
             process.page->record_mode == 0 ? "; the recorder is off (SOFTEFA_RECORD)" :
             process.page->record_mode == 1 ? "; messages are not recorded (SOFTEFA_RECORD=data does)" : "");
    text = line;
    text += "times are seconds after its start, " + utc_text(process.page->start_real_ns) + "\n";
    for (const auto &r : records) {
        const std::uint64_t age = r.time_ns - std::min<std::uint64_t>(r.time_ns, process.page->start_mono_ns);
        char                who[64] = "";
        if (r.qpn != 0 && r.peer_qpn != 0) {
            snprintf(who, sizeof(who), "efa_%u QPN %u <-> %u", r.device, r.qpn, r.peer_qpn);
        } else if (r.qpn != 0) {
            snprintf(who, sizeof(who), "efa_%u QPN %u", r.device, r.qpn);
        }
        snprintf(line, sizeof(line), "%10.6f  %-28s %-28s %s\n", static_cast<double>(age) / 1e9, word(kind_texts, r.kind), who, details(r).c_str());
        text += line;
    }
    return text;
}

int soft_dump(const soft_options &options)
{
    std::vector<soft_domain> domains;
    std::string              error;
    soft_options             every = options;
    if (!options.file.empty()) {
        const soft_process p = process_read_file(options.file);
        if (p.page == nullptr) {
            fprintf(stderr, "softefa: %s: %s\n", options.file.c_str(), p.trouble.c_str());
            return exit_refused;
        }
        fputs(dump_text(p).c_str(), stdout);
        return exit_ok;
    }
    every.all                      = false;
    if (!domains_of_options(every, &domains, &error)) {
        fprintf(stderr, "softefa: %s\n", error.c_str());
        return exit_refused;
    }
    for (soft_domain &domain : domains) {
        (void)domain_read(&domain, &error);
        std::string refusal; // of a process with that number in another PID namespace, say: the one that is meant may follow
        for (const soft_process &p : domain.processes) {
            if (p.pid == options.pid && p.page != nullptr) {
                fputs(dump_text(p).c_str(), stdout);
                return exit_ok;
            }
            if (p.pid == options.pid && p.state != process_state::dead) {
                refusal = p.trouble;
            }
        }
        if (!refusal.empty()) {
            fprintf(stderr, "softefa: process %d: %s\n", options.pid, refusal.c_str());
            return exit_refused;
        }
        for (const soft_failure &f : domain.failures) {
            const soft_process kept = f.pid == options.pid ? process_read_file(domain.folder + "/" + f.file) : soft_process{};
            if (kept.page == nullptr) {
                continue;
            }
            fprintf(stderr, "softefa: process %d %s; this is what it kept when something failed\n", options.pid,
                    f.elsewhere ? "is of another PID namespace" : "is gone or has no device open");
            fputs(dump_text(kept).c_str(), stdout);
            return exit_ok;
        }
        fprintf(stderr, "softefa: no process %d has a device open in domain %s; 'softefa status' lists them, --domain names another\n", options.pid,
                domain.name.c_str());
    }
    return exit_failed;
}

} // namespace tools
