/* Promises of docs/uct-semantics.md about messages, shortages, flush and completions, seen through the table of operations of whole
 * interfaces. What a single module promises is in its own test; what needs two processes, in test/system.
 */
#include "two_nodes.h"

#include <cerrno>
#include <csignal>
#include <functional>
#include <poll.h>
#include <string>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace srd_net;

namespace {

std::string pattern(std::size_t size)
{
    std::string bytes(size, '\0');
    for (std::size_t i = 0; i < size; ++i) {
        bytes[i] = static_cast<char>(i * 131 + size);
    }
    return bytes;
}

std::size_t pack_string(void *to, void *arg)
{
    const auto *s = static_cast<const std::string *>(arg);
    std::memcpy(to, s->data(), s->size());
    return s->size();
}

std::size_t pack_never(void *, void *)
{
    ADD_FAILURE() << "packed although the post is refused";
    return 0;
}

class srd_delivery : public two_nodes {
protected:
    /// Past hello, so that headers are short and there are credits.
    void greet()
    {
        keeper_.keep = false;
        send(20);
    }

    uct_iface_attr_t attributes(node &n)
    {
        uct_iface_attr_t a = {};
        EXPECT_EQ(n.handle()->ops.iface_query(n.handle(), &a), UCS_OK);
        return a;
    }

    /// Everything that a refused post could have changed.
    std::vector<std::uint64_t> state()
    {
        const srd::peer *p = srd::ep_of(ep)->owner;
        return {left->device.posted_sends, left->f->tx.outstanding, left->f->tx.sq_free, p->tx.next().raw(), p->waiting_count,
                left->f->counters.get(srd::counter::tx_am), left->f->counters.get(srd::counter::tx_bytes)};
    }

    /// All four ways to send are refused, and nothing has changed.
    void expect_all_refused(ucs_status_t why, std::size_t size)
    {
        auto &ops                 = left->handle()->ops;
        const std::string payload = pattern(size);
        const uct_iov_t piece     = {const_cast<char *>(payload.data()), payload.size(), nullptr, 0, 1};
        fuzz::told told;
        const auto before = state();
        EXPECT_EQ(ops.ep_am_short(ep, 1, 0, payload.data(), static_cast<unsigned>(size)), why);
        EXPECT_EQ(ops.ep_am_short_iov(ep, 1, &piece, 1), why);
        EXPECT_EQ(ops.ep_am_bcopy(ep, 1, pack_never, nullptr, 0), why);
        EXPECT_EQ(ops.ep_am_zcopy(ep, 1, payload.data(), static_cast<unsigned>(size), nullptr, 0, 0, &told), why);
        EXPECT_EQ(state(), before);
        EXPECT_EQ(told.calls, 0u);
        EXPECT_EQ(told.count, 1);
    }

