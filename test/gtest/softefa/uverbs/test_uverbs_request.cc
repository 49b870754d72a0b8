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
