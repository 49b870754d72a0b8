/* The first words between two processes, over a SEQPACKET socket.
 *
 * Owns: the message format, passing two descriptors with it, and checking who is on the other side. The order of messages is the helper's.
 *
 *   connector: hello {segment, eventfd}        acceptor: welcome {segment, eventfd}, or busy (the other direction's connection wins)
 *   either, before it leaves in good order: bye
 */
#pragma once

#include "base/status.h"

#include <cstdint>

namespace softefa::fabric {

enum class message_kind : std::uint32_t { hello = 1, welcome = 2, busy = 3, bye = 4 };

struct message {
    message_kind  kind     = message_kind::bye;
    std::uint64_t instance = 0; ///< sender
    std::uint64_t to       = 0; ///< whom the sender believes to talk to
    int           segment  = -1, wake = -1; ///< descriptors that came or go with it; -1 = none
};

/// Never blocks; no_resource when the socket is full. The descriptors stay the caller's.
base::status message_send(int socket, const message &m) noexcept;
/// no_resource: nothing there yet; peer_gone: end of file; protocol: not one of ours; limit: one of ours, but this process has no room for its
/// descriptors, and it is lost. Descriptors that came along are closed in each case.
base::result<message> message_receive(int socket) noexcept;
/// A pidfd of the process on the other side, -1 where it is not visible from here, and its PID as seen from here. peer_gone: it has ended, or runs
/// under another user; limit: this process has no room for a pidfd.
base::status peer_identify(int socket, int *pidfd_p, int *pid_p = nullptr) noexcept;

} // namespace softefa::fabric
