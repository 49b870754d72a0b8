/* The memory that one process publishes to one other.
 *
 * Owns: creating, sealing, checking and mapping segments (fabric/ring.h says what is in them). All system calls are made raw, because
 * host processes patch mmap and friends (UCX does), and because this runs on threads that must not re-enter their hooks.
 * Sealed against shrinking and growing, so that no access to a mapping can raise SIGBUS; the receiver checks the seals itself.
 */
#pragma once

#include "base/status.h"
#include "softefa/fabric/ring.h"

namespace softefa::fabric {

struct segment {
    int           fd   = -1;      ///< owned
    std::uint8_t *base = nullptr; ///< segment_size bytes; read-only where it is the peer's

    control_page *control() const noexcept { return reinterpret_cast<control_page *>(base); }
};

/// A fresh, sealed and zeroed segment, mapped read-write.
base::result<segment> segment_create(std::uint64_t instance, std::uint32_t may_cut = cut_never) noexcept;
/// Takes `fd` over (also on failure). protocol: it is no sealed segment of ours.
base::result<segment> segment_open_peer(int fd, std::uint64_t instance) noexcept;
void segment_close(segment &s) noexcept;

/// raw system calls, errno preserved by the callers that care
void *raw_mmap(std::size_t size, int prot, int flags, int fd, std::uint64_t offset) noexcept; ///< null on failure
void  raw_munmap(void *address, std::size_t size) noexcept;
int   raw_memfd(const char *name, bool sealing) noexcept;
void  raw_close(int fd) noexcept; ///< also of private descriptors, as are those of raw_memfd (private_fd.h)
/// False: RLIMIT_FSIZE is lower, and making a file that large would raise SIGXFSZ in the host.
bool  raw_may_write_to(std::uint64_t size) noexcept;

} // namespace softefa::fabric
