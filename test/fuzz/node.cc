/* See node.h. */
#include "node.h"

#include <cstring>

extern "C" {
#include <ucs/async/async_fwd.h>
#include <ucs/config/global_opts.h>
}

namespace fuzz {

namespace {

uct_worker_h worker;
uct_srd_iface_config_t defaults;

} // namespace

void set_up()
{
    if (worker != nullptr) {
        return;
    }
    ucs_global_opts.log_component.log_level = UCS_LOG_LEVEL_FATAL;
    ucs_async_context_t *async;
    FUZZ_CHECK(ucs_async_context_create(UCS_ASYNC_MODE_POLL, &async) == UCS_OK, "no async context");
    FUZZ_CHECK(uct_worker_create(async, UCS_THREAD_MODE_SINGLE, &worker) == UCS_OK, "no worker");
    setenv("UCX_SRD_EVENTS", "n", 1);
    FUZZ_CHECK(srd::config_fill(&defaults, uct_srd_iface_config_table, sizeof(defaults), "SRD_") == UCS_OK, "no settings");
}

node::node(const fake::gid_bytes &gid, const options &o) : device(gid), opts(o)
{
    set_up();
    std::strcpy(component_.name, "srd");
    md.super.ops       = &uct_srd_md_ops;
    md.super.component = &component_;
    md.verbs           = &device.context;
    md.pd              = &device.pd;
    std::strcpy(md.attr.ibdev_name, "fake_0");
    md.attr.caps             = UCT_SRD_CAP_RNR_RETRY;
    md.attr.caps            |= o.read ? UCT_SRD_CAP_RDMA_READ : 0u;
    md.attr.caps            |= o.write ? UCT_SRD_CAP_RDMA_WRITE : 0u;
    md.attr.max_rdma_size    = o.rdma_size;
    md.attr.max_message_size = o.message_size;
    md.attr.inline_size      = o.inline_size;
    md.attr.inline_size_wide = o.inline_wide;
    device.inline_most       = o.inline_wide != 0 && !o.wide_refused ? o.inline_wide : o.inline_size;
    md.attr.max_sq_wr        = 512;
    md.attr.max_rq_wr        = 4096;
    md.attr.max_cqe          = 8192;
    md.attr.max_ah           = 1000;
    md.attr.max_mr           = 1000;
    md.attr.max_sq_sge       = 2;
    md.attr.max_rq_sge       = 1;
    md.attr.max_rdma_sge     = 1;
    md.attr.max_mr_size      = SIZE_MAX;
    std::memcpy(md.attr.gid.raw, gid.data(), gid.size());
}

node::~node()
{
    if (f != nullptr) {
        close();
    }
}

ucs_status_t node::open(std::uint16_t qpn)
{
    uct_srd_iface_config_t c = defaults;
    c.super.failure          = UCS_LOG_LEVEL_DEBUG;
    c.tx_queue_len           = opts.tx_queue_len;
    c.tx_max_bufs            = opts.tx_max_bufs;
    c.rx_queue_len           = opts.rx_queue_len;
    c.rx_queue_max           = opts.rx_queue_max;
    c.rx_max_bufs            = opts.rx_max_bufs;
    c.max_peers              = opts.max_peers;
    c.rnr_timeout            = opts.rnr_timeout;
    c.close_timeout          = opts.close_timeout;
    c.events                 = opts.events ? UCS_YES : UCS_NO;

    uct_iface_params_t p  = {};
    p.field_mask          = UCT_IFACE_PARAM_FIELD_OPEN_MODE | UCT_IFACE_PARAM_FIELD_DEVICE | UCT_IFACE_PARAM_FIELD_RX_HEADROOM |
                            UCT_IFACE_PARAM_FIELD_ERR_HANDLER | UCT_IFACE_PARAM_FIELD_ERR_HANDLER_ARG |
                            UCT_IFACE_PARAM_FIELD_ERR_HANDLER_FLAGS | UCT_IFACE_PARAM_FIELD_CPU_MASK;
    p.open_mode           = UCT_IFACE_OPEN_MODE_DEVICE;
    p.mode.device.tl_name  = "srd";
    p.mode.device.dev_name = "fake_0:1";
    p.rx_headroom         = opts.headroom;
    p.err_handler         = opts.on_error;
    p.err_handler_arg     = opts.arg;
    if (opts.alignment != 0) {
        p.field_mask |= UCT_IFACE_PARAM_FIELD_AM_ALIGNMENT;
        p.am_alignment = opts.alignment;
    }
    device.next_qpn = qpn;
    uct_iface_h opened;
    const ucs_status_t status = uct_srd_iface_open(&md.super, worker, &p, &c.super, &opened);
    if (status == UCS_OK) {
        f = srd::iface_of(opened);
        // As with headers that have a name for it, whatever those are that this was compiled with.
        f->rma.inline_max = f->rma.put && f->tx.inline_max > opts.inline_size ? f->tx.inline_max : 0;
    }
    return status;
}

void node::close()
{
    handle()->ops.iface_close(handle());
    f = nullptr;
    FUZZ_CHECK(!device.has_qp && !device.has_cq, "a queue is left after close");
    FUZZ_CHECK(device.ahs.empty(), "%zu address handles are left after close", device.ahs.size());
}

uct_ep_h node::connect(const fake::gid_bytes &gid, std::uint16_t qpn, std::uint32_t qkey, ucs_status_t *status_p)
{
    std::uint8_t device_address[srd::wire::device_size_full], iface_address[srd::wire::iface_size];
    srd::gid_type g;
    std::memcpy(g.data(), gid.data(), g.size());
    srd::wire::put_device(device_address, g);
    srd::wire::iface_address a;
    a.qpn  = qpn;
    a.qkey = qkey;
    srd::wire::put_iface(iface_address, a);
    uct_ep_params_t p = {};
    p.field_mask      = UCT_EP_PARAM_FIELD_IFACE | UCT_EP_PARAM_FIELD_DEV_ADDR | UCT_EP_PARAM_FIELD_IFACE_ADDR;
    p.iface           = handle();
    p.dev_addr        = reinterpret_cast<const uct_device_addr_t *>(device_address);
    p.iface_addr      = reinterpret_cast<const uct_iface_addr_t *>(iface_address);
    uct_ep_h ep       = nullptr;
    const ucs_status_t status = handle()->ops.ep_create(&p, &ep);
    if (status_p != nullptr) {
        *status_p = status;
    }
    return status == UCS_OK ? ep : nullptr;
}

unsigned node::progress_timers()
{
    f->tick = 1;
    return progress();
}

std::uint64_t node::dropped() const
{
    std::uint64_t sum = 0;
    for (unsigned i = 0; i < static_cast<unsigned>(srd::counter::count_); ++i) {
        if (std::strncmp(srd::counter_names[i], "rx_dropped", 10) == 0) {
            sum += f->counters.get(static_cast<srd::counter>(i));
        }
    }
    return sum;
}

void node::check_conservation() const
{
    std::uint64_t waiting = 0;
    for (std::uint32_t slot = 0; slot < f->peers.slots_used(); ++slot) {
        const srd::peer *p = f->peers.at(slot);
        if (f->peers.is_live(p)) {
            FUZZ_CHECK(p->rx.held() < srd::limits::window_size, "%u messages wait for one peer", p->rx.held());
            waiting += p->rx.held();
        }
    }
    for (std::uint32_t i = 0; i < f->stash_count; ++i) {
        waiting += f->stash[i].wr_id & 1;
    }
    const std::uint64_t delivered = f->counters.get(srd::counter::rx_am) + f->counters.get(srd::counter::rx_control);
    const std::uint64_t errors    = f->counters.get(srd::counter::rx_error);
    FUZZ_CHECK(device.polled_receives == delivered + errors + dropped() + waiting,
               "%llu arrived; %llu delivered, %llu errors, %llu dropped, %llu wait",
               static_cast<unsigned long long>(device.polled_receives), static_cast<unsigned long long>(delivered),
               static_cast<unsigned long long>(errors), static_cast<unsigned long long>(dropped()),
               static_cast<unsigned long long>(waiting));
}

void node::check_receives() const
{
    FUZZ_CHECK(device.receives.size() + device.completions.size() + f->stash_count >= f->rx.low_water,
               "%zu receives posted, the low-water mark is %u", device.receives.size(), f->rx.low_water); // IFC-3
}

region::region(fake::device &d, std::size_t n) : bytes(new std::uint8_t[n > 0 ? n : 1]), size(n)
{
    const std::size_t limit = d.max_mrs; // a shortage is the transport's to meet, not the harness's
    d.max_mrs               = SIZE_MAX;
    mem.mr   = ibv_reg_mr_iova2(&d.pd, bytes.get(), n > 0 ? n : 1, 0, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE);
    mem.lkey = mem.mr->lkey;
    mem.rkey = mem.mr->rkey;
    d.max_mrs = limit;
}

region::~region() { ibv_dereg_mr(mem.mr); }

} // namespace fuzz
