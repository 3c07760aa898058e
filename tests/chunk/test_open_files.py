"""Files kept open for the next short read: bounded, and closed as soon as their chunk has gone."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from filegrid.chunk.inventory import Inventory
from filegrid.chunk.open_files import IDLE_SECONDS, MOST_OPEN, OpenFiles
from filegrid.chunk.service import ChunkServer
from filegrid.chunk.store import ChunkReader
from filegrid.client.content import Content
from filegrid.model import BLOCK_BYTES, Chunk, ChunkId, Digest, SessionId, unique_id
from filegrid.simulation.disk import SimulatedDisk
from tests.grid.case import CHUNK, GridCase, content


def chunk(number: int) -> Chunk:
    chunk_id = ChunkId(unique_id(SessionId(1), number))
    return Chunk(id=chunk_id, length=64, digest=Digest(bytes([number]) * 32))


class Keeping(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.chunks = [chunk(number) for number in range(MOST_OPEN + 2)]
        self.inventory = Inventory(self.chunks)
        self.open_files = OpenFiles(self.clock, self.inventory)

    def keep(self, chunk: Chunk) -> mock.Mock:
        """The file of a reader that is kept."""
        file = mock.Mock(["close"])
        self.open_files.keep(ChunkReader(file, chunk, 0, 0))
        return file

    def test_leaves_the_inventory(self) -> None:
        """What is removed or found damaged is closed at once, and not opened for who comes late."""
        removed, damaged, stays = map(self.keep, self.chunks[:3])
        self.inventory.remove(self.chunks[0].id)
        self.inventory.condemn(self.chunks[1].id)
        for file in (removed, damaged):
            file.close.assert_called_once()
        stays.close.assert_not_called()
        self.inventory.add(chunk(0))  # another under the same id
        self.keep(self.chunks[0]).close.assert_called_once()
        self.assertIsNone(self.open_files.get(self.chunks[0].id))
        self.assertEqual(len(self.open_files), 1)

    def test_bounded(self) -> None:
        """The one that was not read for longest makes room."""
        files = [self.keep(one) for one in self.chunks[:MOST_OPEN]]
        self.open_files.get(self.chunks[0].id)
        self.keep(self.chunks[MOST_OPEN])
        self.assertEqual(len(self.open_files), MOST_OPEN)
        self.assertEqual([file.close.called for file in files[:3]], [False, True, False])

    def test_idle(self) -> None:
        """What nobody reads is closed, what is read stays; in the end no timer is left."""
        self.keep(self.chunks[0])
        self.keep(self.chunks[1])
        for _ in range(4):
            self.clock.advance(IDLE_SECONDS)
            self.open_files.get(self.chunks[0].id)
        self.assertEqual(len(self.open_files), 1)
        self.clock.pump([IDLE_SECONDS] * 3)
        self.assertEqual((len(self.open_files), self.clock.getDelayedCalls()), (0, []))

    def test_closed(self) -> None:
        """After the end nothing stays open, also what comes late."""
        first = self.keep(self.chunks[0])
        self.open_files.close()
        late = self.keep(self.chunks[1])
        self.assertEqual((first.close.called, late.close.called), (True, True))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Reading(GridCase):
    """Through a whole grid, whose clients are on other machines."""

    chunk_servers = 3
    settings = {"trash_seconds": 0, "collection_grace_seconds": 0}

    def setUp(self) -> None:
        super().setUp()
        self.opened: list[str] = []
        real = SimulatedDisk.open

        def open_noted(disk: SimulatedDisk, path: str, **more: bool) -> Any:
            self.opened.append(path)
            return real(disk, path, **more)

        self.patch(SimulatedDisk, "open", open_noted)
        self.data = content(CHUNK)
        self.put("/f", self.data)
        self.file: Content = self.run_(self.client.open_read("/f"))

    def reads(self, times: int = 12) -> int:
        """How many files the servers opened for as many reads of blocks."""
        self.opened.clear()
        for number in range(times):
            offset = number * BLOCK_BYTES % CHUNK
            found = self.run_(self.file.pread(offset, BLOCK_BYTES))
            self.assertEqual(found, self.data[offset : offset + BLOCK_BYTES])
        return len(self.opened)

    def kept_open(self) -> int:
        nodes = [machine.node for machine in self.grid.chunk_servers]
        return sum(len(one._transfers._open_files) for one in nodes if isinstance(one, ChunkServer))

    def test_opened_once(self) -> None:
        """However often blocks of a chunk are read, each of its servers opens it once."""
        self.reads()
        self.assertEqual(self.reads(), 0)
        self.assertGreater(self.kept_open(), 0)

    def test_damaged(self) -> None:
        """Damage in a file that is open is found, and its replica is made anew and read as such."""
        self.reads()
        for machine in self.grid.chunk_servers[:2]:
            assert isinstance(machine.node, ChunkServer)
            (chunk,), _ = machine.node._inventory.page(b"", 9)
            self.assertTrue(machine.rot(chunk, 10))
        self.reads(40)
        self.until_healthy()
        self.grid.advance(10)
        self.reads(40)
        for machine in self.grid.chunk_servers:
            assert isinstance(machine.node, ChunkServer)
            (chunk,), _ = machine.node._inventory.page(b"", 9)
            machine.node._store.verify(chunk)

    def test_removed(self) -> None:
        """A chunk that is collected is not held open."""
        self.reads()
        self.run_(self.client.remove("/f"))
        self.grid.advance(5)
        self.assertEqual((self.all_stored(), self.kept_open()), (set(), 0))
