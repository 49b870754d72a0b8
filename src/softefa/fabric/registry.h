/* Where the processes of one domain find each other.
 *
 * Owns: the private registry folder: who has which QPN, and the socket of each instance. Knows no connection, no ring and no QP.
 *
 *   qpn.<device>        65536 words of 8 bytes: the instance id of the QPN's owner, and a rotation hint behind them. A QPN is owned by holding a POSIX
 *                       record lock on its word: such a lock ends with its process, however it ends, and a forked child does not inherit
 *                       it. Only the holder writes the word.
 *   <instance>.sock     where the instance accepts connections.
 *
 * One descriptor per file for the life of the registry: closing any other would drop the process's record locks. Flock and open-file-description
 * locks were rejected because a forked child would keep them alive.
 *
 * claim, release and open belong to one thread at a time; owner and connect may run on another beside them.
 *
 *   REG-1  two live processes never own the same (device, QPN).
 *   REG-2  what a killed process left is never believed: the lock decides, not the word; the socket refuses.
 */
#pragma once

#include "base/status.h"

#include <atomic>
#include <cstdint>
#include <pthread.h>

namespace softefa::fabric {

/// A number that is the same for all processes that can meet in this folder and domain, and differs for all others. Makes the folder
/// (0700) if it is not there.
std::uint64_t domain_identity(const char *folder, const char *domain) noexcept;

class registry {
public:
    static constexpr unsigned devices = 32;

    registry() noexcept;
    ~registry() { close(); }
    registry(const registry &)            = delete;
    registry &operator=(const registry &) = delete;

    /// An empty folder name means that this process is alone. permission: the folder is not private to this user.
    base::status open(const char *folder, std::uint64_t instance) noexcept;
    void         close() noexcept; ///< also gives back all QPNs and the socket's name
    void         withdraw() noexcept; ///< the socket's name alone: everything else goes on until the process ends
    void         forget() noexcept; ///< in a forked child: closes its copies and leaves the parent's names alone

    /// Owns a QPN: from the shared rotation, not in `own` (by QPN, non-zero = taken by this process), low bits not in `low_used`.
    /// `lowest`: not from the rotation, but the lowest free one.
    base::result<std::uint16_t> claim(unsigned device, const std::uint16_t *own, std::uint16_t low_mask,
                                      const std::uint64_t *low_used, bool lowest = false) noexcept;
    void release(unsigned device, std::uint16_t qpn) noexcept;
    /// Instance that owns a QPN now; 0: no live process does. QPNs of this process are not seen. no_resource: this process is short of
    /// something, ask again later.
    base::result<std::uint64_t> owner(unsigned device, std::uint16_t qpn) noexcept;

    /// The listening socket of this instance, non-blocking. Removes sockets that killed processes left behind.
    base::result<int> listen() noexcept;
    /// A non-blocking connection. peer_gone: nobody listens there; busy: its backlog is full; no_resource: ask again later.
    base::result<int> connect(std::uint64_t instance) noexcept;

private:
    int  table(unsigned device) noexcept;
    void sweep() noexcept;
    base::result<int> connect_to(std::uint64_t instance, const char *suffix) noexcept;
    bool address_of(std::uint64_t instance, const char *suffix, void *sockaddr_p, unsigned *size_p) const noexcept;

    int           folder_ = -1;
    std::uint64_t instance_ = 0;
    bool          listening_ = false;
    std::uint16_t next_ = 1; ///< rotation without a folder, and where the shared hint is busy
    pthread_mutex_t  tables_lock_ = PTHREAD_MUTEX_INITIALIZER;
    std::atomic<int> tables_[devices]; ///< -1: not open yet
};

} // namespace softefa::fabric
