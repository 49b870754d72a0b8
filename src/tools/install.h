/* Where our own files are, relative to this program, so that an installation may be moved; and what they need.
 *
 * Owns: file names of the products, the search of DT_NEEDED for sanitizer runtimes.
 */
#pragma once

#include <string>
#include <vector>

namespace tools {

struct install_paths {
    std::string program;       ///< this program
    std::string library_dir;   ///< where the loader and Soft EFA are
    std::string module_dir;    ///< what UCX_MODULE_DIR must name
    std::string loader;        ///< libucx_srd_loader.so
    std::string transport;     ///< libuct_srd.so.0
    std::string soft_efa;      ///< libsoftefa.so
};

/// From the program's own place; 'relative_library_dir' leads from its folder to the libraries ("../lib").
install_paths install_paths_of(const std::string &program, const std::string &relative_library_dir);

/// The same for this process; the relative folder is the one chosen at configure time.
install_paths install_paths_of_process();

bool file_exists(const std::string &path);

/// A path that LD_PRELOAD can express: the dynamic linker separates words at spaces and colons and has no quoting.
bool preloadable(const std::string &path);

/// DT_NEEDED entries of an ELF file; empty if it is none. Every offset in the file is checked before it is used.
std::vector<std::string> elf_needed(const std::string &path);

/// The sanitizer runtime that must be first in LD_PRELOAD if 'library' is preloaded, or "".
std::string sanitizer_runtime_of(const std::string &library);

} // namespace tools
