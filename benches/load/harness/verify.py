"""Whether a proxy applies the rules: asked before each measurement, for one that does less work is no peer.

The backend puts its version and the path it saw (or, with `echo=NAME`, the value of a request header) at the
start of the body; the proxy names the rule in `x-served-by`.
"""

import contextlib
import http.client
import json
import subprocess

from .peers import HTTP2
from .processes import Failure

HOST = "catalog.shop:8000"
BODY_BYTES = 128
TIMEOUT_SECONDS = 5
SPLIT_REQUESTS = 500
V2_SHARE = 0.1
DEVIATIONS_MAX = 6

# What is asked (path, headers) and who must answer: the rule, and the version behind it.
RULES = [
    ("/items/7", {"x-user": "tester"}, "header", "v2"),
    ("/items/7", {"x-user": "testers"}, "split", None),
    ("/items?beta=1", {}, "query", "v2"),
    ("/items?beta=10", {}, "split", None),
    ("/v2/items/7", {}, "regex", "v1"),
    ("/x/v2/items/7", {}, "split", None),
    ("/admin/users", {}, "prefix", "v2"),
    ("/items/admin", {}, "split", None),
    ("/admin/users?beta=1", {"x-user": "tester"}, "header", "v2"),
    ("/v2/items/7?beta=1", {}, "query", "v2"),
    ("/items/7", {}, "split", None),
]


class Client:
    """One keep-alive connection to a proxy, over HTTP/1.1."""

    def __init__(self, port):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)

    def get(self, path, headers=None):
        """Status, `x-served-by`, and the body's words."""
        self._connection.request("GET", path, headers={"Host": HOST, **(headers or {})})
        response = self._connection.getresponse()
        body = response.read().decode("latin-1")
        return _answer(path, headers, str(response.status), response.headers.get("x-served-by"), body)

    def close(self):
        self._connection.close()


class Http2Client:
    """The same over HTTP/2 with prior knowledge, by the load program, which can read header blocks."""

    def __init__(self, port, processes, load, cpus, log):
        self._processes = processes
        command = [load, "ask", "--target", f"127.0.0.1:{port}"]
        self._process = processes.start(command, cpus, log, subprocess.PIPE, subprocess.PIPE)

    def get(self, path, headers=None):
        """Status, `x-served-by`, and the body's words."""
        question = {"path": path, "headers": {":authority": HOST, **(headers or {})}}
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write((json.dumps(question) + "\n").encode())
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise OSError(f"no answer over HTTP/2 to GET {path}")
        answer = json.loads(line)
        found = answer["headers"]
        return _answer(path, headers, found[":status"], found.get("x-served-by"), answer["body"])

    def close(self):
        self._processes.stop(self._process)


def _answer(path, headers, status, served_by, body):
    if status != "200" or len(body) != BODY_BYTES:
        raise Failure(f"GET {path} {headers or ''} was answered {status} with {len(body)} bytes")
    words = body.rstrip("\n").rstrip(".").split(" ")
    return served_by, words[0], words[1]


def verify(peer, http2=None):
    """Checks one peer; returns what was found in words, raises `Failure` with what is wrong. `http2` makes a client of
    that version for a port."""
    client = http2(peer.port) if peer.wire.downstream == HTTP2 else Client(peer.port)
    try:
        return _verify_rules(client) if peer.routes else _verify_floor(client)
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"it did not answer: {error!r}") from error
    finally:
        client.close()


def _verify_floor(client):
    served_by, version, path = client.get("/items/7")
    if (served_by, version, path) != (None, "v1", "/items/7"):
        raise Failure(f"the floor must forward to v1 and change nothing, not {(served_by, version, path)}")
    return "forwards to v1"


def _verify_rules(client):
    for path, headers, rule, version in RULES:
        asked = f"GET {path} {headers or ''}".strip()
        served_by, answered, arrived = client.get(path, headers)
        expected = {rule} if rule != "split" else {"v1", "v2"}
        if served_by not in expected:
            raise Failure(f"{asked} must be answered by rule {rule}, but x-served-by is {served_by}")
        if answered != (version or served_by):
            raise Failure(f"{asked}: x-served-by is {served_by}, but backend {answered} answered")
        if arrived != path:
            raise Failure(f"{asked} arrived as {arrived}")
    _verify_headers(client)
    v2 = sum(client.get("/items/7")[0] == "v2" for _ in range(SPLIT_REQUESTS))
    check_split(v2, SPLIT_REQUESTS)
    return f"{len(RULES)} rule checks right, split {SPLIT_REQUESTS - v2}/{v2}, request headers right"


def _verify_headers(client):
    def arrived(name):
        return client.get(f"/items/7?echo={name}")[2]

    first, second = arrived("x-request-id"), arrived("x-request-id")
    if len(first) < 16 or first == second:
        raise Failure(f"each request must get an x-request-id of its own, not {first!r} and {second!r}")
    for name, value in [("host", HOST), ("x-forwarded-proto", "http")]:
        if arrived(name) != value:
            raise Failure(f"{name} must arrive as {value}, not {arrived(name)!r}")


def check_split(v2, total):
    """Fails if `v2` of `total` cannot be a tenth drawn at random: beyond six standard deviations."""
    deviation = (total * V2_SHARE * (1 - V2_SHARE)) ** 0.5
    if abs(v2 - total * V2_SHARE) > DEVIATIONS_MAX * deviation:
        raise Failure(f"the split must be 90/10, but {v2} of {total} requests went to v2")
