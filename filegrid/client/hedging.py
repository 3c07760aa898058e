"""Hedging: a second replica is asked for bytes that are late, and the first answer is taken.

A replica that stalls costs its readers a fraction of a second then, instead of the seconds after
which it has failed. Second requests are few, so that a grid that is slow as a whole is not asked
for twice as much. The first replica is still waited for, though not by the reader: how late it is,
or that it failed, is what shows that its server is ill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from filegrid.client.latencies import Latencies
from filegrid.errors import GridError
from filegrid.net.tasks import Tasks

if TYPE_CHECKING:
    from filegrid.client.source import Source

_Blocks = list[memoryview]

LEAST_LATE_SECONDS = 0.25
"""Far above what a disk takes that has to seek, or a server that is busy."""

LATE_FACTOR = 4.0
"""Times as long as other servers take."""

UNKNOWN_LATE_SECONDS = 1.0
"""Where too few other servers are known."""

SHARE = 0.1
"""Of all requests, those that may be followed by a second one."""

MOST_SAVED = 10.0
"""Second requests in a row, after many requests that needed none."""


class Hedges:
    """The second requests of a client, and the first ones that it still waits for."""

    def __init__(self, clock: IReactorTime, latencies: Latencies) -> None:
        self._clock = clock
        self._latencies = latencies
        self._saved = MOST_SAVED
        self._owing: Counter[str] = Counter()
        self._tasks = Tasks("waiting for a replica that is late")

    def owing(self) -> set[str]:
        """Servers that were late and have not answered yet."""
        return {server for server, count in self._owing.items() if count}

    async def next(
        self, first: Source, another: Callable[[], Source | None]
    ) -> tuple[Source, _Blocks]:
        """The next blocks of a source, or of another one where it is late; and of which.

        :param another: one that would begin at the same place.
        :raises GridError: where nobody who was asked has them.
        """
        answer = Deferred.fromCoroutine(first.next())
        if answer.called:
            return first, await answer
        self._saved = min(MOST_SAVED, self._saved + SHARE)
        race = _Race()
        race.enter(first, answer)
        late = self._clock.callLater(self._late_seconds(first), race.tell_late)
        try:
            while (won := await race.outcome()) is None:
                if self._saved >= 1.0 and (second := another()) is not None:
                    self._saved -= 1.0
                    race.enter(second, Deferred.fromCoroutine(second.next()))
        except Exception:
            _stop(late)
            race.end()
            raise
        _stop(late)
        for source, owed in race.left.items():
            self._owing[source.server] += 1
            self._tasks.begin(self._wait_for(source, owed))
        return won

    async def close(self) -> None:
        """Wait for nobody any more."""
        await self._tasks.stop()

    def _late_seconds(self, source: Source) -> float:
        usual = self._latencies.elsewhere(source.server)
        if usual is None:
            return UNKNOWN_LATE_SECONDS
        return max(LEAST_LATE_SECONDS, LATE_FACTOR * usual)

    async def _wait_for(self, source: Source, answer: Deferred[_Blocks]) -> None:
        with suppress(GridError):  # the source tells
            await answer
        source.drop()
        self._owing[source.server] -= 1


class _Race:
    """Sources that were asked for the same blocks.

    :ivar left: those that have not answered.
    """

    def __init__(self) -> None:
        self.left: dict[Source, Deferred[_Blocks]] = {}
        self._outcomes: DeferredQueue[tuple[Source, _Blocks | Failure] | None] = DeferredQueue()

    def enter(self, source: Source, answer: Deferred[_Blocks]) -> None:
        def tell(outcome: _Blocks | Failure) -> _Blocks | Failure:
            self._outcomes.put((source, outcome))
            return outcome

        self.left[source] = answer
        answer.addBoth(tell)

    def tell_late(self) -> None:
        self._outcomes.put(None)

    async def outcome(self) -> tuple[Source, _Blocks] | None:
        """Who has blocks; None once the first source is late.

        :raises GridError: where the last one failed.
        """
        while (told := await self._outcomes.get()) is not None:
            source, outcome = told
            answer = self.left.pop(source)
            if not isinstance(outcome, Failure):
                return source, outcome
            answer.addErrback(lambda _: None)
            if not self.left or not outcome.check(GridError):
                outcome.raiseException()
        return None

    def end(self) -> None:
        """Ask no more."""
        for source, answer in self.left.items():
            answer.addErrback(lambda _: None)
            answer.cancel()
            source.drop()


def _stop(timer: IDelayedCall) -> None:
    if timer.active():
        timer.cancel()
