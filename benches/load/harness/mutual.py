"""A hop of mutual TLS: the proxies at its two ends, and how it is made sure that it is one.

One end is measured, the other is the same for everyone and runs beside the load. What each end is told is in ../peers; the
certificates are those of ./certificates.py.
"""

import copy
import http.client
import json
import re
from dataclasses import dataclass, replace

from . import certificates
from .peers import ENVOY_HTTP2, HTTP1, HTTP2, TEMPLATES, fill
from .processes import Failure, accepts, free_port, tree, wait_until
from .secured import LOOPBACK, OFFERED, verify_server
from .tools import version
from .verify import TIMEOUT_SECONDS, Client

SERVER, CLIENT = "server", "client"
SIDES = (SERVER, CLIENT)
STREAMS_MAX = 1024
CLUSTER = "outbound|8000||catalog.shop.svc.cluster.local"

# What Istio's proxies speak with each other, in Envoy's words.
TLS_PARAMS = {
    "tls_minimum_protocol_version": "TLSv1_2",
    "tls_maximum_protocol_version": "TLSv1_3",
    "cipher_suites": [
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-GCM-SHA256",
    ],
}


@dataclass(frozen=True)
class Spoken:
    """What is spoken in the hop and behind it; who asks may speak either version. `streams_max` is how many streams the end
    that is not measured allows on a connection of HTTP/2."""

    between: str = HTTP1
    behind: str = HTTP1
    streams_max: int = STREAMS_MAX

    def to(self, side):
        """What the end of that side speaks with whom it asks."""
        return self.between if side == CLIENT else self.behind


class Ground:
    """What every end needs: where processes are started, and the identities of both sides."""

    def __init__(self, processes, openssl, directory):
        self.processes = processes
        home = directory / "identities"
        home.mkdir()
        client, server = certificates.make(openssl, home)
        self.identities = {CLIENT: client, SERVER: server}


class End:
    """A proxy at one end of the hop; `side` says which."""

    name = None

    def __init__(self, program, side, arguments=()):
        self.program = program
        self.side = side
        self.version = version(program, ["--version"])
        self.process = None
        self.port = None
        self._arguments = arguments
        self._admin = None

    def start(self, ground, cpus, home, to_port, spoken):
        """Starts it towards a port of loopback; returns when it accepts."""
        self.port, self._admin = free_port(), free_port()
        home.mkdir()
        identity = ground.identities[self.side]
        words = {
            "PORT": self.port,
            "ADMIN_PORT": self._admin,
            "TO_PORT": to_port,
            "IDENTITY": identity.directory,
            "SERVER_URI": ground.identities[SERVER].uri,
            **self._words(spoken),
        }
        template = f"mtls-{self.side}-{self.name}.yaml"
        filled = home / template
        filled.write_text(fill((TEMPLATES / template).read_text(), words))
        command, environment = self._command(filled, home, identity)
        log = home / "log"
        self.process = ground.processes.start(command, cpus, log, environment=environment)
        self._wait(home)
        wait_until(lambda: accepts(self.port), self.process, f"{self.name} does not accept connections")

    def pids(self):
        """Its processes."""
        return tree(self.process.pid)

    def stop(self, processes):
        """Ends it, if it runs."""
        if self.process:
            processes.stop(self.process)

    def handshakes(self):
        """Handshakes of the hop that it has made, by its own count."""
        raise NotImplementedError

    def _words(self, spoken):
        raise NotImplementedError

    def _command(self, filled, home, identity):
        raise NotImplementedError

    def _wait(self, home):
        """Waits for what comes before it accepts."""

    def _page(self, path):
        return page(self._admin, path)


class EnvoyEnd(End):
    name = "envoy"

    def _command(self, filled, home, identity):
        return [self.program, "-c", filled, "--concurrency", 1, "--disable-hot-restart", "--log-level", "warn"], {}

    def _words(self, spoken):
        to, streams = spoken.to(self.side), {"max_concurrent_streams": spoken.streams_max}
        upstream = copy.deepcopy(ENVOY_HTTP2) if to == HTTP2 else {}
        for options in upstream.values():
            options["explicit_http_config"]["http2_protocol_options"] = streams
        return {
            "TLS_PARAMS": json.dumps(TLS_PARAMS),
            "OFFERED": json.dumps(OFFERED[to]),
            "SERVER_OPTIONS": json.dumps(streams),
            "UPSTREAM_OPTIONS": json.dumps(upstream),
        }

    def handshakes(self):
        return self._tls().get("handshake", 0)

    def connections(self, spoken=None):
        """Connections of the hop: those it has now, or all that ever spoke a version of HTTP."""
        what = "active" if spoken is None else f"http{1 if spoken == HTTP1 else 2}_total"
        name = {SERVER: "http.inbound.downstream_cx", CLIENT: f"cluster.{CLUSTER}.upstream_cx"}[self.side]
        return self._statistics(f"cx_{what}").get(f"{name}_{what}", 0)

    def agreed(self):
        """What both ends have agreed upon: version, cipher and curve of all handshakes."""
        kinds = {"versions": set(), "ciphers": set(), "curves": set()}
        for name, count in self._tls().items():
            kind, _, value = name.partition(".")
            if kind in kinds and count:
                kinds[kind].add(value)
        return ", ".join("/".join(sorted(values)) or "nothing" for values in kinds.values())

    def _tls(self):
        prefix = {SERVER: "listener.", CLIENT: f"cluster.{CLUSTER}."}[self.side]
        found = self._statistics(".ssl.").items()
        return {name.partition(".ssl.")[2]: value for name, value in found if name.startswith(prefix)}

    def _statistics(self, part):
        told = json.loads(self._page(f"/stats?format=json&filter={re.escape(part)}"))["stats"]
        return {one["name"]: one["value"] for one in told if "value" in one}


