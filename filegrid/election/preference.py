"""When a preferred member asks for the lead: calmly, and the rarer the more often it lost it.

The election itself moves the lead only where it must. A member with a higher priority gets it by
asking (:class:`~filegrid.election.events.Claim`) and by the planned handover that follows, which
loses nothing and costs a fraction of a second; but a preferred member that comes and goes would
make users pay that, and a failover each time, for ever. So it asks only once it has followed
without a break for a while, which doubles with every time that it lost the lead not long ago.

Safety rests on nothing here: the claim may come at any time, and the leader may leave it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

CALM_SECONDS = 5.0
"""How long it follows and lacks nothing before it asks for the first time."""

MOST_CALM_SECONDS = 3600.0

REMEMBERED_SECONDS = 2 * 3600.0
"""A loss counts for so long: longer than the longest calm, or the damping would end by itself."""


def losses(elections: Iterable[tuple[str, float]], name: str, now: float) -> int:
    """How often `name` lost the lead of late.

    :param elections: who was elected, and when in seconds, the oldest first.
    :param now: by the same clock. It may leap: that makes the calm longer or shorter, no more.
    """
    count, before = 0, ""
    for leader, at in elections:
        if before == name and leader != name and abs(now - at) <= REMEMBERED_SECONDS:
            count += 1
        before = leader
    return count


def calm_seconds(lost: int) -> float:
    """How long to be steady before asking, after so many losses."""
    doublings = min(lost, 20)  # the float would overflow at some thousand
    return min(CALM_SECONDS * 2.0**doublings, MOST_CALM_SECONDS)


class Preference:
    """One member's."""

    def __init__(self) -> None:
        self._steady_since: float | None = None

    def asks(self, *, steady: bool, lost: Callable[[], int], now: float) -> bool:
        """Whether to ask now. Where nothing comes of it, it asks again after as long a calm.

        :param steady: whether it follows another and lacks nothing, as far as it can see.
        :param lost: as of :func:`losses`; looked up only where it matters.
        """
        if not steady:
            self._steady_since = None
            return False
        if self._steady_since is None:
            self._steady_since = now
        seconds = now - self._steady_since
        if seconds < CALM_SECONDS or seconds < calm_seconds(lost()):
            return False
        self._steady_since = now
        return True
