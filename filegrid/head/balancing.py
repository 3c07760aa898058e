"""Which replicas move from full servers to empty ones: a pure choice.

The laws: nothing moves while all servers are within the band around the mean; a move never leads to
a server that has the chunk already or has no room, never leaves the chunk on fewer racks than
before, and makes the whole more even: the sum of held bytes squared over room becomes smaller
with each, so that moves come to an end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from filegrid.head.placement import SPARE_FRACTION


@dataclass(slots=True, kw_only=True)
class Filling:
    """How full a server is, with what is on its way to it and from it.

    :ivar held_bytes: in its chunks; :ivar room_bytes: held and free.
    """

    name: str
    rack: str
    held_bytes: int
    room_bytes: int

    @property
    def use(self) -> float:
        return self.held_bytes / self.room_bytes if self.room_bytes else 1.0

    def use_with(self, more_bytes: int) -> float:
        return (self.held_bytes + more_bytes) / self.room_bytes if self.room_bytes else 1.0


class Balancing:
    """The servers as they would be when all that was begun has ended.

    :param band: how far from the mean a server's use may be, as a fraction of its room.
    """

    def __init__(self, fillings: Sequence[Filling], *, band: float) -> None:
        self._fillings = {one.name: one for one in fillings}
        self._band = band
        room = sum(one.room_bytes for one in fillings)
        self.mean = sum(one.held_bytes for one in fillings) / room if room else 0.0

    @property
    def even(self) -> bool:
        """Whether all are within the band."""
        return all(abs(one.use - self.mean) <= self._band for one in self._fillings.values())

    @property
    def bytes_left(self) -> int:
        """What has to move until they are."""
        over = sum(
            max(0.0, one.use - self.mean - self._band) * one.room_bytes
            for one in self._fillings.values()
        )
        under = sum(
            max(0.0, self.mean - self._band - one.use) * one.room_bytes
            for one in self._fillings.values()
        )
        return round(max(over, under))

    def givers(self) -> list[str]:
        """Servers that something should leave, the fullest first."""
        over = [one for one in self._fillings.values() if one.use > self.mean]
        return [one.name for one in sorted(over, key=lambda one: (-one.use, one.name))]

    def receiver(
        self, giver: str, length: int, holders: Sequence[str], racks: Mapping[str, str]
    ) -> str | None:
        """Where a chunk of so many bytes goes from this server, where it should go anywhere.

        :param holders: of the chunk, the giver with them.
        """
        source = self._fillings[giver]
        before = len({racks.get(name, "") for name in holders})
        rest = {racks.get(name, "") for name in holders if name != giver}
        fits = [
            one
            for one in self._fillings.values()
            if one.name not in holders
            and one.use < self.mean
            and self._worth(source, one)
            and len(rest | {one.rack}) >= before
            and one.use_with(length) <= 1 - SPARE_FRACTION
            and one.use + one.use_with(length) < source.use + source.use_with(-length)
        ]
        return min(fits, key=lambda one: (one.use, one.name)).name if fits else None

    def move(self, giver: str, receiver: str, length: int) -> None:
        """It was begun."""
        self._fillings[giver].held_bytes -= length
        self._fillings[receiver].held_bytes += length

    def _worth(self, giver: Filling, receiver: Filling) -> bool:
        return giver.use - self.mean > self._band or self.mean - receiver.use > self._band
