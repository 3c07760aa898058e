"""Chunks that want replicas, the most urgent first.

The fewer replicas a chunk has left the more urgent it is; among those with equally many the fewer
racks they lie on; then the longer it has waited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TypeAlias

from filegrid.head.view import ChunkRecord
from filegrid.model import ChunkId

SETTLE_SECONDS = 2.0
"""A chunk that was just published is short of replicas until all its servers have reported it; and
a copy that failed is not tried again at once."""

MOST_LOOKED_AT = 1000
"""Of those that are equally urgent, to find the oldest: they are roughly in that order."""

Urgency: TypeAlias = tuple[int, int]
"""How many replicas are left, and on how many racks: the smaller the more urgent."""


@dataclass(slots=True, kw_only=True)
class Deficit:
    """A chunk with too few replicas on servers that are not dead and are to stay.

    :ivar holders: servers with a replica that counts.
    :ivar leaving: servers with one that are being drained: good to read from, as long as they stay.
    :ivar racks: on how many racks all these are.
    :ivar since: when the head first saw it so.
    :ivar ready_at: from when it may be repaired.
    """

    record: ChunkRecord
    holders: tuple[str, ...]
    leaving: tuple[str, ...] = ()
    racks: int = 1
    since: float
    ready_at: float

    @property
    def sources(self) -> tuple[str, ...]:
        return self.holders + self.leaving

    @property
    def short(self) -> bool:
        """Whether replicas are missing now, not only once a drained server is gone."""
        return len(self.sources) < self.record.replication

    @property
    def critical(self) -> bool:
        """Whether the next loss is one for good, and need not be."""
        return len(self.sources) == 1 < self.record.replication

    @property
    def urgency(self) -> Urgency:
        return len(self.sources), self.racks


class Deficits(Mapping[ChunkId, Deficit]):
    """Deficits by chunk; iterates from the most urgent to the least.

    :ivar bytes: in one replica of each.
    """

    def __init__(self) -> None:
        self._by_urgency: dict[Urgency, dict[ChunkId, Deficit]] = {}
        self._urgency: dict[ChunkId, Urgency] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._urgency)

    def __contains__(self, chunk_id: object) -> bool:
        return chunk_id in self._urgency

    def __getitem__(self, chunk_id: ChunkId) -> Deficit:
        return self._by_urgency[self._urgency[chunk_id]][chunk_id]

    def __iter__(self) -> Iterator[ChunkId]:
        for urgency in self._order():
            yield from self._by_urgency[urgency]

    def by_urgency(self) -> Iterator[Deficit]:
        """As :meth:`values`, and several times faster; nothing may change meanwhile."""
        for urgency in self._order():
            yield from self._by_urgency[urgency].values()

    def _order(self) -> list[Urgency]:
        """What no server has any more comes last: nothing can be done for it, and there may be more
        of it than a plan looks at."""
        return sorted(self._by_urgency, key=lambda urgency: (not urgency[0], urgency))

    def find(self, chunk_id: ChunkId) -> Deficit | None:
        """As :meth:`get`, and several times faster."""
        urgency = self._urgency.get(chunk_id)
        return self._by_urgency[urgency][chunk_id] if urgency is not None else None

    def groups(self) -> Iterator[tuple[int, int, float]]:
        """How many replicas are left, of how many chunks, and since when of the first of them."""
        for left, same in groupby(sorted(self._by_urgency), key=lambda urgency: urgency[0]):
            waiting = [self._by_urgency[urgency] for urgency in same]
            first = (one for group in waiting for one in islice(group.values(), MOST_LOOKED_AT))
            yield left, sum(map(len, waiting)), min(one.since for one in first)

    def put(self, deficit: Deficit) -> None:
        """Add it, or say how it is now; its place changes only with its urgency."""
        chunk_id, urgency = deficit.record.chunk.id, deficit.urgency
        if self._urgency.get(chunk_id, urgency) != urgency:
            self.drop(chunk_id)
        if chunk_id not in self._urgency:
            self.bytes += deficit.record.chunk.length
        self._urgency[chunk_id] = urgency
        self._by_urgency.setdefault(urgency, {})[chunk_id] = deficit

    def drop(self, chunk_id: ChunkId) -> None:
        urgency = self._urgency.pop(chunk_id, None)
        if urgency is not None:
            waiting = self._by_urgency[urgency]
            self.bytes -= waiting.pop(chunk_id).record.chunk.length
            if not waiting:
                del self._by_urgency[urgency]

    def postpone(self, chunk_id: ChunkId, now: float) -> None:
        """A copy failed: others that are as urgent have their turn first."""
        deficit = self.find(chunk_id)
        if deficit is not None:
            self.drop(chunk_id)
            deficit.ready_at = now + SETTLE_SECONDS
            self.put(deficit)
