/* One real interface against a hostile world: completions of any kind, in any order, between legal calls of its user.
 *
 * Owns: a few remote interfaces that speak the protocol well enough to be believed, then lie; a user that posts, flushes,
 * waits, cancels, keeps descriptors, destroys endpoints in callbacks; and an oracle that knows the protocol document only.
 *
 * What a run is: bytes are commands (see `step`). A remote learns epochs and indices from what the interface sends, as a
 * real one does. Every message carries the number of its injection in its payload, so that the handler can say which one it got.
 *
 * The oracle
 *   - each message is delivered at most once, whole, to the handler of its id, unchanged;
 *   - in one life of one peer psns are delivered in order, and only those are missing that belonged to messages without a
 *     number (NOP, BYE, and payloads too short to carry one);
 *   - lives do not mix: one stream carries one epoch;
 *   - what arrived = what was delivered + what waits + the sum of all reasons for dropping (node::check_conservation);
 *   - receives stay posted (node::check_receives), kept descriptors keep their contents;
 *   - every completion of the user is called once, none is lost at close; no buffer is given back while the device holds it;
 *   - at the end every registration, address handle and queue is gone.
 */
#include "node.h"

#include <algorithm>
#include <cstring>
#include <set>

namespace {

using fuzz::input;
using fuzz::node;

fuzz::tally sequences{"sequences"}, receive_inputs{"receive inputs"}, local_calls{"local calls"}, send_results{"send results"},
    deliveries{"deliveries"}, starved{"not receivable"}, opens_failed{"opens that failed"};

constexpr unsigned remote_count = 4;
constexpr unsigned long_size = 48, credit_size = 8, index_size = 4; // of the document, not of the code

struct injection {
    unsigned source;
    std::uint32_t imm, index, epoch, qkey;
    fake::gid_bytes gid;
    std::uint32_t src_qp;
    bool is_long;
    unsigned length; ///< of the payload
    bool numbered;   ///< the payload carries the number of this injection
    bool delivered = false;
    std::uint16_t psn() const { return static_cast<std::uint16_t>(imm); }
};

struct remote {
    fake::gid_bytes gid{};
    std::uint16_t qpn      = 0;
    std::uint32_t qkey     = 0;
    std::uint32_t epoch    = 0;
    std::uint32_t known    = 0;          ///< the interface's epoch, as heard
    std::uint32_t index    = 0xffffffff; ///< assigned to us, as heard
    std::uint16_t nonce    = 1;
    std::uint32_t next     = 0; ///< lowest psn not sent
    std::set<std::uint32_t> ahead;
    std::uint32_t heard = 0, limit = 16; ///< sequenced messages that reached us; what we granted
};

struct stream {
    std::uint32_t epoch = 0; ///< of the long headers delivered in it
    std::uint16_t next  = 0;
};

struct kept {
    std::uint8_t *payload;
    std::uint32_t number;
    unsigned length;
};

struct zcopy_send : fuzz::told {
    std::unique_ptr<fuzz::region> buffer;
};

struct request : uct_pending_req_t {
    struct world *w;
    unsigned ep;
    bool queued = false;
    unsigned tries = 0;
};

struct world {
    node n;
    input &in;
    remote remotes[remote_count];
    std::vector<injection> injections;
    std::map<std::uint32_t, stream> streams; ///< by the index of the life
    std::vector<kept> held;
    struct endpoint {
        uct_ep_h handle = nullptr;
        unsigned reports = 0;
    } eps[6];
    std::vector<std::unique_ptr<zcopy_send>> zcopies;
    std::vector<std::unique_ptr<fuzz::told>> flushes;
    std::vector<std::unique_ptr<request>> requests;
    unsigned policy = 0; ///< what callbacks do
    unsigned depth  = 0; ///< of callbacks inside one another
    bool faults     = false; ///< posting or registering may have failed: no promise about receives
    bool closing    = false;

    world(input &i, const fuzz::options &o) : n(fake::gid_bytes{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 1}, o), in(i) {}

    // --- the remotes ---------------------------------------------------------------------------------------------------------

    void draw_remotes()
    {
        for (unsigned r = 0; r < remote_count; ++r) {
            remote &m = remotes[r];
            m.gid     = fake::gid_bytes{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 2, static_cast<std::uint8_t>(r / 2)}; // pairs share a device
            m.qpn     = static_cast<std::uint16_t>(100 + r);
            m.qkey    = 0x1000 + r;
            m.epoch   = 0x5000 + r;
        }
    }