    /// Posts without carrying anything until a post is refused; returns how many were accepted.
    unsigned fill(uct_ep_h to)
    {
        unsigned posted = 0;
        while (posted < 5000 && uct_ep_am_short(to, 1, 0, nullptr, 0) == UCS_OK) {
            ++posted;
        }
        return posted;
    }
};

// --- active messages -------------------------------------------------------------------------------------------------------

TEST_F(srd_delivery, each_way_to_send_carries_up_to_its_limit_and_no_more)
{
    fuzz::options o;
    o.message_size = 8928;
    open(o, o);
    const uct_iface_attr_t a = attributes(*left);
    EXPECT_EQ(a.cap.am.max_short, 256u);
    EXPECT_EQ(a.cap.am.max_bcopy, 8928u - 48);
    EXPECT_EQ(a.cap.am.max_zcopy, 8928u - 48);
    std::vector<std::string> got, sent;
    uct_iface_set_am_handler(right->handle(), 2, [](void *arg, void *data, std::size_t size, unsigned) {
        static_cast<std::vector<std::string> *>(arg)->emplace_back(static_cast<char *>(data), size);
        return UCS_OK;
    }, &got, 0);
    auto &ops = left->handle()->ops;
    fuzz::region memory(left->device, a.cap.am.max_zcopy);
    for (int round = 0; round < 2; ++round) { // the first ones with the longest header
        const std::uint64_t header = 0x0102030405060708;
        std::string s              = pattern(a.cap.am.max_short - sizeof(header));
        ASSERT_EQ(ops.ep_am_short(ep, 2, header, s.data(), static_cast<unsigned>(s.size())), UCS_OK);
        sent.push_back(std::string(reinterpret_cast<const char *>(&header), sizeof(header)) + s);
        EXPECT_EQ(ops.ep_am_short(ep, 2, header, s.data(), static_cast<unsigned>(s.size() + 1)), UCS_ERR_INVALID_PARAM);

        s = pattern(a.cap.am.max_bcopy);
        ASSERT_EQ(ops.ep_am_bcopy(ep, 2, pack_string, &s, 0), static_cast<ssize_t>(s.size()));
        sent.push_back(s);
        settle();

        std::copy(s.begin(), s.end(), memory.bytes.get());
        const uct_iov_t most = {memory.bytes.get(), a.cap.am.max_zcopy - 10, &memory.mem, 0, 1};
        fuzz::told told;
        ASSERT_EQ(ops.ep_am_zcopy(ep, 2, "0123456789", 10, &most, 1, 0, &told), UCS_INPROGRESS);
        EXPECT_EQ(ops.ep_am_zcopy(ep, 2, "01234567890", 11, &most, 1, 0, &told), UCS_ERR_INVALID_PARAM);
        sent.push_back("0123456789" + s.substr(0, most.length));
        settle();
        EXPECT_EQ(told.calls, 1u);

        uct_iov_t pieces[64]; // any number of them
        s = pattern(a.cap.am.max_short);
        for (unsigned i = 0; i < 64; ++i) {
            pieces[i] = {s.data() + 4 * i, 4, nullptr, 0, 1};
        }
        ASSERT_EQ(ops.ep_am_short_iov(ep, 2, pieces, 64), UCS_OK);
        sent.push_back(s);
        settle();
    }
    EXPECT_EQ(got, sent);
}

TEST_F(srd_delivery, below_a_quarter_of_the_queue_messages_come_without_the_right_to_keep_them)
{
    fuzz::options few;
    few.rx_queue_len = few.rx_queue_max = few.rx_max_bufs = 16;
    open({}, few);
    struct witness {
        srd::iface *f;
        std::vector<void *> kept;
        unsigned with = 0, without = 0;
    } w;
    w.f = right->f;
    uct_iface_set_am_handler(right->handle(), 1, [](void *arg, void *data, std::size_t, unsigned flags) {
        auto *to         = static_cast<witness *>(arg);
        const bool right = flags & UCT_CB_PARAM_FLAG_DESC;
        right ? ++to->with : ++to->without;
        EXPECT_TRUE(!right || to->f->rx.posted >= 4) << "may be kept although only " << to->f->rx.posted << " receives are posted";
        if (right) {
            to->kept.push_back(data);
            return UCS_INPROGRESS;
        }
        return UCS_OK;
    }, &w, 0);
    send(60);
    EXPECT_EQ(w.with + w.without, 60u);
    EXPECT_GE(w.with, 8u);
    EXPECT_GE(w.without, 30u);
    for (void *payload : w.kept) {
        release(payload);
    }
    w.kept.clear();
    settle(2);
    const unsigned before = w.with;
    send(8); // the queue is full again
    EXPECT_GE(w.with, before + 4);
    for (void *payload : w.kept) {
        release(payload);
    }
}

// --- resources and pending ---------------------------------------------------------------------------------------------------

TEST_F(srd_delivery, without_credits_every_post_is_refused_and_changes_nothing)
{
    open({});
    EXPECT_EQ(fill(ep), srd::limits::initial_grant);
    expect_all_refused(UCS_ERR_NO_RESOURCE, 40);
    keeper_.keep = false;
    settle();
    send(3);
    EXPECT_EQ(keeper_.messages, srd::limits::initial_grant + 3);
}

TEST_F(srd_delivery, without_a_place_in_the_send_queue_every_post_is_refused_and_changes_nothing)
{
    open({});
    greet();
    std::uint32_t free = 0;
    std::swap(free, left->f->tx.sq_free); // others have them all
    expect_all_refused(UCS_ERR_NO_RESOURCE, 40);
    std::swap(free, left->f->tx.sq_free);
    send(3);
    EXPECT_EQ(keeper_.messages, 23u);
}

TEST_F(srd_delivery, without_a_bounce_buffer_every_post_is_refused_and_changes_nothing)
{
    fuzz::options one;
    one.tx_max_bufs = 1;
    open(one);
    greet();
    std::string s = pattern(100);
    ASSERT_EQ(left->handle()->ops.ep_am_bcopy(ep, 1, pack_string, &s, 0), 100);
    expect_all_refused(UCS_ERR_NO_RESOURCE, 100);
    settle();
    EXPECT_EQ(left->handle()->ops.ep_am_bcopy(ep, 1, pack_string, &s, 0), 100);
    settle();
    EXPECT_EQ(keeper_.messages, 22u);
}

TEST_F(srd_delivery, pending_add_says_busy_only_when_every_shortage_is_over)
{
    fuzz::options one;
    one.tx_max_bufs = 1;
    open(one);
    greet();
    struct request : uct_pending_req_t {
        unsigned calls = 0;
    } r;
    r.func = [](uct_pending_req_t *self) {
        ++static_cast<request *>(self)->calls;
        return UCS_OK;
    };
    auto &ops     = left->handle()->ops;
    std::string s = pattern(100);
    EXPECT_EQ(ops.ep_pending_add(ep, &r, 0), UCS_ERR_BUSY); // nothing was short
    ASSERT_EQ(ops.ep_am_bcopy(ep, 1, pack_string, &s, 0), 100); // has the one buffer
    EXPECT_EQ(ops.ep_am_bcopy(ep, 1, pack_never, nullptr, 0), UCS_ERR_NO_RESOURCE);
    std::uint32_t free = 0;
    std::swap(free, left->f->tx.sq_free); // and others have the queue
    EXPECT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_ERR_NO_RESOURCE);
    std::swap(free, left->f->tx.sq_free); // one shortage is over, one is not
    EXPECT_EQ(ops.ep_pending_add(ep, &r, 0), UCS_OK);
    left->progress();
    EXPECT_EQ(r.calls, 0u);
    net.carry(*left, 0);
    left->progress();
    EXPECT_EQ(r.calls, 1u);
    EXPECT_EQ(ops.ep_pending_add(ep, &r, 0), UCS_ERR_BUSY);
    settle();
}

