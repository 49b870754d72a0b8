"""The steps of each tier. Order is fail-fast: cheap and basic first.

user  what `contrib/quickstart check` runs: at most 15 minutes on two cores
ci    what .ci/run adds: the sanitized build, UCX's own tests, the longer fault runs
"""
import os
import re

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Step:
    """name: unique; command: argv; limit: seconds; gtest: counted by its report; counts: prints a line of counts, else the exit
    code is the one test; env: additions to the environment. A step that sets no SOFTEFA_DOMAIN gets the run's."""

    def __init__(self, name, command, limit=300, gtest=False, counts=True, env=None):
        self.name, self.command, self.limit, self.gtest, self.counts = name, command, limit, gtest, counts
        self.env = env or {}


def unit_programs():
    """The GoogleTest programs that the makefiles declare."""
    names = []
    folder = os.path.join(TOP, "test/gtest")
    for part in ("base.am", "loader.am", "softefa.am", "tools.am", "uct_srd.am", "uct_srd_net.am"):
        with open(os.path.join(folder, part), encoding="utf-8") as f:
            for line in f:
                match = re.match(r"check_PROGRAMS \+= (.*)", line)
                if match:
                    names += match[1].split()
    return names


def unit_tests(build, flavour):
    return [Step(f"{name} ({flavour})", [os.path.join(build, flavour, "test/gtest", name)], limit=900, gtest=True)
            for name in unit_programs()]


def thread_tests(build):
    """Soft EFA's device and commands under ThreadSanitizer: any report fails its program."""
    return [Step(f"{name} (tsan)", [os.path.join(build, "tsan/test/gtest", name)], limit=900, gtest=True)
            for name in ("gtest_softefa", "gtest_softefa_dev", "gtest_softefa_points", "gtest_softefa_shortage")]


def make_tests(build, flavour):
    return Step(f"build tests ({flavour})", [os.path.join(TOP, "test/build"), flavour, build], limit=4500, counts=False)


def fuzz(build, flavour, name, *arguments, limit=300):
    """A program of test/fuzz under its own driver: the corpus, then seeded random runs."""
    return Step(" ".join([f"fuzz_{name} ({flavour})", *arguments]),
                [os.path.join(build, flavour, "test/fuzz", f"fuzz_{name}"), *arguments, os.path.join(TOP, "test/fuzz/corpus", name)],
                limit=limit, counts=False) # thousands of runs are one test


def soft_fuzz(build, flavour, name, *arguments, limit=300):
    """A program of test/fuzz/softefa under its own driver: seeded random runs."""
    return Step(" ".join([f"Soft EFA fuzz_{name} ({flavour})", *arguments]),
                [os.path.join(build, flavour, "test/fuzz/softefa", f"fuzz_{name}"), *arguments], limit=limit, counts=False)


def judge(build, name, *arguments, limit, title=None, env=None):
    """A judge; its verdicts and logs are below the build folder, where no other run of the same user writes."""
    title = title or " ".join([name, *arguments])
    results = os.path.join(build, "results", re.sub(r"[^\w.-]+", "-", title))
    return Step(title, [os.path.join(TOP, "contrib/judges", name), "--results", results, *arguments], limit=limit, env=env)


def ucx_gtest(build, cases, title, env=None):
    """UCX's own tests. They take minutes; the limits are for what hangs, and the judge's own are reached before this step's."""
    return judge(build, "ucx-gtest", "--filter", cases, "--case-timeout", "300", "--total-timeout", "3000", limit=3600, title=title, env=env)


