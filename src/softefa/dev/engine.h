/* Driving the device from the application's own calls.
 *
 * Owns: the entry points that the verbs wrappers call. They take the engine lock by trylock only (a signal handler or another
 * thread may hold it: then the holder sees the new work before it lets go), make no system call in the common case, never allocate, and
 * preserve errno.
 */
#pragma once

#include "softefa/dev/device.h"

namespace softefa::dev {

/// After the provider's post: `qp` has a new doorbell value.
void engine_posted(handle qp) noexcept;

/// The same after a post to the receive queue.
void engine_posted_recv(handle qp) noexcept;

/// Before the provider's poll of `cq`: moves arrived messages, acknowledgements and posted work.
void engine_poll(handle cq) noexcept;

/// After a poll that returned `count` entries to the application: keeps the overrun account of CQs without a doorbell.
void engine_consumed(handle cq, unsigned count) noexcept;

/// req_notify_cq: arms `cq`; fires at once if entries wait that the application has not consumed.
void engine_arm(handle cq) noexcept;

} // namespace softefa::dev
