"""TCP passed on: how fast, and what a gigabyte costs, beside HAProxy."""

import json
import random
import types
from dataclasses import asdict, dataclass

from .figures import ratios, spread
from .measure import RUN_SECONDS_OVER
from .peers import V1_ADDRESS, Peer, Wire
from .processes import Failure, cpu_seconds, free_port, wait_until

CONNECTIONS = (1, 16)
# What is asked of weft, as ratios to HAProxy.
THROUGHPUT_MIN, CPU_MAX = 0.9, 1.0


class HAProxy(Peer):
    """HAProxy in its TCP mode."""

    def _command(self, backend, home):
        return [self.program, "-db", "-f", self._fill("tcp-haproxy.cfg", backend, home)]


class Weft(Peer):
    """weft as a gateway with a TCP server."""

    def _command(self, backend, home):
        mesh = home / "mesh"
        mesh.mkdir(exist_ok=True)
        self._fill("tcp-weft.yaml", backend, home).replace(mesh / "weft.yaml")
        whose = ["--namespace", "shop", "--labels", "istio=ingressgateway", "--ip", "127.0.0.1"]
        return [
            *(self.program, "run", "--config", mesh, "--mode", "gateway", *whose),
            *("--workers", 1, "--admin", "127.0.0.1:0"),
        ]


@dataclass
class Run:
    """One transfer."""

    round: int
    peer: str
    connections: int
    gigabytes_per_second: float
    cpu_seconds_per_gigabyte: float

    def as_dict(self):
        """For JSON."""
        return asdict(self)


class TcpBench:
    """iperf3 on one CPU, the proxies on another."""

    def __init__(self, processes, iperf, cpus, directory, seconds):
        self._processes = processes
        self._iperf = iperf
        self._proxy_cpus, self._load_cpus = cpus
        self._directory = directory
        self._seconds = seconds
        self._server = None

    def start(self, peers):
        """Starts the server, and the proxies before it."""
        port = free_port()
        command = [self._iperf, "-s", "-B", V1_ADDRESS, "-p", port, "--forceflush"]
        log = self._directory / "server.log"
        self._server = self._processes.start(command, self._load_cpus, log)
        wait_until(lambda: "listening" in log.read_text(), self._server, "iperf3 does not listen")
        backend = types.SimpleNamespace(process=self._server, port=port)
        for peer in peers:
            peer.start(self._processes, backend, self._proxy_cpus, self._directory, Wire())

    def rounds(self, peers, count, say):
        """All runs, the proxies of a round in an order of its own."""
        runs = []
        for number in range(count):
            for connections in CONNECTIONS:
                for peer in random.Random(number).sample(peers, len(peers)):
                    runs.append(self._run(number, peer, connections))
                    told = f"{runs[-1].gigabytes_per_second:.2f} GB/s"
                    told += f", {runs[-1].cpu_seconds_per_gigabyte:.3f} s of CPU a GB"
                    say(f"  {peer.name:8} {connections:2} connections: {told}")
        return runs

    def _run(self, number, peer, connections):
        command = [self._iperf, "-c", "127.0.0.1", "-p", peer.port, "-t", self._seconds]
        command += ["-P", connections, "-J"]
        before = cpu_seconds(peer.pids())
        log = self._directory / "client.log"
        out = self._processes.output(command, self._load_cpus, log, self._seconds + RUN_SECONDS_OVER)
        used = cpu_seconds(peer.pids()) - before
        received, seconds = read(out)
        return Run(number, peer.name, connections, received / seconds / 1e9, used / (received / 1e9))


def read(report):
    """Bytes that arrived and in how many seconds, of what iperf3 tells."""
    told = json.loads(report or "{}")
    if "error" in told or "end" not in told:
        raise Failure(f"iperf3: {told.get('error', 'it said nothing')}")
    total = told["end"]["sum_received"]
    if not total["bytes"]:
        raise Failure("iperf3: nothing arrived")
    return total["bytes"], total["seconds"]


def compare(runs):
    """Of each number of connections: throughput and CPU of weft as ratios to HAProxy, paired round by round."""

    def of(peer, connections, figure):
        mine = (run for run in runs if (run.peer, run.connections) == (peer, connections))
        return {run.round: getattr(run, figure) for run in mine}

    figures = ("gigabytes_per_second", "cpu_seconds_per_gigabyte")
    return {
        connections: [ratios(of("weft", connections, it), of("haproxy", connections, it)) for it in figures]
        for connections in CONNECTIONS
    }


def rows(runs):
    """The table: medians of each proxy."""
    table = [("connections", "proxy", "GB/s", "CPU s/GB")]
    for connections in CONNECTIONS:
        for peer in dict.fromkeys(run.peer for run in runs):
            mine = [run for run in runs if (run.peer, run.connections) == (peer, connections)]
            speed = spread([run.gigabytes_per_second for run in mine]).median
            cost = spread([run.cpu_seconds_per_gigabyte for run in mine]).median
            table.append((str(connections), peer, f"{speed:.2f}", f"{cost:.3f}"))
    return table


def verdicts(runs):
    """What is asked of weft: (what, found, limit, whether it holds)."""
    asked = []
    for connections, (speed, cost) in compare(runs).items():
        if speed is None:
            continue
        what = f"TCP, {connections} connection{'s' if connections > 1 else ''}, to HAProxy"
        found = f"{speed.median:.2f} ({speed.least:.2f} to {speed.greatest:.2f})"
        asked.append((f"{what}: throughput", found, f"at least {THROUGHPUT_MIN}", speed.median >= THROUGHPUT_MIN))
        found = f"{cost.median:.2f} ({cost.least:.2f} to {cost.greatest:.2f})"
        asked.append((f"{what}: CPU per GB", found, f"at most {CPU_MAX}", cost.median <= CPU_MAX))
    return asked
