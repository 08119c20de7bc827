"""Tests of the mutual TLS measurements: certificates, what each end is told, what is refused, and the figures."""

import contextlib
import json
import os
import pathlib
import re
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

from . import certificates, handshakes, idle, idle_secured, mtls, mutual, secured, wire
from .figures import verdicts
from .peers import HTTP1, HTTP2
from .processes import Failure
from .test_harness import runs

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Made(unittest.TestCase):
    """With the identities of a client and a server."""

    @classmethod
    def setUpClass(cls):
        directory = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.client, cls.server = certificates.make("openssl", directory)

    def serve(self, change=lambda _: None, identity=None):
        """A server in mutual TLS that answers each request; `change` may make it a worse one. Returns its port."""
        identity = identity or self.server
        settings = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        settings.load_cert_chain(identity.chain, identity.key)
        settings.load_verify_locations(identity.roots)
        settings.verify_mode = ssl.CERT_REQUIRED
        settings.num_tickets = 0
        settings.options |= ssl.OP_NO_TICKET
        change(settings)
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def answer(accepted):
            with contextlib.suppress(OSError), accepted, settings.wrap_socket(accepted, server_side=True) as made:
                while not made.recv(65_536).endswith(b"\r\n\r\n"):
                    pass
                made.sendall(ANSWER)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()[1]


class Certificates(Made):
    def test_they_are_of_workloads(self):
        for identity, account in [(self.client, "web"), (self.server, "catalog")]:
            self.assertEqual(identity.uri, f"spiffe://cluster.local/ns/shop/sa/{account}")
            command = ["openssl", "x509", "-in", identity.chain, "-noout", "-text"]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            self.assertIn("prime256v1", text)
            self.assertEqual(re.findall(r"URI:\S+", text), [f"URI:{identity.uri}"])
            verified = ["openssl", "verify", "-CAfile", identity.roots, identity.chain]
            subprocess.run(verified, capture_output=True, check=True)
            printed = ["openssl", "x509", "-in", identity.chain, "-noout", "-fingerprint", "-sha256"]
            told = subprocess.run(printed, capture_output=True, text=True, check=True).stdout
            self.assertIn(identity.fingerprint(), told.replace(":", "").lower())
        self.assertEqual(
            sorted(path.name for path in self.client.directory.glob("*.pem")),
            ["cert-chain.pem", "key.pem", "request.pem", "root-cert.pem"],
        )

    def test_what_is_none_is_a_failure(self):
        with self.assertRaisesRegex(Failure, "no certificate"):
            certificates.der("-----BEGIN PRIVATE KEY-----")


