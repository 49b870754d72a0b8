// Programs that take the addresses of rings and doorbells from libefa and make no verbs call on their data path, as libfabric's "data path direct"
// does. Their process has SOFTEFA_DIRECT=1. rdma-core offers the addresses from version 59 on; older headers do not declare the calls, so what they
// answer is declared here.
#include "run_apart.h"
#include "verbs_endpoint.h"

#include <atomic>
#include <cerrno>
#include <dlfcn.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

namespace verbs {
namespace {

struct queue_answer { ///< struct efadv_wq_attr
    std::uint64_t  comp_mask;
    std::uint8_t  *buffer;
    std::uint32_t  entry_size, entry_count;
    std::uint32_t *doorbell;
    std::uint32_t  batch_max;
    std::uint16_t  caps;
    std::uint8_t   reserved[2];
};
struct cq_answer { ///< struct efadv_cq_attr
    std::uint64_t  comp_mask;
    std::uint8_t  *buffer;
    std::uint32_t  entry_size, entry_count;
    std::uint32_t *doorbell; ///< only since rdma-core 60
};
using query_cq = int(ibv_cq *, cq_answer *, std::uint32_t);
using query_qp = int(ibv_qp *, queue_answer *, queue_answer *, std::uint32_t);

/// As a program that is linked with libefa finds it.
template <class F> F *find(const char *name) { return reinterpret_cast<F *>(dlsym(RTLD_DEFAULT, name)); }

/// In libefa itself.
bool library_has(const char *name)
{
    void *library = dlopen("libefa.so.1", RTLD_NOW | RTLD_NOLOAD);
    const bool has = library != nullptr && dlsym(library, name) != nullptr;
    if (library != nullptr)
        dlclose(library);
    return has;
}

constexpr std::uint32_t total = 3000, window = 8, slot_size = 256, send_count = 16, recv_count = 32, cqe_count = 64;
constexpr std::size_t   recv_at = 16384;

template <class T> void put(std::uint8_t *at, unsigned offset, T value) { std::memcpy(at + offset, &value, sizeof(value)); }
template <class T> T take(const std::uint8_t *at, unsigned offset)
{
    T value;
    std::memcpy(&value, at + offset, sizeof(value));
    return value;
}
std::uint8_t byte_of(std::uint32_t sequence, unsigned at) { return static_cast<std::uint8_t>(sequence * 29 + at * 11 + (sequence >> 7)); }

/// One side of the exchange. After open(), only loads and stores.
class party {
public:
    /// 0, or where it stopped.
    int open(int socket)
    {
        context_ = open_device();
        if (context_ == nullptr)
            return 20;
        endpoint::options o;
        o.kind       = cq_kind::extended; // the old ibv_create_cq has no other layout, but who does this uses the new one
        o.cqe        = cqe_count;
        o.send_count = send_count;
        o.recv_count = recv_count;
        e_           = std::make_unique<endpoint>(context_.get(), o);
        ibv_ah *ah   = e_->ok() ? e_->ah_to(*e_) : nullptr; // one host, one GID
        efadv_ah_attr number{};
        if (ah == nullptr || efadv_query_ah(ah, &number, sizeof(number)) != 0)
            return 21;
        ah_ = number.ahn;
        if (find<query_cq>("efadv_query_cq")(e_->cq(), &cq_, sizeof(cq_)) != 0)
            return 22;
        if (find<query_qp>("efadv_query_qp_wqs")(e_->qp(), &sq_, &rq_, sizeof(sq_)) != 0)
            return 23;
        if (cq_.buffer == nullptr || cq_.entry_count < cqe_count || sq_.entry_size < 64 || sq_.entry_count < send_count || rq_.entry_size != 16 ||
            rq_.entry_count < recv_count || sq_.doorbell == nullptr || rq_.doorbell == nullptr)
            return 24;
        for (std::uint32_t i = 0; i < recv_count; ++i)
            post_recv(static_cast<std::uint16_t>(i));
        const std::uint32_t mine = e_->qp()->qp_num;
        return write(socket, &mine, sizeof(mine)) == sizeof(mine) && read(socket, &peer_, sizeof(peer_)) == sizeof(peer_) ? 0 : 25;
    }

