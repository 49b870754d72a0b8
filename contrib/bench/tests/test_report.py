"""Tables, ratios, verdicts and the picture, from results made by hand."""

import os
import sys
import unittest
import xml.dom.minidom

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from srdbench import bounds, campaign, cases, plot, report  # noqa: E402

MACHINE = {"date": "2026-01-01 00:00 UTC", "command": "bench", "cpu": "A & B <CPU>", "cpus": 2, "cores": [0, 1],
           "virtual_machine": True, "kernel": "6.1", "commit": "abc", "packages": {"libucx0": "1.13.1"},
           "settings": {}, "load_before": 0.1}


def entry(case, times, status="ok", reason=None):
    passes = [None if us is None else {"us": us, "mib_s": case.size / us, "msg_s": 1e6 / us} for us in times]
    return {"series": case.series, "metric": case.metric, "test": case.test, "layout": case.layout, "size": case.size,
            "group": case.group, "name": case.name, "status": status, "reason": reason, "iterations": 100,
            "commands": [], "calibration": None, "passes": passes}


def result(entries, preset="quickstart"):
    return {"schema": 1, "preset": preset, "machine": MACHINE, "transport": "srd", "prefix": [], "passes": 3,
            "seconds": 1.0, "cases": entries, "failures": []}


def speed(**times):
    keys = ("srd tag_lat", "tcp tag_lat", "srd am_lat", "verbs ib_send_lat", "shm shm_pingpong", "srd am_bw",
            "verbs ib_send_bw", "srd tag_bw")
    base = dict(zip(keys, (0.5, 5.0, 0.4, 0.35, 0.05, 0.3, 0.27, 0.5)))
    base.update({key.replace("__", " "): value for key, value in times.items()})
    return [entry(case, [base["%s %s" % (case.series, case.test)]] * 3) for case in cases.speed_cases()]


def rivals(verb):
    return ["%s %s" % (verb, rival) for rival in ("posix", "posix,cma", "posix heap", "posix,cma heap", "cma")]


class Numbers(unittest.TestCase):
    def test_significant_keeps_whole_digits(self):
        for number, digits, text in ((0.0512, 3, "0.0512"), (4.356, 3, "4.36"), (228.4, 3, "228"), (34674.0, 3, "34674"),
                                     (0.1, 3, "0.100"), (0.5, 2, "0.50"), (12.0, 2, "12"), (0, 3, "0"), (-0.05, 2, "-0.050")):
            self.assertEqual(report.significant(number, digits), text)

    def test_range_holds_the_median(self):
        self.assertEqual(report.cell((0.172, 0.165, 0.173)), "0.172 0.16..0.18")
        self.assertEqual(report.cell((0.29, 0.29, 0.30)), "0.290 0.29..0.30")
        self.assertEqual(report.cell((1.0, 1.0, 1.0)), "1.00")
        self.assertEqual(report.cell(None), "-")

    def test_ratio_is_taken_pass_by_pass(self):
        case = cases.Case("srd", "latency", "tag_lat", 8, "ucx")
        found = campaign.combine(entry(case, [1.0, 4.0, None]), entry(case, [2.0, 2.0, 2.0]), lambda a, b: a / b)
        self.assertEqual(found, (1.25, 0.5, 2.0))

    def test_ratio_of_nothing_is_none(self):
        case = cases.Case("srd", "latency", "tag_lat", 8, "ucx")
        self.assertIsNone(campaign.combine(entry(case, [None]), entry(case, [2.0]), lambda a, b: a / b))
        self.assertIsNone(campaign.combine(None, entry(case, [2.0]), lambda a, b: a / b))


class Tables(unittest.TestCase):
    def sample(self):
        entries = []
        for case in cases.table_cases(["srd", "tcp", "verbs"]):
            if case.series == "verbs" and case.size > 8192:
                entries.append(entry(case, [], "not possible", "too large"))
            else:
                entries.append(entry(case, [123.456, 101.5, 234567.0] if case.size > 8 else [0.5123, 0.4, 0.61]))
        return result(entries)

    def test_no_line_is_wider_than_a_terminal(self):
        for line in report.text(self.sample()).splitlines():
            self.assertLessEqual(len(line), report.WIDTH, line)

    def test_impossible_size_is_said_with_its_reason(self):
        text = report.text(self.sample())
        self.assertIn("not possible", text)
        self.assertIn("too large", text)

    def test_every_pass_is_in_the_markdown(self):
        text = report.markdown(self.sample())
        self.assertIn("| srd tag_lat 8 B | 100 | 0.512 | 0.400 | 0.610 |", text)
        self.assertIn("Command: `bench`", text)

    def test_failure_is_in_the_report(self):
        sample = self.sample()
        sample["failures"].append({"case": "srd tag_lat 8 B", "when": "pass 2", "reason": "timeout after 30 s"})
        self.assertIn("FAILED: srd tag_lat 8 B (pass 2): timeout after 30 s", report.text(sample))

    def test_wide_table_is_split_under_its_first_column(self):
        lines = report.render(["a", "b", "c", "d"], [["1", "x" * 40, "y" * 40, "z" * 40]], 100)
        self.assertEqual(len(lines), 5)
        self.assertTrue(all(len(line) <= 100 for line in lines))


