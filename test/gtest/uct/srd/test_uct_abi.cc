// Our declarations of UCX's private structs against the libuct that is installed: an object that libuct constructs is
// read back member by member through our layout, so that two swapped fields of one size are seen too.
#include "uct/srd/ucx/uct_bind.h"

extern "C" {
#include <ucs/async/async_fwd.h>
#include <ucs/config/global_opts.h>
}

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace {

/// Fills a slot with a function that returns zero of whatever the slot returns; libuct only looks that it is set.
template <class Result, class... Args> void set(Result (*&slot)(Args...))
{
    slot = [](Args...) -> Result { return Result(); };
}

ucs_status_t am_callback(void *arg, void *, size_t size, unsigned)
{
    *static_cast<size_t *>(arg) = size;
    return UCS_OK;
}

ucs_status_t error_callback(void *, uct_ep_h, ucs_status_t) { return UCS_OK; }

class uct_abi : public ::testing::Test {
protected:
    void SetUp() override
    {
        ASSERT_EQ(UCS_OK, ucs_async_context_create(UCS_ASYNC_MODE_THREAD_SPINLOCK, &async_));
        ASSERT_EQ(UCS_OK, uct_worker_create(async_, UCS_THREAD_MODE_SINGLE, &worker_));
        set(ops_.ep_flush);
        set(ops_.ep_fence);
        set(ops_.ep_destroy);
        set(ops_.ep_create);
        set(ops_.iface_flush);
        set(ops_.iface_fence);
        set(ops_.iface_progress);
        set(ops_.iface_close);
        ops_.iface_query = [](uct_iface_h iface, uct_iface_attr_t *attr) {
            uct_base_iface_query(reinterpret_cast<uct_base_iface_t *>(iface), attr);
            attr->cap.flags = UCT_IFACE_FLAG_CB_SYNC;
            return UCS_OK;
        };
        set(ops_.iface_get_device_address);
        set(ops_.iface_is_reachable);
        ops_.iface_progress_enable  = uct_base_iface_progress_enable;
        ops_.iface_progress_disable = uct_base_iface_progress_disable;
        set(internal_ops_.iface_estimate_perf);
        set(internal_ops_.iface_vfs_refresh);
        set(internal_ops_.ep_query);
        set(internal_ops_.ep_invalidate);
#if UCX_SRD_ABI >= 1230
        set(internal_ops_.ep_outstanding_purge); // libuct ends the process if it is not set
#endif
        component_.name[0] = 'x';
        md_.component      = &component_;
        config_.alloc_methods.methods = &method_;
        config_.alloc_methods.count   = 1;
        config_.failure               = UCS_LOG_LEVEL_DEBUG;
        config_.max_num_eps           = 12345;
        params_.field_mask = UCT_IFACE_PARAM_FIELD_ERR_HANDLER | UCT_IFACE_PARAM_FIELD_ERR_HANDLER_ARG |
                             UCT_IFACE_PARAM_FIELD_ERR_HANDLER_FLAGS | UCT_IFACE_PARAM_FIELD_OPEN_MODE;
        params_.open_mode         = UCT_IFACE_OPEN_MODE_DEVICE;
        params_.err_handler       = error_callback;
        params_.err_handler_arg   = this;
        params_.err_handler_flags = UCT_CB_FLAG_ASYNC;
    }

    void TearDown() override
    {
        uct_worker_destroy(worker_);
        ucs_async_context_destroy(async_);
    }

    ucs_async_context_t     *async_  = nullptr;
    uct_worker_h             worker_ = nullptr;
    uct_iface_ops_t          ops_          = {};
    uct_iface_internal_ops_t internal_ops_ = {};
    uct_component            component_    = {};
    uct_md                   md_           = {};
    uct_alloc_method_t       method_       = UCT_ALLOC_METHOD_MMAP;
    uct_iface_config         config_       = {};
    uct_iface_params_t       params_       = {};
};

} // namespace

TEST_F(uct_abi, base_classes_have_our_sizes)
{
    EXPECT_EQ(sizeof(uct_iface_t), uct_iface_t_class.size);
    EXPECT_EQ(sizeof(uct_ep_t), uct_ep_t_class.size);
    EXPECT_EQ(sizeof(uct_base_iface_t), uct_base_iface_t_class.size);
    EXPECT_EQ(sizeof(uct_base_ep_t), uct_base_ep_t_class.size);
}

