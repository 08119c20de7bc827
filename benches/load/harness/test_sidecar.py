"""Tests of what the measurements of a sidecar make of what they were told."""

import json
import os
import types
import unittest
import unittest.mock

from . import captured, namespaces, resolver, start, tcp
from .processes import Failure, memory_kb


class Iperf(unittest.TestCase):
    def test_what_arrived_counts(self):
        received = {"bytes": 3_000_000_000, "seconds": 1.5}
        sent = {"bytes": 4_000_000_000, "seconds": 1.5}
        report = json.dumps({"end": {"sum_sent": sent, "sum_received": received}})
        self.assertEqual(tcp.read(report), (3_000_000_000, 1.5))

    def test_a_failed_transfer_is_no_figure(self):
        for report in ("", '{"error": "unable to connect"}', '{"end": {"sum_received": {"bytes": 0, "seconds": 1}}}'):
            with self.assertRaises(Failure):
                tcp.read(report)


class Verdicts(unittest.TestCase):
    def test_tcp_is_compared_within_a_round(self):
        runs = [
            tcp.Run(number, peer, 1, speed, cost)
            for number, (own, other) in enumerate([((2.0, 0.5), (1.0, 0.5)), ((0.4, 0.3), (0.5, 0.2))])
            for peer, (speed, cost) in (("weft", own), ("haproxy", other))
        ]
        speed, cost = tcp.compare(runs)[1]
        self.assertEqual((speed.least, speed.greatest), (0.8, 2.0))
        self.assertEqual((cost.least, round(cost.greatest, 9)), (1.0, 1.5))
        self.assertEqual([holds for *_, holds in tcp.verdicts(runs)], [True, False])

    def test_capture_may_cost_a_tenth(self):
        def runs(dear):
            return [captured.Run(0, "explicit", 20.0, 1.0), captured.Run(0, "captured", dear, 1.0)]

        self.assertTrue(captured.verdicts(runs(22.0))[0][-1])
        self.assertFalse(captured.verdicts(runs(22.1))[0][-1])

    def test_a_start_has_two_bounds(self):
        starts = [start.Start(100.0, 10_240, 3_000), start.Start(400.0, 10_241, 3_000), start.Start(90.0, 9_000, 3_000)]
        self.assertEqual([holds for *_, holds in start.verdicts(starts)], [True, True])
        self.assertEqual([holds for *_, holds in start.verdicts(starts[1:2])], [False, False])


class Memory(unittest.TestCase):
    def test_it_is_told_by_the_kernel(self):
        resident, anonymous = memory_kb([os.getpid()], start.SIZES)
        self.assertGreater(resident, anonymous)
        self.assertGreater(anonymous, 0)


class Resolver(unittest.TestCase):
    def test_every_name_has_an_address_of_version_4(self):
        head = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
        name = b"\x01a\x07example\x00"
        said = resolver.answer(head + name + b"\x00\x01\x00\x01")
        self.assertEqual(said[:12], b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00")
        self.assertEqual(said[12:-16], name + b"\x00\x01\x00\x01")
        self.assertEqual(said[-6:], b"\x00\x04\xc0\x00\x02\x01")
        other = resolver.answer(head + name + b"\x00\x1c\x00\x01")
        self.assertEqual((other[6:8], other[12:]), (b"\x00\x00", name + b"\x00\x1c\x00\x01"))

    def test_what_is_no_question_is_not_answered(self):
        for question in (b"", b"x" * 12, b"x" * 12 + b"\x01a\x00\x00\x01"):
            self.assertIsNone(resolver.answer(question))


class Namespaces(unittest.TestCase):
    def test_half_made_ones_are_removed(self):
        asked = []

        def fail(*words, **_):
            asked.append(words)
            failed = "link" in words[0]
            return types.SimpleNamespace(returncode=int(failed), stderr="no", stdout="")

        with (
            unittest.mock.patch.object(namespaces.os, "geteuid", return_value=0),
            unittest.mock.patch.object(namespaces.subprocess, "run", side_effect=fail),
            self.assertRaises(Failure),
            namespaces.Namespaces() as made,
        ):
            self.fail(made)
        deleted = [words[0][-1] for words in asked if "delete" in words[0]]
        self.assertEqual(len(deleted), 2)


if __name__ == "__main__":
    unittest.main()
