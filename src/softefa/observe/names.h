/* What Soft EFA calls the things that it makes in a domain's folder.
 *
 * Owns: telling our names from everybody else's, for those who remove them. The folder may be one that holds other files
 * (SOFTEFA_REGISTRY_DIR), so a name is ours only if it has the whole shape that we make and is the kind of file that we make under it.
 *
 *   NAM-1  nothing is removed by the beginning or the end of its name.
 */
#pragma once

#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>

namespace softefa::observe {

inline constexpr char link_suffix[] = ".proc";
inline constexpr char lock_name[]   = "domain"; ///< the members share a lock on it, and it says what they agreed upon

enum class name_kind : std::uint8_t {
    foreign,      ///< not ours
    domain,       ///< lock_name
    tree_link,    ///< softefa-sysfs
    tree,         ///< tree-<pid>-<hex>, building-<pid>-tree-<pid>-<hex>, building-link-<pid>
    process_link, ///< <instance>.<PID namespace>.proc, see published.h
    socket,       ///< <instance>.sock, <instance>.new
    qpn_table,    ///< qpn.<device>
    failure,      ///< failure.<pid>.<PID namespace>, or failure.<pid>
};

namespace names {

inline const char *skip(const char *at, const char *start) noexcept
{
    const std::size_t size = std::strlen(start);
    return at != nullptr && std::strncmp(at, start, size) == 0 ? at + size : nullptr;
}

/// Behind at least one of `digits`; null: there is none.
inline const char *skip_number(const char *at, const char *digits) noexcept
{
    const std::size_t size = at != nullptr ? std::strspn(at, digits) : 0;
    return size != 0 ? at + size : nullptr;
}

inline bool ends(const char *at) noexcept { return at != nullptr && *at == '\0'; }

inline constexpr char decimal[] = "0123456789", hexadecimal[] = "0123456789abcdef";

inline const char *skip_tree(const char *at) noexcept
{
    return skip_number(skip(skip_number(skip(at, "tree-"), decimal), "-"), hexadecimal);
}

} // namespace names

/// What stands in a file called lock_name is ours: nothing yet, or what members agreed upon, in any version (settings_signature).
inline bool lock_text_is_ours(const char *text) noexcept { return *text == '\0' || std::strncmp(text, "SOFTEFA_", 8) == 0; }

/// By its shape alone; *type_p is the kind of file (S_IFMT) that it must be.
inline name_kind name_shape(const char *name, mode_t *type_p) noexcept
{
    using namespace names;
    const char *building = skip(name, "building-");
    *type_p = S_IFDIR;
    if (ends(skip_tree(name)) || ends(skip_tree(skip(skip_number(building, decimal), "-"))))
        return name_kind::tree;
    *type_p = S_IFLNK;
    if (ends(skip_number(skip(building, "link-"), decimal)))
        return name_kind::tree;
    if (std::strcmp(name, "softefa-sysfs") == 0)
        return name_kind::tree_link;
    const char *instance = std::strspn(name, hexadecimal) == 16 ? skip(name + 16, ".") : nullptr;
    if (ends(skip(skip_number(instance, hexadecimal), link_suffix)))
        return name_kind::process_link;
    *type_p = S_IFSOCK;
    if (ends(skip(instance, "sock")) || ends(skip(instance, "new")))
        return name_kind::socket;
    *type_p = S_IFREG;
    if (std::strcmp(name, lock_name) == 0)
        return name_kind::domain;
    if (ends(skip_number(skip(name, "qpn."), decimal)))
        return name_kind::qpn_table;
    const char *of_process = skip_number(skip(name, "failure."), decimal);
    return ends(of_process) || ends(skip_number(skip(of_process, "."), hexadecimal)) ? name_kind::failure : name_kind::foreign;
}

/// The same, and what is there is of that kind.
inline name_kind name_in(int folder_fd, const char *name) noexcept
{
    mode_t          type  = 0;
    struct stat     about{};
    const name_kind shape = name_shape(name, &type);
    const bool      ours  = shape != name_kind::foreign && fstatat(folder_fd, name, &about, AT_SYMLINK_NOFOLLOW) == 0 && (about.st_mode & S_IFMT) == type;
    return ours ? shape : name_kind::foreign;
}

} // namespace softefa::observe
