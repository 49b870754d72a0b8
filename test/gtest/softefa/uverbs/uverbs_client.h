/* Speaks the uverbs interface to the front end directly, as an application without libibverbs could: right and wrong. */
#pragma once

#include "softefa/uverbs/dispatch.h"
#include "softefa/uverbs/file.h"
#include "softefa/uverbs/kernel_abi.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

namespace softefa::uverbs {

/// One command under construction; attributes point at members of the caller.
class uverbs_command {
public:
    uverbs_command(std::uint16_t object, std::uint16_t method)
    {
        header_.object_id = object;
        header_.method_id = method;
        header_.driver_id = RDMA_DRIVER_EFA;
    }
    ib_uverbs_ioctl_hdr &header() { return header_; }

    uverbs_command &raw(std::uint16_t id, std::uint16_t size, std::uint64_t data, std::uint16_t flags = UVERBS_ATTR_F_MANDATORY)
    {
        ib_uverbs_attr a{};
        a.attr_id = id;
        a.len     = size;
        a.flags   = flags;
        a.data    = data;
        attrs_.push_back(a);
        return *this;
    }
    template <class T> uverbs_command &in(std::uint16_t id, const T &value)
    {
        std::uint64_t data = 0;
        if (sizeof(T) <= sizeof(data)) {
            memcpy(&data, &value, sizeof(T));
        } else {
            data = reinterpret_cast<std::uint64_t>(&value);
        }
        return raw(id, sizeof(T), data);
    }
    template <class T> uverbs_command &out(std::uint16_t id, T *value)
    {
        return raw(id, sizeof(T), reinterpret_cast<std::uint64_t>(value));
    }
    uverbs_command &handle(std::uint16_t id, std::uint64_t value) { return raw(id, 0, value); }

    /// 0 or an errno; ENOTTY if the fd is not one of ours.
    int send(int fd)
    {
        std::vector<std::uint8_t> bytes(sizeof(header_) + attrs_.size() * sizeof(ib_uverbs_attr));
        if (header_.length == 0) {
            header_.length = static_cast<std::uint16_t>(bytes.size());
        }
        if (header_.num_attrs == 0) {
            header_.num_attrs = static_cast<std::uint16_t>(attrs_.size());
        }
        memcpy(bytes.data(), &header_, sizeof(header_));
        std::copy_n(reinterpret_cast<const std::uint8_t *>(attrs_.data()), attrs_.size() * sizeof(ib_uverbs_attr),
                    bytes.begin() + sizeof(header_));
        int error = 0;
        if (!file_ioctl(fd, bytes.data(), &error)) {
            return ENOTTY;
        }
        std::copy(bytes.begin() + sizeof(header_), bytes.end(), reinterpret_cast<std::uint8_t *>(attrs_.data()));
        return error;
    }
    const ib_uverbs_attr &attr(std::uint16_t id) const
    {
        for (const auto &a : attrs_) {
            if (a.attr_id == id) {
                return a;
            }
        }
        static const ib_uverbs_attr none{};
        return none;
    }

private:
    std::vector<ib_uverbs_attr> attrs_;
    ib_uverbs_ioctl_hdr         header_{}; ///< ends in a flexible array: last
};

/// An open device with the commands that most tests need.
class uverbs_client {
public:
    explicit uverbs_client(bool with_context = true) : fd_(file_open(0, O_CLOEXEC_))
    {
        if (fd_ >= 0 && with_context) {
            EXPECT_EQ(0, get_context());
        }
    }
    ~uverbs_client() { close(); }
    uverbs_client(const uverbs_client &)            = delete;
    uverbs_client &operator=(const uverbs_client &) = delete;

    int  fd() const { return fd_; }
    void close() { close_fd(&fd_); }
    static void close_fd(int *fd_p)
    {
        if (*fd_p >= 0) {
            file_closing(*fd_p);
            syscall(SYS_close, *fd_p);
            *fd_p = -1;
        }
    }

