/* `softefa status --json`. See soft_status.h; its fields are listed in softefa(1). */
#include "tools/soft_status.h"
#include "tools/soft_status_words.h"

#include <cinttypes>

namespace tools {

namespace dev = softefa::dev;

namespace {

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
                comma, row.device, row.qpn, word(qp_type_words, row.type), word(qp_state_words, row.state), row.send_used, row.send_size, row.recv_used,
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

} // namespace tools
