/* A small message program over verbs, right or with one planted bug. Exit code 0: every message arrived once and whole. */
#pragma once

namespace verbs {
/// `end`: null, or the descriptor of the socket that a sender talks to its receiver by.
int canary_main(const char *bug, const char *end);
}
