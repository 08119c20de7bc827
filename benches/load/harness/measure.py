"""The measurement: rounds in which each proxy gets the same load in turn."""

import contextlib
import json
import os
import random
import resource
import time
from dataclasses import asdict, dataclass, replace

from .figures import Limits
from .peers import HTTP1, HTTP2, Wire
from .processes import Failure, cpu_seconds, idle_seconds, memory_kb
from .verify import check_split

# Beyond its window a run connects, drains for a second at most, and ends.
RUN_SECONDS_OVER = 15
# What a run costs besides warm-up and window, for the estimate.
OVERHEAD_SECONDS = 0.3
START_SECONDS = 3
# Load on the two cores by anything else, in cores, above which a round is called disturbed.
DISTURBED_CORES = 0.10
CALM_SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Shape:
    """One shape of load: what the load program is told, what is spoken, and what is asked of weft."""

    name: str
    title: str
    load: tuple
    connections: int
    warm_up_seconds: float
    window_seconds: float
    wire: Wire
    limits: Limits

    def seconds(self):
        """How long one run takes, about."""
        return self.warm_up_seconds + self.window_seconds + OVERHEAD_SECONDS


HTTP1_LIMITS = Limits(gate_envoy=0.6, goal_envoy=0.45, goal_c=1.2)
HTTP2_LIMITS = Limits(gate_envoy=0.7, goal_envoy=0.6, goal_c=None)
STREAMS = ("flood", "--streams", "16")
STREAMS_TITLE = "16 streams on each of 4 HTTP/2 connections as fast as they go, to"

EVEN = Shape(
    name="even",
    title="1,000 requests/s evenly over 16 connections",
    load=("even", "--rate", "1000"),
    connections=16,
    warm_up_seconds=1.0,
    window_seconds=5.0,
    wire=Wire(),
    limits=HTTP1_LIMITS,
)
FLOOD = Shape(
    name="flood",
    title="64 connections as fast as they go",
    load=("flood",),
    connections=64,
    warm_up_seconds=1.0,
    window_seconds=3.0,
    wire=Wire(),
    limits=HTTP1_LIMITS,
)
HTTP2_TO_HTTP1 = Shape(
    name="http2-to-http1",
    title=f"{STREAMS_TITLE} an HTTP/1.1 backend",
    load=STREAMS,
    connections=4,
    warm_up_seconds=1.0,
    window_seconds=3.0,
    wire=Wire(HTTP2, HTTP1),
    limits=HTTP2_LIMITS,
)
HTTP2_TO_HTTP2 = replace(
    HTTP2_TO_HTTP1,
    name="http2-to-http2",
    title=f"{STREAMS_TITLE} an HTTP/2 backend",
    wire=Wire(HTTP2, HTTP2),
)
SHAPES = {shape.name: shape for shape in (EVEN, FLOOD, HTTP2_TO_HTTP1, HTTP2_TO_HTTP2)}


@dataclass
class Run:
    """The figures of one run."""

    shape: str
    round: int
    peer: str
    cpu_us_per_request: float
    requests: int
    requests_per_second: float
    p50_us: float
    p99_us: float
    proxy_core: float  # share of its core the proxy used
    load_core: float  # share of theirs the load and the backend used
    other_cores: float  # cores' worth of anything else on the two
    send_lag_p99_us: float  # how late the load itself sent
    v2_share: float
    rss_kb: int
    peak_kb: int

    def is_disturbed(self):
        """Something else took part of the two cores."""
        return self.other_cores > DISTURBED_CORES

    def as_dict(self):
        return asdict(self)


