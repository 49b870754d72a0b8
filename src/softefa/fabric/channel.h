/* One connected pair of processes, seen from one side: both segments and the four ring views, and how to wake the other side.
 *
 * Owns: segments and the wake-up descriptor of one peer. Knows nothing of QPs. A process is its own peer through a channel whose two
 * segments are the same memory: same code, same rules.
 *
 * Wake-up (a Dekker handshake): the sleeper stores an odd park word, fences, and looks at its rings once more before it sleeps; the producer
 * stores its records, fences, and then reads the park word. One of the two sees the other. Only the producer writes the eventfd, and once per
 * park word, so a sleeper that is slow to wake is not written to again.
 *   CH-1  a record published before the sleeper's last look is seen by it; one published after finds the odd park word.
 */
#pragma once

#include "softefa/fabric/ack_ring.h"
#include "softefa/fabric/segment.h"

namespace softefa::fabric {

struct channel {
    data_rx       rx;
    ack_rx        acks_in;
    data_tx       tx;
    ack_tx        acks_out;
    segment       own, peer;      ///< for the self channel peer.base is a second, read-only mapping of own
    int           wake_fd  = -1;  ///< peer's eventfd; owned
    std::uint32_t woken    = 0;   ///< park word that was last answered with a wake-up
    std::uint64_t instance = 0;   ///< peer's instance id
    bool          is_self  = false;

    bool has_input() const noexcept { return !acks_in.empty() || !rx.empty(); }
};

/// Connects a process to itself.
base::status channel_open_self(channel &c, std::uint64_t instance) noexcept;
/// Takes both segments and the descriptor over.
void channel_open(channel &c, const segment &own, const segment &peer, int wake_fd, std::uint64_t instance) noexcept;
void channel_close(channel &c) noexcept;
/// After records were published and a full fence: wakes the peer if it sleeps.
void channel_wake(channel &c) noexcept;

} // namespace softefa::fabric
