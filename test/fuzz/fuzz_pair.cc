/* Two real interfaces and a network that reorders, delays, refuses and loses them: the protocol as a whole.
 *
 * Owns: what each side sent and what the other was handed, numbered by life of the sending endpoint. Bytes are commands: post
 * a message, a put or a get into the other side's memory, fence, flush, queue, progress, sleep, carry this or that, end a message in
 * error, restart a side with the same QPN, let time pass.
 *
 * The oracle: on one endpoint messages arrive in the order in which they were accepted, each once, none invented, and none
 * missing that was not withdrawn; when faults stop and both sides progress, everything that was accepted has arrived, or the endpoint was told
 * of its failure. A side with events then progresses only when it would be woken: a lost wake-up hangs. Fences, flushes and
 * completions: user.h; here a message is consumed when the other side's handler has run. Every other check: fake_verbs.h, node.h.
 */
#include "net.h"
#include "user.h"

#include <cstring>

namespace {

using fuzz::input;
using fuzz::node;

fuzz::tally sequences{"sequences"}, accepted{"accepted"}, delivered{"delivered"}, failures{"endpoints failed"},
    restarts{"restarts"}, lost{"ended in error"}, complete{"sequences that ended with all delivered"};

constexpr unsigned shared_size = 32 * 1024;

struct side {
    std::unique_ptr<node> n;
    std::unique_ptr<fuzz::region> shared; ///< what the other side puts to and gets from
    std::unique_ptr<fuzz::user> u;        ///< before the node in time: it watches its device
    std::vector<std::uint32_t> talks;     ///< by the user's number of the endpoint's life
    bool asleep          = false;
    uct_ep_h ep          = nullptr;
    std::uint32_t life   = 0; ///< the user's number of the endpoint's life
    std::uint32_t talk   = 0; ///< number of the endpoint's life
    bool failed          = false;
    std::uint16_t qpn    = 0;
};

struct request : uct_pending_req_t {
    struct world *w;
    unsigned side, what;
    fuzz::place when;
    bool queued = false;
};

struct world {
    input &in;
    side sides[2];
    fuzz::network net;
    struct stream {
        unsigned side;
        std::uint32_t life; ///< the user's number
        std::uint32_t sent = 0, received = 0;
    };
    std::vector<stream> streams; ///< by number of the endpoint's life
    std::vector<std::unique_ptr<request>> requests;

    explicit world(input &i) : in(i) {}

    static ucs_status_t on_message(void *arg, void *payload, std::size_t length, unsigned)
    {
        auto *w = static_cast<world *>(arg);
        std::uint64_t header;
        FUZZ_CHECK(length >= sizeof(header), "%zu bytes", length);
        std::memcpy(&header, payload, sizeof(header));
        const auto number = static_cast<std::uint32_t>(header >> 32);
        FUZZ_CHECK(number < w->streams.size(), "a message of no endpoint");
        stream &s = w->streams[number];
        w->pass_withdrawn(s, static_cast<std::uint32_t>(header));
        FUZZ_CHECK(static_cast<std::uint32_t>(header) == s.received, "message %u instead of %u",
                   static_cast<unsigned>(header), s.received);
        FUZZ_CHECK(s.received < s.sent, "a message that was never accepted");
        for (std::size_t i = sizeof(header); i < length; ++i) {
            FUZZ_CHECK(static_cast<std::uint8_t *>(payload)[i] == static_cast<std::uint8_t>(header), "byte %zu changed", i);
        }
        ++s.received;
        ++delivered.value;
        return UCS_OK;
    }

    /// Messages before `end` that their sender withdrew never come.
    void pass_withdrawn(stream &s, std::uint32_t end) const
    {
        while (s.received < end && s.received < s.sent && sides[s.side].u->message_at(s.life, s.received).withdrawn) {
            ++s.received;
        }
    }

