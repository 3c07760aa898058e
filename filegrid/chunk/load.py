"""What a chunk server reports of its machine and its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.internet.interfaces import IReactorTime

from filegrid.errors import Busy

LEAST_INTERVAL_SECONDS = 0.5
"""Rates over less would jump; heartbeats that come faster get the last ones again."""

MOST_TRANSFERS = 128
"""At once; each may hold some MiB. The next is answered "busy"."""

BUSY_SECONDS = 0.2

CLIENTS_GONE_SECONDS = 1.0
"""After the last of its requests a client may have another one."""

LENT_SECONDS = 30.0
"""So long a client that borrowed a file is taken to read it: we do not see it."""

LEAST_SHARE_BYTES = 256 * 1024
"""Less, and a transfer is all handing over."""

ALL_TRANSFERS_BYTES = 10 * 1024 * 1024
"""Wait in memory for the disk or the network for all transfers together, while there are no more
than 40. Each holds some MiB besides; with three times as much here none was faster."""


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
        self._clients = 0
        self._clients_until = clock.seconds()

    @property
    def serves_clients(self) -> bool:
        """Whether a client is being served, or was a moment ago."""
        return self._clients > 0 or self._clock.seconds() < self._clients_until

    @contextmanager
    def client(self) -> Iterator[None]:
        """A client's request is being served."""
        self._clients += 1
        try:
            yield
        finally:
            self._clients -= 1
            self._expect_clients(CLIENTS_GONE_SECONDS)

    def lent(self) -> None:
        """A client reads a file itself from now on."""
        self._expect_clients(LENT_SECONDS)

    def _expect_clients(self, seconds: float) -> None:
        self._clients_until = max(self._clients_until, self._clock.seconds() + seconds)

    @contextmanager
    def transfer(self) -> Iterator[None]:
        """One transfer under way.

        :raises Busy: where there are too many.
        """
        if self.transfers >= MOST_TRANSFERS:
            raise Busy(f"{MOST_TRANSFERS} transfers at once", retry_after_seconds=BUSY_SECONDS)
        self.transfers += 1
        try:
            yield
        finally:
            self.transfers -= 1

    def share_bytes(self, most: int) -> int:
        """How much one more transfer may hold, up to `most`: with many at once each has less."""
        return max(LEAST_SHARE_BYTES, min(most, ALL_TRANSFERS_BYTES // (self.transfers + 1)))

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
