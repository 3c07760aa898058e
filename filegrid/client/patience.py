"""How long to go on trying, and how long to wait between two tries."""

from __future__ import annotations

from twisted.internet.task import deferLater

from filegrid.runtime import Runtime

LEAST_PAUSE_SECONDS = 0.05
MOST_PAUSE_SECONDS = 0.1
"""A new leader is found, and a chunk server that came back is used, within this time."""


class Patience:
    """Runs out when nothing has moved for `timeout_seconds`."""

    def __init__(self, runtime: Runtime, timeout_seconds: float) -> None:
        self._runtime = runtime
        self.timeout_seconds = timeout_seconds
        self.renew()

    def renew(self) -> None:
        """Something moved: the whole time is left again."""
        self._deadline_at = self._runtime.clock.seconds() + self.timeout_seconds
        self._pause_seconds = LEAST_PAUSE_SECONDS

    @property
    def left_seconds(self) -> float:
        return max(0.0, self._deadline_at - self._runtime.clock.seconds())

    async def pause(self, at_least_seconds: float = 0.0) -> bool:
        """Wait before the next try, each time longer; False where no time is left for one."""
        left = self.left_seconds
        # Jitter, so that the clients of a head that comes back do not all ask at once.
        seconds = self._pause_seconds * self._runtime.random.uniform(0.5, 1.0)
        self._pause_seconds = min(self._pause_seconds * 2, MOST_PAUSE_SECONDS)
        await deferLater(self._runtime.clock, min(left, max(seconds, at_least_seconds)))
        return self.left_seconds > LEAST_PAUSE_SECONDS
