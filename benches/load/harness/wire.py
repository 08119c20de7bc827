"""Clients that hold connections: as much of HTTP/1.1 and HTTP/2 as it takes to open one, ask, and then do nothing, or
send a body until nobody takes any more of it.

Sockets block, with a timeout; nothing is read that need not be, for most of these connections are there to lie idle or to
stall. Over HTTP/2 header blocks are not decoded: an answer with status 200 begins with the byte that stands for it.
"""

import contextlib
import select
import socket
import struct

from .peers import HTTP1, HTTP2
from .processes import Failure

TIMEOUT_SECONDS = 10
HOST = "catalog.shop:8000"

# More connections than this from one address to one other run short of ports.
PORTS_PER_SOURCE = 20_000
FIRST_SOURCE = 16  # 127.0.0.16, .17, ..: not an address of the backend

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4
WINDOW_BYTES, WINDOW_BYTES_MAX = 65_535, 2**31 - 1
FRAME_BYTES_MAX = 16_384
FILLER = bytes(FRAME_BYTES_MAX)
STATUS_200 = b"\x88"


def connect(port, number=0, receive_bytes=None):
    """The socket of the connection with this number to a loopback port, perhaps with a small buffer."""
    made = socket.socket()
    made.settimeout(TIMEOUT_SECONDS)
    if receive_bytes:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if number >= PORTS_PER_SOURCE:
        # The port is chosen at the connect, when the other end is known (IP_BIND_ADDRESS_NO_PORT).
        made.setsockopt(socket.IPPROTO_IP, 24, 1)
        made.bind((f"127.0.0.{FIRST_SOURCE + number // PORTS_PER_SOURCE}", 0))
    made.connect(("127.0.0.1", port))
    return made


class Connection:
    """What both versions share: a socket and bytes that were read but not used."""

    def __init__(self, made):
        self.socket = made
        self._read = b""
        self._unsent = b""

    def close(self):
        self.socket.close()

    def _more(self):
        read = self.socket.recv(65_536)
        if not read:
            raise Failure("a connection was closed that should stay open")
        self._read += read

    def _send_some(self, more):
        """Sends what is left over, else `more()`, as far as the socket takes it; whether it took something."""
        self._unsent = self._unsent or more()
        self.socket.setblocking(False)
        try:
            sent = self.socket.send(self._unsent) if self._unsent else 0
        except BlockingIOError:
            sent = 0
        finally:
            self.socket.settimeout(TIMEOUT_SECONDS)
        self._unsent = self._unsent[sent:]
        return sent > 0

    def _take(self, count):
        while len(self._read) < count:
            self._more()
        taken, self._read = self._read[:count], self._read[count:]
        return taken


class Http1(Connection):
    """HTTP/1.1."""

    def greet(self):
        """Nothing is said before the first request."""

    def ask(self, path):
        """Sends a request for the path."""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())

    def begin_body(self, path, length):
        """Sends the head of a request with a body of this length."""
        head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n"
        self.socket.sendall(head.encode())

    def push_body(self):
        """Sends some of the body, if that can be done without waiting; whether it was."""
        return self._send_some(lambda: FILLER)

    def drain(self, length):
        """Reads a body of this length of which only what came with the head was read so far; returns how much came
        before its end or before nothing came any more."""
        count, room = len(self._read), bytearray(1 << 20)
        with contextlib.suppress(TimeoutError):
            while count < length and (read := self.socket.recv_into(room)):
                count += read
        return count

    def head(self):
        """Reads the head of the answer; returns the length of its body."""
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        status, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (it.partition(":") for it in fields)}
        if status.split(" ")[1] != "200" or "content-length" not in headers:
            raise Failure(f"an unexpected answer: {status}")
        return int(headers["content-length"])

    def answer(self):
        """Reads the whole answer; returns its body."""
        return self._take(self.head())


