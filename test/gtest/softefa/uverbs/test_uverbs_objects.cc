// Objects: handles are checked for kind, owner and life; limits and errors are the kernel driver's.
#include "uverbs_client.h"

#include "softefa/dev/objects.h"
#include "softefa/uverbs/object_table.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <infiniband/verbs.h>
#include <memory>
#include <optional>
#include <string>
#include <sys/mman.h>
#include <thread>

namespace softefa::uverbs {
namespace {

struct uverbs_objects : ::testing::Test {
    uverbs_client client;

    std::uint32_t new_cq()
    {
        std::uint32_t cq = 0;
        EXPECT_EQ(0, client.create_cq({}, &cq));
        return cq;
    }
    std::uint32_t new_qp(std::uint32_t pd, std::uint32_t cq)
    {
        uverbs_client::qp_ask ask;
        std::uint32_t         qp = 0;
        ask.pd      = pd;
        ask.send_cq = ask.recv_cq = cq;
        EXPECT_EQ(0, client.create_qp(ask, &qp));
        return qp;
    }
    int modify_to_init(std::uint32_t qp)
    {
        ib_uverbs_modify_qp ask{};
        ask.qp_handle = qp;
        ask.attr_mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY;
        ask.qp_state  = IBV_QPS_INIT;
        ask.port_num  = 1;
        return client.write_command(IB_USER_VERBS_CMD_MODIFY_QP, ask);
    }
    /// -1: it could not be asked.
    int state_of(std::uint32_t qp)
    {
        ib_uverbs_query_qp      ask{};
        ib_uverbs_query_qp_resp reply{};
        ask.qp_handle = qp;
        ask.attr_mask = IBV_QP_STATE;
        return client.write_command(IB_USER_VERBS_CMD_QUERY_QP, ask, &reply) == 0 ? reply.qp_state : -1;
    }
};

/// A thread of this process waits for something.
bool sleeps(pid_t thread)
{
    std::ifstream     file("/proc/self/task/" + std::to_string(thread) + "/stat");
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const auto        name_end = text.rfind(')');
    return name_end != std::string::npos && text.compare(name_end, 3, ") S") == 0;
}

/// A user handle that points to anything: the descriptor's number may stand where a context would have it. HOOK-1
TEST_F(uverbs_objects, memory_that_only_looks_like_a_context_is_not_written)
{
    const auto        context  = std::make_unique<ibv_context>();
    const auto        device   = std::make_unique<ibv_device>();
    const auto        cq       = std::make_unique<ibv_cq>();
    const auto        post     = reinterpret_cast<int (*)(ibv_qp *, ibv_send_wr *, ibv_send_wr **)>(0x1234);
    context->cmd_fd            = client.fd();
    context->ops.post_send     = post;
    cq->context                = context.get();
    uverbs_client::cq_ask ask;
    ask.user_handle = reinterpret_cast<std::uint64_t>(cq.get());
    for (const char *name : {"", "efa_", "efa_00", "mlx5_0", "efa_0"}) {
        std::uint32_t made = 0;
        context->device    = name[0] != '\0' ? device.get() : nullptr;
        std::strcpy(device->name, name);
        ASSERT_EQ(0, client.create_cq(ask, &made));
        if (std::strcmp(name, "efa_0") != 0) {
            EXPECT_EQ(post, context->ops.post_send) << name;
        } else {
            EXPECT_NE(post, context->ops.post_send) << "it is the real thing, as far as anybody can see";
        }
        EXPECT_EQ(0, client.destroy_cq(made));
    }
}

TEST_F(uverbs_objects, handle_of_wrong_kind_is_einval_and_unknown_is_enoent)
{
    const std::uint32_t pd = client.alloc_pd();
    EXPECT_EQ(EINVAL, client.dereg_mr(pd));
    EXPECT_EQ(EINVAL, client.destroy_cq(pd));
    EXPECT_EQ(ENOENT, client.dealloc_pd(0));
    EXPECT_EQ(ENOENT, client.dealloc_pd(pd + (1u << object_index_bits)));
    EXPECT_EQ(ENOENT, client.dealloc_pd(0xffffffff));
    EXPECT_EQ(0, client.dealloc_pd(pd));
    EXPECT_EQ(ENOENT, client.dealloc_pd(pd)) << "destroyed twice";
    const std::uint32_t again = client.alloc_pd();
    EXPECT_NE(pd, again) << "a handle names one object for ever";
    EXPECT_EQ(0, client.dealloc_pd(again));
}

/// A command that has looked its objects up and is not done.
class command_under_way {
public:
    explicit command_under_way(std::span<const method_spec> methods, std::uint16_t method)
    {
        searched          = methods;
        header_.method_id = method;
        header_.driver_id = RDMA_DRIVER_EFA;
    }
    command_under_way &attr(std::uint16_t id, std::uint64_t data, std::uint16_t size = 0)
    {
        ib_uverbs_attr &a = attrs_[header_.num_attrs++];
        a.attr_id         = id;
        a.len             = size;
        a.data            = data;
        return *this;
    }
    int resolve(open_file &file)
    {
        std::uint8_t bytes[sizeof(header_) + sizeof(attrs_)];
        header_.length = static_cast<std::uint16_t>(sizeof(header_) + header_.num_attrs * sizeof(ib_uverbs_attr));
        memcpy(bytes, &header_, sizeof(header_));
        memcpy(bytes + sizeof(header_), attrs_, sizeof(attrs_));
        const int error = request_.load(reinterpret_cast<std::uint64_t>(bytes), find);
        return error != 0 ? error : request_.resolve(file);
    }
    int      run(open_file &file) { return request_.method().handler(file, request_); }
    request &it() { return request_; }

private:
    static const method_spec *find(std::uint16_t, std::uint16_t wanted)
    {
        const auto row = std::find_if(searched.begin(), searched.end(), [&](const method_spec &m) { return m.method == wanted; });
        return row != searched.end() ? &*row : nullptr;
    }
    inline static std::span<const method_spec> searched;

