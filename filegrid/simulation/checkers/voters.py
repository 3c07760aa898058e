"""Who votes changes step by step."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from filegrid.simulation.checkers.checker import Checker

if TYPE_CHECKING:
    from filegrid.election.quorum import Member
    from filegrid.head.service import Head
    from filegrid.simulation.campaign import Campaign


class OneByOne(Checker):
    """A leader changes the voters by one, and not again before that is committed (S7).

    Two majorities that share no head, as it takes for two leaders or two histories, are rare even
    where nobody keeps to this; so the rule itself is watched.
    """

    promise = "the heads that vote change one at a time, each change committed before the next"

    def __init__(self, campaign: Campaign) -> None:
        super().__init__(campaign)
        self._seen: dict[Member, int] = {}

    def look(self) -> None:
        for head in self.campaign.running_heads():
            if head.leads:
                index, me = head._log._configurations[-1][0], head._council.me
                if self._seen.get(me) != index:
                    self._seen[me] = index
                    self._judge(head)

    def _judge(self, leader: Head) -> None:
        log = leader._log
        for (before, old), (index, new) in pairwise(log._configurations):
            if len(old ^ new) > 1:
                raise self.broken(f"{_names(new)} vote at {index}, and {_names(old)} at {before}")
        changing = [index for index, _ in log._configurations if index > log.commit_index]
        if len(changing) > 1:
            raise self.broken(f"{leader._council.me} began the changes {changing} at once")


def _names(voters: frozenset[Member]) -> str:
    return ", ".join(sorted(map(str, voters))) or "none"