class Bench:
    """What a run needs: the load program, the backend, the CPUs."""

    def __init__(self, load, backend, cpus, processes, directory):
        self._load = load
        self._backend = backend
        proxy_cpus, self._load_cpus = cpus
        self._cpus = proxy_cpus | self._load_cpus
        self._processes = processes
        self._directory = directory

    def run_undisturbed(self, shape, number, peer, patience, say):
        """One run, repeated while something else disturbs it and the patience lasts."""
        run = self.run(shape, number, peer)
        while run.is_disturbed() and patience.lasts():
            others = f"other processes used {run.other_cores:.2f} cores"
            say(f"  {shape.name} {peer.name}: {others}; waiting, then again")
            with patience.spend():
                self._wait_for_calm(peer, patience)
                run = self.run(shape, number, peer)
        return run

    def _wait_for_calm(self, peer, patience):
        calm, ours = False, [*peer.pids(), self._backend.process.pid, *peer.beside()]
        while not calm and patience.lasts():
            before = self._clocks(ours)
            time.sleep(CALM_SAMPLE_SECONDS)
            calm = _others(before, self._clocks(ours), len(self._cpus)) <= DISTURBED_CORES

    def run(self, shape, number, peer):
        """One run; fails if one answer was wrong."""
        pids, others = peer.pids(), [self._backend.process.pid, *peer.beside()]
        command = [
            self._load,
            *shape.load,
            "--target",
            f"127.0.0.1:{peer.port}",
            "--connections",
            shape.connections,
        ]
        command += ["--warm-up-ms", int(shape.warm_up_seconds * 1000)]
        command += ["--window-ms", int(shape.window_seconds * 1000)]
        command += ["--watch", f"proxy={','.join(map(str, pids))}"]
        command += ["--watch", f"load=self,{','.join(map(str, others))}"]
        before = self._clocks([*pids, *others])
        report = self._report(command, shape)
        after = self._clocks([*pids, *others])
        if report["errors"]:
            raise Failure(f"wrong answers under load: {report['errors_text']}")
        served = report["served_by"]
        total = sum(served.values())
        if peer.routes:
            check_split(served["v2"], total)
        rss_kb, peak_kb = memory_kb(pids)
        window = report["window_ns"]
        return Run(
            shape=shape.name,
            round=number,
            peer=peer.name,
            cpu_us_per_request=report["cpu_ns"]["proxy"] / 1000 / max(report["requests"], 1),
            requests=report["requests"],
            requests_per_second=report["requests_per_second"],
            p50_us=report["latency_ns"]["p50"] / 1000,
            p99_us=report["latency_ns"]["p99"] / 1000,
            proxy_core=report["cpu_ns"]["proxy"] / window,
            load_core=report["cpu_ns"]["load"] / window,
            other_cores=_others(before, after, len(self._cpus)),
            send_lag_p99_us=report["send_lag_ns"]["p99"] / 1000,
            v2_share=served["v2"] / max(total, 1),
            rss_kb=rss_kb,
            peak_kb=peak_kb,
        )

    def _report(self, command, shape):
        seconds = shape.warm_up_seconds + shape.window_seconds
        return run_load(self._processes, command, self._load_cpus, self._directory, seconds)

    def _clocks(self, pids):
        """Wall time, idle time of the two cores, and CPU time of everything here."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)  # the load generators that ended
        ours = cpu_seconds([*pids, os.getpid()]) + children.ru_utime + children.ru_stime
        return time.monotonic(), idle_seconds(self._cpus), ours


def run_load(processes, command, cpus, directory, seconds, become=None):
    """Runs the load, whose warm-up and window take so long; returns what it reports."""
    log = directory / "load.log"
    out = processes.output(command, cpus, log, seconds + RUN_SECONDS_OVER, become)
    if not out.strip():
        raise Failure(f"the load failed: {log.read_text(errors='replace').strip()[-500:]}")
    return json.loads(out)


def _others(before, after, cores):
    wall, idle, ours = (late - early for early, late in zip(before, after, strict=True))
    return max(0.0, (wall * cores - idle - ours) / wall)


class Patience:
    """How long a comparison may spend on waiting for a quiet machine and on repeating disturbed runs."""

    def __init__(self, seconds=0):
        self._left = seconds
        self._since = None

    def add(self, seconds):
        """Allows more."""
        self._left = max(self._left, 0) + seconds

    def lasts(self):
        """Whether there is some left."""
        spent = time.monotonic() - self._since if self._since else 0
        return self._left > spent

    @contextlib.contextmanager
    def spend(self):
        """What runs inside counts."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._left -= time.monotonic() - self._since
            self._since = None


def order(peers, number):
    """The peers of a round in an order of its own, the same in every comparison."""
    shuffled = list(peers)
    random.Random(number).shuffle(shuffled)
    return shuffled


def estimate_seconds(shapes, rounds, peers):
    """How long it will take, about."""
    return sum(rounds * peers * shape.seconds() + peers * START_SECONDS for shape in shapes)
