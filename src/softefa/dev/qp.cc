/* Queue pairs: creation against the device's limits, the state machine, destruction.
 *
 * Owns: everything about a QP that is not moving data. All memory that its work can ever need is allocated here: one op for each send WQE, and
 * one overflow entry in its CQs for each WQE of either queue.
 */
#include "softefa/dev/direct.h"
#include "softefa/dev/engine_state.h"
#include "softefa/dev/fabric_client.h"
#include "softefa/dev/kept.h"
#include "softefa/dev/publish.h"
#include "softefa/dev/state_table.h"

#include <algorithm>
#include <bit>
#include <cstdlib>

namespace softefa::dev {

namespace {

constexpr std::uint32_t cap_unsolicited = 1u << 6, cap_rnr_retry = 1u << 1;

status check_request(const context &c, const qp_request &r, const pd *p, const cq *send, const cq *recv) noexcept
{
    const device_limits &limit = device_limits_get();
    if (p == nullptr || send == nullptr || recv == nullptr || p->owner != &c || send->owner != &c || recv->owner != &c)
        return status::not_found;
    if (r.unsolicited_recv && (r.type != qp_type::srd || (limit.device_caps & cap_unsolicited) == 0))
        return status::unsupported;
    const std::uint32_t inline_most = std::max(limit.inline_size, limit.inline_size_ex);
    if (r.max_send_wr > limit.max_sq_wr || r.max_recv_wr > limit.max_rq_wr || r.max_send_sge > limit.max_sq_sge ||
        r.max_recv_sge > limit.max_rq_sge || r.max_recv_sge > limits::recv_sge || r.max_inline > inline_most ||
        r.sq_ring_size > limit.max_llq_size)
        return status::invalid_argument;
    // The provider rounds both queues up to powers of two; what arrives otherwise is no provider's.
    if (r.max_send_wr != 0) {
        const std::uint32_t wqe_size = r.sq_ring_size / r.max_send_wr;
        if (!std::has_single_bit(r.max_send_wr) || r.max_send_wr > limits::sq_entries || (wqe_size != 64 && wqe_size != 128) ||
            r.max_send_wr * wqe_size != r.sq_ring_size || (wqe_size == 128 && limit.inline_size_ex == 0))
            return status::invalid_argument;
        // A provider that knows no wide work requests asks for the inline size that its user asked for, and would then
        // write that much into a narrow one.
        if (r.max_inline > (wqe_size == 128 ? inline_most : limit.inline_size))
            return status::invalid_argument;
    } else if (r.sq_ring_size != 0) {
        return status::invalid_argument;
    }
    const std::uint32_t descriptors = r.rq_ring_size / 16;
    if (r.rq_ring_size % 16 != 0 || (r.rq_ring_size != 0 && !std::has_single_bit(descriptors)) || descriptors > limits::rq_entries ||
        (r.max_recv_wr != 0 && descriptors < r.max_recv_wr))
        return status::invalid_argument;
    if (c.qp_count >= limit.max_qp)
        return status::limit;
    return status::ok;
}

/// Room for one more entry per WQE (CQ-3), given back by unreserve_overflow(): a later QP uses it again. Control lock held. Grows by copying
/// outside of the engine lock, swapped in under it.
status reserve_overflow(cq &c, std::uint32_t more) noexcept
{
    const std::uint32_t room = c.overflow_wanted + more;
    if (room <= c.overflow_room) {
        c.overflow_wanted = room;
        return status::ok;
    }
    auto               *grown = static_cast<cqe_bytes *>(std::malloc(room * sizeof(cqe_bytes)));
    if (grown == nullptr)
        return status::no_memory;
    cqe_bytes *old = c.overflow;
    {
        const engine_guard engine_lock;
        for (std::uint32_t i = 0; i < c.overflow_count; ++i)
            grown[i] = old[(c.overflow_head + i) % c.overflow_room];
        c.overflow      = grown;
        c.overflow_head = 0;
        c.overflow_room = room;
    }
    std::free(old);
    c.overflow_wanted = room;
    return status::ok;
}

void unreserve_overflow(cq &send, cq &recv, const qp_request &r) noexcept
{
    send.overflow_wanted -= r.max_send_wr;
    recv.overflow_wanted -= r.max_recv_wr;
}

op *make_ops(qp &q, std::uint32_t count) noexcept
{
    auto *ops = static_cast<op *>(std::malloc(count * sizeof(op)));
    for (std::uint32_t i = 0; i < count && ops != nullptr; ++i) {
        op *o        = new (&ops[i]) op();
        o->owner     = &q;
        o->slot      = i;
        o->next_free = i + 1;
    }
    return ops;
}

std::uint16_t low_mask() noexcept
{
    return static_cast<std::uint16_t>(std::min<std::uint32_t>(std::bit_ceil(device_limits_get().max_qp), 65536) - 1);
}

struct parts { ///< what a QP allocates; released together when one of them fails
    mapped_region sq, sq_db, rq, rq_db;
    op           *ops = nullptr;
    bool          ok  = false;
};

parts allocate_parts(context &c, qp &q, const qp_request &r) noexcept
{
    parts out;
    auto  take = [&](std::uint64_t size, mapped_region *to) {
        auto got = c.regions.allocate(size);
        if (got)
            *to = *got;
        return static_cast<bool>(got);
    };
    out.ok = take(r.sq_ring_size, &out.sq) && take(r.max_send_wr != 0 ? 4096 : 0, &out.sq_db) && take(r.rq_ring_size, &out.rq) &&
             take(r.rq_ring_size != 0 ? 4096 : 0, &out.rq_db);
    if (out.ok && r.max_send_wr != 0) {
        out.ops = make_ops(q, r.max_send_wr);
        out.ok  = out.ops != nullptr;
    }
    return out;
}

void release_parts(context &c, parts &p) noexcept
{
    c.regions.release(p.sq);
    c.regions.release(p.sq_db);
    c.regions.release(p.rq);
    c.regions.release(p.rq_db);
    std::free(p.ops);
}

void install(qp &q, context &c, const qp_request &r, pd &p, cq &send, cq &recv, const parts &got) noexcept
{
    q.type         = r.type;
    q.device       = static_cast<std::uint8_t>(c.device);
    q.unsolicited  = r.unsolicited_recv;
    q.send_flags   = static_cast<std::uint8_t>((r.type == qp_type::ud ? wire::flag_ud : 0) | (r.unsolicited_recv ? wire::flag_unsolicited : 0));
    q.wqe_size     = r.max_send_wr != 0 ? r.sq_ring_size / r.max_send_wr : 64;
    q.sq_entries   = r.max_send_wr;
    q.rq_entries   = r.rq_ring_size / 16;
    q.max_send_sge = r.max_send_sge;
    q.max_recv_sge = r.max_recv_sge;
    q.inline_size  = std::min<std::uint32_t>(q.wqe_size == 128 ? 80 : 32, std::max(device_limits_get().inline_size,
                                                                                   device_limits_get().inline_size_ex));
    q.send_max     = device_limits_get().mtu;
    q.sq_ring      = got.sq.base;
    q.rq_ring      = got.rq.base;
    q.sq_doorbell  = reinterpret_cast<std::atomic<std::uint32_t> *>(got.sq_db.base);
    q.rq_doorbell  = reinterpret_cast<std::atomic<std::uint32_t> *>(got.rq_db.base);
    q.ops          = got.ops;
    q.free_op      = 0;
    q.free_ops     = r.max_send_wr;
    q.send_cq      = &send;
    q.recv_cq      = &recv;
    q.domain       = &p;
    q.owner        = &c;
    q.receives_plainly = q.type == qp_type::srd && q.rq_doorbell != nullptr && q.max_recv_sge != 0 && !engine().rude.receives();
    q.caps         = r;
    q.sq_region    = got.sq;
    q.sq_db_region = got.sq_db;
    q.rq_region    = got.rq;
    q.rq_db_region = got.rq_db;
}

/// Ends all work without a completion, also what is completed and not yet in a ring (CQ-4). Engine lock held.
void drop_work(qp &q) noexcept
{
    requester_drop_qp(q);
    cq_drop_qpn(*q.send_cq, q.qpn);
    if (q.recv_cq != q.send_cq)
        cq_drop_qpn(*q.recv_cq, q.qpn);
}

/// To RESET: nothing outstanding, counters and doorbells at zero. Engine lock held.
void reset(qp &q) noexcept
{
    drop_work(q);
    q.sq_consumed = q.rq_consumed = 0;
    q.sq_seen = q.rq_seen = 0;
    if (q.sq_doorbell != nullptr)
        q.sq_doorbell->store(0, std::memory_order_relaxed);
    if (q.rq_doorbell != nullptr)
        q.rq_doorbell->store(0, std::memory_order_relaxed);
    q.attr      = qp_attr{};
    q.rnr_retry = 7;
    q.qkey      = 0;
}

void apply(qp &q, std::uint32_t mask, const qp_attr &attr, qp_state to) noexcept
{
    if (to == qp_state::reset)
        reset(q);
    if ((mask & attr_qkey) != 0)
        q.qkey = q.attr.qkey = attr.qkey;
    if ((mask & attr_sq_psn) != 0)
        q.attr.sq_psn = attr.sq_psn;
    if ((mask & attr_pkey) != 0)
        q.attr.pkey_index = attr.pkey_index;
    if ((mask & attr_port) != 0)
        q.attr.port = attr.port;
    if ((mask & attr_rnr_retry) != 0)
        q.rnr_retry = q.attr.rnr_retry = attr.rnr_retry;
    q.attr.state = q.attr.cur_state = to;
    std::atomic_ref(q.state).store(to, std::memory_order_seq_cst); // before the look at the doorbells below: engine_posted_recv()
    if (to == qp_state::error) {
        requester_flush_qp(q);
        responder_flush_qp(q);
    } else if (to == qp_state::rts) {
        requester_fetch(q);
        engine().again.store(1, std::memory_order_relaxed); // ENG-3: the release of the lock makes a pass
    }
}

} // namespace

void qp_release(qp &q) noexcept
{
    context &c = *q.owner;
    parts    all{q.sq_region, q.sq_db_region, q.rq_region, q.rq_db_region, q.ops, true};
    {
        const engine_guard engine_lock; // no CQE of this QP after this
        drop_work(q);
        direct_forget(q);
        cq_user_gone(*q.send_cq);
        cq_user_gone(*q.recv_cq);
        std::atomic_ref(q.state).store(qp_state::reset, std::memory_order_relaxed); // engine_posted_recv() reads it without the lock
        q.ops        = nullptr; // whoever still meets this QP finds a QP without queues
        q.sq_entries = q.rq_entries = 0; // nobody publishes a row of it any more
        q.sq_doorbell = q.rq_doorbell = nullptr;
        engine().local_qps[q.device][q.qpn] = 0;
        engine().routes[q.device][q.qpn]    = 0;
        kept_close(q);
        publish_qp_gone(q);
        record(record_kind::qp_destroy, q.device, q.qpn, 0, 0, 0, 0);
        engine().dirty[q.slot / 64].fetch_and(~(std::uint64_t{1} << (q.slot % 64)), std::memory_order_relaxed);
    }
    const unsigned low = q.qpn & low_mask();
    c.low_used[low / 64] &= ~(std::uint64_t{1} << (low % 64));
    fabric_release_qpn(q.device, q.qpn);
    --q.domain->users;
    unreserve_overflow(*q.send_cq, *q.recv_cq, q.caps);
    --c.qp_count;
    release_parts(c, all);
    objects().qps.erase(q.self);
}

result<qp_reply> qp_create(handle owner, const qp_request &request) noexcept
{
    const control_guard guard;
    process_objects    &all = objects();
    context            *c   = guard.dead() ? nullptr : all.contexts.find(owner);
    if (c == nullptr)
        return guard.dead() ? status::permission : status::not_found;
    pd *p = all.pds.find(request.pd);
    cq *send = all.cqs.find(request.send_cq), *recv = all.cqs.find(request.recv_cq);
    const status checked = check_request(*c, request, p, send, recv);
    if (checked != status::ok)
        return checked;
    if (reserve_overflow(*send, request.max_send_wr) != status::ok)
        return status::no_memory;
    if (reserve_overflow(*recv, request.max_recv_wr) != status::ok) {
        send->overflow_wanted -= request.max_send_wr;
        return status::no_memory;
    }
    handle h = 0;
    qp    *q = all.qps.insert(&h);
    if (q == nullptr) {
        unreserve_overflow(*send, *recv, request);
        return status::no_memory;
    }
    parts got = allocate_parts(*c, *q, request);
    auto  qpn = got.ok ? fabric_claim_qpn(c->device, low_mask(), c->low_used) : result<std::uint16_t>(status::no_memory);
    if (!qpn) {
        release_parts(*c, got);
        all.qps.erase(h);
        unreserve_overflow(*send, *recv, request);
        return qpn.error();
    }
    {
        const engine_guard engine_lock;
        install(*q, *c, request, *p, *send, *recv, got);
        q->self = h;
        q->slot = static_cast<std::uint16_t>(qp_table::index_of(h));
        q->qpn  = *qpn;
        engine().local_qps[q->device][q->qpn] = static_cast<std::uint16_t>(q->slot + 1);
        engine().routes[q->device][q->qpn]    = 1; // link 0 is the process itself
        ++send->users;
        ++recv->users;
        publish_qp(*q);
        record(record_kind::qp_create, q->device, q->qpn, 0, 0, static_cast<unsigned>(q->type), q->sq_entries | std::uint64_t{q->rq_entries} << 32);
    }
    const unsigned low = q->qpn & low_mask();
    c->low_used[low / 64] |= std::uint64_t{1} << (low % 64);
    ++p->users;
    ++c->qp_count;
    return qp_reply{h, q->qpn, got.sq.where, got.sq_db.where, got.rq.where, got.rq_db.where};
}

status qp_destroy(handle h) noexcept
{
    const control_guard guard;
    qp *q = guard.dead() ? nullptr : objects().qps.find(h);
    if (q == nullptr)
        return guard.dead() ? status::permission : status::not_found;
    qp_release(*q);
    return status::ok;
}

status qp_modify(handle h, std::uint32_t attr_mask, const qp_attr &attr) noexcept
{
    const control_guard guard;
    qp *q = guard.dead() ? nullptr : objects().qps.find(h);
    if (q == nullptr)
        return guard.dead() ? status::permission : status::not_found;
    const qp_state to = (attr_mask & attr_state) != 0 ? attr.state : q->state;
    if (static_cast<unsigned>(to) > static_cast<unsigned>(qp_state::error))
        return status::invalid_argument;
    const bool has_rnr = (device_limits_get().device_caps & cap_rnr_retry) != 0;
    const status seen  = state_table_check(q->type, q->state, to, attr_mask, has_rnr);
    if (seen != status::ok)
        return seen;
    if (((attr_mask & attr_port) != 0 && attr.port != 1) || ((attr_mask & attr_pkey) != 0 && attr.pkey_index != 0))
        return status::unsupported;
    if (((attr_mask & attr_cur_state) != 0 && attr.cur_state != q->state) ||
        ((attr_mask & attr_rnr_retry) != 0 && attr.rnr_retry > 7))
        return status::invalid_argument;
    if (to == qp_state::rtr || to == qp_state::rts) {
        const status published = fabric_publish();
        if (published != status::ok)
            return published;
    }
    const engine_guard engine_lock;
    const qp_state     before = q->state;
    apply(*q, attr_mask, attr, to);
    kept_close(*q); // another state, another qkey: whatever it is, it is asked again
    publish_qp(*q);
    if (to != before)
        record(record_kind::qp_state, q->device, q->qpn, 0, static_cast<unsigned>(to), static_cast<unsigned>(before), 0);
    return status::ok;
}

status qp_query(handle h, qp_attr *attr_p, qp_request *caps_p) noexcept
{
    const control_guard guard;
    qp *q = guard.dead() ? nullptr : objects().qps.find(h);
    if (q == nullptr)
        return guard.dead() ? status::permission : status::not_found;
    if (attr_p != nullptr) {
        *attr_p           = q->attr;
        attr_p->state     = attr_p->cur_state = q->state;
        attr_p->rnr_retry = q->rnr_retry;
    }
    if (caps_p != nullptr)
        *caps_p = q->caps;
    return status::ok;
}

} // namespace softefa::dev
