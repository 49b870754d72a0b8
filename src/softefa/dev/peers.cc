/* Peers: how two processes come together and part.
 *
 * Owns: the slots of peers and their descriptors, the exchange of segments, and who is given up. Refuses to know which process is wanted: lookup.cc asks
 * for a connection by instance.
 *
 * Connecting. One side connects, both exchange segments, and the link is published. When two processes connect to each other at once, the connection
 * that the smaller instance began is kept; the other side answers busy. Whatever goes wrong frees the slot, and the next look at parked work finds no
 * connection: no state has to be repaired.
 *
 * There is room for so many peers. Who comes when it is taken is told so, by "bye" as the answer to its hello, and asks again after a pause, as long as
 * lookup.cc has it do so; a few slots stay free for such answers.
 *
 * Out of descriptors, new peers wait: in this process's backlog, with their hello unread, or parked here. What runs out in the middle of a handshake
 * ends that one, and its other side begins anew. For a while after that a handshake is begun only when there are descriptors for all of it, beside
 * what those under way will take: else several that come together would take them from each other, each time anew.
 *
 * The end of a peer is the end of its process (pidfd; forked children may keep its sockets open) or of its socket (exec, or goodbye). Its rings
 * stay readable: what it had published is taken first, so that an acknowledgement that was sent counts; then the rest of the work ends.
 *
 *   HLP-4  who is listed is whole, whenever another thread forks: listed last, unlisted first.
 *   HLP-1  a link is published only when both segments are mapped, and closed only after the engine has forgotten it.
 */
#include "softefa/dev/crowding.h"
#include "softefa/dev/helper_state.h"
#include "softefa/dev/kept.h"
#include "softefa/dev/publish.h"
#include "softefa/dev/single_copy.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::dev {

