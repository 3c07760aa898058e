"""How fast replicas are made here: evenly, within a limit, and slower while clients are served.

A disk and a link that are busy with a burst make everybody else wait until it is over. So a limit
is kept from one piece to the next, not from one second to the next.
"""

from __future__ import annotations

import math

from filegrid.chunk.load import Meter
from filegrid.config import CRITICAL_FACTOR
from filegrid.runtime import Runtime

YIELDING_BYTES_PER_SECOND = 64.0 * 1024 * 1024
"""The most while clients are served."""

LEAST_PAUSE_SECONDS = 0.004
"""Shorter ones are put together: a timer is not finer than that."""

_MIB = 1024 * 1024


class Pace:
    """Says how long to pause after what came, for all copies of this server together.

    :param mib_per_second: the limit; 0: none at all, whoever is served meanwhile.
    """

    def __init__(self, runtime: Runtime, meter: Meter, mib_per_second: float) -> None:
        self._runtime = runtime
        self._meter = meter
        self._bytes_per_second = mib_per_second * _MIB or math.inf
        self._free_at = 0.0

    def spend(self, length: int, *, critical: bool) -> float:
        """So many bytes came; returns for how many seconds no more should come."""
        rate = self._bytes_per_second
        if self._meter.serves_clients and rate < math.inf:
            rate = min(rate, YIELDING_BYTES_PER_SECOND)
        if critical:
            rate *= CRITICAL_FACTOR
        self._free_at = max(self._runtime.clock.seconds(), self._free_at) + length / rate
        return self._left()

    async def ready(self) -> None:
        """Return when more may come."""
        while seconds := self._left():
            await self._runtime.sleep(seconds)

    def _left(self) -> float:
        left = self._free_at - self._runtime.clock.seconds()
        return left if left >= LEAST_PAUSE_SECONDS else 0.0
