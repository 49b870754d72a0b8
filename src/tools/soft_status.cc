/* `softefa status`: once, or again and again. See soft_status.h. */
#include "tools/soft_status.h"

#include "tools/soft_holders.h"
#include "tools/soft_lock.h"
#include "tools/soft_status_words.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <unistd.h>

namespace tools {

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
