"""Tests of the generated mesh and of what is read from weft's log."""

import pathlib
import tempfile
import types
import unittest

from . import mesh, scale


class WrittenMesh(unittest.TestCase):
    def write(self, shape, backend=None):
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        mesh.write(shape, directory, backend)
        return directory, {file.name: file.read_text() for file in directory.iterdir()}

    def test_it_is_as_large_as_asked_and_the_same_each_time(self):
        shape = mesh.Mesh(250, endpoints_each=3, rules=5, routed=4)
        _, files = self.write(shape)
        self.assertEqual(self.write(shape)[1], files)
        text = "".join(files.values())
        for kind, count in {
            "Namespace": 3,
            "Service": 250,
            "EndpointSlice": 250,
            "Pod": shape.endpoints,
            "DestinationRule": 5,
            "VirtualService": 4,
        }.items():
            self.assertEqual(text.count(f"\nkind: {kind}\n"), count, kind)
        self.assertEqual(shape.endpoints, 750)
        self.assertEqual(text.count("    version: v1\n"), 500 + 5)

    def test_the_first_service_is_at_the_backend(self):
        _, files = self.write(mesh.Mesh(2), (("127.0.0.2", "127.0.0.3"), 4711))
        self.assertIn("podIP: 127.0.0.3\n", files["ns-000.yaml"])
        self.assertIn("  port: 4711\n", files["endpoint-slice-00000.yaml"])
        self.assertIn("targetPort: 4711\n", files["service-00000.yaml"])

    def test_a_change_replaces_one_file(self):
        shape = mesh.Mesh(2, rules=1, routed=1)
        for kind, name, says in [
            ("EndpointSlice", "endpoint-slice-00000.yaml", "ready: false"),
            ("DestinationRule", "destination-rule-00000.yaml", "name: v2\n    labels:\n      version: v1"),
            ("Service", "service-00000.yaml", "name: http-other"),
            ("VirtualService", "virtual-service-00000.yaml", 'x-turn: "7"'),
        ]:
            directory, before = self.write(shape)
            mesh.change(shape, directory, kind, 7)
            after = {file.name: file.read_text() for file in directory.iterdir()}
            self.assertEqual({name for name in after if after[name] != before.get(name)}, {name})
            self.assertIn(says, after[name])
            mesh.change(shape, directory, kind, 0)
            self.assertEqual((directory / name).read_text(), before[name])


class Log(unittest.TestCase):
    def test_generations_are_found_in_colour(self):
        line = "\x1b[2mnow\x1b[0m INFO configuration published; so \x1b[3mgeneration\x1b[0m=2 read_ms=0.5\nother read_ms=9\n"
        log = types.SimpleNamespace(read_text=lambda errors: line)
        proxy = types.SimpleNamespace(process=types.SimpleNamespace(log=log))
        self.assertEqual(scale.Proxy.published(proxy), [{"generation": 2.0, "read_ms": 0.5}])


if __name__ == "__main__":
    unittest.main()
