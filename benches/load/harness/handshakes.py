"""What a full handshake of mutual TLS costs a server: a client that shows its certificate, one request, and the end."""

import json
import pathlib
import sys
from dataclasses import asdict, dataclass

from .certificates import SERVER as SERVER_ACCOUNT
from .figures import ratios, spread
from .mutual import CLIENT, SERVER, Spoken
from .processes import Failure
from .secured import verify_server

# What is asked: handshakes of weft in a second of its CPU to those of Envoy.
RATIO_MIN = 1.0
WARM_UP_SECONDS = 0.5
RUN_SECONDS_OVER = 20
LOAD = pathlib.Path(__file__).resolve().parents[1]
# All proxies agree upon the same with the client, whichever of what it offers each of them likes best.
OPENSSL = """\
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = offered
[offered]
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
"""


@dataclass
class Run:
    """One run of the client."""

    round: int
    peer: str
    handshakes: int
    per_second: float
    per_core_second: float
    agreed: list  # pairs of a version and a cipher

    def as_dict(self):
        """For JSON."""
        return asdict(self)


class HandshakesBench:
    """The servers, and the client beside the backend."""

    def __init__(self, ground, cpus, directory, seconds):
        self._ground = ground
        self._proxy_cpus, self._load_cpus = cpus
        self._directory = directory
        self._seconds = seconds
        self._settings = directory / "openssl.cnf"
        self._settings.write_text(OPENSSL)

    def start(self, end, backend):
        """Starts one, and makes sure what it is."""
        end.start(self._ground, self._proxy_cpus, self._directory / end.name, backend.port, Spoken())
        verify_server(end.port, self._ground.identities[CLIENT], self._ground.identities[SERVER])

    def run(self, number, end):
        """One run; fails if one handshake did, or if the server has counted others."""
        command = [sys.executable, "-B", "-m", "harness.handshaker", "--port", end.port]
        command += ["--identity", self._ground.identities[CLIENT].directory, "--server", SERVER_ACCOUNT]
        command += ["--warm-up-seconds", WARM_UP_SECONDS, "--window-seconds", self._seconds]
        command += ["--watch", ",".join(map(str, end.pids()))]
        log = self._directory / "handshaker.log"
        lasts = WARM_UP_SECONDS + self._seconds + RUN_SECONDS_OVER
        before = end.handshakes()
        environment = {"PYTHONPATH": str(LOAD), "OPENSSL_CONF": str(self._settings)}
        out = self._ground.processes.output(command, self._load_cpus, log, lasts, environment=environment)
        if not out.strip():
            raise Failure(f"the client failed: {log.read_text(errors='replace').strip()[-500:]}")
        counted = end.handshakes() - before
        return read(json.loads(out), number, end.name, counted)


def read(told, number, name, counted):
    """A run from what the client told and the server counted over a longer time."""
    if told["problem"]:
        raise Failure(f"a handshake failed: {told['problem']}")
    done, cpu = told["handshakes"], told["cpu_seconds"]
    if not done or not cpu:
        raise Failure("no handshake was made")
    if counted < done:
        raise Failure(f"{done:,} handshakes were made, of which the server has counted {counted:,}")
    return Run(number, name, done, done / told["seconds"], done / cpu, told["agreed"])


def compare(runs):
    """Handshakes in a second of CPU, weft's to Envoy's, paired round by round; nothing without both."""

    def of(peer):
        return {run.round: run.per_core_second for run in runs if run.peer == peer}

    return ratios(of("weft"), of("envoy"))


def rows(runs):
    """The table: medians of each."""
    table = [("full handshakes", "per core-second", "CPU us each", "per second", "agreed upon")]
    for peer in dict.fromkeys(run.peer for run in runs):
        mine = [run for run in runs if run.peer == peer]
        cost = spread([run.per_core_second for run in mine])
        speed = spread([run.per_second for run in mine]).median
        told = f"{cost.median:,.0f} ({cost.least:,.0f} to {cost.greatest:,.0f})"
        agreed = {" ".join(pair) for run in mine for pair in run.agreed}
        table.append((peer, told, f"{1e6 / cost.median:.0f}", f"{speed:,.0f}", ", ".join(sorted(agreed))))
    return table


def verdicts(runs):
    """What is asked of weft: (what, found, limit, whether it holds)."""
    ratio = compare(runs)
    if not ratio:
        return []
    found = f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.greatest:.2f})"
    what = "full handshakes per core-second, times Envoy"
    return [(what, found, f"at least {RATIO_MIN:g}", ratio.median >= RATIO_MIN)]
