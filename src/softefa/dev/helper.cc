/* See helper.h.
 *
 * Connecting. A destination that the engine does not know parks its work; the helper finds the owner of the QPN in the registry, connects, exchanges
 * segments, publishes the link and lets the parked work go. When two processes connect to each other at once, the connection that the smaller
 * instance began is kept; the other side answers busy. Whatever goes wrong frees the slot, and work that is still parked is looked at again a
 * little later: the registry decides each time anew, so no state has to be repaired.
 *
 * Sleeping. While the application polls, the helper only looks now and then whether it still does. Once it does not, the helper marks the process
 * as sleeping in every own segment (channel.h, CH-1), serves what there is until nothing moves, and sleeps until a peer, a timer or the
 * application wakes it. An application that polls many times in a row ends that (engine_poll). An idle process uses no processor time.
 *
 * The end of a peer is the end of its process (pidfd; forked children may keep its sockets open) or of its socket (exec, or goodbye). Its rings
 * stay readable: what it had published is taken first, so that an acknowledgement that was sent counts; then the rest of the work ends.
 *
 *   HLP-1  a link is published only when both segments are mapped, and closed only after the engine has forgotten it.
 *   HLP-2  asleep implies that every own park word is odd.
 */
#include "softefa/dev/helper.h"

#include "base/clock.h"
#include "softefa/dev/engine_state.h"
#include "softefa/fabric/handshake.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <new>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::dev {