    void put_le(std::uint8_t *to, std::uint32_t value, unsigned bytes)
    {
        for (unsigned i = 0; i < bytes; ++i) {
            to[i] = static_cast<std::uint8_t>(value >> (8 * i));
        }
    }

    /// What a correct remote would put into a long header.
    void write_long(std::uint8_t *h, remote &m)
    {
        put_le(h, m.index, 4);
        h[4] = h[5] = 1;
        put_le(h + 6, m.nonce, 2);
        put_le(h + 8, m.qkey, 4);
        put_le(h + 12, m.epoch, 4);
        put_le(h + 16, m.known, 4);
        put_le(h + 20, 0x00100000u | static_cast<std::uint32_t>(&m - remotes), 4);
        std::memcpy(h + 24, m.gid.data(), 16);
        put_le(h + 40, m.heard, 4);
        put_le(h + 44, m.limit, 4);
    }

    std::uint32_t take_psn(remote &m, unsigned choice)
    {
        while (m.ahead.erase(m.next) != 0) {
            ++m.next;
        }
        switch (choice % 32) {
        case 0: case 1: case 2: case 3: { // early
            const std::uint32_t psn = m.next + 1 + in.below(20);
            m.ahead.insert(psn);
            return psn;
        }
        case 4: // anything
            return m.next + static_cast<std::uint32_t>(static_cast<std::int16_t>(in.u16()));
        default:
            return m.next++;
        }
    }

    /// A message of remote `r`: correct, or with one thing wrong for each bit of `lies`.
    void inject(unsigned r)
    {
        remote &m              = remotes[r];
        const unsigned kind    = in.u8();
        const unsigned lies    = (in.u8() & 15) == 0 ? in.u8() : 0;
        const bool knows_index = m.index != 0xffffffff;
        const unsigned form    = knows_index ? kind & 3 : 3; // 0, 1 short; 2 with credits; 3 long
        const bool control     = (kind & 0x0c) == 0x0c;
        const bool sequenced   = !control || (kind & 0x70) >= 0x60;
        static constexpr unsigned control_types[] = {1, 2, 4, 5, 3, 4, 16, 17};
        unsigned id = control ? control_types[(kind >> 4) & 7] : (kind >> 4) & 7;
        std::uint32_t psn = sequenced ? take_psn(m, in.u8()) : 0;
        std::uint32_t flags = (form == 2 ? 1u << 21 : form == 3 ? 1u << 22 : 0) | (control ? 1u << 23 : 0) |
                              ((kind & 0x80) ? 1u << 24 : 0);
        std::uint8_t bytes[2048];
        const unsigned header = form == 3 ? long_size : form == 2 ? index_size + credit_size : index_size;
        if (form == 3) {
            write_long(bytes, m);
        } else {
            put_le(bytes, m.index, 4);
            if (form == 2) {
                put_le(bytes + 4, m.heard, 4);
                m.limit = m.heard + 16 + in.below(64);
                put_le(bytes + 8, m.limit, 4);
            }
        }
        static constexpr unsigned sizes[] = {8, 0, 1, 3, 4, 64, 200, 0xffff};
        const unsigned room = static_cast<unsigned>(n.opts.message_size) - header;
        unsigned length     = control ? (id == 3 ? 1 : 0) : std::min(sizes[in.below(8)], room);
        std::uint32_t src   = m.qpn;
        std::uint16_t slid  = n.device.number_of(m.gid);
        bool with_imm       = true;
        if (control && id == 3) {
            bytes[header] = static_cast<std::uint8_t>(in.u8() % 5);
        }
        if (lies & 0x01) {
            flags ^= 1u << (21 + in.below(11));
        }
        if (lies & 0x02) {
            id = in.u8() & 31;
        }
        if (lies & 0x04) {
            const unsigned at = in.u8() % header;
            bytes[at] = in.u8();
        }
        if (lies & 0x08) {
            src = (in.u8() & 1) ? remotes[in.below(remote_count)].qpn : in.u32();
        }
        if (lies & 0x10) {
            slid = (in.u8() & 1) ? n.device.number_of(remotes[in.below(remote_count)].gid) : in.u16();
        }
        if (lies & 0x20) {
            with_imm = false;
        }
        if (lies & 0x80) {
            length = std::min<unsigned>(in.u8(), room);
        }
        unsigned size = header + length;
        if (lies & 0x40) {
            size = in.u8() % (header + 1);
        }
        deliver(r, bytes, size, id << 16 | flags | (psn & 0xffff), with_imm, slid, src, control && id == 3 && lies == 0);
    }

