/* One real interface against a hostile world: completions of any kind, in any order, between legal calls of its user.
 *
 * Owns: what a run is: bytes are commands (see `step`): what the remotes send (remotes.h), what comes of each post, calls of a
 * user that posts, flushes, waits, cancels, sleeps, keeps descriptors, destroys endpoints in callbacks; shortages.
 * Refuses to know: whether what happens is right. receive_oracle.h judges what is delivered, user.h the user's own operations, node.h and
 * fake_verbs.h that what arrived is accounted for, receives stay posted and nothing is left. Here: kept descriptors keep their contents.
 */
#include "remotes.h"
#include "user.h"

#include <algorithm>
#include <cstring>

namespace {

using fuzz::input;
using fuzz::node;

fuzz::tally sequences{"sequences"}, receive_inputs{"receive inputs"}, local_calls{"local calls"}, send_results{"send results"},
    deliveries{"deliveries"}, starved{"not receivable"}, opens_failed{"opens that failed"};

struct kept {
    std::uint8_t *payload;
    std::uint32_t number;
    unsigned length;
};

struct request : uct_pending_req_t {
    struct world *w;
    unsigned ep;
    unsigned what = 0; ///< chosen when it was queued
    fuzz::place when;
    bool queued = false;
    unsigned tries = 0;
};

struct world {
    node n;
    input &in;
    fuzz::receive_oracle oracle{n, {}, {}};
    fuzz::remotes remotes{n, in, oracle};
    fuzz::user u{n};
    std::vector<fuzz::remote *> talks_to; ///< by number of the endpoint's life
    std::vector<kept> held;
    struct endpoint {
        uct_ep_h handle = nullptr;
        unsigned reports = 0;
        std::uint32_t life = 0;
    } eps[6];
    std::vector<std::unique_ptr<request>> requests;
    unsigned policy = 0; ///< what callbacks do
    unsigned depth  = 0; ///< of callbacks inside one another
    bool faults     = false; ///< posting or registering may have failed: no promise about receives
    bool closing    = false;

    std::uint32_t one_sided_posts = 0;
    bool cancelling               = false; ///< inside a flush with cancel of ...
    std::uint32_t cancelled_life  = 0;

    world(input &i, const fuzz::options &o) : n(fake::gid_bytes{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 1}, o), in(i)
    {
        u.consumed = [this](const fuzz::operation &o) {
            const fuzz::remote &m = *talks_to[o.ep];
            return m.lied || m.told > o.psn;
        };
        u.on_completion = [this] {
            if ((policy & 4) && !closing && depth < 2) {
                ++depth;
                act(policy >> 4);
                --depth;
            }
        };
    }

    // --- the user ------------------------------------------------------------------------------------------------------------

    ucs_status_t on_message(unsigned id, std::uint8_t *payload, unsigned length, unsigned flags)
    {
        ++deliveries.value;
        FUZZ_CHECK(!closing, "a handler runs while the interface closes");
        const std::uint32_t number = oracle.delivered(id, payload, length);
        if ((policy & 6) && depth < 2) {
            ++depth;
            act((policy >> 3) + length);
            --depth;
        }
        // A message is handed over with the right to keep it, or not.
        if ((flags & UCT_CB_PARAM_FLAG_DESC) && (policy & 1) && length >= 4 && held.size() < 200) {
            held.push_back({payload, number, length}); // last: what was called above must not release it
            return UCS_INPROGRESS;
        }
        return UCS_OK;
    }

    void release_one(unsigned which)
    {
        if (held.empty()) {
            return;
        }
        const kept k = held[which % held.size()];
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(which % held.size()));
        oracle.check_contents(k.payload, k.length, k.number);
        uct_recv_desc_t *desc;
        std::uint8_t *begin = k.payload - n.opts.headroom;
        std::memcpy(&desc, begin - sizeof(desc), sizeof(desc));
        desc->cb(desc, begin);
    }

    uct_ep_h ep_at(unsigned which) { return eps[which % std::size(eps)].handle; }

    void create(unsigned slot, unsigned r)
    {
        endpoint &e = eps[slot % std::size(eps)];
        if (e.handle == nullptr) {
            fuzz::remote &m = remotes.all[r];
            e.handle        = n.connect(m.gid, m.qpn, m.qkey);
            e.reports       = 0;
            e.life          = u.begin_endpoint();
            talks_to.push_back(&m);
        }
    }