class Verdicts(unittest.TestCase):
    def words(self, entries):
        return {one["key"]: one["verdict"] for one in bounds.verdicts(entries)}

    def test_all_met(self):
        self.assertEqual(self.words(speed()), {"tag_lat": "met", "am_lat": "met", "rate": "met", "rate_tag": "no bound",
                                               "verbs": "met"})

    def test_each_bound_can_be_missed_alone(self):
        for key, change in (("tag_lat", {"tcp__tag_lat": 1.9}), ("am_lat", {"srd__am_lat": 0.46}),
                            ("rate", {"srd__am_bw": 0.35}), ("verbs", {"shm__shm_pingpong": 0.034})):
            found = self.words(speed(**change))
            missed = [name for name, word in found.items() if word == "not met"]
            self.assertEqual(missed, [key])

    def test_bound_with_a_missing_side_is_not_met(self):
        entries = [one for one in speed() if one["series"] != "shm"]
        self.assertEqual(self.words(entries)["verbs"], "not measured")

    def test_report_prints_the_verdicts(self):
        sample = result(speed(srd__am_lat=0.46), "speed")
        sample["verdicts"] = bounds.verdicts(sample["cases"])
        text = report.text(sample)
        self.assertIn("not met", text)
        self.assertTrue(all(len(line) <= report.WIDTH for line in text.splitlines()), text)


class SoftefaVerdicts(unittest.TestCase):
    """The other preset with bounds: sizes differ, a side may be absent, a value may be zero."""

    def entries(self, **change):
        times = {"ib_send_lat": 0.25, "shm_pingpong": 0.05, "pingpong": 0.24, "ib_send_bw": 1.0, "copy_stream": 0.6, "read": 100.0, "write": 100.0,
                 "get": 95.0, "put_bw": 95.0, "ucp_get": 95.0, "ucp_put_bw": 95.0,
                 "sleeping_read": 30.0, "futex_reply": 20.0, "poll": 0.05, "turn": 0.5, "idle": 0.0}
        times.update(change)
        found = []
        for case in cases.softefa_cases():
            us = times[case.test]
            found.append(entry(case, [us or None] * 3))
            if case.metric == "in turns":
                for figures in found[-1]["passes"]:
                    figures.update(raw_us=0.05, ratio=us / 0.05)
            if us == 0.0:
                found[-1]["passes"] = [{"us": 0.0, "mib_s": None, "msg_s": None}] * 3
        return found

    def words(self, **change):
        return {one["key"]: one["verdict"] for one in bounds.verdicts(self.entries(**change), "softefa")}

    def test_all_met(self):
        self.assertEqual(set(self.words().values()), {"met", "no bound"})

    def test_each_bound_can_be_missed(self):
        for change, keys in (({"ib_send_lat": 0.31}, ["pingpong"]), ({"pingpong": 0.31}, ["pingpong turns"]), ({"ib_send_bw": 1.3}, ["stream"]),
                             ({"read": 110.0}, rivals("read")), ({"write": 110.0}, rivals("write")),
                             ({"sleeping_read": 41.0}, ["sleeping"]), ({"idle": 1.0}, ["idle"])):
            self.assertEqual([key for key, word in self.words(**change).items() if word == "not met"], keys)

    def test_what_is_not_possible_is_not_measured(self):
        entries = [one for one in self.entries() if one["test"] != "write"]
        words = {one["key"]: one["verdict"] for one in bounds.verdicts(entries, "softefa")}
        self.assertEqual([key for key, word in words.items() if word == "not measured"], rivals("write"))

    def test_report_is_printed_with_a_figure_of_zero(self):
        sample = result(self.entries(), "softefa")
        sample["verdicts"] = bounds.verdicts(sample["cases"], "softefa")
        text = report.text(sample)
        self.assertIn("<= 0 us", text)
        self.assertRegex(text, r"in turns +4\.80 +<= 6x +met")
        self.assertRegex(text, r"its turns of raw shm +0\.05")
        self.assertIn("| RDMA read 1 MiB, verbs / UCX posix |", report.markdown(sample))


class Heap(unittest.TestCase):
    def test_buffers_come_from_the_heap_only_where_the_series_says_so(self):
        chosen = {case.series: cases.environment(case, cases.Tools([], "srd")) for case in cases.softefa_cases() if case.test == "ucp_get"}
        self.assertEqual(chosen, {"posix": {"UCX_TLS": "posix"}, "posix,cma": {"UCX_TLS": "posix,cma"},
                                  "posix heap": {"UCX_TLS": "posix", "UCX_ALLOC_PRIO": "heap"},
                                  "posix,cma heap": {"UCX_TLS": "posix,cma", "UCX_ALLOC_PRIO": "heap"}})


class Picture(unittest.TestCase):
    def test_picture_is_well_formed_and_names_every_series(self):
        sample = result([entry(case, [1.0 + case.size / 1000, 2.0 + case.size / 900])
                         for case in cases.table_cases(["srd", "tcp", "verbs"])])
        document = xml.dom.minidom.parseString(plot.svg(sample))
        words = [node.firstChild.data for node in document.getElementsByTagName("text")]
        self.assertEqual(words.count("srd"), 2)
        self.assertEqual(words.count("raw verbs"), 2)
        self.assertEqual(len(document.getElementsByTagName("polyline")), 6)

    def test_points_stay_inside_the_panels(self):
        sample = result([entry(case, [0.01, 900000.0]) for case in cases.table_cases(["srd"])])
        document = xml.dom.minidom.parseString(plot.svg(sample))
        for circle in document.getElementsByTagName("circle"):
            self.assertTrue(plot.TOP - 1 <= float(circle.getAttribute("cy")) <= plot.TOP + plot.PANEL_HEIGHT + 1)

    def test_empty_result_is_a_picture_too(self):
        xml.dom.minidom.parseString(plot.svg(result([])))


if __name__ == "__main__":
    unittest.main()
