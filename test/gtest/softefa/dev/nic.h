/* What rdma-core's EFA provider does, as far as the tests need it: rings, doorbells and completion entries by hand.
 *
 * Written from the formats in docs/device-abi.md, not from dev's own codec, so that a mistake there is not repeated here.
 */
#pragma once

#include "softefa/dev/configure.h"
#include "softefa/dev/counters.h"
#include "softefa/dev/device.h"
#include "softefa/dev/engine.h"
#include "softefa/dev/engine_state.h"
#include "softefa/dev/kept.h"

#include "base/clock.h"
#include "base/rng.h"

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <fcntl.h>
#include <optional>
#include <poll.h>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

namespace nic {

using namespace softefa::dev;
using softefa::settings;

inline constexpr unsigned      generous_ms = 60'000; ///< for what must happen; only a failure takes so long, however busy the machine
/// Polls between two offers of the processor. Where threads take turns (valgrind), a poll ends its turn where it makes a system call: inside the engine,
/// with the lock taken. Who only polls must end it outside of the engine as well, or the helper finds the lock taken each time it is its turn.
inline constexpr unsigned      yield_steps = 16;
inline constexpr unsigned      passes_surely = 100'000; ///< in a row that move something: who moves more is told so by others without end
inline constexpr std::uint32_t qkey = 0x1234;
inline constexpr std::uint32_t local_write = 1, remote_write = 2, remote_read = 4;

/// What a device counted so far: the helper thread counts too.
inline device_counters counted(unsigned device = 0)
{
    kept_settle(); // what peers read without asking
    const engine_guard guard;
    return *device_counters_get(device);
}

/* A program and the device meet in memory that each maps for itself. ThreadSanitizer goes by addresses, and sees no connection between a store
 * of the one and a load of the other: it is told that the program's load, or store, was one of the device's word. */
inline void loaded_from([[maybe_unused]] void *word_of_device)
{
#ifdef __SANITIZE_THREAD__
    __tsan_acquire(word_of_device);
#endif
}
inline void will_store_to([[maybe_unused]] void *word_of_device)
{
#ifdef __SANITIZE_THREAD__
    __tsan_release(word_of_device);
#endif
}

struct cqe {
    std::uint16_t req_id, qpn;
    std::uint8_t  status, queue, op;
    bool          has_imm, unsolicited;
    std::uint32_t length;
    std::uint16_t ah, src_qpn;
    std::uint32_t imm;
    std::uint8_t  sgid[16];
    std::uint64_t wide_id;
};

/// A completion queue, read as a provider reads it.
class cq_view {
public:
    handle                 h = 0;
    std::uint32_t          entries = 0, stride = 32;
    volatile std::uint8_t *ring = nullptr;
    std::uint32_t         *doorbell = nullptr;
    std::uint64_t          consumer = 0;
    cq                    *of_device = nullptr; ///< the same queue

    /// One entry, if there is one. Does not run the engine.
    std::optional<cqe> take()
    {
        volatile std::uint8_t *at    = ring + (consumer % entries) * stride;
        const std::uint8_t     phase = ((consumer / entries) & 1) == 0 ? 1 : 0;
        if ((__atomic_load_n(at + 3, __ATOMIC_ACQUIRE) & 1) != phase)
            return std::nullopt;
        if (of_device != nullptr)
            loaded_from(of_device->ring + (consumer % entries) * stride);
        std::uint8_t b[32] = {};
        for (unsigned i = 0; i < stride; ++i)
            b[i] = at[i];
        cqe          out{};
        std::uint16_t low;
        std::memcpy(&out.req_id, b, 2);
        out.status      = b[2];
        out.queue       = (b[3] >> 1) & 3;
        out.has_imm     = (b[3] & 8) != 0;
        out.op          = (b[3] >> 4) & 7;
        out.unsolicited = (b[3] & 0x80) != 0;
        std::memcpy(&out.qpn, b + 4, 2);
        std::memcpy(&low, b + 6, 2);
        std::memcpy(&out.ah, b + 8, 2);
        std::memcpy(&out.src_qpn, b + 10, 2);
        std::memcpy(&out.imm, b + 12, 4);
        std::memcpy(out.sgid, b + 16, 16);
        std::memcpy(&out.wide_id, b + 6, 6);
        out.length = low;
        if (out.queue == 2 && out.op == 2 && stride == 32)
            out.length |= static_cast<std::uint32_t>(b[16] | (b[17] << 8)) << 16;
        ++consumer;
        if (doorbell != nullptr)
            __atomic_store_n(doorbell, static_cast<std::uint32_t>(consumer & 0xffff), __ATOMIC_RELEASE);
        engine_consumed(h, 1);
        return out;
    }