TEST_F(uct_abi, base_iface_constructed_by_libuct_reads_back)
{
    // Guard bytes on both sides show a libuct that believes the object to be larger.
    constexpr size_t     guard = 64;
    std::vector<uint8_t> bytes(sizeof(uct_base_iface_t) + 2 * guard, 0xa5);
    auto *iface = reinterpret_cast<uct_base_iface_t *>(bytes.data() + guard);

    int init_count = 1;
    ASSERT_EQ(UCS_OK, uct_base_iface_t_init(iface, &uct_base_iface_t_class, &init_count, &ops_, &internal_ops_, &md_,
                                            worker_, &params_, &config_));

    EXPECT_EQ(0, memcmp(&ops_, &iface->super.ops, sizeof(ops_)));
    EXPECT_EQ(&internal_ops_, iface->internal_ops);
    EXPECT_EQ(&md_, iface->md);
    EXPECT_EQ(reinterpret_cast<void *>(worker_), reinterpret_cast<void *>(iface->worker));
    EXPECT_EQ(&error_callback, iface->err_handler);
    EXPECT_EQ(this, iface->err_handler_arg);
    EXPECT_EQ(unsigned(UCT_CB_FLAG_ASYNC), iface->err_handler_flags);
    EXPECT_EQ(0u, iface->progress_flags);
    EXPECT_EQ(0u, iface->prog.refcount);
    EXPECT_EQ(1u, iface->config.alloc_method_count);
    EXPECT_EQ(UCT_ALLOC_METHOD_MMAP, iface->config.alloc_methods[0]);
    EXPECT_EQ(UCS_LOG_LEVEL_DEBUG, iface->config.failure_level);
    EXPECT_EQ(12345u, iface->config.max_num_eps);

    size_t seen = 0;
    ASSERT_EQ(UCS_OK, uct_iface_set_am_handler(&iface->super, 7, am_callback, &seen, 0));
    EXPECT_EQ(&am_callback, iface->am[7].cb);
    EXPECT_EQ(&seen, iface->am[7].arg);
    EXPECT_EQ(UCS_OK, uct_abi_invoke_am(iface, 7, bytes.data(), 99, 0));
    EXPECT_EQ(99u, seen);

    uct_base_iface_progress_enable(&iface->super, UCT_PROGRESS_SEND | UCT_PROGRESS_RECV);
    EXPECT_EQ(unsigned(UCT_PROGRESS_SEND | UCT_PROGRESS_RECV), iface->progress_flags);
    uct_base_iface_progress_disable(&iface->super, UCT_PROGRESS_SEND | UCT_PROGRESS_RECV);
    EXPECT_EQ(0u, iface->progress_flags);

    uct_base_ep_t ep;
    int           ep_init_count = 1;
    ASSERT_EQ(UCS_OK, uct_base_ep_t_init(&ep, &uct_base_ep_t_class, &ep_init_count, iface));
    EXPECT_EQ(&iface->super, ep.super.iface);
    ucs_class_call_cleanup_chain(&uct_base_ep_t_class, &ep, -1);

    ucs_class_call_cleanup_chain(&uct_base_iface_t_class, iface, -1);
    for (size_t i = 0; i < guard; ++i) {
        ASSERT_EQ(0xa5, bytes[i]);
        ASSERT_EQ(0xa5, bytes[guard + sizeof(uct_base_iface_t) + i]);
    }
}

TEST_F(uct_abi, registered_component_is_listed_with_its_transport)
{
    static uct_component component;
    static uct_tl_t      tl;
    component = {};
    tl        = {};
    strcpy(component.name, "probe");
    component.query_md_resources = [](uct_component *, uct_md_resource_desc_t **resources_p, unsigned *count_p) {
        return uct_md_query_empty_md_resource(resources_p, count_p);
    };
    component.flags = 0;
    ucs_list_head_init(&component.tl_list);
    strcpy(tl.name, "probe_tl");
    uct_component_register(&component);
    uct_tl_register(&component, &tl);

    uct_component_h *components;
    unsigned         count;
    ASSERT_EQ(UCS_OK, uct_query_components(&components, &count));
    bool found = false;
    for (unsigned i = 0; i < count; ++i) {
        uct_component_attr_t attr = {};
        attr.field_mask = UCT_COMPONENT_ATTR_FIELD_NAME | UCT_COMPONENT_ATTR_FIELD_MD_RESOURCE_COUNT;
        ASSERT_EQ(UCS_OK, uct_component_query(components[i], &attr));
        if (strcmp(attr.name, "probe") == 0) {
            found = true;
            EXPECT_EQ(0u, attr.md_resource_count);
        }
    }
    uct_release_component_list(components);
    EXPECT_TRUE(found);
    EXPECT_EQ(&tl.list, component.tl_list.next);

    uct_tl_unregister(&tl);
    uct_abi_component_unregister(&component);
}
