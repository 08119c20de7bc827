"""Tests of what a proxy is asked before it is measured. A scripted server stands for a proxy."""

import http.server
import os
import pathlib
import random
import re
import sys
import tempfile
import threading
import unittest
from unittest import mock

from . import verify
from .peers import HTTP2, Wire
from .processes import Failure, Processes

# A stand-in for `load ask`: asks over HTTP/1.1 what it is to ask over HTTP/2.
STAND_IN = """#!{python}
import http.client, json, sys
assert sys.argv[1:3] == ["ask", "--target"], sys.argv
connection = http.client.HTTPConnection(sys.argv[3])
for line in sys.stdin:
    question = json.loads(line)
    headers = dict(question["headers"], Host=question["headers"].pop(":authority"))
    connection.request("GET", question["path"], headers=headers)
    answer = connection.getresponse()
    headers = {{name.lower(): value for name, value in answer.headers.items()}}
    headers[":status"] = str(answer.status)
    print(json.dumps({{"headers": headers, "body": answer.read().decode()}}), flush=True)
"""


def scripted(change):
    """A proxy and backend in one that applies the rules, after `change` had its say: it may return other
    (path, headers, rule, version, request id) than it got."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits for a delayed acknowledgement

        def do_GET(self):
            asked, _, query = self.path.partition("?")
            drawn = "v2" if random.random() < 0.1 else "v1"
            if self.headers.get("x-user") == "tester":
                rule, version = "header", "v2"
            elif query == "beta=1":
                rule, version = "query", "v2"
            elif re.fullmatch("/v[0-9]+/items/.*", asked):
                rule, version = "regex", "v1"
            elif asked.startswith("/admin"):
                rule, version = "prefix", "v2"
            else:
                rule, version = drawn, drawn
            sent = {
                "x-request-id": f"{random.getrandbits(128):032x}",
                "host": self.headers["Host"],
                "x-forwarded-proto": "http",
            }
            answer = {"path": self.path, "rule": rule, "version": version, "sent": sent, "status": 200}
            change(answer)
            _, echo, name = answer["path"].partition("echo=")
            said = answer["sent"].get(name, "") if echo else answer["path"]
            body = f"{answer['version']} {said} ".ljust(127, ".").encode() + b"\n"
            self.send_response(answer["status"])
            self.send_header("x-served-by", answer["rule"])
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)


class Verification(unittest.TestCase):
    def check(self, change, problem=None, wire=Wire(), http2=None):
        server = scripted(change)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        peer = mock.Mock(port=server.server_address[1], routes=True, wire=wire)
        if problem is None:
            self.assertIn("right", verify.verify(peer, http2))
        else:
            with self.assertRaisesRegex(Failure, problem):
                verify.verify(peer, http2)

    def test_a_proxy_that_applies_the_rules_passes(self):
        self.check(lambda answer: None)

    def test_each_fault_is_found(self):
        def swap(**values):
            return lambda answer: answer.update(values)

        def only(applied, **values):
            return lambda answer: answer.update(values) if answer["rule"] == applied else None

        self.check(swap(status=503), "answered 503")
        for rule in ("header", "query", "regex", "prefix"):
            self.check(only(rule, rule="v1", version="v1"), f"must be answered by rule {rule}")
            self.check(only(rule, version="v3"), "backend v3 answered")
        self.check(swap(path="/rewritten"), "arrived as /rewritten")
        self.check(only("v2", rule="v1", version="v1"), "must be 90/10")
        self.check(lambda answer: answer["sent"].pop("x-request-id"), "x-request-id")
        self.check(lambda answer: answer["sent"].update({"x-request-id": "0" * 32}), "x-request-id")
        self.check(lambda answer: answer["sent"].update(host="127.0.0.1"), "host must arrive")

    def test_the_split_may_vary_by_chance_only(self):
        for v2, total in [(50, 500), (89, 500), (11, 500), (10_000, 100_000), (10_500, 100_000)]:
            verify.check_split(v2, total)
        for v2, total in [(0, 500), (100, 500), (9_000, 100_000), (50_000, 100_000)]:
            with self.assertRaises(Failure):
                verify.check_split(v2, total)

    def test_over_http2_the_same_is_asked_by_the_load_program(self):
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        load = directory / "load"
        load.write_text(STAND_IN.format(python=sys.executable))
        load.chmod(0o755)
        started = Processes()
        self.addCleanup(started.stop_all)

        def http2(port):
            return verify.Http2Client(port, started, load, os.sched_getaffinity(0), directory / "log")

        wire = Wire(HTTP2, HTTP2)
        self.check(lambda answer: None, None, wire, http2)
        self.assertEqual(started._running, [])
        self.check(lambda answer: answer.update(status=503), "answered 503", wire, http2)
        load.write_text("#!/bin/sh\n")
        self.check(lambda answer: None, "no answer over HTTP/2", wire, http2)
