/* See soft_domain.h. */
#include "tools/soft_domain.h"

#include "softefa/observe/names.h"

#include "tools/soft_run.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <tuple>
#include <unistd.h>

extern char **environ;

namespace tools {

namespace observe = softefa::observe;

namespace {

constexpr unsigned read_tries = 50; ///< of 1 ms each: a table that changes meanwhile is read again

bool ends_with(const std::string &text, const char *end)
{
    const size_t length = strlen(end);
    return text.size() >= length && text.compare(text.size() - length, length, end) == 0;
}

/// The state letter behind the program's name, which may contain anything.
bool is_stopped(int pid)
{
    const std::string path = "/proc/" + std::to_string(pid) + "/stat";
    char              text[512] = "";
    const int         fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const ssize_t     size = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    if (fd >= 0) {
        close(fd);
    }
    const char *name_end = size > 0 ? strrchr(text, ')') : nullptr;
    return name_end != nullptr && name_end[1] == ' ' && (name_end[2] == 'T' || name_end[2] == 't');
}

std::uint64_t pid_namespace()
{
    struct stat space;
    return stat("/proc/self/ns/pid", &space) == 0 ? space.st_ino : 0;
}

std::string read_link(int folder_fd, const char *name)
{
    char          text[256];
    const ssize_t length = readlinkat(folder_fd, name, text, sizeof(text));
    return length > 0 && length < static_cast<ssize_t>(sizeof(text)) ? std::string(text, static_cast<size_t>(length)) : "";
}

/// The whole file in memory of its own; null if it cannot be read.
void *read_page(int fd, size_t size)
{
    void *bytes = aligned_alloc(4096, size); // sizes are whole pages
    if (bytes == nullptr || pread(fd, bytes, size, 0) != static_cast<ssize_t>(size)) {
        free(bytes);
        return nullptr;
    }
    return bytes;
}

/// Opens what the link names, if it is what a Soft EFA process publishes. -1: state and trouble say why not.
int open_published(const std::string &target, soft_process *process_p)
{
    const std::string kind = read_link(AT_FDCWD, target.c_str());
    if (kind.empty() && errno == EACCES) { // somebody lives there, and does not let us look
        process_p->state   = process_state::unreadable;
        process_p->trouble = "its memory may not be read (is it set not to be dumpable?)";
        return -1;
    }
    if (kind.rfind(std::string("/memfd:") + observe::memfd_name, 0) != 0) {
        process_p->state   = process_state::dead; // or another process has the number now
        process_p->trouble = "it has ended";
        return -1;
    }
    return open(target.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

/// `wrong_size`: what to say of a file that cannot hold it.
void read_published(int fd, const char *wrong_size, soft_process *process_p)
{
    struct stat st;
    process_p->state = process_state::unreadable;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < static_cast<off_t>(observe::published_size(0)) ||
        st.st_size > static_cast<off_t>(observe::published_size(observe::record_count_max))) {
        process_p->trouble = wrong_size;
        return;
    }
    const auto size = static_cast<size_t>(st.st_size) & ~size_t{4095};
    for (unsigned tries = 0; tries < read_tries; ++tries) {
        std::unique_ptr<const observe::published, free_bytes> page(static_cast<const observe::published *>(read_page(fd, size)));
        if (page == nullptr) {
            process_p->trouble = strerror(errno);
            return;
        }
        process_p->trouble = published_fault(*page, size, process_p->instance, process_p->pid);
        if (!process_p->trouble.empty()) {
            return;
        }
        std::uint64_t after = 0;
        const bool    again = pread(fd, &after, sizeof(after), offsetof(observe::published, sequence)) == sizeof(after);
        process_p->torn     = !again || after != page->sequence.load() || (after & 1) != 0;
        process_p->page     = std::move(page);
        process_p->state    = process_state::alive;
        if (!process_p->torn) {
            return;
        }
        const timespec pause{0, 1'000'000};
        nanosleep(&pause, nullptr);
    }
}

soft_failure failure_of(const char *name)
{
    unsigned long long space = 0;
    soft_failure       result{0, false, name};
    result.elsewhere = sscanf(name, "failure.%d.%llx", &result.pid, &space) == 2 && space != pid_namespace();
    return result;
}

void add_domains(const std::string &parent, const std::string &prefix, std::vector<soft_domain> *domains_p)
{
    DIR *listing = opendir(parent.c_str());
    if (listing == nullptr) {
        return;
    }
    while (const struct dirent *entry = readdir(listing)) {
        const std::string name = entry->d_name;
        struct stat       st;
        if (name.rfind(prefix, 0) == 0 && name.size() > prefix.size() &&
            fstatat(dirfd(listing), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid()) {
            domains_p->push_back({name.substr(prefix.size()), parent + "/" + name, {}, {}});
        }
    }
    closedir(listing);
}

} // namespace

std::string printable(const char *text, size_t room)
{
    std::string result(text, strnlen(text, room));
    for (char &c : result) {
        if (c < ' ' || c > '~') {
            c = '?';
        }
    }
    return result;
}

void free_bytes::operator()(const observe::published *page) const
{
    free(const_cast<observe::published *>(page));
}

std::string soft_process::program() const { return page != nullptr ? printable(page->program, sizeof(page->program)) : "?"; }
std::string soft_process::last_failure() const { return page != nullptr ? printable(page->last_failure, sizeof(page->last_failure)) : ""; }
std::string soft_process::profile() const { return page != nullptr ? printable(page->profile, sizeof(page->profile)) : "?"; }

unsigned soft_process::device_count() const
{
    return page != nullptr ? std::min<unsigned>(page->device_count, softefa::dev::limits::devices) : 0;
}

std::vector<observe::record> soft_process::records() const
{
    std::vector<observe::record> result;
    if (page == nullptr || page->record_count == 0) {
        return result;
    }
    const std::uint64_t head  = page->record_head.load();
    const std::uint64_t count = std::min<std::uint64_t>(head, page->record_count);
    for (std::uint64_t at = head - count; at != head; ++at) {
        result.push_back(page->records[at & (page->record_count - 1)]);
    }
    return result;
}

std::string published_fault(const observe::published &page, std::size_t size, std::uint64_t instance, int pid)
{
    if (page.magic != observe::magic || page.version != observe::version) {
        return "it is another version of Soft EFA";
    }
    const bool whole = page.size <= size && page.record_count <= observe::record_count_max &&
                       (page.record_count == 0 || std::has_single_bit(page.record_count)) &&
                       observe::published_size(page.record_count) <= size;
    return whole && page.instance == instance && page.pid == pid ? "" : "what it publishes makes no sense: was its memory overwritten?";
}

soft_process process_read(int folder_fd, const std::string &link)
{
    soft_process       result;
    unsigned long long instance = 0, space = 0;
    int                end = 0, number = 0;
    result.link            = link;
    const std::string target = read_link(folder_fd, link.c_str());
    char              rest   = 0;
    if (sscanf(link.c_str(), "%16llx.%llx.%n", &instance, &space, &end) != 2 || end == 0 ||
        sscanf(target.c_str(), "/proc/%d/fd/%d%c", &result.pid, &number, &rest) != 2 || result.pid <= 0) {
        return result;
    }
    result.instance = instance;
    if (space != pid_namespace()) {
        result.state   = process_state::elsewhere;
        result.trouble = "it runs in another PID namespace";
        return result;
    }
    const int fd = open_published(target, &result);
    if (fd >= 0) {
        read_published(fd, "what it publishes has the wrong size: is it another version of Soft EFA?", &result);
        result.stopped = is_stopped(result.pid);
        close(fd);
    }
    return result;
}

soft_process process_read_file(const std::string &path)
{
    constexpr char not_kept[] = "it is not a file that a process kept, or not the whole of one";
    soft_process result;
    const int    fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    result.state    = process_state::unreadable;
    result.trouble  = fd < 0 ? strerror(errno) : not_kept;
    // The file itself says whose it is.
    alignas(observe::published) char head[offsetof(observe::published, record_mode)];
    if (fd >= 0 && pread(fd, head, sizeof(head), 0) == static_cast<ssize_t>(sizeof(head))) {
        std::int32_t pid = 0;
        memcpy(&result.instance, head + offsetof(observe::published, instance), sizeof(result.instance));
        memcpy(&pid, head + offsetof(observe::published, pid), sizeof(pid));
        result.pid = pid;
        read_published(fd, not_kept, &result);
    }
    if (fd >= 0) {
        close(fd);
    }
    return result;
}

std::vector<soft_domain> domains_of_user()
{
    std::vector<soft_domain> domains;
    const char              *runtime = getenv("XDG_RUNTIME_DIR");
    if (runtime != nullptr && runtime[0] == '/') {
        add_domains(runtime, "softefa-", &domains);
    }
    add_domains("/tmp", "softefa-" + std::to_string(geteuid()) + "-", &domains);
    std::sort(domains.begin(), domains.end(), [](const auto &a, const auto &b) { return a.name < b.name; });
    return domains;
}

bool domains_of_options(const soft_options &options, std::vector<soft_domain> *domains_p, std::string *error_p)
{
    softefa::settings values;
    if (!soft_settings(options, environment_of(environ), &values, error_p)) {
        return false;
    }
    domains_p->clear();
    if (options.all) {
        *domains_p = domains_of_user();
    } else {
        domains_p->push_back({values.domain, values.registry_dir, {}, {}});
    }
    return true;
}

int domain_open(const std::string &folder, std::string *error_p)
{
    const int   fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0) {
        const int why = errno;
        *error_p      = folder + ": " + strerror(why);
        errno         = why;
        return -1;
    }
    if (fstat(fd, &st) != 0 || st.st_uid != geteuid() || (st.st_mode & 0777) != 0700) {
        *error_p = folder + ": must belong to uid " + std::to_string(geteuid()) + " with mode 0700; have SOFTEFA_REGISTRY_DIR name a folder that does not exist yet";
        close(fd);
        errno = EPERM;
        return -1;
    }
    return fd;
}

bool domain_read(soft_domain *domain_p, std::string *error_p)
{
    domain_p->processes.clear();
    domain_p->failures.clear();
    const int fd = domain_open(domain_p->folder, error_p);
    if (fd < 0) {
        return false;
    }
    DIR *listing = fdopendir(fd);
    if (listing == nullptr) {
        *error_p = domain_p->folder + ": " + strerror(errno);
        close(fd);
        return false;
    }
    while (const struct dirent *entry = readdir(listing)) {
        if (ends_with(entry->d_name, observe::link_suffix)) {
            domain_p->processes.push_back(process_read(dirfd(listing), entry->d_name));
        } else if (observe::name_in(dirfd(listing), entry->d_name) == observe::name_kind::failure) {
            domain_p->failures.push_back(failure_of(entry->d_name));
        }
    }
    closedir(listing);
    std::sort(domain_p->failures.begin(), domain_p->failures.end(),
              [](const auto &a, const auto &b) { return std::tie(a.pid, a.elsewhere, a.file) < std::tie(b.pid, b.elsewhere, b.file); });
    std::sort(domain_p->processes.begin(), domain_p->processes.end(), [](const auto &a, const auto &b) { return a.pid < b.pid; });
    return true;
}

} // namespace tools
