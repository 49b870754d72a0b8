// Each call of libc behind each kernel command fails once: the command says so and has changed nothing, and the same command then works.
#include "shortage.h"

#include "softefa/uverbs/uverbs_client.h"

#include "softefa/dev/configure.h"
#include "softefa/dev/objects.h"
#include "softefa/preload/registry.h"

#include <array>
#include <dirent.h>
#include <fcntl.h>
#include <functional>
#include <set>
#include <sys/resource.h>
#include <sys/stat.h>

namespace softefa::uverbs {
namespace {

/// Number -> what it is.
using fd_set_of_process = std::set<std::pair<int, std::uint64_t>>;

fd_set_of_process open_fds()
{
    fd_set_of_process fds;
    DIR              *folder = opendir("/proc/self/fd");
    while (const dirent *entry = readdir(folder)) {
        const int   fd = atoi(entry->d_name);
        struct stat about {};
        if (entry->d_name[0] != '.' && fd != dirfd(folder) && fstat(fd, &about) == 0) {
            fds.emplace(fd, about.st_ino);
        }
    }
    closedir(folder);
    return fds;
}

using counts = std::array<unsigned, 6>;
counts objects_now()
{
    const dev::process_objects &o = dev::objects();
    return {o.contexts.count(), o.pds.count(), o.mrs.count(), o.ahs.count(), o.cqs.count(), o.qps.count()};
}

/// What the command under test works on, and what it made.
struct bench {
    uverbs_client client{false};
    std::uint32_t pd = 0, cq = 0, qp = 0, made = 0;
    int           fd = -1;

    void with_context() { ASSERT_EQ(0, client.get_context()); }
    void with_pd()
    {
        with_context();
        pd = client.alloc_pd();
    }
    void with_cq()
    {
        with_pd();
        ASSERT_EQ(0, client.create_cq({}, &cq));
    }
    void with_qp()
    {
        with_cq();
        ASSERT_EQ(0, create_qp(&qp));
        ASSERT_EQ(0, modify(1, 0x71));
    }
    int create_qp(std::uint32_t *qp_p)
    {
        uverbs_client::qp_ask ask;
        ask.pd = pd;
        ask.send_cq = ask.recv_cq = cq;
        return client.create_qp(ask, qp_p);
    }
    int modify(std::uint8_t state, std::uint32_t mask)
    {
        ib_uverbs_modify_qp m{};
        m.qp_handle = qp;
        m.attr_mask = mask;
        m.qp_state  = state;
        m.port_num  = 1;
        return client.write_command(IB_USER_VERBS_CMD_MODIFY_QP, m);
    }
    int create_ah()
    {
        ib_uverbs_create_ah ask{};
        const dev::gid      own = dev::device_gid(0);
        ask.pd_handle      = pd;
        ask.attr.is_global = 1;
        ask.attr.port_num  = 1;
        memcpy(ask.attr.grh.dgid, own.data(), own.size());
        return client.write_command(IB_USER_VERBS_CMD_CREATE_AH, ask, &made);
    }
    int create_channel()
    {
        std::uint32_t       reply = 0;
        const std::uint64_t response = 0;
        const int           error = client.write_command(IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL, response, &reply);
        fd = error == 0 ? static_cast<int>(reply) : -1;
        return error;
    }
    int alloc_async()
    {
        uverbs_command c(UVERBS_OBJECT_ASYNC_EVENT, abi::method_async_alloc);
        const int      error = c.handle(abi::attr_alloc_async_fd, 0).send(client.fd());
        fd = error == 0 ? static_cast<int>(c.attr(abi::attr_alloc_async_fd).data) : -1;
        return error;
    }
    ~bench() { uverbs_client::close_fd(&fd); }
};

struct command_case {
    const char *name;
    unsigned    calls_min; ///< calls that can fail; 0 where all memory is there already
    void (bench::*prepare)();
    std::function<int(bench &)> run;
};

std::vector<std::uint8_t> memory(1 << 20);

const command_case commands[] = {
    {"get_context", 10, nullptr, [](bench &b) { return b.client.get_context(); }},
    {"alloc_pd", 0, &bench::with_context,
     [](bench &b) {
         const std::uint64_t response = 0;
         return b.client.write_command(IB_USER_VERBS_CMD_ALLOC_PD, response, &b.pd);
     }},
    {"reg_mr", 1, &bench::with_pd, [](bench &b) { return b.client.reg_mr(b.pd, memory.data(), memory.size(), 1, &b.made); }},
    {"create_ah", 0, &bench::with_pd, [](bench &b) { return b.create_ah(); }},
    {"create_channel", 3, &bench::with_context, [](bench &b) { return b.create_channel(); }},
    {"alloc_async", 3, &bench::with_context, [](bench &b) { return b.alloc_async(); }},
    {"create_cq", 2, &bench::with_pd, [](bench &b) { return b.client.create_cq({}, &b.made); }},
    {"create_qp", 8, &bench::with_cq, [](bench &b) { return b.create_qp(&b.made); }},
    {"modify_qp_to_rtr", 8, &bench::with_qp, [](bench &b) { return b.modify(2, 0x1); }},
};

/// A registry of its own, and nothing that fails by accident afterwards.
class shortage_test : public testing::Test {
protected:
    std::string folder;

