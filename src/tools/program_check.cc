/* See program_check.h. */
#include "tools/program_check.h"

#include <cstdlib>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace tools {

namespace {

/// A file that is only read through at().
class open_program {
public:
    explicit open_program(const std::string &file) : fd_(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
    ~open_program()
    {
        if (fd_ >= 0) {
            close(fd_);
        }
    }
    open_program(const open_program &)            = delete;
    open_program &operator=(const open_program &) = delete;

    bool at(uint64_t offset, void *to, size_t size) const
    {
        return fd_ >= 0 && offset < (uint64_t{1} << 62) && pread(fd_, to, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size);
    }

private:
    int fd_;
};

/// Path of the dynamic linker; "" for a static program.
std::string interpreter(const open_program &program, const Elf64_Ehdr &header)
{
    for (unsigned i = 0; i < header.e_phnum; ++i) {
        Elf64_Phdr segment;
        char       text[256] = "";
        if (!program.at(header.e_phoff + uint64_t{i} * sizeof(segment), &segment, sizeof(segment)) || segment.p_type != PT_INTERP) {
            continue;
        }
        const size_t size = segment.p_filesz < sizeof(text) ? segment.p_filesz : sizeof(text) - 1;
        return program.at(segment.p_offset, text, size) ? text : "";
    }
    return "";
}

} // namespace

std::string find_program(const std::string &command, const char *path_variable)
{
    if (command.find('/') != std::string::npos) {
        return access(command.c_str(), X_OK) == 0 ? command : "";
    }
    std::string path = path_variable != nullptr ? path_variable : "/bin:/usr/bin";
    for (size_t at = 0; at <= path.size();) {
        const size_t      end    = std::min(path.find(':', at), path.size());
        const std::string folder = end == at ? "." : path.substr(at, end - at);
        const std::string file   = folder + "/" + command;
        struct stat       st;
        if (stat(file.c_str(), &st) == 0 && S_ISREG(st.st_mode) && access(file.c_str(), X_OK) == 0) {
            return file;
        }
        at = end + 1;
    }
    return "";
}

std::string preload_obstacle(const std::string &file)
{
    const open_program program(file);
    Elf64_Ehdr         header;
    if (!program.at(0, &header, sizeof(header)) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
        return ""; // a script, or nothing that could be read: exec will say
    }
    if (header.e_ident[EI_CLASS] != ELFCLASS64) {
        return "is a 32-bit program, and Soft EFA is a 64-bit library";
    }
    const std::string linker = interpreter(program, header);
    if (linker.empty()) {
        return "is statically linked: nothing can be preloaded into it";
    }
    if (linker.find("ld-musl") != std::string::npos) {
        return "is linked with musl, and Soft EFA needs glibc";
    }
    struct statvfs system;
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 || (statvfs(file.c_str(), &system) == 0 && (system.f_flag & ST_NOSUID) != 0)) {
        return ""; // nothing raises its rights here, so LD_PRELOAD is heeded
    }
    struct stat st;
    const bool  privileged = stat(file.c_str(), &st) == 0 && (((st.st_mode & S_ISUID) != 0 && st.st_uid != geteuid()) ||
                                                             ((st.st_mode & S_ISGID) != 0 && st.st_gid != getegid()));
    if (privileged) {
        return "is set-uid or set-gid: the dynamic linker ignores LD_PRELOAD for it";
    }
    const bool capable = geteuid() != 0 && getxattr(file.c_str(), "security.capability", nullptr, 0) > 0; // root gains nothing by them
    return capable ? "has file capabilities (getcap): the dynamic linker ignores LD_PRELOAD for it" : "";
}

bool command_takes_preloads(const std::string &command, std::string *error_p)
{
    const std::string file     = find_program(command, getenv("PATH"));
    const std::string obstacle = file.empty() ? "" : preload_obstacle(file);
    if (!obstacle.empty()) {
        *error_p = file + " " + obstacle + "; --no-check runs it all the same, for the programs that it starts";
    }
    return obstacle.empty();
}

} // namespace tools
