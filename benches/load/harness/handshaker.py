"""A client that makes handshakes and nothing else: a connection, a full handshake with its certificate, one request, the end;
again and again, several at once. A process of its own, beside the load: `python3 -m harness.handshaker --help`.

It reads the proxy's CPU time when its window opens and closes, as the load does. A client in Python is slower than any
proxy; how many handshakes the proxy makes in a second of its CPU is known all the same.
"""

import argparse
import json
import pathlib
import random
import sys
import threading
import time

from .certificates import Identity, identity_uri
from .processes import cpu_seconds
from .secured import ANSWERED, ask_once, connect, context

# Numbers of connections, which have different sources (see `wire.connect`): a port is not used again at once.
NUMBERS = 200_000


class Thread(threading.Thread):
    """One connection after the other until it is told to end."""

    def __init__(self, made, port, server):
        super().__init__(daemon=True)
        self.done = 0
        self.agreed = set()
        self.problem = None
        self.over = False
        self._made, self._port, self._server = made, port, server
        self._number = random.randrange(NUMBERS)

    def run(self):
        while not self.over and not self.problem:
            try:
                self._once()
            except Exception as problem:  # whatever it is, the run is worth nothing
                self.problem = repr(problem)

    def _once(self):
        self._number = (self._number + 1) % NUMBERS
        with connect(self._made, self._port, self._server, self._number) as connection:
            if connection.session_reused:
                raise OSError("a session was resumed")
            self.agreed.add((connection.version(), connection.cipher()[0]))
            if not ask_once(connection).startswith(ANSWERED):
                raise OSError("a request was not answered")
        self.done += 1


def arguments():
    parser = argparse.ArgumentParser(prog="handshaker", description="Makes full handshakes of mutual TLS.")
    add = parser.add_argument
    add("--port", type=int, required=True, help="of the server, on loopback")
    add("--identity", type=pathlib.Path, required=True, help="directory of the identity that is shown")
    add("--server", required=True, help="service account that the server must be")
    add("--at-once", type=int, default=8, help="how many connections (8)")
    add("--warm-up-seconds", type=float, default=0.5)
    add("--window-seconds", type=float, default=3.0)
    add("--watch", required=True, help="processes of the proxy, as PID,PID")
    return parser.parse_args()


def main():
    options = arguments()
    client, server = Identity(options.identity, ""), Identity(options.identity, identity_uri(options.server))
    watched = [int(pid) for pid in options.watch.split(",")]
    made = context(client, server)
    threads = [Thread(made, options.port, server) for _ in range(options.at_once)]
    for thread in threads:
        thread.start()

    def now():
        return time.monotonic(), sum(thread.done for thread in threads), cpu_seconds(watched)

    time.sleep(options.warm_up_seconds)
    before = now()
    time.sleep(options.window_seconds)
    seconds, done, cpu = (late - early for early, late in zip(before, now(), strict=True))
    for thread in threads:
        thread.over = True
    for thread in threads:
        thread.join()
    agreed = sorted(set().union(*(thread.agreed for thread in threads)))
    problem = next((thread.problem for thread in threads if thread.problem), None)
    found = {"handshakes": done, "seconds": seconds, "cpu_seconds": cpu, "agreed": agreed, "problem": problem}
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
