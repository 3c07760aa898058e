"""One parcel to several servers at once: who has stored it, and who failed or is late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from filegrid.errors import GridError, Unavailable
from filegrid.model import ChunkId

LEAST_LATE_SECONDS = 1.0
"""Longer than a disk that is busy makes others wait, as a rule."""

LATE_FACTOR = 4.0
"""Times as long as the others took: when the network or all disks are slow, nobody is late."""

Outcome: TypeAlias = Mapping[ChunkId, GridError] | GridError
"""What a server could not store of a parcel; or why it stored nothing, as far as is known."""


class Delivery:
    """Over once every server has answered, or enough of them and the others are late.

    A server that is late counts as one that failed (S16): how many must have a chunk is for whoever
    sent it to judge, by what has been stored without it.

    :param sent: the answer of each server.
    :param enough: servers that stored everything, by which the others are measured.
    :ivar outcomes: of those that have answered.
    :ivar left: those that have not.
    :ivar over: fails with what is no :class:`GridError`; cancelling it cancels what is left.
    """

    def __init__(
        self,
        clock: IReactorTime,
        sent: Mapping[str, Deferred[Mapping[ChunkId, GridError]]],
        enough: int,
    ) -> None:
        self._clock = clock
        self._enough = enough
        self._begun_at = clock.seconds()
        self._timer: IDelayedCall | None = None
        self._whole = 0  # how many stored everything
        self.outcomes: dict[str, Outcome] = {}
        self.left = dict(sent)
        self.over: Deferred[None] = Deferred(lambda _: self._give_up())
        for server, answer in sent.items():
            answer.addBoth(self._answered, server)

    def _answered(
        self, outcome: Mapping[ChunkId, GridError] | Failure, server: str
    ) -> Mapping[ChunkId, GridError] | Failure:
        if self.over.called:
            return outcome  # somebody waits for it
        del self.left[server]
        if not isinstance(outcome, Failure):
            self.outcomes[server] = outcome
            self._whole += not outcome
        elif isinstance(outcome.value, GridError):
            self.outcomes[server] = outcome.value
        else:
            self._give_up()
            self.over.errback(outcome)
            return {}
        if not self.left:
            self._end()
        elif self._timer is None and self._whole >= self._enough:
            took_seconds = self._clock.seconds() - self._begun_at
            seconds = max(LEAST_LATE_SECONDS, LATE_FACTOR * took_seconds)
            self._timer = self._clock.callLater(seconds, self._late)
        return {}

    def _late(self) -> None:
        seconds = self._clock.seconds() - self._begun_at
        for server in self.left:
            self.outcomes[server] = Unavailable(f"no answer in {seconds:.1f} s, unlike others")
        self._end()

    def _end(self) -> None:
        self._stop_timer()
        self.over.callback(None)

    def _give_up(self) -> None:
        self._stop_timer()
        left, self.left = self.left, {}
        for answer in left.values():
            answer.addErrback(lambda _: None)
            answer.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
