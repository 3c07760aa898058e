"""`filegrid bench`, over a simulated grid."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from unittest import mock

from filegrid.client.grid import GridClient
from filegrid.client.stat import Stat
from filegrid.errors import Unavailable
from tests.cli.test_files import CommandCase

SMALL = ("bench", "--mib", 1, "--reads", 5, "--files", 6, "--in-flight", 3)


class BenchTests(CommandCase):
    def left(self) -> object:
        return json.loads(self.do("ls", "/", "--json"))

    def test_figures(self) -> None:
        """Every kind of work has its figures, and nothing is left of it."""
        figures = json.loads(self.do(*SMALL, "--json"))
        self.assertEqual(
            list(figures),
            [
                "put",
                "get",
                "random read of 64 KiB",
                "write of 4 KiB",
                "read of 4 KiB",
                "create",
                "stat",
                "list",
                "rename",
                "remove",
            ],
        )
        self.assertGreater(figures["put"]["mib_per_second"], 0)
        self.assertGreater(figures["get"]["seconds"], figures["get"]["first_byte_seconds"])
        for name, operations in (("random read of 64 KiB", 5), ("create", 6), ("remove", 6)):
            found = figures[name]
            latency = found["latency_seconds"]
            self.assertEqual(found["operations"], operations)
            self.assertLessEqual(latency["p50"], latency["p99"])
        self.assertEqual(figures["list"]["entries"], 13)
        self.assertEqual(self.left(), [])

    def test_lines(self) -> None:
        """People get a line for each kind of work."""
        lines = self.do(*SMALL).splitlines()
        self.assertEqual(len(lines), 10)
        self.assertIn("MiB/s", lines[0])
        self.assertIn("3 in flight", lines[3])

    def test_failure(self) -> None:
        """Where an operation fails the command says so, and leaves nothing behind either."""

        def away(client: GridClient, path: str = "/") -> AsyncIterator[Stat]:
            raise Unavailable("no head leads", path)

        with mock.patch.object(GridClient, "listdir", away):
            code, out, err = self.result(*SMALL, "--json")
        self.assertEqual((code, out, err.count("\n")), (5, b"", 1))
        self.assertEqual(self.left(), [])
