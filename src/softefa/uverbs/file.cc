/* Open devices: see file.h.
 *
 * Algorithm: a fixed table of slots. A command finds its file by the inode behind the fd, takes a reference, and drops it
 * afterwards; close takes the file out of sight and drops the reference of "open". Whoever drops the last one tears down,
 * with no lock held, because the device may wait there for work in progress.
 */
#include "softefa/uverbs/file.h"

#include "softefa/fabric/private_fd.h"
#include "softefa/uverbs/dispatch.h"
#include "softefa/uverbs/fd_marks.h"
#include "softefa/uverbs/object_table.h"
#include "softefa/uverbs/uncancelled.h"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u
#endif

namespace softefa::uverbs {
namespace {

/// Room for the rings of every queue that a device may have; sparse, so only what is used costs memory.
constexpr std::uint64_t memory_size = std::uint64_t{16} << 30;

open_file             files[file_count_max];
std::atomic<unsigned> open_count{0}; ///< files that are open, closed or dead: while 0 nothing needs to be looked at
pthread_mutex_t       file_lock   = PTHREAD_MUTEX_INITIALIZER;
std::atomic<std::uint64_t> memory_device{0}; ///< inode::device of every memfd
std::atomic<pid_t>    owner{0};      ///< process of the files that are open; a vfork child shares this memory but not our descriptors
pthread_once_t        atfork_once = PTHREAD_ONCE_INIT;

void install_atfork() { pthread_atfork(nullptr, nullptr, file_process_forked); }

int make_memory(unsigned index)
{
    char name[32];
    snprintf(name, sizeof(name), "softefa-uverbs%u", index);
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING); // before Linux 6.3
    }
    if (fd < 0) {
        return -1;
    }
    // Growing a file beyond RLIMIT_FSIZE raises SIGXFSZ in the host: ask first.
    rlimit        limit{};
    std::uint64_t size = memory_size;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < size) {
        size = limit.rlim_cur & ~std::uint64_t{4095};
    }
    // A program that shrank the file would turn the engine's accesses into SIGBUS.
    if (ftruncate(fd, static_cast<off_t>(size)) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
        const int error = errno;
        syscall(SYS_close, fd);
        errno = error;
        return -1;
    }
    return fd;
}

open_file *take_slot()
{
    for (auto &file : files) {
        if (file.state.load(std::memory_order_relaxed) == file_state::free) {
            return &file;
        }
    }
    return nullptr;
}

/// Under file_lock: the open or dead file with that identity.
open_file *find(const inode &identity)
{
    for (auto &file : files) {
        const auto state = file.state.load(std::memory_order_relaxed);
        if ((state == file_state::open || state == file_state::dead) && file.identity == identity) {
            return &file;
        }
    }
    return nullptr;
}

/// FIL-1, FIL-2
void put(open_file &file)
{
    if (file.references.fetch_sub(1, std::memory_order_acq_rel) != 1) {
        return;
    }
    const dev::handle context = file.context.exchange(0);
    if (context != 0) {
        dev::context_close(context);
    }
    object_free_all(file); // behind the device: it may hold mappings that the device works on
    channel_release_all(file);
    fabric::fd_drop_private(file.memory_fd);
    file.hooks     = {};
    file.shown.store(0, std::memory_order_relaxed); // of a dead file
    open_count.fetch_sub(1, std::memory_order_relaxed);
    file.state.store(file_state::free, std::memory_order_release);
}

/// A file that can still be found by `fd`'s inode, or was opened under that number, is being closed.
void close_file(int fd)
{
    inode identity;
    if (!fd_identify(fd, &identity)) {
        return;
    }
    open_file *closing = nullptr;
    pthread_mutex_lock(&file_lock);
    for (auto &file : files) {
        if (file.app_fd == fd && file.identity == identity && file.state.load(std::memory_order_relaxed) == file_state::open) {
            file.state.store(file_state::closed, std::memory_order_relaxed);
            file.shown.store(0, std::memory_order_relaxed);
            closing = &file;
        }
    }
    pthread_mutex_unlock(&file_lock);
    if (closing != nullptr) {
        put(*closing);
    }
}

} // namespace

