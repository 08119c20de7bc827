"""Whom the comparison measures, and how each is started: one worker, configured by the files in ../peers."""

import grp
import json
import os
import pathlib
import pwd
import re
import subprocess
from dataclasses import dataclass

from .processes import Failure, accepts, free_port, tree, wait_until
from .tools import version

TEMPLATES = pathlib.Path(__file__).resolve().parents[1] / "peers"
V1_ADDRESS, V2_ADDRESS = "127.0.0.2", "127.0.0.3"
HTTP1, HTTP2 = "HTTP/1.1", "HTTP/2"

# What istiod gives the cluster of a port named http2 or grpc.
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ENVOY_HTTP2 = {
    _OPTIONS: {
        "@type": f"type.googleapis.com/{_OPTIONS}",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}


@dataclass(frozen=True)
class Wire:
    """What is spoken with a proxy: downstream by the clients, upstream by the backend."""

    downstream: str = HTTP1
    upstream: str = HTTP1
    connections: int = 1024  # the most of both sides together, where a proxy wants to know


VERSIONS = {"v1": V1_ADDRESS, "v2": V2_ADDRESS}


class Backend:
    """The backend: one process, a version of the service on each of two addresses. It speaks both versions of HTTP."""

    def __init__(self, processes, load, cpus, directory, streams_max=100, versions=VERSIONS):
        command = [load, "backend", "--streams-max", streams_max]
        for label, address in versions.items():
            command += ["--version", f"{label}={address}"]
        self.process, listening = start_announcing(processes, command, cpus, directory / "backend.log")
        self.port = int(listening[0].rpartition(":")[2])


class Peer:
    """One proxy under measurement. `start` raises `Failure` if it does not come up."""

    routes = True  # it applies the rules
    arguments = ()  # more of them, where a script was given some

    def __init__(self, name, program, say_version):
        self.name = name
        self.program = program
        self.version = version(program, say_version) if say_version else ""
        self.process = None
        self.port = None
        self.wire = Wire()

    def start(self, processes, backend, cpus, directory, wire):
        """Starts it to speak what `wire` says; returns when it accepts."""
        self.wire = wire
        self.port = free_port()
        home = directory / self.name
        home.mkdir(exist_ok=True)
        log = home / "log"
        self.process = processes.start(self._command(backend, home), cpus, log)
        self._wait(home)
        wait_until(lambda: accepts(self.port), self.process, f"{self.name} does not accept connections")

    def pids(self):
        """Its processes."""
        return tree(self.process.pid)

    def beside(self):
        """Processes that serve it alone, and whose time is the load's."""
        return []

    def _command(self, backend, home):
        raise NotImplementedError

    def _wait(self, home):
        """Waits for what comes before it accepts."""

    def _wire_words(self):
        """The words of its configuration that depend on what is spoken."""
        return {}

    def _fill(self, template, backend, home):
        """Writes its configuration."""
        words = {
            "PORT": self.port,
            "ADMIN_PORT": free_port(),
            "DIRECTORY": home,
            "USER": pwd.getpwuid(os.geteuid()).pw_name,
            "GROUP": grp.getgrgid(os.getegid()).gr_name,
            "V1": f"{V1_ADDRESS}:{backend.port}",
            "V2": f"{V2_ADDRESS}:{backend.port}",
            "V1_ADDRESS": V1_ADDRESS,
            "V2_ADDRESS": V2_ADDRESS,
            "BACKEND_PORT": backend.port,
            "CONNECTIONS": self.wire.connections,
            "CLIENTS": self.wire.connections // 2,
            **self._wire_words(),
        }
        filled = home / template
        filled.write_text(fill((TEMPLATES / template).read_text(), words))
        return filled


class Floor(Peer):
    """The limit: bytes forwarded unread, so no rule is applied and all goes to v1."""

    routes = False

    def start(self, processes, backend, cpus, directory, wire):
        self.wire = wire
        command = [self.program, "floor", "--target", f"{V1_ADDRESS}:{backend.port}"]
        self.process, listening = start_announcing(processes, command, cpus, directory / "floor.log")
        self.port = int(listening[0].rpartition(":")[2])


class Nginx(Peer):
    def _command(self, backend, home):
        return [self.program, "-p", home, "-c", self._fill("nginx.conf", backend, home)]

    def _wire_words(self):
        module, scheme = ("grpc", "grpc") if self.wire.upstream == HTTP2 else ("proxy", "http")
        downstream = "http2" if self.wire.downstream == HTTP2 else ""
        return {"DOWNSTREAM": downstream, "UPSTREAM": module, "UPSTREAM_SCHEME": scheme}


class HAProxy(Peer):
    def _command(self, backend, home):
        return [self.program, "-db", "-f", self._fill("haproxy.cfg", backend, home)]

    def _wire_words(self):
        sides = {"DOWNSTREAM": self.wire.downstream, "UPSTREAM": self.wire.upstream}
        return {side: "proto h2" if spoken == HTTP2 else "" for side, spoken in sides.items()}


class Envoy(Peer):
    def _command(self, backend, home):
        configuration = self._fill("envoy.yaml", backend, home)
        limits = ["--concurrency", 1, "--disable-hot-restart", "--log-level", "warn"]
        return [self.program, "-c", configuration, *limits]

    def _wire_words(self):
        return {"UPSTREAM_OPTIONS": json.dumps(ENVOY_HTTP2 if self.wire.upstream == HTTP2 else {})}


class Weft(Peer):
    def __init__(self, name, program, say_version, arguments):
        super().__init__(name, program, say_version)
        self.arguments = arguments

    def _command(self, backend, home):
        mesh = home / "mesh"
        mesh.mkdir(exist_ok=True)
        self._fill("weft.yaml", backend, home).replace(mesh / "weft.yaml")
        (home / "ready.json").unlink(missing_ok=True)
        listen = f"127.0.0.1:{self.port}=catalog.shop:8000"
        command = [
            self.program,
            "run",
            "--config",
            mesh,
            "--as",
            "web-1.shop",
            "--listen",
            listen,
            "--workers",
            1,
        ]
        return [*command, "--admin", "127.0.0.1:0", "--ready-file", home / "ready.json", *self.arguments]

    def _wire_words(self):
        return {"PORT_NAME": "http2" if self.wire.upstream == HTTP2 else "http"}

    def _wait(self, home):
        # What the file says is weft's matter; here it only has to be there, for the port is known.
        wait_until((home / "ready.json").exists, self.process, f"{self.name} does not become ready")


def find(name, tools, weft, weft_arguments):
    """The peer of that name, its program found. Raises `Failure` if it cannot be had."""
    match name:
        case "floor":
            return Floor(name, tools.load(), [])
        case "nginx":
            return Nginx(name, tools.debian("nginx"), ["-v"])
        case "haproxy":
            return HAProxy(name, tools.debian("haproxy"), ["-v"])
        case "envoy":
            return Envoy(name, tools.envoy(), ["--version"])
        case "weft":
            return Weft(name, tools.weft(weft), ["--version"], weft_arguments)
    raise Failure(f"nobody here is called {name!r}; known are {', '.join(NAMES)}")


NAMES = ["floor", "nginx", "haproxy", "envoy", "weft"]


def fill(template, words):
    """The template with each @WORD@ replaced; one without a value is an error."""

    def value(found):
        if found[1] not in words:
            raise Failure(f"the template asks for {found[0]}, which has no value")
        return str(words[found[1]])

    return re.sub(r"@([A-Z][A-Z0-9_]*)@", value, template)


def start_announcing(processes, command, cpus, log, become=None):
    """Starts a part of `load` that tells on its first line what it bound."""
    process = processes.start(command, cpus, log, stdout=subprocess.PIPE, become=become)
    line = process.stdout.readline()
    if not line:
        wait_until(lambda: False, process, f"{command[1]} does not start")
    return process, json.loads(line)["listening"]
