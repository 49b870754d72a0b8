/* One real interface of the transport on a device of fake_verbs.h, opened and closed through its own entry points.
 *
 * Owns: what UCX would give the transport: a worker, a memory domain, settings. And the checks that hold for any run: what
 * arrived is accounted for, receives do not run out, nothing is left when the interface is closed.
 * Refuses to know: what the driver does with it.
 */
#pragma once

#include "fake_verbs.h"

#include "uct/srd/srd_iface.h"

namespace fuzz {

struct options {
    unsigned tx_queue_len = 64, tx_max_bufs = 64, rx_queue_len = 64, rx_queue_max = 768, rx_max_bufs = 1u << 20, max_peers = 64;
    std::size_t message_size = 1024; ///< of the device
    unsigned inline_size     = 32;
    unsigned inline_wide     = 0;    ///< of work requests of 128 bytes; 0: the device has none
    bool wide_refused        = false; ///< it says that it has them, and creates no queue pair with them
    std::size_t headroom = 0, alignment = 0;
    double rnr_timeout = 0, close_timeout = 0.001;
    bool read = false, write = false, events = false; ///< what the device has
    std::size_t rdma_size = 1u << 20;                 ///< largest one-sided operation
    uct_error_handler_t on_error = nullptr;
    void *arg                    = nullptr; ///< of on_error
};

class node {
public:
    node(const fake::gid_bytes &gid, const options &o);
    ~node();

    /// UCS_OK, or why the interface did not open. `qpn` as the device will number it.
    ucs_status_t open(std::uint16_t qpn);
    void close();
    bool is_open() const { return f != nullptr; }

    uct_iface_h handle() const { return &f->super.super; }
    std::uint16_t qpn() const { return static_cast<std::uint16_t>(device.qp.qp_base.qp_num); }
    uct_ep_h connect(const fake::gid_bytes &gid, std::uint16_t qpn, std::uint32_t qkey, ucs_status_t *status_p = nullptr);
    unsigned progress() { return f->super.super.ops.iface_progress(handle()); }
    /// One progress call in which the timers are looked at.
    unsigned progress_timers();

    /// Everything that the device handed over was delivered, waits, or was dropped for one counted reason.
    void check_conservation() const;
    /// A receive is posted although messages wait and the user keeps some. Not while posting or registering fails.
    void check_receives() const;
    std::uint64_t dropped() const; ///< all reasons

    fake::device device;
    uct_srd_md_t md{};
    srd::iface *f = nullptr;
    const options opts;

private:
    uct_component component_{};
};

/// Logging off, one worker for all nodes of the process.
void set_up();

/// A completion that says how often it was called.
struct told : uct_completion_t {
    unsigned calls = 0;
    void (*then)(told *) = nullptr; ///< called the first time
    void *arg            = nullptr;
    told() : uct_completion_t{}
    {
        count = 1;
        func  = [](uct_completion_t *self) {
            auto *t = static_cast<told *>(self);
            FUZZ_CHECK(++t->calls == 1, "a completion is called twice");
            if (t->then != nullptr) {
                t->then(t);
            }
        };
    }
};

/// Memory of the user, registered with a device for as long as it lives.
struct region {
    region(fake::device &d, std::size_t size);
    region(const region &)            = delete;
    region &operator=(const region &) = delete;
    ~region();
    std::unique_ptr<std::uint8_t[]> bytes;
    std::size_t size;
    uct_srd_mem_t mem{};
};

/// Reads a run from bytes; zeros when they are used up.
class input {
public:
    input(const std::uint8_t *data, std::size_t size) : data_(data), size_(size) {}
    bool empty() const { return at_ >= size_; }
    std::uint8_t u8() { return at_ < size_ ? data_[at_++] : 0; }
    std::uint16_t u16() { return static_cast<std::uint16_t>(u8() | u8() << 8); }
    std::uint32_t u32()
    {
        const std::uint32_t low = u16();
        return low | static_cast<std::uint32_t>(u16()) << 16;
    }
    unsigned below(unsigned bound) { return u8() % bound; }

private:
    const std::uint8_t *data_;
    std::size_t size_, at_ = 0;
};

/// What a program counts over all its runs; printed at exit.
struct tally {
    const char *name;
    std::uint64_t value = 0;
};

} // namespace fuzz

/// One run; every program of this folder defines it. As libFuzzer wants it.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size);
/// Called once, before the first run.
extern "C" int LLVMFuzzerInitialize(int *argc, char ***argv);
