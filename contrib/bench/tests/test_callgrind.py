"""The reader of callgrind's files: short names, calls, jumps, positions, and files it must refuse."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from srdbench import callgrind  # noqa: E402

PERFTEST, SRD, LIBC = "/usr/bin/ucx_perftest", "/opt/libuct_srd.so.0", "/lib/libc.so.6"


def file_of(messages, startup=1000, progress="libucs.so.0"):
    """A run of so many messages: each costs perftest 10, the transport 60, memcpy 12 and progress 5 instructions."""
    total = startup + messages * 87
    return """\
# callgrind format
version: 1
creator: callgrind-3.19.0
cmd:  ucx_perftest -l -t am_lat
part: 1
thread: 1

desc: I1 cache:
desc: Trigger: Program termination

positions: line
events: Ir
summary: {total}


ob=(1) {perftest}
fl=(1) run.c
fn=(1) main
10 {startup}
+2 {ten}
cob=(2) {srd}
cfi=(2) srd_ep.cc
cfn=(2) uct_srd_ep_am_short
calls={messages} 20
* {seventytwo}
cob=(4) /lib/{progress}
cfn=(4) progress
calls={messages} 0
-1 {five}

ob=(2)
fl=(2)
fn=(2)
20 {forty}
fi=(3) inlined.h
5 {twenty}
fe=(2)
cob=(3) {libc}
cfi=(4) memcpy.S
cfn=(3) memcpy
calls={messages} 1
21 {twelve}
jcnd={messages}/{messages} 20
22

ob=(3)
fl=(4)
fn=(3)
1 {twelve}

ob=(4)
fl=(5) ???
fn=(4)
0 {five}

