// Refused commands are counted once each, by what they would have made: the one counter of its kind, and no other.
#include "uverbs_client.h"

#include "softefa/dev/counters.h"
#include "softefa/dev/engine_state.h"

#include <infiniband/verbs.h>
#include <string>

namespace softefa::uverbs {
namespace {

/// Counters of commands, as "name+1 name+2".
std::string growth(const dev::device_counters &before, const dev::device_counters &after)
{
    std::string text;
    const auto  more = [&](const char *name, std::uint64_t by) {
        if (by != 0) {
            text += (text.empty() ? "" : " ") + std::string(name) + "+" + std::to_string(by);
        }
    };
    more("commands", after.commands - before.commands);
    more("command_errors", after.command_errors - before.command_errors);
    more("context_errors", after.context_errors - before.context_errors);
    more("pd_errors", after.pd_errors - before.pd_errors);
    more("mr_errors", after.mr_errors - before.mr_errors);
    more("ah_errors", after.ah_errors - before.ah_errors);
    more("cq_errors", after.cq_errors - before.cq_errors);
    more("qp_errors", after.qp_errors - before.qp_errors);
    return text;
}

dev::device_counters counted()
{
    const dev::engine_guard guard;
    return *dev::device_counters_get(0);
}

TEST(uverbs_counters, refused_command_is_counted_once_and_by_its_kind)
{
    uverbs_client       client;
    const std::uint32_t pd = client.alloc_pd();
    std::uint32_t       made = 0;
    const auto          expect = [](const char *grows, int error, auto &&command) {
        const dev::device_counters before = counted();
        EXPECT_EQ(error, command()) << grows;
        EXPECT_EQ(grows, growth(before, counted()));
    };
    expect("commands+1", 0, [&] {
        const std::uint32_t one = client.alloc_pd();
        return one == 0 ? -1 : 0;
    });
    expect("commands+1 command_errors+1 context_errors+1", EINVAL, [&] { return client.get_context(); }); // it has one
    expect("commands+1 command_errors+1 mr_errors+1", EFAULT, [&] { return client.reg_mr(pd, reinterpret_cast<void *>(4096), 4096, IBV_ACCESS_LOCAL_WRITE, &made); });
    expect("commands+1 command_errors+1 cq_errors+1", EINVAL, [&] {
        uverbs_client::cq_ask ask;
        ask.cqe = 3;
        return client.create_cq(ask, &made);
    });
    std::uint32_t cq = 0;
    ASSERT_EQ(0, client.create_cq({}, &cq));
    expect("commands+1 command_errors+1 qp_errors+1", EINVAL, [&] {
        uverbs_client::qp_ask ask;
        ask.pd      = pd;
        ask.send_cq = ask.recv_cq = cq;
        ask.cap.max_send_wr = 65536;
        return client.create_qp(ask, &made);
    });
    expect("commands+1 command_errors+1 ah_errors+1", EINVAL, [&] {
        ib_uverbs_create_ah      ask{};
        ib_uverbs_create_ah_resp reply{};
        ask.pd_handle      = 0xffffffff;
        ask.attr.port_num  = 1;
        ask.attr.is_global = 1;
        return client.write_command(IB_USER_VERBS_CMD_CREATE_AH, ask, &reply);
    });
    std::vector<std::uint32_t> pds;
    for (std::uint32_t one = 0;;) { // until there are no more
        const std::uint64_t        response = 0;
        const dev::device_counters before   = counted();
        const int                  error    = client.write_command(IB_USER_VERBS_CMD_ALLOC_PD, response, &one);
        if (error != 0) {
            EXPECT_EQ("commands+1 command_errors+1 pd_errors+1", growth(before, counted()));
            break;
        }
        ASSERT_LE(pds.size(), 5000u);
        pds.push_back(one);
    }
    for (const std::uint32_t one : pds) {
        EXPECT_EQ(0, client.dealloc_pd(one));
    }
    expect("commands+1 command_errors+1", ENOENT, [&] { return client.dealloc_pd(0xffffffff); }); // it makes nothing
}

} // namespace
} // namespace softefa::uverbs