TEST_F(srd_delivery, requests_are_called_in_turn_and_before_any_post_from_outside)
{
    fuzz::options wide;
    wide.tx_queue_len = 400; // credits are what runs out
    open(wide);
    greet();
    uct_ep_h other = left->connect(right->device.gid, right->qpn(), right->device.qkey);
    struct request : uct_pending_req_t {
        std::string *order;
        char name;
    } requests[6];
    std::string order;
    fill(ep);
    ASSERT_EQ(uct_ep_am_short(other, 1, 0, nullptr, 0), UCS_ERR_NO_RESOURCE);
    for (int i = 0; i < 6; ++i) {
        requests[i].order = &order;
        requests[i].name  = static_cast<char>((i < 3 ? 'a' : 'A') + i % 3);
        requests[i].func  = [](uct_pending_req_t *self) {
            auto *r = static_cast<request *>(self);
            *r->order += r->name;
            return UCS_OK;
        };
        ASSERT_EQ(left->handle()->ops.ep_pending_add(i < 3 ? ep : other, &requests[i], 0), UCS_OK);
    }
    srd::peer *p = srd::ep_of(ep)->owner;
    ASSERT_TRUE(p->tx.credit(p->tx.consumed(), p->tx.next() + 50)); // room again, but it is not their turn yet
    ASSERT_TRUE(srd::tx_window_open(p));
    EXPECT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_ERR_NO_RESOURCE);
    EXPECT_EQ(uct_ep_am_short(other, 1, 0, nullptr, 0), UCS_ERR_NO_RESOURCE);
    EXPECT_EQ(order, "");
    left->progress();
    EXPECT_EQ(order, "aAbBcC");
    EXPECT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_OK);
    settle();
    left->handle()->ops.ep_destroy(other);
}

