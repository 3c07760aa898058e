"""Restraint where many chunk servers vanish at once (S18).

More than a third of them, or a whole rack, gone within moments is a switch or a fuse rather than so
many broken machines, and mostly they come back. Copying all that they held would then be for
nothing, and would load those that are left when they are needed most. So only chunks on their last
replica are repaired, until one of them returns or a person says go, or the time for it is over:
a grid that nobody looks after heals all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

TOGETHER_SECONDS = 10.0
"""Servers that are found dead within this have vanished together: heartbeats are not in step."""


def is_mass(gone: Collection[str], racks: Mapping[str, str]) -> bool:
    """Whether these are so many that one thing must have happened to all.

    :param racks: of all servers that were there, by name.
    """
    if len(gone) < 2:
        return False  # one machine is one machine, though it be all of its rack
    here = {rack for name, rack in racks.items() if name not in gone}
    count = Counter(racks.get(name, "") for name in gone)
    third = len(gone) > len(racks.keys() | set(gone)) / 3
    return third or any(many > 1 and rack not in here for rack, many in count.items())


class Restraint:
    """Whether repair holds back.

    :param wait_seconds: for how long, at the most.
    :ivar vanished: the servers that it waits for.
    """

    def __init__(self, wait_seconds: float) -> None:
        self._wait_seconds = wait_seconds
        self._died_at: dict[str, float] = {}
        self._until = 0.0

    @property
    def vanished(self) -> list[str]:
        return sorted(self._died_at)

    def seconds_left(self, now: float) -> float:
        return max(0.0, self._until - now)

    def died(self, names: Iterable[str], racks: Mapping[str, str], now: float) -> None:
        """These were found dead, or are about to be.

        :param racks: of all servers that still live, by name, and of these.
        """
        self._died_at = {
            name: at for name, at in self._died_at.items() if now - at <= TOGETHER_SECONDS
        }
        self._died_at.update(dict.fromkeys(names, now))
        if is_mass(self._died_at, racks):
            self._until = now + self._wait_seconds

    def returned(self, name: str) -> None:
        """It is here again, and where one comes back more may."""
        if self._died_at.pop(name, None) is not None:
            self._until = 0.0

    def go(self) -> None:
        """A person says so."""
        self._died_at.clear()
        self._until = 0.0
