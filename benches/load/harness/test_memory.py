"""Tests of what measures memory. Scripted servers stand for a proxy and for the backend."""

import contextlib
import pathlib
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import unittest
from unittest import mock

from . import idle, stalled, wire
from .peers import HTTP1, HTTP2, Wire
from .processes import Failure


def serve(case, handle):
    """A server on a free loopback port that gives each connection to `handle(reader, writer)`; returns the port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            with contextlib.suppress(ConnectionError, struct.error):  # the client has left
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
        wires = {case.title(): case.wire(8000) for case in idle.CASES if not case.secured}
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

        def memory(_, asked):
            self.assertEqual(asked, ("RssAnon",))  # not pages of files, which come and go
            last[0] = next(sizes, last[0])
            return last[0], 0

        with (
            mock.patch.object(idle, "memory_kb", memory),
            mock.patch.object(idle, "SAMPLE_SECONDS", 0.01),
            mock.patch.object(idle, "SETTLED_SECONDS", 0.05),
        ):
            self.assertEqual(idle.settled_kb(mock.Mock()), 9002)


class Stalled(unittest.TestCase):
    def row(self, **figures):
        usual = dict.fromkeys(("before_kb", "early_kb", "most_kb", "late_kb", "after_kb"), 10_000)
        return stalled.Row("weft", "case", 100, **{**usual, **figures}, beside_ms=1.0, read_on=True)

    def test_memory_is_flat_if_it_does_not_grow_after_all_have_stalled(self):
        self.assertTrue(self.row(before_kb=1, most_kb=10_000 + stalled.FLAT_KB).is_flat())
        self.assertFalse(self.row(most_kb=10_001 + stalled.FLAT_KB).is_flat())
        self.assertTrue(self.row(early_kb=1_000_000, most_kb=1_010_000).is_flat())
        self.assertEqual(self.row(late_kb=10_100).bytes_each(), 1024)

    def test_streams_of_one_connection_are_read_until_their_windows_are_closed(self):
        length, asked = 3 * wire.WINDOW_BYTES, []

        def handle(reader, writer):
            reader.read(len(wire.PREFACE))
            writer.write(wire.frame(wire.SETTINGS, 0, 0, b""))
            widened = None
            while widened is None:
                kind, _, stream, payload = read_frame(reader)
                if kind == wire.HEADERS:
                    writer.write(wire.frame(wire.HEADERS, wire.END_HEADERS, stream, b"\x88"))
                    for count in [16_384] * 3 + [16_383]:
                        writer.write(wire.frame(wire.DATA, 0, stream, bytes(count)))
                    asked.append(stream)
                widened = int.from_bytes(payload, "big") if kind == wire.WINDOW_UPDATE and stream else None
            for _ in range((length - wire.WINDOW_BYTES) // 10):
                writer.write(wire.frame(wire.DATA, 0, 1, bytes(10)))

        case = next(case for case in stalled.CASES if case.one_connection)
        with wire.connect(serve(self, handle)) as made:
            client = wire.Http2(made, case.stream_window_bytes())
            stalled.stall([client], case, stalled.Size(3, length, 0))
            self.assertEqual(client.received, dict.fromkeys([1, 3, 5], wire.WINDOW_BYTES))
            self.assertEqual((client.drain(length), asked), (length, [1, 3, 5]))

    def test_a_body_is_pushed_as_far_as_the_other_side_takes_it_and_no_further(self):
        taken, windows = [], struct.pack(">HI", wire.INITIAL_WINDOW_SIZE, 100_000)

        def handle(reader, writer):
            reader.read(len(wire.PREFACE))
            writer.write(wire.frame(wire.SETTINGS, 0, 0, windows))
            while True:
                kind, _, _, payload = read_frame(reader)
                taken.append(len(payload) if kind == wire.DATA else 0)
                if sum(taken) == wire.WINDOW_BYTES:  # the connection's window; the stream's is larger now
                    writer.write(wire.frame(wire.WINDOW_UPDATE, 0, 0, struct.pack(">I", 10_000)))

        with wire.connect(serve(self, handle)) as made, mock.patch.object(stalled, "STILL_SECONDS", 0.3):
            stalled.push([wire.Http2(made)], None, stalled.Size(1, 10**9, 0))
        self.assertEqual(sum(taken), wire.WINDOW_BYTES + 10_000)

    def test_who_takes_everything_does_not_stall(self):
        def handle(reader, _):
            while reader.read(65_536):
                pass

        port = serve(self, handle)
        with wire.connect(port) as made, mock.patch.object(stalled, "STILL_SECONDS_MAX", 0.2):
            with self.assertRaisesRegex(Failure, "still takes bodies"):
                stalled.push([wire.Http1(made)], None, stalled.Size(1, 10**9, 0))

    def test_a_request_beside_them_is_answered_or_not(self):
        def answering(reader, writer):
            read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        peer = mock.Mock(port=serve(self, answering), wire=Wire())
        self.assertGreater(stalled.beside(peer), 0)
        peer.port = serve(self, lambda reader, _: read_head(reader))
        self.assertIsNone(stalled.beside(peer))


class Scripts(unittest.TestCase):
    def test_each_script_tells_how_it_is_called_and_what_is_wrong(self):
        load = pathlib.Path(__file__).resolve().parents[1]
        bad_words = {"compare": "--rounds=0", "idle": "--connections=0", "mtls": "--rounds=0", "stalled": "--streams=0"}
        for name, bad in bad_words.items():
            with self.subTest(name=name):
                called = [sys.executable, "-B", load / name]
                told = subprocess.run([*called, "--help"], capture_output=True, text=True, check=True).stdout
                self.assertIn(f"benches/load/{name} --quick", told)
                wrong = subprocess.run([*called, bad], capture_output=True, text=True, check=False)
                self.assertEqual(wrong.returncode, 2)
                self.assertIn("at least 1", wrong.stderr)
