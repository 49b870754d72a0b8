"""What the benchmark programs print, turned into numbers.

Owns: the output formats of ucx_perftest, of perftest's ib_send_lat and ib_send_bw, of our own programs and of ucx_info.
Refuses to know: how the programs were started.

Every parser returns the same fields, so that reports never ask which program a figure came from:
    size        bytes a message had according to the program, None if it does not say
    iterations  messages measured
    us          mean time of one message in microseconds: one way for latency tests, whole cost for bandwidth tests
    mib_s       MiB per second, None for a latency test of a program that does not say
    msg_s       messages per second
    median_us   the program's own median, None if it has none
Programs of our own that measure in turns with raw shared memory have two more: raw_us, and ratio, the median of both by turn.
A parser that finds no result raises ParseError: a missing figure is never a zero.
"""

import json
import re

MIB = 1024.0 * 1024.0


class ParseError(Exception):
    """The program ended, but what it printed holds no result."""


def _numbers(line):
    """The line's fields as floats, or None if one of them is no number."""
    fields = line.split()
    try:
        return [float(field) for field in fields] if fields else None
    except ValueError:
        return None


def ucx_perftest(text):
    """The final line of ucx_perftest -f: iterations, three times, two bandwidths, two rates. UCX 1.14 on prefixes 'Final:'.

    The 'overall' columns are used: the others cover only the last report interval."""
    found = None
    for line in text.splitlines():
        line = re.sub(r"^\s*(\[thread \d+\]|Final:)\s*", "", line)
        fields = _numbers(line)
        if fields and len(fields) == 8:
            found = fields
    if found is None:
        raise ParseError("no result line of ucx_perftest")
    iterations, median, _, overall, _, mib_s, _, msg_s = found
    if overall <= 0.0 and msg_s > 0.0:
        overall = 1e6 / msg_s
    if overall <= 0.0:
        raise ParseError("ucx_perftest reports a time of zero")
    # The table has three decimals of a microsecond; the rate says more about short messages.
    us = 1e6 / msg_s if msg_s > 0.0 else overall
    return {"size": None, "iterations": int(iterations), "us": us, "mib_s": mib_s, "msg_s": msg_s,
            "median_us": median if median > 0.0 else None}


def _verbs_row(text, columns):
    """The line of numbers that follows perftest's '#bytes' header."""
    header_seen = False
    for line in text.splitlines():
        if line.strip().startswith("#bytes"):
            header_seen = True
            continue
        fields = _numbers(line) if header_seen else None
        if fields and len(fields) == columns:
            return fields
    raise ParseError("no result line of perftest")


def ib_send_lat(text):
    """bytes, iterations, then t_min t_max t_typical t_avg t_stdev 99% 99.9%; all one way, two decimals."""
    row = _verbs_row(text, 9)
    size, iterations, typical, average = int(row[0]), int(row[1]), row[4], row[5]
    if average <= 0.0:
        raise ParseError("ib_send_lat reports a time of zero")
    return {"size": size, "iterations": iterations, "us": average, "mib_s": size / average * 1e6 / MIB,
            "msg_s": 1e6 / average, "median_us": typical}


def ib_send_bw(text):
    """bytes, iterations, BW peak, BW average (both MiB/s, printed as MB), message rate in millions per second."""
    row = _verbs_row(text, 5)
    size, iterations, average, mpps = int(row[0]), int(row[1]), row[3], row[4]
    if mpps <= 0.0:
        raise ParseError("ib_send_bw reports a rate of zero")
    return {"size": size, "iterations": iterations, "us": 1.0 / mpps, "mib_s": average, "msg_s": mpps * 1e6,
            "median_us": None}


def shm_pingpong(text):
    """One line of JSON, written by our own program."""
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                found = json.loads(line)
                us = float(found["one_way_us"])
                size, iterations = int(found["size"]), int(found["iterations"])
            except (ValueError, KeyError, TypeError) as err:
                raise ParseError("shm_pingpong: %s" % err) from err
            if us <= 0.0:
                raise ParseError("shm_pingpong reports a time of zero")
            return {"size": size, "iterations": iterations, "us": us, "mib_s": size / us * 1e6 / MIB,
                    "msg_s": 1e6 / us, "median_us": None}
    raise ParseError("no result line of shm_pingpong")


def probe(text):
    """One line of JSON, written by shm_reference or verbs_probe. Only the time of an idle thread may be zero."""
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                found = json.loads(line)
                us, size, iterations = float(found["us"]), int(found["size"]), int(found["iterations"])
                idle = found["test"] == "idle"
                turns = {key: float(found[key]) for key in ("raw_us", "ratio")} if found["test"] == "pingpong" else {}
            except (ValueError, KeyError, TypeError) as err:
                raise ParseError("our own program: %s" % err) from err
            if us < 0.0 or (us == 0.0 and not idle) or any(value <= 0.0 for value in turns.values()):
                raise ParseError("our own program reports a time of zero")
            return {"size": size, "iterations": iterations, "us": us, "mib_s": size / us * 1e6 / MIB if us else None,
                    "msg_s": 1e6 / us if us else None, "median_us": None, **turns}
    raise ParseError("no result line of our own program")


def not_possible(text):
    """Why a program refuses this on this device, or None: perftest knows the largest SRD message, verbs_probe whether there are RDMA writes."""
    for line in text.splitlines():
        if re.search(r"cannot be greater than|Max msg size in \w+ is MTU|verbs_probe: not possible", line):
            return line.strip()
    return None


def writes_by_rdma(text, transport):
    """Whether `ucx_info -d` says that the transport has a zero-copy put, which is an RDMA write and nothing else."""
    current = None
    for line in text.splitlines():
        match = re.match(r"#\s*Transport:\s*(\S+)", line)
        current = match.group(1) if match else current
        if current == transport and re.match(r"#\s*put_zcopy:", line):
            return True
    return False


def uct_device(text, transport):
    """The first device of a transport in `ucx_info -d`, or None."""
    current = None
    for line in text.splitlines():
        match = re.match(r"#\s*(Transport|Device):\s*(\S+)", line)
        if match and match.group(1) == "Transport":
            current = match.group(2)
        elif match and current == transport:
            return match.group(2)
    return None
