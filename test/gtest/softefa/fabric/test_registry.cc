/* QPN ownership and sockets of a domain's folder, also after a kill. */
#include "softefa/dev/child.h"
#include "softefa/fabric/handshake.h"
#include "softefa/fabric/private_fd.h"
#include "softefa/fabric/registry.h"
#include "softefa/fabric/segment.h"

#include <fcntl.h>
#include <set>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

namespace {

using softefa::fabric::domain_identity;
using softefa::fabric::registry;

class registry_test : public nic::device_test {
protected:
    std::uint16_t own[65536]   = {};
    std::uint64_t low_used[1024] = {};
};

TEST_F(registry_test, claims_rotate_and_never_repeat_at_once)
{
    registry r;
    ASSERT_EQ(r.open(folder.c_str(), 1), base::status::ok);
    std::set<std::uint16_t> seen;
    for (int i = 0; i < 1000; ++i) {
        auto qpn = r.claim(0, own, 255, low_used);
        ASSERT_TRUE(static_cast<bool>(qpn));
        EXPECT_TRUE(seen.insert(*qpn).second);
        r.release(0, *qpn);
    }
}

TEST_F(registry_test, the_lowest_free_number_comes_back_at_once_on_request)
{
    registry r;
    ASSERT_EQ(r.open(folder.c_str(), 1), base::status::ok);
    const auto first = r.claim(0, own, 255, low_used, true);
    ASSERT_TRUE(static_cast<bool>(first));
    r.release(0, *first);
    const auto again = r.claim(0, own, 255, low_used, true);
    ASSERT_TRUE(static_cast<bool>(again));
    EXPECT_EQ(*again, *first);
}

TEST_F(registry_test, a_umask_that_takes_rights_from_the_owner_changes_nothing)
{
    const mode_t before = umask(0777);
    registry     r, other;
    const auto   opened   = r.open(folder.c_str(), 1);
    auto         claimed  = r.claim(0, own, 255, low_used);
    auto         listener = r.listen();
    umask(before);
    ASSERT_EQ(opened, base::status::ok);
    ASSERT_TRUE(claimed && listener);
    struct stat about;
    for (const char *name : {"0000000000000001.sock", "qpn.0"}) {
        ASSERT_EQ(stat((folder + "/" + name).c_str(), &about), 0) << name;
        EXPECT_EQ(about.st_mode & 0777, 0600u) << name;
    }
    ASSERT_EQ(other.open(folder.c_str(), 2), base::status::ok);
    EXPECT_TRUE(static_cast<bool>(other.owner(0, *claimed))) << "the table can be opened";
    auto connection = other.connect(1);
    EXPECT_TRUE(static_cast<bool>(connection));
    if (connection)
        close(*connection);
    close(*listener);
}

TEST_F(registry_test, out_of_descriptors_says_nothing_about_an_owner)
{
    registry r;
    ASSERT_EQ(r.open(folder.c_str(), 1), base::status::ok);
    EXPECT_EQ(*r.owner(0, 5), 0u) << "nobody";
    rlimit before{}, none{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    none          = before;
    none.rlim_cur = 0;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    const auto seen = r.owner(7, 5); // a table that is not open yet
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_EQ(seen.error(), base::status::no_resource);
    EXPECT_EQ(*r.owner(7, 5), 0u) << "and afterwards it can tell";
}

TEST_F(registry_test, low_bits_in_use_are_left_out)
{
    registry r;
    ASSERT_EQ(r.open(folder.c_str(), 1), base::status::ok);
    for (unsigned i = 0; i < 256; ++i)
        if (i != 77)
            low_used[i / 64] |= std::uint64_t{1} << (i % 64);
    auto qpn = r.claim(0, own, 255, low_used);
    ASSERT_TRUE(static_cast<bool>(qpn));
    EXPECT_EQ(*qpn & 255, 77);
    low_used[77 / 64] |= std::uint64_t{1} << (77 % 64);
    EXPECT_EQ(r.claim(0, own, 255, low_used).error(), base::status::limit);
}

TEST_F(registry_test, owner_is_seen_by_others_until_it_is_killed)
{
    nic::child other([&](nic::pipe_end io) {
        registry r;
        if (r.open(folder.c_str(), 42) != base::status::ok)
            return 1;
        auto qpn = r.claim(3, own, 255, low_used);
        io.put_word(qpn ? *qpn : 0);
        std::uint32_t word;
        return io.get(&word) ? 0 : 2;
    });
    std::uint32_t qpn = 0;
    ASSERT_TRUE(other.end.get(&qpn));
    ASSERT_NE(qpn, 0u);
    registry r;
    ASSERT_EQ(r.open(folder.c_str(), 43), base::status::ok);
    EXPECT_EQ(*r.owner(3, static_cast<std::uint16_t>(qpn)), 42u);
    EXPECT_EQ(*r.owner(2, static_cast<std::uint16_t>(qpn)), 0u) << "another device has QPNs of its own";
    for (unsigned i = 0; i < 65536; ++i) // only that QPN is left: taken
        own[i] = i == qpn ? 0 : 1;
    EXPECT_EQ(r.claim(3, own, 255, low_used).error(), base::status::limit);
    other.kill(SIGKILL);
    other.reap();
    EXPECT_EQ(*r.owner(3, static_cast<std::uint16_t>(qpn)), 0u);
    auto taken = r.claim(3, own, 255, low_used);
    ASSERT_TRUE(static_cast<bool>(taken));
    EXPECT_EQ(*taken, qpn);
}

TEST_F(registry_test, forked_child_does_not_keep_a_qpn)
{
    nic::child owner_process([&](nic::pipe_end io) {
        registry r;
        if (r.open(folder.c_str(), 42) != base::status::ok)
            return 1;
        auto qpn = r.claim(0, own, 255, low_used);
        const pid_t grandchild = fork();
        if (grandchild == 0) {
            char byte;
            (void)!read(io.fd, &byte, 1); // until the test lets go
            _exit(0);
        }
        io.put_word(qpn ? *qpn : 0);
        pause();
        return 0;
    });
    std::uint32_t qpn = 0;
    ASSERT_TRUE(owner_process.end.get(&qpn));
    registry r;
    ASSERT_EQ(r.open(folder.c_str(), 43), base::status::ok);
    EXPECT_EQ(*r.owner(0, static_cast<std::uint16_t>(qpn)), 42u);
    owner_process.kill(SIGKILL);
    owner_process.reap();
    EXPECT_EQ(*r.owner(0, static_cast<std::uint16_t>(qpn)), 0u);
    owner_process.end.put_word(1);
}

TEST_F(registry_test, open_folder_of_others_is_refused)
{
    ASSERT_EQ(chmod(folder.c_str(), 0755), 0);
    registry r;
    EXPECT_EQ(r.open(folder.c_str(), 1), base::status::permission);
}

TEST_F(registry_test, sweep_removes_dead_sockets_and_keeps_live_ones)
{
    nic::child dead([&](nic::pipe_end io) {
        registry r;
        const bool ok = r.open(folder.c_str(), 0xdead) == base::status::ok && static_cast<bool>(r.listen());
        io.put_word(ok);
        pause();
        return 0;
    });
    ASSERT_TRUE(dead.end.wait_word(1));
    registry live, late;
    ASSERT_EQ(live.open(folder.c_str(), 0xa11e), base::status::ok);
    auto listener = live.listen();
    ASSERT_TRUE(static_cast<bool>(listener));
    auto there = live.connect(0xdead);
    ASSERT_TRUE(static_cast<bool>(there));
    ::close(*there);
    dead.kill(SIGKILL);
    dead.reap();
    EXPECT_EQ(live.connect(0xdead).error(), base::status::peer_gone);
    EXPECT_EQ(access((folder + "/000000000000dead.sock").c_str(), F_OK), 0);
    ASSERT_EQ(late.open(folder.c_str(), 0x1a7e), base::status::ok);
    auto second = late.listen();
    ASSERT_TRUE(static_cast<bool>(second));
    EXPECT_NE(access((folder + "/000000000000dead.sock").c_str(), F_OK), 0);
    EXPECT_EQ(access((folder + "/000000000000a11e.sock").c_str(), F_OK), 0);
    ::close(*listener);
    ::close(*second);
}

TEST_F(registry_test, sweep_removes_only_what_is_known_to_be_dead)
{
    auto bound = [&](const char *name, int type) {
        const int   fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", folder.c_str(), name);
        EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr *>(&address), sizeof(address)), 0);
        return fd;
    };
    auto there = [&](const char *name) { return access((folder + "/" + name).c_str(), F_OK) == 0; };
    const int other_kind = bound("00000000000000aa.sock", SOCK_DGRAM); // cannot be connected to, which does not say that it is dead
    ::close(bound("00000000000000bb.new", SOCK_SEQPACKET));
    ::close(bound("00000000000000cc.new", SOCK_SEQPACKET));
    ::close(bound("00000000000000dd.sockets", SOCK_SEQPACKET));
    ::close(bound("ee.sock", SOCK_SEQPACKET));
    const timespec long_ago[2] = {{1000, 0}, {1000, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, (folder + "/00000000000000cc.new").c_str(), long_ago, 0), 0);
    registry r;
    ASSERT_EQ(r.open(folder.c_str(), 0x1a7e), base::status::ok);
    auto listener = r.listen();
    ASSERT_TRUE(static_cast<bool>(listener));
    EXPECT_TRUE(there("00000000000000aa.sock"));
    EXPECT_TRUE(there("00000000000000bb.new")) << "about to listen";
    EXPECT_FALSE(there("00000000000000cc.new"));
    EXPECT_TRUE(there("00000000000000dd.sockets")) << "not ours";
    EXPECT_TRUE(there("ee.sock")) << "not ours either";
    EXPECT_TRUE(there("0000000000001a7e.sock"));
    EXPECT_EQ(r.connect(0xaa).error(), base::status::no_resource);
    ::close(*listener);
    ::close(other_kind);
}

