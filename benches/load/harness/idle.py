"""What an idle connection costs: memory of a proxy before it, with many of it, and when they are gone."""

import contextlib
import ssl
import time
from dataclasses import asdict, dataclass, replace

from .peers import HTTP1, HTTP2, V1_ADDRESS, Backend, Wire
from .processes import Failure, memory_kb
from .wire import BackendState, open_connection

# Above this, weft's connections are called too big: those in plaintext, and those in mutual TLS.
GOAL_BYTES = 12 * 1024
SECURED_GOAL_BYTES, SECURED_GATE_BYTES = 25 * 1024, 40 * 1024

WARM_UP_REQUESTS = 200
PATH = "/items/7"
HELD_SECONDS_MAX = 10
# Connections a proxy may have besides: those of the warm-up, before the requests that are held took them.
OTHERS_MAX = 2

# A proxy is told to bear as many on both sides, an eighth more on each (nginx begins to close idle ones when a sixteenth
# is left), and some.
SPARE = 1000
# Files a proxy has open besides its connections.
OTHER_FILES = 100

# Of memory, what the process has written: pages of the program file come and go by what it did last, and belong to the
# system's cache. weft lets go of them, and a request brings some back.
WRITTEN = ("RssAnon",)
# It is read when it has not moved by more than this for so long.
SETTLED_KB, SETTLED_SECONDS, SETTLE_SECONDS_MAX, SAMPLE_SECONDS = 64, 0.5, 10, 0.1


