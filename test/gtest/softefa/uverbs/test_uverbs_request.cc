// The grammar of commands: whatever is malformed gets the kernel's errno, and never a signal.
#include "uverbs_client.h"

#include <sys/mman.h>

namespace softefa::uverbs {
namespace {

constexpr std::uint64_t bad_address = 0x10;

struct uverbs_request : ::testing::Test {
    uverbs_client client;
    uverbs_command query_port() { return uverbs_command(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_PORT); }
};

TEST_F(uverbs_request, load_bad_header_address_is_efault)
{
    int error = 0;
    EXPECT_TRUE(file_ioctl(client.fd(), nullptr, &error));
    EXPECT_EQ(EFAULT, error);
    EXPECT_TRUE(file_ioctl(client.fd(), reinterpret_cast<void *>(bad_address), &error));
    EXPECT_EQ(EFAULT, error);
}

TEST_F(uverbs_request, load_attributes_beyond_mapped_memory_is_efault)
{
    auto *page = static_cast<std::uint8_t *>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(MAP_FAILED, static_cast<void *>(page));
    ASSERT_EQ(0, mprotect(page + 4096, 4096, PROT_NONE));
    ib_uverbs_ioctl_hdr header{};
    header.object_id = UVERBS_OBJECT_DEVICE;
    header.method_id = UVERBS_METHOD_QUERY_PORT;
    header.driver_id = RDMA_DRIVER_EFA;
    header.num_attrs = 4;
    header.length    = sizeof(header) + 4 * sizeof(ib_uverbs_attr);
    void *at         = page + 4096 - sizeof(header);
    memcpy(at, &header, sizeof(header));
    int error = 0;
    EXPECT_TRUE(file_ioctl(client.fd(), at, &error));
    EXPECT_EQ(EFAULT, error);
    munmap(page, 8192);
}

TEST_F(uverbs_request, load_wrong_lengths_are_einval)
{
    auto shorter = query_port();
    shorter.header().length = 24;
    shorter.header().num_attrs = 1;
    EXPECT_EQ(EINVAL, shorter.send(client.fd()));
    auto huge = query_port();
    huge.header().length    = 0xffff;
    huge.header().num_attrs = 0xfff;
    EXPECT_EQ(EINVAL, huge.send(client.fd()));
}

TEST_F(uverbs_request, load_reserved_or_foreign_driver_is_refused)
{
    auto reserved = query_port();
    reserved.header().reserved1 = 1;
    EXPECT_EQ(EPROTONOSUPPORT, reserved.send(client.fd()));
    auto foreign = query_port();
    foreign.header().driver_id = RDMA_DRIVER_MLX5;
    EXPECT_EQ(EINVAL, foreign.send(client.fd()));
}

TEST_F(uverbs_request, load_unknown_object_or_method_is_eprotonosupport)
{
    EXPECT_EQ(EPROTONOSUPPORT, uverbs_command(UVERBS_OBJECT_DEVICE, 99).send(client.fd()));
    EXPECT_EQ(EPROTONOSUPPORT, uverbs_command(UVERBS_OBJECT_SRQ, 0).send(client.fd()));
    EXPECT_EQ(EPROTONOSUPPORT, uverbs_command(0xffff, 0xffff).send(client.fd()));
}

TEST_F(uverbs_request, load_unknown_attribute_is_refused_only_if_mandatory)
{
    abi::query_port_resp reply;
    EXPECT_EQ(EPROTONOSUPPORT, query_port().in(0, std::uint64_t{1}).out(1, &reply).raw(77, 8, 0).send(client.fd()));
    EXPECT_EQ(0, query_port().in(0, std::uint64_t{1}).out(1, &reply).raw(77, 8, 0, 0).send(client.fd()));
}

TEST_F(uverbs_request, load_attribute_twice_missing_or_with_strange_flags_is_einval)
{
    abi::query_port_resp reply;
    EXPECT_EQ(EINVAL, query_port().in(0, std::uint64_t{1}).in(0, std::uint64_t{1}).out(1, &reply).send(client.fd()));
    EXPECT_EQ(EINVAL, query_port().out(1, &reply).send(client.fd()));
    EXPECT_EQ(EINVAL, query_port().in(0, std::uint64_t{1}).send(client.fd()));
    EXPECT_EQ(EINVAL, query_port().raw(0, 8, 1, 0x80).out(1, &reply).send(client.fd()));
}

TEST_F(uverbs_request, load_attribute_of_wrong_size_is_einval)
{
    abi::query_port_resp reply;
    EXPECT_EQ(EINVAL, query_port().raw(0, 0, 1).out(1, &reply).send(client.fd()));
    EXPECT_EQ(EINVAL, query_port().in(0, std::uint64_t{1}).raw(1, 4, reinterpret_cast<std::uint64_t>(&reply)).send(client.fd()));
    EXPECT_EQ(EINVAL, uverbs_command(UVERBS_OBJECT_PD, UVERBS_METHOD_PD_DESTROY).raw(0, 4, 1).send(client.fd()));
}

TEST_F(uverbs_request, write_fills_what_fits_and_zeroes_the_rest)
{
    std::uint8_t room[80];
    memset(room, 0xee, sizeof(room));
    auto command = query_port();
    ASSERT_EQ(0, command.in(0, std::uint64_t{1}).raw(1, 72, reinterpret_cast<std::uint64_t>(room)).send(client.fd()));
    EXPECT_EQ(4, room[26]) << "port state";
    for (int i = 48; i < 72; ++i) {
        EXPECT_EQ(0, room[i]) << i;
    }
    EXPECT_EQ(0xee, room[72]) << "one byte too many";
    EXPECT_NE(0, command.attr(1).flags & UVERBS_ATTR_F_VALID_OUTPUT);
}

TEST_F(uverbs_request, write_to_bad_address_is_efault_and_leaves_nothing)
{
    EXPECT_EQ(EFAULT, query_port().in(0, std::uint64_t{1}).raw(1, 48, bad_address).send(client.fd()));
    // More often than there are PDs: a failed answer must give its object back.
    const std::uint64_t response = 0;
    for (int i = 0; i < 600; ++i) {
        ASSERT_EQ(EFAULT, uverbs_command(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE)
                              .in(UVERBS_ATTR_WRITE_CMD, std::uint64_t{IB_USER_VERBS_CMD_ALLOC_PD})
                              .in(UVERBS_ATTR_CORE_IN, response)
                              .raw(UVERBS_ATTR_CORE_OUT, 4, bad_address)
                              .send(client.fd()));
    }
    EXPECT_NE(0u, client.alloc_pd());
}

TEST_F(uverbs_request, read_bad_input_address_is_efault)
{
    EXPECT_EQ(EFAULT, uverbs_command(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE)
                          .in(UVERBS_ATTR_WRITE_CMD, std::uint64_t{IB_USER_VERBS_CMD_MODIFY_QP})
                          .raw(UVERBS_ATTR_CORE_IN, sizeof(ib_uverbs_modify_qp), bad_address)
                          .send(client.fd()));
}

TEST_F(uverbs_request, input_longer_than_known_must_be_zero_behind)
{
    struct {
        efa_ibv_create_cq known{0, 32, 1, 0, {}};
        std::uint64_t     unknown = 0;
    } longer;
    std::uint32_t cqe   = 0;
    std::uint64_t reply[5];
    const auto    create = [&] {
        return uverbs_command(UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_CREATE)
            .handle(UVERBS_ATTR_CREATE_CQ_HANDLE, 0)
            .in(UVERBS_ATTR_CREATE_CQ_CQE, std::uint32_t{16})
            .in(UVERBS_ATTR_CREATE_CQ_USER_HANDLE, std::uint64_t{0})
            .in(UVERBS_ATTR_CREATE_CQ_COMP_VECTOR, std::uint32_t{0})
            .out(UVERBS_ATTR_CREATE_CQ_RESP_CQE, &cqe)
            .in(UVERBS_ATTR_UHW_IN, longer)
            .out(UVERBS_ATTR_UHW_OUT, &reply)
            .send(client.fd());
    };
    EXPECT_EQ(0, create());
    longer.unknown = 1;
    EXPECT_EQ(EOPNOTSUPP, create());
}

TEST_F(uverbs_request, invoke_write_probe_is_enospc_and_unknown_is_eopnotsupp)
{
    const auto probe = [&](std::uint64_t command) {
        return uverbs_command(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE).in(UVERBS_ATTR_WRITE_CMD, command).send(client.fd());
    };
    EXPECT_EQ(ENOSPC, probe(IB_USER_VERBS_CMD_QUERY_DEVICE));
    EXPECT_EQ(EOPNOTSUPP, probe(IB_USER_VERBS_CMD_CREATE_SRQ));
    EXPECT_EQ(EOPNOTSUPP, probe(0x12345678));
    const std::uint64_t in  = 0;
    std::uint8_t        out[100];
    EXPECT_EQ(ENOSPC, client.write_command(IB_USER_VERBS_CMD_QUERY_DEVICE, in, &out));
}

// docs/device-abi.md, section 2, "Every method of the kernel's interface by number". What is supported is here, too: without its attributes it is
// refused in another way.
struct method_row {
    std::uint16_t object, first, last; ///< methods from first to last
    bool          refused;
};
constexpr std::uint16_t all = 15; ///< no object has more methods than that but those of drivers
constexpr method_row method_rows[] = {
    {0, 0, 0, false},          {0, 1, 1, true}, {0, 2, 3, false}, {0, 4, 4, true}, {0, 5, 7, false}, {0, 8, all, true}, // device
    {1, 0, 0, false},          {1, 1, all, true}, // PD
    {2, 0, all, true},         // completion channel
    {3, 0, 1, false},          {3, 2, all, true}, // CQ
    {4, 0, 1, false},          {4, 2, all, true}, // QP
    {5, 0, all, true},         // SRQ
    {6, 0, 0, false},          {6, 1, all, true}, // AH
    {7, 0, 0, true},           {7, 1, 1, false}, {7, 2, 3, true}, {7, 4, 4, false}, {7, 5, all, true}, // MR
    {7, 0x1000, 0x1000, false}, {7, 0x1001, 0x1001, true},
    {8, 0, all, true},         {9, 0, all, true}, {10, 0, all, true}, {11, 0, all, true}, {12, 0, all, true}, // MW to WQ
    {13, 0, all, true},        {14, 0, all, true}, {15, 0, all, true}, // flow actions, device memory, counters
    {16, 0, 0, false},         {16, 1, all, true}, // async event
    {17, 0, all, true},        {18, 0, all, true}, {19, 0, all, true}, {20, 0, all, true}, // DMAH, DMABUF, COMP_CNTR; nobody yet
};

TEST_F(uverbs_request, methods_that_the_page_lists_as_refused_are_eprotonosupport)
{
    unsigned refused = 0, supported = 0;
    for (const method_row &row : method_rows) {
        for (unsigned method = row.first; method <= row.last; ++method) {
            SCOPED_TRACE(testing::Message() << "object " << row.object << " method " << method);
            std::uint64_t  room = 0;
            uverbs_command bare(row.object, static_cast<std::uint16_t>(method)), full(row.object, static_cast<std::uint16_t>(method));
            full.in(0, std::uint64_t{1}).out(1, &room);
            if (row.refused) {
                EXPECT_EQ(EPROTONOSUPPORT, bare.send(client.fd()));
                EXPECT_EQ(EPROTONOSUPPORT, full.send(client.fd()));
                EXPECT_EQ(0u, room);
                ++refused;
            } else {
                EXPECT_EQ(EINVAL, bare.send(client.fd()));
                ++supported;
            }
        }
    }
    EXPECT_EQ(16u, supported) << "as many as the page has";
    EXPECT_GT(refused, 200u);
    EXPECT_NE(0u, client.alloc_pd());
}

// The same section, "write command".
struct write_row {
    std::uint32_t command; ///< of the kernel's header
    std::uint32_t number;  ///< of the page
    bool          refused;
};
constexpr std::uint32_t extended    = IB_USER_VERBS_CMD_FLAG_EXTENDED;
constexpr write_row     write_rows[] = {
    {IB_USER_VERBS_CMD_GET_CONTEXT, 0, true},
    {IB_USER_VERBS_CMD_QUERY_DEVICE, 1, false},
    {IB_USER_VERBS_EX_CMD_QUERY_DEVICE | extended, 1 | extended, false},
    {IB_USER_VERBS_CMD_QUERY_PORT, 2, true},
    {IB_USER_VERBS_CMD_ALLOC_PD, 3, false},
    {IB_USER_VERBS_CMD_DEALLOC_PD, 4, true},
    {IB_USER_VERBS_CMD_CREATE_AH, 5, false},
    {IB_USER_VERBS_CMD_MODIFY_AH, 6, true},
    {IB_USER_VERBS_CMD_QUERY_AH, 7, true},
    {IB_USER_VERBS_CMD_DESTROY_AH, 8, true},
    {IB_USER_VERBS_CMD_REG_MR, 9, false},
    {IB_USER_VERBS_CMD_REG_SMR, 10, true},
    {IB_USER_VERBS_CMD_REREG_MR, 11, true},
    {IB_USER_VERBS_CMD_QUERY_MR, 12, true},
    {IB_USER_VERBS_CMD_DEREG_MR, 13, true},
    {IB_USER_VERBS_CMD_ALLOC_MW, 14, true},
    {IB_USER_VERBS_CMD_BIND_MW, 15, true},
    {IB_USER_VERBS_CMD_DEALLOC_MW, 16, true},
    {IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL, 17, false},
    {IB_USER_VERBS_CMD_CREATE_CQ, 18, true},
    {IB_USER_VERBS_EX_CMD_CREATE_CQ | extended, 18 | extended, true},
    {IB_USER_VERBS_CMD_RESIZE_CQ, 19, true},
    {IB_USER_VERBS_CMD_DESTROY_CQ, 20, true},
    {IB_USER_VERBS_CMD_POLL_CQ, 21, true},
    {IB_USER_VERBS_CMD_PEEK_CQ, 22, true},
    {IB_USER_VERBS_CMD_REQ_NOTIFY_CQ, 23, true},
    {IB_USER_VERBS_CMD_CREATE_QP, 24, true},
    {IB_USER_VERBS_EX_CMD_CREATE_QP | extended, 24 | extended, true},
    {IB_USER_VERBS_CMD_QUERY_QP, 25, false},
    {IB_USER_VERBS_CMD_MODIFY_QP, 26, false},
    {IB_USER_VERBS_CMD_DESTROY_QP, 27, true},
    {IB_USER_VERBS_CMD_POST_SEND, 28, true},
    {IB_USER_VERBS_CMD_POST_RECV, 29, true},
    {IB_USER_VERBS_CMD_ATTACH_MCAST, 30, true},
    {IB_USER_VERBS_CMD_DETACH_MCAST, 31, true},
    {IB_USER_VERBS_CMD_CREATE_SRQ, 32, true},
    {IB_USER_VERBS_CMD_MODIFY_SRQ, 33, true},
    {IB_USER_VERBS_CMD_QUERY_SRQ, 34, true},
    {IB_USER_VERBS_CMD_DESTROY_SRQ, 35, true},
    {IB_USER_VERBS_CMD_POST_SRQ_RECV, 36, true},
    {IB_USER_VERBS_CMD_OPEN_XRCD, 37, true},
    {IB_USER_VERBS_CMD_CLOSE_XRCD, 38, true},
    {IB_USER_VERBS_CMD_CREATE_XSRQ, 39, true},
    {IB_USER_VERBS_CMD_OPEN_QP, 40, true},
    {IB_USER_VERBS_EX_CMD_MODIFY_QP | extended, 26 | extended, true},
    {IB_USER_VERBS_EX_CMD_CREATE_FLOW | extended, 50 | extended, true},
    {IB_USER_VERBS_EX_CMD_DESTROY_FLOW | extended, 51 | extended, true},
    {IB_USER_VERBS_EX_CMD_CREATE_WQ | extended, 52 | extended, true},
    {IB_USER_VERBS_EX_CMD_MODIFY_WQ | extended, 53 | extended, true},
    {IB_USER_VERBS_EX_CMD_DESTROY_WQ | extended, 54 | extended, true},
    {IB_USER_VERBS_EX_CMD_CREATE_RWQ_IND_TBL | extended, 55 | extended, true},
    {IB_USER_VERBS_EX_CMD_DESTROY_RWQ_IND_TBL | extended, 56 | extended, true},
    {IB_USER_VERBS_EX_CMD_MODIFY_CQ | extended, 57 | extended, true},
};

TEST_F(uverbs_request, write_commands_that_the_page_lists_as_refused_are_eopnotsupp)
{
    for (const write_row &row : write_rows) {
        SCOPED_TRACE(testing::Message() << "write command " << row.number);
        EXPECT_EQ(row.number, row.command);
        const int probed = uverbs_command(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE)
                               .in(UVERBS_ATTR_WRITE_CMD, std::uint64_t{row.command})
                               .send(client.fd());
        EXPECT_EQ(row.refused ? EOPNOTSUPP : ENOSPC, probed);
        if (row.refused) {
            const std::uint8_t in[256] = {};
            std::uint8_t       out[256] = {};
            EXPECT_EQ(EOPNOTSUPP, client.write_command(row.command, in, &out)) << "with room for any";
            EXPECT_TRUE(std::all_of(std::begin(out), std::end(out), [](std::uint8_t byte) { return byte == 0; }));
        }
    }
    EXPECT_NE(0u, client.alloc_pd());
}

TEST(uverbs_request_open, commands_before_get_context_are_einval)
{
    uverbs_client        client(false);
    abi::query_port_resp reply;
    EXPECT_EQ(EINVAL, uverbs_command(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_PORT).in(0, std::uint64_t{1}).out(1, &reply).send(client.fd()));
    const std::uint64_t in = 0;
    std::uint32_t       pd = 0;
    EXPECT_EQ(EINVAL, client.write_command(IB_USER_VERBS_CMD_ALLOC_PD, in, &pd));
    abi::alloc_ucontext_resp context;
    EXPECT_EQ(0, client.get_context(&context));
    EXPECT_EQ(3u, context.cmds_supp_udata_mask);
    EXPECT_EQ(1u, context.sub_cqs_per_cq);
    EXPECT_EQ(EINVAL, client.get_context()) << "a second context";
}

} // namespace
} // namespace softefa::uverbs
