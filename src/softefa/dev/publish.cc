/* See publish.h. */
#include "softefa/dev/publish.h"

#include "softefa/dev/configure.h"
#include "softefa/dev/kept.h"
#include "softefa/dev/publish_tables.h"
#include "softefa/dev/record.h"
#include "softefa/fabric/private_fd.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

namespace softefa::dev {

namespace {

using observe::published;

constexpr unsigned      last_sink_tries = 200; ///< of 1 ms each

std::size_t  size    = 0;       ///< bytes of the mapping
int          file    = -1;
char         link_name[160];    ///< "" = no link
pid_t        process = 0;       ///< that publishes
std::atomic<counters_sink> sink = nullptr;
std::atomic<failure_teller> teller = nullptr;
std::atomic<const char *> failure = nullptr, notice = nullptr; ///< to be told
std::atomic<bool> failure_kept = false; ///< the file was written
pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;

base::time_ns last_tick  = 0;
std::uint64_t last_total = 0;

unsigned wanted_records() noexcept
{
    const settings &s = settings_in_force();
    return s.record_mode == 0 ? 0 : std::bit_floor(std::min(s.record_count, observe::record_count_max));
}

/// PIDs mean something only together with it.
unsigned long long pid_namespace() noexcept
{
    struct stat space{};
    (void)!::stat("/proc/self/ns/pid", &space);
    return space.st_ino;
}

/// A link that names the memory by way of /proc; the name says in which PID namespace that is true.
void make_link(std::uint64_t instance) noexcept
{
    const std::string &folder = settings_in_force().registry_dir;
    char               target[48];
    link_name[0] = '\0';
    if (folder.empty())
        return;
    const int length = std::snprintf(link_name, sizeof(link_name), "%s/%016llx.%llx%s", folder.c_str(), static_cast<unsigned long long>(instance),
                                     pid_namespace(), observe::link_suffix);
    std::snprintf(target, sizeof(target), "/proc/%d/fd/%d", static_cast<int>(getpid()), file);
    if (length >= static_cast<int>(sizeof(link_name)) || symlink(target, link_name) != 0)
        link_name[0] = '\0';
}

void copy_text(char *to, std::size_t room, const char *from) noexcept
{
    std::snprintf(to, room, "%s", from);
}

void describe(published &p, std::uint64_t instance, unsigned records) noexcept
{
    constexpr const char *profiles[] = {"efa0", "efa1", "efa2", "efa3"};
    const settings       &s          = settings_in_force();
    timespec              real{};
    clock_gettime(CLOCK_REALTIME, &real);
    p.magic         = observe::magic;
    p.version       = observe::version;
    p.size          = static_cast<std::uint32_t>(size);
    p.device_count  = s.device_count;
    p.instance      = instance;
    p.pid           = getpid();
    p.record_mode   = s.record_mode;
    p.record_count  = records;
    p.start_real_ns = static_cast<std::uint64_t>(real.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(real.tv_nsec);
    p.start_mono_ns = base::clock_now_ns();
    copy_text(p.program, sizeof(p.program), program_invocation_short_name);
    copy_text(p.domain, sizeof(p.domain), s.domain.c_str());
    copy_text(p.profile, sizeof(p.profile), profiles[static_cast<unsigned>(s.device_profile) & 3]);
}

/// The file, mapped; null and nothing left behind if that fails.
published *make_page(unsigned records) noexcept
{
    size = observe::published_size(records);
    if (!fabric::raw_may_write_to(size))
        return nullptr;
    file = fabric::raw_memfd(observe::memfd_name, true);
    if (file < 0)
        return nullptr;
    void *base = nullptr;
    if (syscall(SYS_ftruncate, file, size) == 0)
        base = fabric::raw_mmap(size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (base == nullptr || syscall(SYS_fcntl, file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
        fabric::raw_munmap(base, size);
        fabric::raw_close(file);
        file = -1;
        return nullptr;
    }
    // Nobody else may write it, also not through /proc; kernels before 5.1 do not know this seal and rely on the reader's manners.
    (void)!syscall(SYS_fcntl, file, F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
    (void)!syscall(SYS_fcntl, file, F_ADD_SEALS, F_SEAL_SEAL);
    return static_cast<published *>(base);
}

/// Changes whenever anything was counted that sinks show. Reads beside the writer: cells are whole words, and a missed one shows at the next look; ThreadSanitizer
/// is told so, since the hot path counts with plain additions.
[[gnu::no_sanitize("thread")]] std::uint64_t total() noexcept
{
    const engine_state &e   = engine();
    std::uint64_t       sum = 0;
    for (unsigned d = 0; d < settings_in_force().device_count && d < limits::devices; ++d) {
        const auto *cells = reinterpret_cast<const std::uint64_t *>(&e.counters[d]);
        for (unsigned i = 0; i < device_counter_count; ++i)
            sum += __atomic_load_n(&cells[i], __ATOMIC_RELAXED);
    }
    return sum;
}

/// False: worth another try.
bool run_sink() noexcept
{
    const counters_sink to = sink.load(std::memory_order_acquire);
    if (to == nullptr)
        return true;
    if (pthread_mutex_trylock(&sink_lock) != 0)
        return false;
    bool shown = true;
    for (unsigned d = 0; d < settings_in_force().device_count && d < limits::devices; ++d)
        shown &= to(d, engine().counters[d]);
    pthread_mutex_unlock(&sink_lock);
    return shown;
}

/// There is no next time: the ranks of a job end together and wait for each other here, but not for ever.
void run_sink_last() noexcept
{
    const timespec pause{0, 1'000'000};
    for (unsigned tries = 0; !run_sink() && tries < last_sink_tries; ++tries)
        syscall(SYS_nanosleep, &pause, nullptr); // not the function: that one is a cancellation point
}

/// The state of this moment as a file: a process that goes on would overwrite its recorder, one that ends would take it along.
bool keep_page(char *path, std::size_t room) noexcept
{
    const std::string     &folder = settings_in_force().registry_dir;
    const published *const page   = tables_page();
    if (page == nullptr || folder.empty() || !fabric::raw_may_write_to(size) || failure_kept.exchange(true))
        return false;
    const int length = std::snprintf(path, room, "%s/failure.%d.%llx", folder.c_str(), static_cast<int>(getpid()), pid_namespace());
    if (length >= static_cast<int>(room))
        return false;
    (void)!unlink(path); // of an earlier process with this number
    const long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool       ok = fd >= 0;
    for (std::size_t at = 0; ok && at < size;) {
        const long done = syscall(SYS_write, fd, reinterpret_cast<const char *>(page) + at, size - at);
        ok = done > 0;
        at += ok ? static_cast<std::size_t>(done) : 0;
    }
    if (fd >= 0)
        syscall(SYS_close, fd);
    if (!ok)
        (void)!unlink(path);
    return ok;
}

void tell_failure() noexcept
{
    const failure_teller to = teller.load(std::memory_order_acquire);
    if (const char *what = notice.exchange(nullptr, std::memory_order_acq_rel); what != nullptr) {
        tables_snapshot();
        if (to != nullptr)
            to(what, "");
    }
    const char *what = failure.exchange(nullptr, std::memory_order_acq_rel);
    if (what == nullptr)
        return;
    tables_snapshot();
    char path[160] = "";
    if (!keep_page(path, sizeof(path)))
        path[0] = '\0';
    if (to != nullptr)
        to(what, path);
}

} // namespace

void publish_open(std::uint64_t instance) noexcept
{
    const int      saved   = errno;
    const unsigned records = wanted_records();
    published     *fresh   = make_page(records);
    process = getpid();
    if (fresh != nullptr) {
        describe(*fresh, instance, records);
        const engine_guard guard;
        std::memcpy(fresh->counters, engine().counters, sizeof(fresh->counters));
        engine().counters    = fresh->counters;
        engine().record_data = records != 0 && settings_in_force().record_mode > 1;
        tables_begin(fresh);
    }
    if (fresh != nullptr)
        make_link(instance);
    errno = saved;
}

void publish_withdraw() noexcept
{
    const int saved = errno;
    kept_settle(); // reads that asked nobody; behind the end of the fabric there are none left
    tell_failure(); // the helper thread may have ended before it could
    run_sink_last();
    if (tables_page() != nullptr && link_name[0] != '\0')
        (void)!unlink(link_name);
    link_name[0] = '\0';
    errno = saved;
}

void publish_close() noexcept
{
    const int saved = errno;
    publish_withdraw();
    published *old = nullptr;
    {
        const engine_guard guard;
        old = tables_end();
        if (old != nullptr)
            std::memcpy(unpublished_counters, old->counters, sizeof(old->counters));
        engine().counters    = unpublished_counters;
        engine().record_data = false;
    }
    fabric::raw_munmap(old, size);
    fabric::fd_drop_private(file);
    errno = saved;
}

void publish_forked() noexcept
{
    std::memset(unpublished_counters, 0, sizeof(unpublished_counters));
    engine().counters    = unpublished_counters;
    engine().record_data = false;
    (void)tables_end(); // the mapping stays: unmapping is not for a fork handler
    link_name[0]         = '\0';
    fabric::raw_close(file);
    file = -1;
    last_tick = last_total = 0;
    failure_kept = false;
    failure.store(nullptr, std::memory_order_relaxed);
    notice.store(nullptr, std::memory_order_relaxed);
    pthread_mutex_init(&sink_lock, nullptr);
}

void publish_contexts(unsigned count) noexcept
{
    const engine_guard guard;
    if (published *const page = tables_page(); page != nullptr)
        page->contexts = count;
}

void publish_failure(const char *what) noexcept { failure.store(what, std::memory_order_release); }
void publish_notice(const char *what) noexcept { notice.store(what, std::memory_order_release); }

void publish_failures_to(failure_teller to) noexcept { teller.store(to, std::memory_order_release); }

/// What is shown and not counted (work that waits, room in queues) has no sum that would tell of a change. So whoever woke the helper gets a snapshot:
/// at once, or at the end of the pause, once for all of them. Rejected: a counter for each such change, of which the next one would be forgotten.
base::time_ns publish_tick() noexcept
{
    tell_failure();
    kept_settle();
    const base::time_ns now = base::clock_now_ns(), tick = settings_in_force().snapshot_ns;
    const bool          first = last_tick == 0;
    if (!first && now - last_tick < tick)
        return tick - (now - last_tick);
    const std::uint64_t sum = total();
    last_tick = now;
    kept_tell();
    tables_snapshot();
    if ((sum != last_total || first) && !run_sink())
        return tick; // last_total stays: also an idle process comes back
    last_total = sum;
    return ~base::time_ns{0};
}

void command_done(unsigned device, bool counted, command_kind creates, unsigned object, unsigned method, int error) noexcept
{
    if (engine().dead.load(std::memory_order_relaxed))
        return;
    const engine_guard guard;
    device_counters   &n = counters_of(device);
    n.commands += counted;
    if (error == 0)
        return;
    n.command_errors += counted;
    switch (creates) {
    case command_kind::context: ++n.context_errors; break;
    case command_kind::pd: ++n.pd_errors; break;
    case command_kind::mr: ++n.mr_errors; break;
    case command_kind::ah: ++n.ah_errors; break;
    case command_kind::cq: ++n.cq_errors; break;
    case command_kind::qp: ++n.qp_errors; break;
    case command_kind::other: break;
    }
    record(record_kind::command_refused, device, 0, 0, 0, std::uint64_t{object} << 16 | method, static_cast<unsigned>(error));
}

void publish_to(counters_sink to) noexcept { sink.store(to, std::memory_order_release); }

} // namespace softefa::dev
