/* See single_copy.h. */
#include "softefa/dev/single_copy.h"

#include "softefa/dev/configure.h"

#include <cerrno>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace softefa::dev {

namespace {

std::uint64_t identity = 0; ///< instance of this process, for other processes to read

/// The word at `identity_at` and, where there are any, bytes of the window, by one call: one address space. Bytes copied, or minus errno.
long read_memory(const memory_reader &from, std::uint64_t *identity_p, std::uint8_t *to, std::uint64_t address, std::size_t size) noexcept
{
    const int   saved     = errno;
    const iovec local[2]  = {{identity_p, sizeof(*identity_p)}, {to, size}};
    const iovec remote[2] = {{reinterpret_cast<void *>(from.identity_at), sizeof(*identity_p)}, {reinterpret_cast<void *>(address), size}};
    const unsigned long count = size != 0 ? 2 : 1;
    long        done      = syscall(SYS_process_vm_readv, from.pid, local, count, remote, count, 0ul);
    if (done < 0)
        done = -errno;
    errno = saved;
    return done;
}

/// The process has not ended, so its PID was its own all the time.
bool lives(const memory_reader &who) noexcept
{
    if (who.pidfd < 0)
        return true; // ourselves
    const int      saved = errno;
    pollfd         ended{who.pidfd, POLLIN, 0};
    const timespec now{0, 0};
    const bool     yes = syscall(SYS_ppoll, &ended, 1ul, &now, nullptr, 0ul) == 0;
    errno = saved;
    return yes;
}

void tell(link &l, bool on, int error) noexcept
{
    l.reader.on = on;
    l.channel->own.control()->reads_peer.store(on, std::memory_order_release);
    if (!l.channel->is_self)
        record(record_kind::single_copy, 0, 0, 0, on, l.channel->instance, static_cast<unsigned>(error));
}

void raise(std::atomic<std::uint64_t> &epoch) noexcept
{
    epoch.store(epoch.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); // one writer: the engine lock
}

/// SC-1: the epoch before whatever its owner does to the memory next.
void raised() noexcept { std::atomic_thread_fence(std::memory_order_seq_cst); }

constexpr std::uint32_t slot_of(const mr &m) noexcept { return mr_table::index_of(m.self) % fabric::window_slots; }

} // namespace

void single_copy_start(std::uint64_t instance) noexcept
{
    const std::uint8_t wish = settings_in_force().single_copy;
    std::atomic_ref(identity).store(instance, std::memory_order_relaxed);
    engine().single_copy_min = wish == 0 ? ~0u : wish == 1 ? 1 : limits::single_copy_min;
}

void single_copy_offer(fabric::control_page &own) noexcept
{
    own.identity_at = engine().single_copy_min != ~0u ? reinterpret_cast<std::uint64_t>(&identity) : 0;
}

void single_copy_open(link &l, int pid, int pidfd) noexcept
{
    l.reader = {pid, pidfd, l.channel->peer.control()->identity_at, false};
    if (engine().single_copy_min == ~0u || l.reader.identity_at == 0 || (pidfd < 0 && !l.channel->is_self))
        return;
    std::uint64_t seen = 0;
    const long    done = read_memory(l.reader, &seen, nullptr, 0, 0);
    tell(l, done == sizeof(seen) && seen == l.channel->instance && lives(l.reader), done < 0 ? static_cast<int>(-done) : 0);
}

bool single_copy(link &l, std::uint8_t *to, const wire::window &from, bool last, bool kept) noexcept
{
    const fabric::control_page &theirs = *l.channel->peer.control();
    const auto held = [&] { return (kept ? theirs.epoch_kept(from.slot) : theirs.epoch(from.slot)) == from.epoch; };
    if (!l.reader.on || !held()) // what was taken back before is not even looked at
        return false;
    std::uint64_t seen = 0;
    const long    done = read_memory(l.reader, &seen, to, from.address, from.length);
    SOFTEFA_POINT(copied_once);
    if (done != static_cast<long>(sizeof(seen) + from.length)) [[unlikely]] {
        if (done == -EPERM || done == -EACCES || done == -ENOSYS || done == -ESRCH)
            tell(l, false, static_cast<int>(-done)); // nothing of this peer will be readable again
        return false;
    }
    std::atomic_thread_fence(std::memory_order_acquire); // the copy before the epoch
    return seen == l.channel->instance && held() && (!last || lives(l.reader));
}

wire::window window_open(link &l, mr &m, const std::uint8_t *address, std::uint32_t length) noexcept
{
    m.shown = true;
    const std::uint32_t slot = slot_of(m);
    return {reinterpret_cast<std::uint64_t>(address), l.channel->own.control()->epoch(slot), length, slot};
}

void windows_close(link &l, std::uint32_t slot) noexcept
{
    raise(l.channel->own.control()->epochs[slot % fabric::window_slots]);
    raised();
}

void windows_close(link &l) noexcept
{
    raise(l.channel->own.control()->epoch_of_all);
    raised();
}

void windows_close(const mr &m) noexcept
{
    if (!m.shown)
        return;
    const engine_state &e = engine();
    for (unsigned i = 0; i < e.link_count; ++i)
        if (e.links[i] != nullptr)
            raise(e.links[i]->channel->own.control()->epochs[slot_of(m)]);
    raised();
}

void op_take_back(op &o) noexcept
{
    o.lent = false;
    if (o.to != nullptr)
        windows_close(*o.to, o.source_slot);
}

} // namespace softefa::dev
