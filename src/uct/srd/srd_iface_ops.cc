/* What UCX may ask and call: the attributes and addresses of an open interface, and its table of operations. Slow path only.
 *
 * Owns: which capabilities are advertised, which addresses can be reached, and which function fills which slot of UCX's table.
 * Refuses to know: what the functions do.
 *
 * Invariants
 *   ABI-2  every slot of the table is a stub first (ucx/uct_abi.h): what is not filled in says "unsupported", and is never null.
 */
#include "uct/srd/srd_iface.h"
#include "uct/srd/srd_report.h"

#include <cstring>

using namespace srd;

extern "C" {

static ucs_status_t uct_srd_iface_query(uct_iface_h tl_iface, uct_iface_attr_t *attr) noexcept
{
    iface *f = iface_of(tl_iface);

    std::memset(attr, 0, sizeof(*attr));
    uct_base_iface_query(&f->super, attr);
    iface_attr_rest(attr);
    attr->cap.am.max_short       = f->tx.short_max;
    attr->cap.am.max_bcopy       = f->tx.payload_max;
    attr->cap.am.min_zcopy       = 0;
    attr->cap.am.max_zcopy       = f->tx.payload_max;
    attr->cap.am.max_hdr         = f->tx.payload_max;
    attr->cap.am.max_iov         = 1;
    attr->cap.am.opt_zcopy_align = 64;
    attr->cap.am.align_mtu       = f->md->attr.max_message_size;
    attr->cap.put.opt_zcopy_align = attr->cap.get.opt_zcopy_align = 64; // never 0: UCP divides by it
    attr->cap.put.align_mtu = attr->cap.get.align_mtu = f->md->attr.max_message_size;
    attr->cap.flags = UCT_IFACE_FLAG_AM_SHORT | UCT_IFACE_FLAG_AM_BCOPY | UCT_IFACE_FLAG_AM_ZCOPY | UCT_IFACE_FLAG_PENDING |
                      UCT_IFACE_FLAG_CONNECT_TO_IFACE | UCT_IFACE_FLAG_CB_SYNC | UCT_IFACE_FLAG_EP_CHECK |
                      UCT_IFACE_FLAG_ERRHANDLE_PEER_FAILURE | iface_flags_of_version;
    if (f->rma.put) {
        attr->cap.flags |= UCT_IFACE_FLAG_PUT_SHORT | UCT_IFACE_FLAG_PUT_BCOPY | UCT_IFACE_FLAG_PUT_ZCOPY;
        attr->cap.put.max_short = f->rma.short_max;
        attr->cap.put.max_bcopy = f->rma.bcopy_max;
        attr->cap.put.max_zcopy = f->rma.zcopy_max;
        attr->cap.put.max_iov   = 1;
    }
    if (f->rma.get) {
        attr->cap.flags |= UCT_IFACE_FLAG_GET_BCOPY | UCT_IFACE_FLAG_GET_ZCOPY;
        attr->cap.get.max_bcopy = f->rma.bcopy_max;
        attr->cap.get.max_zcopy = f->rma.zcopy_max;
        attr->cap.get.max_iov   = 1;
    }
    attr->cap.event_flags = f->event.channel == nullptr ? 0 :
                            UCT_IFACE_FLAG_EVENT_SEND_COMP | UCT_IFACE_FLAG_EVENT_RECV | UCT_IFACE_FLAG_EVENT_FD;
    attr->device_addr_len = wire::device_size(f->gid);
    attr->iface_addr_len  = wire::iface_size;
    attr->ep_addr_len     = 0;
    attr->max_conn_priv   = 0;
    attr->overhead        = f->overhead;
    attr->latency         = ucs_linear_func_make(f->latency, 0);
    attr->bandwidth.dedicated = 0;
    attr->bandwidth.shared    = f->md->attr.link_bandwidth > 1 ? f->md->attr.link_bandwidth : 12.5e9;
    attr->priority            = 0;
    attr->dev_num_paths       = 1;
    return UCS_OK;
}

static ucs_status_t uct_srd_iface_get_device_address(uct_iface_h tl_iface, uct_device_addr_t *address) noexcept
{
    wire::put_device(address, iface_of(tl_iface)->gid);
    return UCS_OK;
}

static ucs_status_t uct_srd_iface_get_address(uct_iface_h tl_iface, uct_iface_addr_t *address) noexcept
{
    iface *f = iface_of(tl_iface);
    wire::iface_address a;

    a.qpn  = static_cast<std::uint16_t>(f->tx.qp->qp_num);
    a.qkey = f->qkey;
    wire::put_iface(address, a);
    return UCS_OK;
}

/// Null if the address can be reached; else why not.
static const char *uct_srd_iface_why_unreachable(const uct_iface_h tl_iface, const reach_query &query) noexcept
{
    gid_type gid;
    wire::iface_address a;

    if (query.device == nullptr || !wire::get_device(query.device, query.device_size, gid)) {
        return "the address is not one of this transport (UCX's own srd has the same name and another protocol)";
    }
    if (query.same_device && gid != iface_of(tl_iface)->gid) {
        return "another device";
    }
    if (query.iface == nullptr) {
        return nullptr; // UCP asks before it knows the interface too
    }
    if (!wire::get_iface(query.iface, query.iface_size, a) || !wire::versions_overlap(a.version, a.version_min)) {
        return "the interface speaks no version of the protocol that this one does";
    }
    return nullptr;
}

static void uct_srd_iface_vfs_refresh(uct_iface_h tl_iface) noexcept { report_vfs(iface_of(tl_iface)); }

}

