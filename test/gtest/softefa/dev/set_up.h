/* Set-up that tests of several subjects share, on top of nic.h.
 *
 * Owns: no check but that the set-up itself worked.
 */
#pragma once

#include "softefa/dev/nic.h"

namespace nic {

/// For a queue pair that any device takes, with a domain and a completion queue of its own.
inline qp_request modest_request(port &p)
{
    qp_request r;
    r.pd           = p.pd();
    r.send_cq      = r.recv_cq = p.cq(16).h;
    r.max_send_wr  = r.max_recv_wr = 16;
    r.max_send_sge = r.max_recv_sge = 1;
    r.sq_ring_size = r.rq_ring_size = 1024;
    return r;
}

/// After a reset: as it was after open() and connect().
inline void connect_anew(queue_pair &q)
{
    q.sq_posted = q.rq_posted = 0;
    q.connect();
}

/// A queue pair of an endpoint's device whose completions are told of, and the completion queue that is for it alone.
struct told_queue_pair {
    cq_view    cq;
    queue_pair q;

    /// `recv_cq`: for its receives, 0: the same one.
    [[nodiscard]] bool open(endpoint &e, const event_pipe &channel, std::uint64_t user_handle, std::uint32_t entries = 16, handle recv_cq = 0)
    {
        cq_request r;
        r.event_fd    = channel.write_fd;
        r.user_handle = user_handle;
        cq            = e.at.cq(entries, r);
        if (!channel.ok() || cq.h == 0 || !q.open(e.at, e.pd, cq.h, recv_cq != 0 ? recv_cq : cq.h))
            return false;
        q.connect();
        return true;
    }
    void close()
    {
        EXPECT_EQ(qp_destroy(q.h), base::status::ok);
        EXPECT_EQ(cq_destroy(cq.h, nullptr), base::status::ok);
    }
};

} // namespace nic
