/* A process of the same user that scribbles over the memory that it shares with us: positions, commit words, headers, lengths, acknowledgements.
 *
 * The peer's segment belongs to this program, which writes what it likes; the engine has it as link 1, and copies from its memory by address.
 * Must hold: no byte outside of what is registered changes, work to that peer and to others ends, and the process itself goes on working.
 * In every 16th input a second thread writes at the same time (scribbler.h). In the others some records are given to the device one by one, and
 * each must be counted exactly once (one_record.h).
 */
#include "one_record.h"
#include "scribbler.h"
#include "script.h"

#include "softefa/dev/engine_state.h"
#include "nic.h"

#include <fcntl.h>
#include <memory>

namespace {

using namespace nic;
namespace fabric = softefa::fabric;
namespace wire   = softefa::wire;

constexpr std::size_t   page   = 4096;
constexpr std::uint16_t theirs = 40000; ///< QPN of the neighbour

struct world {
    fuzz::guarded_pages memory{3 * page}; ///< guard | registered | guard
    endpoint         e;
    std::uint32_t    key = 0;
    fabric::segment  scribbled; ///< the neighbour's, as it maps it
    fabric::channel  c;
    softefa::dev::link l;
    std::uint64_t    data_at = 0; ///< next place for a proper record
    std::uint64_t    ack_at  = 0;

