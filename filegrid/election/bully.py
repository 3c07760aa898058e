"""The Bully, made safe: one member's part in an election, as a state machine.

Of the members that reach each other the highest in :class:`~filegrid.election.messages.Rank` ought
to lead; it does so only with the votes of a majority of all voters for a new epoch, and serves only
while a majority grants it a lease. The first is the Bully's (Garcia-Molina 1982), for progress; the
second, for safety, is as in Raft (Ongaro 2014). ``docs/election.md`` argues why this holds.

Nothing here reads a clock, sends or stores: events go in with the time of this member's own clock,
effects come out. The table says which method answers which input in which state.
"""

from __future__ import annotations

import math
from random import Random

from filegrid.election.events import (
    Claim,
    Configure,
    Effect,
    Event,
    HandOver,
    Lead,
    Send,
    Stored,
    Suspect,
    Tick,
    Transfer,
    Unreachable,
)
from filegrid.election.lease import Hold, Timing
from filegrid.election.messages import (
    Answer,
    Ballot,
    Coordinator,
    Election,
    LeaseGrant,
    LogPosition,
    Message,
    PreVote,
    Rank,
    Release,
    Renewal,
    Stale,
    TransferLeadership,
    Vote,
    VoteRequest,
)
from filegrid.election.quorum import Member, Membership
from filegrid.election.round import Round
from filegrid.election.table import (
    CANDIDATE,
    DEFERRING,
    FOLLOWING,
    LEADING,
    PASSIVE,
    STANDING,
)
from filegrid.election.voter import Reign, Voter


