"""Tests of the comparison's own parts: figures, configurations, processes. No proxy is needed."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

from . import measure, processes, report
from .figures import Spread, better_c, by_round, ratios, verdicts
from .peers import HTTP1, HTTP2, TEMPLATES, Envoy, HAProxy, Nginx, Weft, Wire, fill
from .processes import Failure, Processes

LOADED = {
    "shape": "even",
    "requests": 1,
    "requests_per_second": 1000.0,
    "p50_us": 1.0,
    "p99_us": 2.0,
    "proxy_core": 0.1,
    "load_core": 0.1,
    "other_cores": 0.0,
    "send_lag_p99_us": 0.0,
    "v2_share": 0.1,
    "peak_kb": 2048,
}


def runs(**figures):
    """Runs from CPU times by peer, a round each."""
    return [
        measure.Run(peer=peer, round=number, cpu_us_per_request=cpu, rss_kb=10 * 1024, **LOADED)
        for peer, row in figures.items()
        for number, cpu in enumerate(row, 1)
    ]


class Figures(unittest.TestCase):
    def test_ratios_are_paired_by_round(self):
        # The machine doubles its cost in the second round; the ratio does not move.
        found = runs(weft=[10, 20, 33], envoy=[20, 40, 60])
        weft, envoy = by_round(found, "even", "weft"), by_round(found, "even", "envoy")
        self.assertEqual(ratios(weft, envoy), Spread(0.5, 0.5, 0.55))

    def test_rounds_only_one_has_are_left_out(self):
        found = runs(weft=[10], envoy=[20, 40])
        self.assertEqual(
            ratios(by_round(found, "even", "weft"), by_round(found, "even", "envoy")), Spread(0.5, 0.5, 0.5)
        )
        self.assertIsNone(ratios({}, {1: 2.0}))

    def test_the_better_of_nginx_and_haproxy_is_chosen_each_round(self):
        self.assertEqual(better_c(runs(nginx=[10, 30], haproxy=[20, 25]), "even"), {1: 10, 2: 25})
        self.assertEqual(better_c(runs(nginx=[10]), "even"), {})

    def test_gates_hold_up_to_their_limit_and_not_beyond(self):
        def held(weft):
            found = verdicts(runs(weft=[weft], envoy=[100], nginx=[40], haproxy=[50]), measure.EVEN)
            return [holds for _, _, _, _, holds in found]

        # Gate 0.6 and goal 0.45 times Envoy, goal 1.2 times nginx, gate 15 MB.
        self.assertEqual(held(44), [True, True, True, True])
        self.assertEqual(held(50), [True, False, False, True])
        self.assertEqual(held(60), [True, False, False, True])
        self.assertEqual(held(61), [False, False, False, True])

    def test_each_shape_has_limits_of_its_own(self):
        found = runs(weft=[65], envoy=[100], nginx=[40], haproxy=[50])
        for run in found:
            run.shape = "http2-to-http1"
        # Gate 0.7 and goal 0.6 times Envoy, gate 15 MB, and nothing about nginx and HAProxy.
        told = verdicts(found, measure.HTTP2_TO_HTTP1)
        self.assertEqual([limit for _, _, limit, _, _ in told], [0.7, 0.6, 15])
        self.assertEqual([holds for *_, holds in told], [True, False, True])
        self.assertEqual(verdicts(found, measure.EVEN), [])

    def test_the_report_names_everyone_and_every_missed_gate(self):
        found = runs(floor=[10], envoy=[100], weft=[70])
        text = report.tell(found, measure.EVEN, ["floor", "envoy", "weft"])
        self.assertRegex(text, r"weft +70\.0 \(70\.0 to 70\.0\)")
        self.assertRegex(text, r"weft +7\.00 \(7\.00 to 7\.00\) +0\.70 \(0\.70 to 0\.70\)")
        self.assertIn("gate MISSED: weft, CPU per request, times Envoy: 0.70, at most 0.6", text)
        self.assertNotIn("nginx", text)

    def test_every_round_has_everyone_in_an_order_of_its_own(self):
        orders = [measure.order("abcde", number) for number in range(1, 10)]
        self.assertTrue(all(sorted(order) == list("abcde") for order in orders))
        self.assertGreater(len({tuple(order) for order in orders}), 5)
        self.assertEqual(orders[0], measure.order("abcde", 1))


class Templates(unittest.TestCase):
    def test_words_are_replaced_and_a_word_without_value_is_an_error(self):
        self.assertEqual(fill("listen @PORT@; a@b.c", {"PORT": 80}), "listen 80; a@b.c")
        with self.assertRaisesRegex(Failure, "@OTHER@"):
            fill("@OTHER@", {"PORT": 80})

    def test_no_template_holds_a_port_or_a_path_of_its_own(self):
        for template in TEMPLATES.iterdir():
            text = re.sub(r"#.*", "", template.read_text())
            self.assertNotRegex(text, r"127\.0\.0\.1:\d|/tmp|/home|/var", template.name)


    def test_each_peer_is_told_what_to_speak_on_both_sides(self):
        home = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

        def written(kind, wire):
            peer = kind("peer", "program", None, *([[]] if kind is Weft else []))
            peer.port, peer.wire = 1, wire
            peer._command(mock.Mock(port=2), home)
            files = [path for path in home.rglob("*") if path.is_file()]
            text = "".join(path.read_text() for path in files)
            for path in files:
                path.unlink()
            return text

        told = {  # by kind: what is in it for HTTP/2 downstream, for HTTP/2 upstream, and for HTTP/1.1 upstream
            Nginx: ("backlog=1024 http2;", "grpc_pass grpc://$subset;", "proxy_pass http://$subset;"),
            HAProxy: ("backlog 1024 proto h2", "127.0.0.2:2 proto h2", "127.0.0.2:2 \n"),
            Envoy: ("", '"http2_protocol_options": {}', "typed_extension_protocol_options: {}"),
            Weft: ("", "name: http2", "name: http,"),
        }
        for kind, (downstream, http2, http1) in told.items():
            for wire in [Wire(down, up) for down in (HTTP1, HTTP2) for up in (HTTP1, HTTP2)]:
                with self.subTest(kind=kind, wire=wire):
                    text = written(kind, wire)
                    if downstream:
                        self.assertEqual(downstream in text, wire.downstream == HTTP2)
                    self.assertEqual(http2 in text, wire.upstream == HTTP2)
                    self.assertEqual(http1 in text, wire.upstream == HTTP1)


class ProcessesEnd(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.processes = Processes()
        self.addCleanup(self.processes.stop_all)

    def start(self, code):
        cpus = os.sched_getaffinity(0)
        return self.processes.start(
            [sys.executable, "-c", code], cpus, self.directory / "log", subprocess.PIPE
        )

    def test_one_that_does_not_listen_is_killed(self):
        process = self.start(
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True);"
            "time.sleep(60)"
        )
        process.stdout.readline()
        with mock.patch.object(processes, "STOP_SECONDS_MAX", 0.1):
            self.processes.stop_all()
        self.assertEqual(process.returncode, -signal.SIGKILL)

    def test_what_it_leaves_behind_ends_with_it(self):
        process = self.start(
            "import os, subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c',"
            "'import time; print(1, flush=True); time.sleep(60)']); print(child.pid, flush=True);"
            "os.kill(os.getpid(), 9)"
        )
        said = sorted(int(process.stdout.readline()) for _ in range(2))
        self.assertEqual((process.wait(), said[0]), (-signal.SIGKILL, 1))
        self.processes.stop(process)
        deadline = time.monotonic() + 10
        # It is nobody's child of ours; whoever takes orphans in removes it.
        while pathlib.Path(f"/proc/{said[1]}").exists() and " Z " not in stat(said[1]):
            self.assertLess(time.monotonic(), deadline, "what a killed process left behind goes on")
            time.sleep(0.01)

    def test_the_tree_holds_descendants_and_their_memory_counts(self):
        process = self.start(
            "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c',"
            "'import time; print(1, flush=True); time.sleep(60)']); time.sleep(60)"
        )
        process.stdout.readline()
        pids = processes.tree(process.pid)
        self.assertEqual((pids[0], len(pids)), (process.pid, 2))
        alone, both = processes.memory_kb(pids[:1]), processes.memory_kb(pids)
        self.assertTrue(0 < alone[0] < both[0] <= both[1])
        self.assertGreater(processes.cpu_seconds(pids), 0)
        for pid in pids[1:]:
            os.kill(pid, signal.SIGTERM)

    def test_one_that_dies_while_awaited_is_a_failure_with_its_words(self):
        process = self.start("import sys; sys.exit('no such port')")
        with self.assertRaisesRegex(Failure, "(?s)status 1.*no such port"):
            processes.wait_until(lambda: False, process, "it does not start")


def stat(pid):
    """What the kernel says of a process; nothing when it has gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""