    std::optional<cqe> poll()
    {
        engine_poll(h);
        return take();
    }

    /// One entry if there is any for the program to have. poll() may come back without: it leaves the engine alone while another thread is in it, the
    /// helper for one, and a pass need not be all. So a test may conclude something from an empty-handed poll_surely(), and from no empty-handed poll().
    std::optional<cqe> poll_surely()
    {
        {
            const engine_guard guard;
            for (unsigned n = 0; n < passes_surely && engine_run(); ++n) {
            }
            engine().again.store(1); // ENG-3: the helper hears of what waits for a time, as behind a poll
        }
        return take();
    }

    /// Polls until there is an entry or the time is up.
    std::optional<cqe> wait(unsigned milliseconds = generous_ms)
    {
        const auto end   = base::clock_now_ns() + base::ms(milliseconds);
        unsigned   polls = 0;
        do {
            if (auto got = poll())
                return got;
            if (++polls % yield_steps == 0)
                sched_yield();
        } while (base::clock_now_ns() < end);
        return std::nullopt;
    }
};

/// A pipe that stands for a completion channel.
struct event_pipe {
    int read_fd = -1, write_fd = -1;

    event_pipe()
    {
        int both[2];
        if (pipe2(both, O_CLOEXEC | O_NONBLOCK) == 0) {
            read_fd  = both[0];
            write_fd = both[1];
        }
    }
    ~event_pipe()
    {
        ::close(read_fd);
        ::close(write_fd);
    }
    event_pipe(const event_pipe &) = delete;

    bool ok() const { return read_fd >= 0; }
    /// The record that is there, or comes in time.
    std::optional<std::uint64_t> take(unsigned milliseconds = generous_ms) const
    {
        pollfd        p{read_fd, POLLIN, 0};
        std::uint64_t element = 0;
        const bool    came    = ::poll(&p, 1, static_cast<int>(milliseconds)) == 1 && read(read_fd, &element, sizeof(element)) == sizeof(element);
        return came ? std::optional(element) : std::nullopt;
    }
};

/// One opened device with its own memfd.
class port {
public:
    int                                  memfd   = -1;
    handle                               context = 0;
    unsigned                             device;
    std::vector<std::pair<void *, size_t>> maps;

    explicit port(unsigned index = 0) : device(index)
    {
        memfd   = memfd_create("nic", MFD_CLOEXEC);
        auto h  = context_open(index, memfd);
        context = h ? *h : 0;
    }
    ~port()
    {
        context_close(context);
        for (auto &m : maps)
            munmap(m.first, m.second);
        close(memfd);
    }
    port(const port &) = delete;

    std::uint8_t *map(const region &r)
    {
        if (r.size == 0)
            return nullptr;
        void *at = mmap(nullptr, r.size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, static_cast<off_t>(r.offset));
        maps.emplace_back(at, r.size);
        return static_cast<std::uint8_t *>(at);
    }

    handle pd() { return pd_alloc(context)->pd; }

    cq_view cq(std::uint32_t entries, cq_request request = {})
    {
        cq_view v;
        request.cqe = entries;
        auto reply  = cq_create(context, request);
        if (!reply)
            return v;
        v.h         = reply->cq;
        v.of_device = objects().cqs.find(v.h);
        v.entries  = entries;
        v.stride   = request.entry_size;
        v.ring     = map(reply->ring);
        v.doorbell = reinterpret_cast<std::uint32_t *>(map(reply->doorbell));
        return v;
    }
};

struct buffer {
    const void   *at = nullptr;
    std::uint32_t length = 0, lkey = 0;
};

/// A queue pair, driven as a provider drives it.
class queue_pair {
public:
    handle                     h = 0;
    std::uint16_t              qpn = 0;
    std::uint8_t              *sq = nullptr, *rq = nullptr;
    std::uint32_t             *sq_db = nullptr, *rq_db = nullptr;
    std::uint32_t              sq_entries = 0, rq_entries = 0, wqe_size = 64;
    std::uint16_t              sq_posted = 0, rq_posted = 0;
    softefa::dev::qp_type      type = softefa::dev::qp_type::srd;
    softefa::dev::qp          *of_device = nullptr; ///< the same queue pair

