/* One interface and thousands of peers, visited at random: what `cold_lines` runs under cachegrind.
 *
 * Owns: an interface of the transport, linked in, over a device that only takes requests and tells of completions: so that what is
 * counted in the transport's functions is the transport's. The device, the list of what comes next and the numbers that a
 * sender would know are here, in functions whose names do not begin as the transport's do.
 *
 *   send     8-byte active messages, each to a peer taken at random, completed a batch at a time
 *   receive  8-byte active messages, each from a peer taken at random, a batch for each progress call; credits for all of them
 *            were granted before
 *   grant    the same with what the transport grants so many senders: a credit message goes out for every few messages
 */
#include "uct/srd/srd_iface.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <endian.h>
#include <vector>

#undef ibv_reg_mr

namespace bench {

constexpr unsigned batch = 16;
constexpr std::uint32_t own_qkey = 1;

/// What the device was given and has not answered.
struct device {
    std::vector<ibv_wc> done;         ///< for the next poll
    std::vector<ibv_recv_wr> posted;  ///< receives, used from the end
};
device dev;
ibv_mr mr{};

[[noreturn]] void die(const char *what)
{
    std::fprintf(stderr, "cold_peers: %s\n", what);
    std::exit(1);
}

int post_send(ibv_qp *, ibv_send_wr *wr, ibv_send_wr **)
{
    ibv_wc wc{};
    wc.wr_id = wr->wr_id;
    dev.done.push_back(wc);
    return 0;
}

int post_recv(ibv_qp *, ibv_recv_wr *wr, ibv_recv_wr **)
{
    for (; wr != nullptr; wr = wr->next) {
        dev.posted.push_back(*wr);
    }
    return 0;
}

int poll_cq(ibv_cq *, int room, ibv_wc *wc)
{
    int n = 0;
    for (; n < room && !dev.done.empty(); ++n) {
        wc[n] = dev.done.back();
        dev.done.pop_back();
    }
    return n;
}

ucs_status_t handle(void *arg, void *, std::size_t, unsigned)
{
    ++*static_cast<unsigned long *>(arg);
    return UCS_OK;
}

/// A message from the sender that has this index here.
void arrive(std::uint32_t index, std::uint16_t qpn, std::uint16_t psn)
{
    if (dev.posted.empty()) {
        die("no receive is posted");
    }
    const ibv_recv_wr wr = dev.posted.back();
    dev.posted.pop_back();
    std::memcpy(reinterpret_cast<void *>(wr.sg_list->addr), &index, sizeof(index));
    ibv_wc wc{};
    wc.wr_id    = wr.wr_id;
    wc.byte_len = sizeof(index) + 8;
    wc.wc_flags = IBV_WC_WITH_IMM;
    wc.imm_data = htobe32(srd::wire::imm_make(3, base::seq32(psn), 0));
    wc.src_qp   = qpn;
    wc.slid     = 1;
    dev.done.push_back(wc);
}

struct visit {
    srd::ep *ep;
    std::uint32_t index;
    std::uint16_t qpn, psn;
};

} // namespace bench

extern "C" {
ibv_mr *ibv_reg_mr(ibv_pd *, void *, size_t, int) { return &bench::mr; }
ibv_mr *ibv_reg_mr_iova2(ibv_pd *, void *, size_t, uint64_t, unsigned) { return &bench::mr; }
int ibv_dereg_mr(ibv_mr *) { return 0; }
}

using namespace bench;