TEST_F(registry_test, identity_depends_on_folder_and_domain)
{
    EXPECT_EQ(domain_identity(folder.c_str(), "a"), domain_identity(folder.c_str(), "a"));
    EXPECT_NE(domain_identity(folder.c_str(), "a"), domain_identity(folder.c_str(), "b"));
    const std::string other = folder + "/other";
    EXPECT_NE(domain_identity(folder.c_str(), "a"), domain_identity(other.c_str(), "a"));
}

TEST_F(registry_test, segments_that_could_shrink_are_refused)
{
    using namespace softefa::fabric;
    auto good = segment_create(9);
    ASSERT_TRUE(static_cast<bool>(good));
    EXPECT_NE(ftruncate(good->fd, 0), 0) << "sealed";
    auto copy = segment_open_peer(dup(good->fd), 9);
    ASSERT_TRUE(static_cast<bool>(copy));
    EXPECT_EQ(segment_open_peer(dup(good->fd), 10).error(), base::status::protocol) << "another instance's";
    const int loose = raw_memfd("loose", true);
    ASSERT_EQ(ftruncate(loose, segment_size), 0);
    EXPECT_EQ(segment_open_peer(loose, 9).error(), base::status::protocol);
    EXPECT_EQ(segment_open_peer(eventfd(0, 0), 9).error(), base::status::protocol);
    segment_close(*copy);
    segment_close(*good);
}

