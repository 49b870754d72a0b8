/* `softefa status`: what runs in a domain, from what its processes publish.
 *
 * Owns: putting it into words and into JSON. Pure but for the loop of --watch; soft_domain.h reads.
 */
#pragma once

#include "tools/soft_domain.h"
#include "tools/soft_options.h"

namespace tools {

/// Returns the exit code: 0 if anybody is there, 1 if nobody is, 2 if nothing could be looked at.
int soft_status(const soft_options &options);

/// One domain. 'before' (may be null) and 'seconds' since then give rates.
std::string status_text(const soft_domain &now, const soft_domain *before, double seconds);
/// One object, on one line.
std::string status_json(const soft_domain &now);

} // namespace tools
