// A process whose own ring was overwritten: its devices are lost, it says so everywhere, and what it published is kept for whoever asks why.
#include "child.h"

#include "softefa/dev/engine_state.h"
#include "softefa/dev/publish.h"
#include "softefa/observe/published.h"

#include <fcntl.h>
#include <fstream>
#include <poll.h>

namespace {

using namespace nic;
namespace observe = softefa::observe;
namespace fabric  = softefa::fabric;

std::atomic<unsigned> told;
char                  told_path[160];

void teller(const char *, const char *path) noexcept
{
    std::snprintf(told_path, sizeof(told_path), "%s", path);
    ++told;
}

class lost_device : public device_test {
protected:
    void SetUp() override
    {
        device_test::SetUp();
        told = 0;
        publish_failures_to(teller);
        ASSERT_EQ(0, pipe2(async, O_CLOEXEC | O_NONBLOCK));
    }
    void TearDown() override
    {
        publish_failures_to(nullptr);
        close(async[0]);
        close(async[1]);
        device_test::TearDown();
    }
    int async[2] = {-1, -1};
};

void lose_it(const std::string &folder, const int *async)
{
    const std::uint64_t failed_before = [] {
        const engine_guard guard;
        return engine().peers.peers_failed; // of the process that was forked
    }();
    {
        endpoint e(4096);
        endpoint other(4096);
        context_set_async(e.at.context, async[1]);
        e.qp.post_recv(1, {e.slice(0, 64)});
        e.qp.post(e.qp.send_inline(1, e.ah, e.qp.qpn, "before"));
        ASSERT_TRUE(e.rcq.wait());
        ASSERT_EQ(e.scq.wait()->status, 0);
        e.qp.post(e.qp.send_inline(2, e.ah, other.qp.qpn, "waits for a receive"));
        {
            const engine_guard  guard; // a wild store of the application's
            fabric::channel    &own    = *engine().links[0]->channel;
            std::uint8_t *const record = own.own.base + fabric::data_ring_offset + own.rx.position() % fabric::data_ring_size;
            softefa::wire::header h;
            h.kind         = softefa::wire::pdu_kind::send;
            h.payload_size = ~0u;
            std::memcpy(record + sizeof(h.commit), reinterpret_cast<const std::uint8_t *>(&h) + sizeof(h.commit), sizeof(h) - sizeof(h.commit));
            fabric::commit_word(record).store(fabric::commit_value(own.rx.position()));
            (void)engine_run_link(*engine().links[0]); // or the next try of what waits for a receive may come first, and write its own record there
        }
        auto ended = e.scq.wait();
        ASSERT_TRUE(ended);
        EXPECT_EQ(ended->status, 12);
        pollfd readable{async[0], POLLIN, 0};
        ASSERT_EQ(1, poll(&readable, 1, 60000));
        struct {
            std::uint64_t element;
            std::uint32_t type, reserved;
        } event{};
        ASSERT_EQ(static_cast<ssize_t>(sizeof(event)), read(async[0], &event, sizeof(event)));
        EXPECT_EQ(event.type, 8u); // IBV_EVENT_DEVICE_FATAL
        const auto end = base::clock_now_ns() + base::sec(60);
        while (told == 0 && base::clock_now_ns() < end)
            usleep(1000);
        EXPECT_EQ(-1, read(async[0], &event, sizeof(event))) << "once";
        // New work ends too, and the process may still take everything down.
        endpoint later(4096);
        later.qp.post(later.qp.send_inline(3, later.ah, later.qp.qpn, "lost"));
        auto done = later.scq.wait();
        ASSERT_TRUE(done);
        EXPECT_EQ(done->status, 12);
    }
    ASSERT_EQ(told, 1u);
    EXPECT_EQ(failure_file(folder), told_path);
    std::ifstream     kept(told_path, std::ios::binary);
    std::vector<char> bytes{std::istreambuf_iterator<char>(kept), std::istreambuf_iterator<char>()};
    ASSERT_GE(bytes.size(), offsetof(observe::published, records));
    std::uint32_t magic = 0;
    std::int32_t  pid   = 0;
    std::uint64_t failures = 0;
    std::memcpy(&magic, bytes.data() + offsetof(observe::published, magic), sizeof(magic));
    std::memcpy(&pid, bytes.data() + offsetof(observe::published, pid), sizeof(pid));
    std::memcpy(&failures, bytes.data() + offsetof(observe::published, peers_failed), sizeof(failures));
    EXPECT_EQ(magic, observe::magic);
    EXPECT_EQ(pid, getpid());
    EXPECT_EQ(failures, failed_before + 1);
    // The next context has a ring of its own and works.
    endpoint again(4096);
    again.qp.post_recv(1, {again.slice(0, 64)});
    again.qp.post(again.qp.send_inline(4, again.ah, again.qp.qpn, "new"));
    ASSERT_TRUE(again.rcq.wait());
    EXPECT_EQ(again.scq.wait()->status, 0);
}

TEST_F(lost_device, own_ring_overwritten_is_told_as_fatal_once_and_kept)
{
    child other([&](pipe_end) { // once in a process's life: a process of its own
        process_forked();
        lose_it(folder, async);
        return HasFailure() ? 1 : 0;
    });
    EXPECT_EQ(other.reap(), 0);
}

} // namespace