TEST_F(registry_test, a_low_file_size_limit_is_an_error_and_no_signal)
{
    nic::child limited([&](nic::pipe_end) {
        registry r;
        if (r.open(folder.c_str(), 1) != base::status::ok)
            return 1;
        const rlimit small{4096, 4096};
        setrlimit(RLIMIT_FSIZE, &small);
        if (r.claim(0, own, 255, low_used).error() != base::status::limit)
            return 2;
        return softefa::fabric::segment_create(1).error() == base::status::limit ? 0 : 3;
    });
    EXPECT_EQ(limited.reap(), 0);
}

TEST_F(registry_test, handshake_takes_only_proper_messages)
{
    using namespace softefa::fabric;
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    const int event = eventfd(0, EFD_NONBLOCK);
    auto      good  = segment_create(9);
    EXPECT_EQ(message_receive(pair[1]).error(), base::status::no_resource);
    ASSERT_EQ(message_send(pair[0], {message_kind::hello, 9, 8, good->fd, event}), base::status::ok);
    auto m = message_receive(pair[1]);
    ASSERT_TRUE(static_cast<bool>(m));
    EXPECT_EQ(m->instance, 9u);
    EXPECT_EQ(m->to, 8u);
    ::close(m->segment);
    ::close(m->wake);
    ASSERT_EQ(message_send(pair[0], {message_kind::hello, 9, 8}), base::status::ok); // hello without descriptors
    EXPECT_EQ(message_receive(pair[1]).error(), base::status::protocol);
    ASSERT_EQ(message_send(pair[0], {message_kind::bye, 9, 8, good->fd, event}), base::status::ok); // bye with them
    EXPECT_EQ(message_receive(pair[1]).error(), base::status::protocol);
    {
        // Nothing but descriptors: they are given back. Descriptors are numbered from the lowest free one.
        const int lowest = dup(event);
        ::close(lowest);
        union { cmsghdr header; char bytes[CMSG_SPACE(sizeof(int))]; } space{};
        msghdr head{};
        head.msg_control    = &space;
        head.msg_controllen = sizeof(space);
        cmsghdr *c = CMSG_FIRSTHDR(&head);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type  = SCM_RIGHTS;
        c->cmsg_len   = CMSG_LEN(sizeof(int));
        std::memcpy(CMSG_DATA(c), &event, sizeof(int));
        ASSERT_EQ(sendmsg(pair[0], &head, 0), 0);
        EXPECT_EQ(message_receive(pair[1]).error(), base::status::peer_gone);
        const int again = dup(event);
        EXPECT_EQ(again, lowest);
        ::close(again);
    }
    ASSERT_EQ(::send(pair[0], "nonsense", 8, 0), 8);
    EXPECT_EQ(message_receive(pair[1]).error(), base::status::protocol);
    int pidfd = -1;
    EXPECT_EQ(peer_identify(pair[1], &pidfd), base::status::ok);
    EXPECT_GE(pidfd, 0);
    ::close(pidfd);
    ::close(pair[0]);
    EXPECT_EQ(message_receive(pair[1]).error(), base::status::peer_gone);
    ::close(pair[1]);
    ::close(event);
    segment_close(*good);
}