class Bully(Voter):
    """One member, from its start to its end.

    :param me: this member, in the incarnation of its data folder.
    :param priority: the higher is preferred, among members with equal logs.
    :param membership: as of the newest configuration in its log.
    :param ballot: what was stored last; of epoch 0 in a new data folder.
    :param log: the end of its log; in a cluster without a log, always the same.
    :param now: of a clock that never goes back and counts while the machine sleeps.
    """

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
        super().__init__(
            me,
            priority=priority,
            membership=membership,
            ballot=ballot,
            log=log,
            timing=timing,
            random=random,
            now=now,
        )
        self._heard_epoch = 0  # of a member that could not follow
        self._round = Round(me, 0, now)
        self._hold = Hold(timing, now)

    # What the outside asks

    def may_serve(self, now: float) -> bool:
        """Whether this member leads and holds the lease: nobody else does then (S5).

        Ask with a fresh `now` after the state was read, and answer only if this is still true.
        """
        return now < self.serves_until

    @property
    def serves_until(self) -> float:
        """Up to when it may serve, unless an event changes that; before all time: it may not."""
        if self.state is not LEADING:
            return -math.inf
        return self._hold.until(self.me, self._membership)

    @property
    def wake_at(self) -> float:
        """When :class:`Tick` is due next; infinity where only another event can change anything."""
        if self.state is LEADING:
            return min(self._hold.renew_at, self._lapses_at())
        if self.state is PASSIVE or self._ballots.storing:
            return math.inf
        return self._stands_at() if self.state is FOLLOWING else self._round.closes_at

    def handle(self, event: Event, now: float) -> tuple[Effect, ...]:
        self._now = now
        if self.state is LEADING and now >= self._lapses_at():
            self._dispatch(Tick())  # one that was paused learns first that its time is over
        return super().handle(event, now)

    # Standing for election

    def _rank(self) -> Rank:
        return Rank(self.log, self._priority, self.me.name)

    def _to_voters(self, message: Message) -> list[Effect]:
        return [Send(member, message) for member in self._membership.voters_besides(self.me)]

    def _rise(self, _: Tick) -> None:
        if not self._ballots.storing and self._now >= self._stands_at():
            self._stand()

    def _stand(self, *, insists: bool = False) -> None:
        """Ask first, raising nobody's epoch; one that is cut off gets no further (S6)."""
        self._become(STANDING)
        self.leader = None
        epoch = max(self.epoch, self._heard_epoch, self.log.epoch) + 1
        closes_at = self._now + self._timing.reply_seconds
        self._round = Round(self.me, epoch, closes_at, insists=insists)
        self._out += self._to_voters(Election(epoch, self.log, self._priority))

    def _consider(self, message: Election) -> None:
        """Tell one below to wait, and whoever would get the vote that it would."""
        if message.epoch <= self.epoch:
            self._send(self._sender, Stale(self.epoch))
        is_below = Rank(message.log, message.priority, self._sender.name) < self._rank()
        wait_seconds = self._stands_at() - self._now
        is_able = (
            self.state is not PASSIVE
            and not self._ballots.storing
            and wait_seconds <= self._timing.spread_seconds
        )
        backs = self._would_vote(message.epoch, message.log)
        if is_below and is_able:
            self._send(self._sender, Answer(message.epoch, backs))
        elif backs:
            self._send(self._sender, PreVote(message.epoch))
        if is_below and is_able and wait_seconds <= 0 and self.state is FOLLOWING:
            self._stand()

    def _defer(self, message: Answer) -> None:
        """Wait once, then stand all the same: one that is not heard must block nobody (S6)."""
        if message.epoch != self._round.epoch or self._sender not in self._membership.voters:
            return
        if not self._round.insists:
            self._become(DEFERRING)
            self._round.closes_at = self._now + self._timing.defer_seconds
        elif message.backs:
            self._round.backed(self._sender)
            self._run_if_complete()

    def _insist(self, _: Tick) -> None:
        if self._now >= self._round.closes_at:
            self._stand(insists=True)

    def _back(self, message: PreVote) -> None:
        if message.epoch == self._round.epoch:
            self._round.backed(self._sender)
            self._run_if_complete()

    def _miss(self, event: Unreachable) -> None:
        """A dead leader's link broke when it died: a failover does not wait for its reply."""
        self._round.missed(event.member)
        self._run_if_complete()

    def _run_if_complete(self) -> None:
        if self._round.is_complete(self._membership):
            self._run_if_backed()

    def _close_round(self, _: Tick) -> None:
        if self._now >= self._round.closes_at:
            self._run_if_backed()
            if self.state is STANDING:
                self._retreat()

    def _run_if_backed(self) -> None:
        if self._round.is_carried(self._membership):
            self._become(CANDIDATE)
            epoch = self._round.epoch
            self._round = Round(self.me, epoch, math.inf)  # it begins once one's own vote is stored
            requests = self._to_voters(VoteRequest(epoch, self.log))
            self._out.append(self._ballots.store(Ballot(epoch, self.me), requests))

    def _give_up(self, _: Tick) -> None:
        if self._now >= self._round.closes_at:
            self._retreat()

    def _retreat(self) -> None:
        """For a while left to chance, so that two who split the votes do not do so again."""
        self._become(FOLLOWING)
        self._rest(self._timing.reply_seconds * self._random.uniform(0.5, 2))

    def _count(self, message: Vote) -> None:
        if message.epoch == self._round.epoch:
            self._round.backed(self._sender)
            self._lead_if_elected()

    def _stored(self, event: Stored) -> None:
        super()._stored(event)
        if self.state is CANDIDATE:
            self._round.closes_at = self._now + self._timing.reply_seconds
            self._lead_if_elected()

    def _lead_if_elected(self) -> None:
        if self._round.is_carried(self._membership) and not self._ballots.storing:
            self._become(LEADING)
            self.leader = self.me
            self._reign = Reign(self.epoch, self.me, self._priority)
            self._hold = Hold(self._timing, self._now)
            self._out.append(Lead(self.epoch))
            self._renew(Coordinator)

    # Leading

    def _lapses_at(self) -> float:
        return self._hold.lapses_at(self.me, self._membership)

    def _renew(self, kind: type[Coordinator | Renewal]) -> None:
        message = kind(self.epoch, self._hold.renew(self._now), self._priority)
        for member in self._membership.besides(self.me):
            self._send(member, message)

    def _extend(self, message: LeaseGrant) -> None:
        if message.epoch == self.epoch:
            self._hold.granted(self._sender, message.sequence)

    def _reign_on(self, _: Tick) -> None:
        if self._now >= self._lapses_at():
            self._step_down("no majority renewed the lease")
        elif self._now >= self._hold.renew_at:
            self._renew(Renewal)

    def _overtaken(self, message: Stale) -> None:
        """A leader that a member can follow no more stands again, above that member's epoch."""
        if self._sender in self._membership.besides(self.me):
            self._heard_epoch = max(self._heard_epoch, message.epoch)
            if self.state is LEADING and message.epoch > self.epoch:
                self._step_down("a member is in a later epoch")

    def _release(self, reason: str, target: Member | None = None) -> None:
        """Step down so that others need not wait for the lease to run out (S6)."""
        self._step_down(reason)
        for member in self._membership.besides(self.me):
            self._send(member, Release(self.epoch, target))

    def _asked(self, message: TransferLeadership) -> None:
        is_preferred = message.priority > self._priority
        if message.epoch == self.epoch and is_preferred and self._sender in self._membership.voters:
            self._out.append(Transfer(self._sender))

    def _hand_over(self, event: HandOver) -> None:
        self._release("handed over", event.target)
        self._rest(self._timing.patience_seconds)

    # Under another leader

    def _suspect(self, event: Suspect) -> None:
        """Grant that leader nothing for a while; a stale verdict is nothing (S6)."""
        if event.epoch < self.epoch:
            return
        self._suspected = (event.leader, event.epoch)
        self._suspects_until = self._now + self._timing.rest_seconds
        if self.state is LEADING and self._suspected == (self.me, self.epoch):
            self._release("a majority of the health nodes finds it unfit")
            self._rest(self._timing.rest_seconds)

    def _released(self, message: Release) -> None:
        """The lease is over before its time: its target stands, the others leave it the way."""
        if message.epoch != self.epoch or self._ballots.storing:
            return
        self._abstention.released(self._sender, message.epoch)
        if self.state is FOLLOWING and self.leader == self._sender:
            self.leader = None
            if message.target == self.me:
                # It may have left the way to that leader a moment ago: now the way is its own.
                self._rests_until = self._now
                if self._now >= self._stands_at():
                    self._stand(insists=True)
            elif message.target is not None:
                self._rest(self._timing.patience_seconds)

    def _claim(self, _: Claim) -> None:
        if self.leader is not None and self._reign.priority < self._priority:
            self._send(self.leader, TransferLeadership(self.epoch, self._priority))

    def _configure(self, event: Configure) -> None:
        self._membership = event.membership
        has_vote = self.me in event.membership.voters
        if has_vote and self.state is PASSIVE:
            self._become(FOLLOWING)
            self.leader = None  # as a voter it follows only once that epoch is stored
            self._rest(self._timing.lease_seconds)  # its leader is about to be heard
        elif not has_vote and self.state is not PASSIVE:
            if self.state is LEADING:
                self._release("it has no vote any more")
            self._become(PASSIVE)