    void open(unsigned i, const fuzz::options &o)
    {
        side &s = sides[i];
        if (!s.n) {
            s.n = std::make_unique<node>(fuzz::gid_of(1 + i), o);
            net.nodes.push_back(s.n.get());
            s.shared = std::make_unique<fuzz::region>(s.n->device, shared_size);
            std::memset(s.shared->bytes.get(), 0x11, shared_size);
            s.u           = std::make_unique<fuzz::user>(*s.n);
            s.u->consumed = [this, i](const fuzz::operation &o) { return streams[sides[i].talks[o.ep]].received > o.index; };
        }
        s.qpn = static_cast<std::uint16_t>(20 + i);
        FUZZ_CHECK(s.n->open(s.qpn) == UCS_OK, "no interface");
        uct_iface_set_am_handler(s.n->handle(), 2, on_message, this, 0);
    }

    void connect(unsigned i)
    {
        side &s = sides[i], &other = sides[1 - i];
        s.ep    = s.n->connect(other.n->device.gid, other.qpn, other.n->device.qkey);
        FUZZ_CHECK(s.ep != nullptr, "no endpoint");
        s.failed = false;
        s.talk   = static_cast<std::uint32_t>(streams.size());
        s.life   = s.u->begin_endpoint();
        s.talks.push_back(s.talk);
        streams.push_back({i, s.life});
    }

    void disconnect(unsigned i)
    {
        if (sides[i].ep != nullptr) {
            const uct_ep_h ep = sides[i].ep;
            sides[i].n->handle()->ops.ep_pending_purge(
                ep, [](uct_pending_req_t *r, void *) { static_cast<request *>(r)->queued = false; }, nullptr);
            sides[i].ep = nullptr;
            sides[i].n->handle()->ops.ep_destroy(ep);
            sides[i].u->end_endpoint(sides[i].life);
        }
    }

    ucs_status_t post_message(side &s, unsigned how)
    {
        const std::uint64_t header = std::uint64_t{s.talk} << 32 | streams[s.talk].sent;
        const auto fill            = static_cast<std::uint8_t>(header);
        std::uint8_t bytes[900];
        std::memset(bytes, fill, sizeof(bytes));
        static constexpr unsigned sizes[] = {0, 12, 100, 800};
        const unsigned size               = sizes[how & 3];
        ucs_status_t status;
        if (how & 4) {
            status = s.u->message_zcopy(s.ep, s.life, 2, &header, sizeof(header), size, fill, how & 8);
        } else if (size <= 200) {
            status = s.u->message(s.life, false, [&] { return uct_ep_am_short(s.ep, 2, header, bytes, size); });
        } else {
            std::memcpy(bytes, &header, sizeof(header));
            status = s.u->message(s.life, false, [&] {
                return uct_ep_am_bcopy(
                    s.ep, 2, [](void *to, void *from) { std::memcpy(to, from, 800); return std::size_t{800}; }, bytes, 0);
            });
        }
        if (status == UCS_OK || status == UCS_INPROGRESS) {
            ++streams[s.talk].sent;
            ++accepted.value;
        }
        return status;
    }

    ucs_status_t post_one_sided(side &s, const side &other, unsigned how)
    {
        static constexpr unsigned sizes[] = {1, 12, 100, 700};
        const unsigned size               = sizes[how & 3];
        const unsigned at                 = (s.u->count() * 1024) % shared_size;
        const auto remote                 = reinterpret_cast<std::uint64_t>(other.shared->bytes.get()) + at;
        const std::uint32_t key           = other.shared->mem.rkey + ((how & 0x78) == 0x78 ? 1 : 0); // now and then a wrong one
        return (how & 4) ? s.u->put(s.ep, s.life, how >> 3, size, remote, key) : s.u->get(s.ep, s.life, how >> 3, size, remote, key);
    }

    ucs_status_t post(unsigned i, unsigned how)
    {
        side &s = sides[i];
        if (s.ep == nullptr) {
            return UCS_OK;
        }
        const ucs_status_t status = (how & 0x80) ? post_one_sided(s, sides[1 - i], how) : post_message(s, how);
        FUZZ_CHECK(status == UCS_OK || status == UCS_INPROGRESS || status == UCS_ERR_NO_RESOURCE ||
                       ((how & 0x80) && (status == UCS_ERR_UNSUPPORTED || status == UCS_ERR_INVALID_PARAM)) ||
                       s.n->f->counters.get(srd::counter::peers_failed) != 0,
                   "a post was refused with %d", status);
        return status;
    }

