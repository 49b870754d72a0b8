/* See install.h. */
#include "tools/install.h"

#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <elf.h>
#include <unistd.h>

#ifndef RELATIVE_LIBRARY_DIR
#define RELATIVE_LIBRARY_DIR "../lib"
#endif

namespace tools {

namespace {

/// Folder of a path, resolved; unchanged if it does not exist.
std::string resolved(const std::string &path)
{
    char text[PATH_MAX];
    return realpath(path.c_str(), text) != nullptr ? text : path;
}

/// The bytes of a file; none if it cannot be read (a folder opens, but does not read).
std::vector<char> read_file(const std::string &path)
{
    std::vector<char> bytes;
    FILE *file = fopen(path.c_str(), "re");
    if (file == nullptr) {
        return bytes;
    }
    char chunk[16384];
    size_t size;
    while ((size = fread(chunk, 1, sizeof(chunk), file)) > 0) {
        bytes.insert(bytes.end(), chunk, chunk + size);
    }
    fclose(file);
    return bytes;
}

/// A little-endian 64-bit ELF image that is only read through at(): nothing outside the file is touched.
class elf_image {
public:
    explicit elf_image(std::vector<char> bytes) : bytes_(std::move(bytes)) {}

    template <class T> bool at(uint64_t offset, T *value_p) const
    {
        if (offset > bytes_.size() || bytes_.size() - offset < sizeof(T)) {
            return false;
        }
        memcpy(value_p, bytes_.data() + offset, sizeof(T));
        return true;
    }

    std::string text_at(uint64_t offset) const
    {
        return offset < bytes_.size() ?
               std::string(bytes_.data() + offset, strnlen(bytes_.data() + offset, bytes_.size() - offset)) : std::string();
    }

private:
    std::vector<char> bytes_;
};

bool read_header(const elf_image &image, Elf64_Ehdr *header_p)
{
    return image.at(0, header_p) && memcmp(header_p->e_ident, ELFMAG, SELFMAG) == 0 &&
           header_p->e_ident[EI_CLASS] == ELFCLASS64 && header_p->e_phentsize == sizeof(Elf64_Phdr);
}

/// File offset of a virtual address, by the PT_LOAD that covers it.
bool file_offset(const elf_image &image, const Elf64_Ehdr &header, uint64_t address, uint64_t *offset_p)
{
    for (unsigned i = 0; i < header.e_phnum; ++i) {
        Elf64_Phdr segment;
        if (image.at(header.e_phoff + uint64_t(i) * sizeof(segment), &segment) && segment.p_type == PT_LOAD &&
            address >= segment.p_vaddr && address - segment.p_vaddr < segment.p_filesz) {
            *offset_p = segment.p_offset + (address - segment.p_vaddr);
            return true;
        }
    }
    return false;
}

} // namespace

install_paths install_paths_of(const std::string &program, const std::string &relative_library_dir)
{
    install_paths paths;
    paths.program     = program;
    const auto slash  = program.rfind('/');
    const auto folder = slash == std::string::npos ? std::string(".") : program.substr(0, slash);
    paths.library_dir = resolved(relative_library_dir.rfind("/", 0) == 0 ? relative_library_dir :
                                                                          folder + "/" + relative_library_dir);
    paths.module_dir  = paths.library_dir + "/ucx";
    paths.loader      = paths.library_dir + "/libucx_srd_loader.so";
    paths.transport   = paths.module_dir + "/libuct_srd.so.0";
    paths.soft_efa    = paths.library_dir + "/libsoftefa.so.0";
    return paths;
}

install_paths install_paths_of_process()
{
    return install_paths_of(resolved("/proc/self/exe"), RELATIVE_LIBRARY_DIR);
}

bool file_exists(const std::string &path)
{
    return access(path.c_str(), R_OK) == 0;
}

bool preloadable(const std::string &path)
{
    return path.find_first_of(" \t\n:") == std::string::npos;
}

std::vector<std::string> elf_needed(const std::string &path)
{
    const elf_image image(read_file(path));
    std::vector<std::string> needed;
    Elf64_Ehdr header;
    if (!read_header(image, &header)) {
        return needed;
    }
    for (unsigned i = 0; i < header.e_phnum; ++i) {
        Elf64_Phdr segment;
        if (!image.at(header.e_phoff + uint64_t(i) * sizeof(segment), &segment) || segment.p_type != PT_DYNAMIC) {
            continue;
        }
        std::vector<uint64_t> names;
        uint64_t string_table = 0;
        Elf64_Dyn entry;
        for (uint64_t at = 0; at + sizeof(entry) <= segment.p_filesz; at += sizeof(entry)) {
            if (!image.at(segment.p_offset + at, &entry) || entry.d_tag == DT_NULL) {
                break;
            }
            if (entry.d_tag == DT_NEEDED) {
                names.push_back(entry.d_un.d_val);
            } else if (entry.d_tag == DT_STRTAB) {
                string_table = entry.d_un.d_ptr;
            }
        }
        uint64_t table_offset;
        if (!file_offset(image, header, string_table, &table_offset)) {
            return needed;
        }
        for (const uint64_t name : names) {
            if (name <= UINT64_MAX - table_offset) {
                needed.push_back(image.text_at(table_offset + name));
            }
        }
    }
    return needed;
}

std::string sanitizer_runtime_of(const std::string &library)
{
    for (const std::string &name : elf_needed(library)) {
        if (name.rfind("libasan.so", 0) == 0 || name.rfind("libtsan.so", 0) == 0) {
            return name;
        }
    }
    return "";
}

} // namespace tools