int main(int argc, char **argv)
{
    const char *mode           = argc == 4 ? argv[1] : "";
    const unsigned long peers  = argc == 4 ? std::strtoul(argv[2], nullptr, 10) : 0;
    const unsigned long visits = argc == 4 ? std::strtoul(argv[3], nullptr, 10) : 0;
    const bool send = !std::strcmp(mode, "send"), grant = !std::strcmp(mode, "grant");
    if ((!send && !grant && std::strcmp(mode, "receive") != 0) || peers < 1 || peers > 60000 || visits < batch) {
        std::fprintf(stderr, "usage: cold_peers send|receive|grant PEERS VISITS   (peers 1 to 60000, visits %u and more)\n", batch);
        return 2;
    }

    static uct_srd_md_t md{};
    md.attr.inline_size      = 32;
    md.attr.max_message_size = 8928;
    md.attr.max_sq_wr        = 256;
    md.attr.max_rq_wr        = 1024;
    md.attr.max_cqe          = 4096;
    uct_srd_iface_config_t config{};
    config.tx_queue_len = 256;
    config.tx_max_bufs  = 64;
    config.rx_queue_len = 128;
    config.rx_queue_max = 128;
    config.rx_max_bufs  = 1024;
    config.max_peers    = static_cast<unsigned>(peers);
    config.short_size   = 256;
    void *memory        = std::aligned_alloc(64, (sizeof(srd::iface) + 63) & ~std::size_t{63});
    if (memory == nullptr) {
        die("no memory");
    }
    std::memset(memory, 0, sizeof(srd::iface));
    auto *f = new (memory) srd::iface(&md, config, uct_iface_params_t{}, 1);

    ibv_context verbs{};
    ibv_qp qp{};
    ibv_cq cq{};
    ibv_ah ah{};
    verbs.ops.post_send = post_send;
    verbs.ops.post_recv = post_recv;
    verbs.ops.poll_cq   = poll_cq;
    qp.context = cq.context = &verbs;
    f->tx.qp                = &qp;
    f->rx.cq                = &cq;
    f->qkey                 = own_qkey;
    unsigned long handled   = 0;
    f->super.am[3].cb       = handle;
    f->super.am[3].arg      = &handled;
    dev.done.reserve(4096);
    dev.posted.reserve(4096);
    if (!f->control_pool.grow()) {
        die("no control buffers");
    }
    srd::rx_refill(f);

    // Peers as they are once both sides have said hello.
    srd::ah_entry entry{};
    entry.gid[0]    = 0xfe;
    entry.ah        = &ah;
    entry.number    = 1;
    entry.ref_count = static_cast<std::uint32_t>(peers) + 1;
    std::vector<visit> all(peers);
    for (unsigned long i = 0; i < peers; ++i) {
        visit &v     = all[i];
        v.qpn        = static_cast<std::uint16_t>(i + 1);
        srd::peer *p = f->peers.create(entry.gid, v.qpn, 1, 1);
        v.ep         = f->eps.take();
        if (p == nullptr || v.ep == nullptr || !srd::peer_attach(p, v.ep)) {
            die("no memory for a peer");
        }
        v.ep->super.super.iface = &f->super.super;
        v.index                 = p->index_local();
        p->ah                   = &ah;
        p->ah_ref               = &entry;
        p->key                  = srd::key_make(v.index, 1, v.qpn);
        p->index_remote         = static_cast<std::uint32_t>(i);
        p->state                = srd::peer_state::open;
        p->epoch_remote         = 1;
        if (!p->tx.credit(base::seq32(0), base::seq32(srd::limits::window_size)) || !p->tx.refresh()) {
            die("no credits");
        }
        if (!grant) {
            p->credit.renew(base::seq32(0), srd::limits::window_size);
            srd::rx_set_attention(p);
        }
        f->peers.slow_put_idle(p);
    }

    std::uint64_t random = 88172645463325252u;
    for (unsigned long done = 0; done < visits;) {
        for (unsigned i = 0; i < batch && done < visits; ++i, ++done) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            visit &v = all[random % peers];
            if (!send) {
                arrive(v.index, v.qpn, v.psn++);
            } else if (uct_srd_ep_am_short(&v.ep->super.super, 3, 0, nullptr, 0) != UCS_OK) {
                die("a send was refused");
            }
        }
        do {
            (void)uct_srd_iface_progress(&f->super.super);
        } while (!dev.done.empty());
    }
    const unsigned long sent = f->counters.get(srd::counter::tx_am);
    if ((send ? sent : handled) != visits) {
        die("not every message came through");
    }
    std::printf("%lu messages, %lu control messages\n", visits,
                static_cast<unsigned long>(f->counters.get(srd::counter::tx_control)));
    f->~iface();
    std::free(memory);
    return 0;
}
