"""Of too many replicas it is not a good one that goes while a bad one stays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from filegrid.chunk.service import ChunkServer
from filegrid.errors import GridError
from filegrid.simulation.checkers.checker import Checker
from filegrid.simulation.stored import named_chunks, where_stored

if TYPE_CHECKING:
    from filegrid.model import Chunk, ChunkId
    from filegrid.simulation.campaign import Campaign

READ_BACK_SECONDS = 30.0
"""A replica that is damaged later than this before the removal of another may have been read back
before it was: reading and removing may each wait for as long as a strike lasts."""


class ReadBack(Checker):
    """No replica is removed as surplus unless those that stay can be read (S17)."""

    promise = "a surplus replica goes only where those that stay are good"

    def __init__(self, campaign: Campaign) -> None:
        super().__init__(campaign)
        self._there: dict[ChunkId, set[str]] = {}
        self._probed_at = 0.0

    def probe(self) -> None:
        named, damage = named_chunks(self.campaign.grid), self.campaign.misfortune.damage
        if named is None:
            return
        before, self._there = self._there, where_stored(self.campaign.grid)
        before_at, self._probed_at = self._probed_at, self.campaign.seconds
        emptied = {name for name, at in damage.emptied_at.items() if at >= before_at}
        for one in named:
            chunk_id, there = one.chunk.id, self._there.get(one.chunk.id, set())
            had = before.get(chunk_id, set())
            if len(had) <= one.replication:
                continue
            good = {name for name in had - there if (name, chunk_id) not in damage.damaged_at}
            for name in there if good - emptied else ():
                damaged_at = damage.damaged_at.get((name, chunk_id), math.inf)
                if damaged_at < self._probed_at - READ_BACK_SECONDS:
                    self._judge(one.chunk, name, good)

    def _judge(self, chunk: Chunk, name: str, gone: set[str]) -> None:
        node = self.campaign.grid.machine(name).node
        if not isinstance(node, ChunkServer):
            return
        try:
            node._store.verify(chunk)  # it may have been replaced by a good one
        except GridError as error:
            raise self.broken(
                f"{chunk.id.hex()} went from {sorted(gone)}, and {name} keeps it: {error}"
            ) from error
