"""Where replicas go: a pure choice among what the head sees of the chunk servers.

The laws, whatever the numbers: no two replicas of a chunk on one server; at least two racks where
there are two to choose from; nobody who is not live, or has no room, is chosen; within that, a
server is the likelier the more free space and the fewer transfers it has. The choice is random, so
that a new and empty server is not stormed by everybody at once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

SPARE_FRACTION = 0.02
"""Of a server's capacity, never promised to new chunks: repair and removal need room (S22)."""


def has_room(left_bytes: int, capacity_bytes: int) -> bool:
    """Whether enough would be left on a server."""
    return left_bytes >= capacity_bytes * SPARE_FRACTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A live, writable chunk server as placement sees it."""

    name: str
    rack: str
    capacity_bytes: int
    free_bytes: int
    transfers: int = 0

    def has_room(self, chunk_bytes: int) -> bool:
        return has_room(self.free_bytes - chunk_bytes, self.capacity_bytes)

    @property
    def weight(self) -> float:
        return self.free_bytes / (1 + self.transfers)


def place(
    candidates: Iterable[Candidate],
    count: int,
    *,
    chunk_bytes: int,
    random: random.Random,
    holders: Collection[str] = (),
    holder_racks: Iterable[str] = (),
    exclude: Collection[str] = (),
) -> list[Candidate]:
    """Choose servers for `count` new replicas of one chunk, fewer where there are not so many.

    :param holders: servers that have a replica already, live or not.
    :param holder_racks: the racks of those of them that live.
    :param exclude: servers that just failed the caller.
    """
    left = [
        candidate
        for candidate in candidates
        if candidate.name not in holders
        and candidate.name not in exclude
        and candidate.has_room(chunk_bytes)
    ]
    in_rack = Counter(holder_racks)
    chosen: list[Candidate] = []
    while left and len(chosen) < count:
        # The racks with the fewest replicas so far are next: that is two racks at once where there
        # are two, and an even spread where there are more.
        fewest = min(in_rack[candidate.rack] for candidate in left)
        eligible = [candidate for candidate in left if in_rack[candidate.rack] == fewest]
        pick = random.choices(eligible, [max(one.weight, 1.0) for one in eligible])[0]
        left.remove(pick)
        in_rack[pick.rack] += 1
        chosen.append(pick)
    return chosen
