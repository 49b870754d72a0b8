/* Values as a person writes them: numbers, shares, times, rates, words.
 *
 * Owns: reading such a text and writing it, exactly and in integers: the host's locale may use another decimal point. Every reader takes the whole text
 * or refuses it. Refuses to know which setting a value is of, and its range.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <strings.h>

namespace softefa {

struct text_unit {
    const char   *name;
    std::uint64_t scale;
};
inline constexpr text_unit time_units[] = {{"ns", 1}, {"us", 1000}, {"ms", 1'000'000}, {"s", 1'000'000'000}};
inline constexpr text_unit rate_units[] = {{"k", 1000}, {"m", 1'000'000}, {"g", 1'000'000'000}, {"t", 1'000'000'000'000}};

/// vsnprintf that appends at *length_p and never writes beyond `size`.
__attribute__((format(printf, 4, 5))) void text_append(char *text, std::size_t size, std::size_t *length_p, const char *format, ...);

/// Decimal, or hexadecimal with 0x; no sign, no blanks.
bool parse_number(const char *text, std::uint64_t *value_p);
/// "2.5" or "2.5%" to parts of 65536.
bool parse_percent(const char *text, std::uint64_t *value_p);
/// "15us", "1.5ms": a number with a unit. The unit may be missing only from 0.
bool parse_with_unit(const char *text, const text_unit *units, std::size_t count, std::uint64_t *value_p);
/// 1 to 32 letters, digits, '_', '.', '-'.
bool is_domain_name(const char *text);

/// Per cent with two digits behind the point, as few as it takes.
void text_of_percent(std::uint64_t per_65536, char *text, std::size_t size);
/// The largest unit that leaves no fraction; 0 without one.
void text_with_unit(std::uint64_t value, const text_unit *units, std::size_t count, char *text, std::size_t size);

template <std::size_t N> bool parse_with_unit(const char *text, const text_unit (&units)[N], std::uint64_t *value_p)
{
    return parse_with_unit(text, units, N, value_p);
}
template <std::size_t N> void text_with_unit(std::uint64_t value, const text_unit (&units)[N], char *text, std::size_t size)
{
    text_with_unit(value, units, N, text, size);
}

/// The index of a word, in capitals or not.
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

} // namespace softefa
