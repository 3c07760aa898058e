"""What a chunk server reports of its machine and its work."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

LEAST_INTERVAL_SECONDS = 0.5
"""Rates over less would jump; heartbeats that come faster get the last ones again."""


class Meter:
    """Counts the bytes that pass through this server and turns them into rates.

    :param cpu_percent: how busy the machine's processors were since it was last asked.
    """

    def __init__(self, clock: IReactorTime, cpu_percent: Callable[[], float]) -> None:
        self._clock = clock
        self._cpu_percent = cpu_percent
        self._since = clock.seconds()
        self._network_bytes = 0
        self._disk_bytes = 0
        self.network_bytes_per_second = 0.0
        self.disk_bytes_per_second = 0.0
        self.cpu_percent = 0.0
        self.transfers = 0

    def moved(self, *, network_bytes: int = 0, disk_bytes: int = 0) -> None:
        self._network_bytes += network_bytes
        self._disk_bytes += disk_bytes

    def read(self) -> None:
        """Bring the rates up to now."""
        now = self._clock.seconds()
        elapsed = now - self._since
        if elapsed < LEAST_INTERVAL_SECONDS:
            return
        self.network_bytes_per_second = self._network_bytes / elapsed
        self.disk_bytes_per_second = self._disk_bytes / elapsed
        self.cpu_percent = self._cpu_percent()
        self._since, self._network_bytes, self._disk_bytes = now, 0, 0
