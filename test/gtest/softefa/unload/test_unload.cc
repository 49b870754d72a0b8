// A program that is not linked against libibverbs: it loads the library, leaves a device open, lets the library go, and ends. Each test in a
// process of its own, which has exit()'s handlers run. The program is preloaded by verbs_main.cc.
#include "../verbs/canary.h"

#include <gtest/gtest.h>

#include <infiniband/efadv.h>
#include <infiniband/verbs.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#undef ibv_reg_mr // the header's macro wants a function that is linked

int verbs::canary_main(const char *, const char *) { return 127; }

/// What libibverbs allocated for itself, and what a device left open has, leads nowhere any more once the library is gone.
extern "C" __attribute__((visibility("default"))) int __lsan_is_turned_off() { return 1; }

namespace {

constexpr std::uint32_t qkey = 0x11111111;

/// The two libraries, and what is asked of them by name; the rest goes through the context's table.
struct libraries {
    void *verbs = nullptr, *efa = nullptr;

    bool open()
    {
        verbs = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
        efa   = dlopen("libefa.so.1", RTLD_NOW | RTLD_LOCAL);
        return verbs != nullptr && efa != nullptr;
    }
    bool close()
    {
        const bool closed = dlclose(efa) == 0 && dlclose(verbs) == 0;
        verbs = efa = nullptr;
        return closed;
    }
    template <class F> F *function(const char *name) const
    {
        void *found = dlsym(strncmp(name, "efadv", 5) == 0 ? efa : verbs, name);
        if (found == nullptr) {
            fprintf(stderr, "no %s\n", name);
            _exit(90);
        }
        return reinterpret_cast<F *>(found);
    }
};
#define LOADED(from, name) (from).function<decltype(name)>(#name)

/// A queue pair that sends to itself. No destructor: what a test does not take back stays until the process ends.
struct device {
    ibv_context *context = nullptr;
    ibv_pd      *pd      = nullptr;
    ibv_mr      *mr      = nullptr;
    ibv_cq      *cq      = nullptr;
    ibv_qp      *qp      = nullptr;
    ibv_ah      *ah      = nullptr;
    char         memory[256]{};

    bool open(const libraries &from)
    {
        int          count = 0;
        ibv_device **list  = LOADED(from, ibv_get_device_list)(&count);
        context            = list != nullptr && count > 0 ? LOADED(from, ibv_open_device)(list[0]) : nullptr;
        if (list != nullptr) {
            LOADED(from, ibv_free_device_list)(list);
        }
        if (context == nullptr) {
            return false;
        }
        pd = LOADED(from, ibv_alloc_pd)(context);
        mr = from.function<ibv_mr *(ibv_pd *, void *, std::size_t, int)>("ibv_reg_mr")(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE);
        cq = LOADED(from, ibv_create_cq)(context, 16, nullptr, nullptr, 0);
        ibv_qp_init_attr wish{};
        wish.send_cq = wish.recv_cq = cq;
        wish.cap                    = {4, 4, 1, 1, 0};
        wish.qp_type                = IBV_QPT_DRIVER;
        qp = LOADED(from, efadv_create_driver_qp)(pd, &wish, EFADV_QP_DRIVER_TYPE_SRD);
        return mr != nullptr && qp != nullptr && connect(from);
    }
    /// One message to oneself.
    bool exchange() { return post() && reap() && reap() && memcmp(memory, memory + 128, 8) == 0; }
    bool post()
    {
        snprintf(memory, 9, "%08x", ++sent_);
        ibv_sge      to{reinterpret_cast<std::uint64_t>(memory + 128), 64, mr->lkey}, of{reinterpret_cast<std::uint64_t>(memory), 8, mr->lkey};
        ibv_recv_wr  receive{}, *bad_receive = nullptr;
        ibv_send_wr  send{}, *bad_send = nullptr;
        receive.sg_list = &to;
        receive.num_sge = send.num_sge = 1;
        send.sg_list                   = &of;
        send.opcode                    = IBV_WR_SEND;
        send.send_flags                = IBV_SEND_SIGNALED;
        send.wr.ud.ah                  = ah;
        send.wr.ud.remote_qpn          = qp->qp_num;
        send.wr.ud.remote_qkey         = qkey;
        return ibv_post_recv(qp, &receive, &bad_receive) == 0 && ibv_post_send(qp, &send, &bad_send) == 0;
    }
    bool reap()
    {
        ibv_wc     wc{};
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        int        got = 0;
        while ((got = ibv_poll_cq(cq, 1, &wc)) == 0 && std::chrono::steady_clock::now() < end) {
        }
        return got == 1 && wc.status == IBV_WC_SUCCESS;
    }
    bool close(const libraries &from)
    {
        return LOADED(from, ibv_destroy_ah)(ah) == 0 && LOADED(from, ibv_destroy_qp)(qp) == 0 && LOADED(from, ibv_destroy_cq)(cq) == 0 &&
               LOADED(from, ibv_dereg_mr)(mr) == 0 && LOADED(from, ibv_dealloc_pd)(pd) == 0 && LOADED(from, ibv_close_device)(context) == 0;
    }

private:
    unsigned sent_ = 0;

