/* What the helper thread knows: its descriptors and its peers. Shared by helper.cc (its life), helper_loop.cc (its
 * work), peers.cc (connecting and parting) and lookup.cc (whom parked work is for).
 *
 * Only the helper thread touches it while it runs; helper_start() and helper_stop() do before and after.
 */
#pragma once

#include "base/clock.h"
#include "softefa/dev/engine_state.h"
#include "softefa/dev/helper.h"
#include "softefa/dev/linger.h"
#include "softefa/fabric/handshake.h"
#include "softefa/fabric/private_fd.h"

#include <algorithm>
#include <pthread.h>
#include <sched.h>

namespace softefa::dev {

constexpr base::time_ns lookup_pause = base::ms(20);     ///< between two looks at work that is still parked
constexpr base::time_ns nobody_listens_limit = base::ms(100); ///< work for a number that is owned by a process that nobody can connect to
constexpr base::time_ns no_room_limit = base::sec(1);    ///< work for a process, where it or this one has as many peers as it can have
constexpr base::time_ns refused_pause = base::ms(100);   ///< until it is asked again
constexpr base::time_ns handshake_limit = base::sec(10); ///< an accepted connection that never says hello
constexpr base::time_ns accept_pause = base::ms(20);     ///< without accepting, after descriptors or memory ran out
constexpr base::time_ns scarce_for = base::sec(1);       ///< after descriptors ran out, a peer is begun only once there are enough for it
constexpr unsigned      fds_of_peer = 5;                 ///< socket, pidfd, both segments, wake
constexpr unsigned      fds_of_hello = 3, fds_of_welcome = 2; ///< of these, what a peer in state `accepted`, or `connecting`, has still to come

enum class peer_state : std::uint8_t {
    connecting, ///< we sent hello and wait for welcome
    accepted,   ///< somebody connected and has not said hello
    up,         ///< the engine knows the link
    refused,    ///< it said bye instead of welcome, for want of room; no socket any more. Asked again behind refused_pause; gone with its process, or where the slot is wanted
};

/// How long a process has not moved while it should have. It is the sum of the times between looks, and each counts as half the limit at most:
/// who was stopped, starved or busy itself has not seen the other one idle, and looks once more before it judges.
struct silence {
    base::time_ns looked_at = 0; ///< 0: nothing was expected of it then
    base::time_ns lasted    = 0;

    void end() noexcept { *this = {}; }
    /// Expected to move, and did not since the last look. True once that has lasted for `limit`.
    bool goes_on(base::time_ns now, base::time_ns limit) noexcept
    {
        if (looked_at != 0)
            lasted += std::min(now - looked_at, limit / 2);
        looked_at = now;
        return lasted >= limit;
    }
};

struct peer {
    peer_state      state  = peer_state::accepted;
    int             socket = -1, pidfd = -1;
    int             pid = 0; ///< as seen from here; 0: not seen
    std::uint64_t   instance = 0;
    base::time_ns   since = 0;
    std::uint64_t   progress = 0;     ///< when it was last looked at
    silence         quiet;            ///< while connecting: without an answer; while up: without progress of what is outstanding
    fabric::segment own; ///< until it moves into the channel
    fabric::channel channel;
    link            l;
    cpu_set_t       runs_on = {};     ///< processors that it may use, as they were when it came up
};

/// A process that could not be connected to, and for how long.
struct crowd {
    std::uint64_t instance = 0; ///< 0: free
    silence       quiet;
};

struct helper_state {
    fabric::registry *names = nullptr;
    std::uint64_t     instance = 0;
    int               wake_fd = -1, epoll_fd = -1, listen_fd = -1;
    pthread_t         thread{};
    cpu_set_t         runs_on = {};   ///< processors that this process may use, as they were when the last peer came up
    pid_t             process = 0; ///< that the thread belongs to; a forked child has none
    std::atomic<bool> running = false, stop = false;
    std::uintptr_t    generation = 0;          ///< of the thread that was started last
    std::atomic<std::uintptr_t> waiting = 0;   ///< generation of the thread that waits for events, 0: none does (HLP-3)
    peer             *peers[limits::links] = {}; ///< index of the link; 0 is the process itself and not here
    base::time_ns     next_lookup = 0, next_silent_check = 0;
    base::time_ns     accept_again = 0; ///< 0: the listener is being watched
    unsigned          accepted = 0;     ///< peers in state `accepted`
    unsigned          peers_most = limits::peers; ///< constant; a test sets it before the thread starts
    base::time_ns     scarce_until = 0; ///< descriptors ran out not long before
    bool              told_full = false, told_scarce = false, told_foreign = false; ///< once in the life of a process
    base::time_ns     unresponsive = 0; ///< a peer that does not move for so long is given up; 0 = never
    base::time_ns     next_progress_check = 0;
    bool              naps = false;       ///< rings are read directly: never sleeps for long
    base::time_ns     moved_at = 0;       ///< when a pass last moved anything
    linger_rule       lingers;            ///< tests set it before the thread starts
    std::atomic<std::uint64_t> wakes = 0; ///< times that somebody woke it, ever
    std::uint64_t     polls_seen = 0;     ///< of the application, at the last look at them
    base::time_ns     polls_at = 0;       ///< when that was
    bool              waiter_seen = false; ///< somebody blocked on a channel then
    crowd             crowds[64] = {};  ///< whose backlog was full when we tried last
    std::uint32_t     cut_rule = 0;     ///< fabric::cut_rule for segments of this process
};
extern helper_state helper;

enum class source : std::uint32_t { wake, listener, socket, pidfd };

// --- helper_loop.cc
/// The thread. `generation`: its number, as HLP-3 wants it.
void *helper_loop(void *generation) noexcept;
// --- peers.cc
/// False: the kernel has no room for it.
[[nodiscard]] bool helper_watch(int fd, source s, unsigned index) noexcept;
/// The listener is level-triggered: what cannot be accepted now must not wake us without end.
void helper_watch_listener(bool wanted) noexcept;
/// Its slot, 0: there is none in that state.
unsigned peer_find(std::uint64_t instance, peer_state state) noexcept;
/// Something failed that may have done so for want of descriptors: says so, once, if there are none left.
void shortage_look() noexcept;
enum class attempt : std::uint8_t {
    begun,   ///< or a shortage of this process's, which is waited out
    crowded, ///< its backlog is full
    nobody,  ///< there is no socket, or none that listens
    no_room, ///< this process has as many peers as it can have
};
attempt peer_connect(std::uint64_t instance) noexcept;
void peer_close(unsigned index) noexcept;
void peer_on_socket(unsigned index) noexcept;
void peers_accept() noexcept;
void peers_drop_failed_and_silent() noexcept;
/// Gives up who does not move.
void peers_drop_unresponsive(base::time_ns now) noexcept;
// --- lookup.cc
/// Destinations of parked work. True if work is still parked.
bool peers_look_up_parked() noexcept;

} // namespace softefa::dev
