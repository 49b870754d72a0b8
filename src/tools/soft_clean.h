/* `softefa clean`: removes what dead processes left in a domain's folder.
 *
 * Owns: what in the folder is whose. Names that are not ours are left alone, so that a folder which a user chose keeps the rest.
 *
 *   CLN-1  while a process of the domain lives, only what is known to be of dead ones goes.
 *   CLN-2  the whole domain goes only under its exclusive lock, which no living member lets anybody have.
 */
#pragma once

#include "tools/soft_domain.h"
#include "tools/soft_options.h"

namespace tools {

/// Returns the exit code.
int soft_clean(const soft_options &options);

/// One domain: the names that went (or would, with 'dry_run'), and the line for the user. False: *report_p says why nothing was done.
bool domain_clean(const soft_domain &domain, bool dry_run, std::vector<std::string> *removed_p, std::string *report_p);

} // namespace tools