    void queue(unsigned i)
    {
        const side &s = sides[i];
        if (s.ep == nullptr || requests.size() >= 200) {
            return;
        }
        auto q  = std::make_unique<request>();
        q->w    = this;
        q->side = i;
        q->what = in.u8();
        q->when = s.u->now();
        q->func = [](uct_pending_req_t *self) {
            auto *r = static_cast<request *>(self);
            side &s = r->w->sides[r->side];
            FUZZ_CHECK(r->queued, "a request is called that is not queued");
            s.u->turn_begin(s.life, r->when);
            const ucs_status_t status = r->w->post(r->side, r->what);
            s.u->turn_end(s.life);
            r->queued = status == UCS_ERR_NO_RESOURCE;
            return r->queued ? UCS_ERR_NO_RESOURCE : UCS_OK;
        };
        q->queued = true;
        if (s.n->handle()->ops.ep_pending_add(s.ep, q.get(), 0) == UCS_OK) {
            requests.push_back(std::move(q));
        }
    }

    bool is_queued(unsigned i) const
    {
        for (const auto &q : requests) {
            if (q->queued && q->side == i) {
                return true;
            }
        }
        return false;
    }

    /// Fences, flushes, queued requests, sleep.
    void order(unsigned i, unsigned what)
    {
        side &s = sides[i];
        if (s.ep == nullptr) {
            return;
        }
        switch (what & 7) {
        case 0: case 1:
            s.u->fence(s.ep, s.life);
            return;
        case 2:
            s.u->fence_all();
            return;
        case 3:
            (void)s.u->flush(s.ep, s.life, false);
            return;
        case 4:
            if ((what & 0x30) == 0) {
                (void)s.u->flush(s.ep, s.life, true);
            } else {
                s.u->flush_all();
            }
            return;
        case 5:
            s.u->sleep();
            return;
        default:
            queue(i);
            return;
        }
    }

    void progress(unsigned i, bool timers)
    {
        node &n = *sides[i].n;
        (void)(timers ? n.progress_timers() : n.progress());
        n.check_conservation();
        n.check_receives();
    }

    void carry(unsigned i, unsigned which)
    {
        node &n = *sides[i].n;
        if (!n.device.sends.empty() && sides[1 - i].n->device.completions.size() < 100 && n.device.completions.size() < 100) {
            net.carry(n, which % n.device.sends.size());
        }
    }

