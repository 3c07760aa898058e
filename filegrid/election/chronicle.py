"""What came to pass among the nodes that lead: elections and verdicts."""

from __future__ import annotations

from collections.abc import Iterable

from filegrid.protocol.wire.health_pb2 import Event


class Chronicle:
    """The last events, the oldest first, each once whoever noted it.

    :param most: how many are kept.
    """

    def __init__(self, events: Iterable[Event] = (), *, most: int) -> None:
        self.events: list[Event] = []
        self.last_verdict: Event | None = None
        self._most = most
        self._keys: set[tuple[int, ...]] = set()
        for event in events:
            self.add(event)

    def add(self, event: Event) -> bool:
        """Whether it is new."""
        if _key(event) in self._keys:
            return False
        self.events.append(event)
        self.events.sort(key=lambda one: one.at_ms)
        del self.events[: -self._most]
        self._keys = {_key(one) for one in self.events}
        last = self.last_verdict
        if event.kind == Event.KIND_VERDICT and (last is None or event.at_ms > last.at_ms):
            self.last_verdict = event
        return True


def _key(event: Event) -> tuple[int, ...]:
    """There is one leader to an epoch; a verdict has the time that its coordinator gave it."""
    is_verdict = event.kind == Event.KIND_VERDICT
    return (event.kind, event.epoch, event.at_ms if is_verdict else 0)