totals: {total}
""".format(total=total, startup=startup, messages=messages, perftest=PERFTEST, srd=SRD, libc=LIBC, progress=progress,
           ten=10 * messages, forty=40 * messages, twenty=20 * messages, twelve=12 * messages, five=5 * messages,
           seventytwo=72 * messages)


def profile(messages, **others):
    return callgrind.parse(file_of(messages, **others).splitlines())


class Parse(unittest.TestCase):
    def test_self_costs_belong_to_function_and_object(self):
        found = profile(100)
        self.assertEqual(found.self_cost[PERFTEST, "main"], 2000)
        self.assertEqual(found.self_cost[SRD, "uct_srd_ep_am_short"], 6000)
        self.assertEqual(found.self_cost[LIBC, "memcpy"], 1200)
        self.assertEqual(found.total, 1000 + 8700)

    def test_cost_of_a_call_is_no_self_cost(self):
        found = profile(100)
        call = (PERFTEST, "main"), (SRD, "uct_srd_ep_am_short")
        self.assertEqual(found.call_cost[call], 7200)
        self.assertEqual(found.calls[SRD, "uct_srd_ep_am_short"], 100)

    def test_callee_without_object_is_in_the_callers(self):
        text = "events: Ir\nsummary: 3\nob=(1) a.so\nfn=(1) f\n1 3\ncfn=(2) g\ncalls=4 2\n1 8\n"
        self.assertEqual(callgrind.parse(text.splitlines()).calls["a.so", "g"], 4)

    def test_callee_object_is_forgotten_after_its_call(self):
        text = ("events: Ir\nsummary: 0\nob=(1) a.so\nfn=(1) f\ncob=(2) b.so\ncfn=(2) g\ncalls=1 2\n1 8\n"
                "cfn=(2)\ncalls=2 2\n1 8\n")
        found = callgrind.parse(text.splitlines())
        self.assertEqual((found.calls["b.so", "g"], found.calls["a.so", "g"]), (1, 2))

    def test_several_positions_and_events_are_told_apart(self):
        text = "positions: instr line\nevents: Dr Ir\nsummary: 9 30\nob=a.so\nfn=f\n0x10 1 4 20\n0x12 +1 5 10\n"
        self.assertEqual(callgrind.parse(text.splitlines()).self_cost["a.so", "f"], 30)

    def test_function_named_like_a_header_is_a_function(self):
        text = "events: Ir\nsummary: 3\nob=a.so\nfn=(1) ns::f(int)\n1 3\n"
        self.assertEqual(callgrind.parse(text.splitlines()).self_cost["a.so", "ns::f(int)"], 3)

    def test_wrong_total_is_refused(self):
        with self.assertRaises(callgrind.FormatError):
            callgrind.parse(file_of(100).replace("summary: 9700", "summary: 9701")
                            .replace("totals: 9700", "totals: 9701").splitlines())

    def test_cut_off_file_is_refused(self):
        lines = file_of(100).splitlines()
        for length in range(1, len(lines) - 1):
            if not any(line.strip() for line in lines[length:-1]) or lines[length].startswith("totals"):
                continue
            try:
                whole = callgrind.parse(lines[:length])
            except callgrind.FormatError:
                continue
            self.assertEqual(whole.total, 9700, "cut at line %d" % length)

    def test_garbage_is_refused(self):
        for text in ("hello", "events: Dr\nsummary: 0", "events: Ir\nsummary: 0\nfn=(7)", "events: Ir\n1 x\nsummary: 0",
                     "events: Ir\nsummary: x", ""):
            with self.assertRaises(callgrind.FormatError, msg=text):
                callgrind.parse(text.splitlines())


class Parts(unittest.TestCase):
    def test_every_object_has_its_part(self):
        for path, part in (("/a/libuct_srd.so.0", "transport"), ("/usr/lib/libuct.so.0.0.0", "transport"),
                           ("/usr/lib/libucs.so.0.0.0", "transport"), ("/usr/lib/libibverbs.so.1.14.44.0", "verbs"),
                           ("/usr/lib/libibverbs/libefa-rdmav34.so", "verbs"), ("/usr/lib/libefa.so.1.2.44.0", "verbs"),
                           ("/a/libsoftefa.so", "softefa"), ("/usr/bin/ucx_perftest", "perftest"),
                           ("/usr/lib/libucp.so.0.0.0", "ucp"), ("/lib/libc.so.6", "libc"),
                           ("/lib/ld-linux-x86-64.so.2", "libc"), ("/lib/libuct_ib.so.0", "other"),
                           ("/usr/lib/libucm.so.0", "other"), ("???", "other")):
            self.assertEqual(callgrind.part_of(path), part, path)

    def test_parts_add_up_to_the_total(self):
        found = profile(100, progress="libucm.so.0")
        self.assertEqual(sum(callgrind.by_part(found).values()), found.total)
        self.assertEqual(callgrind.by_part(found)["other"], 500)

    def test_libc_is_charged_to_its_caller_as_well(self):
        self.assertEqual(callgrind.libc_callers(profile(100))["transport"], 1200)


class Difference(unittest.TestCase):
    def test_start_up_cancels_out(self):
        short, long = profile(100, startup=1000), profile(300, startup=1000)
        found = callgrind.per_message(callgrind.by_part(short), callgrind.by_part(long), 200)
        self.assertEqual((found["transport"], found["perftest"], found["libc"]), (65.0, 10.0, 12.0))

    def test_key_of_one_side_counts_as_zero_on_the_other(self):
        self.assertEqual(callgrind.per_message({"a": 10}, {"b": 20}, 10), {"a": -1.0, "b": 2.0})

    def test_hottest_is_sorted_and_bounded(self):
        found = callgrind.hottest(profile(100), profile(300), 200, ("transport", "libc"))
        self.assertEqual([(function, cost, calls) for _, function, cost, calls in found],
                         [("uct_srd_ep_am_short", 60.0, 1.0), ("memcpy", 12.0, 1.0), ("progress", 5.0, 1.0)])


if __name__ == "__main__":
    unittest.main()
