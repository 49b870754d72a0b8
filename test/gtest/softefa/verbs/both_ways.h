/* A mebibyte of RDMA each way between the two processes of the canary program (canary.cc), checked byte by byte.
 *
 * Each side offers its memory, reads what the other one offers and, where both have RDMA writes, writes into it; then it waits for word of the
 * other in a system call, while its memory is served. Refuses to know what surrounds the two: any failed work request is a failure.
 */
#pragma once

#include "verbs_endpoint.h"

#include <csignal>
#include <cstdio>
#include <functional>
#include <unistd.h>

namespace verbs {

inline volatile std::sig_atomic_t in_verbs = 0; ///< the thread is in a call of libibverbs, for handlers that interrupt it
template <class F> auto within_verbs(const F &call)
{
    in_verbs    = 1;
    auto result = call();
    in_verbs    = 0;
    return result;
}

class both_ways {
public:
    static constexpr std::uint32_t size = 1 << 20;

    struct greeting {
        std::uint64_t address;
        std::uint32_t rkey, writes;
        std::int64_t  pid;
    };
    greeting peer{};

    both_ways(endpoint &e, ibv_ah *ah, std::uint32_t qpn, int socket, bool may_write) : e_(e), ah_(ah), qpn_(qpn), socket_(socket), writes_(may_write) {}
    ~both_ways()
    {
        if (mr_ != nullptr) {
            EXPECT_EQ(0, ibv_dereg_mr(mr_));
        }
    }
    both_ways(const both_ways &) = delete;

    /// `side`: 0 or 1, each process one of them.
    bool open(unsigned side)
    {
        side_ = side;
        fill(offered(), side, 0);
        const int rights = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | (writes_ ? IBV_ACCESS_REMOTE_WRITE : 0);
        mr_              = ibv_reg_mr(e_.pd(), memory_.data(), memory_.size(), rights);
        if (mr_ == nullptr)
            return failed("registration", errno);
        const greeting mine{reinterpret_cast<std::uint64_t>(memory_.data()), mr_->rkey, writes_, getpid()};
        if (write(socket_, &mine, sizeof(mine)) != sizeof(mine) || read(socket_, &peer, sizeof(peer)) != sizeof(peer))
            return failed("greeting", errno);
        writes_ = writes_ && peer.writes != 0;
        return true;
    }

    /// `count` rounds, the same on both sides. In each one it reads as long as `wants_more`.
    bool rounds(unsigned count, const std::function<bool()> &wants_more = [] { return false; })
    {
        for (unsigned n = 0; n < count; ++n) {
            ++salt_;
            do {
                std::memset(local(), 0, size);
                for (unsigned k = wants_more() ? 16 : 1; k != 0; --k)
                    if (!done(within_verbs([&] { return e_.read_ex(id, qpn_, ah_, sge(), peer.address, peer.rkey); }), "read"))
                        return false;
                if (!is(local(), 1 - side_, 0, "read"))
                    return false;
            } while (wants_more());
            if (writes_) {
                fill(local(), side_, salt_);
                if (!done(within_verbs([&] { return e_.write_ex(id, qpn_, ah_, sge(), peer.address + size, peer.rkey); }), "write"))
                    return false;
            }
            if (!meet() || (writes_ && !is(written(), 1 - side_, salt_, "written by the other")) || !meet())
                return false;
        }
        return true;
    }

private:
    static constexpr std::uint64_t id = 900;

    char   *offered() { return memory_.data(); }
    char   *written() { return memory_.data() + size; } ///< by the other side
    char   *local() { return memory_.data() + 2 * std::size_t{size}; }
    ibv_sge sge() { return {reinterpret_cast<std::uint64_t>(local()), size, mr_->lkey}; }

    static std::uint32_t word(std::uint32_t i, unsigned side, unsigned salt) { return (i + salt * 40503u) * 2654435761u + side + 1; }
    static void          fill(char *at, unsigned side, unsigned salt)
    {
        for (std::uint32_t i = 0; i < size / 4; ++i)
            reinterpret_cast<std::uint32_t *>(at)[i] = word(i, side, salt);
    }
    static bool is(const char *at, unsigned side, unsigned salt, const char *what)
    {
        for (std::uint32_t i = 0; i < size / 4; ++i)
            if (reinterpret_cast<const std::uint32_t *>(at)[i] != word(i, side, salt))
                return failed(what, static_cast<int>(i * 4));
        return true;
    }
    static bool failed(const char *what, int number)
    {
        std::fprintf(stderr, "RDMA of the canary program: %s: %d\n", what, number);
        return false;
    }
    bool done(int posted, const char *what)
    {
        if (posted != 0)
            return failed(what, posted);
        for (;;)
            if (const auto c = within_verbs([&] { return e_.poll_once(); })) // the watchdog ends it
                return c->wr_id == id && c->status == IBV_WC_SUCCESS ? true : failed(what, c->status);
    }
    /// Both are here.
    bool meet()
    {
        char word = 1;
        return (write(socket_, &word, 1) == 1 && read(socket_, &word, 1) == 1) || failed("the other side is gone", errno);
    }

    endpoint         &e_;
    ibv_ah           *ah_;
    std::uint32_t     qpn_;
    int               socket_;
    bool              writes_;
    unsigned          side_ = 0, salt_ = 0;
    std::vector<char> memory_ = std::vector<char>(3 * std::size_t{size});
    ibv_mr           *mr_     = nullptr;
};

} // namespace verbs
