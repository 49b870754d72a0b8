/* Lane classes of UCP: what each asks of a transport, whether srd offers it, and what to do where it does not.
 *
 * Owns: UCP's criteria (docs/uct-semantics.md has the same table with its consequences in full), applied to what an
 * interface and its memory domain say when they are queried; the words for a class that is not usable. One source for the
 * transport's line at log level info and for the table of `ucx-srd info`, so that the two cannot disagree.
 * Refuses to know: why the interface offers what it offers. Nothing here is set by hand when a capability comes or goes.
 *
 * The silent loss of a lane class is the first complaint of EFA's users: UCP takes another transport, or messages in place
 * of RDMA, and says nothing. Header only, with UCX's public flags and libc alone, because ucx-srd links no UCX.
 *
 * Invariants
 *   LAN-1: a class is called usable exactly if every flag that UCP tests for it is there.
 *   LAN-2: an unusable class is told with what is missing and with what follows from it.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>

extern "C" {
#include <uct/api/uct.h>
#include <uct/api/version.h>
}

namespace srd {

/// What the criteria are applied to.
struct lane_facts {
    std::uint64_t iface_flags; ///< UCT_IFACE_FLAG_* of the interface
    std::uint64_t event_flags; ///< UCT_IFACE_FLAG_EVENT_*
    std::uint64_t md_flags;    ///< UCT_MD_FLAG_* of the domain
    bool          device_read; ///< RDMA read, as the device says through this rdma-core
    bool          device_write;
};

/// What could supply a class that is missing.
enum class lane_cure : std::uint8_t { none, rdma_read, rdma_write, invalidate, events };

struct lane_class {
    const char   *name;
    std::uint64_t all_of;    ///< interface flags, every one of which is needed
    std::uint64_t any_of;    ///< and one of these; 0 = none is needed
    std::uint64_t events;    ///< event flags, every one
    std::uint64_t md_any_of; ///< flags of the memory domain, one of which is needed; 0 = none is needed
    lane_cure     cure;
    const char   *without;   ///< what UCP does without it
};

/// The invalidation that bulk RMA wants under error handling. UCX tells it apart from that of atomics since 1.15; the
/// transport offers both or none, and then this flag, the only one in a public header, is set as well.
inline constexpr std::uint64_t lane_md_invalidate = std::uint64_t{UCT_MD_FLAG_INVALIDATE};

inline constexpr std::uint64_t lane_bulk_any = UCT_IFACE_FLAG_GET_ZCOPY | UCT_IFACE_FLAG_PUT_ZCOPY;

inline constexpr lane_class lane_classes[] = {
    {"messages", UCT_IFACE_FLAG_AM_BCOPY | UCT_IFACE_FLAG_CB_SYNC, 0, 0, 0, lane_cure::none, "UCP cannot use srd at all"},
    {"RMA",
     UCT_IFACE_FLAG_PUT_SHORT | UCT_IFACE_FLAG_PUT_BCOPY | UCT_IFACE_FLAG_GET_BCOPY | UCT_IFACE_FLAG_PENDING, 0, 0,
     UCT_MD_FLAG_REG, lane_cure::rdma_write, "small put and get go as messages"},
    {"bulk RMA", UCT_IFACE_FLAG_PENDING, lane_bulk_any, 0, UCT_MD_FLAG_REG, lane_cure::rdma_read,
     "large messages are copied, not read by the receiver"},
    {"bulk RMA, err", UCT_IFACE_FLAG_PENDING, lane_bulk_any, 0, lane_md_invalidate, lane_cure::invalidate,
     "large messages of endpoints with err_mode=peer are copied"},
    {"atomics", UCT_IFACE_FLAG_PENDING, UCT_IFACE_FLAG_ATOMIC_CPU | UCT_IFACE_FLAG_ATOMIC_DEVICE, 0, 0, lane_cure::none,
     "atomics go as messages, which is always so with EFA"},
    {"peer failure", UCT_IFACE_FLAG_ERRHANDLE_PEER_FAILURE, 0, 0, 0, lane_cure::none,
     "endpoints with err_mode=peer cannot be made"},
    {"wakeup", 0, 0, UCT_IFACE_FLAG_EVENT_SEND_COMP | UCT_IFACE_FLAG_EVENT_RECV, 0, lane_cure::events,
     "programs that sleep in UCP do not get srd"},
};

inline constexpr struct {
    std::uint64_t flag;
    const char   *name;
} lane_flag_names[] = {
    {UCT_IFACE_FLAG_AM_BCOPY, "am_bcopy"},   {UCT_IFACE_FLAG_CB_SYNC, "cb_sync"},     {UCT_IFACE_FLAG_PENDING, "pending"},
    {UCT_IFACE_FLAG_PUT_SHORT, "put_short"}, {UCT_IFACE_FLAG_PUT_BCOPY, "put_bcopy"}, {UCT_IFACE_FLAG_GET_BCOPY, "get_bcopy"},
};

/// LAN-1
inline bool lane_usable(const lane_class &lane, const lane_facts &facts) noexcept
{
    return (facts.iface_flags & lane.all_of) == lane.all_of && (lane.any_of == 0 || (facts.iface_flags & lane.any_of) != 0) &&
           (facts.event_flags & lane.events) == lane.events && (lane.md_any_of == 0 || (facts.md_flags & lane.md_any_of) != 0);
}

/// What the class lacks: "put_short, put_bcopy". 'text' is always terminated.
inline void lane_missing(const lane_class &lane, const lane_facts &facts, char *text, std::size_t text_size) noexcept
{
    std::size_t used = 0;
    const auto add = [&](const char *name) {
        if (used < text_size) {
            const int size = std::snprintf(text + used, text_size - used, "%s%s", used > 0 ? ", " : "", name);
            used += size > 0 ? static_cast<std::size_t>(size) : 0;
        }
    };
    text[0] = '\0';
    for (const auto &flag : lane_flag_names) {
        if (lane.all_of & ~facts.iface_flags & flag.flag) {
            add(flag.name);
        }
    }
    if (lane.any_of != 0 && (facts.iface_flags & lane.any_of) == 0) {
        add(lane.any_of == lane_bulk_any ? "get_zcopy or put_zcopy" : "atomic operations of the device");
    }
    if ((facts.event_flags & lane.events) != lane.events) {
        add("events");
    }
    if (lane.all_of & UCT_IFACE_FLAG_ERRHANDLE_PEER_FAILURE & ~facts.iface_flags) {
        add("peer failure handling");
    }
    if (lane.md_any_of != 0 && (facts.md_flags & lane.md_any_of) == 0) {
        add(lane.md_any_of == lane_md_invalidate ? "invalidation of keys" : "registration");
    }
}

/// What would supply it, or null where nothing that a user can do would. LAN-2
inline const char *lane_advice(const lane_class &lane, const lane_facts &facts) noexcept
{
    switch (lane.cure) {
    case lane_cure::rdma_write:
        return facts.device_write ? nullptr :
                                    "no RDMA write: it takes an EFA of generation 3 (SOFTEFA_PROFILE=efa2) and an rdma-core that "
                                    "can post it (Debian 13's; not 44)";
    case lane_cure::rdma_read:
        return facts.device_read ? nullptr : "no RDMA read: it takes an EFA of generation 2 (SOFTEFA_PROFILE=efa1)";
    case lane_cure::invalidate:
        return facts.device_read ? nullptr : "no RDMA read, see above";
    case lane_cure::events:
        return lane_usable(lane, facts) ? nullptr : "UCX_SRD_EVENTS=y offers it; the default leaves it out where the kernel's driver is reported to leak";
    case lane_cure::none: break;
    }
    return nullptr;
}

/// All classes in one line: "messages yes; RMA no (missing: put_short): ...". Returns the length needed, as snprintf does.
inline std::size_t lane_summary(const lane_facts &facts, char *text, std::size_t text_size) noexcept
{
    std::size_t used = 0;
    const auto room  = [&] { return used < text_size ? text_size - used : 0; };
    const auto take  = [&](int size) { used += size > 0 ? static_cast<std::size_t>(size) : 0; };
    const auto at    = [&] { return text + (used < text_size ? used : 0); };
    for (const lane_class &lane : lane_classes) {
        const char *separator = &lane == lane_classes ? "" : "; ";
        if (lane_usable(lane, facts)) {
            take(std::snprintf(at(), room(), "%s%s yes", separator, lane.name));
            continue;
        }
        char missing[128];
        lane_missing(lane, facts, missing, sizeof(missing));
        take(std::snprintf(at(), room(), "%s%s no (missing: %s)", separator, lane.name, missing));
    }
    return used;
}

} // namespace srd
