/* See channel.h. */
#include "softefa/fabric/channel.h"

#include "softefa/fabric/private_fd.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::fabric {

using base::status;

void channel_open(channel &c, const segment &own, const segment &peer, int wake_fd, std::uint64_t instance) noexcept
{
    c.own      = own;
    c.peer     = peer;
    c.wake_fd  = wake_fd;
    c.woken    = 0;
    c.instance = instance;
    c.rx.init(peer.base, own.control());
    c.acks_in.init(peer.base, own.control());
    c.tx.init(own.base, peer.control());
    c.acks_out.init(own.base, peer.control());
}

status channel_open_self(channel &c, std::uint64_t instance) noexcept
{
    auto own = segment_create(instance);
    if (!own)
        return own.error();
    const int copy = fd_duplicate_private(own->fd);
    if (copy == -1) {
        segment_close(*own);
        return status::limit;
    }
    auto peer = segment_open_peer(copy, instance);
    if (!peer) {
        segment_close(*own);
        return peer.error();
    }
    channel_open(c, *own, *peer, -1, instance);
    c.is_self = true;
    return status::ok;
}

void channel_close(channel &c) noexcept
{
    segment_close(c.peer);
    segment_close(c.own);
    fd_drop_private(c.wake_fd);
    c = channel{};
}

void channel_wake(channel &c) noexcept
{
    const std::uint32_t park = c.peer.control()->park.load(std::memory_order_relaxed);
    if ((park & 1) == 0 || park == c.woken || c.wake_fd < 0) [[likely]]
        return;
    const int           saved = errno;
    const std::uint64_t one   = 1;
    c.woken = park;
    SOFTEFA_POINT(before_wake);
    (void)!syscall(SYS_write, c.wake_fd, &one, sizeof(one));
    SOFTEFA_POINT(woken);
    errno = saved;
}

} // namespace softefa::fabric
