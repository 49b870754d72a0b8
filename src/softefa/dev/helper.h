/* The helper thread: connects processes, notices their end, and runs the engine while the application does not.
 *
 * Owns: one thread, started when the first QP can communicate; every descriptor and mapping of other processes. All of its signals are blocked.
 * Everything that may block, map or allocate happens on it and never under the engine lock.
 */
#pragma once

#include "softefa/dev/device.h"
#include "softefa/fabric/registry.h"

namespace softefa::dev {

/// Starts the thread if it does not run. Control lock held.
status helper_start(fabric::registry &names, std::uint64_t instance) noexcept;
/// Says goodbye to every peer, joins the thread and gives everything back.
void helper_stop() noexcept;
/// The process ends, and nobody will join the thread: it goes on until then.
void helper_leave() noexcept;
/// In the handler of a fork, child side: its copies of the parent's descriptors are closed, so that it neither keeps peers believing in the
/// parent nor hands them to a program that it starts. Memory stays until helper_revive().
void helper_forked() noexcept;
/// In a forked child that opens a device of its own: what the parent's thread had is given back.
void helper_revive() noexcept;
bool helper_running() noexcept;
/// Makes it look. Any thread that holds the engine lock; one system call, errno preserved.
void helper_kick() noexcept;

} // namespace softefa::dev
