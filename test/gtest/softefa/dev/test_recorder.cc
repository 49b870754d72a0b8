/* The flight recorder as `softefa dump` reads it: what each mode keeps, how much, and the file that a failure leaves behind. */
#include "softefa/dev/child.h"
#include "tools/soft_domain.h"
#include "tools/soft_dump.h"

#include <algorithm>

namespace {

using namespace nic;
using softefa::observe::record_kind;

class recorder : public device_test {
protected:
    /// What this process publishes.
    tools::soft_process look()
    {
        tools::soft_domain domain;
        std::string        error;
        domain.folder = folder;
        EXPECT_TRUE(tools::domain_read(&domain, &error)) << error;
        EXPECT_EQ(domain.processes.size(), 1u);
        return domain.processes.empty() ? tools::soft_process{} : std::move(domain.processes[0]);
    }
    static unsigned count(const tools::soft_process &p, record_kind kind)
    {
        const auto all = p.records();
        return static_cast<unsigned>(std::count_if(all.begin(), all.end(), [&](const auto &r) { return r.kind == static_cast<std::uint16_t>(kind); }));
    }
    /// What this process shows of its parked work and of one queue pair.
    std::pair<std::uint32_t, softefa::observe::qp_row> shown(std::uint16_t qpn)
    {
        tools::soft_domain domain;
        std::string        error;
        domain.folder = folder;
        EXPECT_TRUE(tools::domain_read(&domain, &error)) << error;
        for (const auto &p : domain.processes)
            if (p.pid == getpid() && p.page != nullptr)
                for (const auto &row : p.page->qps)
                    if (row.live != 0 && row.qpn == qpn)
                        return {p.page->parked, row};
        return {};
    }
    /// The file that this process has left, once it is whole.
    tools::soft_process kept()
    {
        tools::soft_process p;
        EXPECT_TRUE(until([&] {
            p = tools::process_read_file(failure_file(folder));
            return p.page != nullptr;
        })) << p.trouble;
        return p;
    }
};

void one_message_and_one_error(endpoint &e)
{
    e.qp.post_recv(1, {e.slice(0, 64)});
    e.qp.post(e.qp.send_inline(1, e.ah, e.qp.qpn, "recorded"));
    ASSERT_TRUE(e.rcq.wait() && e.scq.wait());
    e.qp.post(e.qp.send(2, e.ah, e.qp.qpn, {{e.memory.data(), 64, e.lkey ^ (1u << 19)}}));
    ASSERT_TRUE(e.scq.wait());
}

TEST_F(recorder, each_mode_keeps_what_it_says)
{
    constexpr record_kind control[] = {record_kind::context_open, record_kind::cq_create, record_kind::qp_create, record_kind::qp_state, record_kind::work_error};
    constexpr record_kind every[]   = {record_kind::doorbell, record_kind::pdu_out, record_kind::pdu_in, record_kind::ack_out, record_kind::ack_in, record_kind::cqe};
    for (const unsigned mode : {0u, 1u, 2u}) {
        wanted.record_mode = mode;
        use();
        endpoint e(4096);
        one_message_and_one_error(e);
        const tools::soft_process p = look();
        ASSERT_EQ(p.state, tools::process_state::alive) << p.trouble;
        for (const record_kind kind : control)
            EXPECT_EQ(count(p, kind) != 0, mode >= 1) << "mode " << mode << " kind " << static_cast<unsigned>(kind);
        for (const record_kind kind : every)
            EXPECT_EQ(count(p, kind) != 0, mode == 2) << "mode " << mode << " kind " << static_cast<unsigned>(kind);
        EXPECT_EQ(p.records().empty(), mode == 0);
        EXPECT_EQ(tools::dump_text(p).find("work completed in error") != std::string::npos, mode >= 1);
        EXPECT_EQ(tools::dump_text(p).find("record out") != std::string::npos, mode == 2);
    }
}

/// What a process shows that nothing counts. It sleeps, and posts to a process that was stopped before anybody connected to it.
TEST_F(recorder, what_waits_is_shown_though_nothing_counts_it)
{
    wanted.snapshot_ns = base::ms(1);
    use();
    child other([](pipe_end io) {
        endpoint      e(4096);
        std::uint32_t word;
        return io.put(address_of(e)) && io.get(&word) ? 0 : 1;
    });
    address peer;
    ASSERT_TRUE(other.end.get(&peer));
    other.kill(SIGSTOP);
    int stopped = 0;
    ASSERT_EQ(waitpid(other.pid, &stopped, WUNTRACED), other.pid);

    endpoint   e(4096);
    const auto mine = [&] { return shown(e.qp.qpn); };
    ASSERT_TRUE(until(helper_sleeps));
    e.qp.post(e.qp.send_inline(1, e.ah, peer.qpn, "waits"));
    EXPECT_TRUE(until([&] { const auto [parked, row] = mine(); return parked == 1 && row.send_used == 1; })) << "posted";

    other.kill(SIGCONT);
    other.end.put_word(1);
    ASSERT_TRUE(e.scq.wait()); // delivered, or ended with that process
    EXPECT_TRUE(until([&] { const auto [parked, row] = mine(); return parked == 0 && row.send_used == 0; })) << "completed";
    EXPECT_EQ(other.reap(), 0);
}

/// A sleeper that nobody sends to posts a receive: nothing else wakes it.
TEST_F(recorder, receive_that_a_sleeper_posts_is_shown)
{
    wanted.snapshot_ns = base::ms(1);
    use();
    endpoint e(4096);
    ASSERT_TRUE(until(helper_sleeps));
    ASSERT_EQ(shown(e.qp.qpn).second.recv_used, 0u);
    e.qp.post_recv(1, {e.slice(0, 64)});
    engine_posted_recv(e.qp.h); // as the wrapper of the verb does
    EXPECT_TRUE(until([&] { return shown(e.qp.qpn).second.recv_used == 1u; }));
}

/// More happens than there is room for: the last entries stay, oldest first.
TEST_F(recorder, keeps_as_many_of_the_last_entries_as_wanted)
{
    for (const unsigned wish : {64u, 100u, 128u}) {
        wanted.record_count = wish;
        use();
        endpoint e(4096);
        for (std::uint16_t id = 0; id < 300; ++id) {
            e.qp.post(e.qp.send(id, e.ah, e.qp.qpn, {{e.memory.data(), 64, e.lkey ^ (1u << 19)}}));
            ASSERT_TRUE(e.scq.wait());
        }
        const auto all = look().records();
        ASSERT_EQ(all.size(), std::bit_floor(wish)) << "a power of two";
        for (std::size_t i = 0; i < all.size(); ++i) {
            EXPECT_EQ(all[i].kind, static_cast<std::uint16_t>(record_kind::work_error));
            EXPECT_EQ(all[i].a & 0xffff, 300 - all.size() + i);
            EXPECT_TRUE(i == 0 || all[i - 1].time_ns <= all[i].time_ns);
        }
    }
}

/// Each in a process of its own: a failure is kept once in a process's life.
TEST_F(recorder, peer_that_was_cut_off_leaves_a_file_that_can_be_dumped)
{
    child victim([&](pipe_end io) {
        process_forked();
        endpoint e(4096);
        e.qp.post_recv(1, {e.slice(0, 64)});
        address peer;
        if (!io.swap(address_of(e), &peer) || !e.rcq.wait() || !io.put_word(1))
            return 2;
        const tools::soft_process p = kept();
        EXPECT_EQ(p.last_failure(), "unknown kind of record");
        EXPECT_EQ(count(p, record_kind::peer_failed), 1u);
        EXPECT_NE(tools::dump_text(p).find("peer broke the protocol"), std::string::npos);
        return HasFailure() || !io.put_word(2) ? 1 : 0;
    });
    endpoint e(4096);
    address  peer;
    ASSERT_TRUE(victim.end.swap(address_of(e), &peer));
    e.qp.post(e.qp.send_inline(1, e.ah, peer.qpn, "hello"));
    ASSERT_TRUE(e.scq.wait() && victim.end.wait_word(1));
    {
        const engine_guard guard;
        engine_state      &s = engine();
        ASSERT_GT(s.link_count, 1u);
        link_commit(*s.links[s.link_count - 1], 0, 0, [](softefa::wire::header &h) {
            h      = {};
            h.kind = static_cast<softefa::wire::pdu_kind>(99);
        });
    }
    EXPECT_TRUE(until([&] {
        engine_poll(e.scq.h); // or nobody would wake it
        pollfd p{victim.end.fd, POLLIN, 0};
        return ::poll(&p, 1, 1) == 1;
    }));
    EXPECT_TRUE(victim.end.wait_word(2));
    EXPECT_EQ(victim.reap(), 0);
}

/// Also behind a stranger's words, and beside the file of a process with this number in another PID namespace.
TEST_F(recorder, completion_queue_that_overran_leaves_a_file_that_can_be_dumped)
{
    wanted.cq_overrun = 1;
    child other([&](pipe_end) {
        process_forked();
        use();
        {
            endpoint e(4096, {}, -1, 0, 16);
            const told_lines said;
            stranger_speaks(folder); // nothing that failed here: no file is kept for it
            EXPECT_TRUE(until([] { return told_lines::notices == 1u; }));
            EXPECT_EQ(told_lines::files, 0u);
            const std::string foreign = folder + "/failure." + std::to_string(getpid()) + ".1";
            std::string       error;
            std::ofstream(foreign).close();
            for (std::uint16_t n = 0; n < 17; ++n)
                e.qp.post_recv(n, {e.slice(0, 64)});
            EXPECT_EQ(e.qp.to(qp_state::error), base::status::ok);
            const tools::soft_process p = kept();
            EXPECT_EQ(count(p, record_kind::cq_overrun), 1u);
            // A process that has this number in another PID namespace of the same folder left its own.
            std::error_code failed;
            tools::soft_domain domain;
            domain.folder = folder;
            EXPECT_EQ(std::filesystem::file_size(foreign, failed), 0u) << failed.message();
            EXPECT_TRUE(tools::domain_read(&domain, &error)) << error;
            EXPECT_EQ(domain.failures.size(), 2u);
            EXPECT_FALSE(domain.failures.at(0).elsewhere);
            EXPECT_TRUE(domain.failures.at(1).elsewhere);
            EXPECT_NE(tools::dump_text(p).find("CQ overrun"), std::string::npos);
        }
        return HasFailure() ? 1 : 0;
    });
    EXPECT_EQ(other.reap(), 0);
}

} // namespace
