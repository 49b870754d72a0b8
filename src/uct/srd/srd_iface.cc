/* Opening an interface: see srd_iface.h. Slow path only.
 *
 * Owns: how an interface comes to be. Settings are cut to what the device has, memory is registered, the queue pair is brought
 * to RTS with a random qkey (which is part of the address: a message for a former owner of the QPN is not delivered), receives
 * are posted. Whatever fails, all of it is taken back.
 * Refuses to know: what UCX asks an open interface (srd_iface_ops), how it ends (srd_iface_close).
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include "uct/srd/srd_iface.h"
#include "uct/srd/srd_report.h"

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <unistd.h>

namespace srd {

namespace {

bool reg_memory(void *arg, void *address, std::size_t size, std::uint32_t *lkey_p, void **handle_p)
{
    auto *mem = new (std::nothrow) uct_srd_mem_t;
    if (mem == nullptr) {
        return false;
    }
    // Before the registration, which is the first to touch the pages.
    (void)locality_place(static_cast<uct_srd_md_t *>(arg)->locality, address, size);
    if (uct_srd_md_reg_internal(static_cast<uct_srd_md_t *>(arg), address, size, IBV_ACCESS_LOCAL_WRITE, mem) != UCS_OK) {
        delete mem;
        return false;
    }
    *lkey_p   = mem->lkey;
    *handle_p = mem;
    return true;
}

void dereg_memory(void *arg, void *handle)
{
    auto *mem = static_cast<uct_srd_mem_t *>(handle);
    uct_srd_md_dereg_internal(static_cast<uct_srd_md_t *>(arg), mem);
    delete mem;
}

ibv_ah *create_ah(void *arg, const gid_type &gid, std::uint16_t *number_p)
{
    auto *md          = static_cast<uct_srd_md_t *>(arg);
    ibv_ah_attr attr  = {};
    attr.port_num     = UCT_SRD_PORT;
    attr.is_global    = 1;
    attr.grh.sgid_index = UCT_SRD_GID_INDEX;
    std::memcpy(attr.grh.dgid.raw, gid.data(), gid.size());
    ibv_ah *ah = ibv_create_ah(md->pd, &attr);
    if (ah == nullptr) {
        return nullptr;
    }
    efadv_ah_attr efa_attr = {};
    const int rc           = efadv_query_ah(ah, &efa_attr, sizeof(efa_attr));
    if (rc != 0) {
        ibv_destroy_ah(ah);
        errno = rc;
        return nullptr;
    }
    *number_p = efa_attr.ahn;
    return ah;
}

void destroy_ah(void *, ibv_ah *ah) { ibv_destroy_ah(ah); }

void init_tx_buf(void *arg, void *element, std::uint32_t lkey)
{
    auto *buf = static_cast<tx_buf *>(element);
    buf->lkey = lkey;
    tx_buf_put(static_cast<iface *>(arg), buf);
}

void init_control_buf(void *arg, void *element, std::uint32_t lkey)
{
    auto *f            = static_cast<iface *>(arg);
    auto *buf          = static_cast<tx_buf *>(element);
    buf->lkey          = lkey;
    buf->next          = f->tx.control_bufs;
    f->tx.control_bufs = buf;
}

std::size_t alignment_of(const uct_iface_params_t &params) noexcept
{
    std::size_t alignment = (params.field_mask & UCT_IFACE_PARAM_FIELD_AM_ALIGNMENT) ? params.am_alignment : 1;
    return alignment < 8 ? 8 : alignment > 4096 ? 4096 : alignment; // no element is aligned to more than a page
}

/// From the start of an element to its payload: descriptor, pointer slot, headroom and wire header fit before it, and the
/// byte at am_align_offset of the payload is aligned as asked for.
std::uint32_t payload_offset_of(const uct_iface_params_t &params) noexcept
{
    const std::size_t headroom = (params.field_mask & UCT_IFACE_PARAM_FIELD_RX_HEADROOM) ? params.rx_headroom : 0;
    const std::size_t align    = alignment_of(params);
    const std::size_t offset =
        (params.field_mask & UCT_IFACE_PARAM_FIELD_AM_ALIGN_OFFSET) ? params.am_align_offset % align : 0;
    const std::size_t least = sizeof(rx_desc) + sizeof(void *) + headroom + wire::index_size + offset;

    return static_cast<std::uint32_t>(((least + align - 1) & ~(align - 1)) - offset);
}

/// UCX's rules for the alignment of received payloads.
bool alignment_is_valid(const uct_iface_params_t &params) noexcept
{
    if (!(params.field_mask & UCT_IFACE_PARAM_FIELD_AM_ALIGNMENT)) {
        return !(params.field_mask & UCT_IFACE_PARAM_FIELD_AM_ALIGN_OFFSET); // an offset of no alignment
    }
    const std::size_t alignment = params.am_alignment;
    return alignment != 0 && (alignment & (alignment - 1)) == 0;
}

std::uint32_t clamp(std::uint32_t value, std::uint32_t low, std::uint32_t high) noexcept
{
    return value < low ? low : value > high ? high : value;
}

reg_pool::params pool_params(uct_srd_md_t *md, iface *f, std::size_t element_size, std::size_t alignment, std::size_t chunk,
                             std::size_t max, reg_pool::init_fn init) noexcept
{
    reg_pool::params p;
    p.source         = {md, reg_memory, dereg_memory};
    p.element_size   = element_size;
    p.alignment      = alignment < 64 ? 64 : alignment;
    p.chunk_elements = chunk;
    p.max_elements   = max;
    p.init           = init;
    p.init_arg       = f;
    return p;
}

/// A setting in seconds. "inf" is three years, which leaves room for sums and doublings; less than 0, or no number, is 0.
base::time_ns ns_of(double seconds) noexcept
{
    constexpr double longest = 1e8;
    return !(seconds > 0) ? 0 : static_cast<base::time_ns>((seconds < longest ? seconds : longest) * 1e9);
}

/// When the filling of the receive queue is low follows its usual length.
void set_marks(iface *f) noexcept
{
    f->rx.low_water = clamp(f->rx.queue_len / 4, 1, f->rx.queue_len);
    rx_set_target(f, f->rx.queue_len);
}

/// The fewest sends in flight that leave a window of four towards each of two peers.
constexpr std::uint32_t smallest_queue = 8;

std::uint32_t sq_of(const uct_srd_md_t *md, const uct_srd_iface_config_t &c) noexcept
{
    return clamp(c.tx_queue_len, smallest_queue, md->attr.max_sq_wr - limits::control_slots);
}

/// Half of a short queue at most: one peer that does not answer leaves room for the others.
std::uint32_t window_of(std::uint32_t sq) noexcept { return clamp(sq / 2, 4, limits::window_size); }

std::uint32_t rx_queue_len_of(const uct_srd_md_t *md, const uct_srd_iface_config_t &c) noexcept
{
    return clamp(c.rx_queue_len, 2, md->attr.max_rq_wr);
}

std::uint32_t rx_queue_max_of(const uct_srd_md_t *md, const uct_srd_iface_config_t &c) noexcept
{
    const std::uint32_t len  = rx_queue_len_of(md, c);
    const std::uint32_t most = c.rx_queue_max < c.rx_max_bufs ? c.rx_queue_max : c.rx_max_bufs;
    return clamp(most, len, md->attr.max_rq_wr < len ? len : md->attr.max_rq_wr);
}

std::size_t rx_chunk_of(const uct_srd_md_t *md, const uct_srd_iface_config_t &c) noexcept
{
    const std::uint32_t len = rx_queue_len_of(md, c);
    return len < limits::bufs_per_chunk ? len : limits::bufs_per_chunk;
}

} // namespace

iface::iface(uct_srd_md_t *m, const uct_srd_iface_config_t &c, const uct_iface_params_t &params, std::uint64_t seed) noexcept
    : md(m), ops(m->attr.inline_size_wide != 0 ? m->attr.inline_size_wide + op_put_overhead : m->attr.inline_size),
      tx_bufs(pool_params(m, this, offsetof(tx_buf, payload) + m->attr.max_message_size, 64,
                          clamp(c.tx_max_bufs, 1, limits::bufs_per_chunk), c.tx_max_bufs < 1 ? 1 : c.tx_max_bufs, init_tx_buf)),
      control_pool(pool_params(m, this, offsetof(tx_buf, payload) + limits::control_size_max, 64, limits::control_slots,
                               limits::control_slots, init_control_buf)),
      rx_bufs(pool_params(m, this, payload_offset_of(params) - wire::index_size + m->attr.max_message_size,
                          alignment_of(params), rx_chunk_of(m, c),
                          c.rx_max_bufs < rx_queue_len_of(m, c) ? rx_queue_len_of(m, c) : c.rx_max_bufs, rx_init_desc)),
      ahs(ah_source{m, create_ah, destroy_ah}), peers(c.max_peers, seed, window_of(sq_of(m, c)))
{
    const std::uint32_t sq = sq_of(m, c);

    tx.sq_free      = sq;
    tx.control_free = limits::control_slots;
    tx.payload_max  = static_cast<std::uint16_t>(m->attr.max_message_size - wire::long_size);
    tx.short_max    = static_cast<std::uint16_t>(clamp(c.short_size > UINT16_MAX ? UINT16_MAX :
                                                       static_cast<std::uint32_t>(c.short_size), 8, tx.payload_max));
    iface_set_inline(this, m->attr.inline_size);
    tx.inline_sge            = {};
    tx.inline_wr.sg_list     = &tx.inline_sge;
    tx.inline_wr.num_sge     = 1;
    tx.inline_wr.opcode      = IBV_WR_SEND_WITH_IMM;
    tx.inline_wr.send_flags  = IBV_SEND_SIGNALED | IBV_SEND_INLINE;
    tx.wr.sg_list            = tx.sge;
    tx.wr.num_sge            = 1;
    tx.wr.opcode             = IBV_WR_SEND_WITH_IMM;
    tx.wr.send_flags         = IBV_SEND_SIGNALED;
    window          = window_of(sq);

    rma.zcopy_max = m->attr.max_rdma_size > UINT32_MAX ? UINT32_MAX : static_cast<std::uint32_t>(m->attr.max_rdma_size);
    rma.bcopy_max = tx.payload_max < rma.zcopy_max ? tx.payload_max : static_cast<std::uint16_t>(rma.zcopy_max);
    rma.short_max = tx.short_max < rma.bcopy_max ? tx.short_max : rma.bcopy_max;
    rma.per_peer  = static_cast<std::uint16_t>(clamp(sq / 2, 4, UINT16_MAX)); // RMA-4
    rma.expected  = (params.field_mask & UCT_IFACE_PARAM_FIELD_FEATURES) &&
                   (params.features & (UCT_IFACE_FEATURE_PUT | UCT_IFACE_FEATURE_GET));

    rx.queue_len      = rx_queue_len_of(m, c);
    rx.queue_max      = rx_queue_max_of(m, c);
    set_marks(this);
    rx.headroom       = static_cast<std::uint32_t>((params.field_mask & UCT_IFACE_PARAM_FIELD_RX_HEADROOM) ? params.rx_headroom : 0);
    rx.payload_offset = payload_offset_of(params);
    rx.alignment      = static_cast<std::uint32_t>(alignment_of(params) < 64 ? 64 : alignment_of(params));
    rx.realign        = alignment_of(params) > 8 || (params.field_mask & UCT_IFACE_PARAM_FIELD_AM_ALIGNMENT);

    rnr_timeout    = ns_of(c.rnr_timeout);
    hello_interval = ns_of(c.hello_interval > 0 ? c.hello_interval : 0.1);
    probe_interval = ns_of(c.probe_interval);
    keepalive_interval = ns_of(c.keepalive_interval);
    close_timeout  = ns_of(c.close_timeout);
    latency        = c.latency;
    overhead       = c.overhead;
    print_stats    = c.stats != 0;
    std::memcpy(gid.data(), m->attr.gid.raw, gid.size());
}

void iface_set_inline(iface *f, std::uint32_t size) noexcept
{
    constexpr std::uint32_t before = wire::index_size + sizeof(std::uint64_t);
    const std::uint32_t longest    = f->tx.short_max + wire::index_size;

    f->tx.inline_max     = static_cast<std::uint16_t>(size);
    f->tx.inline_payload = (size < longest ? size : longest) - before;
}

iface::~iface()
{
    std::free(stash);
    while (rx.rings != nullptr) {
        auto *ring = rx.rings;
        rx.rings   = ring->next_free;
        delete ring;
    }
}

namespace {

/// Asks for inline data in writes. False: the headers have no name for it.
bool ask_inline_write([[maybe_unused]] efadv_qp_init_attr &driver) noexcept
{
#if HAVE_DECL_EFADV_QP_FLAGS_INLINE_WRITE && HAVE_STRUCT_EFADV_QP_INIT_ATTR_FLAGS
    driver.flags |= EFADV_QP_FLAGS_INLINE_WRITE;
    return true;
#else
    return false;
#endif
}

/// The queue pair with all one-sided operations that the device has and this rdma-core can post; sets which those are.
ibv_qp *create_qp(iface *f, ibv_qp_init_attr_ex &attr) noexcept
{
    const std::uint32_t caps  = f->md->attr.caps;
    const std::uint32_t write = caps & UCT_SRD_CAP_RDMA_WRITE;
    const std::uint32_t read  = caps & UCT_SRD_CAP_RDMA_READ;

    const std::uint32_t wide  = f->md->attr.inline_size_wide;

    // A device that offers more than its library takes, or has no send queue of this depth with work requests of 128 bytes,
    // loses the operation or the longer inline data, not the interface.
    const struct {
        std::uint32_t operations, wide;
    } offers[] = {{write | read, wide}, {write | read, 0}, {read, 0}, {0, 0}};
    for (const auto &offer : offers) {
        if (wide == 0 && &offer == offers) {
            continue;
        }
        efadv_qp_init_attr driver = {};
        driver.driver_qp_type     = EFADV_QP_DRIVER_TYPE_SRD;
        const bool inline_write   = offer.wide != 0 && write != 0 && ask_inline_write(driver);
        attr.cap.max_inline_data  = offer.wide != 0 ? offer.wide : f->md->attr.inline_size;
        attr.send_ops_flags       = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
        if (offer.operations & UCT_SRD_CAP_RDMA_READ) {
            attr.send_ops_flags |= IBV_QP_EX_WITH_RDMA_READ;
        }
        if (offer.operations & UCT_SRD_CAP_RDMA_WRITE) {
            attr.send_ops_flags |= IBV_QP_EX_WITH_RDMA_WRITE;
        }
        const std::uint32_t inline_size = attr.cap.max_inline_data; // the library may write another one there
        ibv_qp *qp                      = efadv_create_qp_ex(f->md->verbs, &attr, &driver, sizeof(driver));
        if (qp != nullptr) {
            f->rma.qp  = ibv_qp_to_qp_ex(qp);
            f->rma.put = (offer.operations & UCT_SRD_CAP_RDMA_WRITE) && f->rma.zcopy_max != 0 && f->rma.qp != nullptr;
            f->rma.get = (offer.operations & UCT_SRD_CAP_RDMA_READ) && f->rma.zcopy_max != 0 && f->rma.qp != nullptr;
            f->rma.inline_max = inline_write && f->rma.put ? static_cast<std::uint16_t>(inline_size) : 0;
            iface_set_inline(f, inline_size);
            return qp;
        }
        if (errno != EOPNOTSUPP && errno != EINVAL) {
            break;
        }
    }
    return nullptr;
}

ucs_status_t open_queues(iface *f, const uct_srd_iface_config_t &c) noexcept
{
    uct_srd_md_t *md             = f->md;
    const std::uint32_t sq_depth = f->tx.sq_free + limits::control_slots;
    std::uint32_t cqe            = sq_depth + f->rx.queue_max;
    if (cqe > md->attr.max_cqe) {
        if (md->attr.max_cqe <= sq_depth) {
            ucs_error("srd: %s has completion queues of at most %u entries: too few for %u sends and a receive; lower"
                      " UCX_SRD_TX_QUEUE_LEN", md->attr.ibdev_name, md->attr.max_cqe, sq_depth);
            return UCS_ERR_UNSUPPORTED;
        }
        f->rx.queue_max = md->attr.max_cqe - sq_depth;
        f->rx.queue_len = f->rx.queue_len < f->rx.queue_max ? f->rx.queue_len : f->rx.queue_max;
        set_marks(f);
        cqe             = md->attr.max_cqe;
    }

    const ucs_status_t events = event_init(f, c.events);
    if (events != UCS_OK) {
        return events;
    }
    f->rx.cq = ibv_create_cq(md->verbs, static_cast<int>(cqe), nullptr, f->event.channel, 0);
    if (f->rx.cq == nullptr) {
        ucs_error("srd: creating a completion queue of %u entries on %s failed: errno %d", cqe, md->attr.ibdev_name, errno);
        return UCS_ERR_IO_ERROR;
    }

    f->cqe = static_cast<std::uint32_t>(f->rx.cq->cqe);

    ibv_qp_init_attr_ex attr  = {};
    attr.send_cq              = f->rx.cq;
    attr.recv_cq              = f->rx.cq;
    attr.cap.max_send_wr      = sq_depth;
    attr.cap.max_recv_wr      = f->rx.queue_max;
    attr.cap.max_send_sge     = 2;
    attr.cap.max_recv_sge     = 1;
    attr.qp_type              = IBV_QPT_DRIVER;
    attr.sq_sig_all           = 0; // the provider refuses 1; every request is signalled by itself
    attr.comp_mask            = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
    attr.pd                   = md->pd;
    f->tx.qp                  = create_qp(f, attr);
    if (f->tx.qp == nullptr) {
        ucs_error("srd: creating a queue pair (%u sends, %u receives) on %s failed: errno %d", sq_depth, f->rx.queue_max,
                  md->attr.ibdev_name, errno);
        return UCS_ERR_IO_ERROR;
    }

    ibv_qp_attr state = {};
    state.qp_state    = IBV_QPS_INIT;
    state.port_num    = UCT_SRD_PORT;
    state.qkey        = f->qkey;
    int rc            = ibv_modify_qp(f->tx.qp, &state, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY);
    if (rc == 0) {
        state.qp_state = IBV_QPS_RTR;
        rc             = ibv_modify_qp(f->tx.qp, &state, IBV_QP_STATE);
    }
    if (rc == 0) {
        int mask       = IBV_QP_STATE | IBV_QP_SQ_PSN;
        state.qp_state = IBV_QPS_RTS;
        if (md->attr.caps & UCT_SRD_CAP_RNR_RETRY) {
            state.rnr_retry = static_cast<std::uint8_t>(clamp(c.rnr_retry_count, 0, 7));
            mask |= IBV_QP_RNR_RETRY;
        }
        rc = ibv_modify_qp(f->tx.qp, &state, mask);
    }
    if (rc != 0) {
        ucs_error("srd: bringing a queue pair on %s to state %d failed: errno %d", md->attr.ibdev_name, state.qp_state, rc);
        return UCS_ERR_IO_ERROR;
    }
    return UCS_OK;
}

} // namespace

void iface_close_queues(iface *f) noexcept
{
    if (f->tx.qp != nullptr && ibv_destroy_qp(f->tx.qp) != 0) {
        ucs_warn("srd: destroying a queue pair failed: errno %d", errno);
    }
    if (f->rx.cq != nullptr && ibv_destroy_cq(f->rx.cq) != 0) {
        ucs_warn("srd: destroying a completion queue failed: errno %d", errno);
    }
    event_fini(f);
}

} // namespace srd

using namespace srd;

extern "C" ucs_status_t uct_srd_iface_open(uct_md_h tl_md, uct_worker_h worker, const uct_iface_params_t *params,
                                           const uct_iface_config_t *tl_config, uct_iface_h *iface_p) noexcept
{
    const auto *config    = reinterpret_cast<const uct_srd_iface_config_t *>(tl_config);
    uct_srd_md_t *md      = uct_srd_md(tl_md);
    uct_iface_ops_t ops   = iface_ops();
    int init_count        = 1;

    if (!(params->field_mask & UCT_IFACE_PARAM_FIELD_OPEN_MODE) || !(params->open_mode & UCT_IFACE_OPEN_MODE_DEVICE)) {
        ucs_error("srd: an interface can only be opened on a device");
        return UCS_ERR_UNSUPPORTED;
    }
    if (!alignment_is_valid(*params)) {
        ucs_error("srd: invalid alignment of active messages: a power of two is needed, an offset only with it");
        return UCS_ERR_INVALID_PARAM;
    }
    if (md->attr.inline_size < wire::index_size + 8 || md->attr.max_sq_wr < 2 * limits::control_slots || md->attr.max_message_size < 1024 || md->attr.max_message_size > UINT16_MAX) {
        ucs_error("srd: %s has unusable limits: %u inline bytes, messages of %zu", md->attr.ibdev_name, md->attr.inline_size,
                  md->attr.max_message_size);
        return UCS_ERR_UNSUPPORTED;
    }

    void *memory = std::aligned_alloc(alignof(iface), sizeof(iface));
    if (memory == nullptr) {
        return UCS_ERR_NO_MEMORY;
    }
    auto *f = new (memory) iface(md, *config, *params, ucs_generate_uuid(reinterpret_cast<std::uintptr_t>(memory)));
    f->qkey = static_cast<std::uint32_t>(ucs_generate_uuid(f->tx.sq_free)) & 0x7fffffffu; // the top bit means "privileged"

    ucs_status_t status = uct_base_iface_t_init(&f->super, &uct_base_iface_t_class, &init_count, &ops, iface_internal_ops(), tl_md,
                                                worker, params, tl_config);
    if (status == UCS_OK) {
        init_count = -1;
        status     = open_queues(f, *config);
    }
    iface_drop_one_sided(f);
    if (status == UCS_OK && !f->control_pool.grow()) {
        status = UCS_ERR_NO_MEMORY;
    }
    if (status == UCS_OK) {
        gid_type nobody = f->gid;
        nobody[15] ^= 0x80;
        f->ahs.reserve(nobody);
        f->ops.grow();
        rx_refill(f);
        if (f->rx.posted < f->rx.low_water) {
            ucs_error("srd: only %u of %u receives could be posted on %s; is the limit of locked memory too low?",
                      f->rx.posted, f->rx.queue_len, md->attr.ibdev_name);
            status = UCS_ERR_NO_MEMORY;
        }
    }
    if (status != UCS_OK) {
        iface_close_queues(f);
        ucs_class_call_cleanup_chain(&uct_base_iface_t_class, f, init_count);
        f->~iface();
        std::free(f);
        return status;
    }
    ucs_debug("srd: %s QPN %u: %u sends, %u receives, messages of %u, shorts of %u, %u inline", md->attr.ibdev_name,
              f->tx.qp->qp_num, f->tx.sq_free, f->rx.queue_len, f->tx.payload_max, f->tx.short_max, f->tx.inline_max);
    report_opened(f);
    *iface_p = &f->super.super;
    return UCS_OK;
}
