"""The command itself, end to end over stand-ins for the benchmark programs."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
BENCH = os.path.join(os.path.dirname(HERE), "bench")
INSTRUCTIONS = os.path.join(os.path.dirname(HERE), "instructions")


def bench(*args, mode="ok", program=BENCH, **more):
    env = dict(os.environ, **more, FAKE_MODE=mode, PATH=os.path.join(HERE, "fake") + os.pathsep + os.environ["PATH"])
    return subprocess.run([sys.executable, program, *args], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=100, check=False)


def quick(*args, mode="ok", **more):
    return bench("quickstart", "--prefix", "", "--passes", "2", "--sizes", "8", "--seconds", "0.01", *args, mode=mode, **more)


class Quickstart(unittest.TestCase):
    def test_good_run_writes_table_and_json(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "r.json")
            done = quick("--json", path, "--svg", os.path.join(folder, "r.svg"))
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(path, encoding="utf-8") as file:
                result = json.load(file)
            self.assertEqual([len(entry["passes"]) for entry in result["cases"]], [2] * 6)
            self.assertEqual([entry["series"] for entry in result["cases"]], ["srd", "tcp", "verbs"] * 2)
            self.assertIn("0.10", done.stdout)    # 0.5 us beside tcp's 5 us
            again = bench("show", path)
            self.assertEqual((again.returncode, again.stdout), (0, done.stdout))
            self.assertTrue(os.path.getsize(os.path.join(folder, "r.svg")) > 1000)

    def test_failing_program_is_reported_and_the_others_measured(self):
        done = quick("--series", "srd,verbs", mode="silent")
        self.assertEqual(done.returncode, 1)
        self.assertIn("FAILED srd tag_lat 8 B, calibration: no result line of ucx_perftest", done.stderr)
        self.assertIn("127.0.0.1 -f -t tag_lat -s 8", done.stderr)
        self.assertIn("failed", done.stdout)

    def test_run_that_fails_once_is_repeated_and_not_silently(self):
        with tempfile.TemporaryDirectory() as folder:
            done = quick("--series", "srd", mode="once", FAKE_MARK=os.path.join(folder, "mark"))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stderr.count("repeating "), 1, done.stderr)
            self.assertNotIn("FAILED", done.stderr)

    def test_refused_size_is_no_failure(self):
        for mode in ("refuse", "shrink"):
            done = quick("--series", "verbs", "--sizes", "8192", mode=mode)
            self.assertIn("not possible", done.stdout, mode)
            self.assertNotIn("FAILED: verbs ib_send_lat", done.stdout, mode)

    def test_hanging_program_is_ended(self):
        done = quick("--series", "tcp", "--timeout", "1", mode="hang")
        self.assertEqual(done.returncode, 1)
        self.assertIn("repeating tcp tag_lat 8 B, calibration: timeout after 1 s", done.stderr)
        self.assertIn("FAILED tcp tag_lat 8 B, calibration: timeout after 1 s", done.stderr)


class Speed(unittest.TestCase):
    def test_verdicts_are_printed_for_every_bound(self):
        shm = os.environ.get("SHM_PINGPONG")
        if not shm or not os.access(shm, os.X_OK):
            self.skipTest("shm_pingpong is not built")
        if len(os.sched_getaffinity(0)) < 2:
            self.skipTest("two spinning processes need two cores")
        done = bench("speed", "--prefix", "", "--passes", "1", "--seconds", "0.02", "--shm-pingpong", shm)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = [line for line in done.stdout.splitlines() if " met" in line]
        self.assertEqual(len(lines), 4, done.stdout)
        self.assertIn("0.10", lines[0])


class Install(unittest.TestCase):
    def test_given_installation_loads_srd_and_verbs_but_not_tcp(self):
        with tempfile.TemporaryDirectory() as folder:
            loader = os.path.join(folder, "bin", "ucx-srd")
            os.mkdir(os.path.dirname(loader))
            with open(loader, "w", encoding="ascii") as file:
                file.write('#!/bin/sh\n[ "$1 $2 $3" = "run --soft --" ] || exit 2\nshift 3\nexec "$@"\n')
            os.chmod(loader, 0o755)
            path = os.path.join(folder, "r.json")
            done = bench("quickstart", "--install", folder, "--passes", "1", "--sizes", "8", "--seconds", "0.01",
                         "--json", path)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(path, encoding="utf-8") as file:
                loaded = {entry["series"]: loader in entry["commands"][1] for entry in json.load(file)["cases"]}
            self.assertEqual(loaded, {"srd": True, "tcp": False, "verbs": True})


class Usage(unittest.TestCase):
    def refused(self, word, *args, program=BENCH):
        done = bench(*args, program=program)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(word, done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_wrong_words_are_refused_in_one_line(self):
        self.refused("PRESET")
        self.refused("--passes", "speed", "--prefix", "", "--passes", "0")
        self.refused("--series", "quickstart", "--prefix", "", "--series", "srd,quux")
        self.refused("--sizes", "quickstart", "--prefix", "", "--sizes", "8,x")
        self.refused("--cores", "quickstart", "--prefix", "", "--cores", "0")
        self.refused("no transport", "quickstart", "--prefix", "", "--transport", "quux")
        self.refused("not installed", "quickstart", "--install", "/nonexistent")
        self.refused("nonexistent", "show", "/nonexistent.json")

    def test_wrong_words_of_instructions_are_refused(self):
        self.refused("--messages", "--prefix", "", "--messages", "5,4", program=INSTRUCTIONS)
        self.refused("--only", "--prefix", "", "--only", "nothing", program=INSTRUCTIONS)
        self.refused("--repeat", "--prefix", "", "--repeat", "0", program=INSTRUCTIONS)

    def test_help_names_the_presets(self):
        done = bench("--help")
        self.assertEqual(done.returncode, 0)
        for word in ("quickstart", "table", "speed", "show"):
            self.assertIn(word, done.stdout)


if __name__ == "__main__":
    unittest.main()
