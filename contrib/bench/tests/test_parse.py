"""The output formats of the programs, as those programs print them."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from srdbench import parse  # noqa: E402

UCX_1_13 = """\
+----------------------------------------------------------------------------------------------------------+
| API:          protocol layer                                                                             |
| Message size: 8                                                                                          |
+--------------+--------------+----------+---------+---------+----------+----------+-----------+-----------+
|     Test     | # iterations | 50.0%ile | average | overall |  average |  overall |  average  |  overall  |
+--------------+--------------+----------+---------+---------+----------+----------+-----------+-----------+
                      100000      5.393     5.462     5.355        1.40       1.42      183073      186749
"""
UCX_1_14 = "Final:                  20000      1.002     1.035     1.035        7.37       7.37      966324      966324\n"
LAT = """\
---------------------------------------------------------------------------------------
                    Send Latency Test
 Dual-port       : OFF\t\tDevice         : efa_0
 Mtu             : 4096[B]
 local address: LID 0000 QPN 0x0001 PSN 0x9e1
---------------------------------------------------------------------------------------
 #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]   99% percentile[usec]   99.9% percentile[usec]
 8       1000          0.80           4.91         0.84     \t       0.85        \t0.11   \t\t0.95    \t\t4.91
---------------------------------------------------------------------------------------
"""
BW = """\
 TX depth        : 128
 #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]
 8          100000           0.00               24.42 \t\t   3.200000