    void SetUp() override
    {
        char name[] = "/tmp/softefa-test-XXXXXX";
        ASSERT_NE(nullptr, mkdtemp(name));
        folder = name;
        settings wanted;
        wanted.registry_dir = folder;
        ASSERT_TRUE(dev::configure(wanted));
        bench warm_up; // handle tables and streams that stay
        warm_up.with_qp();
    }
    void TearDown() override
    {
        shortage::lift();
        EXPECT_EQ(0, std::system(("rm -rf '" + folder + "'").c_str()));
    }
};

class shortage_commands : public shortage_test, public testing::WithParamInterface<command_case> {};

bool is_of_a_shortage(int error) { return error == ENOMEM || error == EMFILE || error == ENFILE || error == EIO || error == EAGAIN; }

TEST_P(shortage_commands, fail_whole_and_work_afterwards)
{
    const command_case &c = GetParam();
    const auto          at_rest = open_fds();
    unsigned            refusals = 0, n = 1;
    for (; n < 200; ++n) {
        SCOPED_TRACE(n);
        {
            bench b;
            if (c.prepare != nullptr) {
                (b.*c.prepare)();
            }
            const counts before = objects_now();
            shortage::arm(n);
            const int      error  = c.run(b);
            const unsigned failed = shortage::lift();
            if (failed == 0) {
                EXPECT_EQ(0, error);
                break;
            }
            SCOPED_TRACE(shortage::first());
            if (error != 0) {
                ++refusals;
                EXPECT_TRUE(is_of_a_shortage(error)) << error;
                EXPECT_EQ(before, objects_now());
                ASSERT_EQ(0, c.run(b)) << "the shortage is over";
            }
        }
        ASSERT_EQ(at_rest, open_fds()) << shortage::first();
        ASSERT_EQ(counts{}, objects_now());
    }
    EXPECT_LT(n, 200u);
    EXPECT_GT(n, c.calls_min) << "the stand-ins see too little";
    std::printf("%s: %u calls that can fail, %u refusals\n", c.name, n - 1, refusals);
}

INSTANTIATE_TEST_SUITE_P(each, shortage_commands, testing::ValuesIn(commands),
                         [](const testing::TestParamInfo<command_case> &p) { return p.param.name; });

TEST_F(shortage_test, opening_the_device_fails_whole_and_works_afterwards)
{
    const auto at_rest = open_fds();
    unsigned   n = 1;
    for (; n < 50; ++n) {
        shortage::arm(n);
        const int      fd     = file_open(0, O_CLOEXEC);
        const unsigned failed = shortage::lift();
        if (fd < 0) {
            EXPECT_GT(failed, 0u);
            EXPECT_TRUE(is_of_a_shortage(-fd)) << -fd;
            ASSERT_EQ(at_rest, open_fds()) << shortage::first();
            continue;
        }
        int own = fd;
        uverbs_client::close_fd(&own);
        ASSERT_EQ(at_rest, open_fds()) << shortage::first();
        if (failed == 0) {
            break;
        }
    }
    EXPECT_GE(n, 2u);
    EXPECT_LT(n, 50u);
}

/// What is in a folder, by the beginning of the name.
unsigned entries(const std::string &folder, const char *begin)
{
    unsigned count = 0;
    DIR     *open  = opendir(folder.c_str());
    while (const dirent *entry = open != nullptr ? readdir(open) : nullptr) {
        count += strncmp(entry->d_name, begin, strlen(begin)) == 0;
    }
    closedir(open);
    return count;
}

/// One look for devices in a new folder in which call n fails, and the next one.
void join_with_a_failing_call(const std::string &folder, unsigned n, unsigned *refusals_p)
{
    SCOPED_TRACE(n);
    const auto at_rest = open_fds();
    settings   wanted;
    wanted.registry_dir = folder;
    char error[1024]    = "";
    int  member         = -1;
    shortage::arm(n);
    const bool     joined = preload::registry_enter(wanted, &member, error, sizeof(error));
    const unsigned failed = shortage::lift();
    SCOPED_TRACE(shortage::first());
    if (!joined) {
        ++*refusals_p;
        EXPECT_EQ(1u, failed);
        EXPECT_NE('\0', error[0]);
        ASSERT_EQ(at_rest, open_fds());
        ASSERT_TRUE(preload::registry_enter(wanted, &member, error, sizeof(error))) << error;
    }
    EXPECT_EQ(0, access((folder + "/" + preload::sysfs_link_name + "/class/infiniband/efa_0/node_type").c_str(), R_OK));
    EXPECT_EQ(1u, entries(folder, "tree-"));
    EXPECT_EQ(0u, entries(folder, "building-"));
    syscall(SYS_close, member);
    ASSERT_EQ(at_rest, open_fds());
}

/// Of the calls for the files of the tree, which are all alike, every ninth.
TEST_F(shortage_test, joining_a_domain_fails_whole_and_works_afterwards)
{
    settings wanted;
    wanted.registry_dir = folder + "/domain";
    char error[1024]    = "";
    int  member         = -1;
    shortage::arm(~0u);
    ASSERT_TRUE(preload::registry_enter(wanted, &member, error, sizeof(error))) << error;
    const unsigned total = shortage::seen();
    shortage::lift();
    syscall(SYS_close, member);
    ASSERT_GT(total, 40u) << "the stand-ins see too little";
    unsigned refusals = 0, tried = 0;
    for (unsigned n = 1; n <= total && !HasFatalFailure(); n += n < 12 || n + 16 > total ? 1 : 9) {
        join_with_a_failing_call(folder + "/domain-" + std::to_string(n), n, &refusals);
        ++tried;
    }
    EXPECT_GT(refusals, tried / 2);
    std::printf("%u of %u calls that can fail, %u refusals\n", tried, total, refusals);
}

/// Tables grow by chunks: each object is refused once where one begins, and made at the next try.
TEST_F(shortage_test, tables_that_cannot_grow_refuse_one_object_and_take_it_later)
{
    bench b;
    b.with_cq();
    const std::function<int()> makers[] = {
        [&] { return commands[1].run(b); },
        [&] { return b.client.create_cq({}, &b.made); },
        [&] { return b.create_qp(&b.made); },
    };
    for (const auto &make : makers) {
        unsigned refusals = 0;
        for (unsigned made = 0; made < 200; ++made) {
            const counts before = objects_now();
            shortage::arm(1);
            const int error = make();
            shortage::lift();
            if (error != 0) {
                ++refusals;
                ASSERT_TRUE(is_of_a_shortage(error)) << error;
                ASSERT_EQ(before, objects_now());
                ASSERT_EQ(0, make());
            }
        }
        EXPECT_GE(refusals, 3u);
    }
}

} // namespace
} // namespace softefa::uverbs