    int get_context(abi::alloc_ucontext_resp *reply_p = nullptr)
    {
        abi::alloc_ucontext_resp reply{};
        std::uint32_t            vectors = 0;
        std::uint64_t            support = 0;
        const std::uint64_t      ask     = 3;
        const int error = uverbs_command(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_GET_CONTEXT)
                              .out(UVERBS_ATTR_GET_CONTEXT_NUM_COMP_VECTORS, &vectors)
                              .out(UVERBS_ATTR_GET_CONTEXT_CORE_SUPPORT, &support)
                              .in(UVERBS_ATTR_UHW_IN, ask)
                              .out(UVERBS_ATTR_UHW_OUT, &reply)
                              .send(fd_);
        if (reply_p != nullptr) {
            *reply_p = reply;
        }
        return error;
    }

    template <class In, class Out> int write_command(std::uint32_t command, const In &in, Out *out)
    {
        return uverbs_command(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE)
            .in(UVERBS_ATTR_WRITE_CMD, std::uint64_t{command})
            .in(UVERBS_ATTR_CORE_IN, in)
            .out(UVERBS_ATTR_CORE_OUT, out)
            .send(fd_);
    }
    template <class In> int write_command(std::uint32_t command, const In &in)
    {
        return uverbs_command(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE)
            .in(UVERBS_ATTR_WRITE_CMD, std::uint64_t{command})
            .in(UVERBS_ATTR_CORE_IN, in)
            .send(fd_);
    }

    std::uint32_t alloc_pd()
    {
        const std::uint64_t response = 0;
        std::uint32_t       pd       = 0;
        EXPECT_EQ(0, write_command(IB_USER_VERBS_CMD_ALLOC_PD, response, &pd));
        return pd;
    }
    int destroy(std::uint16_t object, std::uint16_t method, std::uint16_t attr, std::uint32_t handle)
    {
        return uverbs_command(object, method).handle(attr, handle).send(fd_);
    }
    int dealloc_pd(std::uint32_t pd) { return destroy(UVERBS_OBJECT_PD, UVERBS_METHOD_PD_DESTROY, UVERBS_ATTR_DESTROY_PD_HANDLE, pd); }
    int dereg_mr(std::uint32_t mr) { return destroy(UVERBS_OBJECT_MR, UVERBS_METHOD_MR_DESTROY, UVERBS_ATTR_DESTROY_MR_HANDLE, mr); }
    int destroy_ah(std::uint32_t ah) { return destroy(UVERBS_OBJECT_AH, 0, 0, ah); }

    int reg_mr(std::uint32_t pd, const void *address, std::uint64_t size, std::uint32_t access, std::uint32_t *mr_p)
    {
        ib_uverbs_reg_mr ask{};
        std::uint32_t    reply[3] = {};
        ask.start                 = reinterpret_cast<std::uint64_t>(address);
        ask.hca_va                = ask.start;
        ask.length                = size;
        ask.pd_handle             = pd;
        ask.access_flags          = access;
        const int error           = write_command(IB_USER_VERBS_CMD_REG_MR, ask, &reply);
        *mr_p                     = reply[0];
        return error;
    }

    /// Everything of CREATE_CQ that a test may want to spoil.
    struct cq_ask {
        std::uint32_t     cqe         = 16;
        std::uint32_t     comp_vector = 0;
        std::uint32_t     flags       = 0;
        int               channel_fd  = -1;
        std::uint64_t     user_handle = 0xabcdef;
        efa_ibv_create_cq efa{0, 32, 1, 0, {}};
    };
    int create_cq(const cq_ask &ask, std::uint32_t *cq_p, efa_ibv_create_cq_resp *reply_p = nullptr)
    {
        std::uint32_t          cqe = 0;
        efa_ibv_create_cq_resp reply{};
        uverbs_command         c(UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_CREATE);
        c.handle(UVERBS_ATTR_CREATE_CQ_HANDLE, 0)
            .in(UVERBS_ATTR_CREATE_CQ_CQE, ask.cqe)
            .in(UVERBS_ATTR_CREATE_CQ_USER_HANDLE, ask.user_handle)
            .in(UVERBS_ATTR_CREATE_CQ_COMP_VECTOR, ask.comp_vector)
            .out(UVERBS_ATTR_CREATE_CQ_RESP_CQE, &cqe)
            .in(UVERBS_ATTR_UHW_IN, ask.efa)
            .out(UVERBS_ATTR_UHW_OUT, &reply);
        if (ask.flags != 0) {
            c.in(UVERBS_ATTR_CREATE_CQ_FLAGS, ask.flags);
        }
        if (ask.channel_fd >= 0) {
            c.handle(UVERBS_ATTR_CREATE_CQ_COMP_CHANNEL, static_cast<std::uint64_t>(ask.channel_fd));
        }
        const int error = c.send(fd_);
        if (error == 0) {
            EXPECT_EQ(ask.cqe, cqe);
            *cq_p = static_cast<std::uint32_t>(c.attr(UVERBS_ATTR_CREATE_CQ_HANDLE).data);
        }
        if (reply_p != nullptr) {
            *reply_p = reply;
        }
        return error;
    }
    int destroy_cq(std::uint32_t cq, std::uint32_t *events_p = nullptr)
    {
        ib_uverbs_destroy_cq_resp reply{};
        const int error = uverbs_command(UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_DESTROY)
                              .handle(UVERBS_ATTR_DESTROY_CQ_HANDLE, cq)
                              .out(UVERBS_ATTR_DESTROY_CQ_RESP, &reply)
                              .send(fd_);
        if (events_p != nullptr) {
            *events_p = reply.comp_events_reported;
        }
        return error;
    }