class Soft:
    """Commands that run over Soft EFA with one installed flavour."""

    def __init__(self, build, flavour, install):
        self.build, self.flavour = build, flavour
        self.prefix = [os.path.join(install, "bin/ucx-srd"), "run", "--soft", "--"]
        self.faults = os.path.join(build, flavour, "test/system/ucp_faults")
        self.surface_program = os.path.join(build, flavour, "test/system/ucp_surface")

    def fault(self, what, *arguments, limit, env=None, title=None):
        return Step(f"{title or what} {' '.join(arguments)} ({self.flavour})", [*self.prefix, self.faults, what, *arguments],
                    limit=limit, env={"UCX_TLS": "srd", **(env or {})})

    def signals(self, what, *arguments, limit):
        return Step(f"signals: {what} {' '.join(arguments)} ({self.flavour})",
                    [*self.prefix, os.path.join(self.build, self.flavour, "test/system/ucp_signals"), what, *arguments], limit=limit,
                    env={"UCX_TLS": "srd", "UCX_LOG_LEVEL": "diag", "UCX_SRD_KEEPALIVE_INTERVAL": "200ms", "UCX_KEEPALIVE_INTERVAL": "300ms"})

    def surface(self, what, *arguments, devices=1, env=None):
        return Step(f"{what} {' '.join(arguments)} ({self.flavour})",
                    [self.prefix[0], "run", f"--soft={devices}", "--", self.surface_program, what, *arguments], limit=300,
                    env={"UCX_TLS": "srd", "SOFTEFA_DOMAIN": f"surface.{devices}.{os.getpid()}", **(env or {})})

    def lives(self, what, *arguments, devices=1, env=None):
        return Step(f"lives: {what} {' '.join(arguments)} ({self.flavour})",
                    [self.prefix[0], "run", f"--soft={devices}", "--",
                     os.path.join(self.build, self.flavour, "test/system/uct_lives"), what, *arguments], limit=400,
                    env={"UCX_TLS": "srd", "SOFTEFA_DOMAIN": f"lives.{what}.{os.getpid()}", **(env or {})})

    def dmabuf(self):
        return Step(f"dmabuf ({self.flavour})", [*self.prefix, os.path.join(self.build, self.flavour, "test/system/uct_dmabuf")],
                    env={"UCX_TLS": "srd", "SOFTEFA_DMABUF": "1", "SOFTEFA_DOMAIN": f"dmabuf.{os.getpid()}"})

    def sleep(self, rounds, limit):
        return Step(f"arm and sleep, {rounds} times ({self.flavour})",
                    [*self.prefix, os.path.join(self.build, self.flavour, "test/system/ucp_sleep"), rounds], limit=limit,
                    env={"UCX_TLS": "srd", "SOFTEFA_REORDER": "50"})

    def litmus(self, what, rounds, limit=300):
        return Step(f"litmus {what}, {rounds} rounds ({self.flavour})",
                    [*self.prefix, os.path.join(self.build, self.flavour, "test/system/ucp_litmus"), what, rounds], limit=limit,
                    env={"UCX_TLS": "srd", "SOFTEFA_REORDER": "50"})

    def stock_ucx(self, *arguments, limit=600, env=None, title=""):
        return Step(f"stock UCX tools{title} ({self.flavour})",
                    [os.path.join(TOP, "test/system/stock-ucx"), *arguments, "--prefix", " ".join(self.prefix)], limit=limit, env=env)


# Bounds, seconds, within which the survivor hears of a dead peer and a forced close ends: docs/uct-semantics.md.
DEATH_BOUND = "10"
CLOSE_BOUND = "20"


