"""What really lies on the simulated disks, and what the heads believe to need."""

from __future__ import annotations

from filegrid.chunk.service import ChunkServer
from filegrid.chunk.store import Store
from filegrid.head.service import Head
from filegrid.head.view import ChunkRecord
from filegrid.model import ChunkId
from filegrid.simulation.grid import Machine, SimulatedGrid

MOST_CHUNKS = 100_000


def stored_chunks(machine: Machine) -> set[ChunkId]:
    """What lies whole on a server's disk, whether it runs or not."""
    if isinstance(machine.node, ChunkServer):
        return set(machine.node._store.ids())
    machine.disk.heal()
    store = Store(machine.disk, "/data", grid_id=machine.identity.grid_id)
    return {chunk.id for chunk in store.load()}  # as the node itself will do at its start


def where_stored(grid: SimulatedGrid) -> dict[ChunkId, set[str]]:
    """The servers on whose disks each chunk lies."""
    found: dict[ChunkId, set[str]] = {}
    for machine in grid.chunk_servers:
        for chunk_id in stored_chunks(machine):
            found.setdefault(chunk_id, set()).add(machine.name)
    return found


def named_chunks(grid: SimulatedGrid) -> list[ChunkRecord] | None:
    """What committed files refer to, as the leader has it; None while nobody leads."""
    leader = grid.leader()
    if leader is None or not isinstance(leader.node, Head):
        return None
    return leader.node._namespace.chunks_after(b"", MOST_CHUNKS)
