/* The least of UCT that a system test needs: one interface of a transport on one device, endpoints, short messages.
 *
 * Owns: async context, worker, memory domain and interface. Refuses to know what is tested. Any failure ends the program.
 */
#pragma once

#include "../ucp/pair.h"

extern "C" {
#include <ucs/async/async_fwd.h>
#include <uct/api/uct.h>
}

#include <array>
#include <functional>

namespace sys {

/// Addresses of an interface, as another one needs them.
struct uct_address {
    std::array<char, 64> device{}, iface{};
};

class uct_node {
public:
    using handler = std::function<void(const void *data, size_t size)>;
    using failure = std::function<void(uct_ep_h, ucs_status_t)>;

    /// `device`: as UCX names it, efa_0:1; empty: the first one.
    explicit uct_node(const std::string &device = "")
    {
        check(ucs_async_context_create(UCS_ASYNC_MODE_THREAD_SPINLOCK, &async_), "ucs_async_context_create");
        check(uct_worker_create(async_, UCS_THREAD_MODE_SINGLE, &worker_), "uct_worker_create");
        if (!open(device)) {
            die("transport srd has no device " + device);
        }
        listen();
    }
    uct_node(const uct_node &) = delete;
    ~uct_node()
    {
        uct_iface_close(iface_);
        uct_md_close(md_);
        uct_worker_destroy(worker_);
        ucs_async_context_destroy(async_);
    }

    /// Another life: the interface is closed and opened, device and context stay.
    void reopen()
    {
        uct_iface_close(iface_);
        open_iface();
        listen();
    }

    handler on_message; ///< called for each message
    failure on_failure; ///< called for each endpoint that failed

    /// The memory domain and its component, for registrations and remote keys.
    uct_md_h        md() const { return md_; }
    uct_component_h component() const { return component_; }
    uint64_t        interface_flags() const
    {
        uct_iface_attr_t attr;
        check(uct_iface_query(iface_, &attr), "uct_iface_query");
        return attr.cap.flags;
    }

    uct_address address() const
    {
        uct_address a;
        check(uct_iface_get_device_address(iface_, reinterpret_cast<uct_device_addr_t *>(a.device.data())), "device address");
        check(uct_iface_get_address(iface_, reinterpret_cast<uct_iface_addr_t *>(a.iface.data())), "interface address");
        return a;
    }
    ucs_status_t try_connect(const uct_address &to, uct_ep_h *ep_p)
    {
        uct_ep_params_t params = {};
        params.field_mask      = UCT_EP_PARAM_FIELD_IFACE | UCT_EP_PARAM_FIELD_DEV_ADDR | UCT_EP_PARAM_FIELD_IFACE_ADDR;
        params.iface           = iface_;
        params.dev_addr        = reinterpret_cast<const uct_device_addr_t *>(to.device.data());
        params.iface_addr      = reinterpret_cast<const uct_iface_addr_t *>(to.iface.data());
        return uct_ep_create(&params, ep_p);
    }
    uct_ep_h connect(const uct_address &to)
    {
        uct_ep_h ep;
        check(try_connect(to, &ep), "uct_ep_create");
        return ep;
    }
    unsigned progress() { return uct_worker_progress(worker_); }

