/* See soft_status.h. */
#include "tools/soft_status.h"

#include "tools/soft_holders.h"
#include "tools/soft_lock.h"

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <map>
#include <unistd.h>

namespace tools {

namespace observe = softefa::observe;
namespace dev     = softefa::dev;

namespace {

constexpr const char *qp_types[]  = {"SRD", "UD"};
constexpr const char *qp_states[] = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};

template <size_t N> const char *word(const char *const (&words)[N], unsigned index)
{
    return index < N ? words[index] : "?";
}

__attribute__((format(printf, 2, 3))) void add(std::string *text_p, const char *format, ...)
{
    char    line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    *text_p += line;
}

using counter_values = std::uint64_t[dev::device_counter_count];

void add_counters(const dev::device_counters &c, counter_values &sum)
{
    std::uint64_t cells[dev::device_counter_count];
    static_assert(sizeof(cells) == sizeof(c));
    memcpy(cells, &c, sizeof(cells));
    for (unsigned i = 0; i < dev::device_counter_count; ++i) {
        sum[i] += cells[i];
    }
}

/// Of all devices of one process.
dev::device_counters sum_of(const soft_process &p)
{
    counter_values sum = {};
    for (unsigned d = 0; d < p.device_count(); ++d) {
        add_counters(p.page->counters[d], sum);
    }
    dev::device_counters result;
    memcpy(&result, sum, sizeof(result));
    return result;
}

std::uint64_t drops_of(const dev::device_counters &c)
{
    counter_values cells = {};
    std::uint64_t  drops = 0;
    add_counters(c, cells);
    for (unsigned i = 0; i < dev::device_counter_count; ++i) {
        if (strncmp(dev::device_counter_texts[i].name, "drop_", 5) == 0) {
            drops += cells[i];
        }
    }
    return drops;
}

std::uint64_t now_ns()
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

std::string in_units(double value)
{
    const char *const units[] = {"", "k", "M", "G", "T", "P"};
    unsigned          unit    = 0;
    for (; value >= 1000 && unit + 1 < sizeof(units) / sizeof(units[0]); ++unit) {
        value /= 1000;
    }
    std::string text;
    add(&text, unit == 0 || value >= 100 ? "%.0f%s" : "%.1f%s", value, units[unit]);
    return text;
}

unsigned live_qps(const soft_process &p)
{
    unsigned count = 0;
    for (const auto &row : p.page->qps) {
        count += row.live != 0;
    }
    return count;
}

unsigned live_peers(const soft_process &p)
{
    unsigned count = 0;
    for (const auto &row : p.page->links) {
        count += row.instance != 0 && row.is_self == 0;
    }
    return count;
}

void processes_text(const soft_domain &domain, std::string *text_p)
{
    add(text_p, "  %-8s %-16s %7s %4s %5s %9s %9s %9s %9s %7s %7s\n", "PID", "PROGRAM", "AGE s", "QPs", "PEERS", "SENT", "RECEIVED", "READ B",
        "WRITTEN B", "ERRORS", "DROPS");
    for (const auto &p : domain.processes) {
        if (p.page == nullptr) {
            if (p.state != process_state::dead) {
                add(text_p, "  %-8d ?                %s\n", p.pid, p.trouble.c_str());
            }
            continue;
        }
        const dev::device_counters c   = sum_of(p);
        const std::uint64_t        now = now_ns(), age = now > p.page->start_mono_ns ? now - p.page->start_mono_ns : 0;
        add(text_p, "  %-8d %-16.16s %7" PRIu64 " %4u %5u %9s %9s %9s %9s %7s %7s%s\n", p.pid, p.program().c_str(), age / 1'000'000'000u,
            live_qps(p), live_peers(p), in_units(static_cast<double>(c.tx_messages)).c_str(), in_units(static_cast<double>(c.rx_messages)).c_str(),
            in_units(static_cast<double>(c.read_bytes)).c_str(), in_units(static_cast<double>(c.write_bytes)).c_str(),
            in_units(static_cast<double>(c.completion_errors)).c_str(), in_units(static_cast<double>(drops_of(c))).c_str(),
            p.stopped ? " (stopped)" : p.torn ? " (was changing)" : "");
    }
}

void rates_text(const soft_domain &now, const soft_domain &before, double seconds, std::string *text_p)
{
    for (const auto &p : now.processes) {
        for (const auto &q : before.processes) {
            if (p.page == nullptr || q.page == nullptr || p.instance != q.instance || seconds <= 0) {
                continue;
            }
            const dev::device_counters a = sum_of(q), b = sum_of(p);
            add(text_p, "  %-8d per second: %s messages and %s B out, %s messages and %s B in, %s completions\n", p.pid,
                in_units(static_cast<double>(b.tx_messages - a.tx_messages) / seconds).c_str(),
                in_units(static_cast<double>(b.tx_packet_bytes - a.tx_packet_bytes) / seconds).c_str(),
                in_units(static_cast<double>(b.rx_messages - a.rx_messages) / seconds).c_str(),
                in_units(static_cast<double>(b.rx_packet_bytes - a.rx_packet_bytes) / seconds).c_str(),
                in_units(static_cast<double>(b.completions - a.completions) / seconds).c_str());
        }
    }
}

/// What the domain's processes counted together, device by device; zeros are left out.
void counters_text(const soft_domain &domain, std::string *text_p)
{
    unsigned devices = 0;
    for (const auto &p : domain.processes) {
        devices = std::max(devices, p.device_count());
    }
    for (unsigned d = 0; d < devices; ++d) {
        counter_values sum = {};
        for (const auto &p : domain.processes) {
            if (p.page != nullptr && d < p.device_count()) {
                add_counters(p.page->counters[d], sum);
            }
        }
        add(text_p, "  device efa_%u, all processes%s\n", d, d == 0 ? " (living ones; the sysfs tree has those of the past too)" : "");
        for (unsigned i = 0; i < dev::device_counter_count; ++i) {
            if (sum[i] != 0) {
                add(text_p, "    %-20s %16" PRIu64 "  %s\n", dev::device_counter_texts[i].name, sum[i], dev::device_counter_texts[i].meaning);
            }
        }
    }
}

void qps_text(const soft_process &p, std::string *text_p)
{
    for (const auto &row : p.page->qps) {
        if (row.live != 0) {
            add(text_p, "  %-8d efa_%-2u QPN %-6u %-3s %-5s send %u of %u, receive %u of %u\n", p.pid, row.device, row.qpn, word(qp_types, row.type),
                word(qp_states, row.state), row.send_used, row.send_size, row.recv_used, row.recv_size);
        }
    }
}

void peers_text(const soft_process &p, const std::map<std::uint64_t, const soft_process *> &by_instance, std::string *text_p)
{
    for (const auto &row : p.page->links) {
        if (row.instance == 0 || row.is_self != 0) {
            continue;
        }
        const auto found = by_instance.find(row.instance);
        add(text_p, "  %-8d -> %-8s %s, %u waiting, %u reads out, %u reads to serve\n", p.pid,
            found != by_instance.end() ? std::to_string(found->second->pid).c_str() : "?", row.failed != 0 ? "CUT OFF" : "up", row.waiting, row.reads_out,
            row.reads_served);
    }
    if (p.page->parked != 0) {
        add(text_p, "  %-8d %u work requests wait for a process that is not there or does not answer\n", p.pid, static_cast<unsigned>(p.page->parked));
    }
    if (p.page->peers_failed != 0) {
        add(text_p, "  %-8d cut off %" PRIu64 " peers; the last one: %s\n", p.pid, p.page->peers_failed, p.last_failure().c_str());
    }
}

std::map<std::uint64_t, const soft_process *> index_of(const soft_domain &domain)
{
    std::map<std::uint64_t, const soft_process *> result;
    for (const auto &p : domain.processes) {
        result[p.instance] = &p;
    }
    return result;
}

unsigned living(const soft_domain &domain)
{
    unsigned count = 0;
    for (const auto &p : domain.processes) {
        count += p.state != process_state::dead;
    }
    return count;
}

std::string json_text(const std::string &text)
{
    std::string quoted = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            quoted += '\\';
        }
        if (static_cast<unsigned char>(c) < ' ') {
            add(&quoted, "\\u%04x", static_cast<unsigned>(c));
        } else {
            quoted += c;
        }
    }
    return quoted + '"';
}

