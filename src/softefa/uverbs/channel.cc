/* Completion channels and async fds: pipes, so that read, poll and epoll need no help.
 *
 * The device writes 8-byte records to the write end. A read end of our own serves two ends: unread events of a
 * CQ can be taken back when it is destroyed (libibverbs would wait for ever for their acknowledgement), and a write after
 * the application closed its end raises no SIGPIPE.
 * Rejected: eventfd, whose counter adds events up and cannot say which CQ they came from.
 */
#include "softefa/fabric/private_fd.h"
#include "softefa/uverbs/dispatch.h"
#include "softefa/uverbs/fd_marks.h"
#include "softefa/uverbs/file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace softefa::uverbs {
namespace {

static_assert(sizeof(ib_uverbs_comp_event_desc) == sizeof(std::uint64_t) && sizeof(ib_uverbs_async_event_desc) == 16);

channel         channels[channel_count_max];
pthread_mutex_t channel_lock = PTHREAD_MUTEX_INITIALIZER;

class guard {
public:
    guard() { pthread_mutex_lock(&channel_lock); }
    ~guard() { pthread_mutex_unlock(&channel_lock); }
    guard(const guard &)            = delete;
    guard &operator=(const guard &) = delete;
};

/// Under the lock: gives the pipe back when neither the application nor a CQ uses it.
void release_if_unused(channel &c)
{
    if (c.app_fd >= 0 || c.users > 0) {
        return;
    }
    fabric::fd_drop_private(c.write_fd);
    fabric::fd_drop_private(c.read_fd);
    c = channel{};
}

/// A private read end that never blocks, whatever the application does with its own: an open file description of ours.
int open_read_end(int app_fd)
{
    char path[32];
    std::snprintf(path, sizeof(path), "/proc/self/fd/%d", app_fd);
    const int fd = static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (fd < 0) {
        return fd_duplicate_private(app_fd); // no /proc
    }
    const int own = fd_make_private(fd);
    if (own < 0) {
        const int error = errno;
        syscall(SYS_close, fd);
        errno = error;
    }
    return own;
}

/// Takes a record that is there, without waiting for one.
template <class Record> bool take_record(int fd, Record *record_p)
{
    constexpr ssize_t size = sizeof(Record);
    iovec             vector{record_p, sizeof(Record)};
    const ssize_t     taken = preadv2(fd, &vector, 1, -1, RWF_NOWAIT);
    if (taken >= 0 || errno != EOPNOTSUPP) {
        return taken == size;
    }
    // Pipes know RWF_NOWAIT since Linux 6.4.
    const int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_NONBLOCK) != 0 && read(fd, record_p, sizeof(Record)) == size;
}

std::uint64_t owner_of(std::uint64_t record) { return record; }
std::uint64_t owner_of(const ib_uverbs_async_event_desc &record) { return record.element; }

/// Takes the unread records of one owner out, and puts the others back. Under the lock.
template <class Record> std::uint32_t drain(channel &c, std::uint64_t owner)
{
    // The bound is the pipe's capacity in records: what is written meanwhile belongs to others and may stay.
    constexpr unsigned record_count_max = 65536 / sizeof(Record);

    std::uint32_t taken      = 0;
    unsigned      kept_count = 0;
    static Record kept[record_count_max]; // guarded by channel_lock
    for (unsigned i = 0; i < record_count_max; ++i) {
        Record record{};
        if (!take_record(c.read_fd, &record)) { // the application may have read what was there a moment ago
            break;
        }
        if (owner_of(record) == owner) {
            ++taken;
        } else {
            kept[kept_count++] = record;
        }
    }
    for (unsigned i = 0; i < kept_count; ++i) {
        if (write(c.write_fd, &kept[i], sizeof(Record)) != static_cast<ssize_t>(sizeof(Record))) {
            break; // full again: what filled it will wake the reader
        }
    }
    return taken;
}

/// The device writes the context's events to the first asynchronous descriptor that is asked for.
void give_to_device(open_file &file, int fd)
{
    guard g;
    channel *fresh = nullptr;
    for (auto &c : channels) {
        if (c.file != &file || !c.is_async) {
            continue;
        }
        if (c.users > 0) {
            return; // there is one
        }
        if (c.app_fd == fd) {
            fresh = &c;
        }
    }
    if (fresh != nullptr) {
        ++fresh->users; // until the file goes: the device may write at any time
        dev::context_set_async(context_of(file), fresh->write_fd);
    }
}