    static qp_request shape()
    {
        qp_request r;
        r.max_send_wr = 16;
        return r;
    }
    world() : e(page, shape(), 2, 0, 32)
    {
        const auto start = reinterpret_cast<std::uint64_t>(memory + page);
        key = mr_register(e.pd, start, page, start, local_write | remote_write | remote_read)->rkey;
        open_link();
    }
    ~world() { close_link(); }
    void open_link()
    {
        auto own  = fabric::segment_create(1);
        auto peer = fabric::segment_create(2, fuzz::commands % 3); // may or may not cut us off
        fuzz::must(own && peer, "segments");
        scribbled = *peer;
        auto seen = fabric::segment_open_peer(fcntl(scribbled.fd, F_DUPFD_CLOEXEC, 0), 2);
        fuzz::must(static_cast<bool>(seen), "mapped");
        fabric::channel_open(c, *own, *seen, -1, 2);
        l         = softefa::dev::link{};
        l.channel = &c;
        l.index   = 1;
        data_at = ack_at = 0;
        const engine_guard guard;
        engine_state      &s = engine();
        s.links[1]   = &l;
        s.link_count = 2;
        s.single_copy_min = 1; // its memory can be read: it is ours, and what stands for its identity is what the channel knows
        l.reader = {getpid(), -1, reinterpret_cast<std::uint64_t>(&c.instance), true};
        s.routes[0][theirs] = 2;
    }
    void close_link()
    {
        {
            const engine_guard guard;
            engine_state      &s = engine();
            s.links[1]   = nullptr;
            s.link_count = 1;
            s.routes[0][theirs] = 0;
            l.gone = true;
            requester_link_gone(l);
            s.touched_count = 0;
        }
        fabric::channel_close(c);
        fabric::segment_close(scribbled);
    }
    bool guards_hold() const { return fuzz::untouched(memory, page) && fuzz::untouched(memory + 2 * page, page); }
};

std::unique_ptr<world> w;
fuzz::scribbler       *other; ///< leaves before what it writes to
bool                   alone; ///< nobody else writes during this input
unsigned               age;
char                   folder[] = "/tmp/softefa-fuzz-XXXXXX";

/// A record that its neighbour might send, with anything wrong with it.
void put_record(fuzz::script &s)
{
    std::uint8_t *ring = w->scribbled.base + fabric::data_ring_offset;
    wire::header  h;
    h.kind       = static_cast<wire::pdu_kind>((s.u8() & 15) != 0 ? 1 + s.u8() % 4 : s.u8());
    if ((s.u8() & 7) == 0)
        h.kind = wire::pdu_kind::read_grant;
    h.flags      = s.u8();
    h.src_qpn    = theirs;
    h.dst_qpn    = (s.u8() & 7) != 0 ? w->e.qp.qpn : s.u16();
    h.src_device = (s.u8() & 31) != 0 ? 0 : s.u8();
    h.dst_device = (s.u8() & 31) != 0 ? 0 : s.u8();
    h.qkey       = (s.u8() & 15) != 0 ? nic::qkey : s.u32();
    h.imm        = s.u32();
    h.rkey       = (s.u8() & 7) != 0 ? w->key : s.u32();
    const auto start = reinterpret_cast<std::uint64_t>(w->memory + page);
    h.address    = h.kind == wire::pdu_kind::read_data ? s.u16() : (s.u8() & 3) != 0 ? start + s.u16() % 5000 - 400 : s.edge();
    h.payload_size = (s.u8() & 3) != 0 ? s.u16() % 2100 : static_cast<std::uint32_t>(s.edge());
    h.length     = (s.u8() & 1) != 0 ? h.payload_size : (s.u8() & 3) != 0 ? s.u16() : static_cast<std::uint32_t>(s.edge());
    // Names of operations that exist: slots are small, generations follow each other.
    h.op = wire::op_id{(engine().op_generation - (s.u8() & 7)) & ((1u << 27) - 1), static_cast<std::uint16_t>(s.u8() & 3),
                       static_cast<std::uint16_t>(s.u8() & 15)}
               .pack();
    if ((s.u8() & 15) == 0)
        h.op = s.u64();
    // Memory of its own that it lends, or says so: the whole address space of this process is there to be read.
    wire::grant   given;
    wire::window &lent = given.now;
    lent.address = (s.u8() & 3) != 0 ? start : s.edge();
    lent.epoch   = (s.u8() & 1) != 0 ? 0 : s.edge();
    lent.length  = (s.u8() & 3) != 0 ? s.u16() % 5000u : static_cast<std::uint32_t>(s.edge());
    lent.slot    = (s.u8() & 1) != 0 ? s.u8() : static_cast<std::uint32_t>(s.edge());
    // And a registration around it, to be kept.
    given.first   = (s.u8() & 3) != 0 ? start - s.u8() : s.edge();
    given.length  = (s.u8() & 3) != 0 ? s.u16() : s.edge();
    given.address = (s.u8() & 3) != 0 ? lent.address - (start - given.first) : s.edge();
    given.epoch   = lent.epoch;
    if (const std::uint8_t proper = s.u8(); (proper & 3) != 0) { // so that more comes further than its first check
        h.flags &= static_cast<std::uint8_t>(~wire::flag_ud);
        if (h.kind == wire::pdu_kind::read_req)
            h.payload_size = 0;
        if (h.kind == wire::pdu_kind::write && (proper & 4) != 0)
            h.flags |= wire::flag_first | wire::flag_last, h.length = h.payload_size;
    }
    const bool        grants     = h.kind == wire::pdu_kind::read_grant;
    const std::size_t size       = grants ? sizeof(given) : sizeof(lent);
    const bool        by_address = grants || (h.kind == wire::pdu_kind::write && (h.flags & wire::flag_by_address) != 0);
    if (by_address && (s.u8() & 7) != 0) {
        h.payload_size = static_cast<std::uint32_t>(size);
        if ((s.u8() & 1) != 0)
            h.length = lent.length;
    }
    other->near.store(w->data_at, std::memory_order_relaxed);
    const std::size_t tail = fabric::data_ring_size - w->data_at % fabric::data_ring_size;
    if ((s.u8() & 31) == 0) {
        h.kind         = wire::pdu_kind::pad;
        h.payload_size = static_cast<std::uint32_t>(tail - sizeof(h));
    }
    std::memcpy(ring + w->data_at % fabric::data_ring_size + 4, reinterpret_cast<std::uint8_t *>(&h) + 4, std::min(tail, sizeof(h)) - 4);
    if (by_address && tail >= sizeof(h) + size)
        std::memcpy(ring + w->data_at % fabric::data_ring_size + sizeof(h), &given, size);
    const std::uint64_t next = w->data_at + fabric::record_size(h.payload_size);
    if (h.payload_size < fabric::record_payload_max)
        fabric::commit_word(ring + next % fabric::data_ring_size / 64 * 64).store(0);
    fabric::commit_word(ring + w->data_at % fabric::data_ring_size).store(fabric::commit_value(w->data_at));
    w->data_at = (s.u8() & 31) != 0 ? next / 64 * 64 : s.u32() / 64 * 64;
}

void put_ack(fuzz::script &s)
{
    auto     *words = reinterpret_cast<std::atomic<std::uint64_t> *>(w->scribbled.base + fabric::ack_ring_offset);
    wire::ack a;
    a.op = wire::op_id{(engine().op_generation - (s.u8() & 15)) & ((1u << 27) - 1), static_cast<std::uint16_t>(s.u8() & 3),
                       static_cast<std::uint16_t>(s.u8() & 15)}
               .pack();
    a.status  = static_cast<wire::efa_status>(s.u8() & 31);
    a.is_read = (s.u8() & 1) != 0;
    words[w->ack_at % fabric::ack_count].store((s.u8() & 15) != 0 ? a.pack(fabric::ack_tx::lap(w->ack_at)) : s.u64());
    ++w->ack_at;
}

void scribble(fuzz::script &s)
{
    auto *control = reinterpret_cast<fabric::control_page *>(w->scribbled.base);
    const std::uint64_t value = (s.u8() & 1) != 0 ? w->c.tx.head() + s.u8() - 128 : s.edge();
    switch (s.u8() & 7) {
    case 0: control->data_consumed.store(value); break;
    case 1: control->acks_consumed.store(value); break;
    case 2: control->park.store(static_cast<std::uint32_t>(value)); break;
    case 3: control->serving_to.store(value); break;
    case 4: control->cut.store((s.u8() & 7) == 0); break;
    case 5: control->may_cut = static_cast<std::uint32_t>(value); break;
    default: { // anywhere
        const std::size_t at = s.u32() % (fabric::segment_size - 8);
        std::memcpy(w->scribbled.base + at, &value, 8);
    }
    }
}

/// A record that the device takes by itself, when it has nothing else to do for this neighbour.
void one_record(fuzz::script &s)
{
    const engine_guard guard;
    softefa::dev::link &l = w->l;
    for (unsigned n = 0; n < 64 && !l.failed && engine_run_link(l); ++n) {
    }
    if (!alone || l.failed)
        return;
    w->data_at = w->c.rx.position();
    put_record(s);
    if ((s.u8() & 1) != 0)
        w->e.qp.post_recv(1, {{w->memory + page + s.u8(), s.u16() % 3000u, w->key & 0xffffff}});
    fuzz::take_one(l);
}

void post(fuzz::script &s)
{
    queue_pair  &q = w->e.qp;
    const buffer local{w->memory + page + s.u8(), s.u16() % 3000u, w->key & 0xffffff};
    const std::uint16_t to = (s.u8() & 7) != 0 ? theirs : q.qpn;
    switch (s.u8() & 3) {
    case 0: q.post(q.send_inline(1, w->e.ah, to, "inline")); break;
    case 1: q.post(q.send(2, w->e.ah, to, {local})); break;
    default: q.post(q.rdma(static_cast<std::uint8_t>(1 + (s.u8() & 1)), 3, w->e.ah, to, local, s.u64(), s.u32())); break;
    }
}

void step(fuzz::script &s)
{
    ++fuzz::commands;
    switch (s.u8() % 14) {
    case 0: case 1: case 2: put_record(s); break;
    case 3: case 4: put_ack(s); break;
    case 5: scribble(s); break;
    case 6: post(s); break;
    case 7: w->e.qp.post_recv(1, {{w->memory + page + s.u8(), s.u16() % 3000u, w->key & 0xffffff}}); break;
    case 8: { // we give it up
        const engine_guard guard;
        cut_begin(w->l);
        cut_finish(w->l, true);
        break;
    }
    case 9: case 10: one_record(s); break;
    default:
        engine_poll(w->e.scq.h);
        while (w->e.scq.take() || w->e.rcq.take()) {
        }
    }
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int *, char ***)
{
    settings wanted;
    fuzz::must(mkdtemp(folder) != nullptr, "a folder");
    wanted.registry_dir = folder;
    wanted.rnr_timer_us = 1;
    fuzz::must(configure(wanted), "configured");
    fuzz::count_at_exit("steps of a scribbling neighbour");
    other = new fuzz::scribbler;
    std::atexit([] {
        const fuzz::fates &r = fuzz::records;
        std::fprintf(stderr, "fuzz: %llu stores beside the device in %llu inputs; %llu records one by one: %llu delivered, %llu refused, %llu answered, %llu kept, %llu fatal\n",
                     static_cast<unsigned long long>(other->stores), static_cast<unsigned long long>(other->turns), static_cast<unsigned long long>(r.all()),
                     static_cast<unsigned long long>(r.delivered), static_cast<unsigned long long>(r.refused), static_cast<unsigned long long>(r.answered),
                     static_cast<unsigned long long>(r.kept), static_cast<unsigned long long>(r.fatal));
        delete other;
        w.reset();
        fuzz::must(std::system((std::string("rm -rf ") + folder).c_str()) == 0, "clean");
    });
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    if (w == nullptr)
        w = std::make_unique<world>();
    fuzz::script s(data, size);
    alone = (s.u8() & 15) != 0; // the two threads wait for each other, which costs more than an input
    if (!alone)
        other->begin(w->scribbled.base, fuzz::commands);
    while (s.more())
        step(s);
    engine_poll(w->e.scq.h);
    if (!alone)
        other->end();
    fuzz::must(w->guards_hold(), "no byte outside of the registered page changed");
    if (w->l.failed || ++age % 64 == 0) { // the end of the neighbour ends all work to it
        w->close_link();
        if (w->e.qp.to(qp_state::reset) == base::status::ok) {
            w->e.qp.sq_posted = w->e.qp.rq_posted = 0;
            w->e.qp.connect(2);
        }
        while (w->e.scq.poll() || w->e.rcq.poll()) {
        }
        w->e.qp.post_recv(7, {{w->memory + page, 64, w->key & 0xffffff}});
        w->e.qp.post(w->e.qp.send_inline(7, w->e.ah, w->e.qp.qpn, "still works"));
        auto got = w->e.rcq.wait(60000), done = w->e.scq.wait(60000);
        fuzz::must(got && got->status == 0 && done && done->status == 0, "work to others goes on");
        w->open_link();
    }
    return 0;
}