class Servers(Made):
    def verify(self, *change, **more):
        secured.verify_server(self.serve(*change, **more), self.client, self.server)

    def test_a_good_one_is_asked_and_passes(self):
        self.verify()

    def test_one_that_asks_for_no_certificate_is_found(self):
        def change(settings):
            settings.verify_mode = ssl.CERT_NONE

        with self.assertRaisesRegex(Failure, "who shows no certificate"):
            self.verify(change)

    def test_one_that_resumes_is_found(self):
        def tickets(settings):
            settings.num_tickets = 2

        def tickets_of_old(settings):
            settings.options &= ~ssl.OP_NO_TICKET

        for change, named in [(tickets, "1.3"), (tickets_of_old, "1.2")]:
            with self.subTest(named), self.assertRaisesRegex(Failure, rf"a session of TLSv{named} was resumed"):
                self.verify(change)

    def test_another_identity_is_found(self):
        with self.assertRaisesRegex(Failure, "sa/catalog, not .*sa/web"):
            self.verify(identity=self.client)

    def test_plaintext_that_is_answered_is_found(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def answer():
            with listener.accept()[0] as accepted:
                accepted.recv(65_536)
                accepted.sendall(ANSWER)

        threading.Thread(target=answer, daemon=True).start()
        with self.assertRaisesRegex(Failure, "plaintext must not be answered"):
            secured.verify_server(listener.getsockname()[1], self.client, self.server)

    def test_an_idle_connection_that_was_closed_is_found(self):
        made = secured.connect(secured.context(self.client, self.server), self.serve(), self.server)
        self.addCleanup(made.close)
        connection = wire.speak(HTTP1, made)
        idle.check_open([connection])
        made.setblocking(True)
        connection.ask("/a")
        self.assertEqual(connection.answer(), b"ok")
        select.select([made], [], [], 10)  # the end
        with self.assertRaisesRegex(Failure, "while idle"):
            idle.check_open([connection])

    def test_the_client_counts_its_handshakes(self):
        command = [sys.executable, "-B", "-m", "harness.handshaker", "--port", str(self.serve())]
        command += ["--identity", self.client.directory, "--server", "catalog", "--watch", str(os.getpid())]
        command += ["--warm-up-seconds", "0.1", "--window-seconds", "0.5", "--at-once", "2"]
        environment = {**os.environ, "PYTHONPATH": str(handshakes.LOAD)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        told = json.loads(done.stdout)
        self.assertIsNone(told["problem"])
        run = handshakes.read(told, 1, "weft", told["handshakes"])
        self.assertGreater(run.per_core_second, 0)
        self.assertEqual([version for version, _ in run.agreed], ["TLSv1.3"])


class Ends(unittest.TestCase):
    def written(self, kind, side, spoken):
        """What an end is told: its configuration with the command, and its environment."""
        end = kind(sys.executable, side, ["--extra"])
        home = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        identity = certificates.Identity(pathlib.Path("identity"), "spiffe://a/b")
        ground = mock.Mock(identities={mutual.CLIENT: identity, mutual.SERVER: identity})
        with mock.patch.object(mutual, "wait_until"):
            end.start(ground, {0}, home / "end", 4321, spoken)
        command, _, _ = ground.processes.start.call_args.args
        text = "".join(path.read_text() for path in home.rglob("*.yaml"))
        return text, [str(word) for word in command], ground.processes.start.call_args.kwargs["environment"]

    def test_each_is_told_what_is_spoken_before_and_behind_it(self):
        http2 = '"http2_protocol_options": {"max_concurrent_streams": 7}'
        for kind, side, spoken in [
            (kind, side, mutual.Spoken(between, behind, 7))
            for kind in mutual.ENDS.values()
            for side in mutual.SIDES
            for between in (HTTP1, HTTP2)
            for behind in (HTTP1, HTTP2)
        ]:
            with self.subTest(kind=kind.name, side=side, spoken=spoken):
                text, _, _ = self.written(kind, side, spoken)
                to_http2 = spoken.to(side) == HTTP2
                self.assertIn("4321", text)
                if kind is mutual.WeftEnd:
                    self.assertEqual("name: http2" in text, to_http2)
                    continue
                self.assertEqual(http2 in text, to_http2)
                if side == mutual.CLIENT:
                    self.assertEqual('"istio-h2"' in text, to_http2)

    def test_nobody_resumes_and_servers_want_certificates(self):
        told = {side: self.written(mutual.EnvoyEnd, side, mutual.Spoken())[0] for side in mutual.SIDES}
        self.assertIn("max_session_keys: 0", told[mutual.CLIENT])
        for line in (
            "require_client_certificate: true",
            "disable_stateless_session_resumption: true",
            "disable_stateful_session_resumption: true",
        ):
            self.assertIn(line, told[mutual.SERVER])
        self.assertIn("mtls: {mode: STRICT}", self.written(mutual.WeftEnd, mutual.SERVER, mutual.Spoken())[0])
        client = self.written(mutual.WeftEnd, mutual.CLIENT, mutual.Spoken())[0]
        self.assertIn("security.istio.io/tlsMode: istio", client)

    def test_weft_has_one_worker_and_its_identity(self):
        for side, mode in [(mutual.SERVER, "--mode sidecar"), (mutual.CLIENT, "=catalog.shop:8000")]:
            _, command, environment = self.written(mutual.WeftEnd, side, mutual.Spoken())
            self.assertEqual(environment, {"PROV_CERT": "identity"})
            for words in (mode, "--workers 1", "--extra"):
                self.assertIn(words, " ".join(command))

    def test_handshakes_are_those_of_the_hop(self):
        weft = mutual.WeftEnd(sys.executable, mutual.SERVER)
        metrics = (
            '# HELP envoy_listener_ssl_handshake x\nenvoy_listener_ssl_handshake{a="1",b="2 3"} 4\n'
            'envoy_listener_ssl_handshake{a="2"} 5\nenvoy_listener_ssl_handshake_other 9\nenvoy_cluster_ssl_handshake{} 1\n'
        )
        with mock.patch.object(mutual, "page", return_value=metrics):
            self.assertEqual(weft.handshakes(), 9)
        statistics = {
            "listener.127.0.0.1_1.ssl.handshake": 3,
            "listener.127.0.0.1_1.ssl.versions.TLSv1.3": 3,
            "listener.127.0.0.1_1.ssl.ciphers.A": 3,
            "listener.127.0.0.1_1.ssl.curves.C": 1,
            "listener.127.0.0.1_1.ssl.curves.B": 2,
            "cluster.other.ssl.handshake": 8,
            "http.inbound.downstream_cx_active": 6,
        }
        told = json.dumps({"stats": [{"name": name, "value": value} for name, value in statistics.items()]})
        envoy = mutual.EnvoyEnd(sys.executable, mutual.SERVER)
        with mock.patch.object(mutual, "page", return_value=told):
            self.assertEqual((envoy.handshakes(), envoy.connections()), (3, 6))
            self.assertEqual(envoy.agreed(), "TLSv1.3, A, B/C")
            self.assertEqual(envoy.connections(HTTP2), 0)

    def test_only_the_other_end_limits_streams_and_runs_beside_the_load(self):
        measured = mock.Mock(side=mutual.SERVER, port=1)
        other = mock.Mock(side=mutual.CLIENT, port=2)
        hop = mutual.Hop(measured, other)
        home = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "hop"
        spoken = mutual.Spoken(HTTP2, HTTP2, 16)
        hop.start(None, mock.Mock(port=3), ({1}, {0}), home, spoken)
        measured.start.assert_called_once_with(None, {1}, home / "server", 3, mutual.Spoken(HTTP2, HTTP2))
        other.start.assert_called_once_with(None, {0}, home / "client", 1, spoken)
        self.assertEqual(hop.port, 2)


class Shapes(unittest.TestCase):
    def test_each_version_has_its_limits_on_both_sides(self):
        self.assertEqual(len(mtls.SHAPES), 6)
        for name, shape in mtls.SHAPES.items():
            side, _, version = name.partition("-")
            self.assertEqual(mtls.side_of(shape), side)
            gate, goal = (0.55, 0.45) if version == "http1" else (0.7, 0.6)
            self.assertEqual((shape.limits.gate_envoy, shape.limits.goal_envoy), (gate, goal))
        self.assertEqual(mtls.connections_of(mtls.SHAPES["server-http2"]), 64)
        self.assertEqual(mtls.connections_of(mtls.SHAPES["client-http1"]), 64)
        self.assertEqual(mtls.connections_of(mtls.SHAPES["client-http2"]), 1)

    def test_a_gate_is_the_ratio_to_envoy_and_not_memory(self):
        shape = mtls.SHAPES["server-http1"]
        for cost, held in [(45, [True, True]), (55, [True, False]), (56, [False, False])]:
            found = runs(weft=[cost], envoy=[100])
            for run in found:
                run.shape, run.rss_kb = shape.name, 1 << 30
            self.assertEqual([holds for *_, holds in verdicts(found, shape)], held)

    def bench(self, handshakes_made, connections):
        counted = iter([10, 10 + handshakes_made])
        measured = mock.Mock(handshakes=lambda: next(counted))
        peer = mock.Mock(measured=measured, other=mock.Mock(connections=lambda: connections))
        with mock.patch.object(mtls.Bench, "run", return_value="run"):
            return mtls.HopBench(None, None, ({0}, {1}), None, None).run(mtls.SHAPES["server-http1"], 1, peer)

    def test_connections_of_the_hop_must_be_kept(self):
        self.assertEqual(self.bench(64, 64), "run")
        with self.assertRaisesRegex(Failure, "not kept alive"):
            self.bench(1000, 64)
        with self.assertRaisesRegex(Failure, "63 connections of HTTP/1.1 make up the hop, not 64"):
            self.bench(0, 63)


class Handshakes(unittest.TestCase):
    told = {"handshakes": 300, "seconds": 3.0, "cpu_seconds": 0.1, "agreed": [], "problem": None}

    def test_they_are_told_for_a_second_of_cpu(self):
        run = handshakes.read(self.told, 1, "weft", 350)
        self.assertEqual((run.per_second, round(run.per_core_second)), (100, 3000))

    def test_what_failed_or_was_not_counted_is_no_figure(self):
        for change, counted, why in [
            ({"problem": "reset"}, 350, "reset"),
            ({"handshakes": 0}, 350, "no handshake"),
            ({}, 299, "has counted 299"),
        ]:
            with self.assertRaisesRegex(Failure, why):
                handshakes.read({**self.told, **change}, 1, "weft", counted)

    def test_weft_must_make_as_many_as_envoy(self):
        def held(weft):
            found = [
                handshakes.Run(number, peer, 1, 1.0, cost, [["TLSv1.3", "A"]])
                for number, costs in enumerate(zip(weft, [1000.0, 2000.0], strict=True))
                for peer, cost in zip(("weft", "envoy"), costs, strict=True)
            ]
            self.assertEqual(len(handshakes.rows(found)), 3)
            return [holds for *_, holds in handshakes.verdicts(found)]

        self.assertEqual(held([1000.0, 2000.0]), [True])
        self.assertEqual(held([999.0, 1999.0]), [False])
        self.assertEqual(handshakes.verdicts([]), [])


class Idle(unittest.TestCase):
    def test_every_case_is_measured_in_mutual_tls_too(self):
        titles = [case.title() for case in idle.CASES if case.secured]
        self.assertEqual(len(titles), 6)
        self.assertEqual(titles[0], "downstream HTTP/1.1 in mTLS, never used")
        self.assertEqual(len({case.title() for case in idle.CASES}), 12)

    def test_what_is_asked_depends_on_the_transport(self):
        def held(bytes_each, secured):
            row = idle.Row("weft", "case", 1024, 0, bytes_each, 0, secured)
            return [(is_gate, holds) for _, is_gate, holds in row.verdicts()]

        self.assertEqual(held(12 * 1024, False), [(False, True)])
        self.assertEqual(held(12 * 1024 + 1, False), [(False, False)])
        self.assertEqual(held(25 * 1024, True), [(True, True), (False, True)])
        self.assertEqual(held(40 * 1024, True), [(True, True), (False, False)])
        self.assertEqual(held(40 * 1024 + 1, True), [(True, False), (False, False)])

    def bench(self, connections=3):
        made = idle_secured.SecuredIdleBench.__new__(idle_secured.SecuredIdleBench)
        idle.IdleBench.__init__(made, None, None, (None, None), connections)
        return made

    def test_upstream_connections_are_those_of_the_hop(self):
        """The other end is asked how many there are, and ended to end them; the backend has others, of the other end."""
        case = next(case for case in idle.CASES if case.secured and case.side == "upstream")
        state = mock.MagicMock()
        state.held.side_effect = [1, 2, 3]
        end = mock.Mock(connections=lambda: found)
        far = idle_secured.SecuredFar("processes", end, mock.Mock(port=1))
        for found, is_right in [(3, True), (2, False)]:
            state.held.side_effect = [1, 2, 3]
            state.__enter__.return_value = state
            with (
                mock.patch.object(idle_secured, "BackendState", return_value=state),
                mock.patch.object(idle, "open_connection"),
                mock.patch.object(idle, "settled_kb", side_effect=[10, 40, 20]),
                mock.patch.object(idle, "check_open"),
            ):
                if is_right:
                    row = self.bench()._measured(case, mock.Mock(), far)
                    self.assertEqual((row.before_kb, row.with_kb, row.after_kb, row.secured), (10, 40, 20, True))
                    end.stop.assert_called_once_with("processes")
                else:
                    with self.assertRaisesRegex(Failure, "2 upstream connections, not 3"):
                        self.bench()._measured(case, mock.Mock(), far)


if __name__ == "__main__":
    unittest.main()
