/* Memory regions and address handles.
 *
 * Owns: registration checks, keys, and the table of address handle numbers. A key is the MR's index with 14 bits of generation above (the
 * lkey keeps 6 of them), so that a stale key is refused until the generation comes round. Nothing is pinned; that memory is mapped is
 * checked when it is registered, by asking the kernel, not by touching it.
 */
#include "softefa/dev/kept.h"
#include "softefa/dev/single_copy.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace softefa::dev {

namespace {

constexpr std::uint64_t page       = 4096;
constexpr unsigned      index_bits = 18;
static_assert(limits::mrs == 1u << index_bits);
std::uint32_t key_generation[limits::mrs]; // 14 bits used; outlives the MR; control lock

/// True if every page of the range is mapped. mincore fails with ENOMEM on a hole and touches nothing.
bool is_mapped(std::uint64_t start, std::uint64_t length) noexcept
{
    static unsigned char residency[16384]; // control lock held
    const int            saved = errno;
    std::uint64_t        at    = start & ~(page - 1);
    const std::uint64_t  end   = (start + length + page - 1) & ~(page - 1);
    bool                 ok    = end > at || length == 0;
    while (ok && at < end) {
        const std::uint64_t part = std::min<std::uint64_t>(end - at, sizeof(residency) * page);
        ok = syscall(SYS_mincore, at, part, residency) == 0;
        at += part;
    }
    errno = saved;
    return ok;
}

constexpr int populate_read = 22, populate_write = 23; ///< MADV_POPULATE_*, since Linux 5.14

/// The page cannot be had although it is mapped: it lies behind the end of its file, or its memory is broken. Whoever touches it gets SIGBUS.
bool refuses_pages(long madvise_result) noexcept { return madvise_result != 0 && (errno == EFAULT || errno == EHWPOISON); }

/// One line of /proc/self/maps: "start-end rwxp offset device inode ...".
struct mapping_line {
    std::uint64_t start = 0, end = 0;
    bool          can_read = false, can_write = false, of_file = false;
};

bool parse_mapping(const char *line, mapping_line *m) noexcept
{
    unsigned long long start = 0, end = 0;
    unsigned long long inode = 0;
    char               rights[5] = "";
    if (std::sscanf(line, "%llx-%llx %4s %*x %*s %llu", &start, &end, rights, &inode) != 4)
        return false;
    *m = {start, end, rights[0] == 'r', rights[1] == 'w', inode != 0};
    return true;
}

/// True if all of [at, end) has the rights, as far as /proc can tell. Of each mapped file the last page is touched: where that exists, all before it do.
bool rights_by_maps(std::uint64_t at, std::uint64_t end, bool write) noexcept
{
    static char text[8192]; // control lock held
    std::size_t have = 0;
    bool        ok   = true;
    const long  fd   = syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && ok && at < end) {
        const long more = syscall(SYS_read, fd, text + have, sizeof(text) - 1 - have);
        if (more <= 0)
            break; // the end, or /proc fails: mincore has the last word
        have += static_cast<std::size_t>(more);
        text[have] = '\0';
        char *line = text;
        for (char *stop; ok && at < end && (stop = std::strchr(line, '\n')) != nullptr; line = stop + 1) {
            mapping_line m;
            *stop = '\0';
            if (!parse_mapping(line, &m) || m.end <= at)
                continue;
            ok = m.start <= at && m.can_read && (m.can_write || !write) &&
                 !(m.of_file && refuses_pages(syscall(SYS_madvise, std::min(m.end, end) - page, page, populate_read)));
            at = m.end;
        }
        have = std::strlen(line);
        if (have >= sizeof(text) - 1)
            break; // a line longer than the buffer: no path is
        std::memmove(text, line, have);
    }
    if (fd >= 0)
        syscall(SYS_close, fd);
    return ok;
}

/// True if the kernel would let a device read, and write if asked, every page: as when it pins them. Small ranges are touched as pinning would; for
/// large ones the list of mappings is read, so that nothing that was never used takes memory.
bool has_rights(std::uint64_t start, std::uint64_t length, bool write) noexcept
{
    constexpr std::uint64_t touched_max = 64 * 1024;
    const int               saved = errno;
    const std::uint64_t     at = start & ~(page - 1), end = (start + length + page - 1) & ~(page - 1);
    const long touched = end - at <= touched_max ? syscall(SYS_madvise, at, end - at, write ? populate_write : populate_read) : -1;
    const bool refused = end - at <= touched_max && refuses_pages(touched);
    const bool ok      = touched == 0 || (!refused && rights_by_maps(at, end, write));
    errno = saved;
    return ok;
}

} // namespace

