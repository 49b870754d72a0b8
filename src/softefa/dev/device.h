/* The device, as its command interface sees it: what the uverbs front end may call.
 *
 * Owns: the contract between `uverbs` (decodes and validates the shape of kernel commands) and `dev` (device truth: objects,
 * limits, state machines, data movement). Handles are process-wide 32-bit indices with a generation, 0 = none; a stale, foreign or
 * wrong-kind handle is not_found. `dev` knows no ioctl, no fd but the ones passed in, no libibverbs struct.
 * Everything here is slow path: it may lock and allocate, and must not be called with the engine lock held.
 * The engine entry points (progress) are in dev/engine.h.
 *
 * Source of the rules: the kernel's EFA driver and rdma-core, as described in docs/device-abi.md.
 *
 * Invariants
 *   DEV-1  every accepted WQE yields exactly one CQE, none after its QP's destroy or reset returned.
 *   DEV-2  the low log2(max_qp) bits of a QPN are unique among the live QPs of a context.
 *   DEV-3  an AH number is shared by all AHs of one (PD, GID); the reverse lookup is per PD.
 *   DEV-4  a call that fails has changed nothing.
 */
#pragma once

#include "base/status.h"
#include "softefa/settings.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace softefa::dev {

using base::result;
using base::status;
using handle = std::uint32_t; ///< 0 = none
using gid    = std::array<std::uint8_t, 16>;

/// A window of the context's memfd that the provider maps: offset is the mmap key.
struct region {
    std::uint64_t offset = 0; ///< bytes, page aligned; unique in the context
    std::uint64_t size   = 0; ///< bytes, multiple of the page size
};

/// --- process and context -------------------------------------------------------------------------------------------

/// GID of device `index`: fe80::/64 with an EUI-64 that depends on user, domain, host and index.
gid device_gid(unsigned index) noexcept;

/// One opened device. `memfd` stays owned by the caller and must outlive the context; dev maps windows of it itself
/// (by raw system calls, so that memory hooks of the host process do not fire).
result<handle> context_open(unsigned device_index, int memfd) noexcept;
/// Destroys whatever the context still owns. No CQE, event or wake-up after it returns.
void context_close(handle context) noexcept;

/// Where asynchronous events of a context go: the write end of a pipe (non-blocking), not owned; -1 = nowhere.
void context_set_async(handle context, int fd) noexcept;

/// Called in every process that is forked, by its fork handler: contexts of the parent are dead in it, every call for them fails with
/// permission, the engine does nothing, nothing is freed. context_open() makes it a process of its own; handles of the parent must not be
/// passed any more then.
void process_forked() noexcept;

/// What a command of the kernel interface was for, as far as counting it goes.
enum class command_kind : std::uint8_t { other, context, pd, mr, ah, cq, qp };
/// A command came to its end: `error` is 0 or an errno; only those that reach a device (`counted`) change its counters.
void command_done(unsigned device_index, bool counted, command_kind creates, unsigned object, unsigned method, int error) noexcept;

/// --- protection domains, memory, address handles --------------------------------------------------------------------

struct pd_reply { handle pd = 0; std::uint16_t pdn = 0; };
result<pd_reply> pd_alloc(handle context) noexcept;
status           pd_dealloc(handle pd) noexcept; ///< busy while objects use it

/// access: IBV_ACCESS_* bits after the optional range was dropped. Unmapped memory is bad_address; memory is not pinned.
struct mr_reply { handle mr = 0; std::uint32_t lkey = 0; std::uint32_t rkey = 0; };
result<mr_reply> mr_register(handle pd, std::uint64_t start, std::uint64_t length, std::uint64_t iova,
                             std::uint32_t access) noexcept;
/// On return nothing remote reads or writes the range any more (exact, also for work in progress).
status mr_deregister(handle mr) noexcept;

struct ah_reply { handle ah = 0; std::uint16_t ah_number = 0; };
result<ah_reply> ah_create(handle pd, const gid &destination) noexcept; ///< limit when max_ah is reached
status           ah_destroy(handle ah) noexcept;

/// --- completion queues -----------------------------------------------------------------------------------------------

struct cq_request {
    std::uint32_t cqe           = 0;     ///< entries, power of two
    std::uint32_t entry_size    = 32;    ///< 16 or 32 bytes
    bool          with_sgid     = false;
    int           event_fd      = -1;    ///< write end of the channel's pipe (non-blocking), -1 = no channel; not owned
    std::uint64_t user_handle   = 0;     ///< what an event record carries
};
struct cq_reply { handle cq = 0; std::uint16_t cq_index = 0; region ring; region doorbell; /* size 0: no doorbell */ };
result<cq_reply> cq_create(handle context, const cq_request &request) noexcept;
bool cq_in_use(handle cq) noexcept; ///< a queue pair completes there: cq_destroy() would say busy
/// busy while a QP uses it. Event records written for this CQ so far, to its channel and to the context's asynchronous descriptor, so that the
/// caller can settle them; either may be null.
status cq_destroy(handle cq, std::uint32_t *events_p, std::uint32_t *async_events_p = nullptr) noexcept;

/// --- queue pairs -----------------------------------------------------------------------------------------------------

enum class qp_type : std::uint8_t { srd, ud };
enum class qp_state : std::uint8_t { reset = 0, init = 1, rtr = 2, rts = 3, sqd = 4, sqe = 5, error = 6 };

struct qp_request {
    qp_type       type               = qp_type::srd;
    handle        pd                 = 0;
    handle        send_cq            = 0;
    handle        recv_cq            = 0;
    std::uint32_t max_send_wr        = 0;
    std::uint32_t max_recv_wr        = 0;
    std::uint32_t max_send_sge       = 0;
    std::uint32_t max_recv_sge       = 0;
    std::uint32_t max_inline         = 0;
    std::uint32_t sq_ring_size       = 0; ///< bytes; WQE size = sq_ring_size / max_send_wr
    std::uint32_t rq_ring_size       = 0; ///< bytes; 16 per descriptor
    bool          unsolicited_recv   = false;
};
struct qp_reply {
    handle        qp  = 0;
    std::uint16_t qpn = 0;
    region        sq_ring, sq_doorbell, rq_ring, rq_doorbell; ///< size 0: the queue has no entries
};
result<qp_reply> qp_create(handle context, const qp_request &request) noexcept;
/// Pending work is dropped without completions; the QPN is not reused before the rotation comes round.
status qp_destroy(handle qp) noexcept;

/// attr_mask bits are IBV_QP_*; only fields named there are meaningful.
struct qp_attr {
    qp_state      state      = qp_state::reset;
    qp_state      cur_state  = qp_state::reset;
    std::uint32_t qkey       = 0;
    std::uint32_t sq_psn     = 0;
    std::uint16_t pkey_index = 0;
    std::uint8_t  port       = 1;
    std::uint8_t  rnr_retry  = 7;
    bool          sq_draining = false;
};
/// Checks transition and attribute tables (SRD and UD differ): invalid_argument, unsupported.
status qp_modify(handle qp, std::uint32_t attr_mask, const qp_attr &attr) noexcept;
status qp_query(handle qp, qp_attr *attr_p, qp_request *caps_p) noexcept;

} // namespace softefa::dev
