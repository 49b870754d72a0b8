"""Starts benchmark programs, one pair at a time, and ends them.

Owns: processes. Refuses to know: what they measure and what their output means.

A pair is a server that listens on a TCP port and a client that connects to it. The client starts once the kernel says
that the port listens, never after a fixed pause. Every program runs in a session of its own, so that whatever it starts
can be ended with it, and only that; on every way out both are gone.

    RUN-1  No run outlives its timeout by more than the time a SIGKILL takes.
    RUN-2  Only process groups that this file created are ever signalled.
"""

import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time

SERVER_START_S = 60.0   # until the port listens: loading the libraries and opening the device, on a busy machine
SERVER_END_S = 60.0     # until the server is gone after its client ended well, on a busy machine
OUTPUT_TAIL = 4000      # characters of output kept of a run that failed


class Result:
    """How one run ended. `error` is None if every program ended with exit code 0."""

    def __init__(self, commands):
        self.commands = commands    # one string per program, ready to be typed
        self.outputs = []           # of each program, standard output and error together, in the order of commands
        self.error = None
        self.timed_out = False      # whether the error is that it was not done in time
        self.seconds = 0.0

    @property
    def text(self):
        return "\n".join(self.outputs)

    def tail(self):
        return self.text[-OUTPUT_TAIL:]


def free_port():
    """A TCP port that nothing uses now. Somebody else may take it before we do: the run then fails and is repeated."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port, tables=("/proc/net/tcp", "/proc/net/tcp6")):
    """Whether a socket listens on the port, asked of the kernel: to connect would be taken for a client."""
    wanted = "%04X" % port
    for table in tables:
        try:
            with open(table, encoding="ascii") as file:
                for line in file:
                    fields = line.split()
                    if len(fields) > 3 and fields[3] == "0A" and fields[1].rsplit(":", 1)[-1] == wanted:
                        return True
        except OSError:
            continue
    return False


def shell_line(argv, env):
    """The command as a user would type it."""
    return " ".join(["%s=%s" % (key, shlex.quote(value)) for key, value in sorted(env.items())]
                    + [shlex.quote(word) for word in argv])


class _Program:
    """One program in its own session, its output in an unnamed file (a pipe could fill up and stall it)."""

    def __init__(self, argv, env, core):
        self.output = tempfile.TemporaryFile()

        def pin():
            os.sched_setaffinity(0, {core})

        full_env = dict(os.environ)
        full_env.update(env)
        try:
            self.process = subprocess.Popen(argv, env=full_env, stdin=subprocess.DEVNULL, stdout=self.output,
                                            stderr=subprocess.STDOUT, start_new_session=True,
                                            preexec_fn=None if core is None else pin)
        except (OSError, subprocess.SubprocessError):
            self.output.close()
            raise

    def wait(self, deadline):
        """Exit code, or None if it still runs at the deadline."""
        try:
            return self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None

    def end(self):
        """Gone afterwards, with everything it started (RUN-2: the group is the one that start_new_session made)."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.process.wait()

    def read(self):
        self.output.seek(0)
        text = self.output.read().decode("utf-8", "replace")
        self.output.close()
        return text


def _exit_word(code):
    if code < 0:
        try:
            return "was ended by %s" % signal.Signals(-code).name
        except ValueError:
            return "was ended by signal %d" % -code
    return "ended with exit code %d" % code


def run_one(argv, env, core, timeout_s):
    """One program, to its end."""
    result = Result([shell_line(argv, env)])
    started = time.monotonic()
    try:
        program = _Program(argv, env, core)
    except (OSError, subprocess.SubprocessError) as err:
        result.error = "cannot start %s: %s" % (argv[0], err)
        return result
    try:
        code = program.wait(started + timeout_s)
        if code is None:
            result.error, result.timed_out = "timeout after %.0f s" % timeout_s, True
        elif code != 0:
            result.error = "%s %s" % (os.path.basename(argv[0]), _exit_word(code))
    finally:
        program.end()
        result.outputs = [program.read()]
    result.seconds = time.monotonic() - started
    return result


def _await_listen(server, port, deadline):
    """None once the port listens, otherwise what went wrong."""
    while not listens(port):
        if server.process.poll() is not None:
            return "the server %s before it listened" % _exit_word(server.process.returncode)
        if time.monotonic() > deadline:
            return "the server does not listen after %.0f s" % SERVER_START_S
        time.sleep(0.005)
    return None


def run_pair(server_argv, client_argv, env, cores, port, timeout_s):
    """Server, then client, to the end of both. Outputs are in the order server, client."""
    result = Result([shell_line(server_argv, env), shell_line(client_argv, env)])
    started = time.monotonic()
    programs = []
    try:
        programs.append(_Program(server_argv, env, cores[0]))
        result.error = _await_listen(programs[0], port, started + SERVER_START_S)
        if result.error is None:
            programs.append(_Program(client_argv, env, cores[1]))
            code = programs[1].wait(started + timeout_s)
            if code is None:
                result.error, result.timed_out = "timeout after %.0f s" % timeout_s, True
            elif code != 0:
                result.error = "the client %s" % _exit_word(code)
            else:
                code = programs[0].wait(time.monotonic() + SERVER_END_S)
                if code is None:
                    result.error = "the server did not end within %.0f s of its client" % SERVER_END_S
                elif code != 0:
                    result.error = "the server %s" % _exit_word(code)
    except (OSError, subprocess.SubprocessError) as err:
        result.error = "cannot start: %s" % err
    finally:
        for program in reversed(programs):
            program.end()
        result.outputs = [program.read() for program in programs]
    result.seconds = time.monotonic() - started
    return result