    /// Sends and receives `total` messages. 0, or where it stopped.
    int run()
    {
        std::vector<bool> seen(total);
        timespec          start, now;
        clock_gettime(CLOCK_MONOTONIC, &start);
        while (completed_ < total || received_ < total) {
            if (sent_ == completed_) {
                while (sent_ < total && sent_ - completed_ < window)
                    put_send();
                __atomic_store_n(sq_.doorbell, sent_ & 0xffff, __ATOMIC_RELEASE);
            }
            std::uint8_t entry[32];
            if (!take_entry(entry)) {
                clock_gettime(CLOCK_MONOTONIC, &now);
                if (now.tv_sec - start.tv_sec > 200)
                    return completed_ < total ? 30 : 31;
                sched_yield(); // the thread that moves the data may need this processor
                continue;
            }
            if (entry[2] != 0 || take<std::uint16_t>(entry, 4) != e_->qp()->qp_num)
                return 32;
            if ((entry[3] >> 1 & 3) == 1)
                ++completed_;
            else if (const int error = message(entry, seen); error != 0)
                return error;
        }
        return 0;
    }
    std::uint32_t entries_read() const { return read_; }

private:
    void post_recv(std::uint16_t index)
    {
        std::uint8_t d[16] = {};
        put<std::uint64_t>(d, 0, reinterpret_cast<std::uint64_t>(e_->buffer() + recv_at + index * slot_size));
        put<std::uint16_t>(d, 8, index);
        put<std::uint16_t>(d, 10, slot_size);
        put<std::uint32_t>(d, 12, (e_->mr()->lkey & 0xffffff) | 1u << 30 | 1u << 31);
        std::memcpy(rq_.buffer + rq_posted_ % rq_.entry_count * 16, d, sizeof(d));
        ++rq_posted_;
        __atomic_store_n(rq_.doorbell, rq_posted_ & 0xffff, __ATOMIC_RELEASE);
    }
    void put_send()
    {
        char *at = e_->buffer() + sent_ % window * slot_size;
        std::memcpy(at, &sent_, 4);
        for (unsigned k = 4; k < slot_size; ++k)
            at[k] = static_cast<char>(byte_of(sent_, k));
        std::uint8_t w[128] = {};
        put<std::uint16_t>(w, 0, static_cast<std::uint16_t>(sent_));
        w[2] = 0x80;                                                              // send; metadata descriptor
        w[3] = static_cast<std::uint8_t>(0x1c | (sent_ / sq_.entry_count & 1));   // first, last, completion wanted, phase
        put<std::uint16_t>(w, 4, static_cast<std::uint16_t>(peer_));
        put<std::uint16_t>(w, 6, 1);
        put<std::uint16_t>(w, 12, ah_);
        put<std::uint32_t>(w, 16, qkey);
        put<std::uint32_t>(w, 32, slot_size);
        put<std::uint32_t>(w, 36, e_->mr()->lkey);
        put<std::uint64_t>(w, 40, reinterpret_cast<std::uint64_t>(at));
        std::memcpy(sq_.buffer + sent_ % sq_.entry_count * sq_.entry_size, w, sq_.entry_size);
        ++sent_;
    }
    bool take_entry(std::uint8_t *entry)
    {
        const std::uint8_t *at    = cq_.buffer + read_ % cq_.entry_count * cq_.entry_size;
        const unsigned      phase = (read_ / cq_.entry_count & 1) == 0 ? 1 : 0;
        if ((__atomic_load_n(at + 3, __ATOMIC_ACQUIRE) & 1u) != phase)
            return false;
        std::memcpy(entry, at, std::min<std::size_t>(cq_.entry_size, 32));
        ++read_;
        return true;
    }
    int message(const std::uint8_t *entry, std::vector<bool> &seen)
    {
        const auto index = take<std::uint16_t>(entry, 0);
        if (index >= recv_count || take<std::uint16_t>(entry, 6) != slot_size || take<std::uint16_t>(entry, 10) != peer_)
            return 33;
        const char   *at = e_->buffer() + recv_at + index * slot_size;
        std::uint32_t sequence;
        std::memcpy(&sequence, at, 4);
        if (sequence >= total || seen[sequence])
            return 34;
        seen[sequence] = true;
        for (unsigned k = 4; k < slot_size; ++k)
            if (static_cast<std::uint8_t>(at[k]) != byte_of(sequence, k))
                return 35;
        ++received_;
        post_recv(index);
        return 0;
    }