/// Who sends more descriptors than belong to a hello breaks the protocol; where this process has no number for them, nobody does. Nothing leaks.
TEST_F(registry_test, handshake_tells_a_shortage_of_descriptors_from_a_breach)
{
    using namespace softefa::fabric;
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    const int event  = eventfd(0, EFD_NONBLOCK);
    const int lowest = dup(event);
    ::close(lowest);
    // A whole hello, with too many descriptors: the kernel cuts off what has no room here, and that excuses nothing.
    struct { std::uint32_t magic = 0x45464148, version = segment_version, kind = 1, reserved = 0; std::uint64_t instance = 1, to = 2; } hello;
    const auto hello_with = [&](unsigned count) {
        union { cmsghdr header; char bytes[CMSG_SPACE(8 * sizeof(int))]; } space{};
        iovec  part{&hello, sizeof(hello)};
        msghdr head{};
        head.msg_iov        = &part;
        head.msg_iovlen     = 1;
        head.msg_control    = &space;
        head.msg_controllen = CMSG_SPACE(count * sizeof(int));
        cmsghdr *c = CMSG_FIRSTHDR(&head);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type  = SCM_RIGHTS;
        c->cmsg_len   = CMSG_LEN(count * sizeof(int));
        for (unsigned i = 0; i < count; ++i)
            std::memcpy(CMSG_DATA(c) + i * sizeof(int), &event, sizeof(int));
        return sendmsg(pair[0], &head, 0) == static_cast<ssize_t>(sizeof(hello));
    };
    const auto nothing_leaked = [&] {
        const int again = dup(event);
        EXPECT_EQ(again, lowest);
        ::close(again);
    };
    for (const unsigned count : {1u, 3u, 4u, 5u, 8u}) {
        ASSERT_TRUE(hello_with(count));
        EXPECT_EQ(message_receive(pair[1]).error(), base::status::protocol) << count;
        nothing_leaked();
    }
    // A proper one, where there is no number, or one, for its descriptors.
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (const unsigned room : {0u, 1u}) {
        rlimit few   = before;
        few.rlim_cur = static_cast<rlim_t>(lowest) + room; // the lowest free number is given first
        ASSERT_TRUE(hello_with(2));
        ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
        EXPECT_FALSE(fds_left(2));
        EXPECT_EQ(fds_left(1), room == 1);
        EXPECT_EQ(message_receive(pair[1]).error(), base::status::limit) << room;
        ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
        nothing_leaked();
    }
    EXPECT_TRUE(fds_left(2));
    nothing_leaked();
    ::close(pair[0]);
    ::close(pair[1]);
    ::close(event);
}

} // namespace
