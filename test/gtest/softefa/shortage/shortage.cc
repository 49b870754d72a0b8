/* See shortage.h. A new call of libc in libsoftefa that can run out of something belongs here and into softefa.am. */
#include "shortage.h"

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdlib>
#include <ctime>
#include <dirent.h>
#include <fcntl.h>
#include <new>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

std::atomic<unsigned>     calls, fails_at, failures; ///< fails_at 0: not armed
std::atomic<bool>         lasts, pidfds_denied;
std::atomic<unsigned>     seconds_ahead;
std::atomic<const char *> first_name;
std::atomic<void (*)(int)> behind_close;

/// True: this call is to fail.
bool fails(const char *name)
{
    const unsigned at = fails_at.load();
    if (at == 0)
        return false;
    const unsigned n = ++calls;
    if (n != at && !(n > at && lasts.load()))
        return false;
    const char *none = nullptr;
    first_name.compare_exchange_strong(none, name);
    ++failures;
    return true;
}

bool fails(const char *name, int error)
{
    if (!fails(name))
        return false;
    errno = error;
    return true;
}

} // namespace

namespace shortage {

void arm(unsigned n, extent how)
{
    fails_at   = 0;
    calls      = 0;
    failures   = 0;
    first_name = nullptr;
    lasts      = how == extent::from_there;
    fails_at   = n;
}
unsigned failed() { return failures; }
unsigned seen() { return calls; }
unsigned lift()
{
    fails_at = 0;
    return failures;
}
const char *first()
{
    const char *name = first_name;
    return name != nullptr ? name : "";
}
void no_pidfds(bool wanted) { pidfds_denied = wanted; }
void clock_ahead(unsigned seconds) { seconds_ahead = seconds; }
void at_close(void (*then)(int)) { behind_close = then; }

} // namespace shortage

extern "C" {

#define REAL(type, name, ...) type __real_##name(__VA_ARGS__)

REAL(void *, malloc, std::size_t);
void *__wrap_malloc(std::size_t size) { return fails("malloc", ENOMEM) ? nullptr : __real_malloc(size); }

REAL(void *, calloc, std::size_t, std::size_t);
void *__wrap_calloc(std::size_t count, std::size_t size) { return fails("calloc", ENOMEM) ? nullptr : __real_calloc(count, size); }

REAL(void *, realloc, void *, std::size_t);
void *__wrap_realloc(void *at, std::size_t size) { return fails("realloc", ENOMEM) ? nullptr : __real_realloc(at, size); }

void *__real__ZnwmRKSt9nothrow_t(std::size_t, const std::nothrow_t &);
void *__wrap__ZnwmRKSt9nothrow_t(std::size_t size, const std::nothrow_t &tag)
{
    return fails("new (std::nothrow)") ? nullptr : __real__ZnwmRKSt9nothrow_t(size, tag);
}

REAL(void *, mmap, void *, std::size_t, int, int, int, off_t);
void *__wrap_mmap(void *at, std::size_t size, int prot, int flags, int fd, off_t offset)
{
    return fails("mmap", ENOMEM) ? MAP_FAILED : __real_mmap(at, size, prot, flags, fd, offset);
}

REAL(int, open, const char *, int, mode_t);
int __wrap_open(const char *path, int flags, mode_t mode) { return fails("open", EMFILE) ? -1 : __real_open(path, flags, mode); }

REAL(int, openat, int, const char *, int, mode_t);
int __wrap_openat(int folder, const char *path, int flags, mode_t mode)
{
    return fails("openat", EMFILE) ? -1 : __real_openat(folder, path, flags, mode);
}

REAL(DIR *, fdopendir, int);
DIR *__wrap_fdopendir(int fd) { return fails("fdopendir", ENOMEM) ? nullptr : __real_fdopendir(fd); }

REAL(int, fcntl, int, int, unsigned long);
int __wrap_fcntl(int fd, int command, unsigned long argument)
{
    if (command == F_DUPFD_CLOEXEC && fails("fcntl(F_DUPFD)", EMFILE))
        return -1;
    if (command == F_SETLK && fails("fcntl(F_SETLK)", ENOLCK))
        return -1;
    if (command == F_GETLK && fails("fcntl(F_GETLK)", ENOLCK))
        return -1;
    return __real_fcntl(fd, command, argument);
}

REAL(ssize_t, pwrite, int, const void *, std::size_t, off_t);
ssize_t __wrap_pwrite(int fd, const void *from, std::size_t size, off_t at)
{
    return fails("pwrite", ENOSPC) ? -1 : __real_pwrite(fd, from, size, at);
}

REAL(int, pipe2, int *, int);
int __wrap_pipe2(int *ends, int flags) { return fails("pipe2", EMFILE) ? -1 : __real_pipe2(ends, flags); }

REAL(int, eventfd, unsigned, int);
int __wrap_eventfd(unsigned count, int flags) { return fails("eventfd", EMFILE) ? -1 : __real_eventfd(count, flags); }

REAL(int, epoll_create1, int);
int __wrap_epoll_create1(int flags) { return fails("epoll_create1", EMFILE) ? -1 : __real_epoll_create1(flags); }

REAL(int, epoll_ctl, int, int, int, epoll_event *);
int __wrap_epoll_ctl(int set, int what, int fd, epoll_event *event)
{
    return what == EPOLL_CTL_ADD && fails("epoll_ctl(ADD)", ENOSPC) ? -1 : __real_epoll_ctl(set, what, fd, event);
}

REAL(int, socket, int, int, int);
int __wrap_socket(int family, int type, int protocol) { return fails("socket", EMFILE) ? -1 : __real_socket(family, type, protocol); }

REAL(int, bind, int, const sockaddr *, socklen_t);
int __wrap_bind(int fd, const sockaddr *to, socklen_t size) { return fails("bind", ENOSPC) ? -1 : __real_bind(fd, to, size); }

REAL(int, listen, int, int);
int __wrap_listen(int fd, int backlog) { return fails("listen", ENOMEM) ? -1 : __real_listen(fd, backlog); }

REAL(int, renameat, int, const char *, int, const char *);
int __wrap_renameat(int from, const char *old_name, int to, const char *new_name)
{
    return fails("renameat", ENOSPC) ? -1 : __real_renameat(from, old_name, to, new_name);
}

REAL(int, mkdirat, int, const char *, mode_t);
int __wrap_mkdirat(int folder, const char *path, mode_t mode) { return fails("mkdirat", ENOSPC) ? -1 : __real_mkdirat(folder, path, mode); }

REAL(int, symlinkat, const char *, int, const char *);
int __wrap_symlinkat(const char *to, int folder, const char *path) { return fails("symlinkat", ENOSPC) ? -1 : __real_symlinkat(to, folder, path); }

REAL(int, ftruncate, int, off_t);
int __wrap_ftruncate(int fd, off_t size) { return fails("ftruncate", EIO) ? -1 : __real_ftruncate(fd, size); }

REAL(int, flock, int, int);
int __wrap_flock(int fd, int what) { return what != LOCK_UN && fails("flock", ENOLCK) ? -1 : __real_flock(fd, what); }

REAL(int, connect, int, const sockaddr *, socklen_t);
int __wrap_connect(int fd, const sockaddr *to, socklen_t size)
{
    return fails("connect", EAGAIN) ? -1 : __real_connect(fd, to, size); // the backlog is full
}

REAL(int, accept4, int, sockaddr *, socklen_t *, int);
int __wrap_accept4(int fd, sockaddr *who, socklen_t *size_p, int flags)
{
    return fails("accept4", EMFILE) ? -1 : __real_accept4(fd, who, size_p, flags);
}

REAL(ssize_t, sendmsg, int, const msghdr *, int);
ssize_t __wrap_sendmsg(int fd, const msghdr *m, int flags) { return fails("sendmsg", ENOBUFS) ? -1 : __real_sendmsg(fd, m, flags); }

/// A receiver without room for descriptors gets the message without them.
REAL(ssize_t, recvmsg, int, msghdr *, int);
ssize_t __wrap_recvmsg(int fd, msghdr *m, int flags)
{
    const ssize_t got = __real_recvmsg(fd, m, flags);
    cmsghdr      *c   = got >= 0 ? CMSG_FIRSTHDR(m) : nullptr;
    if (c == nullptr || c->cmsg_type != SCM_RIGHTS || !fails("recvmsg"))
        return got;
    for (std::size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0); at += sizeof(int))
        ::close(*reinterpret_cast<int *>(CMSG_DATA(c) + at));
    m->msg_controllen = 0;
    m->msg_flags |= MSG_CTRUNC;
    return got;
}

