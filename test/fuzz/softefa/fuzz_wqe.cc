/* A hostile application: work requests, receive descriptors and doorbells with anything in them.
 *
 * Must hold: no byte outside of what is registered for it changes; each accepted work request completes at most once; queues that are reset work again.
 */
#include "script.h"

#include "nic.h"

#include <memory>

namespace {

using namespace nic;

constexpr std::size_t page = 4096;

struct world {
    fuzz::guarded_pages memory{5 * page}; ///< guard | registered for everything | guard | registered without rights | guard
    endpoint      a, b;
    port         &at = a.at;
    cq_view       ucq;
    queue_pair    ud;
    handle        open_mr = 0;
    std::uint32_t open_key = 0, closed_key = 0, stale_key = 0;

    static qp_request shape()
    {
        qp_request r;
        r.max_send_wr  = 16;
        r.max_recv_wr  = 16;
        r.max_recv_sge = 2;
        return r;
    }
    world() : a(page, shape(), 2, 0, 16), b(page, shape(), 2, 0, 64)
    {
        register_open();
        auto closed = mr_register(a.pd, address(3), page, address(3), 0);
        closed_key  = closed->rkey;
        ucq         = at.cq(16);
        qp_request r = shape();
        r.type       = softefa::dev::qp_type::ud;
        ud.open(at, a.pd, ucq.h, ucq.h, r);
        ud.connect();
    }
    std::uint64_t address(unsigned n) const { return reinterpret_cast<std::uint64_t>(memory + n * page); }
    void register_open()
    {
        auto m   = mr_register(a.pd, address(1), page, address(1), local_write | remote_write | remote_read);
        open_mr  = m->mr;
        open_key = m->rkey;
    }
    bool guards_hold() const { return fuzz::untouched(memory, page) && fuzz::untouched(memory + 2 * page, 3 * page); }
};

std::unique_ptr<world> w;
unsigned               age;
char                   folder[] = "/tmp/softefa-fuzz-XXXXXX";

std::uint64_t any_address(fuzz::script &s)
{
    const std::uint8_t how = s.u8();
    return (how & 0x80) != 0 ? s.edge() : w->address((how & 1) != 0 ? 1 : how % 5) + (s.u16() & 0x1fff) - 64;
}
std::uint32_t any_key(fuzz::script &s)
{
    const std::uint32_t keys[] = {w->open_key, w->open_key, w->open_key, w->closed_key, w->stale_key, w->b.rkey, w->open_key ^ (1u << (s.u8() & 31)), s.u32()};
    return keys[s.u8() & 7];
}

void mutate(fuzz::script &s, std::uint8_t *bytes, unsigned size)
{
    for (unsigned n = s.u8() & 7; n > 4; --n)
        bytes[s.u8() % size] = s.u8();
}

void put_wqe(fuzz::script &s, queue_pair &q)
{
    const std::uint16_t to[] = {w->a.qp.qpn, w->b.qp.qpn, w->ud.qpn, static_cast<std::uint16_t>(s.u8())};
    const std::uint16_t dest = to[s.u8() & 3], id = s.u8();
    const buffer        local{reinterpret_cast<void *>(any_address(s)), (s.u8() & 1) != 0 ? s.u8() : static_cast<std::uint32_t>(s.edge()), any_key(s) & 0xffffff};
    queue_pair::wqe     out;
    switch (s.u8() % 5) {
    case 0: out = q.send_inline(id, w->a.ah, dest, std::string(s.u8() % 33, 'i')); break;
    case 1: out = q.send(id, w->a.ah, dest, {local}); break;
    case 2: out = q.send(id, w->a.ah, dest, {local, {reinterpret_cast<void *>(any_address(s)), s.u8(), any_key(s) & 0xffffff}}); break;
    default: out = q.rdma(static_cast<std::uint8_t>(1 + (s.u8() & 1)), id, w->a.ah, dest, local, any_address(s), any_key(s)); break;
    }
    if ((s.u8() & 3) == 0)
        out = queue_pair::with_imm(out, s.u32());
    mutate(s, out.b, 64);
    q.put(out);
}

void put_recv(fuzz::script &s, queue_pair &q)
{
    std::vector<buffer> sges;
    for (unsigned n = 1 + (s.u8() & 1); n != 0; --n)
        sges.push_back({reinterpret_cast<void *>(any_address(s)), s.u16(), any_key(s) & 0xffffff});
    q.post_recv(s.u8(), sges, false);
    mutate(s, q.rq + ((q.rq_posted - 1u) % q.rq_entries) * 16, 16);
    if ((s.u8() & 3) != 0)
        __atomic_store_n(q.rq_db, q.rq_posted, __ATOMIC_RELEASE);
}

unsigned take_all(cq_view &cq)
{
    unsigned n = 0;
    for (; n < 64 && cq.take(); ++n) {
    }
    return n;
}

void step(fuzz::script &s)
{
    queue_pair *qps[] = {&w->a.qp, &w->b.qp, &w->ud, &w->a.qp};
    const unsigned which = s.u8() & 3;
    queue_pair &q = *qps[which];
    ++fuzz::commands;
    switch (s.u8() % 16) {
    case 0: case 1: case 2: case 3: put_wqe(s, q); q.ring(); break;
    case 4: put_wqe(s, q); break;
    case 5: case 6: case 7: put_recv(s, q); break;
    case 8: // a doorbell that no provider writes
        __atomic_store_n((s.u8() & 1) != 0 ? q.sq_db : q.rq_db, static_cast<std::uint32_t>(s.edge()), __ATOMIC_RELEASE);
        engine_posted(q.h);
        break;
    case 9: case 10:
        engine_poll(w->a.scq.h);
        take_all(w->a.scq), take_all(w->a.rcq), take_all(w->b.scq), take_all(w->b.rcq), take_all(w->ucq);
        break;
    case 11: engine_poll(w->a.scq.h); break;
    case 12: engine_consumed(w->a.scq.h, static_cast<unsigned>(s.edge())); break; // says that it took what it did not
    case 13:
        (void)mr_deregister(w->open_mr);
        w->stale_key = w->open_key;
        w->register_open();
        break;
    case 14: (void)q.to(static_cast<qp_state>(s.u8() % 7)); break;
    default: // back to work
        (void)q.to(qp_state::reset);
        q.sq_posted = q.rq_posted = 0;
        q.connect(q.type == softefa::dev::qp_type::srd ? s.u8() % 3 : -1); // tries that never end would keep the helper busy for the rest of the run
        break;
    }
}

/// After anything: queues that are reset carry a message.
void still_works()
{
    endpoint fresh(page);
    fresh.qp.post_recv(1, {fresh.slice(0, 64)});
    fresh.qp.post(fresh.qp.send_inline(1, fresh.ah, fresh.qp.qpn, "still works"));
    auto got = fresh.rcq.wait(60000), done = fresh.scq.wait(60000);
    fuzz::must(got && got->status == 0 && done && done->status == 0, "a new queue pair works");
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int *, char ***)
{
    settings wanted;
    fuzz::must(mkdtemp(folder) != nullptr, "a folder");
    wanted.registry_dir = folder;
    wanted.rnr_timer_us = 1;
    fuzz::must(configure(wanted), "configured");
    fuzz::count_at_exit("steps of a hostile application");
    std::atexit([] { w.reset(); fuzz::must(std::system((std::string("rm -rf ") + folder).c_str()) == 0, "clean"); });
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    if (w == nullptr)
        w = std::make_unique<world>();
    fuzz::script s(data, size);
    while (s.more())
        step(s);
    fuzz::must(w->guards_hold(), "no byte outside of the registered page changed");
    if (++age % 512 == 0) {
        still_works();
        w.reset();
    }
    return 0;
}
