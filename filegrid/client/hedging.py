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

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from filegrid.client.answers import Answers
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
        race = _Race(self._clock.seconds(), first, answer)
        race.timer = self._clock.callLater(LEAST_LATE_SECONDS, self._late, race, another)
        won = await race.over
        for source, owed in race.left.items():
            self._owing[source.server] += 1
            self._tasks.begin(self._wait_for(source, owed))
        return won

    def _late(self, race: _Race, another: Callable[[], Source | None]) -> None:
        """The first one has not answered; ask another one, if it is time.

        As long as bytes come it is not late: on a slow link they would come no sooner from others.
        """
        if race.first.received_bytes > race.received_bytes:
            race.received_bytes = race.first.received_bytes
            race.silent_since = self._clock.seconds()
        usual = self._latencies.elsewhere(race.first.server)
        seconds = UNKNOWN_LATE_SECONDS if usual is None else LATE_FACTOR * usual
        left_seconds = race.silent_since + max(LEAST_LATE_SECONDS, seconds) - self._clock.seconds()
        if left_seconds > 0:
            race.timer = self._clock.callLater(left_seconds, self._late, race, another)
        elif self._saved >= 1.0 and (second := another()) is not None:
            self._saved -= 1.0
            race.wait_for(second, Deferred.fromCoroutine(second.next()))

    async def close(self) -> None:
        """Wait for nobody any more."""
        await self._tasks.stop()

    async def _wait_for(self, source: Source, answer: Deferred[_Blocks]) -> None:
        with suppress(GridError):  # the source tells
            await answer
        source.drop()
        self._owing[source.server] -= 1


class _Race(Answers["Source", _Blocks, "tuple[Source, _Blocks]"]):
    """Sources that were asked for the same blocks: over with the first that has them, or where the
    last one has failed.
    """

    def __init__(self, now: float, first: Source, answer: Deferred[_Blocks]) -> None:
        super().__init__()
        self.first = first
        self.received_bytes = first.received_bytes
        self.silent_since = now
        self.wait_for(first, answer)

    def judge(self, asked: Source, outcome: _Blocks | Failure) -> None:
        if not isinstance(outcome, Failure):
            self.end((asked, outcome))
        elif not self.left:
            self.fail(outcome)

    def give_up(self) -> None:
        sources = list(self.left)
        super().give_up()
        for source in sources:
            source.drop()
