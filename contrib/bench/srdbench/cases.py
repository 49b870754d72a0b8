"""What is measured: the cases of each preset, and the command lines that measure them.

Owns: command lines, iteration counts, environment of each case. Refuses to know: how processes are run and reported.

A case is one program pair at one size. Cases that are compared share a `group`, and are run one directly after the
other in every pass, so that whatever else the machine does meanwhile hits them alike.
"""

import dataclasses
import re

SIZES = (8, 1024, 8192, 65536, 1048576)
UCX_TABLE_TESTS = {"latency": "tag_lat", "bandwidth": "tag_bw"}
ONE_SIDED_TESTS = {"put": "ucp_put_bw", "get": "ucp_get"}  # one at a time: a get waits for its answer
MAX_ITERATIONS = {"ucx": 20_000_000, "ib_send_lat": 1_000_000, "ib_send_bw": 20_000_000, "shm_pingpong": 20_000_000,
                  "shm_reference": 20_000_000, "verbs_probe": 50_000_000}
MIN_ITERATIONS = 200
SINGLE = ("shm_pingpong", "shm_reference", "verbs_probe")  # programs that are a pair by themselves
WAKE_GAP_US = 200.0     # what the programs wait between two of their wake-ups
HEAP = " heap"          # of a series: UCX takes the buffers from the heap, as an application has them, and not from a segment of its transport's
IDLE_MS = 2000          # verbs_probe idle: its count is a time


@dataclasses.dataclass
class Case:
    """One thing to measure. `us_guess` is corrected by the calibration run."""
    series: str             # who: srd, tcp, posix, verbs, shm
    metric: str             # latency, bandwidth, put or get: decides what us means and which table shows it
    test: str               # the program's own name of the test
    size: int               # bytes of one message
    program: str            # ucx, ib_send_lat, ib_send_bw, shm_pingpong, shm_reference, verbs_probe
    layout: str = ""        # uct tests only: short, bcopy, zcopy
    us_guess: float = 0.0
    qps: int = 0            # verbs_probe only: queue pairs; 0 = of no interest
    needs_write: bool = False  # an RDMA write that is emulated by messages would be measured otherwise

    @property
    def group(self):
        return "%s %d" % (self.metric, self.size)

    @property
    def name(self):
        words = [self.series, self.test] + ([self.layout] if self.layout else []) + [size_text(self.size)]
        if self.qps:
            words[-1] = "%d QP%s" % (self.qps, "s" if self.qps > 1 else "")
        return " ".join(words)


@dataclasses.dataclass
class Tools:
    """What the machine offers; filled by the command line."""
    prefix: list            # words that load transport and device; empty = nothing to load
    transport: str          # UCX_TLS of the transport under test
    uct_device: str = ""    # its device as UCT names it
    verbs_device: str = ""  # as verbs names it; empty = the first
    programs: dict = dataclasses.field(default_factory=dict)  # our own ones: name -> path
    rdma_write: bool = False  # the transport under test writes by RDMA here
    ucx_words: tuple = ()   # what ucx_perftest needs to talk by sockets
    missing: dict = dataclasses.field(default_factory=dict)  # program -> why it is not there, where a preset does without
    tcp_device: str = "lo"


