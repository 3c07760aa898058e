"""Readers on a chunk server's own machine, which read its files themselves."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

from filegrid.chunk.transfers import Transfers
from filegrid.net.link import Link
from filegrid.runtime import Bytes, File, Runtime
from filegrid.simulation.grid import SimulatedGrid
from tests.grid.case import CHUNK, GridCase, content


class Desk:
    """A lending between all machines of the simulation."""

    def __init__(self) -> None:
        self.lent: dict[bytes, File] = {}
        self.borrowed = 0

    def lend(self, file: File) -> tuple[str, bytes]:
        token = len(self.lent).to_bytes(16, "big")
        self.lent[token] = file
        return "desk", token

    def borrow(self, where: str, token: bytes) -> MemoryLess:
        self.borrowed += 1
        return MemoryLess(self.lent.pop(token))


class MemoryLess:
    """A borrowed file, of which nothing is in memory."""

    def __init__(self, file: File) -> None:
        self.pread, self.close = file.pread, file.close

    def pread_cached(self, length: int, offset: int) -> Bytes | None:
        return None


class ShortCircuit(GridCase):
    def setUp(self) -> None:
        self.desk = desk = Desk()
        real = SimulatedGrid.runtime

        def runtime(grid: SimulatedGrid, *rest: object, **more: object) -> Runtime:
            return replace(real(grid, *rest, **more), lending=desk)  # type: ignore[arg-type]

        self.patch(SimulatedGrid, "runtime", runtime)
        self.patch(Link, "is_local", True)
        super().setUp()

    def test_reads_files(self) -> None:
        """All bytes come from the files; each is fetched once, and again much later."""
        data = content(3 * CHUNK)
        self.put("/f", data)
        never = mock.Mock(side_effect=AssertionError("read over the network"))
        with mock.patch.object(Transfers, "_send", never):
            self.assertEqual(self.read("/f"), data)
            self.assertEqual(self.read("/f"), data)
            self.assertEqual(self.desk.borrowed, 3)
            self.grid.advance(60)
            self.assertEqual(self.read("/f"), data)
        self.assertEqual(self.desk.borrowed, 6)

    def test_bad_replicas(self) -> None:
        """A bad replica is found by the reader, another read instead, and it is healed (S21)."""
        data = content(CHUNK)
        self.put("/f", data)
        servers = [replica.server for replica in self.manifest("/f").chunks[0].replicas]
        for server in servers[:2]:
            self.flip("/f", server)
        self.assertEqual(self.read("/f"), data)
        self.grid.advance(30)
        self.assertEqual(self.status().chunks.corrupt, 0)