@dataclass(frozen=True)
class Case:
    """Which connections lie idle."""

    side: str
    spoken: str
    used: bool
    secured: bool = False

    def title(self):
        """In words."""
        spoken = f"{self.spoken} in mTLS" if self.secured else self.spoken
        return f"{self.side} {spoken}, {'after a request' if self.used else 'never used'}"

    def wire(self, connections):
        """What the proxy is to speak, and how many connections of both sides together it is to bear."""
        upstream = self.spoken if self.side == "upstream" else HTTP1
        downstream = self.spoken if self.side == "downstream" else HTTP1
        return Wire(downstream, upstream, connections * 9 // 4 + SPARE)


# No proxy opens an upstream connection before it has a request for it.
CASES = [
    Case("downstream", HTTP1, False),
    Case("downstream", HTTP1, True),
    Case("downstream", HTTP2, False),
    Case("downstream", HTTP2, True),
    Case("upstream", HTTP1, True),
    Case("upstream", HTTP2, True),
]
CASES += [replace(case, secured=True) for case in CASES]


@dataclass
class Row:
    """What was found of one proxy in one case."""

    peer: str
    case: str
    connections: int
    before_kb: int  # without them
    with_kb: int
    after_kb: int  # when they are gone
    secured: bool = False

    def bytes_each(self):
        """Memory a connection adds."""
        return (self.with_kb - self.before_kb) * 1024 / self.connections

    def bytes_left(self):
        """Memory that stays when it is gone."""
        return (self.after_kb - self.before_kb) * 1024 / self.connections

    def as_dict(self):
        return {**asdict(self), "bytes_each": self.bytes_each(), "bytes_left": self.bytes_left()}

    def verdicts(self):
        """What is asked of weft: (limit in bytes, is a gate, holds)."""
        limits = [(SECURED_GATE_BYTES, True), (SECURED_GOAL_BYTES, False)] if self.secured else [(GOAL_BYTES, False)]
        return [(limit, is_gate, self.bytes_each() <= limit) for limit, is_gate in limits]


def most_connections(files):
    """How many connections a limit of open files allows in every case."""
    return max(1, (files - OTHER_FILES - SPARE) * 4 // 9)


class IdleBench:
    """What a measurement needs: the load program (as the backend), the CPUs, how many connections."""

    def __init__(self, processes, load, cpus, connections):
        self._processes = processes
        self._load = load
        self._proxy_cpus, self._load_cpus = cpus
        self._connections = connections

    def measure(self, case, peer, directory):
        """One case of one proxy, which is started for it alone."""
        backend = Backend(self._processes, self._load, self._load_cpus, directory, streams_max=1)
        try:
            wire = case.wire(self._connections)
            peer.start(self._processes, backend, self._proxy_cpus, directory, wire)
            return self._measured(case, peer, PlainFar(self._processes, backend))
        finally:
            for process in (peer.process, backend.process):
                if process:
                    self._processes.stop(process)

    def _measured(self, case, peer, far):
        """What was found of a peer that runs; `far` is what it is connected with upstream."""
        with contextlib.closing(self._open(case, peer, 0)) as connection:
            warm_up(connection)
        sizes = self._downstream(case, peer) if case.side == "downstream" else self._upstream(case, peer, far)
        return Row(peer.name, case.title(), self._connections, *sizes, case.secured)

    def _open(self, case, peer, number):
        """A downstream connection with which nothing was asked yet; when upstream ones are measured, of HTTP/1.1."""
        return open_connection(case.spoken if case.side == "downstream" else HTTP1, peer.port, number)

    def _downstream(self, case, peer):
        before_kb = settled_kb(peer)
        with self._opened(case, peer, case.used) as opened:
            with_kb = settled_kb(peer)
            check_open(opened)
        return before_kb, with_kb, settled_kb(peer)

    def _upstream(self, case, peer, far):
        """Downstream connections lie idle before and after. On each a request is held until all are there, so each
        needs an upstream connection of its own: over HTTP/2 because the far side takes one stream at a time, and the
        next is asked for only when the last has arrived."""
        with self._opened(case, peer, True) as opened, far.backend_state() as state:
            before_kb = settled_kb(peer)
            for number, connection in enumerate(opened, 1):
                connection.ask(f"{PATH}?hold")
                await_held(state, number)
            state.release()
            for connection in opened:
                connection.answer()
            with_kb = settled_kb(peer)
            found = far.connections(state)
            if not self._connections <= found <= self._connections + OTHERS_MAX:
                raise Failure(f"it keeps {found:,} upstream connections, not {self._connections:,}")
            check_open(opened)
            far.stop()
            return before_kb, with_kb, settled_kb(peer)

    @contextlib.contextmanager
    def _opened(self, case, peer, used):
        """Connections to a proxy, after a request each if `used`; closed at the end."""
        opened = []
        try:
            for number in range(self._connections):
                opened.append(self._open(case, peer, number))
                if used:
                    opened[-1].ask(PATH)
                    opened[-1].answer()
            yield opened
        finally:
            for connection in opened:
                connection.close()


class PlainFar:
    """What a proxy's upstream connections lead to: the backend itself."""

    def __init__(self, processes, backend):
        self._processes, self._backend = processes, backend

    def backend_state(self):
        """The backend, to be asked past the proxy."""
        return BackendState(V1_ADDRESS, self._backend.port)

    def connections(self, state):
        """How many connections the proxy has with it."""
        return state.connections()

    def stop(self):
        """Ends it, and with it the connections."""
        self._processes.stop(self._backend.process)


def warm_up(connection):
    """A few requests, so that what a proxy needs once is not charged to connections."""
    for _ in range(WARM_UP_REQUESTS):
        connection.ask(PATH)
        connection.answer()


def await_held(state, wanted):
    """Waits until the backend holds so many requests."""
    deadline = time.monotonic() + HELD_SECONDS_MAX
    while (held := state.held()) < wanted:
        if time.monotonic() > deadline:
            raise Failure(f"of {wanted:,} requests at once only {held:,} reach the backend")


def check_open(opened):
    """Fails if one of the connections was closed by the proxy."""
    for number, connection in enumerate(opened, 1):
        connection.socket.setblocking(False)
        try:
            if not connection.socket.recv(1):
                raise Failure(f"connection {number:,} of {len(opened):,} was closed while idle")
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            raise Failure(f"connection {number:,} of {len(opened):,} broke while idle: {error}") from error


def settled_kb(peer):
    """Memory that a proxy has written, once it does not move any more, or after a while."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    last, since = memory_kb(peer.pids(), WRITTEN)[0], time.monotonic()
    while time.monotonic() < min(since + SETTLED_SECONDS, deadline):
        time.sleep(SAMPLE_SECONDS)
        now = memory_kb(peer.pids(), WRITTEN)[0]
        if abs(now - last) > SETTLED_KB:
            last, since = now, time.monotonic()
    return memory_kb(peer.pids(), WRITTEN)[0]