    void step()
    {
        const unsigned command = in.u8(), i = command & 1;
        switch (command >> 4) {
        case 0: case 1: case 2: case 3:
            for (unsigned k = 0; k <= ((command >> 1) & 7); ++k) {
                post(i, in.u8());
            }
            return;
        case 4: case 5: case 6: case 7:
            carry(i, in.u8());
            return;
        case 8:
            for (unsigned k = 0; k < 16; ++k) {
                carry(i, 0);
            }
            return;
        case 9: case 10: case 11:
            progress(i, false);
            return;
        case 12:
            fake::clock_ns += std::uint64_t{1'000} << (in.u8() % 18);
            progress(i, true);
            return;
        case 13: { // a message is lost with its connection
            node &n = *sides[i].n;
            if (!n.device.sends.empty() && (in.u8() & 3) == 0 && n.device.completions.size() < 100) {
                n.device.complete_send(in.u8() % n.device.sends.size(), IBV_WC_RESP_TIMEOUT_ERR, 13);
                ++lost.value;
            } else {
                n.device.fail_post_send = in.u8() & 3;
            }
            return;
        }
        case 14: // a new endpoint in place of one that failed
            if (sides[i].failed) {
                disconnect(i);
                connect(i);
            } else {
                order(i, in.u8());
            }
            return;
        default: // this side ends and comes back with the same QPN, another qkey
            if ((in.u8() & 7) == 0) {
                ++restarts.value;
                disconnect(i);
                sides[i].n->close();
                sides[i].u->check_closed();
                sides[i].n->device.polled_receives = 0; // its counters begin anew, too
                open(i, sides[i].n->opts);
                connect(i);
                disconnect(1 - i);
                connect(1 - i);
            } else {
                order(i, in.u8());
            }
            return;
        }
    }

    /// A side that has events progresses as a program does that sleeps whenever it may.
    void live(unsigned i)
    {
        side &s = sides[i];
        if (s.asleep && !s.u->is_woken()) {
            return;
        }
        for (unsigned k = 0; k < 200; ++k) {
            if (s.n->opts.events) {
                progress(i, false);
                s.asleep = s.u->arm();
                if (s.asleep) {
                    return;
                }
            } else {
                progress(i, true);
                return;
            }
        }
    }

    /// Faults stop: all that was accepted on the endpoints that live arrives.
    void settle()
    {
        for (side &s : sides) {
            s.n->device.fail_post_send = 0;
            s.asleep                   = false;
        }
        for (unsigned round = 0; round < 3000; ++round) {
            bool quiet = true;
            for (unsigned i = 0; i < 2; ++i) {
                fake::clock_ns += 10'000'000;
                live(i);
                for (unsigned k = 0; k < 64 && !sides[i].n->device.sends.empty(); ++k) {
                    carry(i, 0);
                }
                stream &s = streams[sides[i].talk];
                pass_withdrawn(s, s.sent);
                quiet = quiet && (sides[i].failed || (s.received == s.sent && !is_queued(i)));
            }
            if (quiet) {
                complete.value += !sides[0].failed && !sides[1].failed;
                return;
            }
        }
        FUZZ_CHECK(false, "%u of %u and %u of %u arrived, and nobody was told of a failure",
                   streams[sides[0].talk].received, streams[sides[0].talk].sent, streams[sides[1].talk].received,
                   streams[sides[1].talk].sent);
    }
};

ucs_status_t on_error(void *arg, uct_ep_h ep, ucs_status_t)
{
    auto *w = static_cast<world *>(arg);
    for (side &s : w->sides) {
        if (s.ep == ep) {
            FUZZ_CHECK(!s.failed, "a failure is told twice");
            s.failed = true;
            ++failures.value;
        }
    }
    return UCS_OK;
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int *, char ***)
{
    fuzz::set_up();
    std::atexit([] {
        std::fprintf(stderr, "fuzz_pair:");
        for (const fuzz::tally &t : {sequences, accepted, delivered, failures, restarts, lost, complete}) {
            std::fprintf(stderr, " %s %llu", t.name, static_cast<unsigned long long>(t.value));
        }
        fuzz::user::print_tallies();
    });
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    input in(data, size);
    fake::clock_ns   = 1'000'000'000'000;
    fake::clock_step = 20'000;
    fake::uuid_state = 1;
    ++sequences.value;
    world w(in);
    static constexpr unsigned queues[] = {2, 4, 16, 64};
    const unsigned choice              = in.u8();
    const unsigned second              = in.u8();
    for (unsigned i = 0; i < 2; ++i) {
        fuzz::options o;
        o.rx_queue_len = queues[(choice >> (2 * i)) & 3];
        o.rx_max_bufs  = (choice & 16) ? o.rx_queue_len : 1u << 20;
        o.rx_queue_max = o.rx_queue_len;
        o.tx_queue_len = (choice & 32) ? 8 : 64;
        o.tx_max_bufs  = (choice & 64) ? 1 : 64;
        o.events       = choice & 128;
        o.read         = (second & 3) != 1;
        o.write        = (second & 3) != 2;
        o.inline_wide  = (second & 12) != 0 ? 80 : 0;
        o.wide_refused = (second & 12) == 12;
        o.on_error     = on_error;
        o.arg          = &w;
        w.open(i, o);
    }
    w.connect(0);
    w.connect(1);
    for (unsigned steps = 0; steps < 3000 && !in.empty(); ++steps) {
        w.step();
    }
    w.settle();
    w.disconnect(0);
    w.disconnect(1);
    for (side &s : w.sides) {
        s.n->close();
        s.u->check_closed();
    }
    for (const auto &q : w.requests) {
        FUZZ_CHECK(!q->queued, "a request was lost");
    }
    return 0;
}