    /// Any bytes at all.
    void inject_noise()
    {
        std::uint8_t bytes[2048];
        const unsigned size = in.u8() % 3 == 0 ? static_cast<unsigned>(n.opts.message_size) : in.u8();
        for (unsigned i = 0; i < 64; ++i) {
            bytes[i] = in.u8();
        }
        std::memset(bytes + 64, 0x5a, sizeof(bytes) - 64);
        deliver(0, bytes, std::min<unsigned>(size, static_cast<unsigned>(n.opts.message_size)), in.u32(), in.u8() % 8 != 0,
                in.u16(), in.u32(), false);
    }

    void deliver(unsigned r, std::uint8_t *bytes, unsigned size, std::uint32_t imm, bool with_imm, std::uint16_t slid,
                 std::uint32_t src, bool keep_payload)
    {
        const unsigned header = (imm & (1u << 22)) ? long_size : (imm & (1u << 21)) ? index_size + credit_size : index_size;
        injection i{};
        i.source  = r;
        i.imm     = imm;
        i.src_qp  = src;
        i.is_long = imm & (1u << 22);
        i.length  = size > header ? size - header : 0;
        if (size >= 4) {
            std::memcpy(&i.index, bytes, 4);
        }
        if (i.is_long && size >= long_size) {
            std::memcpy(&i.epoch, bytes + 12, 4);
            std::memcpy(&i.qkey, bytes + 8, 4);
            std::memcpy(i.gid.data(), bytes + 24, 16);
        }
        if (slid == 0xffff && (src & 0xffff) == 0xffff) {
            i.src_qp = src = 0xfffe; // the one pair that a device does not report: peer::accept_none
        }
        const auto number = static_cast<std::uint32_t>(injections.size());
        if (!keep_payload && i.length >= 4) {
            i.numbered = !(imm & (1u << 23));
            fill(bytes + header, i.length, number);
        }
        if (!n.device.arrive(bytes, size, imm, with_imm, slid, src)) {
            ++starved.value;
            return;
        }
        ++receive_inputs.value;
        injections.push_back(i);
    }

    static std::uint8_t pattern(std::uint32_t number, unsigned at) { return static_cast<std::uint8_t>(number * 7 + at); }

    static void fill(std::uint8_t *payload, unsigned length, std::uint32_t number)
    {
        std::memcpy(payload, &number, 4);
        for (unsigned i = 4; i < length; ++i) {
            payload[i] = pattern(number, i);
        }
    }

    void check_contents(const std::uint8_t *payload, unsigned length, std::uint32_t number)
    {
        std::uint32_t found;
        std::memcpy(&found, payload, 4);
        FUZZ_CHECK(found == number, "a kept message changed");
        for (unsigned i = 4; i < length; ++i) {
            FUZZ_CHECK(payload[i] == pattern(number, i), "byte %u of message %u changed", i, number);
        }
    }

    /// What a send that reached its target tells the remote there.
    void hear(const fake::send &s, const std::vector<std::uint8_t> &bytes)
    {
        for (remote &m : remotes) {
            if (m.gid != s.gid || m.qpn != s.qpn || m.qkey != s.qkey) {
                continue;
            }
            const bool control = s.imm & (1u << 23);
            if (!control || ((s.imm >> 16) & 31) >= 16) {
                ++m.heard;
            }
            if ((s.imm & (1u << 22)) && bytes.size() >= long_size) {
                std::uint32_t epoch, known, yours;
                std::memcpy(&epoch, bytes.data() + 12, 4);
                std::memcpy(&known, bytes.data() + 16, 4);
                std::memcpy(&yours, bytes.data() + 20, 4);
                m.known = epoch;
                if (known == m.epoch) {
                    m.index = yours;
                }
                if (control && ((s.imm >> 16) & 31) == 3) { // NAK: this life is over
                    restart(m, m.epoch + 0x100);
                }
            }
            return;
        }
    }

    void restart(remote &m, std::uint32_t epoch)
    {
        m.epoch = epoch;
        m.next  = 0;
        m.heard = 0;
        m.limit = 16;
        m.ahead.clear();
        m.known = 0;
        m.index = 0xffffffff;
    }