class WeftEnd(End):
    name = "weft"

    def _command(self, filled, home, identity):
        mesh, ready = home / "mesh", home / "ready.json"
        mesh.mkdir()
        filled.replace(mesh / "weft.yaml")
        command = [self.program, "run", "--config", mesh, "--workers", 1, "--admin", f"{LOOPBACK}:{self._admin}"]
        if self.side == SERVER:
            command += ["--as", "catalog-1.shop", "--mode", "sidecar"]
        else:
            command += ["--as", "web-1.shop", "--listen", f"{LOOPBACK}:{self.port}=catalog.shop:8000"]
        return [*command, "--ready-file", ready, *self._arguments], {"PROV_CERT": str(identity.directory)}

    def _words(self, spoken):
        http2 = spoken.to(self.side) == HTTP2
        return {"PORT_NAME": "http2" if http2 else "http", "PROTOCOL": "HTTP2" if http2 else "HTTP"}

    def _wait(self, home):
        wait_until((home / "ready.json").exists, self.process, f"{self.name} does not become ready")

    def handshakes(self):
        name = {SERVER: "envoy_listener_ssl_handshake", CLIENT: "envoy_cluster_ssl_handshake"}[self.side]
        return sum_of(self._page("/stats/prometheus"), name)


ENDS = {end.name: end for end in (EnvoyEnd, WeftEnd)}


class Hop:
    """A proxy under measurement and the other end of its hop, as the load sees them: the client's port, the proxy's
    processes, and what runs beside the load."""

    routes = False

    def __init__(self, measured, other):
        self.name, self.version = measured.name, measured.version
        self.measured, self.other = measured, other
        ends = {measured.side: measured, other.side: other}
        self.client, self.server = ends[CLIENT], ends[SERVER]

    @property
    def port(self):
        """Where the load asks."""
        return self.client.port

    @property
    def process(self):
        return self.measured.process

    def pids(self):
        """Processes of the proxy that is measured."""
        return self.measured.pids()

    def beside(self):
        """Processes of the other end."""
        return self.other.pids()

    def start(self, ground, backend, cpus, home, spoken):
        """Starts both: the server, then its client."""
        home.mkdir()
        proxy_cpus, load_cpus = cpus
        measured = (proxy_cpus, replace(spoken, streams_max=STREAMS_MAX))
        to_port = backend.port
        for end in (self.server, self.client):
            on, speaks = measured if end is self.measured else (load_cpus, spoken)
            end.start(ground, on, home / end.side, to_port, speaks)
            to_port = end.port

    def stop(self, processes):
        """Ends both."""
        for end in (self.client, self.server):
            end.stop(processes)

    def verify(self, ground, spoken):
        """Makes sure that it is mutual TLS, by which version of HTTP, and that nothing is resumed; returns what was found,
        in words."""
        asking = Client(self.port)
        try:
            arrived = asking.get("/items/7?echo=x-forwarded-client-cert")[2]
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f"it did not answer: {error!r}") from error
        finally:
            asking.close()
        client, server = ground.identities[CLIENT], ground.identities[SERVER]
        wanted = f"By={server.uri};Hash={client.fingerprint()}"
        if not arrived.startswith(wanted):
            raise Failure(f"x-forwarded-client-cert must begin with {wanted}, but it is {arrived!r}")
        for end in (self.client, self.server):
            if not end.handshakes():
                raise Failure(f"{end.name} as the {end.side} has counted no handshake")
        if not self.other.connections(spoken.between):
            raise Failure(f"the hop must speak {spoken.between}")
        agreed = self.other.agreed()
        verify_server(self.server.port, client, server)
        return f"mutual TLS, {agreed}; no plaintext, nobody without a certificate, no session resumed"


def page(port, path):
    """A page of an admin console, as text."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"the admin console does not answer: {error!r}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise Failure(f"GET {path} of the admin console was answered {response.status}")
    return text


def sum_of(text, name):
    """The sum of a metric's series in Prometheus's format."""
    return int(sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))
