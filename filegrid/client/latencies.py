"""How long each chunk server takes to begin, so that one that is much slower is noticed."""

from __future__ import annotations

from statistics import median

LEAST_SLOW_SECONDS = 1.0
"""Quicker than this nobody calls slow, however quick the others are."""

SLOW_FACTOR = 8.0
"""Times as long as the others take. When the network or this machine is slow, all of them are."""

LEAST_OTHERS = 2
"""Others that must be known, to compare with."""

WEIGHT = 0.3
"""Of the newest in the moving mean: some reads decide, and a single one does not."""


class Latencies:
    """A moving mean for each server, from the wish for bytes until the first have come."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def note(self, server: str, seconds: float) -> str:
        """One more read began; returns why the server is slow, empty where it is not."""
        before = self._means.get(server)
        mean = seconds if before is None else before + WEIGHT * (seconds - before)
        self._means[server] = mean
        if mean < LEAST_SLOW_SECONDS:
            return ""
        usual = self.elsewhere(server)
        if usual is None or mean < SLOW_FACTOR * usual:
            return ""
        return f"the first bytes take {mean:.1f} s, and {usual:.2f} s elsewhere"

    def elsewhere(self, server: str) -> float | None:
        """What the other servers take, as a rule; None where too few are known."""
        others = [one for name, one in self._means.items() if name != server]
        return median(others) if len(others) >= LEAST_OTHERS else None