void json_counters(const dev::device_counters &c, std::string *text_p)
{
    counter_values cells = {};
    add_counters(c, cells);
    *text_p += '{';
    for (unsigned i = 0; i < dev::device_counter_count; ++i) {
        add(text_p, "%s\"%s\":%" PRIu64, i != 0 ? "," : "", dev::device_counter_texts[i].name, cells[i]);
    }
    *text_p += '}';
}

void json_tables(const soft_process &p, const std::map<std::uint64_t, const soft_process *> &by_instance, std::string *text_p)
{
    const char *comma = "";
    *text_p += ",\"qps\":[";
    for (const auto &row : p.page->qps) {
        if (row.live != 0) {
            add(text_p,
                "%s{\"device\":\"efa_%u\",\"qpn\":%u,\"type\":\"%s\",\"state\":\"%s\",\"send_used\":%u,\"send_size\":%u,\"recv_used\":%u,"
                "\"recv_size\":%u}",
                comma, row.device, row.qpn, word(qp_types, row.type), word(qp_states, row.state), row.send_used, row.send_size, row.recv_used,
                row.recv_size);
            comma = ",";
        }
    }
    comma = "";
    *text_p += "],\"peers\":[";
    for (const auto &row : p.page->links) {
        if (row.instance != 0 && row.is_self == 0) {
            const auto found = by_instance.find(row.instance);
            add(text_p, "%s{\"pid\":%d,\"instance\":\"%016" PRIx64 "\",\"state\":\"%s\",\"waiting\":%u,\"reads_out\":%u,\"reads_to_serve\":%u}",
                comma, found != by_instance.end() ? found->second->pid : 0, row.instance, row.failed != 0 ? "cut off" : "up", row.waiting,
                row.reads_out, row.reads_served);
            comma = ",";
        }
    }
    add(text_p, "],\"peers_connected\":%" PRIu64 ",\"peers_gone\":%" PRIu64 ",\"peers_failed\":%" PRIu64 ",\"last_failure\":%s",
        p.page->peers_connected, p.page->peers_gone, p.page->peers_failed, json_text(p.last_failure()).c_str());
}

} // namespace