    bool open(port &p, handle pd, handle send_cq, handle recv_cq, qp_request r = {})
    {
        r.pd = pd;
        r.send_cq = send_cq;
        r.recv_cq = recv_cq;
        if (r.max_send_wr == 0) r.max_send_wr = 64;
        if (r.max_recv_wr == 0) r.max_recv_wr = 64;
        if (r.max_send_sge == 0) r.max_send_sge = 2;
        if (r.max_recv_sge == 0) r.max_recv_sge = 1;
        if (r.sq_ring_size == 0) r.sq_ring_size = r.max_send_wr * 64;
        if (r.rq_ring_size == 0) r.rq_ring_size = std::bit_ceil(r.max_recv_wr * r.max_recv_sge) * 16;
        r.max_inline = 32;
        auto reply = qp_create(p.context, r);
        if (!reply)
            return false;
        type       = r.type;
        h          = reply->qp;
        of_device  = objects().qps.find(h);
        qpn        = reply->qpn;
        sq_entries = r.max_send_wr;
        wqe_size   = r.sq_ring_size / r.max_send_wr;
        rq_entries = r.rq_ring_size / 16;
        sq         = p.map(reply->sq_ring);
        sq_db      = reinterpret_cast<std::uint32_t *>(p.map(reply->sq_doorbell));
        rq         = p.map(reply->rq_ring);
        rq_db      = reinterpret_cast<std::uint32_t *>(p.map(reply->rq_doorbell));
        return true;
    }

    base::status to(qp_state state, int rnr_retry = -1)
    {
        qp_attr a;
        a.state = state;
        a.qkey  = qkey;
        a.port  = 1;
        std::uint32_t mask = 1;
        if (state == qp_state::init)
            mask |= 0x70;
        if (state == qp_state::rts)
            mask |= 0x10000;
        if (rnr_retry >= 0) {
            mask |= 0x800;
            a.rnr_retry = static_cast<std::uint8_t>(rnr_retry);
        }
        return qp_modify(h, mask, a);
    }
    void connect(int rnr_retry = -1)
    {
        ASSERT_EQ(to(qp_state::init), base::status::ok);
        ASSERT_EQ(to(qp_state::rtr), base::status::ok);
        ASSERT_EQ(to(qp_state::rts, rnr_retry), base::status::ok);
    }

    void post_recv(std::uint16_t req_id, const std::vector<buffer> &sges, bool ring = true)
    {
        for (std::size_t i = 0; i < sges.size(); ++i) {
            std::uint8_t d[16] = {};
            const auto   address = reinterpret_cast<std::uint64_t>(sges[i].at);
            const auto   length = static_cast<std::uint16_t>(sges[i].length);
            std::uint32_t ctrl = sges[i].lkey | (i == 0 ? 1u << 30 : 0) | (i + 1 == sges.size() ? 1u << 31 : 0);
            std::memcpy(d, &address, 8);
            if (i == 0)
                std::memcpy(d + 8, &req_id, 2);
            std::memcpy(d + 10, &length, 2);
            std::memcpy(d + 12, &ctrl, 4);
            std::memcpy(rq + (rq_posted % rq_entries) * 16, d, 16);
            ++rq_posted;
        }
        if (ring) {
            if (of_device != nullptr)
                will_store_to(of_device->rq_doorbell);
            __atomic_store_n(rq_db, rq_posted, __ATOMIC_RELEASE);
        }
    }

    struct wqe {
        std::uint8_t b[128] = {};
        wqe &set16(unsigned at, std::uint16_t v) { std::memcpy(b + at, &v, 2); return *this; }
        wqe &set32(unsigned at, std::uint32_t v) { std::memcpy(b + at, &v, 4); return *this; }
        wqe &set64(unsigned at, std::uint64_t v) { std::memcpy(b + at, &v, 8); return *this; }
    };