    ib_uverbs_attr      attrs_[request::attr_count_max]{};
    request             request_;
    ib_uverbs_ioctl_hdr header_{}; ///< ends in a flexible array: last
};

object &slot_of(std::uint32_t handle)
{
    const std::uint32_t index = handle & ((1u << object_index_bits) - 1);
    return object_chunks[index / object_chunk_count].load()[index % object_chunk_count];
}

/// Destroyed by one thread while another one is about to; and its slot is given to a new one of that kind. OBJ-1, OBJ-3
template <class Create, class Destroy>
void expect_one_destroy(std::span<const method_spec> methods, std::uint16_t method, std::uint16_t attr, Create &&create, Destroy &&destroy)
{
    const std::uint32_t old   = create();
    open_file          &file  = *slot_of(old).file;
    std::uint64_t       reply = 0;
    {
        command_under_way first(methods, method);
        first.attr(attr, old);
        if (methods[0].object == UVERBS_OBJECT_CQ || methods[0].object == UVERBS_OBJECT_QP) {
            first.attr(static_cast<std::uint16_t>(attr + 1), reinterpret_cast<std::uint64_t>(&reply), sizeof(reply));
        }
        ASSERT_EQ(0, first.resolve(file));
        EXPECT_EQ(EBUSY, destroy(old));
        EXPECT_EQ(0, first.run(file));
        const std::uint32_t fresh = create();
        ASSERT_EQ(&slot_of(old), &slot_of(fresh)) << "not the same slot: the test tests nothing";
        EXPECT_EQ(ENOENT, destroy(old));
        first.it().release(); // of the old one: the new one is not concerned
        EXPECT_EQ(0, slot_of(fresh).users);
        EXPECT_EQ(0, destroy(fresh));
    }
    EXPECT_EQ(ENOENT, destroy(old));
}

TEST_F(uverbs_objects, object_is_destroyed_once_and_its_successor_in_the_slot_not_at_all)
{
    static char         memory[64];
    const std::uint32_t pd = client.alloc_pd();
    const std::uint32_t cq = new_cq();
    expect_one_destroy(pd_methods, UVERBS_METHOD_PD_DESTROY, UVERBS_ATTR_DESTROY_PD_HANDLE, [&] { return client.alloc_pd(); },
                       [&](std::uint32_t h) { return client.dealloc_pd(h); });
    expect_one_destroy(cq_methods, UVERBS_METHOD_CQ_DESTROY, UVERBS_ATTR_DESTROY_CQ_HANDLE, [&] { return new_cq(); },
                       [&](std::uint32_t h) { return client.destroy_cq(h); });
    expect_one_destroy(
        mr_methods, UVERBS_METHOD_MR_DESTROY, UVERBS_ATTR_DESTROY_MR_HANDLE,
        [&] {
            std::uint32_t mr = 0;
            EXPECT_EQ(0, client.reg_mr(pd, memory, sizeof(memory), 1, &mr));
            return mr;
        },
        [&](std::uint32_t h) { return client.dereg_mr(h); });
    expect_one_destroy(qp_methods, UVERBS_METHOD_QP_DESTROY, UVERBS_ATTR_DESTROY_QP_HANDLE, [&] { return new_qp(pd, cq); },
                       [&](std::uint32_t h) { return client.destroy_qp(h); });
    EXPECT_EQ(0, client.destroy_cq(cq));
    EXPECT_EQ(0, client.dealloc_pd(pd));
}

/// OBJ-3
TEST_F(uverbs_objects, what_a_command_works_on_is_not_destroyed_meanwhile)
{
    const std::uint32_t pd = client.alloc_pd(), cq = new_cq(), other = new_cq(), qp = new_qp(pd, other);
    open_file          &file = *slot_of(pd).file;
    const auto          create = [&](command_under_way &c, std::uint32_t recv_cq) {
        static std::uint64_t room[32];
        const auto at = reinterpret_cast<std::uint64_t>(room);
        c.attr(UVERBS_ATTR_CREATE_QP_HANDLE, 0).attr(UVERBS_ATTR_CREATE_QP_PD_HANDLE, pd);
        c.attr(UVERBS_ATTR_CREATE_QP_SEND_CQ_HANDLE, cq).attr(UVERBS_ATTR_CREATE_QP_RECV_CQ_HANDLE, recv_cq);
        c.attr(UVERBS_ATTR_CREATE_QP_USER_HANDLE, 0, 8).attr(UVERBS_ATTR_CREATE_QP_CAP, at, sizeof(ib_uverbs_qp_cap));
        c.attr(UVERBS_ATTR_CREATE_QP_TYPE, 255, 4).attr(UVERBS_ATTR_CREATE_QP_RESP_CAP, at, sizeof(ib_uverbs_qp_cap));
        c.attr(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM, at, 4).attr(UVERBS_ATTR_UHW_IN, at, 8).attr(UVERBS_ATTR_UHW_OUT, at, 8);
        return c.resolve(file);
    };
    {
        command_under_way first(qp_methods, UVERBS_METHOD_QP_CREATE), second(qp_methods, UVERBS_METHOD_QP_CREATE);
        ASSERT_EQ(0, create(first, cq));
        ASSERT_EQ(0, create(second, other)) << "two that only use it are not in each other's way";
        EXPECT_EQ(EBUSY, client.destroy_cq(cq));
        EXPECT_EQ(EBUSY, client.dealloc_pd(pd));
        first.it().release();
        EXPECT_EQ(EBUSY, client.destroy_cq(cq)) << "the other one still works on it";
        EXPECT_NE(nullptr, object_find(cq, slot_of(cq).user)) << "polled all the while";
        object *held = nullptr;
        ASSERT_EQ(0, second.it().hold(file, qp, object_kind::qp, &held)); // as modify and query do
        EXPECT_EQ(EBUSY, client.destroy_qp(qp));
        second.it().release();
        second.it().release();
    }
    {
        command_under_way wrong(qp_methods, UVERBS_METHOD_QP_CREATE);
        EXPECT_EQ(EINVAL, create(wrong, pd)) << "not a completion queue, found when the others are held already";
    }
    EXPECT_EQ(0, client.destroy_qp(qp));
    EXPECT_EQ(0, client.destroy_cq(cq));
    EXPECT_EQ(0, client.destroy_cq(other));
    EXPECT_EQ(0, client.dealloc_pd(pd));
}

/// One thread destroys and creates, in one slot; the other one changes what it was told of, which may be gone by then.
TEST_F(uverbs_objects, command_of_another_thread_never_hits_the_next_object)
{
    const std::uint32_t pd = client.alloc_pd(), cq = new_cq();
    std::atomic<std::uint32_t> told{new_qp(pd, cq)};
    std::atomic<bool>          stop{false};
    std::atomic<unsigned>      changed{0};
    std::thread                other([&] {
        while (!stop) {
            changed += modify_to_init(told) == 0;
        }
    });
    const auto end  = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    unsigned   seen = 0;
    for (unsigned round = 0; round < 400 && std::chrono::steady_clock::now() < end; ++round) { // as many as a busy machine allows
        while (changed == seen && std::chrono::steady_clock::now() < end) { // until the first change of this one
            std::this_thread::yield();
        }
        const std::uint32_t old = told;
        int                 error;
        while ((error = client.destroy_qp(old)) == EBUSY) { // the other one is at work
            std::this_thread::yield();
        }
        EXPECT_EQ(0, error);
        const std::uint32_t fresh = new_qp(pd, cq);
        EXPECT_EQ(&slot_of(old), &slot_of(fresh));
        for (unsigned looks = 0; looks < 4; ++looks) {
            EXPECT_EQ(0, state_of(fresh)) << "changed by a command for the one before, in round " << round;
        }
        seen = changed;
        told = fresh;
    }
    stop = true;
    other.join();
    EXPECT_GT(changed, 0u);
    EXPECT_EQ(0, client.destroy_qp(told));
    EXPECT_EQ(0, client.destroy_cq(cq));
    EXPECT_EQ(0, client.dealloc_pd(pd));
}

/// Who polls a completion queue that cannot be destroyed yet never finds it gone.
TEST_F(uverbs_objects, refused_destroy_does_not_hide_the_queue_from_who_polls_it)
{
    const std::uint32_t pd = client.alloc_pd(), cq = new_cq(), qp = new_qp(pd, cq);
    const void *const   user = slot_of(cq).user;
    std::atomic<pid_t>  thread{0};
    int                 error = 0;
    std::optional<dev::control_guard> guard(std::in_place); // the device takes no command: a destroy stops where it would look at the queue's users
    std::thread         other([&] {
        thread = gettid();
        error  = client.destroy_cq(cq);
    });
    while (thread == 0 || !sleeps(thread)) {
        std::this_thread::yield();
    }
    EXPECT_NE(nullptr, object_find(cq, user));
    guard.reset();
    other.join();
    EXPECT_EQ(EBUSY, error);
    EXPECT_NE(nullptr, object_find(cq, user));
    EXPECT_EQ(0, client.destroy_qp(qp));
    EXPECT_EQ(0, client.destroy_cq(cq));
    EXPECT_EQ(0, client.dealloc_pd(pd));
}

TEST_F(uverbs_objects, handle_of_another_file_is_enoent)
{
    uverbs_client       other;
    const std::uint32_t pd = client.alloc_pd();
    EXPECT_EQ(ENOENT, other.dealloc_pd(pd));
    static char   memory[64];
    std::uint32_t mr = 0;
    EXPECT_EQ(EINVAL, other.reg_mr(pd, memory, sizeof(memory), 1, &mr));
    EXPECT_EQ(0, client.dealloc_pd(pd));
}

TEST_F(uverbs_objects, close_destroys_what_is_left)
{
    for (int i = 0; i < 100; ++i) {
        uverbs_client leaky;
        for (int k = 0; k < 10; ++k) {
            ASSERT_NE(0u, leaky.alloc_pd());
        }
    }
    EXPECT_NE(0u, client.alloc_pd());
}

TEST_F(uverbs_objects, reg_mr_checks_range_and_access)
{
    const std::uint32_t pd = client.alloc_pd();
    alignas(4096) static char memory[8192];
    std::uint32_t             mr = 0;
    EXPECT_EQ(0, client.reg_mr(pd, memory + 5, 100, 1, &mr));
    EXPECT_EQ(0, client.dereg_mr(mr));
    EXPECT_EQ(0, client.reg_mr(pd, memory, sizeof(memory), 7 | 1u << 20, &mr)) << "optional access is dropped";
    EXPECT_EQ(0, client.dereg_mr(mr));
    EXPECT_EQ(EINVAL, client.reg_mr(pd, memory, 0, 1, &mr));
    EXPECT_EQ(EINVAL, client.reg_mr(pd, memory, UINT64_MAX, 1, &mr));
    EXPECT_EQ(EINVAL, client.reg_mr(pd, memory, 64, 2, &mr)) << "remote write without local write";
    EXPECT_EQ(EINVAL, client.reg_mr(pd, memory, 64, 8, &mr)) << "atomic without local write";
    EXPECT_EQ(EOPNOTSUPP, client.reg_mr(pd, memory, 64, 9, &mr)) << "atomic";
    EXPECT_EQ(EOPNOTSUPP, client.reg_mr(pd, memory, 64, 1 | 1u << 6, &mr)) << "on demand paging";
    EXPECT_EQ(EINVAL, client.reg_mr(pd + 1, memory, 64, 1, &mr));
    void *hole = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(hole, 4096);
    EXPECT_EQ(EFAULT, client.reg_mr(pd, hole, 4096, 1, &mr));
    EXPECT_EQ(0, client.dealloc_pd(pd));
}

TEST_F(uverbs_objects, dealloc_pd_in_use_is_ebusy_and_changes_nothing)
{
    static char         memory[64];
    const std::uint32_t pd = client.alloc_pd();
    std::uint32_t       mr = 0;
    ASSERT_EQ(0, client.reg_mr(pd, memory, sizeof(memory), 1, &mr));
    EXPECT_EQ(EBUSY, client.dealloc_pd(pd));
    EXPECT_EQ(0, client.dereg_mr(mr));
    EXPECT_EQ(0, client.dealloc_pd(pd));
}

TEST_F(uverbs_objects, create_cq_checks_every_field)
{
    using ask = uverbs_client::cq_ask;
    std::uint32_t cq = 0;
    const auto    create = [&](auto spoil) {
        ask a;
        spoil(a);
        const int error = client.create_cq(a, &cq);
        if (error == 0) {
            EXPECT_EQ(0, client.destroy_cq(cq));
        }
        return error;
    };
    EXPECT_EQ(0, create([](ask &) {}));
    EXPECT_EQ(0, create([](ask &a) { a.cqe = 32768; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.cqe = 0; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.cqe = 65536; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.cqe = 17; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.comp_vector = 1; }));
    EXPECT_EQ(EOPNOTSUPP, create([](ask &a) { a.flags = 1; }));
    EXPECT_EQ(0, create([](ask &a) { a.efa.cq_entry_size = 16; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.efa.cq_entry_size = 64; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.efa.cq_entry_size = 16, a.efa.flags = EFA_CREATE_CQ_WITH_SGID; }));
    EXPECT_EQ(0, create([](ask &a) { a.efa.flags = EFA_CREATE_CQ_WITH_SGID; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.efa.flags = 0x80; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.efa.num_sub_cqs = 2; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.efa.comp_mask = 1; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.efa.reserved_58[4] = 1; }));
}

TEST_F(uverbs_objects, create_cq_with_a_foreign_fd_as_channel_is_ebadf)
{
    std::uint32_t         cq = 0;
    uverbs_client::cq_ask ask;
    ask.channel_fd = client.fd();
    EXPECT_EQ(EBADF, client.create_cq(ask, &cq));
    ask.channel_fd = 9999;
    EXPECT_EQ(EBADF, client.create_cq(ask, &cq));
    int pipe_fds[2];
    ASSERT_EQ(0, pipe(pipe_fds));
    ask.channel_fd = pipe_fds[0];
    EXPECT_EQ(EBADF, client.create_cq(ask, &cq));
    uverbs_client other;
    int           channel = other.create_channel();
    ask.channel_fd        = channel;
    EXPECT_EQ(EBADF, client.create_cq(ask, &cq)) << "channel of another file";
    uverbs_client::close_fd(&channel);
    ::close(pipe_fds[0]);
    ::close(pipe_fds[1]);
}

TEST_F(uverbs_objects, create_qp_checks_every_field)
{
    using ask = uverbs_client::qp_ask;
    const std::uint32_t pd = client.alloc_pd();
    const std::uint32_t cq = new_cq();
    std::uint32_t       qp = 0;
    const auto          create = [&](auto spoil) {
        ask a;
        a.pd      = pd;
        a.send_cq = cq;
        a.recv_cq = cq;
        spoil(a);
        const int error = client.create_qp(a, &qp);
        if (error == 0) {
            EXPECT_EQ(EBUSY, client.destroy_cq(cq)) << "in use";
            EXPECT_EQ(0, client.destroy_qp(qp));
        }
        return error;
    };
    EXPECT_EQ(0, create([](ask &) {}));
    EXPECT_EQ(0, create([](ask &a) { a.flags = IB_UVERBS_QP_CREATE_SQ_SIG_ALL; }));
    EXPECT_EQ(EOPNOTSUPP, create([](ask &a) { a.flags = 1; }));
    EXPECT_EQ(EOPNOTSUPP, create([](ask &a) { a.type = 2; })) << "RC";
    EXPECT_EQ(EOPNOTSUPP, create([](ask &a) { a.efa.driver_qp_type = 1; }));
    EXPECT_EQ(EOPNOTSUPP, create([](ask &a) { a.efa.flags = 2; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.efa.comp_mask = 1; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.efa.reserved_98[0] = 1; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.cap.max_send_wr = 8192, a.efa.sq_ring_size = 8192 * 64; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.cap.max_recv_wr = 65536, a.efa.rq_ring_size = 65536 * 16; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.cap.max_send_sge = 3; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.cap.max_recv_sge = 4; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.cap.max_inline_data = 33; }));
    EXPECT_EQ(EINVAL, create([](ask &a) { a.efa.sq_ring_size = 4096 * 64 + 64; }));
    EXPECT_EQ(ENOENT, create([](ask &a) { a.pd = 0; }));
    EXPECT_EQ(EINVAL, create([&](ask &a) { a.send_cq = pd; })) << "a PD where a CQ belongs";
    EXPECT_EQ(0, client.destroy_cq(cq));
    EXPECT_EQ(0, client.dealloc_pd(pd));
}

TEST_F(uverbs_objects, modify_and_query_qp_keep_to_the_driver_s_rules)
{
    const std::uint32_t   pd = client.alloc_pd();
    const std::uint32_t   cq = new_cq();
    uverbs_client::qp_ask create;
    create.pd = pd, create.send_cq = cq, create.recv_cq = cq;
    std::uint32_t qp = 0;
    ASSERT_EQ(0, client.create_qp(create, &qp));

    ib_uverbs_modify_qp ask{};
    ask.qp_handle = qp;
    const auto modify = [&](std::uint32_t mask, std::uint8_t state) {
        ask.attr_mask = mask;
        ask.qp_state  = state;
        return client.write_command(IB_USER_VERBS_CMD_MODIFY_QP, ask);
    };
    ask.port_num = 1;
    ask.qkey     = 0x1234;
    ask.sq_psn   = 0x55;
    EXPECT_EQ(EOPNOTSUPP, modify(0x1 | 0x8, 1)) << "an attribute that EFA has not";
    EXPECT_EQ(EINVAL, modify(0x1, 9)) << "no such state";
    EXPECT_EQ(EINVAL, modify(0x1, 1)) << "INIT needs pkey, port and qkey";
    EXPECT_EQ(EINVAL, modify(0x71, 2)) << "RESET to RTR";
    ask.port_num = 2;
    EXPECT_EQ(EOPNOTSUPP, modify(0x71, 1));
    ask.port_num   = 1;
    ask.pkey_index = 1;
    EXPECT_EQ(EOPNOTSUPP, modify(0x71, 1));
    ask.pkey_index = 0;
    EXPECT_EQ(0, modify(0x71, 1));
    EXPECT_EQ(0, modify(0x1, 2));
    EXPECT_EQ(EINVAL, modify(0x1, 3)) << "RTS needs the psn";
    EXPECT_EQ(0, modify(0x10001, 3));
    ask.qp_handle = pd;
    EXPECT_EQ(EINVAL, modify(0x1, 0));

    ib_uverbs_query_qp      query{};
    ib_uverbs_query_qp_resp reply{};
    query.qp_handle = qp;
    query.attr_mask = 0x8;
    EXPECT_EQ(EOPNOTSUPP, client.write_command(IB_USER_VERBS_CMD_QUERY_QP, query, &reply));
    query.attr_mask = 0x10041;
    EXPECT_EQ(0, client.write_command(IB_USER_VERBS_CMD_QUERY_QP, query, &reply));
    EXPECT_EQ(3, reply.qp_state);
    EXPECT_EQ(0x1234u, reply.qkey);
    EXPECT_EQ(0x55u, reply.sq_psn);
    EXPECT_EQ(16u, reply.max_send_wr);
    query.qp_handle = 0;
    EXPECT_EQ(EINVAL, client.write_command(IB_USER_VERBS_CMD_QUERY_QP, query, &reply));
    EXPECT_EQ(0, client.destroy_qp(qp));
    EXPECT_EQ(EINVAL, modify(0x1, 0)) << "destroyed";
}

TEST_F(uverbs_objects, gid_queries_have_one_entry)
{
    ib_uverbs_gid_entry entry{};
    const auto          query = [&](std::uint64_t port, std::uint64_t index) {
        return uverbs_command(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_GID_ENTRY)
            .in(0, port).in(1, index).in(2, std::uint32_t{0}).out(3, &entry).send(client.fd());
    };
    EXPECT_EQ(0, query(1, 0));
    EXPECT_EQ(0xfe, reinterpret_cast<const std::uint8_t *>(entry.gid)[0]);
    EXPECT_EQ(EINVAL, query(1, 1));
    EXPECT_EQ(EINVAL, query(2, 0));

    std::uint64_t count = 0;
    const auto    table = [&](std::uint16_t size) {
        return uverbs_command(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_GID_TABLE)
            .in(0, std::uint64_t{32}).in(1, std::uint32_t{0})
            .raw(2, size, reinterpret_cast<std::uint64_t>(&entry)).out(3, &count).send(client.fd());
    };
    EXPECT_EQ(0, table(32));
    EXPECT_EQ(1u, count);
    EXPECT_EQ(EINVAL, table(16));
}

TEST_F(uverbs_objects, reg_dmabuf_and_memory_of_the_caller_are_eopnotsupp)
{
    const std::uint32_t pd = client.alloc_pd();
    std::uint32_t       keys[2];
    EXPECT_EQ(EOPNOTSUPP, uverbs_command(UVERBS_OBJECT_MR, UVERBS_METHOD_REG_DMABUF_MR)
                              .handle(0, 0).handle(1, pd)
                              .in(2, std::uint64_t{0}).in(3, std::uint64_t{4096}).in(4, std::uint64_t{0})
                              .in(5, std::uint32_t{3}).in(6, std::uint32_t{1}).out(7, &keys[0]).out(8, &keys[1])
                              .send(client.fd()));
}

} // namespace
} // namespace softefa::uverbs
