/* A verbs device in memory, for programs that run whole interfaces of the transport without a device.
 *
 * Owns: contexts whose post and poll functions are ours, and stand-ins for the libibverbs and libefa functions that the
 * transport calls (defined in fake_verbs.cc, so they win at link time); a virtual clock in place of CLOCK_MONOTONIC; a seeded
 * number in place of ucs_generate_uuid. Nothing moves by itself: a driver decides what each posted send comes to and what
 * arrives. So a run is decided by its input alone.
 * Refuses to know: the transport. It sees work requests and completions only, and checks what a device would: depths of
 * the queues, keys and ranges of every buffer at the moment it is read or written, and that everything is given back.
 *
 * A violated check prints one line and aborts: both the fuzzing engine and the stand-alone driver take that for a finding.
 */
#pragma once

#include <infiniband/efadv.h>
#include <infiniband/verbs.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#define FUZZ_CHECK(holds, ...)                                                                                               \
    do {                                                                                                                     \
        if (!(holds)) {                                                                                                      \
            std::fprintf(stderr, "fuzz: check failed at %s:%d: %s: ", __FILE__, __LINE__, #holds);                           \
            std::fprintf(stderr, __VA_ARGS__);                                                                               \
            std::fputc('\n', stderr);                                                                                        \
            std::abort();                                                                                                    \
        }                                                                                                                    \
    } while (0)

namespace fake {

using gid_bytes = std::array<std::uint8_t, 16>;

/// The number of a handle that the device does not have: what a receive from an unknown sender shows.
inline constexpr std::uint16_t ah_unknown = 0xffff;

struct ah : ibv_ah {
    gid_bytes gid{};
    std::uint16_t number = 0;
};

struct mr : ibv_mr {
    int access = 0;
};

/// A send (or RDMA operation) that the device holds.
struct send {
    std::uint64_t wr_id  = 0;
    int opcode           = IBV_WR_SEND_WITH_IMM;
    std::uint32_t imm    = 0; ///< host order
    gid_bytes gid{};          ///< of the target
    std::uint16_t qpn    = 0; ///< of the target
    std::uint32_t qkey   = 0;
    bool is_inline       = false;
    std::vector<std::uint8_t> inlined;
    std::vector<ibv_sge> pieces; ///< read when the message leaves, as a device does
    std::uint64_t remote_address = 0;
    std::uint32_t rkey           = 0;
    std::uint64_t order          = 0; ///< counts posts of the device
};

struct receive {
    std::uint64_t wr_id;
    ibv_sge sge;
};

/// Sees every request that the device is offered, and what each comes to.
struct observer {
    virtual ~observer() = default;
    /// `rc`: 0 if the device took it, else what the call answers.
    virtual void attempted(const send &s, int rc) = 0;
    /// Just before its completion can be polled; memory is as the operation left it.
    virtual void completed(const send &s, ibv_wc_status status, std::uint32_t vendor_err) = 0;
};

struct device {
    explicit device(const gid_bytes &address);
    device(const device &)            = delete;
    device &operator=(const device &) = delete;
    ~device();

    ibv_context context{};
    ibv_pd pd{};
    gid_bytes gid;

    // the one queue pair, and its queues
    ibv_qp_ex qp{};
    ibv_cq cq{};
    bool has_qp = false, has_cq = false;
    std::uint16_t next_qpn    = 1; ///< of the queue pair that is created next
    std::uint32_t qkey        = 0; ///< as modify_qp set it
    std::uint32_t sq_depth = 0, rq_depth = 0;
    std::deque<receive> receives;
    std::deque<send> sends; ///< what the driver has not completed yet, in the order of their posts
    std::deque<ibv_wc> completions;
    send open; ///< the request between ibv_wr_start and ibv_wr_complete
    observer *watch = nullptr;
    std::uint64_t posted_sends = 0, polled = 0, polled_receives = 0;
    std::size_t least_receives = SIZE_MAX; ///< seen by a poll since the driver last reset it

    // completion events: the descriptor of the channel is readable when the queue has told of something
    ibv_comp_channel channel{};
    bool has_channel = false, notify = false;   ///< notify: the next completion is told of
    std::uint64_t events_told = 0, events_acknowledged = 0;

    std::map<std::uint32_t, std::unique_ptr<mr>> mrs; ///< by lkey
    std::map<std::uint16_t, std::unique_ptr<ah>> ahs; ///< by number
    std::uint32_t next_key      = 0x100;
    std::uint16_t next_ah       = 1;
    std::size_t max_mrs = SIZE_MAX, max_ahs = SIZE_MAX;
    std::uint32_t inline_most = 32; ///< what a queue pair may be created with
    std::uint32_t inline_size = 0;  ///< what this one was

    // faults: the next so many calls fail
    unsigned fail_post_send = 0, fail_post_recv = 0;
    int fail_errno          = ENOMEM;

    /// The device's number for the sender's address, as a completion shows it.
    std::uint16_t number_of(const gid_bytes &from) const;
    /// The bytes that a send carries, gathered now. Checks keys and ranges.
    std::vector<std::uint8_t> gather(const send &s) const;
    /// The bytes of a range that a key covers; null if it does not. `access` as in IBV_ACCESS_*.
    std::uint8_t *reach(std::uint64_t address, std::size_t size, std::uint32_t key, bool remote, int access) const;

    /// One piece of user memory that a read fills; null if the key or range is wrong.
    std::uint8_t *landing(const send &s) const;

    /// A send leaves the device with this status. What an RDMA operation does to memory is the driver's to do before.
    void complete_send(std::size_t position, ibv_wc_status status, std::uint32_t vendor_err);
    /// A message arrives. False: no receive is posted, nothing changed.
    bool arrive(const void *bytes, std::size_t size, std::uint32_t imm, bool with_imm, std::uint16_t ah_number,
                std::uint32_t src_qp, ibv_wc_status status = IBV_WC_SUCCESS, std::uint32_t vendor_err = 0);

    static device &of(const ibv_context *c);

private:
    void push(const ibv_wc &wc);
};

/// Bytes that a one-sided operation moves.
inline std::size_t size_of(const send &s) { return s.is_inline ? s.inlined.size() : s.pieces[0].length; }

inline bool is_one_sided(const send &s) { return s.opcode == IBV_WR_RDMA_READ || s.opcode == IBV_WR_RDMA_WRITE; }

// --- virtual time ----------------------------------------------------------------------------------------------------------
/// Nanoseconds. Reading the clock moves it on by clock_step, so that a bounded wait ends.
extern std::uint64_t clock_ns;
extern std::uint64_t clock_step;
/// Seed of ucs_generate_uuid.
extern std::uint64_t uuid_state;

} // namespace fake
