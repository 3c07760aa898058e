"""Chunk servers that just failed us."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime

AVOID_SECONDS = 10.0
"""By then the head knows better than we do whether a server serves."""


class Avoided:
    """Remembers for a while which servers not to try first."""

    def __init__(self, clock: IReactorTime, seconds: float = AVOID_SECONDS) -> None:
        self._clock = clock
        self._seconds = seconds
        self._until: dict[str, float] = {}

    def add(self, servers: Iterable[str]) -> None:
        for server in servers:
            self._until[server] = self._clock.seconds() + self._seconds

    def servers(self) -> set[str]:
        now = self._clock.seconds()
        self._until = {server: until for server, until in self._until.items() if until > now}
        return set(self._until)

    def clear(self) -> None:
        self._until.clear()
