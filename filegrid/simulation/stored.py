"""What really lies on the simulated disks, and what the heads believe to need."""

from __future__ import annotations

from filegrid.chunk.service import ChunkServer
from filegrid.chunk.store import Store
from filegrid.chunk.volume import Condition
from filegrid.head.service import Head
from filegrid.head.view import ChunkRecord
from filegrid.model import ChunkId
from filegrid.simulation.disk import UNMOUNTED
from filegrid.simulation.grid import Machine, SimulatedGrid

MOST_CHUNKS = 100_000


def stored_chunks(machine: Machine) -> set[ChunkId]:
    """What lies whole on a server's disks, whether it runs or not, and they are mounted or not."""
    away = machine.disk.unmounted
    found = {chunk_id for path in away for chunk_id in _load(machine, UNMOUNTED + path)}
    if isinstance(machine.node, ChunkServer):
        for volume in machine.node._store:
            if volume.path not in away:
                # Of a disk that is back, and that the node has not looked at yet, it knows nothing.
                is_known = volume.last.condition is not Condition.LOST
                found.update(volume.store.ids() if is_known else _load(machine, volume.path))
        return found
    machine.disk.heal()
    return found.union(*(_load(machine, path) for path in machine.folders if path not in away))


def _load(machine: Machine, path: str) -> list[ChunkId]:
    """As the node itself does at its start."""
    if not machine.disk.exists(path):
        return []
    store = Store(machine.disk, path, grid_id=machine.identity.grid_id)
    return [chunk.id for chunk in store.load()]


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
