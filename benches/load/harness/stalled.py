"""What streams cost that nobody reads: memory of a proxy before, while, and after bodies of a gigabyte stall in it."""

import contextlib
import time
from dataclasses import asdict, dataclass

from .idle import PATH, WRITTEN, settled_kb, warm_up
from .peers import HTTP1, HTTP2, Backend, Wire
from .processes import Failure, memory_kb
from .wire import WINDOW_BYTES, WINDOW_BYTES_MAX, Http1, Http2, connect, open_connection

# The memory of a stalled proxy may move by this much and still be called flat.
FLAT_KB, FLAT_SHARE = 1024, 0.01

# A client that stalls has a small receive buffer; what the kernel holds is no proxy's matter.
RECEIVE_BYTES = 64 * 1024
# Nobody takes any more of a body when nothing moved for so long.
STILL_SECONDS, STILL_SECONDS_MAX = 0.5, 60
SAMPLE_SECONDS = 0.2


@dataclass(frozen=True)
class Case:
    """Who does not read, and what is spoken."""

    title: str
    wire: Wire
    upload: bool = False  # the backend does not read requests; else the client does not read answers
    one_connection: bool = False  # all streams on one, which is read while their windows stay closed

    def stream_window_bytes(self):
        """What a client allows on a stream: next to nothing, or so much that it could be read for ever."""
        return WINDOW_BYTES if self.one_connection else WINDOW_BYTES_MAX


CASES = [
    Case("answers over HTTP/1.1, socket unread, from HTTP/1.1", Wire(HTTP1, HTTP1)),
    Case("answers over HTTP/2, socket unread, from HTTP/1.1", Wire(HTTP2, HTTP1)),
    Case("answers over HTTP/2, windows closed, from HTTP/1.1", Wire(HTTP2, HTTP1), one_connection=True),
    Case("answers over HTTP/1.1, socket unread, from HTTP/2", Wire(HTTP1, HTTP2)),
    Case("answers over HTTP/2, windows closed, from HTTP/2", Wire(HTTP2, HTTP2), one_connection=True),
    Case("requests over HTTP/1.1, unread by HTTP/1.1", Wire(HTTP1, HTTP1), upload=True),
    Case("requests over HTTP/2, unread by HTTP/2", Wire(HTTP2, HTTP2), upload=True),
]


@dataclass
class Row:
    """What was found of one proxy in one case."""

    peer: str
    case: str
    streams: int
    before_kb: int
    early_kb: int  # once all have stalled
    most_kb: int  # from then on
    late_kb: int  # at the end
    after_kb: int  # when they are gone
    beside_ms: float | None  # how long another request took meanwhile; none if it was not answered
    read_on: bool | None  # one of them then read on and got all; none where the client is not who stalls

    def bytes_each(self):
        """Memory a stalled stream adds."""
        return (self.late_kb - self.before_kb) * 1024 / self.streams

    def is_flat(self):
        """Memory did not grow while they stalled."""
        return self.most_kb - self.early_kb <= max(FLAT_KB, FLAT_SHARE * self.early_kb)

    def as_dict(self):
        return {**asdict(self), "bytes_each": self.bytes_each(), "is_flat": self.is_flat()}


@dataclass(frozen=True)
class Size:
    """How many streams stall, with what, for how long."""

    streams: int
    body_bytes: int
    seconds: float


class StalledBench:
    """What a measurement needs: the load program (as the backend), the CPUs, how much."""

    def __init__(self, processes, load, cpus, size):
        self._processes = processes
        self._load = load
        self._proxy_cpus, self._load_cpus = cpus
        self._size = size

    def measure(self, case, peer, directory):
        """One case of one proxy, which is started for it alone."""
        # The backend takes all streams and more on one connection.
        streams_max = 2 * self._size.streams + 100
        backend = Backend(self._processes, self._load, self._load_cpus, directory, streams_max)
        try:
            peer.start(self._processes, backend, self._proxy_cpus, directory, case.wire)
            with contextlib.closing(open_connection(case.wire.downstream, peer.port)) as connection:
                warm_up(connection)
            return self._stalled(case, peer)
        finally:
            for process in (peer.process, backend.process):
                if process:
                    self._processes.stop(process)

    def _stalled(self, case, peer):
        size = self._size
        before_kb = settled_kb(peer)
        with contextlib.ExitStack() as opened:
            clients = self._clients(case, peer, opened)
            (push if case.upload else stall)(clients, case, size)
            early_kb = settled_kb(peer)
            beside_ms = beside(peer)
            most_kb, late_kb = self._watch(peer, early_kb)
            read_bytes = None if case.upload else clients[0].drain(size.body_bytes)
        found = (before_kb, early_kb, most_kb, late_kb, settled_kb(peer))
        read_on = None if read_bytes is None else read_bytes == size.body_bytes
        return Row(peer.name, case.title, size.streams, *found, beside_ms, read_on)

    def _clients(self, case, peer, opened):
        """The connections, by which all streams are asked for."""
        clients = []
        for number in range(1 if case.one_connection else self._size.streams):
            made = connect(peer.port, number, RECEIVE_BYTES)
            opened.callback(made.close)
            http2 = case.wire.downstream == HTTP2
            clients.append(Http2(made, case.stream_window_bytes()) if http2 else Http1(made))
        return clients

    def _watch(self, peer, early_kb):
        """The most and the last memory while time goes by."""
        most_kb = late_kb = early_kb
        deadline = time.monotonic() + self._size.seconds
        while time.monotonic() < deadline:
            time.sleep(SAMPLE_SECONDS)
            late_kb = memory_kb(peer.pids(), WRITTEN)[0]
            most_kb = max(most_kb, late_kb)
        return most_kb, late_kb


def stall(clients, case, size):
    """Asks for long bodies and reads no more of them than must be."""
    path = f"{PATH}?bytes={size.body_bytes}"
    if not case.one_connection:
        for client in clients:
            client.ask(path)
            client.head()
        return
    (client,) = clients
    client.greet()
    for _ in range(size.streams):
        client.ask(path)
    # A proxy may stall before all have got what their windows allow: it has windows of its own.
    with contextlib.suppress(TimeoutError):
        while len(client.received) < size.streams or min(client.received.values()) < WINDOW_BYTES:
            client.next_frame()


def push(clients, _, size):
    """Sends long bodies until nothing of them is taken any more."""
    for client in clients:
        client.greet()
        client.begin_body(PATH, size.body_bytes)
    deadline = time.monotonic() + STILL_SECONDS_MAX
    moved = time.monotonic()
    while time.monotonic() < min(moved + STILL_SECONDS, deadline):
        if any([client.push_body() for client in clients]):
            moved = time.monotonic()
    if time.monotonic() >= deadline:
        raise Failure(f"it still takes bodies nobody reads after {STILL_SECONDS_MAX} s")


def beside(peer):
    """How long a request takes that has nothing to do with those that stall; none if it is not answered."""
    began = time.monotonic()
    try:
        connection = open_connection(peer.wire.downstream, peer.port)
        with contextlib.closing(connection):
            connection.ask(PATH)
            connection.answer()
    except (Failure, OSError):
        return None
    return (time.monotonic() - began) * 1000
