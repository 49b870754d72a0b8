/* A small message program over verbs, right or with one planted bug. Exit code 0: every message arrived once and whole.
 *
 * Bugs, and "none": canary.cc. "rdma": none, and before the messages each side reads a mebibyte of the other's memory, and writes one where there are
 * RDMA writes; exit code 12 where that fails. With variables of the environment, for test/system/softefa/environments:
 *   CANARY_SECONDS            of the watchdog (5)
 *   CANARY_SENDER_WITHIN      a command that the sender runs under
 *   CANARY_DENY_PROCESS_VM    no process_vm_readv or _writev: EPERM, or the end of the process ("kill")
 *   CANARY_DENY_LATER         the same when memory was read; with "kill" the receiver alone, which then dies of SIGSYS if it goes on to copy;
 *                             exit code 13 if it does not, 77 where nobody may copy anyway
 *   CANARY_POLL_FROM_SIGNALS  until a signal handler that polls, too, has interrupted 5000 calls of libibverbs on either side; each says so
 */
#pragma once

namespace verbs {
/// `end`: null, or the descriptor of the socket that a sender talks to its receiver by.
int canary_main(const char *bug, const char *end);
}
