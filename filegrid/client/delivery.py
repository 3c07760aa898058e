"""One parcel to several servers at once: who has stored it, and who failed or is late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from filegrid.client.answers import Answers
from filegrid.errors import GridError, Unavailable
from filegrid.model import ChunkId

LEAST_LATE_SECONDS = 1.0
"""Longer than a disk that is busy makes others wait, as a rule."""

LATE_FACTOR = 4.0
"""Times as long as the others took: when the network or all disks are slow, nobody is late."""

Outcome: TypeAlias = Mapping[ChunkId, GridError] | GridError
"""What a server could not store of a parcel; or why it stored nothing, as far as is known."""


class Delivery(Answers[str, Mapping[ChunkId, GridError], None]):
    """Over once every server has answered, or enough of them and the others are late.

    A server that is late counts as one that failed (S16): how many must have a chunk is for whoever
    sent it to judge, by what has been stored without it.

    :param sent: the answer of each server.
    :param enough: servers that stored everything, by which the others are measured.
    :ivar outcomes: of those that have answered, and of those that are late.
    """

    def __init__(
        self,
        clock: IReactorTime,
        sent: Mapping[str, Deferred[Mapping[ChunkId, GridError]]],
        enough: int,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._enough = enough
        self._begun_at = clock.seconds()
        self._whole = 0  # how many stored everything
        self.outcomes: dict[str, Outcome] = {}
        self.left.update(sent)  # all of them, before the first is judged
        for server, answer in sent.items():
            self.wait_for(server, answer)

    def judge(self, asked: str, outcome: Mapping[ChunkId, GridError] | Failure) -> None:
        if isinstance(outcome, Failure):
            assert isinstance(outcome.value, GridError)
            self.outcomes[asked] = outcome.value
        else:
            self.outcomes[asked] = outcome
            self._whole += not outcome
        if not self.left:
            self.end(None)
        elif self.timer is None and self._whole >= self._enough:
            took_seconds = self._clock.seconds() - self._begun_at
            seconds = max(LEAST_LATE_SECONDS, LATE_FACTOR * took_seconds)
            self.timer = self._clock.callLater(seconds, self._late)

    def _late(self) -> None:
        seconds = self._clock.seconds() - self._begun_at
        for server in self.left:
            self.outcomes[server] = Unavailable(f"no answer in {seconds:.1f} s, unlike others")
        self.end(None)