int create_channel(open_file &file, request &command)
{
    const int fd = channel_open(file, false);
    if (fd < 0) {
        return -fd;
    }
    const int error = command.write(UVERBS_ATTR_CORE_OUT, static_cast<std::uint32_t>(fd));
    if (error != 0) {
        channel_abandon(fd);
    }
    return error;
}

int alloc_async(open_file &file, request &command)
{
    const int fd = channel_open(file, true);
    if (fd < 0) {
        return -fd;
    }
    const int error = command.write_handle(abi::attr_alloc_async_fd, static_cast<std::uint32_t>(fd));
    if (error != 0) {
        channel_abandon(fd);
    } else {
        give_to_device(file, fd);
    }
    return error;
}

constexpr attr_spec alloc_async_attrs[] = {
    {abi::attr_alloc_async_fd, attr_kind::new_fd, true},
};
constexpr method_spec methods[] = {
    {UVERBS_OBJECT_ASYNC_EVENT, abi::method_async_alloc, true, alloc_async_attrs, alloc_async},
};
constexpr write_spec writes[] = {
    {IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL, sizeof(ib_uverbs_create_comp_channel), sizeof(std::uint32_t), true, create_channel},
};

} // namespace

const std::span<const method_spec> channel_methods{methods};
const std::span<const write_spec>  channel_writes{writes};

int channel_open(open_file &file, bool is_async) noexcept
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return -errno;
    }
    const int write_fd = fd_make_private(ends[1]);
    const int read_fd  = write_fd >= 0 ? open_read_end(ends[0]) : -1;
    if (read_fd < 0) {
        const int error = errno;
        syscall(SYS_close, ends[0]);
        if (write_fd >= 0) {
            fd_close_private(write_fd);
        } else {
            syscall(SYS_close, ends[1]);
        }
        return -error;
    }
    fcntl(write_fd, F_SETFL, O_NONBLOCK);

    guard g;
    for (auto &c : channels) {
        if (c.file != nullptr || c.write_fd >= 0) {
            continue;
        }
        c.file     = &file;
        c.is_async = is_async;
        c.app_fd   = ends[0];
        c.write_fd = write_fd;
        c.read_fd  = read_fd;
        c.users    = 0;
        fd_identify(ends[0], &c.identity);
        fd_mark_handed_out(ends[0]);
        return ends[0];
    }
    syscall(SYS_close, ends[0]);
    fd_close_private(write_fd);
    fd_close_private(read_fd);
    return -EMFILE;
}

void channel_abandon(int fd) noexcept
{
    channel_closing(fd);
    syscall(SYS_close, fd);
}

void channel_closing(int fd) noexcept
{
    inode identity;
    if (!fd_identify(fd, &identity)) {
        return;
    }
    guard g;
    for (auto &c : channels) {
        if (c.app_fd == fd && c.identity == identity) {
            c.app_fd = -1;
            release_if_unused(c);
            return;
        }
    }
}

channel *channel_get(open_file &file, int fd, bool is_async) noexcept
{
    inode identity;
    if (!fd_identify(fd, &identity)) {
        return nullptr;
    }
    guard g;
    for (auto &c : channels) {
        if (c.file == &file && c.is_async == is_async && c.identity == identity) {
            ++c.users;
            return &c;
        }
    }
    return nullptr;
}

void channel_put(channel *c) noexcept
{
    guard g;
    if (c->users > 0) {
        --c->users;
    }
    release_if_unused(*c);
}

std::uint32_t channel_drain(channel *c, std::uint64_t user_handle) noexcept
{
    guard g;
    return drain<std::uint64_t>(*c, user_handle);
}

std::uint32_t channel_drain_async(const open_file &file, std::uint64_t element) noexcept
{
    guard         g;
    std::uint32_t taken = 0;
    for (auto &c : channels) {
        if (c.file == &file && c.is_async && c.users > 0) {
            taken += drain<ib_uverbs_async_event_desc>(c, element);
        }
    }
    return taken;
}

void channel_release_all(const open_file &file) noexcept
{
    guard g;
    for (auto &c : channels) {
        if (c.file == &file) {
            // The application may still hold its end: it sees end-of-file once we let go of ours.
            fd_clear_mark(c.app_fd);
            c.users  = 0;
            c.app_fd = -1;
            release_if_unused(c);
        }
    }
}

void channels_forked() noexcept
{
    channel_lock = PTHREAD_MUTEX_INITIALIZER;
    for (auto &c : channels) {
        for (int *fd : {&c.write_fd, &c.read_fd}) { // the parent's pipe ends with the parent
            fabric::fd_drop_private(*fd);
        }
        c.app_fd = -1; // the slot stays taken: the parent's pipe must not be confused with one of the child's
    }
}

} // namespace softefa::uverbs