TEST_F(srd_delivery, one_peer_holds_half_of_the_send_queue_and_at_most_256)
{
    fuzz::options small;
    small.tx_queue_len = 16;
    open(small);
    greet();
    srd::peer *p = srd::ep_of(ep)->owner;
    ASSERT_TRUE(p->tx.credit(p->tx.consumed(), p->tx.next() + 200)); // credits are not what bounds it
    EXPECT_EQ(fill(ep), 8u);
    uct_ep_h elsewhere = left->connect(fuzz::gid_of(9), 19, 1);
    ASSERT_NE(elsewhere, nullptr);
    EXPECT_EQ(uct_ep_am_short(elsewhere, 1, 0, nullptr, 0), UCS_OK); // the other half is there for others
    left->handle()->ops.ep_destroy(elsewhere);
    settle();
    fuzz::options large;
    large.tx_queue_len = 1000;
    node big(fuzz::gid_of(3), large);
    big.md.attr.max_sq_wr = 2000;
    ASSERT_EQ(big.open(13), UCS_OK);
    EXPECT_EQ(big.f->window, 256u);
}

TEST_F(srd_delivery, what_the_device_does_not_take_is_posted_again_from_progress)
{
    open({});
    greet();
    left->device.fail_post_send = 1;
    EXPECT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_OK); // accepted all the same
    EXPECT_EQ(left->device.sends.size(), 0u);
    EXPECT_EQ(left->handle()->ops.ep_flush(ep, 0, nullptr), UCS_INPROGRESS);
    left->progress();
    EXPECT_EQ(left->device.sends.size(), 1u);
    settle();
    EXPECT_EQ(keeper_.messages, 21u);
    EXPECT_EQ(left->handle()->ops.ep_flush(ep, 0, nullptr), UCS_OK);
}

// --- flush and completions -----------------------------------------------------------------------------------------------------

TEST_F(srd_delivery, flush_waits_for_the_peers_device_and_not_for_its_program)
{
    open({});
    greet();
    auto &ops = left->handle()->ops;
    ASSERT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_OK);
    ASSERT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_OK);
    fuzz::told told;
    EXPECT_EQ(ops.ep_flush(ep, 0, &told), UCS_INPROGRESS);
    EXPECT_EQ(ops.iface_flush(left->handle(), 0, nullptr), UCS_INPROGRESS);
    ASSERT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_OK); // behind it: not waited for
    net.carry(*left, 1); // in any order
    left->progress();
    EXPECT_EQ(told.calls, 0u);
    net.carry(*left, 0);
    left->progress();
    EXPECT_EQ(told.calls, 1u);
    EXPECT_EQ(told.status, UCS_OK);
    EXPECT_EQ(keeper_.messages, 20u); // the program at the right has seen none of them
    EXPECT_EQ(ops.iface_flush(left->handle(), 0, nullptr), UCS_INPROGRESS); // the third
    settle();
    EXPECT_EQ(ops.iface_flush(left->handle(), 0, nullptr), UCS_OK);
    EXPECT_EQ(keeper_.messages, 23u);
}

TEST_F(srd_delivery, completions_are_called_from_progress_and_never_from_a_post)
{
    open({});
    greet();
    auto &ops = left->handle()->ops;
    fuzz::told first, second, flushed;
    ASSERT_EQ(ops.ep_am_zcopy(ep, 1, "x", 1, nullptr, 0, 0, &first), UCS_INPROGRESS);
    net.carry(*left, 0); // its completion can be polled
    ASSERT_EQ(ops.ep_am_zcopy(ep, 1, "y", 1, nullptr, 0, 0, &second), UCS_INPROGRESS);
    ASSERT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_OK);
    EXPECT_EQ(ops.ep_flush(ep, 0, &flushed), UCS_INPROGRESS);
    EXPECT_EQ(ops.ep_fence(ep, 0), UCS_OK);
    EXPECT_EQ(ops.ep_check(ep, 0, nullptr), UCS_OK);
    EXPECT_EQ(first.calls, 0u);
    left->progress();
    EXPECT_EQ(first.calls, 1u);
    EXPECT_EQ(second.calls, 0u);
    left->device.fail_post_send = 1; // a post that meets trouble calls nobody either
    fuzz::told third;
    ASSERT_EQ(ops.ep_am_zcopy(ep, 1, "z", 1, nullptr, 0, 0, &third), UCS_INPROGRESS);
    EXPECT_EQ(second.calls + third.calls + flushed.calls, 0u);
    settle();
    EXPECT_EQ(second.calls, 1u);
    EXPECT_EQ(third.calls, 1u);
    EXPECT_EQ(flushed.calls, 1u);
}