namespace {

struct iface_hooks {
    static constexpr auto vfs_refresh     = uct_srd_iface_vfs_refresh;
    static constexpr auto ep_invalidate   = uct_srd_ep_invalidate;
    static constexpr auto why_unreachable = uct_srd_iface_why_unreachable;
    static constexpr auto ep_is_connected = uct_srd_ep_is_connected;
};
uct_iface_internal_ops_t internal_ops = bind_internal_ops<iface_hooks>();

template <class Fn> void stub(Fn &slot) noexcept
{
    slot = reinterpret_cast<Fn>(reinterpret_cast<void *>(ucs_empty_function_return_unsupported));
}

} // namespace

namespace srd {

uct_iface_internal_ops_t *iface_internal_ops() noexcept { return &internal_ops; }

/// ABI-2: every slot is a stub first, then what exists is filled in by name.
uct_iface_ops_t iface_ops() noexcept
{
    uct_iface_ops_t ops = {};

    stub(ops.ep_get_short);
    stub(ops.ep_atomic_cswap64); stub(ops.ep_atomic_cswap32); stub(ops.ep_atomic32_post); stub(ops.ep_atomic64_post);
    stub(ops.ep_atomic32_fetch); stub(ops.ep_atomic64_fetch);
    stub(ops.ep_tag_eager_short); stub(ops.ep_tag_eager_zcopy); stub(ops.ep_tag_rndv_cancel); stub(ops.ep_tag_rndv_request);
    stub(ops.iface_tag_recv_zcopy); stub(ops.iface_tag_recv_cancel);
    stub(ops.ep_connect); stub(ops.ep_disconnect); stub(ops.cm_ep_conn_notify); stub(ops.ep_get_address);
    stub(ops.ep_connect_to_ep); stub(ops.iface_accept); stub(ops.iface_reject);
    ops.ep_tag_eager_bcopy = [](uct_ep_h, uct_tag_t, uint64_t, uct_pack_callback_t, void *, unsigned) -> ssize_t { return UCS_ERR_UNSUPPORTED; };
    ops.ep_tag_rndv_zcopy  = [](uct_ep_h, uct_tag_t, const void *, unsigned, const uct_iov_t *, size_t, unsigned, uct_completion_t *)
        -> ucs_status_ptr_t { return UCS_STATUS_PTR(UCS_ERR_UNSUPPORTED); };

    ops.ep_am_short              = uct_srd_ep_am_short;
    ops.ep_am_short_iov          = uct_srd_ep_am_short_iov;
    ops.ep_am_bcopy              = uct_srd_ep_am_bcopy;
    ops.ep_am_zcopy              = uct_srd_ep_am_zcopy;
    ops.ep_put_short             = uct_srd_ep_put_short;
    ops.ep_put_bcopy             = uct_srd_ep_put_bcopy;
    ops.ep_put_zcopy             = uct_srd_ep_put_zcopy;
    ops.ep_get_bcopy             = uct_srd_ep_get_bcopy;
    ops.ep_get_zcopy             = uct_srd_ep_get_zcopy;
    ops.ep_pending_add           = uct_srd_ep_pending_add;
    ops.ep_pending_purge         = uct_srd_ep_pending_purge;
    ops.ep_flush                 = uct_srd_ep_flush;
    ops.ep_fence                 = uct_srd_ep_fence;
    ops.ep_check                 = uct_srd_ep_check;
    ops.ep_create                = uct_srd_ep_create;
    ops.ep_destroy               = uct_srd_ep_destroy;
    ops.iface_flush              = uct_srd_iface_flush;
    ops.iface_fence              = uct_srd_iface_fence;
    ops.iface_event_fd_get       = uct_srd_iface_event_fd_get;
    ops.iface_event_arm          = uct_srd_iface_event_arm;
    ops.iface_progress_enable    = uct_base_iface_progress_enable;
    ops.iface_progress_disable   = uct_base_iface_progress_disable;
    ops.iface_progress           = uct_srd_iface_progress;
    ops.iface_close              = uct_srd_iface_close;
    ops.iface_query              = uct_srd_iface_query;
    ops.iface_get_device_address = uct_srd_iface_get_device_address;
    ops.iface_get_address        = uct_srd_iface_get_address;
    bind_is_reachable<iface_hooks>(ops);
    return ops;
}

void iface_drop_one_sided(iface *f) noexcept
{
    uct_iface_ops_t &ops = f->super.super.ops;

    if (!f->rma.put) {
        stub(ops.ep_put_short);
        stub(ops.ep_put_zcopy);
        ops.ep_put_bcopy = [](uct_ep_h, uct_pack_callback_t, void *, uint64_t, uct_rkey_t) -> ssize_t { return UCS_ERR_UNSUPPORTED; };
    }
    if (!f->rma.get) {
        stub(ops.ep_get_bcopy);
        stub(ops.ep_get_zcopy);
    }
}

} // namespace srd
