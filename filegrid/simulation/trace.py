"""What happened in a simulated run, in order: for people to read, and to compare two runs."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

from blake3 import blake3

MOST_LINES = 4000
"""Kept for whoever has to understand a failure; the digest is over all."""


class Trace:
    """Lines with their simulated times, and a digest over them and the times of all events.

    :param seconds: the simulated time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._hash = blake3()
        self._times: list[float] = []

    def note(self, text: str) -> None:
        """Something that a reader wants to know."""
        line = f"{self._seconds():10.4f} {text}"
        self._lines.append(line)
        self._fold()
        self._hash.update(line.encode())

    def event(self, at: float) -> None:
        """The simulated clock went on to `at`."""
        self._times.append(at)
        if len(self._times) >= 1024:
            self._fold()

    def tail(self, count: int) -> list[str]:
        """The last lines."""
        return list(self._lines)[-count:]

    def digest(self) -> str:
        """Equal for two runs in which the same happened at the same times."""
        self._fold()
        return self._hash.hexdigest(16)

    def _fold(self) -> None:
        times, self._times = self._times, []
        self._hash.update(struct.pack(f"<{len(times)}d", *times))