std::string status_text(const soft_domain &now, const soft_domain *before, double seconds)
{
    std::string    text;
    const unsigned count = living(now);
    std::string    what;
    for (const auto &p : now.processes) {
        if (p.page != nullptr && what.empty()) {
            add(&what, ": %s, %u device%s", p.profile().c_str(), p.device_count(), p.device_count() == 1 ? "" : "s");
        }
    }
    add(&text, "domain %s%s, %u process%s (%s)\n", now.name.c_str(), what.c_str(), count, count == 1 ? "" : "es", now.folder.c_str());
    const unsigned dead = static_cast<unsigned>(now.processes.size()) - count;
    if (dead != 0) {
        add(&text, "  %u process%s ended without closing the device; 'softefa clean' removes what they left\n", dead, dead == 1 ? "" : "es");
    }
    for (const soft_failure &f : now.failures) {
        const std::string which = f.elsewhere ? now.folder + "/" + f.file : std::to_string(f.pid); // that number may be another process here
        add(&text, "  process %d kept what it had recorded when something failed: 'softefa dump %s'; 'softefa clean' removes it\n", f.pid, which.c_str());
    }
    if (count == 0) {
        for (const auto &[pid, program] : domain_is_held(now) ? domain_holders(now) : std::vector<domain_holder>()) {
            add(&text, "  process %d (%s) has no device open, and keeps the domain: it was forked by one that had, or is about to open one\n", pid,
                program.c_str());
        }
        return text;
    }
    processes_text(now, &text);
    if (before != nullptr) {
        rates_text(now, *before, seconds, &text);
    }
    const auto by_instance = index_of(now);
    for (const auto &p : now.processes) {
        if (p.page != nullptr) {
            qps_text(p, &text);
        }
    }
    for (const auto &p : now.processes) {
        if (p.page != nullptr) {
            peers_text(p, by_instance, &text);
        }
    }
    counters_text(now, &text);
    return text;
}