    void purge(uct_ep_h ep)
    {
        n.handle()->ops.ep_pending_purge(
            ep, [](uct_pending_req_t *req, void *) { static_cast<request *>(req)->queued = false; }, nullptr);
    }

    void destroy(unsigned slot)
    {
        endpoint &e       = eps[slot % std::size(eps)];
        const uct_ep_h ep = e.handle;
        if (ep != nullptr && !(cancelling && e.life == cancelled_life)) { // not under the feet of a call on itself
            purge(ep); // as UCP does: destroying with requests queued is not allowed
            e.handle                 = nullptr; // callbacks of destroy must not use it again
            const std::uint32_t life = e.life;
            n.handle()->ops.ep_destroy(ep);
            u.end_endpoint(life);
        }
    }

    ucs_status_t send(const endpoint &e, unsigned how, unsigned size_choice)
    {
        static constexpr unsigned sizes[] = {0, 8, 20, 100, 248, 500, 900, 2000};
        const unsigned size               = sizes[size_choice % 8];
        std::uint8_t bytes[2048]          = {};
        auto &ops                         = n.handle()->ops;
        const uct_ep_h ep                 = e.handle;
        const auto id                     = static_cast<std::uint8_t>(how % 64 == 7 ? 40 : how % 4);
        ++local_calls.value;
        switch (how % 4) {
        case 0:
            return u.message(e.life, false, [&] { return ops.ep_am_short(ep, id, 1, bytes, size); });
        case 1: {
            std::size_t packed = std::min<std::size_t>(size, n.opts.message_size - fuzz::long_size);
            return u.message(e.life, false, [&] {
                return ops.ep_am_bcopy(
                    ep, id,
                    [](void *to, void *a) {
                        std::memset(to, 1, *static_cast<std::size_t *>(a));
                        return *static_cast<std::size_t *>(a);
                    },
                    &packed, 0);
            });
        }
        case 2: {
            uct_iov_t iov[2] = {{bytes, 5, nullptr, 7, 2}, {bytes, size, nullptr, 0, 1}};
            return u.message(e.life, false, [&] { return ops.ep_am_short_iov(ep, id, iov, 2); });
        }
        default:
            return u.message_zcopy(ep, e.life, id, bytes, size_choice % 40, size, 1, how & 8);
        }
    }

    /// A put or get. Each has memory of its own at the remote, which is nowhere: only the device would look.
    ucs_status_t one_sided(const endpoint &e, unsigned how)
    {
        static constexpr unsigned sizes[] = {1, 8, 64, 200, 900, 5000};
        const unsigned size               = sizes[(how >> 4) % 6];
        const std::uint64_t remote        = std::uint64_t{++one_sided_posts} << 16;
        ++local_calls.value;
        return (how & 8) ? u.put(e.handle, e.life, how & 7, size, remote, 0x7000 + how) :
                           u.get(e.handle, e.life, how & 7, size, remote, 0x7000 + how);
    }

    ucs_status_t post(const endpoint &e, unsigned what, unsigned again)
    {
        return (what & 0x80) ? one_sided(e, what + again) : send(e, what + again, (what >> 3) + again);
    }

    void queue(unsigned slot)
    {
        const uct_ep_h ep = ep_at(slot);
        if (ep == nullptr || requests.size() > 64) {
            return;
        }
        auto q  = std::make_unique<request>();
        q->w    = this;
        q->ep   = slot % std::size(eps);
        q->what = in.u8();
        q->when = u.now();
        q->func = [](uct_pending_req_t *self) {
            auto *r = static_cast<request *>(self);
            world &w = *r->w;
            FUZZ_CHECK(r->queued, "a request is called that is not queued");
            const endpoint e = w.eps[r->ep];
            w.u.turn_begin(e.life, r->when);
            const ucs_status_t status = w.post(e, r->what, r->tries);
            if (status != UCS_ERR_NO_RESOURCE && (r->what & 0x48) == 0x40) {
                w.u.fence(e.handle, e.life); // orders the rest of this request, too
            }
            w.u.turn_end(e.life);
            if (status == UCS_ERR_NO_RESOURCE) {
                return UCS_ERR_NO_RESOURCE;
            }
            if (++r->tries % 4 == 1) {
                return UCS_INPROGRESS;
            }
            r->queued = false;
            return UCS_OK;
        };
        q->queued = true;
        if (n.handle()->ops.ep_pending_add(ep, q.get(), 0) == UCS_OK) {
            requests.push_back(std::move(q));
        }
    }

