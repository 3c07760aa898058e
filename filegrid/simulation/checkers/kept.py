"""The replicas on the disks, whatever the heads believe."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from filegrid.model import ChunkId
from filegrid.simulation.checkers.checker import Checker
from filegrid.simulation.stored import named_chunks, where_stored

if TYPE_CHECKING:
    from filegrid.simulation.campaign import Campaign


class Kept(Checker):
    """What files refer to lies on as many disks as it did, but for what the storm destroyed.

    A chunk is published once it is durable on ``min_replicas`` disks (S16), and once it had all its
    replicas no repair, move or collection leaves it with fewer (S14, S17).
    """

    promise = "an acknowledged file keeps its replicas, and the collector takes none that it needs"

    def __init__(self, campaign: Campaign) -> None:
        super().__init__(campaign)
        self._wiped: Counter[ChunkId] = Counter()  # since it was whole the last time
        self._rotten: Counter[ChunkId] = Counter()  # nobody knows when that is found
        self._whole: set[ChunkId] = set()
        campaign.misfortune.tell_wiped = self._wiped.update
        campaign.misfortune.tell_rotten = self._rotten.update

    def probe(self) -> None:
        named = named_chunks(self.campaign.grid)
        if named is None:
            return
        there = where_stored(self.campaign.grid)
        replication = self.campaign.scenario.replication
        least = min(replication, self.campaign.grid.grid_settings.min_replicas)
        for chunk in named:
            holders = there.get(chunk.id, set())
            if len(holders) >= replication:
                self._whole.add(chunk.id)
                self._wiped.pop(chunk.id, None)
                continue
            wanted = replication if chunk.id in self._whole else least
            if len(holders) < wanted - self._wiped[chunk.id] - self._rotten[chunk.id]:
                raise self.broken(
                    f"chunk {chunk.id.hex()} lies on {sorted(holders)}, and had {wanted} replicas"
                )
        self._whole &= {chunk.id for chunk in named}
