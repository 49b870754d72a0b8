/* See settings_text.h. */
#include "softefa/settings_text.h"

#include <cctype>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace softefa {

void text_append(char *text, std::size_t size, std::size_t *length_p, const char *format, ...)
{
    const std::size_t at = *length_p < size ? *length_p : size;
    va_list           arguments;
    va_start(arguments, format);
    const int written = vsnprintf(text ? text + at : nullptr, text ? size - at : 0, format, arguments);
    va_end(arguments);
    if (written > 0) {
        *length_p += static_cast<std::size_t>(written);
    }
}

bool parse_number(const char *text, std::uint64_t *value_p)
{
    if (!isdigit(static_cast<unsigned char>(text[0]))) {
        return false; // strtoull would take a sign and blanks
    }
    char *end = nullptr;
    errno     = 0;
    *value_p  = strtoull(text, &end, (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) ? 16 : 10);
    return errno == 0 && *end == '\0';
}

bool parse_percent(const char *text, std::uint64_t *value_p)
{
    std::uint64_t thousandths = 0;
    int           digits      = 0;
    const char   *p           = text;
    for (; isdigit(static_cast<unsigned char>(*p)) && digits < 4; ++p, ++digits) {
        thousandths = thousandths * 10 + static_cast<std::uint64_t>(*p - '0');
    }
    if (digits == 0) {
        return false;
    }
    std::uint64_t scale = 1000;
    thousandths *= scale;
    if (*p == '.') {
        for (++p; isdigit(static_cast<unsigned char>(*p)) && scale > 1; ++p) {
            scale /= 10;
            thousandths += static_cast<std::uint64_t>(*p - '0') * scale;
        }
    }
    p += *p == '%';
    if (*p != '\0' || thousandths > 100 * 1000) {
        return false;
    }
    *value_p = (thousandths * 65536 + 50 * 1000) / (100 * 1000);
    return true;
}

bool parse_with_unit(const char *text, const text_unit *units, std::size_t count, std::uint64_t *value_p)
{
    std::uint64_t whole = 0, fraction = 0, parts = 1;
    const char   *p = text;
    for (; isdigit(static_cast<unsigned char>(*p)) && whole < 1'000'000'000; ++p) {
        whole = whole * 10 + static_cast<std::uint64_t>(*p - '0');
    }
    if (p == text) {
        return false;
    }
    if (*p == '.') {
        for (++p; isdigit(static_cast<unsigned char>(*p)) && parts < 1000; ++p, parts *= 10) {
            fraction = fraction * 10 + static_cast<std::uint64_t>(*p - '0');
        }
    }
    *value_p = 0;
    if (*p == '\0') {
        return whole == 0 && fraction == 0;
    }
    for (std::size_t i = 0; i < count; ++i) {
        const text_unit &u = units[i];
        if (strcasecmp(p, u.name) == 0) {
            *value_p = whole * u.scale + fraction * u.scale / parts; // at most 10^9 * 10^12: no overflow of 2^64
            return whole < UINT64_MAX / u.scale;
        }
    }
    return false;
}

bool is_domain_name(const char *text)
{
    const std::size_t length = strlen(text);
    if (length < 1 || length > 32) {
        return false;
    }
    for (const char *p = text; *p != '\0'; ++p) {
        const auto c = static_cast<unsigned char>(*p);
        if (c > 127 || (!isalnum(c) && strchr("_.-", c) == nullptr)) {
            return false;
        }
    }
    return true;
}

void text_of_percent(std::uint64_t per_65536, char *text, std::size_t size)
{
    const auto hundredths = static_cast<unsigned>((per_65536 * 10000 + 32768) / 65536);
    int        length     = snprintf(text, size, "%u.%02u", hundredths / 100, hundredths % 100);
    while (length > 0 && (text[length - 1] == '0' || text[length - 1] == '.')) {
        const bool point = text[length - 1] == '.';
        text[--length]   = '\0';
        if (point) {
            break;
        }
    }
}

void text_with_unit(std::uint64_t value, const text_unit *units, std::size_t count, char *text, std::size_t size)
{
    const text_unit *best = &units[0];
    for (std::size_t i = 0; i < count; ++i) {
        best = value % units[i].scale == 0 ? &units[i] : best;
    }
    if (value == 0) {
        snprintf(text, size, "0");
    } else {
        snprintf(text, size, "%llu%s", static_cast<unsigned long long>(value / best->scale), best->name);
    }
}

} // namespace softefa
