"""What goes into the state machine of an election, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from filegrid.election.messages import Ballot, Message
from filegrid.election.quorum import Member, Membership

# In


@dataclass(frozen=True, slots=True)
class Received:
    """A message came; the link has proved who sent it."""

    sender: Member
    message: Message


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; due at :attr:`filegrid.election.bully.Bully.wake_at`, harmless before."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What :class:`Store` asked for is on stable storage."""

    ballot: Ballot


@dataclass(frozen=True, slots=True)
class Suspect:
    """A majority of the health nodes finds this leader, in this epoch, unfit to lead.

    Whoever feeds it has checked that it was a majority.
    """

    leader: Member
    epoch: int


@dataclass(frozen=True, slots=True)
class Configure:
    """The configuration in the newest entry of one's log, committed or not, is now this (S7)."""

    membership: Membership


@dataclass(frozen=True, slots=True)
class HandOver:
    """Stop leading, for the good of `target`, which has all of the log; None: for anybody's."""

    target: Member | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """This member has caught up with its leader: if it is preferred to it, it asks to lead."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """There was no link on which to send this member what it was asked: no reply will come."""

    member: Member


Input: TypeAlias = Message | Tick | Stored | Suspect | Configure | HandOver | Claim | Unreachable
"""What the table of transitions is keyed by."""

Event: TypeAlias = Received | Tick | Stored | Suspect | Configure | HandOver | Claim | Unreachable

# Out, to be carried out in this order, each begun before the next


@dataclass(frozen=True, slots=True)
class Send:
    """Send it, or lose it; a member that is not connected in this incarnation is not reached."""

    to: Member
    message: Message


@dataclass(frozen=True, slots=True)
class Store:
    """Put it on stable storage in place of the one before, then feed :class:`Stored`.

    What depends on it comes out only then. If it cannot be stored the process must end (S16).
    """

    ballot: Ballot


@dataclass(frozen=True, slots=True)
class Lead:
    """This member leads `epoch`. It must commit a barrier entry of this epoch before it serves a
    read, gives an order or changes the configuration (S4), and it may answer only while
    :meth:`filegrid.election.bully.Bully.may_serve` says so.
    """

    epoch: int


@dataclass(frozen=True, slots=True)
class StepDown:
    """This member leads `epoch` no more: nothing that was begun in it is answered as done."""

    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Follow:
    """Another one leads, and its log is followed now."""

    leader: Member
    epoch: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """A preferred member asks to lead. Stop taking changes, see that `target` has all of the log,
    then feed :class:`HandOver`; or leave it, if that takes longer than users should wait.
    """

    target: Member


Effect: TypeAlias = Send | Store | Lead | StepDown | Follow | Transfer
