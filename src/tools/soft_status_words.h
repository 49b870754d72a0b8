/* What `softefa status` says in words and in JSON alike: names, sums, and a formatted line. Shared by soft_status*.cc. */
#pragma once

#include "tools/soft_domain.h"

#include <map>
#include <string>

namespace tools {

constexpr const char *qp_type_words[]  = {"SRD", "UD"};
constexpr const char *qp_state_words[] = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};

/// Of a published number, which may be any.
template <size_t N> const char *word(const char *const (&words)[N], unsigned index)
{
    return index < N ? words[index] : "?";
}

/// Appends at most 511 characters.
__attribute__((format(printf, 2, 3))) void add(std::string *text_p, const char *format, ...);

using counter_values = std::uint64_t[softefa::dev::device_counter_count];
void add_counters(const softefa::dev::device_counters &c, counter_values &sum);

std::map<std::uint64_t, const soft_process *> index_of(const soft_domain &domain);
/// Processes that have not ended, or may not have.
unsigned living(const soft_domain &domain);
/// CLOCK_MONOTONIC.
std::uint64_t now_ns();

} // namespace tools