    // --- the user ------------------------------------------------------------------------------------------------------------

    ucs_status_t on_message(unsigned id, std::uint8_t *payload, unsigned length, unsigned flags)
    {
        ++deliveries.value;
        FUZZ_CHECK(!closing, "a handler runs while the interface closes");
        std::uint32_t number = UINT32_MAX;
        if (length >= 4) {
            std::memcpy(&number, payload, 4);
            FUZZ_CHECK(number < injections.size(), "a message that was never sent");
            injection &i = injections[number];
            FUZZ_CHECK(i.numbered && i.length == length, "message %u: %u bytes instead of %u", number, length, i.length);
            FUZZ_CHECK(!i.delivered, "message %u is delivered twice", number);
            FUZZ_CHECK(((i.imm >> 16) & 31) == id, "message %u goes to handler %u", number, id);
            check_contents(payload, length, number);
            i.delivered = true;
            check_order(i);
        }
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

    void check_order(const injection &i)
    {
        std::uint32_t index = i.index;
        if (i.is_long) {
            srd::gid_type gid;
            std::memcpy(gid.data(), i.gid.data(), gid.size());
            const srd::peer *p = n.f->peers.find(gid, static_cast<std::uint16_t>(i.src_qp), i.qkey);
            FUZZ_CHECK(p != nullptr, "a message of nobody is delivered");
            index = p->index_local();
        }
        stream &s = streams[index];
        if (i.is_long) {
            FUZZ_CHECK(s.epoch == 0 || s.epoch == i.epoch, "two lives in one stream");
            s.epoch = i.epoch;
        }
        const int ahead = static_cast<std::int16_t>(i.psn() - s.next);
        FUZZ_CHECK(ahead >= 0, "psn %u is delivered after %u", i.psn(), static_cast<unsigned>(s.next) - 1);
        for (std::uint16_t psn = s.next; psn != i.psn(); ++psn) {
            const bool explained = std::any_of(injections.begin(), injections.end(), [&](const injection &other) {
                return !other.numbered && other.psn() == psn && (other.src_qp & 0xffff) == (i.src_qp & 0xffff) &&
                       (other.is_long ? s.epoch == 0 || other.epoch == s.epoch : other.index == index);
            });
            FUZZ_CHECK(explained, "psn %u is missing before %u", psn, i.psn());
        }
        s.next = static_cast<std::uint16_t>(i.psn() + 1);
    }

    void release_one(unsigned which)
    {
        if (held.empty()) {
            return;
        }
        const kept k = held[which % held.size()];
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(which % held.size()));
        check_contents(k.payload, k.length, k.number);
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
            e.handle  = n.connect(remotes[r].gid, remotes[r].qpn, remotes[r].qkey);
            e.reports = 0;
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
        if (ep != nullptr) {
            purge(ep); // as UCP does: destroying with requests queued is not allowed
            e.handle = nullptr; // callbacks of destroy must not use it again
            n.handle()->ops.ep_destroy(ep);
        }
    }

    ucs_status_t send(uct_ep_h ep, unsigned how, unsigned size_choice)
    {
        static constexpr unsigned sizes[] = {0, 8, 20, 100, 248, 500, 900, 2000};
        const unsigned size               = sizes[size_choice % 8];
        std::uint8_t bytes[2048]          = {};
        auto &ops                         = n.handle()->ops;
        const auto id                     = static_cast<std::uint8_t>(how == 7 ? 40 : how % 4);
        ++local_calls.value;
        switch (how % 4) {
        case 0:
            return ops.ep_am_short(ep, id, 1, bytes, size);
        case 1: {
            struct pack_arg {
                std::size_t size;
            } arg{std::min<std::size_t>(size, n.opts.message_size - long_size)};
            const ssize_t packed = ops.ep_am_bcopy(
                ep, id,
                [](void *to, void *a) {
                    std::memset(to, 1, static_cast<pack_arg *>(a)->size);
                    return static_cast<pack_arg *>(a)->size;
                },
                &arg, 0);
            return packed >= 0 ? UCS_OK : static_cast<ucs_status_t>(packed);
        }
        case 2: {
            uct_iov_t iov[2] = {{bytes, 5, nullptr, 7, 2}, {bytes, size, nullptr, 0, 1}};
            return ops.ep_am_short_iov(ep, id, iov, 2);
        }
        default: {
            auto z      = std::make_unique<zcopy_send>();
            z->buffer   = std::make_unique<fuzz::region>(n.device, size);
            z->arg      = this;
            z->then     = [](fuzz::told *t) {
                auto *self = static_cast<zcopy_send *>(t);
                auto *w    = static_cast<world *>(self->arg);
                self->buffer.reset(); // the user frees it at once
                if ((w->policy & 4) && !w->closing && w->depth < 2) {
                    ++w->depth;
                    w->act(w->policy >> 4);
                    --w->depth;
                }
            };
            uct_iov_t iov             = {z->buffer->bytes.get(), size, &z->buffer->mem, 0, 1};
            const bool with_comp      = how & 8;
            const ucs_status_t status = ops.ep_am_zcopy(ep, id, bytes, size_choice % 40, &iov, 1, 0, with_comp ? z.get() : nullptr);
            if (status == UCS_INPROGRESS) {
                z->calls = with_comp ? 0 : 1; // without a completion the buffer stays until the end
                zcopies.push_back(std::move(z));
            }
            return status;
        }
        }
    }