std::string status_json(const soft_domain &now)
{
    constexpr const char *states[] = {"alive", "dead", "elsewhere", "unreadable"};
    const auto            by_instance = index_of(now);
    std::string           text = "{\"domain\":" + json_text(now.name) + ",\"folder\":" + json_text(now.folder) + ",\"processes\":[";
    const char           *comma = "";
    for (const auto &p : now.processes) {
        add(&text, "%s{\"pid\":%d,\"instance\":\"%016" PRIx64 "\",\"state\":\"%s\"", comma, p.pid, p.instance,
            states[static_cast<unsigned>(p.state)]);
        comma = ",";
        if (p.page != nullptr) {
            text += ",\"program\":" + json_text(p.program()) + ",\"profile\":" + json_text(p.profile());
            add(&text, ",\"stopped\":%s,\"torn\":%s,\"start_ns\":%" PRIu64 ",\"contexts\":%u,\"parked\":%u,\"helper_asleep\":%s,\"devices\":[",
                p.stopped ? "true" : "false", p.torn ? "true" : "false", p.page->start_real_ns, p.page->contexts, p.page->parked, p.page->helper_asleep != 0 ? "true" : "false");
            for (unsigned d = 0; d < p.device_count(); ++d) {
                add(&text, "%s{\"name\":\"efa_%u\",\"counters\":", d != 0 ? "," : "", d);
                json_counters(p.page->counters[d], &text);
                text += '}';
            }
            text += ']';
            json_tables(p, by_instance, &text);
        } else if (!p.trouble.empty()) {
            text += ",\"trouble\":" + json_text(p.trouble);
        }
        text += '}';
    }
    text += "],\"failures\":[";
    for (size_t i = 0; i < now.failures.size(); ++i) {
        add(&text, "%s%d", i != 0 ? "," : "", now.failures[i].pid);
    }
    return text + "]}";
}

int soft_status(const soft_options &options)
{
    std::vector<soft_domain> before;
    std::uint64_t            before_ns = 0;
    for (;;) {
        std::vector<soft_domain> domains;
        std::string              error, text;
        unsigned                 count = 0, empty = 0;
        bool                     refused = false;
        if (!domains_of_options(options, &domains, &error)) {
            fprintf(stderr, "softefa: %s\n", error.c_str());
            return exit_refused;
        }
        const std::uint64_t at = now_ns();
        for (size_t i = 0; i < domains.size(); ++i) {
            if (!domain_read(&domains[i], &error) && errno != ENOENT) {
                fprintf(stderr, "softefa: %s\n", error.c_str());
                if (!options.all) {
                    return exit_refused;
                }
                refused = true; // by one folder, which may be anything with such a name: the others are shown
                continue;
            }
            count += living(domains[i]);
            if (options.all && !options.json && domains[i].processes.empty() && domains[i].failures.empty() && !domain_is_held(domains[i])) {
                ++empty; // folders stay when their last process ends well; a hundred of them would drown the living
                continue;
            }
            const auto same = std::find_if(before.begin(), before.end(), [&](const soft_domain &d) { return d.folder == domains[i].folder; });
            text += options.json ? status_json(domains[i]) + "\n" :
                                   status_text(domains[i], same != before.end() ? &*same : nullptr, static_cast<double>(at - before_ns) / 1e9);
        }
        if (domains.empty() && !options.json) {
            text = "no domain of this user\n";
        } else if (empty != 0) {
            add(&text, "%u domain%s of this user without a process; 'softefa clean --all' removes what they left\n", empty, empty == 1 ? "" : "s");
        }
        if (options.watch_ms != 0 && !options.json && isatty(STDOUT_FILENO)) {
            fputs("\033[H\033[J", stdout);
        }
        fputs(text.c_str(), stdout);
        if (fflush(stdout) != 0) {
            return exit_failed; // nobody reads it any more
        }
        if (options.watch_ms == 0) {
            return count != 0 ? exit_ok : refused ? exit_refused : exit_failed;
        }
        before    = std::move(domains);
        before_ns = at;
        const timespec pause{static_cast<time_t>(options.watch_ms / 1000), static_cast<long>(options.watch_ms % 1000) * 1'000'000};
        nanosleep(&pause, nullptr);
    }
}

} // namespace tools
