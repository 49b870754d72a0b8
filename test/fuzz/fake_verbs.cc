/* See fake_verbs.h. Link-time stand-ins come last. */
#include "fake_verbs.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define FAKE_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FAKE_POISON 1
#endif
#endif
#ifdef FAKE_POISON
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace fake {

std::uint64_t clock_ns   = 1'000'000'000'000;
std::uint64_t clock_step = 1'000;
std::uint64_t uuid_state = 1;

namespace {

std::uint64_t mix(std::uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

device &of_qp(const ibv_qp *qp) { return device::of(qp->context); }

int take_fault(unsigned &budget, int error)
{
    if (budget == 0) {
        return 0;
    }
    --budget;
    return error;
}

/// Both ways of posting end here. 0 or an errno.
int take_request(device &d, send &&s, ibv_ah *to)
{
    const int rc = take_fault(d.fail_post_send, d.fail_errno);
    // The device's own limit is not met by a transport that counts its slots: IFC-2.
    FUZZ_CHECK(d.sends.size() < d.sq_depth, "more sends posted than the queue holds");
    FUZZ_CHECK(to != nullptr, "a send without an address handle");
    const auto *handle = static_cast<const ah *>(to);
    const auto found   = d.ahs.find(handle->number);
    FUZZ_CHECK(found != d.ahs.end() && found->second.get() == handle, "a send to a destroyed address handle");
    s.gid = handle->gid;
    if (d.watch != nullptr) {
        d.watch->attempted(s, rc);
    }
    if (rc == 0) {
        s.order = d.posted_sends++;
        d.sends.push_back(std::move(s));
    }
    return rc;
}

int post_send(ibv_qp *qp, ibv_send_wr *wr, ibv_send_wr **bad)
{
    device &d = of_qp(qp);
    for (; wr != nullptr; wr = wr->next) {
        FUZZ_CHECK(wr->opcode == IBV_WR_SEND_WITH_IMM, "opcode %d by ibv_post_send", wr->opcode);
        send s;
        s.wr_id  = wr->wr_id;
        s.opcode = wr->opcode;
        s.imm    = be32toh(wr->imm_data);
        s.qpn    = static_cast<std::uint16_t>(wr->wr.ud.remote_qpn);
        s.qkey   = wr->wr.ud.remote_qkey;
        FUZZ_CHECK(wr->num_sge >= 1 && wr->num_sge <= 2, "%d pieces", wr->num_sge);
        if (wr->send_flags & IBV_SEND_INLINE) {
            s.is_inline = true;
            for (int i = 0; i < wr->num_sge; ++i) {
                const auto *from = reinterpret_cast<const std::uint8_t *>(wr->sg_list[i].addr);
                s.inlined.insert(s.inlined.end(), from, from + wr->sg_list[i].length);
            }
            FUZZ_CHECK(s.inlined.size() <= d.inline_size, "%zu inline bytes", s.inlined.size());
        } else {
            s.pieces.assign(wr->sg_list, wr->sg_list + wr->num_sge);
        }
        const int rc = take_request(d, std::move(s), wr->wr.ud.ah);
        if (rc != 0) {
            *bad = wr;
            return rc;
        }
    }
    return 0;
}

device &of_qp(const ibv_qp_ex *qp) { return of_qp(&qp->qp_base); }

// One-sided requests, as ibv_wr_* builds them: one at a time here.
ibv_ah *open_ah;

void wr_start(ibv_qp_ex *qp)
{
    of_qp(qp).open = {};
    open_ah        = nullptr;
}

void wr_rdma(ibv_qp_ex *qp, int opcode, std::uint32_t rkey, std::uint64_t remote)
{
    send &s = of_qp(qp).open;
    FUZZ_CHECK(qp->wr_flags == IBV_SEND_SIGNALED, "a one-sided request with flags %#x", qp->wr_flags);
    s.wr_id          = qp->wr_id;
    s.opcode         = opcode;
    s.rkey           = rkey;
    s.remote_address = remote;
}

void wr_rdma_read(ibv_qp_ex *qp, std::uint32_t rkey, std::uint64_t remote) { wr_rdma(qp, IBV_WR_RDMA_READ, rkey, remote); }
void wr_rdma_write(ibv_qp_ex *qp, std::uint32_t rkey, std::uint64_t remote) { wr_rdma(qp, IBV_WR_RDMA_WRITE, rkey, remote); }

void wr_set_ud_addr(ibv_qp_ex *qp, ibv_ah *handle, std::uint32_t qpn, std::uint32_t qkey)
{
    send &s = of_qp(qp).open;
    open_ah = handle;
    s.qpn   = static_cast<std::uint16_t>(qpn);
    s.qkey  = qkey;
}

void wr_set_sge(ibv_qp_ex *qp, std::uint32_t lkey, std::uint64_t address, std::uint32_t size)
{
    of_qp(qp).open.pieces.push_back({address, size, lkey});
}

void wr_set_inline_data(ibv_qp_ex *qp, void *bytes, std::size_t size)
{
    send &s = of_qp(qp).open;
    FUZZ_CHECK(s.opcode == IBV_WR_RDMA_WRITE && size <= of_qp(qp).inline_size && of_qp(qp).inline_size > 32,
               "%zu inline bytes in a one-sided request", size);
    s.is_inline = true;
    s.inlined.assign(static_cast<std::uint8_t *>(bytes), static_cast<std::uint8_t *>(bytes) + size);
}

int wr_complete(ibv_qp_ex *qp)
{
    device &d = of_qp(qp);
    FUZZ_CHECK(is_one_sided(d.open) && d.open.pieces.size() + d.open.is_inline == 1, "a request without an operation or a piece");
    return take_request(d, std::move(d.open), open_ah);
}

int req_notify_cq(ibv_cq *cq, int solicited_only)
{
    FUZZ_CHECK(solicited_only == 0 && cq->channel != nullptr, "a notification that nobody hears of");
    device::of(cq->context).notify = true;
    return 0;
}

int post_recv(ibv_qp *qp, ibv_recv_wr *wr, ibv_recv_wr **bad)
{
    device &d = of_qp(qp);
    for (; wr != nullptr; wr = wr->next) {
        const int rc = take_fault(d.fail_post_recv, d.fail_errno);
        if (rc != 0) {
            *bad = wr;
            return rc;
        }
        FUZZ_CHECK(d.receives.size() < d.rq_depth, "more receives posted than the queue holds");
        FUZZ_CHECK(wr->num_sge == 1, "a receive of %d pieces", wr->num_sge);
        std::uint8_t *to = d.reach(wr->sg_list->addr, wr->sg_list->length, wr->sg_list->lkey, false, IBV_ACCESS_LOCAL_WRITE);
        FUZZ_CHECK(to != nullptr, "a receive buffer outside its registration");
        ASAN_UNPOISON_MEMORY_REGION(to, wr->sg_list->length);
        d.receives.push_back({wr->wr_id, *wr->sg_list});
    }
    return 0;
}

int poll_cq(ibv_cq *cq, int count, ibv_wc *wc)
{
    device &d = device::of(cq->context);
    int taken = 0;
    while (taken < count && !d.completions.empty()) {
        wc[taken] = d.completions.front();
        d.completions.pop_front();
        d.polled_receives += wc[taken].opcode == IBV_WC_RECV;
        ++taken;
    }
    d.polled += static_cast<unsigned>(taken);
    d.least_receives = std::min(d.least_receives, d.receives.size());
    return taken;
}

} // namespace

device::device(const gid_bytes &address) : gid(address)
{
    context.ops.post_send = post_send;
    context.ops.post_recv = post_recv;
    context.ops.poll_cq   = poll_cq;
    context.ops.req_notify_cq = req_notify_cq;
    qp.wr_start           = wr_start;
    qp.wr_rdma_read       = wr_rdma_read;
    qp.wr_rdma_write      = wr_rdma_write;
    qp.wr_set_ud_addr     = wr_set_ud_addr;
    qp.wr_set_sge         = wr_set_sge;
    qp.wr_set_inline_data = wr_set_inline_data;
    qp.wr_complete        = wr_complete;
    context.abi_compat    = this;
    pd.context            = &context;
    qp.qp_base.context    = &context;
    cq.context            = &context;
}

device::~device()
{
    FUZZ_CHECK(!has_qp && !has_cq && !has_channel, "a queue or channel was not destroyed");
    FUZZ_CHECK(mrs.empty(), "%zu registrations were not undone", mrs.size());
    FUZZ_CHECK(ahs.empty(), "%zu address handles were not destroyed", ahs.size());
}

device &device::of(const ibv_context *c) { return *static_cast<device *>(c->abi_compat); }

std::uint16_t device::number_of(const gid_bytes &from) const
{
    for (const auto &[number, handle] : ahs) {
        if (handle->gid == from) {
            return number;
        }
    }
    return ah_unknown;
}

std::uint8_t *device::reach(std::uint64_t address, std::size_t size, std::uint32_t key, bool remote, int access) const
{
    const auto found = mrs.find(remote ? key & 0x7fffffffu : key);
    if (found == mrs.end() || (remote && found->second->rkey != key)) {
        return nullptr;
    }
    const mr &m      = *found->second;
    const auto begin = reinterpret_cast<std::uint64_t>(m.addr);
    if ((m.access & access) != access || address < begin || size > m.length || address - begin > m.length - size) {
        return nullptr;
    }
    return reinterpret_cast<std::uint8_t *>(address);
}

std::vector<std::uint8_t> device::gather(const send &s) const
{
    if (s.is_inline) {
        return s.inlined;
    }
    std::vector<std::uint8_t> bytes;
    for (const ibv_sge &piece : s.pieces) {
        const std::uint8_t *from = reach(piece.addr, piece.length, piece.lkey, false, 0);
        FUZZ_CHECK(from != nullptr, "a send of %u bytes outside its registration", piece.length);
        bytes.insert(bytes.end(), from, from + piece.length);
    }
    return bytes;
}

std::uint8_t *device::landing(const send &s) const
{
    return reach(s.pieces[0].addr, s.pieces[0].length, s.pieces[0].lkey, false, IBV_ACCESS_LOCAL_WRITE);
}

void device::push(const ibv_wc &wc)
{
    FUZZ_CHECK(completions.size() < static_cast<std::size_t>(cq.cqe), "the completion queue overflows");
    completions.push_back(wc);
    if (notify) {
        notify = false;
        ++events_told;
        const std::uint64_t one = 1;
        FUZZ_CHECK(write(channel.fd, &one, sizeof(one)) == sizeof(one), "the event could not be told");
    }
}

void device::complete_send(std::size_t position, ibv_wc_status status, std::uint32_t vendor_err)
{
    ibv_wc wc{};
    wc.wr_id      = sends[position].wr_id;
    wc.status     = status;
    wc.vendor_err = vendor_err;
    wc.opcode     = sends[position].opcode == IBV_WR_RDMA_READ ? IBV_WC_RDMA_READ :
                    sends[position].opcode == IBV_WR_RDMA_WRITE ? IBV_WC_RDMA_WRITE : IBV_WC_SEND;
    wc.qp_num     = qp.qp_base.qp_num;
    const send gone = std::move(sends[position]);
    sends.erase(sends.begin() + static_cast<std::ptrdiff_t>(position));
    if (watch != nullptr) {
        watch->completed(gone, status, vendor_err);
    }
    if (has_cq) {
        push(wc);
    }
}

bool device::arrive(const void *bytes, std::size_t size, std::uint32_t imm, bool with_imm, std::uint16_t ah_number,
                    std::uint32_t src_qp, ibv_wc_status status, std::uint32_t vendor_err)
{
    if (receives.empty() || !has_qp) {
        return false;
    }
    const receive r = receives.front();
    receives.pop_front();
    FUZZ_CHECK(size <= r.sge.length, "the driver sends more than a buffer holds");
    std::uint8_t *to = reach(r.sge.addr, r.sge.length, r.sge.lkey, false, IBV_ACCESS_LOCAL_WRITE);
    FUZZ_CHECK(to != nullptr, "a posted receive lost its registration");
    if (size != 0) {
        std::memcpy(to, bytes, size);
    }
    // Nobody may read beyond what arrived.
    ASAN_POISON_MEMORY_REGION(to + size, r.sge.length - size);
    ibv_wc wc{};
    wc.wr_id      = r.wr_id;
    wc.status     = status;
    wc.vendor_err = vendor_err;
    wc.opcode     = IBV_WC_RECV;
    wc.byte_len   = static_cast<std::uint32_t>(size);
    wc.imm_data   = htobe32(imm);
    wc.qp_num     = qp.qp_base.qp_num;
    wc.src_qp     = src_qp;
    wc.slid       = ah_number;
    wc.wc_flags   = with_imm ? IBV_WC_WITH_IMM : 0;
    push(wc);
    return true;
}

} // namespace fake

// --- stand-ins ---------------------------------------------------------------------------------------------------------------

#undef ibv_reg_mr

namespace {

ibv_mr *reg(ibv_pd *pd, void *address, std::size_t size, int access)
{
    fake::device &d = fake::device::of(pd->context);
    if (d.mrs.size() >= d.max_mrs) {
        errno = ENOMEM;
        return nullptr;
    }
    auto m     = std::make_unique<fake::mr>();
    m->context = pd->context;
    m->pd      = pd;
    m->addr    = address;
    m->length  = size;
    m->access  = access;
    m->lkey    = d.next_key++;
    m->rkey    = m->lkey | 0x80000000u;
    ibv_mr *p  = m.get();
    d.mrs.emplace(m->lkey, std::move(m));
    return p;
}

} // namespace

extern "C" {

ibv_mr *ibv_reg_mr(ibv_pd *pd, void *address, size_t size, int access) { return reg(pd, address, size, access); }

ibv_mr *ibv_reg_mr_iova2(ibv_pd *pd, void *address, size_t size, uint64_t, unsigned access)
{
    return reg(pd, address, size, static_cast<int>(access));
}

int ibv_dereg_mr(ibv_mr *m)
{
    ASAN_UNPOISON_MEMORY_REGION(m->addr, m->length);
    FUZZ_CHECK(fake::device::of(m->context).mrs.erase(m->lkey) == 1, "a registration is undone twice");
    return 0;
}

ibv_ah *ibv_create_ah(ibv_pd *pd, ibv_ah_attr *attr)
{
    fake::device &d = fake::device::of(pd->context);
    if (d.ahs.size() >= d.max_ahs) {
        errno = ENOMEM;
        return nullptr;
    }
    auto a     = std::make_unique<fake::ah>();
    a->context = pd->context;
    a->pd      = pd;
    std::memcpy(a->gid.data(), attr->grh.dgid.raw, a->gid.size());
    a->number = d.next_ah++;
    ibv_ah *p = a.get();
    d.ahs.emplace(a->number, std::move(a));
    return p;
}

int efadv_query_ah(ibv_ah *a, efadv_ah_attr *attr, uint32_t)
{
    attr->ahn = static_cast<fake::ah *>(a)->number;
    return 0;
}

int ibv_destroy_ah(ibv_ah *a)
{
    fake::device &d = fake::device::of(a->context);
    FUZZ_CHECK(d.ahs.erase(static_cast<fake::ah *>(a)->number) == 1, "an address handle is destroyed twice");
    return 0;
}

ibv_comp_channel *ibv_create_comp_channel(ibv_context *context)
{
    fake::device &d = fake::device::of(context);
    FUZZ_CHECK(!d.has_channel, "a second completion channel");
    d.channel    = {};
    d.channel.context = context;
    d.channel.fd = eventfd(0, EFD_CLOEXEC);
    FUZZ_CHECK(d.channel.fd >= 0, "no descriptor: errno %d", errno);
    d.has_channel = true;
    return &d.channel;
}

int ibv_destroy_comp_channel(ibv_comp_channel *channel)
{
    fake::device &d = fake::device::of(channel->context);
    FUZZ_CHECK(d.has_channel && !d.has_cq, "a completion channel is destroyed before its queue, or twice");
    d.has_channel = false;
    close(channel->fd);
    return 0;
}

int ibv_get_cq_event(ibv_comp_channel *channel, ibv_cq **cq, void **context)
{
    fake::device &d = fake::device::of(channel->context);
    std::uint64_t told;
    if (read(channel->fd, &told, sizeof(told)) != sizeof(told)) {
        return -1;
    }
    FUZZ_CHECK(told == 1, "events pile up: %llu", static_cast<unsigned long long>(told)); // one for each request
    *cq      = &d.cq;
    *context = nullptr;
    return 0;
}

void ibv_ack_cq_events(ibv_cq *cq, unsigned count) { fake::device::of(cq->context).events_acknowledged += count; }

ibv_qp_ex *ibv_qp_to_qp_ex(ibv_qp *qp) { return &fake::device::of(qp->context).qp; }

ibv_cq *ibv_create_cq(ibv_context *context, int cqe, void *, ibv_comp_channel *channel, int)
{
    fake::device &d = fake::device::of(context);
    FUZZ_CHECK(!d.has_cq, "a second completion queue");
    d.has_cq  = true;
    d.cq.cqe  = cqe;
    d.cq.channel = channel;
    d.notify     = false;
    d.events_told = d.events_acknowledged = 0;
    d.completions.clear();
    return &d.cq;
}

int ibv_destroy_cq(ibv_cq *cq)
{
    fake::device &d = fake::device::of(cq->context);
    FUZZ_CHECK(d.has_cq && !d.has_qp, "a completion queue is destroyed before its queue pair");
    d.has_cq = false;
    d.completions.clear();
    return 0;
}

ibv_qp *efadv_create_qp_ex(ibv_context *context, ibv_qp_init_attr_ex *attr, efadv_qp_init_attr *, uint32_t)
{
    fake::device &d = fake::device::of(context);
    FUZZ_CHECK(!d.has_qp, "a second queue pair");
    if (attr->cap.max_inline_data > d.inline_most) {
        errno = EINVAL;
        return nullptr;
    }
    d.inline_size        = attr->cap.max_inline_data;
    d.has_qp             = true;
    d.sq_depth           = attr->cap.max_send_wr;
    d.rq_depth           = attr->cap.max_recv_wr;
    d.qp.qp_base.qp_num  = d.next_qpn++;
    d.qp.qp_base.send_cq = d.qp.qp_base.recv_cq = &d.cq;
    return &d.qp.qp_base;
}

int ibv_modify_qp(ibv_qp *qp, ibv_qp_attr *attr, int mask)
{
    if (mask & IBV_QP_QKEY) {
        fake::device::of(qp->context).qkey = attr->qkey;
    }
    return 0;
}

int ibv_destroy_qp(ibv_qp *qp)
{
    fake::device &d = fake::device::of(qp->context);
    FUZZ_CHECK(d.has_qp, "a queue pair is destroyed twice");
    d.has_qp = false;
    d.sends.clear();
    d.receives.clear();
    d.completions.clear();
    return 0;
}

int clock_gettime(clockid_t id, struct timespec *ts) noexcept
{
    if (id != CLOCK_MONOTONIC) {
        return static_cast<int>(syscall(SYS_clock_gettime, id, ts));
    }
    fake::clock_ns += fake::clock_step;
    ts->tv_sec  = static_cast<time_t>(fake::clock_ns / 1'000'000'000u);
    ts->tv_nsec = static_cast<long>(fake::clock_ns % 1'000'000'000u);
    return 0;
}

uint64_t ucs_generate_uuid(uint64_t)
{
    fake::uuid_state += 0x9e3779b97f4a7c15u;
    return fake::mix(fake::uuid_state);
}

} // extern "C"
