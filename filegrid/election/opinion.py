"""What health nodes hold of the head that leads, and when that is a majority's opinion.

Heads and health nodes count by the same rule, each for itself and only what came over the health
node's own link: nobody is believed what others said.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from filegrid.election.quorum import Member
from filegrid.protocol.wire import health_pb2 as wire

FRESH_SECONDS = 3.0
"""What a health node said counts for so long; one that says nothing has no opinion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """Of one health node, about the head that leads now.

    :param evidence: why it is unfit to lead; empty where it is fit.
    """

    leader: Member
    epoch: int
    evidence: str = ""

    @property
    def reign(self) -> tuple[Member, int]:
        return self.leader, self.epoch

    def to_wire(self) -> wire.Opinion:
        return wire.Opinion(
            leader=self.leader.name,
            incarnation=self.leader.incarnation,
            epoch=self.epoch,
            evidence=self.evidence,
        )

    @classmethod
    def from_wire(cls, data: wire.Opinion) -> Opinion:
        leader = Member(data.leader, data.incarnation)
        return cls(leader=leader, epoch=data.epoch, evidence=data.evidence)


class Opinions:
    """The last of each health node.

    :param names: of all health nodes, as configured; what others say does not count.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._held: dict[str, tuple[Opinion, float]] = {}

    def hold(self, name: str, opinion: Opinion | None, now: float) -> None:
        """This is what `name` says now; None: it cannot tell."""
        if opinion is None or name not in self._names:
            self._held.pop(name, None)
        else:
            self._held[name] = (opinion, now)

    def against(self, leader: Member, epoch: int, now: float) -> dict[str, str]:
        """The evidence of every health node that finds this leader, in this epoch, unfit."""
        return {
            name: opinion.evidence
            for name, (opinion, held_at) in sorted(self._held.items())
            if opinion.reign == (leader, epoch)
            and opinion.evidence
            and now - held_at <= FRESH_SECONDS
        }

    def is_majority(self, names: Collection[str]) -> bool:
        """Of all that are configured, whether they can be reached or not."""
        return len(self._names.intersection(names)) > len(self._names) // 2

    def condemned(self, now: float) -> tuple[Member, int] | None:
        """Whom a majority finds unfit, and in which epoch."""
        for leader, epoch in {opinion.reign for opinion, _ in self._held.values()}:
            if self.is_majority(self.against(leader, epoch, now)):
                return leader, epoch
        return None
