"""Runs cases in passes, A B C A B C, and keeps every figure of every pass.

Owns: order, calibration, what happens after a failure, and the result that becomes JSON.

Calibration: every case is run once, briefly, to learn how long a message takes; that also finds out what cannot run at
all. Its figure is kept in the result, marked as such, and no median contains it. After it every run of a case has the
same iteration count, but for a run that is repeated: one that failed is run once more before it is noted, with half the
iterations where it met its timeout (the machine was slower than when the case was calibrated). That is said, too.

    CAM-1  A failure of one case never keeps another from being measured, and is never silent.
    CAM-2  Pass i of two cases of one group ran back to back: only figures of the same pass are divided by each other.
"""

import statistics
import sys
import time

from . import cases as case_lib
from . import parse
from . import runner

CALIBRATION_S = 0.03
PARSERS = {"ucx": parse.ucx_perftest, "ib_send_lat": parse.ib_send_lat, "ib_send_bw": parse.ib_send_bw,
           "shm_pingpong": parse.shm_pingpong, "shm_reference": parse.probe, "verbs_probe": parse.probe}


class Progress:
    """What goes on, on standard error: one line that is overwritten on a terminal, one line per pass elsewhere."""

    def __init__(self, quiet=False):
        self.quiet = quiet
        self.live = sys.stderr.isatty() and not quiet
        self.started = time.monotonic()

    def step(self, text):
        if self.live:
            sys.stderr.write("\r\033[K%4.0f s  %s" % (time.monotonic() - self.started, text[:88]))
            sys.stderr.flush()

    def line(self, text):
        if not self.quiet:
            sys.stderr.write("%s%4.0f s  %s\n" % ("\r\033[K" if self.live else "", time.monotonic() - self.started, text))
            sys.stderr.flush()

    def error(self, text):
        sys.stderr.write("%s%s\n" % ("\r\033[K" if self.live else "", text))
        sys.stderr.flush()


def measure(case, tools, count, cores, timeout_s):
    """One run: (figures or None, why not or None, whether the size is impossible, runner.Result)."""
    env = case_lib.environment(case, tools)
    result = None
    for _ in range(2):
        port = runner.free_port()
        server, client = case_lib.commands(case, tools, count, port, cores)
        if server is None:
            result = runner.run_one(client, env, None, timeout_s)
        else:
            result = runner.run_pair(server, client, env, cores, port, timeout_s)
        if result.error is None or "ddress already in use" not in result.text:
            break
    refusal = parse.not_possible(result.text) if case.series == "verbs" else None
    if refusal:
        return None, refusal, True, result
    if result.error:
        return None, result.error, False, result
    try:
        figures = PARSERS[case.program](result.outputs[-1])
    except parse.ParseError as err:
        return None, str(err), False, result
    if figures["size"] is not None and figures["size"] != case.size:
        return None, "the program measured %d B instead" % figures["size"], True, result
    figures["seconds"] = round(result.seconds, 3)
    return figures, None, False, result


class Campaign:
    """All cases of one preset. `entries` is the list that becomes JSON, one per case, in the order they are run."""

    def __init__(self, cases, tools, cores, passes, target_s, timeout_s, progress):
        self.tools, self.cores, self.passes = tools, cores, passes
        self.target_s, self.timeout_s, self.progress = target_s, timeout_s, progress
        self.cases = cases
        self.failures = []
        self.entries = [{"series": case.series, "metric": case.metric, "test": case.test, "layout": case.layout,
                         "size": case.size, "group": case.group, "name": case.name, "status": "ok", "reason": None,
                         "iterations": None, "commands": [], "calibration": None, "passes": []} for case in cases]

    def run(self):
        self.progress.line("calibrating %d cases, then %d passes" % (len(self.cases), self.passes))
        for case, entry in zip(self.cases, self.entries):
            self._calibrate(case, entry)
        for number in range(1, self.passes + 1):
            for case, entry in zip(self.cases, self.entries):
                if entry["status"] == "ok":
                    self._pass(case, entry, number)
            self.progress.line("pass %d of %d done" % (number, self.passes))
        for entry in self.entries:
            if entry["status"] == "ok" and not any(entry["passes"]):
                entry["status"], entry["reason"] = "failed", "no pass succeeded"
        return self.entries

    def _calibrate(self, case, entry):
        self.progress.step("calibrating: " + case.name)
        missing = case_lib.not_here(case, self.tools)
        if missing:
            entry["status"], entry["reason"] = "not possible", missing
            return
        guess = case_lib.guess_us(case.series, case.metric, case.size)
        count = case_lib.iterations(case, guess, CALIBRATION_S)
        figures, why, impossible, result = self._measure(case, "calibration", count)
        entry["commands"] = result.commands
        if figures is None:
            entry["status"], entry["reason"] = ("not possible" if impossible else "failed"), why
            if not impossible:
                self._failed(case, "calibration", why, result)
            return
        entry["calibration"] = figures
        entry["iterations"] = case_lib.iterations(case, figures["us"], self.target_s)

    def _pass(self, case, entry, number):
        self.progress.step("pass %d of %d: %s" % (number, self.passes, case.name))
        figures, why, _, result = self._measure(case, "pass %d" % number, entry["iterations"])
        entry["commands"] = result.commands
        entry["passes"].append(figures)
        if figures is None:
            self._failed(case, "pass %d" % number, why, result)
            if sum(one is None for one in entry["passes"]) > 1:
                entry["status"], entry["reason"] = "failed", "failed twice: " + why

    def _measure(self, case, when, count):
        """measure(), once more where it failed: on a busy machine a run may fail for reasons that are no program's."""
        done = measure(case, self.tools, count, self.cores, self.timeout_s)
        figures, why, impossible, result = done
        if figures is not None or impossible:
            return done
        self.progress.error("repeating %s, %s: %s" % (case.name, when, why))
        if result.timed_out:
            count = max(1, count // 2)
        return measure(case, self.tools, count, self.cores, self.timeout_s)

    def _failed(self, case, when, why, result):
        self.failures.append({"case": case.name, "when": when, "reason": why, "commands": result.commands,
                              "output": result.tail()})
        self.progress.error("FAILED %s, %s: %s" % (case.name, when, why))
        for command in result.commands:
            self.progress.error("    " + command)
        for line in result.tail().splitlines()[-12:]:
            self.progress.error("    | " + line)


def values(entry, field="us"):
    """The field in every pass, None where a pass failed."""
    return [None if figures is None else figures[field] for figures in entry["passes"]]


def spread(numbers):
    """(median, min, max) of the numbers that are there, or None."""
    present = [number for number in numbers if number is not None]
    return (statistics.median(present), min(present), max(present)) if present else None


def combine(left, right, operation, field="us"):
    """(median, min, max) of operation(left, right) taken pass by pass (CAM-2), or None."""
    if left is None or right is None:
        return None
    pairs = zip(values(left, field), values(right, field))
    return spread([operation(a, b) for a, b in pairs if a is not None and b is not None])


def find(entries, series, metric, size, test=None):
    """The entry of one case, or None."""
    for entry in entries:
        if (entry["series"], entry["metric"], entry["size"]) == (series, metric, size) and test in (None, entry["test"]):
            return entry
    return None
