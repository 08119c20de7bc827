"""What a large mesh costs weft: reading it, serving from it, changing one object of it."""

import http.client
import http.server
import re
import statistics
import threading
import time
from dataclasses import asdict, dataclass

from . import mesh as meshes
from .processes import Failure, cpu_seconds, log_tail, memory_kb, wait_until

BACKENDS = ("127.0.0.2", "127.0.0.3")
READY_SECONDS_MAX = 120
CHANGE_SECONDS_MAX = 30
SETTLED_SECONDS = 3
SETTLE_SECONDS_MAX = 30
PUBLISHED = re.compile(r"configuration published.*")
FIELD = re.compile(r"(\w+)=([\d.]+)")


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):  # the name http.server asks for
        self.send_response(200)
        self.send_header("content-length", "0")
        self.send_header("x-backend", self.server.server_address[0])
        self.end_headers()

    def log_message(self, *_):
        """Says nothing."""


class Backend:
    """Endpoints that answer at once, on one port of several addresses."""

    def __init__(self):
        first = http.server.ThreadingHTTPServer((BACKENDS[0], 0), _Answer)
        self.port = first.server_address[1]
        rest = [http.server.ThreadingHTTPServer((address, self.port), _Answer) for address in BACKENDS[1:]]
        self._servers = [first, *rest]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop(self):
        """Takes no more connections."""
        for server in self._servers:
            server.shutdown()
            server.server_close()


@dataclass
class Start:
    """A start: what it took until the proxy was ready, and what it holds when it has settled."""

    mesh: meshes.Mesh
    yaml_bytes: int
    ready_ms: float
    ready_cpu_ms: float
    read_ms: float  # from bytes to objects, of which the next two know nothing
    compile_ms: float
    build_ms: float
    settled_kb: int
    peak_kb: int
    changed_kb: int = 0  # when it has settled after changes

    def parse_mb_per_second(self):
        """How fast YAML becomes objects."""
        return self.yaml_bytes / 1e6 / (self.read_ms / 1e3)

    def as_dict(self):
        """For JSON."""
        return asdict(self)


@dataclass
class Change:
    """One object's file, renamed into place."""

    kind: str  # of the object
    milliseconds: float  # until the first request that is routed by it was answered
    cpu_ms: float  # of the whole proxy, meanwhile
    before_ms: float  # a request before it

    def as_dict(self):
        """For JSON."""
        return asdict(self)


class Proxy:
    """weft on a mesh."""

    def __init__(self, processes, program, cpus, home, mesh, backend):
        self.mesh = mesh
        self.config = home / "config"
        self.config.mkdir(parents=True)
        self.backend = (BACKENDS, backend.port)
        meshes.write(mesh, self.config, self.backend)
        ready = home / "ready"
        began = time.monotonic()
        command = [program, "run", "--config", self.config, "--namespace", meshes.namespace(0), "--workers", "1"]
        command += ["--listen", f"127.0.0.1:0=outbound:{meshes.PORT}", "--admin", "127.0.0.1:0"]
        self.process = processes.start([*command, "--ready-file", ready], cpus, home / "log")
        wait_until(ready.exists, self.process, "weft is not ready", READY_SECONDS_MAX)
        self.ready_ms = (time.monotonic() - began) * 1e3
        self.ready_cpu_ms = self.cpu_ms()
        self.port = int(re.search(r'127\.0\.0\.1:(\d+)', _listeners(ready.read_text()))[1])

    def cpu_ms(self):
        """CPU time it has used."""
        return cpu_seconds([self.process.pid]) * 1e3

    def memory_kb(self):
        """Resident memory now and at its peak."""
        return memory_kb([self.process.pid])

    def ask(self, connection, tester=False):
        """One request for the first service: status, turn and backend of its answer."""
        headers = {"host": meshes.host(0)} | ({"x-user": "tester"} if tester else {})
        connection.request("GET", "/", headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("x-turn"), answer.getheader("x-backend")

    def expect(self, kind, turn):
        """Whether the answer to a request says that the change of that turn holds."""
        odd = turn % 2 == 1
        if kind == "VirtualService":
            return lambda answer: answer[1] == str(turn)
        if kind == "DestinationRule":
            return lambda answer: answer[2] == BACKENDS[0 if odd else 1]
        return lambda answer: answer[0] == (503 if odd else 200)

    def connect(self):
        """A connection to it."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=CHANGE_SECONDS_MAX)

    def published(self):
        """What the log says of the generations that were published, each as numbers by name."""
        lines = PUBLISHED.findall(re.sub(r"\x1b\[[\d;]*m", "", self.process.log.read_text(errors="replace")))
        return [{name: float(value) for name, value in FIELD.findall(line)} for line in lines]


def _listeners(ready):
    """The part of a ready file that tells of listeners."""
    return ready.partition('"listeners"')[2] or ready


def start(processes, program, cpus, home, mesh, backend):
    """Starts weft, asks it once, lets it settle, and tells what that took; the proxy still runs."""
    proxy = Proxy(processes, program, cpus, home, mesh, backend)
    if mesh.routed:
        connection = proxy.connect()
        status, _, _ = proxy.ask(connection)
        connection.close()
        if status != 200:
            raise Failure(f"a request for {meshes.host(0)} is answered {status}{log_tail(proxy.process)}")
    settled, peak = settle(proxy)
    times = proxy.published()[0]
    found = Start(
        mesh,
        meshes.size(proxy.config),
        proxy.ready_ms,
        proxy.ready_cpu_ms,
        *(times.get(name, float("nan")) for name in ("read_ms", "compile_ms", "build_ms")),
        settled,
        peak,
    )
    return proxy, found


def settle(proxy):
    """Resident memory, once it has not grown less for some time, and the peak."""
    least, since = proxy.memory_kb()[0], time.monotonic()
    began = since
    while time.monotonic() - since < SETTLED_SECONDS and time.monotonic() - began < SETTLE_SECONDS_MAX:
        time.sleep(0.1)
        now = proxy.memory_kb()[0]
        if now < least - 128:
            least, since = now, time.monotonic()
    return proxy.memory_kb()


def changes(proxy, kind, count):
    """Changes one object again and again; each time, how long until a request is answered by it."""
    connection, found = proxy.connect(), []
    tester = kind != "VirtualService"
    # An even number of turns, so that all is as it was in the end.
    for turn in range(1, count + count % 2 + 1):
        time.sleep(0.3)
        asked = time.monotonic()
        proxy.ask(connection, tester)
        before_ms = (time.monotonic() - asked) * 1e3
        cpu_ms = proxy.cpu_ms()
        began = time.monotonic()
        meshes.change(proxy.mesh, proxy.config, kind, turn, proxy.backend)
        is_changed = proxy.expect(kind, turn)
        while not is_changed(proxy.ask(connection, tester)):
            if time.monotonic() - began > CHANGE_SECONDS_MAX:
                raise Failure(f"no request is answered by a change of a {kind} within {CHANGE_SECONDS_MAX} s")
            time.sleep(0.0005)
        took_ms = (time.monotonic() - began) * 1e3
        time.sleep(0.2)
        found.append(Change(kind, took_ms, proxy.cpu_ms() - cpu_ms, before_ms))
    connection.close()
    return found


def median(values):
    """The middle one."""
    return statistics.median(values)
