/* Open devices: what the kernel would keep for each open /dev/infiniband/uverbsN.
 *
 * Owns: the memfd that stands for the device node, the fds that were handed out with it, and the order of teardown. A file
 * is recognised by the inode of its memfd, never by an fd number: numbers are duplicated, replaced and reused by anybody.
 * Refuses to know: libc interposition (preload calls in), the meaning of commands (one file per object).
 *
 * Invariants
 *   FIL-1  a command in progress keeps its file alive; the last of close and commands tears down.
 *   FIL-2  the device's context is closed before the memory and the pipes that it uses.
 *   FIL-3  in a forked child every file of the parent is dead: commands get EIO, nothing is freed.
 *   FIL-4  file_recognise() takes no lock and makes no system call: it is behind every fstat of the process, also in signal handlers.
 */
#pragma once

#include "softefa/dev/device.h"
#include "softefa/uverbs/verbs_hooks.h"

#include <atomic>
#include <cstdint>

namespace softefa::uverbs {

constexpr unsigned file_count_max    = 256;  ///< open devices in one process
constexpr unsigned channel_count_max = 2048; ///< completion channels and async fds in one process

/// Identity of an open file: survives dup, changes with reuse of the number.
struct inode {
    std::uint64_t device = 0;
    std::uint64_t number = 0;
    bool          operator==(const inode &) const = default;
};

enum class file_state : std::uint8_t {
    free,   ///< slot is unused
    open,   ///< commands are served
    closed, ///< the application closed it; commands in progress finish
    dead,   ///< inherited by a forked child
};

struct open_file {
    std::atomic<file_state>    state{file_state::free};
    std::atomic<std::uint32_t> references{0}; ///< 1 while open, 1 for each command in progress
    inode                      identity;
    std::atomic<std::uint64_t> shown{0};          ///< FIL-4: inode number while an fstat of the memfd shows a device; 0: no more
    int                        app_fd       = -1; ///< number that open() returned
    int                        memory_fd    = -1; ///< our own duplicate of the memfd
    std::atomic<unsigned>      device_index{0};
    std::atomic<dev::handle>   context{0};        ///< 0 before GET_CONTEXT
    context_hooks              hooks;
};

/// A pipe whose read end the application holds: completion channel or async fd.
struct channel {
    open_file    *file     = nullptr; ///< null = free
    bool          is_async = false;
    inode         identity;
    int           app_fd   = -1;     ///< number of the read end that was handed out; -1 once the application closed it
    int           write_fd = -1;     ///< non-blocking
    int           read_fd  = -1;     ///< our duplicate of the read end: events can be taken back, no SIGPIPE
    std::uint32_t users    = 0;      ///< CQs; for the async fd that the device writes to, the context
};

/// open(2) of device `index`: an fd, or -errno. `flags` as for open.
int file_open(unsigned index, int flags) noexcept;

/// True if that is a device of ours; *index_p gets its number. FIL-4.
bool file_recognise(const inode &identity, unsigned *index_p) noexcept;
bool file_any_open() noexcept;
/// The same, and they are of this process: a vfork child shares the memory but not the descriptors.
bool file_any_of_process() noexcept;

/// ioctl(2): false: not ours. Else *error_p is 0 or an errno.
bool file_ioctl(int fd, void *argument, int *error_p) noexcept;

/// What close(2) must do.
enum class close_verdict : std::uint8_t {
    pass,    ///< not ours, or ours and prepared: close it
    refused, ///< an fd that we need and the application never got: EBADF
};
close_verdict file_closing(int fd) noexcept;

/// A completion channel or async fd for `file`: the fd, or -errno.
int  channel_open(open_file &file, bool is_async) noexcept;
/// After a failed answer: closes the application's end too.
void channel_abandon(int fd) noexcept;
/// The channel of `file` behind `fd`, with one more user; null: none.
channel *channel_get(open_file &file, int fd, bool is_async) noexcept;
void     channel_put(channel *c) noexcept;
/// Takes unread events of `user_handle` out of the pipe; returns how many there were.
std::uint32_t channel_drain(channel *c, std::uint64_t user_handle) noexcept;
/// The same for the asynchronous events of an element of `file`.
std::uint32_t channel_drain_async(const open_file &file, std::uint64_t element) noexcept;

/// The application closes `fd`, which may be its end of a channel.
void channel_closing(int fd) noexcept;
/// The file is going: its pipes close.
void channel_release_all(const open_file &file) noexcept;
void channels_forked() noexcept;

/// pthread_atfork, child side.
void file_process_forked() noexcept;

} // namespace softefa::uverbs
