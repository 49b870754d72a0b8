/* The one error type inside both products.
 *
 * Owns: the enum that every fallible internal function returns, and result<T>, a value or a status.
 * Refuses to know: ucs_status_t and errno; one file in each product translates (srd_error.cc, uverbs_errno.h).
 *
 * The four classes of error of this code base are visible in the names:
 *   caller bug        invalid_argument, unsupported, not_found, permission, bad_address
 *   resource          no_resource (retry later, nothing changed), no_memory, limit
 *   peer or network   peer_gone, unreachable, protocol
 *   our own bug       never a status: an assertion
 */
#pragma once

#include <cassert>
#include <cstdint>
#include <utility>

namespace base {

enum class [[nodiscard]] status : std::uint8_t {
    ok = 0,
    in_progress,      ///< accepted; completes later
    invalid_argument, ///< the caller passed something that can never work
    unsupported,      ///< valid in general, not offered here
    not_found,        ///< a handle or name that does not exist
    permission,       ///< exists, but not for this caller
    bad_address,      ///< memory range not mapped or not covered by a registration
    busy,             ///< in use by something else
    no_resource,      ///< a bounded pool or ring is full; retry later, state unchanged
    no_memory,        ///< the allocator failed
    limit,            ///< a documented device limit is reached
    peer_gone,        ///< the remote process ended
    unreachable,      ///< nobody answers at that address
    protocol,         ///< the remote side sent something that the protocol does not allow
    io_error,         ///< a system call failed in a way that has no better name
};

/// English word for messages; never null.
constexpr const char *status_string(status s) noexcept
{
    switch (s) {
    case status::ok: return "success";
    case status::in_progress: return "in progress";
    case status::invalid_argument: return "invalid argument";
    case status::unsupported: return "not supported";
    case status::not_found: return "not found";
    case status::permission: return "permission denied";
    case status::bad_address: return "bad address";
    case status::busy: return "busy";
    case status::no_resource: return "temporarily out of resources";
    case status::no_memory: return "out of memory";
    case status::limit: return "limit reached";
    case status::peer_gone: return "peer is gone";
    case status::unreachable: return "unreachable";
    case status::protocol: return "protocol violation";
    case status::io_error: return "I/O error";
    }
    return "unknown status";
}

/// A value, or the reason why there is none. T must be default constructible (handles, small structs, pointers).
template <class T> class [[nodiscard]] result {
public:
    result(T value) noexcept : value_(std::move(value)) {}
    result(status error) noexcept : error_(error) { assert(error != status::ok); }

    explicit operator bool() const noexcept { return error_ == status::ok; }
    status error() const noexcept { return error_; }

    T &operator*() noexcept { assert(*this); return value_; }
    const T &operator*() const noexcept { assert(*this); return value_; }
    T *operator->() noexcept { assert(*this); return &value_; }

private:
    T value_{};
    status error_ = status::ok;
};

} // namespace base
