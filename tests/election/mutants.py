"""Machines with a fault planted in each: what must break when a rule is switched off."""

from __future__ import annotations

import math
from typing import Any

from filegrid.election.bully import Bully
from filegrid.election.lease import Abstention
from filegrid.election.messages import LeaseGrant, LogPosition, VoteRequest
from filegrid.election.quorum import Member, Membership
from filegrid.election.table import State


class VotesBeforeStoring(Bully):
    """Sends its vote while that is still on its way to the disk."""

    def _vote(self, message: VoteRequest) -> None:
        super()._vote(message)
        self._out += self._ballots._held
        self._ballots._held = ()


class IgnoresLogs(Bully):
    """Votes for whoever asks, whatever is missing in its log."""

    def _would_vote(self, epoch: int, log: LogPosition) -> bool:
        return super()._would_vote(epoch, max(log, self.log))


class CountsFromReceipt(Bully):
    """Lets a grant run from when it arrived, not from when the renewal was sent."""

    def _extend(self, message: LeaseGrant) -> None:
        super()._extend(message)
        if message.epoch == self.epoch:
            self._hold._granted_at[self._sender] = self._now


class _Forgetful(Abstention):
    def allows(self, candidate: Member, epoch: int, now: float) -> bool:
        return now >= self._start_until


class VotesAgainstGrants(Bully):
    """Votes while the lease that it granted still runs."""

    def __init__(self, me: Member, *, now: float, **rest: Any) -> None:
        super().__init__(me, now=now, **rest)
        self._abstention = _Forgetful(self._timing, now)


class VotesAfterStart(Bully):
    """Does not wait for what it may have granted before it was started."""

    def __init__(self, me: Member, **rest: Any) -> None:
        super().__init__(me, **rest)
        self._abstention._start_until = -math.inf


class TrustsClocks(Bully):
    """Abstains as long as the leader counts, as if all clocks went alike."""

    def __init__(self, me: Member, *, now: float, **rest: Any) -> None:
        super().__init__(me, now=now, **rest)
        timing = type(self._timing)(lease_seconds=self._timing.lease_seconds, clock_rate_bound=1.0)
        self._abstention = Abstention(timing, now)


class _Plurality(Membership):
    @property
    def majority(self) -> int:
        return len(self.voters) // 2


class CountsHalves(Bully):
    """Takes one short of a majority for one."""

    def __init__(self, me: Member, *, membership: Membership, **rest: Any) -> None:
        super().__init__(me, membership=_Plurality(membership.voters), **rest)


class ServesWithoutLease(Bully):
    """Believes that it leads until it hears otherwise."""

    def may_serve(self, now: float) -> bool:
        return self.state is State.LEADING


MUTANTS: tuple[type[Bully], ...] = (
    VotesBeforeStoring,
    IgnoresLogs,
    CountsFromReceipt,
    VotesAgainstGrants,
    VotesAfterStart,
    TrustsClocks,
    CountsHalves,
    ServesWithoutLease,
)