    /// Sends up to 256 bytes, progressing while there is no room; the status of the post if it is an error.
    ucs_status_t send(uct_ep_h ep, const void *data, size_t size, double seconds = 20)
    {
        struct piece {
            const void *data;
            size_t      size;
        } piece{data, size};
        const auto begin = clock::now();
        for (;;) {
            const ssize_t sent = uct_ep_am_bcopy(ep, 1, [](void *to, void *arg) {
                    const auto *p = static_cast<struct piece *>(arg);
                    std::memcpy(to, p->data, p->size);
                    return p->size;
                }, &piece, 0);
            if (sent >= 0) {
                return UCS_OK;
            }
            if (sent != UCS_ERR_NO_RESOURCE || seconds_since(begin) > seconds) {
                return static_cast<ucs_status_t>(sent);
            }
            progress();
        }
    }
    ucs_status_t flush(uct_ep_h ep, double seconds = 20)
    {
        const auto begin = clock::now();
        for (;;) {
            const ucs_status_t status = uct_ep_flush(ep, 0, nullptr);
            if ((status != UCS_INPROGRESS && status != UCS_ERR_NO_RESOURCE) || seconds_since(begin) > seconds) {
                return status;
            }
            progress();
        }
    }
    bool until(double seconds, const std::function<bool()> &condition)
    {
        const auto begin = clock::now();
        while (!condition()) {
            progress();
            if (seconds_since(begin) > seconds) {
                return condition();
            }
        }
        return true;
    }

private:
    void listen()
    {
        uct_iface_set_am_handler(iface_, 1,
            [](void *arg, void *data, size_t size, unsigned) {
                auto *self = static_cast<uct_node *>(arg);
                if (self->on_message) {
                    self->on_message(data, size);
                }
                return UCS_OK;
            }, this, 0);
        uct_iface_progress_enable(iface_, UCT_PROGRESS_SEND | UCT_PROGRESS_RECV);
    }
    bool open(const std::string &device)
    {
        uct_component_h *components;
        unsigned         component_count;
        bool             found = false;
        check(uct_query_components(&components, &component_count), "uct_query_components");
        for (unsigned c = 0; c < component_count && !found; ++c) {
            uct_component_attr_t attr = {};
            attr.field_mask           = UCT_COMPONENT_ATTR_FIELD_NAME | UCT_COMPONENT_ATTR_FIELD_MD_RESOURCE_COUNT;
            check(uct_component_query(components[c], &attr), "uct_component_query");
            if (std::strcmp(attr.name, "srd") != 0) {
                continue;
            }
            std::vector<uct_md_resource_desc_t> mds(attr.md_resource_count);
            attr.field_mask   = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCES;
            attr.md_resources = mds.data();
            check(uct_component_query(components[c], &attr), "uct_component_query");
            for (size_t m = 0; m < mds.size() && !found; ++m) {
                found = open_md(components[c], mds[m].md_name, device);
            }
        }
        uct_release_component_list(components);
        return found;
    }
    bool open_md(uct_component_h component, const char *name, const std::string &device)
    {
        uct_md_config_t *md_config;
        check(uct_md_config_read(component, nullptr, nullptr, &md_config), "uct_md_config_read");
        check(uct_md_open(component, name, md_config, &md_), "uct_md_open");
        component_ = component;
        uct_config_release(md_config);
        uct_tl_resource_desc_t *resources;
        unsigned                count;
        check(uct_md_query_tl_resources(md_, &resources, &count), "uct_md_query_tl_resources");
        bool found = false;
        for (unsigned r = 0; r < count && !found; ++r) {
            if (device.empty() || device == resources[r].dev_name) {
                device_ = resources[r];
                open_iface();
                found = true;
            }
        }
        uct_release_tl_resource_list(resources);
        if (!found) {
            uct_md_close(md_);
        }
        return found;
    }
    void open_iface()
    {
        uct_iface_config_t *config;
        check(uct_md_iface_config_read(md_, device_.tl_name, nullptr, nullptr, &config), "uct_md_iface_config_read");
        uct_iface_params_t params   = {};
        params.field_mask           = UCT_IFACE_PARAM_FIELD_OPEN_MODE | UCT_IFACE_PARAM_FIELD_DEVICE |
                                      UCT_IFACE_PARAM_FIELD_ERR_HANDLER | UCT_IFACE_PARAM_FIELD_ERR_HANDLER_ARG |
                                      UCT_IFACE_PARAM_FIELD_ERR_HANDLER_FLAGS;
        params.open_mode            = UCT_IFACE_OPEN_MODE_DEVICE;
        params.mode.device.tl_name  = device_.tl_name;
        params.mode.device.dev_name = device_.dev_name;
        params.err_handler_arg      = this;
        params.err_handler          = [](void *arg, uct_ep_h ep, ucs_status_t status) {
            auto *self = static_cast<uct_node *>(arg);
            if (self->on_failure) {
                self->on_failure(ep, status);
            }
            return UCS_OK;
        };
        check(uct_iface_open(md_, worker_, &params, config, &iface_), "uct_iface_open");
        uct_config_release(config);
    }

    ucs_async_context_t *async_  = nullptr;
    uct_worker_h         worker_ = nullptr;
    uct_component_h      component_ = nullptr;
    uct_md_h             md_     = nullptr;
    uct_iface_h          iface_  = nullptr;
    uct_tl_resource_desc_t device_{};
};

} // namespace sys