    /// One call of the user, also from inside callbacks.
    void act(unsigned choice)
    {
        ++local_calls.value;
        const unsigned slot = choice >> 4;
        const endpoint e    = eps[slot % std::size(eps)];
        const uct_ep_h ep   = e.handle;
        if (ep == nullptr) {
            create(slot, slot % fuzz::remote_count);
            return;
        }
        switch (choice & 15) {
        case 0: case 1: case 2:
            (void)send(e, in.u8(), choice >> 2);
            break;
        case 3: case 4: case 5:
            (void)one_sided(e, in.u8());
            break;
        case 6:
            (void)u.flush(ep, e.life, false);
            break;
        case 7:
            if (!cancelling) {
                cancelling     = true;
                cancelled_life = e.life;
                (void)u.flush(ep, e.life, true);
                cancelling     = false;
            }
            break;
        case 8:
            destroy(slot);
            break;
        case 9:
            queue(slot);
            break;
        case 10:
            (void)n.handle()->ops.ep_check(ep, 0, nullptr);
            break;
        case 11:
            if (choice & 64) {
                u.fence_all();
            } else {
                u.fence(ep, e.life);
            }
            break;
        case 12:
            u.flush_all();
            break;
        case 13:
            release_one(slot);
            break;
        case 14:
            purge(ep);
            break;
        default:
            if (choice & 64) {
                (void)n.f->super.internal_ops->ep_invalidate(ep, 0);
            } else {
                create(slot, choice % fuzz::remote_count);
            }
            break;
        }
    }

    ucs_status_t on_error(uct_ep_h ep)
    {
        for (unsigned i = 0; i < std::size(eps); ++i) {
            if (eps[i].handle == ep) {
                FUZZ_CHECK(++eps[i].reports == 1, "a failure is told twice");
                if (policy & 2) {
                    destroy(i);
                }
                return UCS_OK;
            }
        }
        FUZZ_CHECK(false, "the failure of an endpoint that does not exist");
        return UCS_OK;
    }

    // --- the run -------------------------------------------------------------------------------------------------------------

    void finish_send(unsigned which, unsigned result)
    {
        fake::device &d = n.device;
        if (d.sends.empty() || d.completions.size() >= static_cast<std::size_t>(d.cq.cqe)) {
            return;
        }
        ++send_results.value;
        const std::size_t at = which % d.sends.size();
        static constexpr std::pair<ibv_wc_status, std::uint32_t> errors[] = {
            {IBV_WC_RNR_RETRY_EXC_ERR, 10}, {IBV_WC_RNR_RETRY_EXC_ERR, 10}, {IBV_WC_REM_INV_RD_REQ_ERR, 9},
            {IBV_WC_RESP_TIMEOUT_ERR, 13},  {IBV_WC_GENERAL_ERR, 15},       {IBV_WC_LOC_LEN_ERR, 6},
            {IBV_WC_LOC_PROT_ERR, 5},       {IBV_WC_WR_FLUSH_ERR, 1}};
        static constexpr std::pair<ibv_wc_status, std::uint32_t> one_sided_errors[] = {
            {IBV_WC_REM_OP_ERR, 14}, {IBV_WC_REM_OP_ERR, 14},       {IBV_WC_REM_ACCESS_ERR, 7}, {IBV_WC_REM_ACCESS_ERR, 7},
            {IBV_WC_LOC_PROT_ERR, 5}, {IBV_WC_RESP_TIMEOUT_ERR, 13}, {IBV_WC_REM_OP_ERR, 14},    {IBV_WC_BAD_RESP_ERR, 12}};
        const bool one_sided = fake::is_one_sided(d.sends[at]);
        if (one_sided && result % 4 != 0) {
            if (d.sends[at].opcode == IBV_WR_RDMA_READ) {
                std::uint8_t *here = d.landing(d.sends[at]);
                FUZZ_CHECK(here != nullptr, "a read into memory outside its registration");
                std::memset(here, static_cast<int>(send_results.value), d.sends[at].pieces[0].length);
            }
            d.complete_send(at, IBV_WC_SUCCESS, 0);
        } else if (result % 4 != 0) {
            const std::vector<std::uint8_t> bytes = d.gather(d.sends[at]);
            remotes.hear(d.sends[at], bytes);
            d.complete_send(at, IBV_WC_SUCCESS, 0);
        } else if ((result >> 2) < 48) {
            const unsigned kind        = (result >> 2) & 7;
            const auto &[status, code] = one_sided ? one_sided_errors[kind] : errors[kind];
            d.complete_send(at, status, code);
        } else {
            d.complete_send(at, static_cast<ibv_wc_status>(1 + in.u8() % 24), in.u8());
        }
    }

