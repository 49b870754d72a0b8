"""Processes: started in order, ended in time, none left."""

import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from srdbench import cases, runner  # noqa: E402

FAKE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fake", "ucx_perftest")
CORE = sorted(os.sched_getaffinity(0))[0]


def pair(mode, timeout_s=20.0):
    port = runner.free_port()
    return runner.run_pair([FAKE, "-p", str(port)], [FAKE, "-p", str(port), "127.0.0.1", "-n", "9"],
                           {"FAKE_MODE": mode}, (CORE, CORE), port, timeout_s)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Pair(unittest.TestCase):
    def test_both_end_well(self):
        result = pair("ok")
        self.assertIsNone(result.error, result.text)
        self.assertEqual(len(result.commands), 2)
        self.assertIn("0.500", result.outputs[1])

    def test_failed_client_is_named_with_its_output(self):
        result = pair("fail")
        self.assertEqual(result.error, "the client ended with exit code 5")
        self.assertIn("something is wrong", result.text)

    def test_server_that_ends_early_is_not_waited_for(self):
        result = pair("early")
        self.assertEqual(result.error, "the server ended with exit code 7 before it listened")
        self.assertLess(result.seconds, runner.SERVER_START_S)

    def test_hanging_client_is_ended_at_the_timeout(self):
        result = pair("hang", 1.0)
        self.assertEqual(result.error, "timeout after 1 s")
        self.assertLess(result.seconds, 30.0)

    def test_missing_program_is_an_error(self):
        result = runner.run_pair(["/nonexistent/program"], ["x"], {}, (CORE, CORE), 1, 1.0)
        self.assertIn("cannot start", result.error)


class One(unittest.TestCase):
    def test_timeout_ends_grandchildren_too(self):
        # The grandchild writes its pid, then both wait for ever.
        result = runner.run_one(["sh", "-c", "sleep 600 & echo $!; wait"], {}, CORE, 1.0)
        self.assertEqual(result.error, "timeout after 1 s")
        grandchild = int(result.outputs[0].split()[0])
        deadline = time.monotonic() + 10.0
        while alive(grandchild) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse(alive(grandchild))

    def test_exit_code_and_signal_are_told_apart(self):
        self.assertIn("exit code 3", runner.run_one(["sh", "-c", "exit 3"], {}, None, 10.0).error)
        self.assertIn("SIGKILL", runner.run_one(["sh", "-c", "kill -9 $$"], {}, None, 10.0).error)

    def test_command_can_be_typed_again(self):
        result = runner.run_one(["echo", "a b"], {"UCX_TLS": "srd"}, None, 10.0)
        self.assertEqual(result.commands, ["UCX_TLS=srd echo 'a b'"])
        self.assertEqual(result.outputs, ["a b\n"])

    def test_program_runs_on_its_core(self):
        code = "import os; print(sorted(os.sched_getaffinity(0)))"
        self.assertEqual(runner.run_one([sys.executable, "-c", code], {}, CORE, 20.0).text.strip(), "[%d]" % CORE)


class Commands(unittest.TestCase):
    TOOLS = cases.Tools(prefix=["P", "--"], transport="srd", uct_device="efa_0:1", verbs_device="efa_0",
                        programs={"shm_pingpong": "/x/shm_pingpong", "verbs_probe": "/x/verbs_probe"})

    def test_tcp_stays_on_loopback_and_is_not_prefixed(self):
        case = cases.Case("tcp", "latency", "tag_lat", 8, "ucx")
        self.assertEqual(cases.environment(case, self.TOOLS), {"UCX_TLS": "tcp", "UCX_NET_DEVICES": "lo"})
        server, client = cases.commands(case, self.TOOLS, 1000, 5, (0, 1))
        self.assertEqual(server, ["ucx_perftest", "-c", "0", "-p", "5"])
        self.assertEqual(client[:6], ["ucx_perftest", "-c", "1", "-p", "5", "127.0.0.1"])

    def test_ucx_perftest_with_mpi_is_told_to_use_sockets(self):
        case = cases.Case("tcp", "latency", "tag_lat", 8, "ucx")
        with_mpi = cases.Tools(prefix=[], transport="srd", ucx_words=("-P", "0"))
        for side in cases.commands(case, with_mpi, 1000, 5, (0, 1)):
            self.assertEqual(side[:3], ["ucx_perftest", "-P", "0"])

    def test_uct_case_names_transport_device_and_layout(self):
        case = cases.Case("srd", "latency", "am_lat", 8, "ucx", "short")
        server, client = cases.commands(case, self.TOOLS, 1000, 5, (0, 1))
        self.assertEqual(server[:3], ["P", "--", "ucx_perftest"])
        self.assertEqual(client[-6:], ["-x", "srd", "-d", "efa_0:1", "-D", "short"])
        self.assertEqual(cases.environment(case, self.TOOLS), {})

    def test_verbs_case_uses_srd_on_the_same_device(self):
        case = cases.Case("verbs", "bandwidth", "ib_send_bw", 8, "ib_send_bw")
        server, client = cases.commands(case, self.TOOLS, 1000, 5, (0, 1))
        self.assertEqual(server[:3], ["taskset", "-c", "0"])
        self.assertEqual(client[:3], ["taskset", "-c", "1"])
        self.assertEqual(client[3:], server[3:] + ["127.0.0.1"])
        self.assertEqual(server[server.index("ib_send_bw") + 3], "SRD")
        self.assertEqual(server[server.index("-d") + 1], "efa_0")

    def test_own_program_is_a_pair_by_itself(self):
        case = cases.Case("verbs", "poll 64", "poll", 8, "verbs_probe", qps=64)
        server, client = cases.commands(case, self.TOOLS, 1000, 5, (0, 1))
        self.assertIsNone(server)
        self.assertEqual(client, ["P", "--", "/x/verbs_probe", "-c", "0,1", "-s", "8", "-n", "1000", "-m", "poll", "-q", "64",
                                  "-d", "efa_0"])
        self.assertEqual(case.name, "verbs poll 64 QPs")

    def test_what_is_missing_is_said(self):
        write = cases.Case("srd", "put", "ucp_put_bw", 1048576, "ucx", needs_write=True)
        self.assertIn("RDMA write", cases.not_here(write, self.TOOLS))
        self.assertIsNone(cases.not_here(cases.Case("srd", "get", "ucp_get", 1048576, "ucx"), self.TOOLS))
        lacking = cases.Tools(prefix=[], transport="srd", missing={"ucx": "no ucx_perftest"})
        self.assertIn("no ucx_perftest", cases.not_here(write, lacking))

    def test_iterations_follow_time_and_stay_bounded(self):
        latency = cases.Case("srd", "latency", "tag_lat", 8, "ucx")
        rate = cases.Case("srd", "bandwidth", "tag_bw", 8, "ucx")
        self.assertEqual(cases.iterations(latency, 1.0, 0.5), 250000)
        self.assertEqual(cases.iterations(rate, 1.0, 0.5), 500000)
        self.assertEqual(cases.iterations(rate, 1e9, 0.5), cases.MIN_ITERATIONS)
        self.assertEqual(cases.iterations(rate, 0.0, 60.0), cases.MAX_ITERATIONS["ucx"])

    def test_compared_cases_stand_next_to_each_other(self):
        groups = [case.group for case in cases.table_cases(["srd", "tcp", "verbs"])]
        self.assertEqual(len(groups), 30)
        self.assertTrue(all(len(set(groups[i:i + 3])) == 1 for i in range(0, 30, 3)))


if __name__ == "__main__":
    unittest.main()