def user(build, install):
    soft = Soft(build, "release", install)
    return [
        Step("test/run itself", [os.path.join(TOP, "test/system/test-run")]),
        make_tests(build, "release"),
        *unit_tests(build, "release"),
        fuzz(build, "release", "codec", "--runs", "100000"),
        fuzz(build, "release", "receive", "--runs", "10000"),
        fuzz(build, "release", "pair", "--runs", "3000"),
        *[soft_fuzz(build, "release", name, "--seconds", "2") for name in ("neighbour", "uverbs", "wqe")],
        Step("Soft EFA's environments", [os.path.join(TOP, "test/system/softefa/environments")], limit=900,
             env={"PROGRAM": os.path.join(build, "release/test/gtest/gtest_softefa_verbs"),
                  "LIBRARY": os.path.join(build, "release/src/softefa/.libs/libsoftefa.so")}),
        Step("tools", [os.path.join(TOP, "test/system/tools/run")], limit=600, env={"INSTALL": install}),
        Step("softefa", [os.path.join(TOP, "test/system/softefa/run")], limit=600, env={"INSTALL": install}),
        Step("pages", [os.path.join(TOP, "docs/check-pages"), os.path.join(build, "release")]),
        soft.surface("vfs"),
        soft.surface("devices", "2", devices=2, env={"UCX_MAX_EAGER_LANES": "2"}),
        soft.surface("devices", "1", devices=2, env={"UCX_NET_DEVICES": "efa_1:1"}),
        soft.surface("rendezvous", "read"),
        soft.surface("rendezvous", "messages", env={"SOFTEFA_PROFILE": "efa0", "SOFTEFA_DOMAIN": f"surface.efa0.{os.getpid()}"}),
        soft.surface("listen", env={"UCX_TLS": "srd,tcp"}),
        soft.surface("wakeup", "yes"),
        soft.surface("wakeup", "no", env={"UCX_SRD_EVENTS": "n"}),
        soft.dmabuf(),
        soft.stock_ucx("--quick"),
        judge(build, "verbs-tools", limit=900),
        judge(build, "rdma-core-tests", "--suite", "efa", "--case-timeout", "300", limit=900, title="rdma-core-tests --suite efa"),
        soft.fault("incast", "64", "100", limit=240, env={"UCX_SRD_RX_QUEUE_LEN": "16"}, title="RQ of 16,"),
        soft.sleep("20000", limit=600),
        soft.litmus("atomic-fence-put", "2000"),
        soft.litmus("put-fence-am", "2000"),
        soft.lives("cycles", "300", "20"),
        soft.lives("restart", "20", env={"SOFTEFA_REUSE_QPN": "1"}),
        soft.lives("ah-limit", devices=3, env={"SOFTEFA_MAX_AH": "2"}),
        soft.fault("peer-kill", "20", DEATH_BOUND, limit=300),
        soft.fault("force-close", "6", CLOSE_BOUND, limit=240),
        soft.signals("line", "5", DEATH_BOUND, limit=300),
        soft.signals("stop", "2", "3", limit=600),
        judge(build, "mpi", "--ranks", "2 4 8", limit=900),
    ]


def ci(build, install):
    release = Soft(build, "release", install)
    asan = Soft(build, "asan", os.path.join(build, "asan/_install"))
    return [
        make_tests(build, "asan"),
        *unit_tests(build, "asan"),
        fuzz(build, "asan", "codec", "--seed", "2", "--runs", "100000"),
        fuzz(build, "asan", "receive", "--seed", "2", "--runs", "5000"),
        fuzz(build, "asan", "pair", "--seed", "2", "--runs", "1500"),
        *[soft_fuzz(build, "asan", name, "--seed", "2", "--seconds", "8") for name in ("neighbour", "uverbs", "wqe")],
        make_tests(build, "tsan"),
        *thread_tests(build),
        asan.stock_ucx("--quick", env={"ASAN_OPTIONS": "detect_leaks=0"}),
        Step("build UCX's own tests", [os.path.join(TOP, "contrib/judges/ucx-gtest-build")], limit=4500, counts=False),
        ucx_gtest(build, "uct", title="UCX's own tests, uct"),
        ucx_gtest(build, "uct", title="UCX's own tests, uct, reordering raised", env={"SOFTEFA_REORDER": "50"}),
        ucx_gtest(build, "ucp-am-tag-stream", title="UCX's own tests, ucp tag, am, stream"),
        ucx_gtest(build, "ucp-rest", title="UCX's own tests, the rest of ucp"),
        judge(build, "rdma-core-tests", "--suite", "all", "--case-timeout", "300", limit=900, title="rdma-core-tests --suite all"),
        judge(build, "libfabric", "--iterations", "3", limit=900),
        release.fault("peer-kill", "100", DEATH_BOUND, limit=900),
        Step("incast: refusals, memory", [os.path.join(TOP, "test/system/incast"), "--prefix", " ".join(release.prefix),
                                          "--faults", release.faults], limit=240), # fairness: srd_incast.*, in virtual time
        judge(build, "mpi", "--compare", "srd,tcp", limit=900, title="all-to-all beside tcp"),
    ]


TIERS = {"user": user, "ci": ci}