int file_open(unsigned index, int flags) noexcept
{
    const uncancelled scope;
    pthread_once(&atfork_once, install_atfork);
    const int fd = make_memory(index);
    if (fd < 0) {
        return -errno;
    }
    const int memory_fd = fd_duplicate_private(fd);
    inode     identity;
    if (memory_fd < 0 || !fd_identify(fd, &identity)) {
        const int error = memory_fd < 0 ? errno : EIO;
        fd_close_private(memory_fd);
        syscall(SYS_close, fd);
        return -error;
    }
    if ((flags & O_CLOEXEC) == 0) {
        fcntl(fd, F_SETFD, 0);
    }

    pthread_mutex_lock(&file_lock);
    open_file *file = take_slot();
    if (file != nullptr) {
        file->identity     = identity;
        file->app_fd       = fd;
        file->memory_fd    = memory_fd;
        file->device_index.store(index, std::memory_order_relaxed);
        file->hooks        = {};
        file->context.store(0, std::memory_order_relaxed);
        file->references.store(1, std::memory_order_relaxed);
        owner.store(getpid(), std::memory_order_relaxed);
        open_count.fetch_add(1, std::memory_order_relaxed);
        file->state.store(file_state::open, std::memory_order_release);
        memory_device.store(identity.device, std::memory_order_relaxed);
        file->shown.store(identity.number, std::memory_order_release);
        fd_mark_handed_out(fd);
    }
    pthread_mutex_unlock(&file_lock);
    if (file == nullptr) {
        fd_close_private(memory_fd);
        syscall(SYS_close, fd);
        return -EMFILE;
    }
    return fd;
}

bool file_any_open() noexcept { return open_count.load(std::memory_order_relaxed) != 0; }

bool file_recognise(const inode &identity, unsigned *index_p) noexcept
{
    if (identity.number == 0 || identity.device != memory_device.load(std::memory_order_relaxed)) {
        return false;
    }
    for (const auto &file : files) {
        if (file.shown.load(std::memory_order_acquire) != identity.number) {
            continue;
        }
        const unsigned index = file.device_index.load(std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_acquire);
        if (file.shown.load(std::memory_order_relaxed) == identity.number) { // the slot was not given to another file meanwhile
            *index_p = index;
            return true;
        }
    }
    return false;
}

bool file_ioctl(int fd, void *argument, int *error_p) noexcept
{
    inode identity;
    if (!file_any_open() || !fd_identify(fd, &identity)) {
        return false;
    }
    const uncancelled scope;
    pthread_mutex_lock(&file_lock);
    open_file *file = find(identity);
    const bool dead = file != nullptr && file->state.load(std::memory_order_relaxed) == file_state::dead;
    if (file != nullptr && !dead) {
        file->references.fetch_add(1, std::memory_order_relaxed);
    }
    pthread_mutex_unlock(&file_lock);
    if (file == nullptr) {
        return false;
    }
    if (dead) {
        *error_p = EIO; // FIL-3
        return true;
    }
    *error_p = dispatch(*file, reinterpret_cast<std::uint64_t>(argument));
    put(*file);
    return true;
}

bool file_any_of_process() noexcept { return file_any_open() && getpid() == owner.load(std::memory_order_relaxed); }

close_verdict file_closing(int fd) noexcept
{
    if (fd_is_private(fd)) [[unlikely]] {
        return close_verdict::refused;
    }
    if (fd_is_handed_out(fd) && file_any_of_process()) [[unlikely]] {
        const uncancelled scope;
        fd_clear_mark(fd);
        close_file(fd);
        channel_closing(fd);
    }
    return close_verdict::pass;
}

void file_process_forked() noexcept
{
    file_lock = PTHREAD_MUTEX_INITIALIZER;
    for (auto &file : files) {
        if (file.state.load(std::memory_order_relaxed) != file_state::free) {
            file.state.store(file_state::dead, std::memory_order_relaxed);
            fabric::fd_drop_private(file.memory_fd); // the rings are the parent's; the application's own descriptors are its business
        }
    }
    fd_marks_forked();
    channels_forked();
    object_table_forked();
    dev::process_forked();
}

} // namespace softefa::uverbs
