/* Who keeps a domain without publishing in it: a child that was forked while a device was open and has outlived its parent, or a process that
 * is just opening its first device.
 *
 * Owns: the search through /proc for the domain's lock file. Reads only; processes of other users, or of other PID namespaces, are not seen.
 */
#pragma once

#include "tools/soft_domain.h"

namespace tools {

struct domain_holder {
    int         pid;
    std::string program; ///< printable; as the kernel has it, at most 15 characters
};

/// Processes that have the lock file open and are none of domain.processes' living ones, by PID; at most 64.
std::vector<domain_holder> domain_holders(const soft_domain &domain);

} // namespace tools