bool helper_watch(int fd, source s, unsigned index) noexcept
{
    epoll_event event{};
    event.events   = EPOLLIN;
    event.data.u64 = (std::uint64_t{static_cast<std::uint32_t>(s)} << 32) | index;
    return epoll_ctl(helper.epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

void helper_watch_listener(bool wanted) noexcept
{
    epoll_event event{};
    event.events   = wanted ? EPOLLIN : 0u;
    event.data.u64 = std::uint64_t{static_cast<std::uint32_t>(source::listener)} << 32;
    epoll_ctl(helper.epoll_fd, EPOLL_CTL_MOD, helper.listen_fd, &event);
    helper.accept_again = wanted ? 0 : base::clock_now_ns() + accept_pause;
}

unsigned peer_find(std::uint64_t instance, peer_state state) noexcept
{
    for (unsigned i = 1; i < limits::links; ++i)
        if (helper.peers[i] != nullptr && helper.peers[i]->instance == instance && helper.peers[i]->state == state)
            return i;
    return 0;
}

namespace {

using fabric::message;
using fabric::message_kind;

void forget(int &fd) noexcept
{
    if (fd >= 0)
        epoll_ctl(helper.epoll_fd, EPOLL_CTL_DEL, fd, nullptr);
    fabric::fd_drop_private(fd);
}

// --- processors

/// Where the process may run, -1: this one, as its first thread has it. False: not known, another PID namespace for example.
bool affinity_read(pid_t pid, cpu_set_t *set_p) noexcept
{
    CPU_ZERO(set_p);
    return pid > 0 && sched_getaffinity(pid, sizeof(*set_p), set_p) == 0 && CPU_COUNT(set_p) != 0;
}

/// Looks where this process and the one at the other end of the socket may run now. One that cannot be seen is taken to be where we are.
void affinity_look(peer &p) noexcept
{
    ucred     who{};
    socklen_t size = sizeof(who);
    if (!affinity_read(helper.process, &helper.runs_on))
        std::memset(&helper.runs_on, 0xff, sizeof(helper.runs_on)); // more processors than the mask can name
    if (getsockopt(p.socket, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0 || !affinity_read(who.pid, &p.runs_on))
        p.runs_on = helper.runs_on;
}

/// Polls without result before the processor is offered: only where there are more processes than processors.
void update_yield() noexcept // engine lock held
{
    engine_state &e = engine();
    crowding      all(helper.runs_on);
    for (unsigned i = 1; i < e.link_count; ++i)
        if (e.links[i] != nullptr)
            all.add(helper.peers[i]->runs_on);
    e.yield_after = all.crowded() ? 32 : yield_never;
}

// --- peers

unsigned free_slot() noexcept
{
    unsigned i = 1, refused = 0;
    for (; i < limits::links && helper.peers[i] != nullptr; ++i)
        if (helper.peers[i]->state == peer_state::refused)
            refused = i;
    if (i == limits::links && refused != 0) {
        peer_close(refused);
        return refused;
    }
    return i;
}

bool is_full() noexcept
{
    unsigned taken = 0;
    for (unsigned i = 1; i < limits::links; ++i)
        taken += helper.peers[i] != nullptr && (helper.peers[i]->state == peer_state::up || helper.peers[i]->state == peer_state::connecting);
    if (taken < helper.peers_most)
        return false;
    if (!std::exchange(helper.told_full, true)) {
        const engine_guard guard;
        publish_notice("this process is connected to as many others as it can be; work between it and one more ends with status 15");
    }
    return true;
}

void descriptors_ran_out() noexcept
{
    helper.scarce_until = base::clock_now_ns() + scarce_for;
    if (!std::exchange(helper.told_scarce, true)) {
        const engine_guard guard;
        publish_notice("out of file descriptors (ulimit -n): new peers wait until this process has five free for each");
    }
}

/// For one more peer, as far as can be told before.
bool descriptors_suffice() noexcept
{
    if (base::clock_now_ns() >= helper.scarce_until)
        return true;
    unsigned needed = fds_of_peer + fds_of_hello * helper.accepted;
    for (unsigned i = 1; i < limits::links; ++i)
        if (helper.peers[i] != nullptr && helper.peers[i]->state == peer_state::connecting)
            needed += fds_of_welcome;
    if (fabric::fds_left(needed))
        return true;
    descriptors_ran_out();
    return false;
}

/// A slot for a connected socket; takes the socket over.
unsigned peer_open(int socket, peer_state state, std::uint64_t instance) noexcept
{
    const unsigned i = free_slot();
    int            pidfd = -1, pid = 0;
    const auto     identified = i < limits::links ? fabric::peer_identify(socket, &pidfd, &pid) : status::no_resource;
    peer          *p = identified == status::ok ? new (std::nothrow) peer() : nullptr;
    // Whose answer or end would not be seen is not a peer: it is closed here, and tried again by whoever wants it.
    if (p == nullptr || !helper_watch(socket, source::socket, i) || (pidfd >= 0 && !helper_watch(pidfd, source::pidfd, i))) {
        delete p;
        forget(pidfd);
        forget(socket);
        if (identified == status::limit)
            descriptors_ran_out();
        return 0;
    }
    p->state    = state;
    p->socket   = socket;
    p->pidfd    = pidfd;
    p->pid      = pid;
    p->instance = instance;
    p->since    = base::clock_now_ns();
    std::atomic_ref(helper.peers[i]).store(p, std::memory_order_seq_cst); // last: another thread may fork
    helper.accepted += state == peer_state::accepted;
    return i;
}

void detach_link(unsigned index, peer &p) noexcept
{
    const engine_guard guard;
    engine_state      &e = engine();
    p.l.gone             = true;
    p.l.read_count       = 0;
    if (p.channel.peer.control()->cut.load(std::memory_order_acquire) != 0 && !p.l.failed)
        link_given_up(p.l);
    for (unsigned rounds = 0; rounds < 4096 && (!p.l.failed || p.l.lingers) && p.channel.has_input(); ++rounds)
        if (!engine_run_link(p.l))
            break;
    e.links[index] = nullptr;
    for (unsigned d = 0; d < limits::devices; ++d)
        for (unsigned q = 0; e.routes[d] != nullptr && q < 65536; ++q)
            if (e.routes[d][q] == index + 1)
                e.routes[d][q] = 0;
    requester_link_gone(p.l);
    windows_close(p.l); // later deregistrations do not reach this peer
    kept_settle(p.l);
    engine_flush_wakes();
    ++e.peers.peers_gone;
    record(record_kind::peer_gone, 0, 0, 0, 0, p.instance, index);
    while (e.link_count > 1 && e.links[e.link_count - 1] == nullptr)
        --e.link_count;
    update_yield();
}

} // namespace

void peer_close(unsigned index) noexcept
{
    peer &p = *helper.peers[index];
    if (p.state == peer_state::up)
        detach_link(index, p);
    helper.accepted -= p.state == peer_state::accepted;
    // First: a child that is forked meanwhile closes what it finds here (HLP-4).
    std::atomic_ref(helper.peers[index]).store(nullptr, std::memory_order_seq_cst);
    if (fabric::fd_may_be_ours(p.socket))
        shutdown(p.socket, SHUT_RDWR); // a child that was forked just now may have a copy; the other side sees the end all the same, behind "bye"
    forget(p.socket);
    forget(p.pidfd);
    if (p.state == peer_state::up)
        fabric::channel_close(p.channel);
    else
        fabric::segment_close(p.own);
    delete &p;
    helper.next_lookup = 0;
}

namespace {

/// Both segments are there: the engine may use it (HLP-1).
void peer_up(unsigned index, const fabric::segment &theirs, int wake_fd) noexcept
{
    peer &p = *helper.peers[index];
    const fabric::segment ours = std::exchange(p.own, fabric::segment{}); // in one place only: a child that is forked now closes what it finds
    fabric::channel_open(p.channel, ours, theirs, wake_fd, p.instance);
    p.quiet.end();
    helper.accepted -= p.state == peer_state::accepted;
    p.state = peer_state::up;
    affinity_look(p);
    const engine_guard guard;
    engine_state      &e = engine();
    p.l.channel          = &p.channel;
    p.l.index            = index;
    e.links[index]       = &p.l;
    e.link_count         = std::max(e.link_count, index + 1);
    ++e.peers.peers_connected;
    record(record_kind::peer_up, 0, 0, 0, 0, p.instance, index);
    p.channel.own.control()->park.store(e.asleep ? e.park_word : 0, std::memory_order_seq_cst);
    single_copy_open(p.l, p.pid, p.pidfd);
    update_yield();
    helper.next_lookup = 0;
    SOFTEFA_POINT(link_up);
}

/// What the peer is to see.
base::result<fabric::segment> own_segment() noexcept
{
    auto own = fabric::segment_create(helper.instance, helper.cut_rule);
    if (own)
        single_copy_offer(*own->control());
    else
        shortage_look();
    return own;
}

} // namespace

void shortage_look() noexcept
{
    if (!fabric::fds_left(1))
        descriptors_ran_out();
}

attempt peer_connect(std::uint64_t instance) noexcept
{
    if (is_full())
        return attempt::no_room;
    if (!descriptors_suffice())
        return attempt::begun;
    auto socket = helper.names->connect(instance);
    if (!socket && socket.error() == status::no_resource)
        shortage_look();
    if (!socket)
        return socket.error() == status::busy ? attempt::crowded : socket.error() == status::peer_gone ? attempt::nobody : attempt::begun;
    const unsigned i = peer_open(*socket, peer_state::connecting, instance);
    if (i == 0)
        return attempt::begun;
    auto own = own_segment();
    if (own)
        helper.peers[i]->own = *own;
    const message hello{message_kind::hello, helper.instance, instance, own ? own->fd : -1, helper.wake_fd};
    if (!own || fabric::message_send(helper.peers[i]->socket, hello) != status::ok)
        peer_close(i);
    else
        SOFTEFA_POINT(hello_sent);
    return attempt::begun;
}

namespace {

void on_hello(unsigned index, const message &m) noexcept
{
    peer          &p    = *helper.peers[index];
    const unsigned mine = peer_find(m.instance, peer_state::connecting);
    const bool     busy = peer_find(m.instance, peer_state::up) != 0 || (mine != 0 && helper.instance < m.instance);
    const bool     full = !busy && mine == 0 && is_full();
    if (m.to != helper.instance || busy || full) {
        if (busy || full)
            (void)fabric::message_send(p.socket, {busy ? message_kind::busy : message_kind::bye, helper.instance, m.instance});
        fabric::raw_close(m.segment);
        fabric::raw_close(m.wake);
        peer_close(index);
        return;
    }
    if (mine != 0)
        peer_close(mine);
    if (const unsigned refused = peer_find(m.instance, peer_state::refused); refused != 0)
        peer_close(refused); // it has room now
    p.instance  = m.instance;
    auto theirs = fabric::segment_open_peer(m.segment, m.instance);
    auto own    = own_segment();
    if (own)
        p.own = *own;
    const message welcome{message_kind::welcome, helper.instance, m.instance, own ? own->fd : -1, helper.wake_fd};
    if (!theirs || !own || fabric::message_send(p.socket, welcome) != status::ok) {
        if (theirs)
            fabric::segment_close(*theirs);
        fabric::raw_close(m.wake);
        peer_close(index);
        return;
    }
    SOFTEFA_POINT(welcome_sent);
    peer_up(index, *theirs, m.wake);
}

void on_welcome(unsigned index, const message &m) noexcept
{
    peer &p     = *helper.peers[index];
    auto theirs = fabric::segment_open_peer(m.segment, m.instance);
    if (!theirs || m.instance != p.instance || m.to != helper.instance) {
        if (theirs)
            fabric::segment_close(*theirs);
        fabric::raw_close(m.wake);
        peer_close(index);
        return;
    }
    peer_up(index, *theirs, m.wake);
}

/// It has no room for us, or is leaving: whoever has work for it asks again a little later.
void on_refusal(unsigned index) noexcept
{
    peer &p = *helper.peers[index];
    std::atomic_ref(helper.peers[index]).store(nullptr, std::memory_order_seq_cst); // HLP-4
    forget(p.socket);
    fabric::segment_close(p.own);
    p.state = peer_state::refused;
    p.since = base::clock_now_ns();
    std::atomic_ref(helper.peers[index]).store(&p, std::memory_order_seq_cst);
}

/// Of another version, or no Soft EFA at all: whoever has work for it waits, and should know why.
void count_foreign_words() noexcept
{
    const engine_guard guard;
    ++engine().peers.peers_failed;
    engine().peers.last_failure = "first words of another version";
    if (!std::exchange(helper.told_foreign, true))
        publish_notice("a process that speaks another version's language tried to connect and was refused");
}

} // namespace

void peer_on_socket(unsigned index) noexcept
{
    peer &p = *helper.peers[index];
    auto  m = fabric::message_receive(p.socket);
    if (!m) {
        if (m.error() == status::protocol)
            count_foreign_words();
        if (m.error() == status::limit)
            descriptors_ran_out();
        if (m.error() != status::no_resource)
            peer_close(index);
        return;
    }
    if (m->kind == message_kind::hello && p.state == peer_state::accepted) {
        on_hello(index, *m);
    } else if (m->kind == message_kind::welcome && p.state == peer_state::connecting) {
        on_welcome(index, *m);
    } else if (m->kind == message_kind::bye && p.state == peer_state::connecting) {
        on_refusal(index);
    } else { // busy, bye, or nothing that belongs here
        fabric::raw_close(m->segment);
        fabric::raw_close(m->wake);
        peer_close(index);
    }
}

void peers_accept() noexcept
{
    for (unsigned k = 0; k < 64; ++k) {
        if (!descriptors_suffice()) {
            helper_watch_listener(false);
            return;
        }
        const int fd = fabric::fd_settle_private(accept4(helper.listen_fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (fd < 0) {
            const bool out = errno == EMFILE || errno == ENFILE;
            if (out || errno == ENOBUFS || errno == ENOMEM)
                helper_watch_listener(false);
            if (out)
                descriptors_ran_out();
            return;
        }
        peer_open(fd, peer_state::accepted, 0);
    }
}

void peers_drop_failed_and_silent() noexcept
{
    const base::time_ns now = base::clock_now_ns();
    for (unsigned i = 1; i < limits::links; ++i) {
        if (helper.peers[i] == nullptr)
            continue;
        const peer &p = *helper.peers[i];
        bool        failed = false;
        if (p.state == peer_state::up) {
            const engine_guard guard; // whoever holds it may find a link at fault
            failed = p.l.failed && !p.l.lingers;
        }
        if (failed || (p.state == peer_state::accepted && now - p.since > handshake_limit))
            peer_close(i);
    }
}

void peers_drop_unresponsive(base::time_ns now) noexcept
{
    for (unsigned i = 1; i < limits::links; ++i) {
        if (helper.peers[i] == nullptr || helper.peers[i]->state != peer_state::up)
            continue;
        peer         &p = *helper.peers[i];
        std::uint64_t progress = 0;
        {
            const engine_guard guard;
            const bool outstanding = !p.l.failed && cut_outstanding(p.l, &progress);
            if (!outstanding || progress != p.progress)
                p.quiet.end();
            p.progress = progress;
            if (!outstanding || !p.quiet.goes_on(now, helper.unresponsive))
                continue;
            cut_begin(p.l);
        }
        const bool fenced = helper.cut_rule != fabric::cut_barrier;
        if (fenced)
            std::atomic_thread_fence(std::memory_order_seq_cst);
        const bool ordered = fenced || syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0; // a sandbox may have come since the rule was made
        (void)fabric::message_send(p.socket, {message_kind::bye, helper.instance, p.instance}); // for when it goes on
        const engine_guard guard;
        cut_finish(p.l, ordered);
        ++engine().peers.peers_unresponsive;
    }
}

} // namespace softefa::dev
