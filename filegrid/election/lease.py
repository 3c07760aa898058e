"""The lease of a leader, as it counts it itself and as those count it who grant it (S5).

All of it rests on one bound: of the same stretch of time no member's clock shows more than
`clock_rate_bound` times what another member's shows. Clocks need not agree on what time it is.
They must go on while the machine sleeps (CLOCK_BOOTTIME), and may be read late.

A leader counts `lease_seconds` from before it sent a renewal; a grantor abstains for
`lease_seconds * clock_rate_bound` from when it received that renewal. By the bound the leader's
count has ended whenever the grantor's has. Source: Gray and Cheriton, "Leases", SOSP 1989.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from filegrid.election.quorum import Member, Membership

CLOCK_RATE_BOUND = 1.1
"""A hundred times what quartz drifts and ten times what time daemons slew."""


LEAST_REPLY_SECONDS = 0.2
"""However short the lease is: a vote is synced first, and a disk that is busy takes so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All durations of an election, derived from two numbers; in seconds of one's own clock.

    :param lease_seconds: how long a leader serves after it sent a renewal that a majority granted.
    :param clock_rate_bound: see above; at least 1.
    """

    lease_seconds: float
    clock_rate_bound: float = CLOCK_RATE_BOUND

    @property
    def grant_seconds(self) -> float:
        """How long a grantor abstains from votes, and everybody after a start."""
        return self.lease_seconds * self.clock_rate_bound

    @property
    def renew_seconds(self) -> float:
        """Between two renewals: three may be lost."""
        return self.lease_seconds / 4

    @property
    def reply_seconds(self) -> float:
        """For a request, what is stored for it, and its reply, when all is well."""
        return max(self.lease_seconds / 8, LEAST_REPLY_SECONDS)

    @property
    def settle_seconds(self) -> float:
        """How much later than one's own the grants of others usually end.

        Renewals go to all at once. Who stands in the very moment in which its own grant ends finds
        the others still bound by theirs, and has to ask again.
        """
        return self.lease_seconds / 40

    @property
    def spread_seconds(self) -> float:
        """How much later than one's own the grants of others to a lost leader may end.

        They may have begun by one renewal later, and run on slower clocks.
        """
        slower = self.grant_seconds * (self.clock_rate_bound - 1)
        return self.renew_seconds * self.clock_rate_bound + slower + self.settle_seconds

    @property
    def defer_seconds(self) -> float:
        """How long a candidate waits for one above it that answered (S6).

        Once that one's grant has ended it asks, is voted for and announces itself.
        """
        return self.spread_seconds + self.patience_seconds

    @property
    def patience_seconds(self) -> float:
        """What one leaves to a candidate that one voted for, or that was handed the lead."""
        return 3 * self.reply_seconds * self.clock_rate_bound

    @property
    def rest_seconds(self) -> float:
        """How long a leader that was found useless stays out, so that another gets in; and how
        long it gets no grants, so that it loses its lease where a majority finds it so."""
        return 2 * self.lease_seconds


class Hold:
    """The lease as its leader counts it: each grant from when its renewal was sent."""

    def __init__(self, timing: Timing, now: float) -> None:
        self.renew_at = now
        """When the next renewal is due."""
        self._timing = timing
        self._began_at = now
        self._sequence = 0
        self._sent_at: dict[int, float] = {}
        self._granted_at: dict[Member, float] = {}

    def renew(self, now: float) -> int:
        """The number of a renewal that is sent now, or later."""
        oldest_at = now - self._timing.lease_seconds
        self._sent_at = {n: at for n, at in self._sent_at.items() if at > oldest_at}
        self.renew_at = now + self._timing.renew_seconds
        self._sequence += 1
        self._sent_at[self._sequence] = now
        return self._sequence

    def granted(self, member: Member, sequence: int) -> None:
        """A grant arrived; one of a renewal that is older than a lease is worth nothing."""
        sent_at = self._sent_at.get(sequence, -math.inf)
        self._granted_at[member] = max(sent_at, self._granted_at.get(member, -math.inf))

    def until(self, me: Member, membership: Membership) -> float:
        """When the lease ends that a majority, `me` included, has granted by now.

        Before all time where too few ever granted; never where nobody else has a vote.
        """
        needed = membership.majority - 1
        if needed == 0:
            return math.inf
        others = (self._granted_at.get(m, -math.inf) for m in membership.voters_besides(me))
        return sorted(others, reverse=True)[needed - 1] + self._timing.lease_seconds

    def lapses_at(self, me: Member, membership: Membership) -> float:
        """When to give up: a new leader has one lease's time to get the first grants."""
        return max(
            self.until(me, membership),
            self._began_at + self._timing.lease_seconds,
        )


@dataclass(frozen=True, slots=True)
class _Granted:
    leader: Member
    epoch: int
    until: float


class Abstention:
    """Why a member may not vote now: what it granted, now or before it was started."""

    def __init__(self, timing: Timing, now: float) -> None:
        self._timing = timing
        self._start_until = now + timing.grant_seconds  # what it granted before is forgotten
        self._grant: _Granted | None = None

    def granted(self, leader: Member, epoch: int, now: float) -> None:
        """The lease was granted to a renewal that was received now."""
        self._grant = _Granted(leader, epoch, now + self._timing.grant_seconds)

    def released(self, leader: Member, epoch: int) -> None:
        """That leader serves in that epoch, and in those before it, no more."""
        grant = self._grant
        if grant is not None and grant.leader == leader and grant.epoch <= epoch:
            self._grant = None

    def ends_at(self) -> float:
        """When this member may vote for anybody, and stand itself."""
        return max(self._start_until, self._grant.until if self._grant else -math.inf)

    def allows(self, candidate: Member, epoch: int, now: float) -> bool:
        """Whether a vote in `epoch` could not meet a lease that still runs.

        A leader stops serving before it stands again; so its own lease is no reason against it.
        """
        if now < self._start_until:
            return False
        grant = self._grant
        if grant is None or now >= grant.until:
            return True
        return grant.leader == candidate and grant.epoch < epoch