"""


class UcxPerftest(unittest.TestCase):
    def test_final_line_gives_overall_columns(self):
        found = parse.ucx_perftest(UCX_1_13)
        self.assertEqual(found["iterations"], 100000)
        self.assertAlmostEqual(found["us"], 1e6 / 186749)
        self.assertEqual((found["mib_s"], found["msg_s"], found["median_us"]), (1.42, 186749.0, 5.393))

    def test_prefix_of_newer_versions_is_skipped(self):
        self.assertEqual(parse.ucx_perftest(UCX_1_14)["iterations"], 20000)

    def test_last_of_several_lines_counts(self):
        self.assertEqual(parse.ucx_perftest(UCX_1_13 + UCX_1_14)["iterations"], 20000)

    def test_no_line_is_an_error(self):
        for text in ("", "Waiting for connection...\n", UCX_1_13.rsplit("\n", 2)[0], "1 2 3\n"):
            with self.assertRaises(parse.ParseError):
                parse.ucx_perftest(text)

    def test_time_zero_is_an_error(self):
        with self.assertRaises(parse.ParseError):
            parse.ucx_perftest("1 0.0 0.0 0.0 0.0 0.0 0 0\n")


class Verbs(unittest.TestCase):
    def test_latency_row_gives_average_and_typical(self):
        found = parse.ib_send_lat(LAT)
        self.assertEqual((found["size"], found["iterations"], found["us"], found["median_us"]), (8, 1000, 0.85, 0.84))

    def test_bandwidth_row_gives_rate(self):
        found = parse.ib_send_bw(BW)
        self.assertEqual((found["size"], found["msg_s"], found["mib_s"]), (8, 3.2e6, 24.42))
        self.assertAlmostEqual(found["us"], 0.3125)

    def test_header_without_row_is_an_error(self):
        for text in (LAT.split(" 8  ")[0], BW.split(" 8  ")[0], "", " 8 1000 1 1 1 1 1 1 1\n"):
            with self.assertRaises(parse.ParseError):
                parse.ib_send_lat(text)
            with self.assertRaises(parse.ParseError):
                parse.ib_send_bw(text)

    def test_zero_is_an_error(self):
        with self.assertRaises(parse.ParseError):
            parse.ib_send_lat(LAT.replace("0.85", "0.00"))
        with self.assertRaises(parse.ParseError):
            parse.ib_send_bw(BW.replace("3.200000", "0.000000"))

    def test_refused_size_is_told_apart_from_failure(self):
        self.assertIn("4096", parse.not_possible(" Max message size in SRD cannot be greater than 4096 \n"))
        self.assertIn("MTU", parse.not_possible("x\n Max msg size in UD is MTU 4096\n"))
        self.assertIsNone(parse.not_possible("Couldn't allocate MR\n"))


class OwnPrograms(unittest.TestCase):
    def test_shm_line_is_read(self):
        found = parse.shm_pingpong('note\n{"size": 8, "iterations": 10, "one_way_us": 0.05}\n')
        self.assertEqual((found["size"], found["iterations"], found["us"]), (8, 10, 0.05))
        self.assertAlmostEqual(found["msg_s"], 2e7)

    def test_shm_bad_line_is_an_error(self):
        for text in ("", "{", '{"size": 8}', '{"size": 8, "iterations": 1, "one_way_us": 0}',
                     '{"size": null, "iterations": 1, "one_way_us": 1}'):
            with self.assertRaises(parse.ParseError):
                parse.shm_pingpong(text)


    def test_probe_line_is_read(self):
        found = parse.probe('{"test": "poll", "size": 8, "iterations": 10, "us": 0.05}\n')
        self.assertEqual((found["size"], found["iterations"], found["us"]), (8, 10, 0.05))

    def test_only_an_idle_thread_takes_no_time(self):
        found = parse.probe('{"test": "idle", "size": 8, "iterations": 10, "us": 0.0}')
        self.assertEqual((found["us"], found["msg_s"]), (0.0, None))
        for text in ("", "{", '{"test": "poll", "size": 8, "iterations": 1, "us": 0}', '{"size": 8, "iterations": 1, "us": 1}',
                     '{"test": "idle", "size": 8, "iterations": 1, "us": -1}'):
            with self.assertRaises(parse.ParseError):
                parse.probe(text)

    def test_turns_have_both_times_and_their_ratio(self):
        line = '{"test": "pingpong", "size": 8, "iterations": 1000, "us": 0.24, "raw_us": %s, "ratio": %s, "ratio_p10": 4.1, "ratio_p90": 5.2}'
        found = parse.probe(line % (0.05, 4.8))
        self.assertEqual((found["us"], found["raw_us"], found["ratio"]), (0.24, 0.05, 4.8))
        for bad in ((0, 4.8), (0.05, 0), (0.05, '"x"')):
            with self.assertRaises(parse.ParseError):
                parse.probe(line % bad)
        with self.assertRaises(parse.ParseError):
            parse.probe('{"test": "pingpong", "size": 8, "iterations": 1000, "us": 0.24}')

    def test_refused_write_is_not_possible(self):
        self.assertIn("RDMA write", parse.not_possible("verbs_probe: not possible: this rdma-core, or the device, has no RDMA write\n"))


class UcxInfo(unittest.TestCase):
    TEXT = ("#      Transport: tcp\n#         Device: lo\n#      Transport: srd\n#         Device: efa_0:1\n"
            "#      Transport: srd\n#         Device: efa_1:1\n")

    def test_first_device_of_the_transport_is_found(self):
        self.assertEqual(parse.uct_device(self.TEXT, "srd"), "efa_0:1")
        self.assertEqual(parse.uct_device(self.TEXT, "tcp"), "lo")

    def test_rdma_write_is_a_zero_copy_put_of_that_transport(self):
        text = "#      Transport: tcp\n#            put_zcopy: <= 1, up to 6 iov\n#      Transport: srd\n#  get_zcopy: <= 1\n"
        self.assertFalse(parse.writes_by_rdma(text, "srd"))
        self.assertTrue(parse.writes_by_rdma(text, "tcp"))
        self.assertTrue(parse.writes_by_rdma(text + "#  put_zcopy: <= 1G, up to 1 iov\n", "srd"))

    def test_absent_transport_is_none(self):
        self.assertIsNone(parse.uct_device(self.TEXT, "ib"))


if __name__ == "__main__":
    unittest.main()
