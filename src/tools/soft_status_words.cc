/* See soft_status_words.h. */
#include "tools/soft_status_words.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <ctime>

namespace tools {

namespace dev = softefa::dev;

void add(std::string *text_p, const char *format, ...)
{
    char    line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    *text_p += line;
}

void add_counters(const dev::device_counters &c, counter_values &sum)
{
    std::uint64_t cells[dev::device_counter_count];
    static_assert(sizeof(cells) == sizeof(c));
    memcpy(cells, &c, sizeof(cells));
    for (unsigned i = 0; i < dev::device_counter_count; ++i) {
        sum[i] += cells[i];
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

std::uint64_t now_ns()
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

} // namespace tools