    context_ptr               context_;
    std::unique_ptr<endpoint> e_;
    queue_answer              sq_{}, rq_{};
    cq_answer                 cq_{};
    std::uint16_t             ah_   = 0;
    std::uint32_t             peer_ = 0, sent_ = 0, completed_ = 0, received_ = 0, rq_posted_ = 0, read_ = 0;
};

/// Run by the tests below in a process that has the setting.
TEST(verbs_direct, DISABLED_messages_by_loads_and_stores)
{
    int pair[2];
    ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    const auto one_side = [&](int mine) {
        party p;
        int   outcome = p.open(mine);
        outcome       = outcome != 0 ? outcome : p.run();
        // Both stay until both have everything: an acknowledgement may be under way.
        return write(mine, &outcome, sizeof(outcome)) == sizeof(outcome) && read(mine, &outcome, sizeof(outcome)) == sizeof(outcome) ? outcome : 40;
    };
    const pid_t child = fork();
    if (child == 0) {
        alarm(300);
        close(pair[0]);
        _exit(one_side(pair[1]) == 0 ? 0 : 1);
    }
    close(pair[1]);
    EXPECT_EQ(0, one_side(pair[0])) << "where the other side stopped";
    close(pair[0]);
    EXPECT_EQ(0, wait_for(child)) << "this side did not get everything";
}

TEST(verbs_direct, messages_by_loads_and_stores)
{
    if (!library_has("efadv_query_qp_wqs") || !library_has("efadv_query_cq"))
        GTEST_SKIP() << "this rdma-core does not tell the addresses of rings; 59 and later do";
    EXPECT_EQ(0, run_apart("verbs_direct", "messages_by_loads_and_stores", "SOFTEFA_DIRECT", "1"));
}

TEST(verbs_direct, addresses_are_refused_without_the_setting)
{
    auto     context = open_device();
    endpoint e(context.get(), {});
    ASSERT_TRUE(e.ok());
    cq_answer answer{};
    EXPECT_EQ(EOPNOTSUPP, find<query_cq>("efadv_query_cq")(e.cq(), &answer, sizeof(answer)));
    EXPECT_EQ(nullptr, answer.buffer);
    EXPECT_STREQ("0", getenv("FI_EFA_USE_DATA_PATH_DIRECT")) << "what keeps libfabric from asking";
}

/// Run by the test below in a process that has the setting.
TEST(verbs_direct, DISABLED_what_the_library_answers)
{
    EXPECT_EQ(nullptr, getenv("FI_EFA_USE_DATA_PATH_DIRECT"));
    auto     context = open_device();
    endpoint e(context.get(), {});
    ASSERT_TRUE(e.ok());
    cq_answer    answer{};
    queue_answer sq{}, rq{};
    const int    expected = library_has("efadv_query_cq") ? 0 : EOPNOTSUPP;
    EXPECT_EQ(expected, find<query_cq>("efadv_query_cq")(e.cq(), &answer, sizeof(answer)));
    EXPECT_EQ(expected, find<query_qp>("efadv_query_qp_wqs")(e.qp(), &sq, &rq, sizeof(sq)));
}

TEST(verbs_direct, library_decides_with_the_setting)
{
    unsetenv("FI_EFA_USE_DATA_PATH_DIRECT"); // what this process was given is inherited
    EXPECT_EQ(0, run_apart("verbs_direct", "what_the_library_answers", "SOFTEFA_DIRECT", "1"));
    setenv("FI_EFA_USE_DATA_PATH_DIRECT", "0", 1);
}

} // namespace
} // namespace verbs