result<mr_reply> mr_register(handle domain, std::uint64_t start, std::uint64_t length, std::uint64_t iova,
                             std::uint32_t access) noexcept
{
    const control_guard  guard;
    const device_limits &limit = device_limits_get();
    pd                  *p     = guard.dead() ? nullptr : objects().pds.find(domain);
    if (p == nullptr)
        return guard.dead() ? status::permission : status::not_found;
    const bool    can_write = (limit.device_caps & (1u << 5)) != 0, can_read = (limit.device_caps & 1u) != 0;
    const std::uint32_t allowed =
        access_local_write | (can_write ? access_remote_write : 0) | (can_read ? access_remote_read : 0);
    if ((access & ~allowed) != 0)
        return status::unsupported;
    if (length == 0 || start + length < start || iova + length < iova || start % page != iova % page ||
        ((access & access_remote_write) != 0 && (access & access_local_write) == 0))
        return status::invalid_argument;
    if (!is_mapped(start, length) || !has_rights(start, length, (access & access_local_write) != 0))
        return status::bad_address;
    if (p->owner->mr_count >= limit.max_mr)
        return status::limit;
    handle h = 0;
    mr    *m = objects().mrs.insert(&h);
    if (m == nullptr)
        return status::no_memory;
    const unsigned index = mr_table::index_of(h);
    key_generation[index] = key_generation[index] % 0x3fff + 1; // never 0
    {
        const engine_guard engine_lock;
        *m      = mr{h, p, start, length, iova, access, 0};
        m->rkey = (key_generation[index] << index_bits) | index;
    }
    ++p->users;
    ++p->owner->mr_count;
    return mr_reply{h, m->rkey & lkey_mask, m->rkey};
}

void mr_release(mr &m) noexcept
{
    {
        const engine_guard engine_lock; // all access runs under it, in chunks that check the key: exact from here on
        m.rkey = 0;
        windows_close(m); // and for those who copy by themselves
    }
    --m.domain->users;
    --m.domain->owner->mr_count;
    objects().mrs.erase(m.self);
}

status mr_deregister(handle h) noexcept
{
    const control_guard guard;
    mr *m = guard.dead() ? nullptr : objects().mrs.find(h);
    if (m == nullptr)
        return guard.dead() ? status::permission : status::not_found;
    mr_release(*m);
    return status::ok;
}

result<ah_reply> ah_create(handle domain, const gid &destination) noexcept
{
    const control_guard guard;
    const unsigned      count = std::min<unsigned>(device_limits_get().max_ah, limits::ahs);
    pd                 *p     = guard.dead() ? nullptr : objects().pds.find(domain);
    if (p == nullptr)
        return guard.dead() ? status::permission : status::not_found;
    context &c      = *p->owner;
    unsigned number = count, spare = count;
    for (unsigned k = 0; k < count && number == count; ++k) { // slow path: linear, from behind the last one given out
        const unsigned i = (c.ah_next + k) % count;
        if (c.ahs[i].pd == p->self && c.ahs[i].to == destination)
            number = i;
        else if (c.ahs[i].pd == 0 && spare == count)
            spare = i;
    }
    const bool fresh = number == count;
    if (fresh && spare == count)
        return status::limit;
    handle h = 0;
    ah    *a = objects().ahs.insert(&h);
    if (a == nullptr)
        return status::no_memory;
    if (fresh) {
        number    = spare;
        c.ah_next = (number + 1) % count;
        const std::uint8_t device = device_by_gid(destination);
        const engine_guard engine_lock;
        c.ahs[number] = {p->self, destination, 0, device};
        if (device != device_unknown)
            p->ah_by_device[device] = static_cast<std::uint16_t>(number);
    }
    ++c.ahs[number].users;
    ++p->users;
    *a = {h, p, static_cast<std::uint16_t>(number)};
    return ah_reply{h, a->number};
}

status ah_destroy(handle h) noexcept
{
    const control_guard guard;
    ah *a = guard.dead() ? nullptr : objects().ahs.find(h);
    if (a == nullptr)
        return guard.dead() ? status::permission : status::not_found;
    pd       &p     = *a->domain;
    ah_entry &entry = p.owner->ahs[a->number];
    if (--entry.users == 0) {
        const engine_guard engine_lock;
        if (entry.device != device_unknown)
            p.ah_by_device[entry.device] = ah_unknown;
        kept_close();
        entry = ah_entry{};
        requester_ah_gone(*p.owner, a->number);
    }
    --p.users;
    objects().ahs.erase(h);
    return status::ok;
}

void ah_release_all(context &c) noexcept
{
    objects().ahs.for_each([&](ah &a) { if (a.domain->owner == &c) objects().ahs.erase(a.self); });
}

} // namespace softefa::dev