# A stand-in for weft: checks how it is called, and is ready when it says so.
STAND_IN = """#!{python}
import json, pathlib, socket, sys, time
words = sys.argv[1:]
if words == ["--version"]:
    print("weft 1.2.3"); sys.exit()
options = dict(zip(words[1::2], words[2::2]))
assert words[0] == "run" and options["--as"] == "web-1.shop" and options["--workers"] == "1", words
assert options["--admin"] == "127.0.0.1:0" and words[-1] == "--extra", words
assert "kind: VirtualService" in next(pathlib.Path(options["--config"]).iterdir()).read_text()
address, _, service = options["--listen"].partition("=")
assert service == "catalog.shop:8000"
listener = socket.create_server(("127.0.0.1", int(address.rpartition(":")[2])))
pathlib.Path(options["--ready-file"]).write_text(json.dumps({{"anything": []}}))
time.sleep(60)
"""


class WeftStarts(unittest.TestCase):
    def test_weft_is_called_as_agreed_and_awaited(self):
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        program = directory / "stand-in"
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(0o755)
        started = Processes()
        self.addCleanup(started.stop_all)
        weft = Weft("weft", program, ["--version"], ["--extra"])
        self.assertEqual(weft.version, "1.2.3")
        weft.start(started, mock.Mock(port=4321), os.sched_getaffinity(0), directory, Wire())
        self.assertTrue(processes.accepts(weft.port))
        self.assertEqual(weft.pids(), [weft.process.pid])


class Calm(unittest.TestCase):
    def test_patience_is_spent_only_inside(self):
        patience = measure.Patience(0.05)
        time.sleep(0.06)
        self.assertTrue(patience.lasts())
        with patience.spend():
            time.sleep(0.06)
            self.assertFalse(patience.lasts())
        self.assertFalse(patience.lasts())

    def test_a_disturbed_run_is_repeated_until_it_is_calm_or_patience_ends(self):
        def bench(others):
            found = [
                measure.Run(
                    **{**LOADED, "other_cores": other}, peer="weft", round=1, cpu_us_per_request=1.0, rss_kb=1
                )
                for other in others
            ]
            made = measure.Bench(None, None, ({0}, {1}), None, None)
            made.run = mock.Mock(side_effect=found)
            made._wait_for_calm = mock.Mock()
            return made

        calm = bench([0.5, 0.3, 0.01]).run_undisturbed(
            measure.EVEN, 1, mock.Mock(), measure.Patience(60), mock.Mock()
        )
        self.assertEqual(calm.other_cores, 0.01)
        none = bench([0.5, 0.3]).run_undisturbed(
            measure.EVEN, 1, mock.Mock(), measure.Patience(0), mock.Mock()
        )
        self.assertEqual(none.other_cores, 0.5)