    void flush(uct_ep_h ep, bool cancel)
    {
        auto t                    = std::make_unique<fuzz::told>();
        const ucs_status_t status = n.handle()->ops.ep_flush(ep, cancel ? UCT_FLUSH_FLAG_CANCEL : 0, t.get());
        if (status == UCS_INPROGRESS) {
            flushes.push_back(std::move(t));
        } else {
            FUZZ_CHECK(t->calls == 0, "a flush that answers at once also calls");
        }
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
        q->func = [](uct_pending_req_t *self) {
            auto *r = static_cast<request *>(self);
            FUZZ_CHECK(r->queued, "a request is called that is not queued");
            const ucs_status_t status = r->w->send(r->w->ep_at(r->ep), r->tries % 3, r->tries);
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
        const uct_ep_h ep   = ep_at(slot);
        if (ep == nullptr) {
            create(slot, slot % remote_count);
            return;
        }
        switch (choice & 15) {
        case 0: case 1: case 2: case 3: case 4: case 5:
            (void)send(ep, choice, choice >> 2);
            break;
        case 6:
            flush(ep, false);
            break;
        case 7:
            flush(ep, true);
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
            (void)n.handle()->ops.ep_fence(ep, 0);
            (void)n.handle()->ops.iface_fence(n.handle(), 0);
            break;
        case 12:
            (void)n.handle()->ops.iface_flush(n.handle(), 0, nullptr);
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
                create(slot, choice % remote_count);
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
        if (result % 4 != 0) {
            const std::vector<std::uint8_t> bytes = d.gather(d.sends[at]);
            hear(d.sends[at], bytes);
            d.complete_send(at, IBV_WC_SUCCESS, 0);
        } else if ((result >> 2) < 48) {
            const auto &[status, code] = errors[(result >> 2) & 7];
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
                inject(command % remote_count);
            }
            return;
        case 5:
            inject_noise();
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
            progress(false);
            return;
        }
    }

    /// Errors of receives, new lives, shortages.
    void strange(unsigned which)
    {
        remote &m = remotes[which & 3];
        switch (which >> 2) {
        case 0: { // a receive ends in error
            const std::uint8_t nothing[4] = {};
            if (n.device.arrive(nothing, in.u8() & 3, in.u32(), in.u8() & 1, in.u16(), in.u32(),
                                static_cast<ibv_wc_status>(1 + in.u8() % 24), in.u8())) {
                ++receive_inputs.value;
                injections.push_back({});
                injections.back().imm = 0xffffffff;
            }
            return;
        }
        case 1: // the remote starts again
            restart(m, in.u8() & 1 ? m.epoch + 0x100 : 0x5000 + in.u8() % 8);
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
        closing = true;
        while (!held.empty()) {
            release_one(0);
        }
        n.close();
        for (const auto &q : requests) {
            FUZZ_CHECK(!q->queued, "a request was lost");
        }
        for (const auto &t : flushes) {
            FUZZ_CHECK(t->calls == 1, "a flush was never completed");
        }
        for (const auto &z : zcopies) {
            FUZZ_CHECK(z->calls == 1, "a zero-copy send was never completed");
        }
        zcopies.clear();
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
        std::fputc('\n', stderr);
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
    self->draw_remotes();
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