namespace {

using fabric::message;
using fabric::message_kind;

constexpr unsigned     tick_ms_min = 1, tick_ms_max = 4; ///< looks at a polling application
constexpr base::time_ns lookup_pause = base::ms(20);     ///< between two looks at work that is still parked
constexpr base::time_ns handshake_limit = base::sec(10); ///< an accepted connection that never says hello
constexpr base::time_ns accept_pause = base::ms(20);     ///< without accepting, after descriptors or memory ran out
constexpr base::time_ns silent_check = base::sec(1);     ///< between two looks for silent connections
constexpr unsigned     serve_rounds = 4096;              ///< passes before the sockets are looked at again

enum class peer_state : std::uint8_t {
    connecting, ///< we sent hello and wait for welcome
    accepted,   ///< somebody connected and has not said hello
    up,         ///< the engine knows the link
};

struct peer {
    peer_state      state  = peer_state::accepted;
    int             socket = -1, pidfd = -1;
    std::uint64_t   instance = 0;
    base::time_ns   since = 0;
    fabric::segment own; ///< until it moves into the channel
    fabric::channel channel;
    link            l;
};

struct helper_state {
    fabric::registry *names = nullptr;
    std::uint64_t     instance = 0;
    int               wake_fd = -1, epoll_fd = -1, listen_fd = -1;
    pthread_t         thread{};
    pid_t             process = 0; ///< that the thread belongs to; a forked child has none
    std::atomic<bool> running = false, stop = false;
    peer             *peers[limits::links] = {}; ///< index of the link; 0 is the process itself and not here
    base::time_ns     next_lookup = 0, next_silent_check = 0;
    base::time_ns     accept_again = 0; ///< 0: the listener is being watched
    unsigned          accepted = 0;     ///< peers in state `accepted`
};
helper_state h;

enum class source : std::uint32_t { wake, listener, socket, pidfd };

void watch(int fd, source s, unsigned index) noexcept
{
    epoll_event event{};
    event.events   = EPOLLIN;
    event.data.u64 = (std::uint64_t{static_cast<std::uint32_t>(s)} << 32) | index;
    epoll_ctl(h.epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

/// The listener is level-triggered: what cannot be accepted now must not wake us without end.
void watch_listener(bool wanted) noexcept
{
    epoll_event event{};
    event.events   = wanted ? EPOLLIN : 0u;
    event.data.u64 = std::uint64_t{static_cast<std::uint32_t>(source::listener)} << 32;
    epoll_ctl(h.epoll_fd, EPOLL_CTL_MOD, h.listen_fd, &event);
    h.accept_again = wanted ? 0 : base::clock_now_ns() + accept_pause;
}

void forget(int &fd) noexcept
{
    if (fd >= 0) {
        epoll_ctl(h.epoll_fd, EPOLL_CTL_DEL, fd, nullptr);
        fabric::raw_close(fd);
    }
    fd = -1;
}

// --- processors

/// Polls without result before the processor is offered: only where there are more processes than processors.
void update_yield() noexcept // engine lock held
{
    static const unsigned cores = [] {
        cpu_set_t set;
        return sched_getaffinity(0, sizeof(set), &set) == 0 ? static_cast<unsigned>(CPU_COUNT(&set)) : 1u;
    }();
    engine_state &e    = engine();
    unsigned      live = 0;
    for (unsigned i = 0; i < e.link_count; ++i)
        live += e.links[i] != nullptr;
    e.yield_after = live > cores ? 32 : yield_never;
}

// --- peers

unsigned free_slot() noexcept
{
    unsigned i = 1;
    while (i < limits::links && h.peers[i] != nullptr)
        ++i;
    return i;
}

unsigned find_peer(std::uint64_t instance, peer_state state) noexcept
{
    for (unsigned i = 1; i < limits::links; ++i)
        if (h.peers[i] != nullptr && h.peers[i]->instance == instance && h.peers[i]->state == state)
            return i;
    return 0;
}

/// A slot for a connected socket; takes the socket over.
unsigned peer_open(int socket, peer_state state, std::uint64_t instance) noexcept
{
    const unsigned i = free_slot();
    int            pidfd = -1;
    peer          *p = i < limits::links && fabric::peer_identify(socket, &pidfd) ? new (std::nothrow) peer() : nullptr;
    if (p == nullptr) {
        fabric::raw_close(pidfd);
        fabric::raw_close(socket);
        return 0;
    }
    p->state    = state;
    p->socket   = socket;
    p->pidfd    = pidfd;
    p->instance = instance;
    p->since    = base::clock_now_ns();
    h.peers[i]  = p;
    h.accepted += state == peer_state::accepted;
    watch(socket, source::socket, i);
    if (pidfd >= 0)
        watch(pidfd, source::pidfd, i);
    return i;
}

void detach_link(unsigned index, peer &p) noexcept
{
    const engine_guard guard;
    engine_state      &e = engine();
    p.l.gone             = true;
    p.l.read_count       = 0;
    for (unsigned rounds = 0; rounds < 4096 && !p.l.failed && p.channel.has_input(); ++rounds)
        if (!engine_run_link(p.l))
            break;
    e.links[index] = nullptr;
    for (unsigned d = 0; d < limits::devices; ++d)
        for (unsigned q = 0; e.routes[d] != nullptr && q < 65536; ++q)
            if (e.routes[d][q] == index + 1)
                e.routes[d][q] = 0;
    requester_link_gone(p.l);
    engine_flush_wakes();
    ++e.peers.peers_gone;
    while (e.link_count > 1 && e.links[e.link_count - 1] == nullptr)
        --e.link_count;
    update_yield();
}

void peer_close(unsigned index) noexcept
{
    peer &p = *h.peers[index];
    if (p.state == peer_state::up)
        detach_link(index, p);
    h.accepted -= p.state == peer_state::accepted;
    forget(p.socket);
    forget(p.pidfd);
    if (p.state == peer_state::up)
        fabric::channel_close(p.channel);
    else
        fabric::segment_close(p.own);
    delete &p;
    h.peers[index] = nullptr;
    h.next_lookup  = 0;
}

/// Both segments are there: the engine may use it (HLP-1).
void peer_up(unsigned index, const fabric::segment &theirs, int wake_fd) noexcept
{
    peer &p = *h.peers[index];
    fabric::channel_open(p.channel, p.own, theirs, wake_fd, p.instance);
    p.own   = fabric::segment{};
    h.accepted -= p.state == peer_state::accepted;
    p.state = peer_state::up;
    const engine_guard guard;
    engine_state      &e = engine();
    p.l.channel          = &p.channel;
    p.l.index            = index;
    e.links[index]       = &p.l;
    e.link_count         = std::max(e.link_count, index + 1);
    ++e.peers.peers_connected;
    p.channel.own.control()->park.store(e.asleep ? e.park_word : 0, std::memory_order_seq_cst);
    update_yield();
    h.next_lookup = 0;
}

void begin_connect(std::uint64_t instance) noexcept
{
    auto socket = h.names->connect(instance);
    if (!socket)
        return;
    const unsigned i = peer_open(*socket, peer_state::connecting, instance);
    if (i == 0)
        return;
    auto own = fabric::segment_create(h.instance);
    if (own)
        h.peers[i]->own = *own;
    const message hello{message_kind::hello, h.instance, instance, own ? own->fd : -1, h.wake_fd};
    if (!own || fabric::message_send(h.peers[i]->socket, hello) != status::ok)
        peer_close(i);
}

void on_hello(unsigned index, const message &m) noexcept
{
    peer          &p    = *h.peers[index];
    const unsigned mine = find_peer(m.instance, peer_state::connecting);
    const bool     busy = find_peer(m.instance, peer_state::up) != 0 || (mine != 0 && h.instance < m.instance);
    if (m.to != h.instance || busy) {
        if (busy)
            (void)fabric::message_send(p.socket, {message_kind::busy, h.instance, m.instance});
        fabric::raw_close(m.segment);
        fabric::raw_close(m.wake);
        peer_close(index);
        return;
    }
    if (mine != 0)
        peer_close(mine);
    p.instance  = m.instance;
    auto theirs = fabric::segment_open_peer(m.segment, m.instance);
    auto own    = fabric::segment_create(h.instance);
    if (own)
        p.own = *own;
    const message welcome{message_kind::welcome, h.instance, m.instance, own ? own->fd : -1, h.wake_fd};
    if (!theirs || !own || fabric::message_send(p.socket, welcome) != status::ok) {
        if (theirs)
            fabric::segment_close(*theirs);
        fabric::raw_close(m.wake);
        peer_close(index);
        return;
    }
    peer_up(index, *theirs, m.wake);
}

void on_welcome(unsigned index, const message &m) noexcept
{
    peer &p     = *h.peers[index];
    auto theirs = fabric::segment_open_peer(m.segment, m.instance);
    if (!theirs || m.instance != p.instance || m.to != h.instance) {
        if (theirs)
            fabric::segment_close(*theirs);
        fabric::raw_close(m.wake);
        peer_close(index);
        return;
    }
    peer_up(index, *theirs, m.wake);
}

void on_socket(unsigned index) noexcept
{
    peer &p = *h.peers[index];
    auto  m = fabric::message_receive(p.socket);
    if (!m) {
        if (m.error() != status::no_resource)
            peer_close(index);
        return;
    }
    if (m->kind == message_kind::hello && p.state == peer_state::accepted) {
        on_hello(index, *m);
    } else if (m->kind == message_kind::welcome && p.state == peer_state::connecting) {
        on_welcome(index, *m);
    } else { // busy, bye, or nothing that belongs here
        fabric::raw_close(m->segment);
        fabric::raw_close(m->wake);
        peer_close(index);
    }
}

void on_listener() noexcept
{
    for (unsigned k = 0; k < 64; ++k) {
        const int fd = accept4(h.listen_fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                watch_listener(false);
            return;
        }
        peer_open(fd, peer_state::accepted, 0);
    }
}

// --- destinations of parked work

struct destination {
    std::uint8_t  device;
    std::uint16_t qpn;
};

unsigned collect(destination *out, unsigned most) noexcept
{
    const engine_guard guard;
    unsigned           count = 0;
    for (const op *o = engine().parked.head; o != nullptr && count < most; o = o->next) {
        bool known = false;
        for (unsigned i = 0; i < count; ++i)
            known |= out[i].device == o->device && out[i].qpn == o->dst_qpn;
        if (!known)
            out[count++] = {o->device, o->dst_qpn};
    }
    return count;
}

/// Lets the work for one destination go: over a link, or (link 0) to its end. Without `ended` it is only a route.
void settle(const destination &d, unsigned index, bool ended) noexcept
{
    const engine_guard guard;
    engine_state      &e = engine();
    if (!ended)
        e.routes[d.device][d.qpn] = static_cast<std::uint16_t>(index + 1);
    for (op *o = e.parked.head, *next = nullptr; o != nullptr; o = next) {
        next = o->next;
        if (o->device != d.device || o->dst_qpn != d.qpn)
            continue;
        e.parked.remove(*o);
        if (ended && e.routes[d.device][d.qpn] == 0)
            requester_end(*o, wire::efa_status::bad_dest_qpn);
        else
            requester_submit(*o);
    }
}

/// True if work is still parked.
bool look_up_parked() noexcept
{
    destination    wanted[64];
    const unsigned count = collect(wanted, 64);
    bool           waits = false;
    for (unsigned i = 0; i < count; ++i) {
        const std::uint64_t instance = h.names->owner(wanted[i].device, wanted[i].qpn);
        if (instance == 0 || instance == h.instance) {
            settle(wanted[i], 0, true);
            continue;
        }
        const unsigned up = find_peer(instance, peer_state::up);
        if (up != 0) {
            settle(wanted[i], up, false);
            continue;
        }
        waits = true;
        if (find_peer(instance, peer_state::connecting) == 0)
            begin_connect(instance);
    }
    return waits;
}

void drop_failed_and_silent() noexcept
{
    const base::time_ns now = base::clock_now_ns();
    for (unsigned i = 1; i < limits::links; ++i) {
        if (h.peers[i] == nullptr)
            continue;
        const peer &p = *h.peers[i];
        if ((p.state == peer_state::up && p.l.failed) || (p.state == peer_state::accepted && now - p.since > handshake_limit))
            peer_close(i);
    }
}

// --- sleeping

/// Stores the next odd word everywhere: producers that woke us for the last one may do so again.
void mark_asleep() noexcept // engine lock held
{
    engine_state &e = engine();
    e.park_word     = (e.park_word + 2) | 1;
    for (unsigned i = 1; i < e.link_count; ++i)
        if (e.links[i] != nullptr)
            e.links[i]->channel->own.control()->park.store(e.park_word, std::memory_order_relaxed);
    e.asleep = true;
    std::atomic_thread_fence(std::memory_order_seq_cst); // CH-1: the word first, then the last look
}

/// Serves until nothing moves; returns when to look again (0: at once, ~0: when woken).
base::time_ns serve() noexcept
{
    engine_state &e = engine();
    for (unsigned round = 0; round < serve_rounds; ++round) {
        const engine_guard guard;
        if (round == 0) {
            mark_asleep();
            e.timer_skip = timer_polls - 1; // look at the clock in this pass
        }
        if (!engine_run()) {
            const base::time_ns now = base::clock_now_ns();
            if (e.rnr.empty())
                return ~base::time_ns{0};
            return e.rnr.head->deadline_ns > now ? e.rnr.head->deadline_ns - now : 1;
        }
    }
    return 0;
}

void wait_events(epoll_event *events, int room, int *count_p, base::time_ns pause) noexcept
{
    if (pause == ~base::time_ns{0}) {
        *count_p = epoll_wait(h.epoll_fd, events, room, -1);
        return;
    }
    const timespec limit{static_cast<time_t>(pause / 1'000'000'000u), static_cast<long>(pause % 1'000'000'000u)};
    *count_p = static_cast<int>(syscall(SYS_epoll_pwait2, h.epoll_fd, events, room, &limit, nullptr, 0ul));
    if (*count_p == -1 && errno != EINTR) // before Linux 5.11, or denied by a sandbox that does not know it
        *count_p = epoll_wait(h.epoll_fd, events, room, static_cast<int>((pause + 999'999) / 1'000'000));
}

void dispatch(const epoll_event *events, int count) noexcept
{
    for (int k = 0; k < count; ++k) {
        const auto     from  = static_cast<source>(events[k].data.u64 >> 32);
        const unsigned index = static_cast<std::uint32_t>(events[k].data.u64);
        std::uint64_t  ignored;
        switch (from) {
        case source::wake: (void)!read(h.wake_fd, &ignored, sizeof(ignored)); break;
        case source::listener: on_listener(); break;
        case source::socket:
            if (h.peers[index] != nullptr)
                on_socket(index);
            break;
        case source::pidfd:
            if (h.peers[index] != nullptr)
                peer_close(index);
            break;
        }
        if (from == source::socket || from == source::pidfd)
            break; // a slot may have been reused: fresh events only; epoll is level-triggered
    }
}

void *helper_main(void *) noexcept
{
    engine_state &e          = engine();
    std::uint64_t last_polls = e.polls.load(std::memory_order_relaxed);
    unsigned      tick_ms    = tick_ms_min;
    base::time_ns pause      = base::ms(tick_ms_min);
    bool          parked     = false;
    epoll_event   events[32];

    while (!h.stop.load(std::memory_order_acquire)) {
        int count = 0;
        wait_events(events, 32, &count, pause);
        dispatch(events, count);
        const base::time_ns now = base::clock_now_ns();
        if (e.failed_links.exchange(false, std::memory_order_relaxed) || (h.accepted != 0 && now >= h.next_silent_check)) {
            drop_failed_and_silent();
            h.next_silent_check = now + silent_check;
        }
        if (h.accept_again != 0 && now >= h.accept_again)
            watch_listener(true);
        const bool fresh = e.lookup_wanted.exchange(false, std::memory_order_acq_rel);
        if (fresh || (parked && base::clock_now_ns() >= h.next_lookup)) {
            parked        = look_up_parked();
            h.next_lookup = base::clock_now_ns() + lookup_pause;
        }
        const std::uint64_t polls  = e.polls.load(std::memory_order_relaxed);
        const bool          active = polls != last_polls && !e.waiter.exchange(false, std::memory_order_relaxed);
        last_polls = polls;
        if (active && !e.asleep.load(std::memory_order_relaxed)) {
            tick_ms = std::min(tick_ms * 2, tick_ms_max);
            pause   = base::ms(tick_ms);
        } else {
            tick_ms = tick_ms_min;
            pause   = serve();
        }
        if (parked)
            pause = std::min(pause, lookup_pause);
        if (h.accept_again != 0)
            pause = std::min(pause, accept_pause);
        if (h.accepted != 0)
            pause = std::min(pause, silent_check);
    }
    return nullptr;
}

void close_all() noexcept
{
    for (unsigned i = 1; i < limits::links; ++i) {
        if (h.peers[i] == nullptr)
            continue;
        (void)fabric::message_send(h.peers[i]->socket, {message_kind::bye, h.instance, h.peers[i]->instance});
        peer_close(i);
    }
    fabric::raw_close(h.listen_fd);
    fabric::raw_close(h.epoll_fd);
    fabric::raw_close(h.wake_fd);
    h.listen_fd = h.epoll_fd = h.wake_fd = -1;
    h.accept_again = 0;
}

bool start_thread() noexcept
{
    sigset_t       all, before;
    pthread_attr_t attributes;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&h.thread, &attributes, helper_main, nullptr);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
    if (failed == 0)
        pthread_setname_np(h.thread, "softefa");
    return failed == 0;
}

} // namespace

status helper_start(fabric::registry &names, std::uint64_t instance) noexcept
{
    if (h.running.load(std::memory_order_relaxed))
        return status::ok;
    h.names    = &names;
    h.instance = instance;
    h.stop.store(false, std::memory_order_relaxed);
    h.wake_fd  = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    h.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    auto listener = names.listen();
    if (!listener && listener.error() != status::unsupported) {
        close_all();
        return listener.error();
    }
    h.listen_fd = listener ? *listener : -1;
    if (h.wake_fd < 0 || h.epoll_fd < 0) {
        close_all();
        return status::limit;
    }
    watch(h.wake_fd, source::wake, 0);
    if (h.listen_fd >= 0)
        watch(h.listen_fd, source::listener, 0);
    h.process = getpid();
    if (!start_thread()) {
        close_all();
        return status::no_memory;
    }
    h.running.store(true, std::memory_order_release);
    return status::ok;
}

void helper_stop() noexcept
{
    if (!h.running.load(std::memory_order_acquire) || h.process != getpid())
        return;
    h.stop.store(true, std::memory_order_release);
    helper_kick();
    pthread_join(h.thread, nullptr);
    {
        // Kicks happen under the engine lock: none is under way when the descriptor's number is given back.
        const engine_guard guard;
        h.running.store(false, std::memory_order_release);
        engine().asleep.store(false, std::memory_order_relaxed);
    }
    close_all();
}

bool helper_running() noexcept { return h.running.load(std::memory_order_acquire); }

void helper_kick() noexcept
{
    const int           saved = errno;
    const std::uint64_t one   = 1;
    if (h.running.load(std::memory_order_acquire))
        (void)!syscall(SYS_write, h.wake_fd, &one, sizeof(one));
    errno = saved;
}

} // namespace softefa::dev