    struct qp_ask {
        std::uint32_t      pd = 0, send_cq = 0, recv_cq = 0;
        std::uint64_t      type  = 255;
        std::uint32_t      flags = 0;
        ib_uverbs_qp_cap   cap{16, 16, 1, 1, 0};
        abi::create_qp_cmd efa{0, 16 * 16, 16 * 64, 0, 0, 0, {}};
    };
    int create_qp(const qp_ask &ask, std::uint32_t *qp_p, efa_ibv_create_qp_resp *reply_p = nullptr)
    {
        ib_uverbs_qp_cap       cap{};
        std::uint32_t          qpn = 0;
        efa_ibv_create_qp_resp reply{};
        uverbs_command         c(UVERBS_OBJECT_QP, UVERBS_METHOD_QP_CREATE);
        c.handle(UVERBS_ATTR_CREATE_QP_HANDLE, 0)
            .handle(UVERBS_ATTR_CREATE_QP_PD_HANDLE, ask.pd)
            .handle(UVERBS_ATTR_CREATE_QP_SEND_CQ_HANDLE, ask.send_cq)
            .handle(UVERBS_ATTR_CREATE_QP_RECV_CQ_HANDLE, ask.recv_cq)
            .in(UVERBS_ATTR_CREATE_QP_USER_HANDLE, std::uint64_t{0x123})
            .in(UVERBS_ATTR_CREATE_QP_CAP, ask.cap)
            .in(UVERBS_ATTR_CREATE_QP_TYPE, ask.type)
            .out(UVERBS_ATTR_CREATE_QP_RESP_CAP, &cap)
            .out(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM, &qpn)
            .in(UVERBS_ATTR_UHW_IN, ask.efa)
            .out(UVERBS_ATTR_UHW_OUT, &reply);
        if (ask.flags != 0) {
            c.in(UVERBS_ATTR_CREATE_QP_FLAGS, ask.flags);
        }
        const int error = c.send(fd_);
        if (error == 0) {
            EXPECT_EQ(0, memcmp(&cap, &ask.cap, sizeof(cap)));
            *qp_p = static_cast<std::uint32_t>(c.attr(UVERBS_ATTR_CREATE_QP_HANDLE).data);
        }
        if (reply_p != nullptr) {
            *reply_p = reply;
        }
        return error;
    }
    int destroy_qp(std::uint32_t qp)
    {
        ib_uverbs_destroy_qp_resp reply{};
        return uverbs_command(UVERBS_OBJECT_QP, UVERBS_METHOD_QP_DESTROY)
            .handle(UVERBS_ATTR_DESTROY_QP_HANDLE, qp)
            .out(UVERBS_ATTR_DESTROY_QP_RESP, &reply)
            .send(fd_);
    }

    int create_channel()
    {
        const std::uint64_t response = 0;
        std::uint32_t       fd       = 0;
        EXPECT_EQ(0, write_command(IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL, response, &fd));
        return static_cast<int>(fd);
    }

private:
    static constexpr int O_CLOEXEC_ = 02000000;
    int                  fd_;
};

} // namespace softefa::uverbs
