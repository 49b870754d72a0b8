/* See soft_lock.h. */
#include "tools/soft_lock.h"

#include "softefa/observe/names.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace tools {

domain_lock::domain_lock(const std::string &folder, std::string *error_p)
{
    folder_fd_ = domain_open(folder, error_p);
    if (folder_fd_ < 0) {
        state_ = errno == ENOENT ? lock_state::nothing : lock_state::unusable;
        return;
    }
    constexpr int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    fd_ = openat(folder_fd_, softefa::observe::lock_name, O_RDWR | flags); // a network file system wants to write what is locked alone
    if (fd_ < 0 && errno != ENOENT) {
        fd_ = openat(folder_fd_, softefa::observe::lock_name, O_RDONLY | flags);
    }
    if (fd_ < 0) {
        state_ = errno == ENOENT ? lock_state::nothing : lock_state::unknown;
    } else if (!softefa::observe::lock_text_is_ours(choice().c_str())) {
        state_ = lock_state::nothing; // somebody else's file of that name
    } else if (flock(fd_, LOCK_EX | LOCK_NB) == 0) {
        state_ = lock_state::taken;
    } else {
        state_ = errno == EWOULDBLOCK ? lock_state::held : lock_state::unknown;
    }
}

domain_lock::~domain_lock()
{
    for (const int fd : {fd_, folder_fd_}) {
        if (fd >= 0) {
            close(fd);
        }
    }
}

std::string domain_lock::choice() const
{
    char          text[2048];
    const ssize_t size = fd_ >= 0 ? pread(fd_, text, sizeof(text) - 1, 0) : -1;
    return size > 0 ? std::string(text, static_cast<size_t>(size)) : "";
}

bool domain_is_held(const soft_domain &domain)
{
    std::string unused;
    return domain_lock(domain.folder, &unused).state() == lock_state::held;
}

std::string domain_refusal(const softefa::settings &wish)
{
    std::string       unused;
    const domain_lock lock(wish.registry_dir, &unused);
    // Without processes that hold it, the next one chooses anew.
    const std::string theirs = lock.state() == lock_state::held ? lock.choice() : "";
    char              ours[2048] = "";
    softefa::settings_signature(wish, ours, sizeof(ours));
    if (theirs.empty() || theirs == ours) {
        return "";
    }
    softefa::signature_difference line;
    if (!softefa::settings_signature_difference(theirs.c_str(), ours, &line)) {
        return "domain " + wish.domain + " was made by another version of Soft EFA that is still running; --domain NAME to be apart";
    }
    return printable(line.ours, line.ours_size) + " refused: the processes that already run in domain " + wish.domain + " have " +
           printable(line.theirs, line.theirs_size) + "; 'softefa status --domain " + wish.domain + "' names them, --domain NAME to be apart";
}

} // namespace tools
