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
        self._whole: dict[ChunkId, int] = {}  # replicas that were there
        campaign.misfortune.damage.tell_wiped = self._wiped.update
        campaign.misfortune.damage.tell_rotten = self._rotten.update

    def probe(self) -> None:
        named = named_chunks(self.campaign.grid)
        if named is None:
            return
        there = where_stored(self.campaign.grid)
        settings = self.campaign.grid.grid_settings
        # Where the grid keeps fewer, a chunk was published with those, and its folder may have said
        # later that it wants more. (Its folder cannot have wanted fewer: see the steward.)
        published = min(settings.min_replicas, settings.replication)
        for one in named:
            chunk_id, holders = one.chunk.id, there.get(one.chunk.id, set())
            if len(holders) >= one.replication:
                self._whole[chunk_id] = one.replication
                self._wiped.pop(chunk_id, None)
                continue
            # Fewer may be wanted now than once were there, or more.
            wanted = min(self._whole.get(chunk_id, published), one.replication)
            if len(holders) < wanted - self._wiped[chunk_id] - self._rotten[chunk_id]:
                raise self.broken(
                    f"chunk {chunk_id.hex()} lies on {sorted(holders)}, and had {wanted} replicas"
                )
        names = {one.chunk.id for one in named}
        self._whole = {one: count for one, count in self._whole.items() if one in names}
