"""Which replicas are made next: a pure function of what the head sees.

The laws, whatever the numbers: the chunks with the fewest replicas come first, and of those the
ones on the fewest racks, then the oldest need; a replica goes where placement would put it, never
to a server that has one; nobody reads or writes more than its allowance, the last chunk whole, nor
gets more copies at once than its share; who is suspect is read from only where nobody else has the
chunk.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice

from filegrid.config import CRITICAL_FACTOR
from filegrid.head.deficits import Deficit
from filegrid.head.placement import Candidate, place
from filegrid.model import ChunkId

COPIES_PER_SERVER = 1024
"""Ordered of one server and not yet answered: small chunks, which it copies many at a time."""

OUTSTANDING_BYTES = 512 * 1024 * 1024
"""In them, at most: what is ordered of a server is done although the reason for it has gone."""

MOST_LOOKED_AT = 20_000
"""In one turn; most of them are under way or have to wait."""

MOST_TRIED = 2_000
"""Of those, for which a target is looked for: some tens of milliseconds."""

_TRIES = 8
"""Of drawing a target, before all are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One replica to be made: of the first of the sources that can give it."""

    deficit: Deficit
    sources: tuple[str, ...]
    target: str


@dataclass(slots=True)
class Work:
    """What a server was told to do, or may be told yet.

    :ivar read_bytes: that it may read for repair now; it may go below zero by less than one chunk.
    :ivar write_bytes: that it may write, likewise.
    :ivar copies: ordered of it; :ivar outstanding_bytes: in them.
    """

    read_bytes: float = 0.0
    write_bytes: float = 0.0
    copies: int = 0
    outstanding_bytes: int = 0

    @property
    def takes_more(self) -> bool:
        return (
            self.write_bytes > 0
            and self.copies < COPIES_PER_SERVER
            and self.outstanding_bytes < OUTSTANDING_BYTES
        )

    def read(self, deficit: Deficit) -> None:
        """A replica is to be read from here."""
        self.read_bytes -= _cost(deficit)

    def write(self, deficit: Deficit) -> None:
        """One more replica is to be made here."""
        self.write_bytes -= _cost(deficit)
        self.copies += 1
        self.outstanding_bytes += deficit.record.chunk.length

    def written(self, deficit: Deficit) -> None:
        """It was made, or could not be."""
        self.copies -= 1
        self.outstanding_bytes -= deficit.record.chunk.length


def _cost(deficit: Deficit) -> float:
    length = deficit.record.chunk.length
    return length / CRITICAL_FACTOR if deficit.critical else length


@dataclass(slots=True, kw_only=True)
class Plan:
    """:ivar stuck: chunks for which there is no target or no source, as things are."""

    copies: list[Copy] = field(default_factory=list)
    stuck: list[ChunkId] = field(default_factory=list)


def plan(
    deficits: Iterable[Deficit],
    candidates: Sequence[Candidate],
    racks: Mapping[str, str],
    *,
    work: dict[str, Work],
    running: Collection[ChunkId],
    live: Collection[str],
    suspect: Collection[str],
    now: float,
    random: random.Random,
) -> Plan:
    """The next copies to order.

    :param deficits: from the most urgent to the least.
    :param racks: of every server by name.
    :param work: of every live server; what is planned here is added to it.
    :param running: chunks of which a copy is under way.
    :param live: the servers that can be read from; :param suspect: those of them that may fail.
    """
    found = Plan()
    targets = _Targets(candidates, work, random)
    tried = 0
    for deficit in islice(deficits, MOST_LOOKED_AT):
        if not targets.left:
            break
        chunk = deficit.record.chunk
        if now < deficit.ready_at or chunk.id in running:
            continue
        tried += 1
        if tried > MOST_TRIED:
            break
        sources = [name for name in deficit.sources if name in live]
        if not sources:
            found.stuck.append(chunk.id)
            continue
        # Many sources share the reading: the one that has read least goes first.
        sources.sort(key=lambda name: (name in suspect, -work[name].read_bytes))
        if work[sources[0]].read_bytes <= 0:
            continue
        target = targets.choose(deficit, racks)
        if target is None:
            found.stuck.append(chunk.id)
            continue
        if not target:
            continue
        work[sources[0]].read(deficit)
        targets.take(target, deficit)
        found.copies.append(Copy(deficit=deficit, sources=tuple(sources), target=target))
    return found


class _Targets:
    """The servers that can take a replica now, drawn as placement draws them, only faster."""

    def __init__(
        self, candidates: Sequence[Candidate], work: dict[str, Work], random: random.Random
    ) -> None:
        self._all = candidates
        self._free = [one for one in candidates if work[one.name].takes_more]
        self._weights = list(accumulate(max(one.weight, 1.0) for one in self._free))
        self._work = work
        self._random = random
        self._taken: Counter[str] = Counter()
        self.left = len(self._free)

    def take(self, name: str, deficit: Deficit) -> None:
        work = self._work[name]
        work.write(deficit)
        self._taken[name] += deficit.record.chunk.length
        if not work.takes_more:
            self.left -= 1

    def choose(self, deficit: Deficit, racks: Mapping[str, str]) -> str | None:
        """None where no server at all can take the chunk, "" where one can, but not now."""
        length = deficit.record.chunk.length
        here = deficit.holders
        used = {racks.get(name, "") for name in here}
        all_weights, last = self._weights[-1], len(self._free) - 1
        for _ in range(_TRIES):
            # As random.choices, which takes much longer for one.
            drawn = bisect(self._weights, self._random.random() * all_weights, 0, last)
            one = self._free[drawn]
            if (
                one.rack not in used
                and one.name not in deficit.leaving
                and self._work[one.name].takes_more
                and one.has_room(length + self._taken[one.name])
            ):
                return one.name
        chosen = place(
            [one for one in self._all if one.has_room(length + self._taken[one.name])],
            1,
            chunk_bytes=length,
            random=self._random,
            holders=deficit.sources,
            holder_racks=[racks.get(name, "") for name in here],
        )
        if not chosen:
            return None
        # Its rack is right; whether it is busy decides when, not where.
        same = [
            one.name
            for one in self._free
            if one.rack == chosen[0].rack
            and one.name not in deficit.sources
            and self._work[one.name].takes_more
            and one.has_room(length + self._taken[one.name])
        ]
        return self._random.choice(same) if same else ""
