/* See user.h. */
#include "user.h"

#include <cstring>

namespace fuzz {

user::tallies user::tallied;

struct user::one_sided_call : told {
    user *u              = nullptr;
    operation *o         = nullptr;
    bool with_completion = false;
    std::unique_ptr<region> memory;

    void end()
    {
        u->check_may_end(*o, status);
        if (o->type != op_type::message) {
            o->state = op_state::done; // also if it waited to be posted again
        }
        if (o->type == op_type::get && status == UCS_OK) {
            FUZZ_CHECK(o->in_place || o->unpacked == 1, "a get is complete and was unpacked %u times", o->unpacked);
            if (o->in_place) {
                FUZZ_CHECK(std::memcmp(memory->bytes.get(), o->got.data(), o->size) == 0, "a get completes without its bytes");
            }
        }
        memory.reset(); // the user frees it at once
        if (u->on_completion) {
            u->on_completion();
        }
    }
};

struct user::flush_call : told {
    user *u          = nullptr;
    std::uint32_t ep = 0;
    place when;
    bool cancel = false;
};

std::uint8_t put_pattern(std::uint64_t remote, unsigned at) { return static_cast<std::uint8_t>((remote >> 7) * 13 + at); }

user::user(node &n) : n_(n) { n.device.watch = this; }

user::~user() { n_.device.watch = nullptr; }

std::uint32_t user::begin_endpoint()
{
    lives_.emplace_back();
    return static_cast<std::uint32_t>(lives_.size() - 1);
}

void user::end_endpoint(std::uint32_t ep)
{
    lives_[ep].gone = true;
    withdraw(ep);
}

void user::withdraw(std::uint32_t ep)
{
    for (operation *o : lives_[ep].ops) {
        if (o->state == op_state::waiting && o->type != op_type::message) {
            o->state    = op_state::done; // of a message an empty one tells
            o->doubtful = !o->holds;
        }
        o->cancelled |= o->state == op_state::posted && o->holds;
    }
}

// --- posting -------------------------------------------------------------------------------------------------------------------

ucs_status_t user::post(operation o, const std::function<ssize_t()> &call, operation **op_p)
{
    life &l = lives_[o.ep];
    o.when  = l.turn != 0 ? place{l.turn, ++clock_} : now();
    o.index = static_cast<std::uint32_t>(l.messages.size());
    operation *const kept   = &ops_.emplace_back(std::move(o));
    operation *const before = posting_;
    posting_                = kept;
    if (op_p != nullptr) {
        *op_p = kept;
    }
    const ssize_t answer = call();
    FUZZ_CHECK(posting_ == kept, "a callback ran inside a post"); // IFC-5
    posting_ = before;
    if (answer < 0 && answer != UCS_INPROGRESS) {
        FUZZ_CHECK(!kept->attempted, "the device was given what was answered with %zd", answer);
        ops_.pop_back();
        return static_cast<ucs_status_t>(answer);
    }
    FUZZ_CHECK(kept->attempted, "what was accepted was not given to the device"); // USR-5
    lives_[kept->ep].ops.push_back(kept);
    if (kept->type == op_type::message) {
        lives_[kept->ep].messages.push_back(kept);
        ++tallied.messages.value;
    }
    return answer == UCS_INPROGRESS ? UCS_INPROGRESS : UCS_OK;
}

ucs_status_t user::message(std::uint32_t ep, bool holds, const std::function<ssize_t()> &call)
{
    operation o;
    o.ep    = ep;
    o.holds = holds;
    return post(std::move(o), call);
}

ucs_status_t user::message_zcopy(uct_ep_h handle, std::uint32_t ep, std::uint8_t id, const void *header, unsigned header_size,
                                 unsigned size, std::uint8_t fill, bool with_completion)
{
    auto c             = std::make_unique<one_sided_call>();
    c->u               = this;
    c->with_completion = with_completion;
    c->memory          = std::make_unique<region>(n_.device, size);
    std::memset(c->memory->bytes.get(), fill, size);
    c->then = [](told *t) { static_cast<one_sided_call *>(t)->end(); };
    operation o;
    o.ep    = ep;
    o.holds = true;
    uct_iov_t iov             = {c->memory->bytes.get(), size, &c->memory->mem, 0, 1};
    const ucs_status_t status = post(
        std::move(o),
        [&] { return n_.handle()->ops.ep_am_zcopy(handle, id, header, header_size, &iov, 1, 0, with_completion ? c.get() : nullptr); },
        &c->o);
    if (status == UCS_INPROGRESS) {
        calls_.push_back(std::move(c)); // without a completion the memory stays until the end
    }
    return status;
}

ucs_status_t user::one_sided(uct_ep_h handle, std::uint32_t ep, op_type type, unsigned how, unsigned size, std::uint64_t remote,
                             std::uint32_t rkey)
{
    auto &ops          = n_.handle()->ops;
    if (type == op_type::put && how % 3 == 2 && size > n_.f->rma.bcopy_max) {
        size = n_.f->rma.bcopy_max; // what UCT asks of its user; too long a short or zero-copy put is answered
    }
    const bool zcopy   = how % 3 == 0;
    auto c             = std::make_unique<one_sided_call>();
    c->u               = this;
    c->with_completion = (zcopy || type == op_type::get) && (how & 4);
    c->memory          = std::make_unique<region>(n_.device, size);
    c->then            = [](told *t) { static_cast<one_sided_call *>(t)->end(); };
    for (unsigned i = 0; i < size; ++i) {
        c->memory->bytes[i] = put_pattern(remote, i);
    }
    operation o;
    o.ep       = ep;
    o.type     = type;
    o.holds    = zcopy || type == op_type::get;
    o.in_place = zcopy;
    o.remote   = remote;
    o.rkey     = rkey;
    o.size     = size;
    uct_completion_t *comp    = c->with_completion ? c.get() : nullptr;
    uct_iov_t iov             = {c->memory->bytes.get(), size, &c->memory->mem, 0, 1};
    const ucs_status_t status = post(
        std::move(o),
        [&]() -> ssize_t {
            if (type == op_type::get) {
                if (zcopy) {
                    return ops.ep_get_zcopy(handle, &iov, 1, remote, rkey, comp);
                }
                return ops.ep_get_bcopy(
                    handle,
                    [](void *arg, const void *bytes, std::size_t n) {
                        auto *self = static_cast<operation *>(arg);
                        FUZZ_CHECK(self->succeeded && n == self->got.size(), "a get of %zu bytes is unpacked", n); // USR-2
                        FUZZ_CHECK(std::memcmp(bytes, self->got.data(), n) == 0, "other bytes than were read are unpacked");
                        ++self->unpacked;
                    },
                    c->o, size, remote, rkey, comp);
            }
            if (zcopy) {
                return ops.ep_put_zcopy(handle, &iov, 1, remote, rkey, comp);
            }
            if (how % 3 == 1) {
                return ops.ep_put_short(handle, c->memory->bytes.get(), size, remote, rkey);
            }
            struct pack_arg {
                const std::uint8_t *from;
                unsigned size;
            } arg{c->memory->bytes.get(), size};
            return ops.ep_put_bcopy(
                handle,
                [](void *to, void *a) {
                    const auto *p = static_cast<pack_arg *>(a);
                    std::memcpy(to, p->from, p->size);
                    return std::size_t{p->size};
                },
                &arg, remote, rkey);
        },
        &c->o);
    if (status == UCS_OK || status == UCS_INPROGRESS) {
        ++(type == op_type::get ? tallied.gets : tallied.puts).value;
    }
    if (status == UCS_INPROGRESS) {
        calls_.push_back(std::move(c));
    }
    return status;
}

ucs_status_t user::put(uct_ep_h handle, std::uint32_t ep, unsigned how, unsigned size, std::uint64_t remote, std::uint32_t rkey)
{
    return one_sided(handle, ep, op_type::put, how, size, remote, rkey);
}

ucs_status_t user::get(uct_ep_h handle, std::uint32_t ep, unsigned how, unsigned size, std::uint64_t remote, std::uint32_t rkey)
{
    return one_sided(handle, ep, op_type::get, how, size, remote, rkey);
}

// --- fences and flushes ----------------------------------------------------------------------------------------------------------

void user::fence(uct_ep_h handle, std::uint32_t ep)
{
    FUZZ_CHECK(n_.handle()->ops.ep_fence(handle, 0) == UCS_OK, "a fence fails");
    life &l = lives_[ep];
    l.fences.push_back(l.turn != 0 ? place{l.turn, ++clock_} : now());
    ++tallied.fences.value;
}

void user::fence_all()
{
    FUZZ_CHECK(n_.handle()->ops.iface_fence(n_.handle(), 0) == UCS_OK, "a fence of the interface fails");
    const place here = now();
    for (life &l : lives_) {
        if (!l.gone) {
            l.fences.push_back(here);
        }
    }
    ++tallied.fences.value;
}

ucs_status_t user::flush(uct_ep_h handle, std::uint32_t ep, bool cancel)
{
    auto t    = std::make_unique<flush_call>();
    t->u      = this;
    t->ep     = ep;
    t->when   = now();
    t->cancel = cancel;
    t->then   = [](told *self) {
        auto *f = static_cast<flush_call *>(self);
        if (f->status != UCS_ERR_CANCELED && f->u->n_.device.has_qp) { // its endpoint or interface went
            f->u->check_flushed(f->ep, f->when, f->cancel, f->status == UCS_OK);
        }
        if (f->u->on_completion) {
            f->u->on_completion();
        }
    };
    ++tallied.flushes.value;
    lives_[ep].cancels += cancel;
    const ucs_status_t status = n_.handle()->ops.ep_flush(handle, cancel ? UCT_FLUSH_FLAG_CANCEL : 0, t.get());
    lives_[ep].cancels -= cancel;
    if (cancel) {
        withdraw(ep);
    }
    if (status == UCS_INPROGRESS) {
        flushes_.push_back(std::move(t));
    } else {
        FUZZ_CHECK(t->calls == 0, "a flush that answers at once also calls");
        if (status == UCS_OK) {
            check_flushed(ep, t->when, cancel, true);
        }
    }
    return status;
}

void user::flush_all()
{
    if (n_.handle()->ops.iface_flush(n_.handle(), 0, nullptr) == UCS_OK) {
        for (const operation &o : ops_) {
            FUZZ_CHECK(o.state != op_state::posted, "the interface is flushed and the device holds an operation");
        }
    }
}

void user::check_flushed(std::uint32_t ep, const place &when, bool cancel, bool) const
{
    for (const operation *o : lives_[ep].ops) {
        // USR-3. A cancel waits for what the device holds; a request that is still queued may post after it.
        if (cancel ? o->holds && o->when.at < when.at : o->when < when) {
            FUZZ_CHECK(o->state != op_state::posted, "a flush is done, and the device holds operation %llu before it",
                       static_cast<unsigned long long>(o->when.at));
        }
    }
}

void user::check_may_end(const operation &o, ucs_status_t status) const
{
    if (!n_.device.has_qp) {
        return; // the device holds nothing any more
    }
    FUZZ_CHECK(o.state != op_state::posted, "a completion is called while the device holds the operation"); // USR-1
    FUZZ_CHECK(status != UCS_OK || o.succeeded, "an operation that did not succeed completes as if it had");
}

// --- what the device sees ----------------------------------------------------------------------------------------------------

void user::check_fences(const operation &o)
{
    const life &l      = lives_[o.ep];
    const place *fence = nullptr;
    for (const place &f : l.fences) {
        if (f < o.when && (fence == nullptr || *fence < f)) {
            fence = &f;
        }
    }
    if (fence == nullptr) {
        return;
    }
    ++tallied.held_back.value;
    for (const operation *y : l.ops) {
        if (y == &o || *fence < y->when) {
            continue;
        }
        if (y->type != op_type::message) { // USR-4
            const bool taken_back = y->state == op_state::waiting && l.cancels != 0; // a callback of the cancel posts
            FUZZ_CHECK(y->state == op_state::done || taken_back, "operation %llu passes a fence and the one-sided %llu before it",
                       static_cast<unsigned long long>(o.when.at), static_cast<unsigned long long>(y->when.at));
        } else if (o.type != op_type::message) {
            FUZZ_CHECK(y->withdrawn || consumed(*y), "one-sided %llu passes a fence and message %llu (psn %u), which is not consumed",
                       static_cast<unsigned long long>(o.when.at), static_cast<unsigned long long>(y->when.at), y->psn);
        }
    }
}

void user::attempted(const fake::send &s, int rc)
{
    const bool one_sided = s.opcode == IBV_WR_RDMA_READ || s.opcode == IBV_WR_RDMA_WRITE;
    const auto known     = by_request_.find(s.wr_id);
    if (!one_sided && (s.imm & (1u << 23))) { // control; an empty message may stand for one that was withdrawn
        if (known != by_request_.end()) {
            if (known->second->state == op_state::waiting || known->second->type == op_type::message) {
                known->second->withdrawn = true;
                known->second->state     = op_state::done;
            }
            by_request_.erase(known);
        }
        return;
    }
    operation *o = posting_;
    if (o != nullptr && !o->attempted) {
        o->attempted         = true;
        by_request_[s.wr_id] = o;
    } else {
        FUZZ_CHECK(known != by_request_.end(), "the device is given something that nobody posted");
        o = known->second;
        FUZZ_CHECK(o->state == op_state::waiting || o->doubtful, "the device is given something again that did not come back"); // USR-5
    }
    check_fences(*o);
    if (o->type == op_type::message) {
        FUZZ_CHECK(!one_sided, "a message is posted as RDMA");
        o->psn = static_cast<std::uint16_t>(s.imm);
    } else {
        FUZZ_CHECK(s.opcode == (o->type == op_type::get ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE), "the wrong kind is posted");
        FUZZ_CHECK(s.remote_address == o->remote && s.rkey == o->rkey && fake::size_of(s) == o->size,
                   "not what was asked for is posted"); // USR-2
    }
    if (rc == 0) {
        o->state = op_state::posted;
    }
}

void user::completed(const fake::send &s, ibv_wc_status status, std::uint32_t vendor_err)
{
    const auto known = by_request_.find(s.wr_id);
    if (known == by_request_.end()) {
        return; // control
    }
    operation *o = known->second;
    if (o->state != op_state::posted) {
        return;
    }
    const bool again = o->type == op_type::message ? vendor_err == 10 : vendor_err == 14 && !o->cancelled;
    if (status != IBV_WC_SUCCESS) {
        o->state = again ? op_state::waiting : op_state::done;
        return;
    }
    o->state     = op_state::done;
    o->succeeded = true;
    if (o->type != op_type::message) {
        o->got = n_.device.gather(s);
        for (unsigned i = 0; o->type == op_type::put && i < o->got.size(); ++i) {
            FUZZ_CHECK(o->got[i] == put_pattern(o->remote, i), "byte %u of a put changed", i); // USR-2
        }
    }
    by_request_.erase(known);
}

// --- sleeping ----------------------------------------------------------------------------------------------------------------

bool user::arm()
{
    const std::uint64_t step  = fake::clock_step;
    fake::clock_step          = 0; // as if no time passed
    const ucs_status_t status = n_.handle()->ops.iface_event_arm(n_.handle(), UCT_EVENT_SEND_COMP | UCT_EVENT_RECV);
    fake::clock_step          = step;
    if (status != UCS_OK) {
        FUZZ_CHECK(status == UCS_ERR_BUSY || status == UCS_ERR_UNSUPPORTED, "arming answers %d", status);
        return false;
    }
    ++tallied.sleeps.value;
    FUZZ_CHECK(n_.device.completions.empty() && n_.device.notify, "it sleeps with completions waiting, or without a notification");
    told_when_armed_ = n_.device.events_told;
    return true;
}

void user::sleep()
{
    if (!arm() || (clock_ & 1)) {
        return;
    }
    const std::uint64_t before = n_.device.posted_sends, step = fake::clock_step;
    fake::clock_step           = 0;
    FUZZ_CHECK(n_.progress() == 0 && n_.device.posted_sends == before, "it would sleep with work left"); // EVT-1
    fake::clock_step           = step;
}

bool user::is_woken() const
{
    const srd::event_source &e = n_.f->event;
    return n_.device.events_told != told_when_armed_ || (e.timer_at != 0 && fake::clock_ns >= e.timer_at);
}

void user::print_tallies()
{
    const tallies &t = tallied;
    for (const tally &one : {t.messages, t.puts, t.gets, t.fences, t.held_back, t.flushes, t.sleeps}) {
        std::fprintf(stderr, " %s %llu", one.name, static_cast<unsigned long long>(one.value));
    }
    std::fputc('\n', stderr);
}

void user::check_closed()
{
    for (operation &o : ops_) {
        o.state = op_state::done;
    }
    by_request_.clear();
    for (const auto &f : flushes_) {
        FUZZ_CHECK(f->calls == 1, "a flush was never completed");
    }
    for (const auto &c : calls_) {
        FUZZ_CHECK(c->calls == (c->with_completion ? 1u : 0u), "a completion was called %u times", c->calls);
    }
}

} // namespace fuzz
