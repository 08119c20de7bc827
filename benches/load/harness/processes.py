"""Processes of the measurements: started pinned, watched, and ended by id, whatever happens.

Each is a child of this one, in a session of its own (so Ctrl-C reaches only this process, which then ends
them), and is killed by the kernel should this process itself be killed; only a worker that nginx forked would
then remain. What it leaves behind when it ends, such as the workers of a killed nginx, is killed with its session.
"""

import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1
STOP_SECONDS_MAX = 5
POLL_SECONDS = 0.02
LOG_TAIL_BYTES = 2000

_libc = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """Something the user must know about, in words."""


class Processes:
    """Everything that was started and may still run."""

    def __init__(self):
        self._running = []
        # How nice those that are started from now on are; below 0 they go before all else, which root may ask for.
        self.niceness = 0

    def start(
        self, command, cpus, log, stdout=None, stdin=subprocess.DEVNULL, become=None, environment=None
    ):
        """Starts a command on the given CPUs; what it says goes to `log`, or to `stdout` if given. `become` is called in
        the child, last before its program; `environment` is what it has besides that of this process."""
        with open(log, "ab") as out:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=stdin,
                stdout=stdout if stdout is not None else out,
                stderr=out,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=lambda: _become(cpus, self.niceness, become),
            )
        process.log = pathlib.Path(log)
        self._running.append(process)
        return process

    def output(self, command, cpus, log, seconds, become=None, environment=None):
        """Starts a command that ends by itself within this time; returns what it says. It is ended in any case."""
        process = self.start(
            command, cpus, log, stdout=subprocess.PIPE, become=become, environment=environment
        )
        try:
            return process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            raise Failure(f"{pathlib.Path(command[0]).name} did not end within {seconds:g} s") from None
        finally:
            self.stop(process)

    def stop(self, process):
        """Ends one: asks, waits, then kills."""
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        if process in self._running:
            self._running.remove(process)

    def stop_all(self):
        """Ends all, the last started first."""
        for process in reversed(list(self._running)):
            self.stop(process)


def _become(cpus, niceness, become):
    """Runs in the child before its program."""
    os.sched_setaffinity(0, cpus)
    os.setpriority(os.PRIO_PROCESS, 0, niceness)
    # The scheduler may share time between sessions first, each of which has a niceness of its own; this is a new one.
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/autogroup").write_text(str(niceness))
    if become:
        become()
    # Last, for a change of the user takes it back.
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port():
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, process, what, seconds=30, every=POLL_SECONDS):
    """Waits for a condition, looking so often; fails if the process ends first or it takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            raise Failure(f"{what}: it ended with status {process.returncode}{log_tail(process)}")
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {seconds} s{log_tail(process)}")
        time.sleep(every)


def accepts(port):
    """Whether a loopback port takes connections."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def log_tail(process):
    """The end of what a process said, to follow a message."""
    try:
        text = process.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
    except OSError:
        return ""
    return f"; it said:\n{text}" if text else ", and said nothing"


def tree(pid):
    """A process and its descendants."""
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue  # ended meanwhile
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo.extend(children.get(found[-1], []))
    return found


def memory_kb(pids, sizes=("VmRSS", "VmHWM")):
    """Resident memory now and at its peak, or other sizes that the kernel tells, summed over processes (what they share
    counts for each)."""
    sums = dict.fromkeys(sizes, 0)
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in sums:
                sums[name] += int(value.split()[0])
    return tuple(sums.values())


def cpu_seconds(pids):
    """CPU time processes have used, as precise as the kernel tells."""
    total = 0
    for pid in pids:
        for thread in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError, IndexError):  # the thread may have ended
                total += int(thread.read_text().split()[0])
    return total / 1e9


def idle_seconds(cpus):
    """Time these CPUs have been idle, summed."""
    ticks = 0
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
            ticks += int(fields[3]) + int(fields[4])
    return ticks / os.sysconf("SC_CLK_TCK")
