"""The bounds on speed and the verdict on each, from a result's cases.

Owns: what is compared with what, and the limits. Refuses to know: how figures were measured and how a table looks.

A figure is the median over the passes of a ratio, difference or value taken in each pass, by us or by a program that measured both sides in turns. What was not measured on both sides has no verdict but
'not measured'; a row without a limit is there to be read.
"""

import dataclasses

from . import campaign, cases

MIB = 1 << 20


@dataclasses.dataclass
class Bound:
    key: str
    what: str
    left: tuple             # series, metric, size, test
    right: tuple            # the same; None = the figure itself, or a ratio that the program took
    operation: str          # ratio, difference or value
    field: str              # of a pass: us, mib_s, msg_s or ratio
    limit: float            # None = no bound
    maximum: bool = True    # the limit is the most; else the least
    aim: float = None       # the design's own, tighter


def _ratio(key, what, left, right, field, limit, maximum=True, aim=None):
    return Bound(key, what, left, right, "ratio", field, limit, maximum, aim)


_SEND_LAT = ("verbs", "latency", 8, "ib_send_lat")
_SEND_BW = ("verbs", "bandwidth", 8, "ib_send_bw")
_SHM = ("shm", "latency", 8, "shm_pingpong")

SPEED = (
    _ratio("tag_lat", "tag_lat 8 B, srd / tcp", ("srd", "latency", 8, "tag_lat"), ("tcp", "latency", 8, "tag_lat"), "us", 0.25),
    Bound("am_lat", "uct am_lat short 8 B minus ib_send_lat", ("srd", "latency", 8, "am_lat"), _SEND_LAT, "difference", "us", 0.100, True, 0.060),
    _ratio("rate", "message rate uct am_bw short 8 B / ib_send_bw", ("srd", "bandwidth", 8, "am_bw"), _SEND_BW, "msg_s", 0.8, False, 0.9),
    _ratio("rate_tag", "message rate tag_bw 8 B / ib_send_bw", ("srd", "bandwidth", 8, "tag_bw"), _SEND_BW, "msg_s", None, False),
    _ratio("verbs", "ib_send_lat 8 B / raw shared memory", _SEND_LAT, _SHM, "us", 10.0),
)


def _one_sided(metric, verb, uct_test, ucp_test):
    rows = []
    for rival in ("posix", "posix,cma"):
        right = (rival, metric, MIB, ucp_test)
        rows.append(_ratio("%s %s" % (verb, rival), "RDMA %s 1 MiB, verbs / UCX %s" % (verb, rival), ("verbs", metric, MIB, verb), right,
                           "mib_s", 0.9, False))
        rows.append(_ratio("srd %s %s" % (verb, rival), "the same, srd zcopy / UCX %s" % rival, ("srd", metric, MIB, uct_test), right,
                           "mib_s", None, False))
    for rival in ("posix", "posix,cma"):
        rows.append(_ratio("%s %s heap" % (verb, rival), "RDMA %s 1 MiB, verbs / UCX %s, buffers on the heap" % (verb, rival), ("verbs", metric, MIB, verb),
                           (rival + cases.HEAP, metric, MIB, ucp_test), "mib_s", 0.9, False))
    # Two transports of UCT: both call the kernel once for private memory. What posix does is out of reach of private memory.
    right = ("cma", metric, MIB, uct_test)
    rows.append(_ratio("%s cma" % verb, "RDMA %s 1 MiB, verbs / uct cma" % verb, ("verbs", metric, MIB, verb), right, "mib_s", 0.9, False))
    rows.append(_ratio("srd %s cma" % verb, "the same, srd zcopy / uct cma", ("srd", metric, MIB, uct_test), right, "mib_s", None, False))
    return tuple(rows)


SOFTEFA = (
    _ratio("pingpong", "SEND ping-pong 8 B (ib_send_lat) / raw shared memory", _SEND_LAT, _SHM, "us", 6.0),
    _ratio("pingpong turns", "SEND ping-pong 8 B, verbs / raw shared memory, in turns", ("verbs", "in turns", 8, "pingpong"), None, "ratio", 6.0),
    _ratio("stream", "SEND stream 8 KiB (ib_send_bw) / two-copy pipeline", ("verbs", "bandwidth", 8192, "ib_send_bw"),
           ("shm", "bandwidth", 8192, "copy_stream"), "mib_s", 0.5, False),
    *_one_sided("get", "read", "get", "ucp_get"),
    *_one_sided("put", "write", "put_bw", "ucp_put_bw"),
    _ratio("sleeping", "RDMA read of a sleeping target, p50 / futex wake and reply", ("verbs", "wake", 8, "sleeping_read"),
           ("shm", "wake", 8, "futex_reply"), "us", 2.0),
    _ratio("poll", "empty poll, 64 QPs / 1 QP", ("verbs", "poll 64", 8, "poll"), ("verbs", "poll 1", 8, "poll"), "us", 1.2),
    _ratio("turn", "message to oneself, 64 QPs in turn / 1 QP", ("verbs", "turn 64", 8, "turn"), ("verbs", "turn 1", 8, "turn"), "us", None),
    Bound("idle", "helper thread of an idle process, us of processor time a second", ("verbs", "idle", 8, "idle"), None, "value", "us", 0.0),
)
BY_PRESET = {"speed": SPEED, "softefa": SOFTEFA}


def _summary(entries, bound):
    def side(which):
        series, metric, size, test = which
        return campaign.find(entries, series, metric, size, test)

    if bound.right is None:
        entry = side(bound.left)
        return campaign.spread(campaign.values(entry, bound.field)) if entry else None
    act = (lambda a, b: a / b) if bound.operation == "ratio" else (lambda a, b: a - b)
    return campaign.combine(side(bound.left), side(bound.right), act, bound.field)


def verdicts(entries, preset="speed"):
    """What each bound came to, ready for JSON."""
    found = []
    for bound in BY_PRESET[preset]:
        summary = _summary(entries, bound)
        if summary is None:
            word = "not measured"
        elif bound.limit is None:
            word = "no bound"
        else:
            word = "met" if (summary[0] <= bound.limit if bound.maximum else summary[0] >= bound.limit) else "not met"
        found.append({"key": bound.key, "what": bound.what, "operation": bound.operation, "bound": bound.limit, "maximum": bound.maximum,
                      "aim": bound.aim, "summary": summary, "verdict": word})
    return found
