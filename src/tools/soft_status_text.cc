/* `softefa status` in words. See soft_status.h. */
#include "tools/soft_holders.h"
#include "tools/soft_lock.h"
#include "tools/soft_status.h"
#include "tools/soft_status_words.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>
#include <unistd.h>

namespace tools {

namespace dev = softefa::dev;

namespace {

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
            add(text_p, "  %-8d efa_%-2u QPN %-6u %-3s %-5s send %u of %u, receive %u of %u\n", p.pid, row.device, row.qpn, word(qp_type_words, row.type),
                word(qp_state_words, row.state), row.send_used, row.send_size, row.recv_used, row.recv_size);
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

/// What a command wants beside it to mean this domain, whatever the environment of who types it says.
std::string option_for(const soft_domain &domain)
{
    const bool by_name = domain.folder.ends_with("/softefa-" + domain.name) ||
                         domain.folder.ends_with("/softefa-" + std::to_string(geteuid()) + "-" + domain.name);
    return by_name ? " --domain " + domain.name : " --registry-dir " + domain.folder;
}

} // namespace

std::string status_text(const soft_domain &now, const soft_domain *before, double seconds)
{
    std::string    text;
    const unsigned count = living(now);
    const auto     option = option_for(now);
    std::string    what;
    for (const auto &p : now.processes) {
        if (p.page != nullptr && what.empty()) {
            add(&what, ": %s, %u device%s", p.profile().c_str(), p.device_count(), p.device_count() == 1 ? "" : "s");
        }
    }
    add(&text, "domain %s%s, %u process%s (%s)\n", now.name.c_str(), what.c_str(), count, count == 1 ? "" : "es", now.folder.c_str());
    const unsigned dead = static_cast<unsigned>(now.processes.size()) - count;
    if (dead != 0) {
        add(&text, "  %u process%s ended without closing the device; 'softefa clean%s' removes what they left\n", dead, dead == 1 ? "" : "es", option.c_str());
    }
    for (const soft_failure &f : now.failures) {
        const std::string which = f.elsewhere ? now.folder + "/" + f.file : std::to_string(f.pid) + option; // that number may be another process here
        add(&text, "  process %d kept what it had recorded when something failed: 'softefa dump %s'; 'softefa clean%s' removes it\n", f.pid, which.c_str(), option.c_str());
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

} // namespace tools
