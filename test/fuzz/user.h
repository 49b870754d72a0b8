/* The user of an interface whose device is in memory, and the oracle of what it was promised about its own operations.
 *
 * Owns: posts of every kind that a program makes on an endpoint, with a record of each; what the device was given for them and
 * when it was done (it watches the device); fences and flushes.
 * Refuses to know: what comes of a send (the driver says), what arrives (the programs' own oracles), the transport's state.
 *
 * The oracle, from docs/uct-semantics.md only
 *   USR-1  each completion is called once, and not while the device holds the operation; with UCS_OK only if it succeeded.
 *   USR-2  what the device is given is what was asked for: key, address, size, bytes; a get unpacks what was read, once.
 *   USR-3  a flush is done only when everything before it on its endpoint is; with cancel, when no memory of the user's is held.
 *   USR-4  what follows a fence is given to the device only when all earlier one-sided operations of the endpoint are complete,
 *          and a one-sided one only when the earlier messages are consumed, too.
 *   USR-5  what answers that it was accepted was given to the device, once; what answers with an error was not.
 *
 * Order is that of the program: an operation that a queued request posts has the place at which the request was queued.
 */
#pragma once

#include "node.h"

#include <compare>
#include <functional>

namespace fuzz {

struct place {
    std::uint64_t turn = 0, at = 0; ///< of the request; of the call. Equal for what is called directly
    auto operator<=>(const place &) const = default;
};

enum class op_type { message, put, get };
enum class op_state { waiting, posted, done };

struct operation {
    std::uint32_t ep = 0;    ///< number of the endpoint's life
    std::uint32_t index = 0; ///< of messages: how many were accepted before it on the endpoint
    place when;
    op_type type     = op_type::message;
    op_state state   = op_state::waiting;
    bool holds       = false; ///< memory of the user's hangs on it
    bool attempted   = false; ///< the device was offered it
    bool succeeded   = false;
    bool withdrawn   = false; ///< an empty message took its place
    bool doubtful    = false; ///< it may have been cancelled, or come again: the transport decides when it polls
    bool cancelled   = false; ///< by flush or destroy, while the device held it: it is not given to the device again
    std::uint16_t psn = 0;    ///< of messages
    std::uint64_t remote = 0; ///< of the others
    std::uint32_t rkey = 0, size = 0;
    bool in_place = false;         ///< no bounce buffer: the device names the user's memory
    std::vector<std::uint8_t> got; ///< what a get has read
    unsigned unpacked = 0;
};

class user : public fake::observer {
public:
    explicit user(node &n);
    ~user() override;

    /// Whether the peer's program is known to have consumed a message. To be set before the first fence.
    std::function<bool(const operation &)> consumed = [](const operation &) { return true; };
    /// Called at the end of each completion.
    std::function<void()> on_completion;

    std::uint32_t begin_endpoint();
    /// After ep_destroy.
    void end_endpoint(std::uint32_t ep);

    /// A message that `call` posts; `bytes` of the user's memory hang on it if `holds`.
    ucs_status_t message(std::uint32_t ep, bool holds, const std::function<ssize_t()> &call);
    ucs_status_t message_zcopy(uct_ep_h handle, std::uint32_t ep, std::uint8_t id, const void *header, unsigned header_size,
                               unsigned size, std::uint8_t fill, bool with_completion);
    /// `how` chooses among short, buffered and zero-copy, and whether there is a completion.
    ucs_status_t put(uct_ep_h handle, std::uint32_t ep, unsigned how, unsigned size, std::uint64_t remote, std::uint32_t rkey);
    ucs_status_t get(uct_ep_h handle, std::uint32_t ep, unsigned how, unsigned size, std::uint64_t remote, std::uint32_t rkey);
    ucs_status_t flush(uct_ep_h handle, std::uint32_t ep, bool cancel);
    void fence(uct_ep_h handle, std::uint32_t ep);
    void fence_all();
    void flush_all();
    /// Arms the interface, if it has events. True: the program would sleep now; it did not promise so with anything left.
    bool arm();
    /// arm(); now and then with a progress call at once, which must have nothing to do (EVT-1).
    void sleep();
    /// Whether a program that sleeps since arm() would be woken: by an event of the device, or by the timer.
    bool is_woken() const;

    /// Operations accepted so far, on all endpoints.
    unsigned count() const { return static_cast<unsigned>(ops_.size()); }
    place now() { return {++clock_, clock_}; }
    /// A request that was queued at `queued` has its turn on the endpoint.
    void turn_begin(std::uint32_t ep, place queued) { lives_[ep].turn = queued.turn; }
    void turn_end(std::uint32_t ep) { lives_[ep].turn = 0; }

    /// After close: every completion was called; the device holds nothing any more.
    void check_closed();
    const operation &message_at(std::uint32_t ep, std::uint32_t index) const { return *lives_[ep].messages[index]; }
    std::size_t message_count(std::uint32_t ep) const { return lives_[ep].messages.size(); }

    void attempted(const fake::send &s, int rc) override;
    void completed(const fake::send &s, ibv_wc_status status, std::uint32_t vendor_err) override;

    struct tallies {
        tally messages{"messages"}, puts{"puts"}, gets{"gets"}, fences{"fences"}, held_back{"posts after a fence"}, flushes{"flushes"},
            sleeps{"sleeps"};
    };
    static tallies tallied;
    /// Ends the line of a program's counts on stderr.
    static void print_tallies();

private:
    struct life {
        std::uint64_t turn = 0;
        bool gone          = false;
        unsigned cancels   = 0; ///< calls that cancel and have not returned
        std::vector<place> fences;
        std::vector<operation *> ops, messages;
    };
    struct one_sided_call;
    struct flush_call;

    ucs_status_t post(operation o, const std::function<ssize_t()> &call, operation **op_p = nullptr);
    ucs_status_t one_sided(uct_ep_h handle, std::uint32_t ep, op_type type, unsigned how, unsigned size, std::uint64_t remote,
                           std::uint32_t rkey);
    /// What the transport does with the endpoint's operations when it is told to cancel.
    void withdraw(std::uint32_t ep);
    void check_fences(const operation &o);
    void check_flushed(std::uint32_t ep, const place &when, bool cancel, bool ok) const;
    void check_may_end(const operation &o, ucs_status_t status) const;

    node &n_;
    std::uint64_t clock_ = 0;
    std::uint64_t told_when_armed_ = 0; ///< events of the device
    std::vector<life> lives_;
    std::deque<operation> ops_;                       ///< addresses stay
    std::map<std::uint64_t, operation *> by_request_; ///< by the work request's wr_id
    operation *posting_ = nullptr;                    ///< whose call is under way
    std::vector<std::unique_ptr<one_sided_call>> calls_;
    std::vector<std::unique_ptr<flush_call>> flushes_;
};

/// The bytes that a put of this operation carries.
std::uint8_t put_pattern(std::uint64_t remote, unsigned at);

} // namespace fuzz