/// Machine instructions that a call takes, counted by single steps of a child; 0 if the system does not let us.
std::uint64_t instructions_of(const std::function<void()> &call)
{
    call(); // so that the dynamic linker has done its part
    const pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) {
            _exit(1);
        }
        raise(SIGSTOP);
        call();
        raise(SIGSTOP);
        _exit(0);
    }
    int status          = 0;
    std::uint64_t steps = 0;
    bool began          = false;
    while (waitpid(child, &status, 0) == child && WIFSTOPPED(status) && steps < 2'000'000) {
        if (WSTOPSIG(status) == SIGSTOP) {
            if (began) {
                break;
            }
            began = true;
        }
        ++steps;
        if (ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0) {
            break;
        }
    }
    if (WIFSTOPPED(status)) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        return began ? steps : 0;
    }
    return 0;
}

TEST_F(srd_delivery, flush_and_fence_cost_the_same_with_one_endpoint_and_with_a_thousand)
{
    open({});
    greet();
    auto &ops                = left->handle()->ops;
    const uct_iface_h handle = left->handle();
    const std::function<void()> calls[] = {[&] { (void)ops.iface_flush(handle, 0, nullptr); },
                                           [&] { (void)ops.iface_fence(handle, 0); }, [&] { (void)ops.ep_fence(ep, 0); },
                                           [&] { (void)ops.ep_flush(ep, 0, nullptr); }};
    std::uint64_t few[4], i = 0;
    ASSERT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_OK); // something to flush
    for (const auto &call : calls) {
        few[i++] = instructions_of(call);
    }
    if (few[0] == 0) {
        GTEST_SKIP() << "single steps of a child are not allowed here: errno " << errno;
    }
    std::vector<uct_ep_h> many;
    for (unsigned k = 0; k < 1000; ++k) {
        many.push_back(left->connect(right->device.gid, right->qpn(), right->device.qkey));
        ASSERT_NE(many.back(), nullptr);
    }
    i = 0;
    for (const auto &call : calls) {
        const std::uint64_t now = instructions_of(call);
        EXPECT_NEAR(static_cast<double>(now), static_cast<double>(few[i]), 100) << i;
        ++i;
    }
    for (uct_ep_h e : many) {
        ops.ep_destroy(e);
    }
    settle();
}

// --- wakeup --------------------------------------------------------------------------------------------------------------------

TEST_F(srd_delivery, the_descriptor_is_readable_from_the_event_until_the_interface_is_armed_again)
{
    fuzz::options sleeps;
    sleeps.events = true;
    open({}, sleeps);
    greet();
    auto &ops          = right->handle()->ops;
    const auto handle  = right->handle();
    int fd             = -1;
    ASSERT_EQ(ops.iface_event_fd_get(handle, &fd), UCS_OK);
    const auto readable = [fd] {
        pollfd p = {fd, POLLIN, 0};
        return poll(&p, 1, 0) == 1;
    };
    const auto arm = [&](unsigned events) {
        ucs_status_t status = UCS_ERR_BUSY;
        for (unsigned i = 0; i < 100 && status == UCS_ERR_BUSY; ++i) {
            status = ops.iface_event_arm(handle, events);
            if (status == UCS_ERR_BUSY) {
                right->progress();
            }
        }
        return status;
    };
    ASSERT_EQ(arm(UCT_EVENT_RECV), UCS_OK);
    EXPECT_FALSE(readable());
    ASSERT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_OK);
    net.carry(*left, 0);
    EXPECT_TRUE(readable());
    EXPECT_EQ(ops.iface_event_arm(handle, UCT_EVENT_RECV), UCS_ERR_BUSY); // it must be looked at first
    right->progress();
    EXPECT_EQ(keeper_.messages, 21u);
    ASSERT_EQ(arm(UCT_EVENT_SEND_COMP), UCS_OK);
    EXPECT_FALSE(readable());
    ASSERT_EQ(uct_ep_am_short(ep, 1, 0, nullptr, 0), UCS_OK); // armed for one kind, woken by the other
    net.carry(*left, 0);
    EXPECT_TRUE(readable());
    right->progress();
    EXPECT_TRUE(readable()); // still: a program that looks later must not sleep
    ASSERT_EQ(arm(UCT_EVENT_RECV), UCS_OK);
    EXPECT_FALSE(readable());
    settle();
}

