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

/// After a poll that found `cq` empty: how far it was written, if what was consumed is not known for sure (CQ-5); else 0.
std::uint64_t engine_written(handle cq) noexcept;

/// A poll that began after engine_written() found nothing: all that was written by then is consumed.
void engine_emptied(handle cq, std::uint64_t written) noexcept;

/// req_notify_cq: arms `cq`; fires at once if entries wait that the application has not consumed.
void engine_arm(handle cq) noexcept;

} // namespace softefa::dev
