"""What members say to each other, and what each remembers.

The names are the field's: ELECTION, ANSWER and COORDINATOR of the Bully (Garcia-Molina, "Elections
in a distributed computing system", 1982), votes as in Raft (Ongaro, "Consensus", 2014).
Any message may be lost, late, repeated or overtaken by a later one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from filegrid.election.quorum import Member


@dataclass(frozen=True, slots=True, order=True)
class LogPosition:
    """The last entry of a log on stable storage: the later epoch is higher, then the index."""

    epoch: int = 0
    index: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """The order of the Bully: the highest that can be reached ought to lead."""

    log: LogPosition
    priority: int
    name: str


@dataclass(frozen=True, slots=True)
class Ballot:
    """What must survive a crash: the highest epoch taken part in, and the vote given there."""

    epoch: int = 0
    candidate: Member | None = None


@dataclass(frozen=True, slots=True)
class Election:
    """Who is above me, and who would vote for me in `epoch`? Raises nobody's epoch (S6)."""

    epoch: int
    log: LogPosition
    priority: int


@dataclass(frozen=True, slots=True)
class Answer:
    """I am above you and able to stand: wait once. Should you insist: whether I would vote for you.

    One message says both, so that neither overtakes the other.
    """

    epoch: int
    backs: bool = False


@dataclass(frozen=True, slots=True)
class PreVote:
    """As far as I know now, I would vote for you in `epoch`."""

    epoch: int


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """Vote for me in `epoch`; I lead in no earlier one any more."""

    epoch: int
    log: LogPosition


@dataclass(frozen=True, slots=True)
class Vote:
    """You have my vote in `epoch`; it is on stable storage."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Coordinator:
    """I was elected and lead `epoch`; grant me the lease."""

    epoch: int
    sequence: int
    priority: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """I still lead `epoch`; grant me the lease anew."""

    epoch: int
    sequence: int
    priority: int


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """From when I received that renewal I vote for nobody else, for one lease times the bound."""

    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Stale:
    """What you said belongs to an epoch that has passed; mine is `epoch`."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Release:
    """I lead `epoch` no more; what you granted me ends now, and `target` should stand first."""

    epoch: int
    target: Member | None


@dataclass(frozen=True, slots=True)
class TransferLeadership:
    """To the leader of `epoch`: I am preferred to you and have caught up; hand over to me."""

    epoch: int
    priority: int


Message: TypeAlias = (
    Election
    | Answer
    | PreVote
    | VoteRequest
    | Vote
    | Coordinator
    | Renewal
    | LeaseGrant
    | Stale
    | Release
    | TransferLeadership
)
