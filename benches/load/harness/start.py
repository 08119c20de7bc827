"""A sidecar's start and what it holds when it has nothing to do, on a mesh of the user's."""

import statistics
import time
from dataclasses import asdict, dataclass

from .figures import spread
from .namespaces import PROXY_USER, enter
from .processes import memory_kb, wait_until

READY_SECONDS_MAX = 30
LOOK_SECONDS = 0.0005
# Resident memory, and how much of it is of no file.
SIZES = ("VmRSS", "RssAnon")
SETTLE_SECONDS = 5
# Ten seconds: twice as long as until the files are looked at again.
REST_SAMPLES, REST_SAMPLE_SECONDS = 40, 0.25
# What is asked.
READY_MS_MAX, RESIDENT_MB_MAX = 150, 10


@dataclass
class Start:
    """One start."""

    ready_ms: float
    resident_kb: int
    anonymous_kb: int

    def as_dict(self):
        """For JSON."""
        return asdict(self)


def start(processes, weft, cpus, namespaces, directory, mesh, pod):
    """Starts weft as the sidecar of a pod, and lets it settle."""
    directory.mkdir()
    for path in (directory.parent, directory):
        path.chmod(0o777)
    ready = directory / "ready"
    command = [weft, "run", "--config", mesh, "--as", pod, "--mode", "sidecar", "--ready-file", ready]
    command += ["--status-port", 15020, "--health-port", 15021, "--prometheus-port", 15090]
    become = enter(namespaces.pod, PROXY_USER)
    began = time.monotonic()
    process = processes.start(command, cpus, directory / "log", become=become)
    wait_until(ready.exists, process, "weft does not become ready", READY_SECONDS_MAX, every=LOOK_SECONDS)
    ready_ms = (time.monotonic() - began) * 1e3
    time.sleep(SETTLE_SECONDS)
    found = Start(ready_ms, *resting_kb(process.pid))
    processes.stop(process)
    return found


def resting_kb(pid):
    """Sizes of a process that has nothing to do, the middle ones of a while: what it does now and then, such as looking at
    its files, brings pages of the program back for a moment."""
    samples = []
    for _ in range(REST_SAMPLES):
        samples.append(memory_kb([pid], SIZES))
        time.sleep(REST_SAMPLE_SECONDS)
    return [statistics.median_low(sizes) for sizes in zip(*samples, strict=True)]


def rows(starts):
    """The table."""
    return [
        ("a sidecar", "median", "least", "greatest"),
        row("start to ready, ms", [start.ready_ms for start in starts]),
        row("resident when idle, MB", [start.resident_kb / 1024 for start in starts]),
        row("  of it anonymous, MB", [start.anonymous_kb / 1024 for start in starts]),
    ]


def row(what, values):
    """One line of it."""
    found = spread(values)
    return (what, *(f"{value:.1f}" for value in (found.median, found.least, found.greatest)))


def verdicts(starts):
    """What is asked of weft: (what, found, limit, whether it holds)."""
    ready = spread([start.ready_ms for start in starts]).median
    resident = spread([start.resident_kb / 1024 for start in starts]).median
    return [
        ("start to ready, ms", f"{ready:.0f}", f"under {READY_MS_MAX}", ready < READY_MS_MAX),
        ("resident when idle, MB", f"{resident:.1f}", f"at most {RESIDENT_MB_MAX}", resident <= RESIDENT_MB_MAX),
    ]
