"""Who takes part in an election, and how many make a majority."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A node with its data folder: one whose disk was wiped is another member (S2)."""

    name: str
    incarnation: bytes = b""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Membership:
    """The configuration of the cluster, as the newest entry of the log has it.

    It may be replaced by one with a single voter more or less, once the one before it is
    committed (S7): the majorities of two such neighbours always share a member.

    :param voters: who votes and counts.
    :param learners: who is told who leads, and neither votes nor counts.
    """

    voters: frozenset[Member]
    learners: frozenset[Member] = frozenset()

    @property
    def majority(self) -> int:
        """Of all voters, whether they can be reached or not."""
        return len(self.voters) // 2 + 1

    def has_majority(self, members: Collection[Member]) -> bool:
        """Whether enough of `members` are voters, in their configured incarnations (S2)."""
        return len(self.voters.intersection(members)) >= self.majority

    def besides(self, member: Member) -> list[Member]:
        """Everybody else, learners included, in a fixed order."""
        return sorted((self.voters | self.learners) - {member})

    def voters_besides(self, member: Member) -> list[Member]:
        return sorted(self.voters - {member})
