/* Small message programs over verbs, right or with one planted bug. Exit code 0: every message arrived once and whole; 10: the bug showed.
 *
 * Bugs, and "none": canary.cc, and canary_short.cc for programs of a few messages. "rdma": none, and before the messages each side reads a mebibyte of the other's memory, and writes one where there are
 * RDMA writes; exit code 12 where that fails. With variables of the environment, for test_canaries.cc:
 *   CANARY_SENDER_STOP_AT, CANARY_SENDER_KILL_AT  SOFTEFA_STOP_AT and SOFTEFA_KILL_AT of the sender alone
 *   CANARY_SENDER_RUDE_QPN    SOFTEFA_RUDE_QPN of the sender to two: the "first" of them, or a queue pair that is neither ("none")
 *   CANARY_PAUSE              longest pause of the one that pauses, in seconds (0.2); the pause ends when the sender's work does
 * and for test/system/softefa/environments:
 *   CANARY_SECONDS            of the watchdog (5)
 *   CANARY_SENDER_WITHIN      a command that the sender runs under
 *   CANARY_DENY_PROCESS_VM    no process_vm_readv or _writev: EPERM, or the end of the process ("kill")
 *   CANARY_DENY_LATER         the same when memory was read; with "kill" the receiver alone, which then dies of SIGSYS if it goes on to copy;
 *                             exit code 13 if it does not, 77 where nobody may copy anyway
 *   CANARY_POLL_FROM_SIGNALS  until a signal handler that polls, too, has interrupted 5000 calls of libibverbs on either side; each says so
 */
#pragma once

#include <optional>

namespace verbs {
/// `end`: null, or the descriptor of the socket that a sender talks to its receiver by.
int canary_main(const char *bug, const char *end);
/// The same for the programs of canary_short.cc. Nothing: it is none of them.
std::optional<int> short_canary(const char *bug, const char *end);
}
