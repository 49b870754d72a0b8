/* The lock of a domain, asked for from outside.
 *
 * Owns: whether a domain is lived in. Its members share a lock on one file of its folder, so whoever gets that lock alone knows that there are none;
 * while it is kept, nobody joins. Also what the members have agreed upon, since it is in the same file and true as long as one of them lives.
 * Refuses to know who the members are (soft_domain.h, soft_holders.h).
 */
#pragma once

#include "tools/soft_domain.h"

#include <string>

namespace tools {

enum class lock_state {
    nothing,  ///< no such folder, or no Soft EFA process was ever in it
    unusable, ///< the folder is not private to this user
    unknown,  ///< the file cannot be opened or locked
    held,     ///< somebody lives in the domain
    taken,    ///< by us: nobody does, until we let go
};

/// The lock, as long as this lives.
class domain_lock {
public:
    /// *error_p has a line for `unusable`.
    domain_lock(const std::string &folder, std::string *error_p);
    ~domain_lock();
    domain_lock(const domain_lock &)            = delete;
    domain_lock &operator=(const domain_lock &) = delete;

    lock_state state() const { return state_; }
    int        folder_fd() const { return folder_fd_; } ///< -1: nothing or unusable
    /// What its members agreed upon; "" where it cannot be read.
    std::string choice() const;

private:
    int        folder_fd_ = -1, fd_ = -1;
    lock_state state_ = lock_state::nothing;
};

/// Somebody keeps the domain's lock, published or not.
bool domain_is_held(const soft_domain &domain);

/// Why a process with these settings would be refused by those that live in its domain; "" if it would not.
std::string domain_refusal(const softefa::settings &wish);

} // namespace tools
