/* Memory that runs out when a test says so: malloc, calloc and aligned_alloc of everything that is linked into the program (not of the
 * libraries that it loads, nor operator new). The linker puts ours in their places (-Wl,--wrap), so it works under a sanitizer and
 * under valgrind, where a limit of the process does not.
 */
#pragma once

#include <cstddef>

namespace srd::test {

/// While it lives, calls fail after so many that do not.
class memory_that_runs_out {
public:
    explicit memory_that_runs_out(std::size_t calls_before = 0) noexcept;
    memory_that_runs_out(const memory_that_runs_out &)            = delete;
    memory_that_runs_out &operator=(const memory_that_runs_out &) = delete;
    ~memory_that_runs_out();

    /// Calls that failed.
    std::size_t refused() const noexcept;
};

} // namespace srd::test
