"""The ballot of a member, and what must wait until it is on stable storage."""

from __future__ import annotations

from collections.abc import Sequence

from filegrid.election.events import Effect, Store
from filegrid.election.messages import Ballot
from filegrid.election.quorum import Member


class Ballots:
    """Epochs only rise, and there is one vote in each.

    Of an epoch or a vote nothing is said before it is stored, and while one is being stored no
    other is taken up: a member whose disk hangs takes no part.
    """

    def __init__(self, stored: Ballot) -> None:
        self._ballot = stored
        self._storing = False
        self._held: Sequence[Effect] = ()

    @property
    def epoch(self) -> int:
        """The highest that was taken part in."""
        return self._ballot.epoch

    @property
    def storing(self) -> bool:
        return self._storing

    def is_for(self, candidate: Member, epoch: int) -> bool:
        """Whether this very vote is on stable storage."""
        return not self._storing and self._ballot == Ballot(epoch, candidate)

    def store(self, ballot: Ballot, then: Sequence[Effect]) -> Store:
        """Take up a later epoch; what is `then` to be done is held until it is stored."""
        assert not self._storing and ballot.epoch > self.epoch, (ballot, self._ballot)
        self._ballot, self._held, self._storing = ballot, then, True
        return Store(ballot)

    def stored(self, ballot: Ballot) -> Sequence[Effect]:
        """It is; returns what was held."""
        assert self._storing and ballot == self._ballot, (ballot, self._ballot)
        held, self._held, self._storing = self._held, (), False
        return held