REAL(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument)
{
    return fails("pthread_create") ? EAGAIN : __real_pthread_create(thread, attributes, body, argument);
}

REAL(int, clock_gettime, clockid_t, timespec *);
int __wrap_clock_gettime(clockid_t which, timespec *now)
{
    const int result = __real_clock_gettime(which, now);
    if (which == CLOCK_MONOTONIC)
        now->tv_sec += seconds_ahead;
    return result;
}

REAL(long, syscall, long, ...);
[[gnu::no_sanitize("address"), gnu::no_sanitize("undefined")]] // reads six arguments, also where fewer were passed, as the real one does
long __wrap_syscall(long number, ...)
{
    va_list list;
    va_start(list, number);
    unsigned long a[6];
    for (unsigned long &one : a)
        one = va_arg(list, unsigned long);
    va_end(list);
    switch (number) {
    case SYS_mmap:
        if (fails("SYS_mmap", ENOMEM))
            return -1;
        break;
    case SYS_memfd_create:
        if (fails("SYS_memfd_create", EMFILE))
            return -1;
        break;
    case SYS_ftruncate:
        if (fails("SYS_ftruncate", ENOSPC))
            return -1;
        break;
    case SYS_fallocate:
        if (fails("SYS_fallocate", ENOSPC))
            return -1;
        break;
    case SYS_openat:
        if (fails("SYS_openat", EMFILE))
            return -1;
        break;
    case SYS_fcntl:
        if (a[1] == F_ADD_SEALS && fails("SYS_fcntl(F_ADD_SEALS)", EPERM))
            return -1;
        break;
    case SYS_pidfd_open:
        if (pidfds_denied) {
            errno = ENOSYS;
            return -1;
        }
        if (fails("SYS_pidfd_open", EMFILE))
            return -1;
        break;
    case SYS_close: {
        const long result = __real_syscall(number, a[0]);
        if (const auto then = behind_close.load(); then != nullptr && result == 0)
            then(static_cast<int>(a[0]));
        return result;
    }
    default: break;
    }
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

} // extern "C"
