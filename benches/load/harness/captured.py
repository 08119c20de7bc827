"""What capture costs: HTTP that redirect rules bring to weft, beside HTTP that is sent to a listener of its own."""

import random
from dataclasses import asdict, dataclass

from .figures import ratios, spread
from .measure import run_load
from .namespaces import FAR_ADDRESSES, PROXY_USER, call, enter
from .peers import TEMPLATES, fill, start_announcing
from .processes import Failure, wait_until
from .verify import check_split

# The service's address and port in peers/weft.yaml, where captured requests go.
SERVICE = "10.96.0.11:8000"
EXPLICIT_PORT = 18000
CONNECTIONS = 64
WARM_UP_SECONDS = 0.5
# What is asked: CPU per request, captured to explicit.
CPU_MAX = 1.10


@dataclass
class Run:
    """One run of the load."""

    round: int
    way: str
    cpu_us_per_request: float
    requests_per_second: float

    def as_dict(self):
        """For JSON."""
        return asdict(self)


class CapturedBench:
    """weft as a sidecar in a pod's namespace, the load beside it, the backend in the other."""

    def __init__(self, processes, programs, cpus, namespaces, directory):
        self._processes = processes
        self._weft, self._load = programs
        self._proxy_cpus, self._load_cpus = cpus
        self._namespaces = namespaces
        self._directory = directory
        self._proxy = None

    def start(self):
        """Starts the backend and weft, and applies the rules."""
        versions = zip(("v1", "v2"), FAR_ADDRESSES, strict=True)
        command = [self._load, "backend"]
        for version, address in versions:
            command += ["--version", f"{version}={address}"]
        log = self._directory / "backend.log"
        become = enter(self._namespaces.far)
        _, listening = start_announcing(self._processes, command, self._load_cpus, log, become)
        port = int(listening[0].rpartition(":")[2])
        call(self._weft, "redirect", "apply", become=enter(self._namespaces.pod))
        self._start_weft(port)

    def _start_weft(self, port):
        v1, v2 = FAR_ADDRESSES
        words = {"BACKEND_PORT": port, "V1_ADDRESS": v1, "V2_ADDRESS": v2, "PORT_NAME": "http"}
        mesh = self._directory / "mesh"
        mesh.mkdir()
        (mesh / "weft.yaml").write_text(fill((TEMPLATES / "weft.yaml").read_text(), words))
        home = self._directory / "pod"
        home.mkdir()
        for path in (self._directory, home):
            path.chmod(0o777)
        command = [self._weft, "run", "--config", mesh, "--as", "web-1.shop"]
        command += ["--mode", "sidecar", "--listen", f"127.0.0.1:{EXPLICIT_PORT}=catalog.shop:8000"]
        command += ["--workers", 1, "--ready-file", home / "ready"]
        become = enter(self._namespaces.pod, PROXY_USER)
        self._proxy = self._processes.start(command, self._proxy_cpus, self._directory / "log", become=become)
        wait_until((home / "ready").exists, self._proxy, "weft does not become ready")

    def rounds(self, count, seconds, say):
        """All runs, the two ways of a round in an order of its own."""
        ways = {"captured": SERVICE, "explicit": f"127.0.0.1:{EXPLICIT_PORT}"}
        runs = []
        for number in range(count):
            for way in random.Random(number).sample(list(ways), len(ways)):
                runs.append(self._run(number, way, ways[way], seconds))
                last = runs[-1]
                say(f"  {way}: {last.cpu_us_per_request:.1f} us of CPU a request, {last.requests_per_second:,.0f}/s")
        return runs

    def _run(self, number, way, target, seconds):
        command = [self._load, "flood", "--target", target, "--connections", CONNECTIONS]
        command += ["--warm-up-ms", int(WARM_UP_SECONDS * 1000), "--window-ms", int(seconds * 1000)]
        command += ["--watch", f"proxy={self._proxy.pid}"]
        become = enter(self._namespaces.pod)
        lasts = WARM_UP_SECONDS + seconds
        report = run_load(self._processes, command, self._load_cpus, self._directory, lasts, become)
        if report["errors"]:
            raise Failure(f"wrong answers, {way}: {report['errors_text']}")
        served = report["served_by"]
        check_split(served["v2"], sum(served.values()))
        cpu = report["cpu_ns"]["proxy"] / 1000 / max(report["requests"], 1)
        return Run(number, way, cpu, report["requests_per_second"])


def compare(runs):
    """CPU per request, captured to explicit, paired round by round."""

    def of(way):
        return {run.round: run.cpu_us_per_request for run in runs if run.way == way}

    return ratios(of("captured"), of("explicit"))


def rows(runs):
    """The table: medians of each way."""
    table = [("HTTP", "CPU us/request", "requests/s")]
    for way in ("explicit", "captured"):
        mine = [run for run in runs if run.way == way]
        cost = spread([run.cpu_us_per_request for run in mine]).median
        speed = spread([run.requests_per_second for run in mine]).median
        table.append((way, f"{cost:.1f}", f"{speed:,.0f}"))
    return table


def verdicts(runs):
    """What is asked of weft: (what, found, limit, whether it holds)."""
    ratio = compare(runs)
    found = f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.greatest:.2f})"
    return [("captured HTTP to explicit: CPU per request", found, f"at most {CPU_MAX}", ratio.median <= CPU_MAX)]
