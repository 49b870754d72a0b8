/* The table of settings: each with its name, its range, its place in `settings`, and its meaning in words.
 *
 * Owns: which settings there are, and how the text of each becomes its value and back. A new setting is a row here and a member in settings.h.
 * Refuses to know where texts come from, and which values make no sense together (settings.cc).
 */
#pragma once

#include "softefa/settings.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace softefa {

/// How the text of a variable becomes a value.
enum class value_kind : std::uint8_t {
    profile_name, ///< efa0..efa3
    name,         ///< letters, digits, '_', '.', '-'
    folder,       ///< an absolute path
    percent,      ///< 0..100 with a fraction, kept as parts of 65536
    level,        ///< a word or a number
    record_word,  ///< what the flight recorder keeps
    overrun_word, ///< what happens to a completion that finds its CQ full
    copy_word,    ///< whether a peer's memory is read
    number,       ///< decimal, or hexadecimal with 0x
    duration,     ///< number with ns, us, ms or s, kept as nanoseconds
    bit_rate,     ///< bits per second with k, m, g or t
};

struct setting {
    const char   *name;  ///< without SOFTEFA_
    value_kind    kind;
    std::uint64_t min;   ///< of number
    std::uint64_t max;   ///< of number
    const char   *range; ///< shown to the user; null: "min..max"
    void (*set)(settings &, std::uint64_t);
    std::uint64_t (*get)(const settings &);
    bool          shared; ///< the first process of a domain fixes it for all
    const char   *help;
};

/// In the order in which they are shown; the profile is the first one.
std::span<const setting> settings_table() noexcept;
/// By its name without SOFTEFA_; null: there is none.
const setting *setting_find(const char *name, std::size_t length);
/// False: the text is not a value of it, and nothing was changed.
bool setting_assign(const setting &v, const char *text, settings *settings_p);
/// What is right, in words.
void setting_range(const setting &v, char *text, std::size_t size);
/// The value that it has in `values`.
void setting_value(const setting &v, const settings &values, char *text, std::size_t size);

} // namespace softefa