    void progress(bool timers)
    {
        if (timers) {
            n.progress_timers();
        } else {
            n.progress();
        }
        n.check_conservation();
        if (!faults) {
            n.check_receives();
        }
    }

    void step()
    {
        const unsigned command = in.u8();
        if (n.device.completions.size() > 64 || n.device.receives.size() < 2) {
            progress(false);
        }
        switch (command >> 4) {
        case 0: case 1: case 2: case 3: case 4:
            for (unsigned i = 0; i <= ((command >> 2) & 3); ++i) {
                remotes.inject(command % fuzz::remote_count);
            }
            return;
        case 5:
            remotes.inject_noise();
            return;
        case 6: case 7:
            act(in.u8());
            return;
        case 8: case 9:
            finish_send(command & 15, in.u8());
            return;
        case 10: // everything that was sent arrives
            for (unsigned i = 0; i < 32 && !n.device.sends.empty(); ++i) {
                finish_send(0, 1);
            }
            return;
        case 11:
            act(in.u8());
            progress(false);
            return;
        case 12: {
            static constexpr std::uint64_t steps[] = {1'000, 50'000, 2'000'000, 200'000'000, 1'100'000'000, 61'000'000'000, 0, 0};
            fake::clock_ns += steps[command & 7];
            progress(true);
            return;
        }
        case 13:
            policy = in.u8();
            return;
        case 14:
            strange(command & 15);
            return;
        default:
            if (command & 8) {
                u.sleep();
            }
            progress(false);
            return;
        }
    }

    /// Errors of receives, new lives, shortages.
    void strange(unsigned which)
    {
        fuzz::remote &m = remotes.all[which & 3];
        switch (which >> 2) {
        case 0: { // a receive ends in error
            const std::uint8_t nothing[4] = {};
            if (n.device.arrive(nothing, in.u8() & 3, in.u32(), in.u8() & 1, in.u16(), in.u32(),
                                static_cast<ibv_wc_status>(1 + in.u8() % 24), in.u8())) {
                ++remotes.arrived;
                oracle.injections.push_back({});
                oracle.injections.back().imm = 0xffffffff;
            }
            return;
        }
        case 1: // the remote starts again
            remotes.restart(m, in.u8() & 1 ? m.epoch + 0x100 : 0x5000 + in.u8() % 8);
            return;
        case 2:
            switch (in.u8() & 3) {
            case 0:
                n.device.fail_post_send = 1 + in.u8() % 4;
                n.device.fail_errno     = in.u8() & 1 ? ENOMEM : EINVAL;
                return;
            case 1:
                n.device.fail_post_recv = 1 + in.u8() % 4;
                faults                  = true;
                return;
            case 2:
                n.device.max_ahs = in.u8() % 4;
                return;
            default:
                n.device.max_mrs = n.device.mrs.size();
                faults           = true;
                return;
            }
        default: // the shortages end; the next refill repairs what they left
            n.device.fail_post_send = n.device.fail_post_recv = 0;
            n.device.max_ahs = SIZE_MAX;
            ++m.nonce;
            return;
        }
    }

