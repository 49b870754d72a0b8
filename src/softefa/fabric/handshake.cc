/* See handshake.h. */
#include "softefa/fabric/handshake.h"

#include "softefa/fabric/private_fd.h"
#include "softefa/fabric/segment.h"

#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::fabric {

using base::status;

namespace {

struct wire_message {
    std::uint32_t magic, version, kind, reserved;
    std::uint64_t instance, to;
};

constexpr std::uint32_t handshake_magic = 0x45464148; ///< "HAFE"

union descriptor_space {
    cmsghdr header;
    char    bytes[CMSG_SPACE(4 * sizeof(int))];
};

} // namespace

status message_send(int socket, const message &m) noexcept
{
    wire_message     body{handshake_magic, segment_version, static_cast<std::uint32_t>(m.kind), 0, m.instance, m.to};
    iovec            part{&body, sizeof(body)};
    descriptor_space space{};
    msghdr           head{};
    head.msg_iov    = &part;
    head.msg_iovlen = 1;
    if (m.segment >= 0) {
        const int fds[2]    = {m.segment, m.wake};
        head.msg_control    = &space;
        head.msg_controllen = CMSG_SPACE(sizeof(fds));
        cmsghdr *c          = CMSG_FIRSTHDR(&head);
        c->cmsg_level       = SOL_SOCKET;
        c->cmsg_type        = SCM_RIGHTS;
        c->cmsg_len         = CMSG_LEN(sizeof(fds));
        std::memcpy(CMSG_DATA(c), fds, sizeof(fds));
    }
    if (sendmsg(socket, &head, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(sizeof(body)))
        return status::ok;
    return errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ETOOMANYREFS ? status::no_resource : status::peer_gone;
}

base::result<message> message_receive(int socket) noexcept
{
    wire_message     body{};
    iovec            part{&body, sizeof(body)};
    descriptor_space space{};
    msghdr           head{};
    head.msg_iov        = &part;
    head.msg_iovlen     = 1;
    head.msg_control    = &space;
    head.msg_controllen = sizeof(space);
    const ssize_t size  = recvmsg(socket, &head, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (size < 0)
        return errno == EAGAIN || errno == EINTR ? status::no_resource : status::peer_gone;

    int      fds[4] = {-1, -1, -1, -1};
    unsigned count  = 0;
    for (cmsghdr *c = CMSG_FIRSTHDR(&head); c != nullptr; c = CMSG_NXTHDR(&head, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        const std::size_t have = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < have && count < 4; ++i)
            std::memcpy(&fds[count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
    const auto kind   = static_cast<message_kind>(body.kind);
    const bool with   = kind == message_kind::hello || kind == message_kind::welcome;
    const bool ours   = size == static_cast<ssize_t>(sizeof(body)) && body.magic == handshake_magic && body.version == segment_version &&
                        (with || kind == message_kind::busy || kind == message_kind::bye) && (head.msg_flags & MSG_TRUNC) == 0;
    const bool cut    = (head.msg_flags & MSG_CTRUNC) != 0;
    if (!ours || cut || count != (with ? 2u : 0u)) {
        for (unsigned i = 0; i < count; ++i)
            raw_close(fds[i]);
        // There is room for four: who sends more is cut off behind these. Fewer than two arrive where the kernel found no number for the next one.
        return size == 0 ? status::peer_gone : ours && with && cut && count < 2 ? status::limit : status::protocol;
    }
    return message{kind, body.instance, body.to, fd_settle_private(fds[0]), fd_settle_private(fds[1])};
}

status peer_identify(int socket, int *pidfd_p, int *pid_p) noexcept
{
    ucred     who{};
    socklen_t size = sizeof(who);
    *pidfd_p       = -1;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0 || who.uid != geteuid())
        return status::peer_gone;
    if (pid_p != nullptr)
        *pid_p = who.pid;
    if (who.pid <= 0)
        return status::ok;
    *pidfd_p = fd_settle_private(static_cast<int>(syscall(SYS_pidfd_open, who.pid, 0u)));
    if (*pidfd_p >= 0)
        return status::ok;
    // It has ended already; without pidfds the socket says so.
    return errno == ESRCH ? status::peer_gone : errno == EMFILE || errno == ENFILE ? status::limit : status::ok;
}

} // namespace softefa::fabric