def size_text(size):
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return "%d %s" % (size // unit, name)
    return "%d B" % size


def guess_us(series, metric, size):
    """A first idea of one message's time, only good enough for a calibration run of some ten milliseconds."""
    if metric in ONE_SIDED_TESTS:
        return 100.0 + size / 100.0  # the target's program does not poll: whoever answers for it must first wake up
    start = 5.0 if series == "tcp" else 1.0
    return start * (0.5 if metric == "bandwidth" else 1.0) + size / 4000.0


def iterations(case, us, target_s):
    """How many messages take about target_s; a round trip of a latency test is two of them."""
    if case.metric == "idle":
        return IDLE_MS
    per_iteration = us * (2.0 if case.metric in ("latency", "in turns") else 1.0)
    if case.metric == "wake":
        per_iteration += WAKE_GAP_US
    wanted = int(target_s * 1e6 / max(per_iteration, 0.001))
    return max(MIN_ITERATIONS if case.size < 65536 else 20, min(wanted, MAX_ITERATIONS[case.program]))


def table_cases(series, sizes=SIZES, one_sided=False):
    """Latency and bandwidth over size, for every series asked for, compared size by size."""
    cases = []
    for metric in ONE_SIDED_TESTS if one_sided else ():
        cases += [Case(name, metric, ONE_SIDED_TESTS[metric], size, "ucx")
                  for size in sizes for name in series if name not in ("verbs", "shm")]
    for metric in ("latency", "bandwidth"):
        for size in sizes:
            for name in series:
                if name == "verbs":
                    program = "ib_send_lat" if metric == "latency" else "ib_send_bw"
                    cases.append(Case(name, metric, program, size, program))
                elif name == "shm":
                    if metric == "latency":
                        cases.append(Case(name, metric, "shm_pingpong", size, "shm_pingpong"))
                else:
                    cases.append(Case(name, metric, UCX_TABLE_TESTS[metric], size, "ucx"))
    return cases


def speed_cases():
    """The four bounds. Each bound's sides stand next to each other."""
    return [Case("srd", "latency", "tag_lat", 8, "ucx"),
            Case("tcp", "latency", "tag_lat", 8, "ucx"),
            Case("srd", "latency", "am_lat", 8, "ucx", "short"),
            Case("verbs", "latency", "ib_send_lat", 8, "ib_send_lat"),
            Case("shm", "latency", "shm_pingpong", 8, "shm_pingpong"),
            Case("srd", "bandwidth", "am_bw", 8, "ucx", "short"),
            Case("verbs", "bandwidth", "ib_send_bw", 8, "ib_send_bw"),
            Case("srd", "bandwidth", "tag_bw", 8, "ucx")]


def softefa_cases():
    """The bounds on Soft EFA itself. Each bound's sides stand next to each other."""
    mib = 1 << 20
    return [Case("verbs", "latency", "ib_send_lat", 8, "ib_send_lat"),
            Case("shm", "latency", "shm_pingpong", 8, "shm_pingpong"),
            Case("verbs", "in turns", "pingpong", 8, "verbs_probe"),
            Case("verbs", "bandwidth", "ib_send_bw", 8192, "ib_send_bw"),
            Case("shm", "bandwidth", "copy_stream", 8192, "shm_reference"),
            Case("verbs", "get", "read", mib, "verbs_probe"),
            Case("srd", "get", "get", mib, "ucx", "zcopy"),  # of UCT: UCP emulates gets where the transport cannot put
            Case("posix", "get", "ucp_get", mib, "ucx"),
            Case("posix,cma", "get", "ucp_get", mib, "ucx"),  # UCP takes posix where it can: this one is not cma
            Case("posix" + HEAP, "get", "ucp_get", mib, "ucx"),
            Case("posix,cma" + HEAP, "get", "ucp_get", mib, "ucx"),
            Case("cma", "get", "get", mib, "ucx", "zcopy"),  # one process_vm_readv of ordinary memory
            Case("verbs", "put", "write", mib, "verbs_probe"),
            Case("srd", "put", "put_bw", mib, "ucx", "zcopy", needs_write=True),
            Case("posix", "put", "ucp_put_bw", mib, "ucx"),
            Case("posix,cma", "put", "ucp_put_bw", mib, "ucx"),
            Case("posix" + HEAP, "put", "ucp_put_bw", mib, "ucx"),
            Case("posix,cma" + HEAP, "put", "ucp_put_bw", mib, "ucx"),
            Case("cma", "put", "put_bw", mib, "ucx", "zcopy"),
            Case("verbs", "wake", "sleeping_read", 8, "verbs_probe"),
            Case("shm", "wake", "futex_reply", 8, "shm_reference"),
            Case("verbs", "poll 1", "poll", 8, "verbs_probe", qps=1),
            Case("verbs", "poll 64", "poll", 8, "verbs_probe", qps=64),
            Case("verbs", "turn 1", "turn", 8, "verbs_probe", qps=1),
            Case("verbs", "turn 64", "turn", 8, "verbs_probe", qps=64),
            Case("verbs", "idle", "idle", 8, "verbs_probe")]


def not_here(case, tools):
    """Why this case cannot be measured with what the machine offers, or None."""
    if case.program in tools.missing:
        return "missing: " + tools.missing[case.program]
    if case.series == "srd" and case.program == "ucx" and not tools.uct_device:
        return "missing: UCX has no transport '%s' here" % tools.transport
    if case.needs_write and not tools.rdma_write:
        return "the installed rdma-core or the device has no RDMA write"
    return None


def environment(case, tools):
    """Variables that choose what the case measures; everything else is left as the user has it."""
    if case.program != "ucx" or case.layout:
        return {}
    if case.series == "tcp":
        return {"UCX_TLS": "tcp", "UCX_NET_DEVICES": tools.tcp_device}
    if case.series.endswith(HEAP):
        return {"UCX_TLS": case.series.removesuffix(HEAP), "UCX_ALLOC_PRIO": "heap"}
    return {"UCX_TLS": tools.transport if case.series == "srd" else case.series}


def commands(case, tools, count, port, cores):
    """(server, client) argument vectors; server is None for a program that is a pair by itself."""
    loader = list(tools.prefix) if case.series in ("srd", "verbs") else []
    if case.program in SINGLE:
        own = loader + [tools.programs[case.program], "-c", "%d,%d" % tuple(cores), "-s", str(case.size), "-n", str(count)]
        own += ["-m", case.test] if case.program != "shm_pingpong" else []
        own += ["-q", str(case.qps)] if case.qps else []
        return None, own + (["-d", tools.verbs_device] if case.program == "verbs_probe" and tools.verbs_device else [])
    if case.program == "ucx":
        perftest = loader + ["ucx_perftest", *tools.ucx_words]
        server = perftest + ["-c", str(cores[0]), "-p", str(port)]
        client = perftest + ["-c", str(cores[1]), "-p", str(port), "127.0.0.1", "-f", "-t", case.test,
                           "-s", str(case.size), "-n", str(count), "-w", str(max(10, min(10000, count // 10)))]
        if case.layout:
            srd = case.series == "srd"
            where = ["-x", tools.transport if srd else case.series, "-d", tools.uct_device if srd else "memory"]
            server += where  # UCX 1.18 does not tell its server
            client += [*where, "-D", case.layout]
        return server, client
    # SRD needs the GID index: its address handles have no other form. ucx_perftest pins itself, perftest does not.
    both = loader + [case.program, "-F", "-c", "SRD", "-x", "0", "-s", str(case.size), "-n", str(count), "-p", str(port)]
    if case.program == "ib_send_bw":
        both.append("-N")  # one time stamp per run instead of one per message
    if tools.verbs_device:
        both += ["-d", tools.verbs_device]
    pinned = [["taskset", "-c", str(core)] + both for core in cores]
    return pinned[0], pinned[1] + ["127.0.0.1"]


def verbs_device_of(uct_device):
    """UCT names a device and its port, efa_0:1; verbs only the device."""
    return re.sub(r":\d+$", "", uct_device)