    void finish()
    {
        if (in.u8() & 1) {
            for (unsigned i = 0; i < std::size(eps); ++i) {
                destroy(i);
            }
        } else {
            // As UCP closes: endpoints first, in any order; what the device holds may never complete.
            for (unsigned i = static_cast<unsigned>(std::size(eps)); i-- > 0;) {
                destroy(i);
                if (!n.device.sends.empty() && (policy & 8)) {
                    finish_send(0, 1);
                }
            }
        }
        policy &= 8;
        for (unsigned i = 0; i < std::size(eps); ++i) {
            destroy(i); // what callbacks made meanwhile
        }
        closing = true;
        while (!held.empty()) {
            release_one(0);
        }
        n.close();
        for (const auto &q : requests) {
            FUZZ_CHECK(!q->queued, "a request was lost");
        }
        u.check_closed();
        receive_inputs.value += remotes.arrived;
        starved.value += remotes.starved;
    }
};

template <unsigned Id> ucs_status_t on_am(void *arg, void *payload, std::size_t length, unsigned flags)
{
    return static_cast<world *>(arg)->on_message(Id, static_cast<std::uint8_t *>(payload), static_cast<unsigned>(length), flags);
}

template <unsigned... Id> void set_handlers(world &w, std::integer_sequence<unsigned, Id...>)
{
    const uct_am_callback_t handlers[] = {on_am<Id>...};
    for (unsigned id = 0; id < std::size(handlers); ++id) {
        FUZZ_CHECK(uct_iface_set_am_handler(w.n.handle(), static_cast<uint8_t>(id), handlers[id], &w, 0) == UCS_OK, "no handler");
    }
}

fuzz::options options_of(input &in)
{
    fuzz::options o;
    static constexpr unsigned queues[] = {2, 4, 8, 16, 16, 64, 64, 128};
    const unsigned choice              = in.u8();
    o.rx_queue_len  = queues[choice & 7];
    o.rx_max_bufs   = (choice & 8) ? o.rx_queue_len : (choice & 16) ? o.rx_queue_len + 8 : 1u << 20;
    o.tx_queue_len  = (choice & 32) ? 8 : 64;
    o.tx_max_bufs   = (choice & 64) ? 1 : 64;
    o.max_peers     = (choice & 128) ? 3 : 16;
    const unsigned second = in.u8();
    o.headroom      = (second & 1) ? 40 : 0;
    o.alignment     = (second & 2) ? 64 : 0;
    o.rnr_timeout   = (second & 4) ? 0.001 : 0;
    o.inline_size   = (second & 8) ? 16 : 32;
    o.events        = (second & 16) != 0;
    o.read          = (second & 96) != 32;
    o.write         = (second & 96) != 64;
    o.inline_wide   = (second & 128) ? 80 : 0;
    return o;
}

} // namespace

extern "C" int LLVMFuzzerInitialize(int *, char ***)
{
    fuzz::set_up();
    std::atexit([] {
        std::fprintf(stderr, "fuzz_receive:");
        for (const fuzz::tally &t : {sequences, receive_inputs, send_results, local_calls, deliveries, starved, opens_failed}) {
            std::fprintf(stderr, " %s %llu", t.name, static_cast<unsigned long long>(t.value));
        }
        fuzz::user::print_tallies();
    });
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    input in(data, size);
    fake::clock_ns    = 1'000'000'000'000;
    fake::clock_step  = 20'000; // a bounded wait of a millisecond is fifty looks at the clock
    fake::uuid_state  = 1;
    fuzz::options o   = options_of(in);
    o.on_error        = [](void *arg, uct_ep_h ep, ucs_status_t) { return static_cast<world *>(arg)->on_error(ep); };
    world *self       = nullptr;
    alignas(world) static unsigned char memory[sizeof(world)];
    o.arg             = memory; // known before it is made
    self              = new (memory) world(in, o);
    ++sequences.value;
    self->remotes.draw();
    if (self->n.open(static_cast<std::uint16_t>(1 + in.u8())) == UCS_OK) {
        set_handlers(*self, std::make_integer_sequence<unsigned, 32>());
        for (unsigned steps = 0; steps < 2000 && !in.empty(); ++steps) {
            self->step();
        }
        self->finish();
    } else {
        ++opens_failed.value;
    }
    self->~world();
    return 0;
}
