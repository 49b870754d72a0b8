/* Copies between a ring and memory that the application may have unmapped under a registration.
 *
 * A NIC keeps registered pages pinned; we cannot. Work that a peer starts (RDMA read and write) must not bring the target process down because
 * the application unmapped memory it had registered, so these copies report the fault instead of raising it: the kernel makes them.
 *
 * The ring's other name is an offset in its memfd, so pread and pwrite move the bytes straight between ring and application. Measured here
 * (ns, 8 B / 4 KiB / 32 KiB): pread 570 / 590 / 2120, pwrite 730 / 710 / 2620, process_vm_readv of the own process 1440 / 1460 / 3600, memcpy 20 / 60 / 620;
 * the calls below are also not refused by Yama, seccomp profiles or PID namespaces, which process_vm_* is. Rejected besides: a
 * SIGSEGV handler (the host process's signals are not ours), and mincore before memcpy (another thread may unmap in between).
 * Memory that the process's own work requests name is copied plainly: unmapping it under one's own work is a caller bug.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace softefa::dev {

/// Application to file. False if some of its bytes cannot be read; how much was copied until then is unspecified. errno is preserved.
bool copy_from_application(int file, std::uint64_t offset, const void *application, std::size_t size) noexcept;
/// File to application.
bool copy_to_application(void *application, int file, std::uint64_t offset, std::size_t size) noexcept;

/// memcpy; short messages without a call.
inline void copy_payload(std::uint8_t *to, const std::uint8_t *from, std::size_t size) noexcept
{
    if (size > 16) {
        std::memcpy(to, from, size);
    } else if (size >= 8) { // the two halves may overlap
        std::uint64_t first, last;
        std::memcpy(&first, from, 8);
        std::memcpy(&last, from + size - 8, 8);
        std::memcpy(to, &first, 8);
        std::memcpy(to + size - 8, &last, 8);
    } else {
        for (std::size_t i = 0; i < size; ++i)
            to[i] = from[i];
    }
}

} // namespace softefa::dev
