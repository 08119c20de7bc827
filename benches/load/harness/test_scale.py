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
        self.assertEqual(files["ns-000.yaml"].count("port: 4711\n"), 1)

    def test_a_change_replaces_one_file(self):
        directory, before = self.write(mesh.Mesh(2, routed=2))
        mesh.change(directory, 1, 7)
        after = {file.name: file.read_text() for file in directory.iterdir()}
        self.assertEqual({name for name in after if after[name] != before.get(name)}, {"virtual-service-00001.yaml"})
        self.assertIn('x-turn: "7"', after["virtual-service-00001.yaml"])


class Log(unittest.TestCase):
    def test_generations_are_found_in_colour(self):
        line = "\x1b[2mnow\x1b[0m INFO configuration published; so \x1b[3mgeneration\x1b[0m=2 read_ms=0.5\nother read_ms=9\n"
        log = types.SimpleNamespace(read_text=lambda errors: line)
        proxy = types.SimpleNamespace(process=types.SimpleNamespace(log=log))
        self.assertEqual(scale.Proxy.published(proxy), [{"generation": 2.0, "read_ms": 0.5}])


if __name__ == "__main__":
    unittest.main()