    wqe make(std::uint8_t op, std::uint16_t req_id, std::uint16_t ah, std::uint16_t dest, std::uint32_t key = qkey)
    {
        wqe w;
        w.set16(0, req_id);
        w.b[2] = static_cast<std::uint8_t>(op | 0x80);
        w.b[3] = static_cast<std::uint8_t>(0x1c | ((sq_posted / sq_entries) & 1));
        w.set16(4, dest).set16(12, ah).set32(16, key);
        return w;
    }
    void put(const wqe &w)
    {
        std::memcpy(sq + (sq_posted % sq_entries) * wqe_size, w.b, wqe_size);
        ++sq_posted;
    }
    void ring()
    {
        if (of_device != nullptr)
            will_store_to(of_device->sq_doorbell);
        __atomic_store_n(sq_db, sq_posted, __ATOMIC_RELEASE);
        engine_posted(h);
    }
    void post(const wqe &w) { put(w); ring(); }

    wqe send(std::uint16_t req_id, std::uint16_t ah, std::uint16_t dest, const std::vector<buffer> &sges)
    {
        wqe w = make(0, req_id, ah, dest);
        w.set16(6, static_cast<std::uint16_t>(sges.size()));
        unsigned i = 0;
        for (const buffer &s : sges) {
            w.set32(32 + 16 * i, s.length).set32(36 + 16 * i, s.lkey).set64(40 + 16 * i, reinterpret_cast<std::uint64_t>(s.at));
            if (++i == 2)
                break;
        }
        return w;
    }
    wqe send_inline(std::uint16_t req_id, std::uint16_t ah, std::uint16_t dest, const std::string &text)
    {
        wqe w = make(0x20, req_id, ah, dest);
        w.set16(6, static_cast<std::uint16_t>(text.size()));
        std::memcpy(w.b + 32, text.data(), text.size());
        return w;
    }
    wqe rdma(std::uint8_t op, std::uint16_t req_id, std::uint16_t ah, std::uint16_t dest, buffer local, std::uint64_t remote,
             std::uint32_t rkey)
    {
        wqe w = make(op, req_id, ah, dest);
        w.set16(6, 1).set32(32, local.length).set32(36, rkey).set64(40, remote);
        w.set32(48, local.length).set32(52, local.lkey).set64(56, reinterpret_cast<std::uint64_t>(local.at));
        return w;
    }
    static wqe with_imm(wqe w, std::uint32_t imm)
    {
        w.b[2] |= 0x10;
        w.set32(8, imm);
        return w;
    }
};

/// A device with a PD, one CQ for each queue, a registered buffer and one connected QP.
struct endpoint {
    std::vector<std::uint8_t> memory; ///< first here, so that it outlives the work that names it
    port                      at;
    handle                    pd = 0, mr = 0, ah_handle = 0;
    std::uint16_t             ah = 0;
    std::uint32_t             lkey = 0, rkey = 0;
    cq_view                   scq, rcq;
    queue_pair                qp;

    explicit endpoint(std::size_t bytes = 1 << 16, qp_request r = {}, int rnr_retry = -1, unsigned device = 0, std::uint32_t cqes = 256)
        : memory(bytes), at(device)
    {
        pd  = at.pd();
        scq = at.cq(cqes);
        rcq = at.cq(cqes);
        EXPECT_TRUE(qp.open(at, pd, scq.h, rcq.h, r));
        qp.connect(r.type == qp_type::srd ? rnr_retry : -1);
        auto m = mr_register(pd, reinterpret_cast<std::uint64_t>(memory.data()), bytes, reinterpret_cast<std::uint64_t>(memory.data()),
                             local_write | remote_write | remote_read);
        EXPECT_TRUE(static_cast<bool>(m));
        mr   = m->mr;
        lkey = m->lkey;
        rkey = m->rkey;
        auto a = ah_create(pd, device_gid(device));
        EXPECT_TRUE(static_cast<bool>(a));
        ah_handle = a->ah;
        ah        = a->ah_number;
    }
    buffer slice(std::size_t offset, std::uint32_t length) { return {memory.data() + offset, length, lkey}; }
};

/// Test fixture: settings without randomness unless the test asks for it.
class device_test : public testing::Test {
protected:
    settings wanted;
    std::string folder;

    void SetUp() override
    {
        char name[] = "/tmp/softefa-test-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        folder                   = name;
        wanted.registry_dir      = folder;
        wanted.reorder_per_65536 = 0;
        use();
    }
    void TearDown() override
    {
        const std::string clean = "rm -rf '" + folder + "'";
        EXPECT_EQ(std::system(clean.c_str()), 0);
    }
    void use() { ASSERT_TRUE(configure(wanted)) << "a context was left open by an earlier test"; }
};

} // namespace nic
