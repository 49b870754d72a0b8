/* `softefa dump`: what one process recorded last.
 *
 * Owns: putting the recorder's entries into words (softefa/dev/record.h says what is in them).
 */
#pragma once

#include "tools/soft_domain.h"
#include "tools/soft_options.h"

namespace tools {

/// Returns the exit code: 1 if there is no such process.
int soft_dump(const soft_options &options);

/// The entries, oldest first, one a line, with times since the process began to publish.
std::string dump_text(const soft_process &process);

} // namespace tools
