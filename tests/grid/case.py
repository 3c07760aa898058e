"""A test case with a whole simulated grid, and some bytes to store in it."""

from __future__ import annotations

import gc
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from filegrid.chunk.service import ChunkServer
from filegrid.client.grid import GridClient
from filegrid.errors import GridError
from filegrid.head.journal import USUAL_SIZES
from filegrid.model import Chunk, Role
from filegrid.protocol.wire import head_pb2
from filegrid.protocol.wire.head_pb2 import ManifestPage, Status
from filegrid.protocol.wire.values_pb2 import Node
from filegrid.simulation.grid import Machine, SimulatedGrid
from filegrid.simulation.stored import stored_chunks

T = TypeVar("T")

CHUNK = 256 * 1024


def content(length: int, seed: int = 1) -> bytes:
    """Bytes of which no two blocks are alike."""
    return random.Random(seed).randbytes(length)


class GridCase(SynchronousTestCase):
    """Each test has a grid of its own, seeded by its name: it is the same at every run."""

    settings: dict[str, int] = {}
    sections: dict[str, Any] = {}
    heads = 1
    health = 0
    chunk_servers = 5
    racks = 3
    disks = 1
    log_sizes = USUAL_SIZES

    def setUp(self) -> None:
        self.grid = SimulatedGrid(
            seed=sum(self.id().encode()),
            heads=self.heads,
            health=self.health,
            chunk_servers=self.chunk_servers,
            racks=self.racks,
            disks=self.disks,
            log_sizes=self.log_sizes,
            sections=self.sections,
            **self.settings,
        )
        self.grid.start()
        self.client = self.new_client("client-1")

    def tearDown(self) -> None:
        self.run_(self.client.close())
        gc.collect()  # so that an error nobody took is this test's, not a later one's

    def new_client(
        self, name: str, timeout_seconds: float = 30.0, role: Role = Role.CLIENT
    ) -> GridClient:
        runtime, identity = self.grid.client_runtime(name, role)
        return GridClient(
            runtime, identity, [*self.grid.head_addresses], timeout_seconds=timeout_seconds
        )

    def run_(self, work: Coroutine[Deferred[Any], Any, T], seconds: float = 120.0) -> T:
        return self.grid.run(work, seconds=seconds)

    def begin(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(work)

    def put(self, path: str, data: bytes, **options: Any) -> None:
        self.run_(self.client.write_bytes(path, data, **options))

    def read(self, path: str) -> bytes:
        return self.run_(self.client.read_bytes(path))

    def status(self) -> Status:
        return self.run_(self.client.access.session.call(head_pb2.GetStatus(), Status))

    def manifest(self, path: str) -> ManifestPage:
        session = self.client.access.session
        node = self.run_(session.call(head_pb2.Stat(path=path), Node))
        request = head_pb2.Manifest(content_id=node.content_id)
        return self.run_(session.call(request, ManifestPage))

    def holders(self, path: str, index: int = 0) -> list[str]:
        return [one.server for one in self.manifest(path).chunks[index].replicas]

    def flip(self, path: str, server: str, index: int = 0, offset: int = 100) -> None:
        """Damage a byte of a replica on its disk."""
        chunk = Chunk.from_wire(self.manifest(path).chunks[index].chunk)
        machine = self.grid.machine(server)
        assert isinstance(machine.node, ChunkServer)
        (place,) = machine.node._store.locate([chunk])
        assert not isinstance(place, GridError), place
        file, start = place
        machine.disk.flip_bits(str(Path("/data") / file), start + offset)

    def stored_chunks(self, machine: Machine) -> set[str]:
        """The ids of what lies on a server's disk, whether it runs or not."""
        return {chunk_id.hex() for chunk_id in stored_chunks(machine)}

    def all_stored(self) -> set[str]:
        return set().union(*(self.stored_chunks(one) for one in self.grid.chunk_servers))

    def until_healthy(self, seconds: float = 60.0) -> float:
        """Let time pass until every chunk has its replicas; how long it took."""
        begun = self.grid.clock.seconds()
        while True:
            counts = self.status().chunks
            if counts.healthy == counts.total and not counts.repairing:
                return self.grid.clock.seconds() - begun
            if self.grid.clock.seconds() - begun > seconds:
                self.fail(f"not healthy after {seconds} s: {counts}")
            self.grid.advance(0.5)
