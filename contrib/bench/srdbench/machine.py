"""Where a figure was measured: machine, versions, settings, and where the programs are.

Owns: what is read from /proc, from `--version` outputs and from the environment. A figure without this is no figure.
"""

import datetime
import glob
import os
import platform
import shlex
import shutil
import subprocess
import sys

BENCH_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT_DIR = os.path.dirname(os.path.dirname(BENCH_DIR))


def first_line(argv, timeout_s=10.0):
    """The first line a command prints, or None: a version that cannot be asked for is left out."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return lines[0].strip() if lines and done.returncode == 0 else None


def _proc_value(path, key):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == key:
                    return value.strip()
    except OSError:
        pass
    return None


def cores():
    """Two different cores we may run on, the last ones: interrupts and daemons prefer the first. [a, a] if there is one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-2:] if len(allowed) > 1 else [allowed[0], allowed[0]]


def package_version(name):
    return first_line(["dpkg-query", "-W", "-f", "${Version}\n", name]) if shutil.which("dpkg-query") else None


def commit():
    """The checkout's commit, with '+' if files differ from it."""
    line = first_line(["git", "-C", ROOT_DIR, "rev-parse", "--short", "HEAD"]) if shutil.which("git") else None
    if line is None:
        return None
    return line + ("+" if first_line(["git", "-C", ROOT_DIR, "status", "--porcelain", "-uno"]) else "")


def describe():
    """Everything a reader needs to judge or repeat a measurement."""
    memory = _proc_value("/proc/meminfo", "MemTotal")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join([os.path.basename(sys.argv[0])] + [shlex.quote(word) for word in sys.argv[1:]]),
        "cpu": _proc_value("/proc/cpuinfo", "model name") or platform.machine(),
        "cpus": os.cpu_count(),
        "cores": cores(),
        "virtual_machine": "hypervisor" in (_proc_value("/proc/cpuinfo", "flags") or "").split(),
        "memory": memory,
        "kernel": platform.release(),
        "system": _os_name(),
        "commit": commit(),
        "packages": {name: version for name in ("libucx0", "ucx-utils", "libibverbs1", "perftest", "valgrind")
                     for version in [package_version(name)] if version},
        "settings": {key: value for key, value in sorted(os.environ.items())
                     if key.startswith(("UCX_", "SOFTEFA_"))},
        "load_before": round(os.getloadavg()[0], 2),
    }


def _os_name():
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return platform.system()


def ucx_perftest_words():
    """Built with MPI, as Debian 13's is, it takes itself for one rank of a job where its input is no terminal: not here."""
    try:
        done = subprocess.run(["ucx_perftest", "-h"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=10.0, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return ("-P", "0") if b"-P <0|1>" in done.stdout else ()


def find_prefix(soft, install=None):
    """The words that load the transport and Soft EFA into a command, or None if ucx-srd is not installed."""
    places = [install] if install else [os.path.join(ROOT_DIR, "_install")]
    for path in [os.path.join(place, "bin", "ucx-srd") for place in places] + [None if install else shutil.which("ucx-srd")]:
        if path and os.access(path, os.X_OK):
            return [path, "run"] + (["--soft"] if soft else []) + ["--"]
    return None


def find_softefa(install=None):
    """The words that load Soft EFA alone, for an installation without UCX; or None."""
    places = [install] if install else [os.path.join(ROOT_DIR, "_install")]
    for path in [os.path.join(place, "bin", "softefa") for place in places] + [None if install else shutil.which("softefa")]:
        if path and os.access(path, os.X_OK):
            return [path, "run", "--"]
    return None


def find_program(name):
    """One of our own programs that `make` built, or None."""
    places = [os.path.join(BENCH_DIR, name)]
    for pattern in ("_build/release", "_build", "_build*", "_build/*"):
        places += sorted(glob.glob(os.path.join(ROOT_DIR, pattern, "contrib", "bench", name)))
    for path in places:
        if os.access(path, os.X_OK):
            return path
    return shutil.which(name)
