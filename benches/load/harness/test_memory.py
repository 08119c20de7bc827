"""Tests of what measures memory. Scripted servers stand for a proxy and for the backend."""

import pathlib
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import unittest
from unittest import mock

from . import idle, wire
from .peers import HTTP1, HTTP2, Wire
from .processes import Failure


def serve(case, handle):
    """A server on a free loopback port that gives each connection to `handle(reader, writer)`; returns the port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            handle(self.rfile, self.wfile)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    case.addCleanup(server.server_close)
    case.addCleanup(server.shutdown)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server.server_address[1]


def read_head(reader):
    """The lines of one HTTP/1.1 request head; none at the end."""
    lines = []
    while line := reader.readline().strip():
        lines.append(line.decode())
    return lines


def read_frame(reader):
    """Kind, flags, stream and payload of one HTTP/2 frame."""
    high, low, kind, flags, stream = struct.unpack(">BHBBI", reader.read(9))
    return kind, flags, stream, reader.read(high << 16 | low)


class Connections(unittest.TestCase):
    def test_http1_is_asked_and_the_whole_body_read(self):
        seen = []

        def handle(reader, writer):
            while head := read_head(reader):
                seen.append(head)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
                writer.write(b"cde")

        connection = wire.open_connection(HTTP1, serve(self, handle))
        for _ in range(2):
            connection.ask("/a")
            self.assertEqual(connection.answer(), b"abcde")
        self.assertEqual(seen[0][0], "GET /a HTTP/1.1")
        connection.close()

    def test_http2_is_greeted_asked_and_acknowledged(self):
        seen = []

        def handle(reader, writer):
            seen.append(reader.read(len(wire.PREFACE)))
            writer.write(wire.frame(wire.SETTINGS, 0, 0, b"") + wire.frame(wire.PING, 0, 0, b"12345678"))
            while len(seen) < 6:
                seen.append(read_frame(reader))
            stream = seen[-1][2]
            writer.write(wire.frame(wire.HEADERS, wire.END_HEADERS, stream, b"\x3f\xe1\x1f\x88"))
            writer.write(wire.frame(wire.DATA, 0, stream, b"abc"))
            writer.write(wire.frame(wire.DATA, wire.END_STREAM, stream, b"de"))

        connection = wire.open_connection(HTTP2, serve(self, handle))
        # The PING is read by the time the answer is, so it is acknowledged at some time before it.
        self.assertEqual(connection.next_frame()[0], wire.PING)
        self.assertEqual(connection.ask("/a"), 1)
        self.assertEqual(connection.answer(), b"abcde")
        kinds = [(kind, flags) for kind, flags, _, _ in seen[1:]]
        acknowledged = [(wire.SETTINGS, wire.ACK), (wire.PING, wire.ACK)]
        asked = (wire.HEADERS, wire.END_STREAM | wire.END_HEADERS)
        self.assertEqual(kinds, [(wire.SETTINGS, 0), (wire.WINDOW_UPDATE, 0), *acknowledged, asked])
        self.assertEqual(seen[4][3], b"12345678")
        self.assertEqual(seen[5][3], b"\x82\x86\x04\x02/a\x01\x11catalog.shop:8000")
        connection.close()

    def test_a_bad_answer_and_an_end_are_failures(self):
        for answer, problem in [
            (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "503"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "unexpected"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "closed"),
        ]:

            def handle(reader, writer, answer=answer):
                read_head(reader)
                writer.write(answer)

            connection = wire.open_connection(HTTP1, serve(self, handle))
            connection.ask("/a")
            with self.assertRaisesRegex(Failure, problem):
                connection.answer()
            connection.close()

    def test_when_ports_run_short_another_source_is_taken(self):
        port = serve(self, lambda reader, _: reader.read())
        with wire.connect(port, 1) as few, wire.connect(port, wire.PORTS_PER_SOURCE) as many:
            self.assertEqual(few.getsockname()[0], "127.0.0.1")
            self.assertEqual(many.getsockname()[0], "127.0.0.17")

    def test_the_backend_is_asked_past_the_proxy(self):
        answers = {"/-/state": b"v1 3/9 ..", "/-/release": b"v1 3 ...."}

        def handle(reader, writer):
            while head := read_head(reader):
                body = answers[head[0].split(" ")[1]]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

        with wire.BackendState("127.0.0.1", serve(self, handle)) as state:
            self.assertEqual((state.held(), state.connections(), state.release()), (3, 8, 3))
            with mock.patch.object(idle, "HELD_SECONDS_MAX", 0.05):
                idle.await_held(state, 3)
                with self.assertRaisesRegex(Failure, "only 3 reach"):
                    idle.await_held(state, 4)


class Idle(unittest.TestCase):
    def test_bytes_are_told_for_each_connection(self):
        row = idle.Row("weft", "case", 1024, before_kb=5000, with_kb=7000, after_kb=5500)
        self.assertEqual((row.bytes_each(), row.bytes_left()), (2000, 500))
        self.assertEqual(row.as_dict()["bytes_each"], 2000)

    def test_each_case_says_what_is_spoken_and_borne(self):
        wires = {case.title(): case.wire(8000) for case in idle.CASES}
        self.assertEqual(len(wires), 6)
        self.assertEqual(wires["downstream HTTP/2, never used"], Wire(HTTP2, HTTP1, 19_000))
        self.assertEqual(wires["upstream HTTP/2, after a request"], Wire(HTTP1, HTTP2, 19_000))

    def test_connections_are_bounded_by_the_open_files(self):
        for files in (1024, 1200, 20_000, 1_048_576):
            most = idle.most_connections(files)
            self.assertGreaterEqual(most, 1)
            if most > 1:
                self.assertLessEqual(idle.CASES[0].wire(most).connections + idle.OTHER_FILES, files)
        self.assertGreater(idle.most_connections(20_000), 8000)

    def test_a_connection_that_was_closed_while_idle_is_found(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            connection = mock.Mock(socket=ours)
            idle.check_open([connection])
            theirs.close()
            with self.assertRaisesRegex(Failure, "closed while idle"):
                idle.check_open([connection])

    def test_memory_is_read_when_it_has_settled(self):
        sizes = iter([100, 5000, 9000, 9001, 9002])
        last = [0]

        def memory(_):
            last[0] = next(sizes, last[0])
            return last[0], 0

        with (
            mock.patch.object(idle, "memory_kb", memory),
            mock.patch.object(idle, "SAMPLE_SECONDS", 0.01),
            mock.patch.object(idle, "SETTLED_SECONDS", 0.05),
        ):
            self.assertEqual(idle.settled_kb(mock.Mock()), 9002)


class Scripts(unittest.TestCase):
    def test_each_script_tells_how_it_is_called_and_what_is_wrong(self):
        load = pathlib.Path(__file__).resolve().parents[1]
        for name, bad in [("compare", "--rounds=0"), ("idle", "--connections=0")]:
            with self.subTest(name=name):
                called = [sys.executable, "-B", load / name]
                told = subprocess.run([*called, "--help"], capture_output=True, text=True, check=True).stdout
                self.assertIn(f"benches/load/{name} --quick", told)
                wrong = subprocess.run([*called, bad], capture_output=True, text=True, check=False)
                self.assertEqual(wrong.returncode, 2)
                self.assertIn("at least 1", wrong.stderr)
