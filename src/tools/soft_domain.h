/* A domain of Soft EFA seen from outside: its folder, and the processes that publish in it.
 *
 * Owns: finding domains of this user, reading what processes publish (softefa/observe/published.h), and telling the living from the dead.
 * Only reads; nothing that a process does or has become can make it wait or crash: all of it is copied first, by system calls, and checked.
 */
#pragma once

#include "softefa/observe/published.h"
#include "softefa/settings.h"
#include "tools/soft_options.h"

#include <memory>
#include <string>
#include <vector>

namespace tools {

enum class process_state {
    alive,
    dead,       ///< what it published went with it
    elsewhere,  ///< in another PID namespace: cannot be looked at from here
    unreadable, ///< alive, but its memory may not be read (not dumpable) or makes no sense
};

struct free_bytes {
    void operator()(const softefa::observe::published *page) const;
};

struct soft_process {
    process_state state    = process_state::dead;
    std::string   link;     ///< name in the folder
    int           pid      = 0;
    std::uint64_t instance = 0;
    std::string   trouble;  ///< why it is unreadable
    bool          stopped  = false; ///< by a signal or a debugger: alive, but nothing moves
    bool          torn     = false; ///< tables were being written whenever we looked

    std::unique_ptr<const softefa::observe::published, free_bytes> page; ///< a copy, checked; null unless alive

    /// Texts that end within their fields, whatever is in them; anything but printable ASCII becomes '?'.
    std::string program() const;
    std::string last_failure() const;
    std::string profile() const;
    unsigned    device_count() const; ///< at most softefa::dev::limits::devices
    /// The recorder's entries, oldest first.
    std::vector<softefa::observe::record> records() const;
};

/// What a process kept when something failed.
struct soft_failure {
    int         pid;
    bool        elsewhere; ///< its PID namespace is known, and another one than ours
    std::string file;      ///< in the domain's folder
};

struct soft_domain {
    std::string               name;
    std::string               folder;
    std::vector<soft_process> processes; ///< by PID
    std::vector<soft_failure> failures;  ///< by PID, those of our PID namespace first
};

/// Folder and name of each domain of this user, by what stands where domains are made by default.
std::vector<soft_domain> domains_of_user();

/// The domains that the options name; their processes are not read yet. False: *error_p is one line.
bool domains_of_options(const soft_options &options, std::vector<soft_domain> *domains_p, std::string *error_p);

/// Reads the processes. False: there is no such folder, or it is not private to this user; *error_p says so.
bool domain_read(soft_domain *domain_p, std::string *error_p);

/// What a process kept in a file when something failed; state alive if it can be read.
soft_process process_read_file(const std::string &path);

/// One process by its link; pure but for reading.
soft_process process_read(int folder_fd, const std::string &link);

/// Checks a copy of `size` bytes that claims to be of `instance` and `pid`; "" if it may be read, else why not.
std::string published_fault(const softefa::observe::published &page, std::size_t size, std::uint64_t instance, int pid);

/// A text of somebody else, of at most `room` bytes: anything but printable ASCII becomes '?'.
std::string printable(const char *text, size_t room);

/// The folder, opened; -1: *error_p says why it is not used, errno is ENOENT if it does not exist.
int domain_open(const std::string &folder, std::string *error_p);

} // namespace tools
