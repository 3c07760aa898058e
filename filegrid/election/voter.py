"""What every member of a cluster does, whether it would lead or not: it votes and follows.

The rules are those of Raft (Ongaro 2014), with a lease (Gray and Cheriton 1989) beside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from filegrid.election.ballots import Ballots
from filegrid.election.events import (
    Effect,
    Event,
    Follow,
    Input,
    Received,
    Send,
    StepDown,
    Stored,
    Tick,
)
from filegrid.election.lease import Abstention, Timing
from filegrid.election.messages import (
    Ballot,
    Coordinator,
    LeaseGrant,
    LogPosition,
    Message,
    Renewal,
    Stale,
    Vote,
    VoteRequest,
)
from filegrid.election.quorum import Member, Membership
from filegrid.election.table import FOLLOWING, LEADING, PASSIVE, TABLE, State


@dataclass(frozen=True, slots=True)
class Reign:
    epoch: int
    leader: Member
    priority: int


class Voter:
    """The half of :class:`~filegrid.election.bully.Bully` that votes and follows."""

    def __init__(
        self,
        me: Member,
        *,
        priority: int,
        membership: Membership,
        ballot: Ballot,
        log: LogPosition,
        timing: Timing,
        random: Random,
        now: float,
    ) -> None:
        self.me = me
        self.state = FOLLOWING if me in membership.voters else PASSIVE
        self.leader: Member | None = None
        """Who leads, as far as is known here."""
        self.log = log
        """The end of the log on stable storage; whoever drives this keeps it up to date."""
        self._priority = priority
        self._membership = membership
        self._timing = timing
        self._random = random
        self._ballots = Ballots(ballot)
        self._abstention = Abstention(timing, now)
        self._rests_until = -math.inf
        self._reign = Reign(0, me, 0)  # the last that is known here
        self._suspected: tuple[Member, int] | None = None
        self._suspects_until = -math.inf
        self._now = now
        self._sender = me
        self._input: type[Input] = Tick
        self._out: list[Effect] = []

    @property
    def epoch(self) -> int:
        """The highest epoch that this member took part in; it only rises."""
        return self._ballots.epoch

    def obeys(self, leader: Member, epoch: int) -> bool:
        """Whether entries of this leader may be taken into the log, and acknowledged to it.

        Ask before writing them, and again once they are on stable storage: a vote given meanwhile
        forbids the acknowledgement.
        """
        known = self.leader == leader and self._reign.epoch == epoch
        return known and self.epoch <= epoch and not self._ballots.storing

    def handle(self, event: Event, now: float) -> tuple[Effect, ...]:
        """Take in one event; carry out what comes out, in order."""
        self._now = now
        if isinstance(event, Received):
            assert event.sender != self.me
            self._sender = event.sender
            self._dispatch(event.message)
        else:
            self._dispatch(event)
        effects, self._out = tuple(self._out), []
        return effects

    def _dispatch(self, event: Input) -> None:
        self._input = type(event)
        action = TABLE[self.state, self._input].action
        if action is not None:
            getattr(self, f"_{action}")(event)

    def _become(self, state: State) -> None:
        if state is not self.state:
            assert state in TABLE[self.state, self._input].leads_to, (self.state, self._input)
            self.state = state

    def _send(self, to: Member, message: Message) -> None:
        self._out.append(Send(to, message))

    def _stands_at(self) -> float:
        return max(self._abstention.ends_at() + self._timing.settle_seconds, self._rests_until)

    def _rest(self, seconds: float) -> None:
        """Leave it to others to stand, for so long at least."""
        self._rests_until = max(self._rests_until, self._now + seconds)

    # Votes

    def _would_vote(self, epoch: int, log: LogPosition) -> bool:
        """Never twice in an epoch, never against a lease (S5), never for a log that lacks a part of
        one's own: what a majority holds, every later leader holds."""
        return (
            not self._ballots.storing
            and epoch > self.epoch
            and self._abstention.allows(self._sender, epoch, self._now)
            and log >= self.log
        )

    def _vote(self, message: VoteRequest) -> None:
        """A candidate asks whom its own log names, in this incarnation, as a voter (S2). That says
        more than one's own log, which may end before it: so whoever is asked votes, if need be
        without having heard of its vote (Ongaro 2014, 4.1)."""
        if self._ballots.is_for(self._sender, message.epoch):
            self._send(self._sender, Vote(message.epoch))
        elif message.epoch <= self.epoch:
            self._send(self._sender, Stale(self.epoch))
        elif self._would_vote(message.epoch, message.log):
            self._abstention.released(self._sender, message.epoch - 1)
            if self.state is not PASSIVE:
                self._become(FOLLOWING)
            self.leader = None
            self._rest(self._timing.patience_seconds)
            vote = Send(self._sender, Vote(message.epoch))
            self._out.append(self._ballots.store(Ballot(message.epoch, self._sender), [vote]))

    def _stored(self, event: Stored) -> None:
        self._out += self._ballots.stored(event.ballot)

    # Following

    def _follow(self, message: Coordinator | Renewal) -> None:
        """Grant the lease: no vote against it from now on."""
        epoch, leader = message.epoch, self._sender
        if epoch < self.epoch:
            self._send(leader, Stale(self.epoch))
            return
        if self._ballots.storing or self._suspects(leader, epoch):
            return
        if self.state is LEADING:
            self._step_down("another was elected")
        self._become(FOLLOWING)
        effects = self._note(message)
        self._abstention.granted(leader, epoch, self._now)
        effects.append(Send(leader, LeaseGrant(epoch, message.sequence)))
        if epoch > self.epoch:
            self._out.append(self._ballots.store(Ballot(epoch), effects))
        else:
            self._out += effects

    def _suspects(self, leader: Member, epoch: int) -> bool:
        """For so long that without us it loses its lease. Where it has not, others found it fit,
        and who goes on refusing lacks what is appended."""
        return self._suspected == (leader, epoch) and self._now < self._suspects_until

    def _note(self, message: Coordinator | Renewal) -> list[Effect]:
        """Remember who leads; the effect of that, if it is news."""
        reign = Reign(message.epoch, self._sender, message.priority)
        assert reign.epoch != self._reign.epoch or reign.leader == self._reign.leader, (
            "two lead one epoch",
            reign,
            self._reign,
        )
        is_news = self.leader != reign.leader or self._reign.epoch != reign.epoch
        self.leader, self._reign = reign.leader, reign
        return [Follow(reign.leader, reign.epoch)] if is_news else []

    def _learn(self, message: Coordinator | Renewal) -> None:
        """One without a vote follows too, and grants nothing (S2)."""
        if message.epoch < self.epoch:
            self._send(self._sender, Stale(self.epoch))
        elif message.epoch >= self._reign.epoch:
            self._out += self._note(message)

    def _step_down(self, reason: str) -> None:
        self._become(FOLLOWING)
        self.leader = None
        self._out.append(StepDown(self.epoch, reason))