class Http2(Connection):
    """HTTP/2 with prior knowledge. Streams have numbers 1, 3, ..; one is asked for after the other."""

    def __init__(self, made, stream_window_bytes=WINDOW_BYTES):
        super().__init__(made)
        self._own_window = stream_window_bytes
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, stream_window_bytes)
        widened = struct.pack(">I", WINDOW_BYTES_MAX - WINDOW_BYTES)
        greeting = PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, widened)
        self.socket.sendall(greeting)
        self._next = 1
        # What may be sent: on the connection, on a new stream, on each that was begun. And what came on each.
        self._window = self._stream_window = WINDOW_BYTES
        self._windows = {}
        self.received = {}

    def greet(self):
        """Waits for the other side's SETTINGS."""
        while self.next_frame()[0] != SETTINGS:
            pass

    def ask(self, path):
        """Sends a request for the path; returns its stream."""
        return self._begin(b"\x82", path, END_STREAM)

    def begin_body(self, path, length):
        """Sends the head of a request with a body of this length; returns its stream."""
        return self._begin(b"\x83", path, 0, literal(28, str(length)))

    def _begin(self, method, path, flags, more=b""):
        number, self._next = self._next, self._next + 2
        block = method + b"\x86" + literal(4, path) + literal(1, HOST) + more
        self.socket.sendall(frame(HEADERS, flags | END_HEADERS, number, block))
        self._windows[number] = self._stream_window
        return number

    def push_body(self):
        """Sends some of the body of the last stream, if that can be done without waiting; whether it was."""
        while select.select([self.socket], [], [], 0)[0]:
            self.next_frame()
        number = self._next - 2

        def more():
            length = max(0, min(self._window, self._windows[number], FRAME_BYTES_MAX))
            self._window -= length
            self._windows[number] -= length
            return frame(DATA, 0, number, FILLER[:length]) if length else b""

        return self._send_some(more)

    def drain(self, length):
        """Lets the first stream send all of a body of this length, and reads it; returns how much came in all, before its
        end or before nothing came any more."""
        if wider := WINDOW_BYTES_MAX - self._own_window:
            self.socket.sendall(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", wider)))
        with contextlib.suppress(TimeoutError):
            while self.received.get(1, 0) < length:
                self.next_frame()
        return self.received.get(1, 0)

    def next_frame(self):
        """Reads one frame: kind, flags, stream, payload. What must be acknowledged is, windows are kept."""
        high, low, kind, flags, stream = struct.unpack(">BHBBI", self._take(9))
        payload = self._take(high << 16 | low)
        if kind == SETTINGS:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == INITIAL_WINDOW_SIZE:
                    wider, self._stream_window = value - self._stream_window, value
                    self._windows = {number: window + wider for number, window in self._windows.items()}
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == WINDOW_UPDATE and stream in self._windows:
            self._windows[stream] += int.from_bytes(payload, "big")
        elif kind == DATA:
            self.received[stream] = self.received.get(stream, 0) + len(payload)
        elif kind in (RST_STREAM, GOAWAY):
            raise Failure("a stream or a connection was given up that should stay")
        if kind in (SETTINGS, PING) and not flags & ACK:
            acknowledgement = frame(kind, ACK, 0, payload if kind == PING else b"")
            if self._unsent:  # in the middle of a frame
                self._unsent += acknowledgement
            else:
                self.socket.sendall(acknowledgement)
        return kind, flags, stream, payload

    def head(self):
        """Reads until the head of an answer."""
        kind, payload = None, b""
        while kind != HEADERS:
            kind, _, _, payload = self.next_frame()
        if first_header(payload)[:1] != STATUS_200:
            raise Failure(f"an unexpected answer: {payload!r}")

    def answer(self):
        """Reads one whole answer; returns its body."""
        self.head()
        body, flags, kind = b"", 0, None
        while not (flags & END_STREAM and kind in (DATA, HEADERS)):
            kind, flags, _, payload = self.next_frame()
            if kind == DATA:
                body += payload
        return body


def open_connection(spoken, port, number=0):
    """A connection that speaks HTTP/1.1 or HTTP/2, with which nothing was asked yet."""
    return speak(spoken, connect(port, number))


def speak(spoken, made):
    """The same by a socket that is connected."""
    connection = {HTTP1: Http1, HTTP2: Http2}[spoken](made)
    connection.greet()
    return connection


def frame(kind, flags, stream, payload):
    """An HTTP/2 frame."""
    return struct.pack(">BHBBI", len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def first_header(block):
    """A header block from its first header on: what changes the size of the table is left out."""
    while block and block[0] & 0xE0 == 0x20:
        long = block[0] & 0x1F == 0x1F
        block = block[1:]
        while long and block:
            long, block = block[0] >= 0x80, block[1:]
    return block


def literal(name, value):
    """A header with a name of the static table below 31 that leaves no trace in the other side's table."""
    index = bytes([name]) if name < 15 else bytes([15, name - 15])
    return index + bytes([len(value)]) + value.encode()


class BackendState:
    """Asks the backend itself, past the proxy."""

    def __init__(self, address, port):
        self._connection = Http1(socket.create_connection((address, port), TIMEOUT_SECONDS))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()

    def held(self):
        """How many requests it holds."""
        return self._state()[0]

    def connections(self):
        """How many connections it has, this one left out."""
        return self._state()[1] - 1

    def release(self):
        """Answers all that it holds; returns how many those were."""
        return int(self._asked("/-/release"))

    def _state(self):
        return [int(word) for word in self._asked("/-/state").split("/")]

    def _asked(self, path):
        self._connection.ask(path)
        return self._connection.answer().decode().split(" ")[1]