// --- capabilities -------------------------------------------------------------------------------------------------------------

TEST_F(srd_delivery, what_is_offered_is_what_the_device_has)
{
    constexpr std::uint64_t puts = UCT_IFACE_FLAG_PUT_SHORT | UCT_IFACE_FLAG_PUT_BCOPY | UCT_IFACE_FLAG_PUT_ZCOPY;
    constexpr std::uint64_t gets = UCT_IFACE_FLAG_GET_BCOPY | UCT_IFACE_FLAG_GET_ZCOPY;
    open({});
    for (const bool read : {false, true}) {
        for (const bool write : {false, true}) {
            fuzz::options o;
            o.message_size = 8928;
            o.rdma_size    = 1u << 30;
            o.read         = read;
            o.write        = write;
            node n(fuzz::gid_of(3), o);
            ASSERT_EQ(n.open(13), UCS_OK);
            const uct_iface_attr_t a = attributes(n);
            EXPECT_EQ(a.cap.flags & puts, write ? puts : 0);
            EXPECT_EQ(a.cap.flags & gets, read ? gets : 0);
            EXPECT_EQ(a.cap.flags & (UCT_IFACE_FLAG_GET_SHORT | UCT_IFACE_FLAG_ATOMIC_DEVICE | UCT_IFACE_FLAG_ATOMIC_CPU), 0u);
            EXPECT_EQ(a.cap.put.max_short, write ? 256u : 0u);
            EXPECT_EQ(a.cap.put.max_bcopy, write ? 8880u : 0u);
            EXPECT_EQ(a.cap.put.max_zcopy, write ? 1u << 30 : 0u);
            EXPECT_EQ(a.cap.get.max_bcopy, read ? 8880u : 0u);
            EXPECT_EQ(a.cap.get.max_zcopy, read ? 1u << 30 : 0u);
            uct_ep_h e = n.connect(right->device.gid, right->qpn(), right->device.qkey);
            char byte[8];
            fuzz::told told;
            const uct_iov_t piece = {byte, sizeof(byte), nullptr, 0, 1};
            auto &ops             = n.handle()->ops;
            if (!write) {
                EXPECT_EQ(ops.ep_put_short(e, byte, 8, 0, 0), UCS_ERR_UNSUPPORTED);
                EXPECT_EQ(ops.ep_put_bcopy(e, pack_never, nullptr, 0, 0), UCS_ERR_UNSUPPORTED);
                EXPECT_EQ(ops.ep_put_zcopy(e, &piece, 1, 0, 0, &told), UCS_ERR_UNSUPPORTED);
            }
            if (!read) {
                EXPECT_EQ(ops.ep_get_zcopy(e, &piece, 1, 0, 0, &told), UCS_ERR_UNSUPPORTED);
            }
            EXPECT_EQ(ops.ep_get_short(e, byte, 8, 0, 0), UCS_ERR_UNSUPPORTED);
            EXPECT_EQ(ops.ep_atomic64_post(e, UCT_ATOMIC_OP_ADD, 1, 0, 0), UCS_ERR_UNSUPPORTED);
            ops.ep_destroy(e);
        }
    }
}

} // namespace