    bool connect(const libraries &from)
    {
        auto       *modify = LOADED(from, ibv_modify_qp);
        ibv_qp_attr state{};
        state.qp_state = IBV_QPS_INIT;
        state.port_num = 1;
        state.qkey     = qkey;
        bool ok        = modify(qp, &state, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY) == 0;
        state.qp_state = IBV_QPS_RTR;
        ok             = ok && modify(qp, &state, IBV_QP_STATE) == 0;
        state.qp_state = IBV_QPS_RTS;
        ok             = ok && modify(qp, &state, IBV_QP_STATE | IBV_QP_SQ_PSN) == 0;
        ibv_ah_attr to{};
        to.is_global = 1;
        to.port_num  = 1;
        ok           = ok && from.function<int(ibv_context *, std::uint8_t, int, ibv_gid *)>("ibv_query_gid")(context, 1, 0, &to.grh.dgid) == 0;
        ah           = ok ? LOADED(from, ibv_create_ah)(pd, &to) : nullptr;
        return ah != nullptr;
    }
};

std::size_t open_fd_count()
{
    DIR        *folder = opendir("/proc/self/fd");
    std::size_t count  = 0;
    while (readdir(folder) != nullptr) {
        ++count;
    }
    closedir(folder);
    return count;
}

bool is_loaded(const char *name)
{
    void *found = dlopen(name, RTLD_NOW | RTLD_NOLOAD);
    return found != nullptr && dlclose(found) == 0;
}

libraries first_libraries, later_libraries;
device    first_device, later_device;

/// What `body` returns, or that it did not come back, of a process that ends by exit().
template <class F> int in_a_process_of_its_own(F body)
{
    const pid_t child = fork();
    if (child == 0) {
        alarm(300);
        exit(body());
    }
    int status = -1;
    EXPECT_EQ(child, waitpid(child, &status, 0));
    EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int leave_a_device_open_and_close_the_libraries()
{
    if (is_loaded("libibverbs.so.1") || !first_libraries.open()) {
        return 80; // the program must not be linked against them
    }
    if (!first_device.open(first_libraries) || !first_device.exchange()) {
        return 81;
    }
    return first_libraries.close() ? 0 : 82;
}

TEST(unload, exit_after_the_libraries_were_closed_with_a_device_open)
{
    EXPECT_EQ(7, in_a_process_of_its_own([] {
        const int failed = leave_a_device_open_and_close_the_libraries();
        return failed != 0 ? failed : 7;
    }));
}

TEST(unload, exit_with_a_device_open_in_the_middle_of_traffic)
{
    EXPECT_EQ(7, in_a_process_of_its_own([] {
        if (!first_libraries.open() || !first_device.open(first_libraries) || !first_device.exchange()) {
            return 1;
        }
        for (int i = 0; i < 4; ++i) {
            if (!first_device.post()) {
                return 2;
            }
        }
        return first_libraries.close() ? 7 : 3; // nobody took what was posted
    }));
}

TEST(unload, libraries_loaded_again_beside_the_device_that_was_left_open_work)
{
    EXPECT_EQ(0, in_a_process_of_its_own([] {
        if (const int failed = leave_a_device_open_and_close_the_libraries(); failed != 0) {
            return failed;
        }
        if (is_loaded("libibverbs.so.1") && !first_device.exchange()) {
            return 1; // a provider that stays keeps it: then the device is as good as before
        }
        if (!later_libraries.open() || !later_device.open(later_libraries) || !later_device.exchange()) {
            return 2;
        }
        return later_device.close(later_libraries) && later_libraries.close() ? 0 : 3;
    }));
}

TEST(unload, fifty_times_loaded_and_closed_leave_nothing_open)
{
    EXPECT_EQ(0, in_a_process_of_its_own([] {
        std::size_t fds = 0;
        for (int i = 0; i < 50; ++i) {
            if (!later_libraries.open() || !later_device.open(later_libraries) || !later_device.exchange() || !later_device.close(later_libraries) ||
                !later_libraries.close()) {
                return 1;
            }
            const std::size_t now = open_fd_count();
            if (i >= 5 && now != fds) {
                return 2;
            }
            fds = now;
        }
        return 0;
    }));
}

/// What is preloaded stays, whoever takes and drops it by its name.
TEST(unload, closing_soft_efa_by_name_changes_nothing)
{
    EXPECT_EQ(0, in_a_process_of_its_own([] {
        if (!first_libraries.open() || !first_device.open(first_libraries) || !first_device.exchange()) {
            return 1;
        }
        void *again = dlopen(SOFTEFA_LIBRARY, RTLD_NOW);
        if (again == nullptr || dlclose(again) != 0 || !first_device.exchange()) {
            return 2;
        }
        return first_device.close(first_libraries) && first_libraries.close() ? 0 : 3;
    }));
}

} // namespace
