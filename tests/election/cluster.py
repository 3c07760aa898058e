"""A cluster of members with logs, on a simulated network, disk and clocks, from one seed.

Each member drives the machine as a head does: what it says waits for its ballot, its log is taken
from whom it obeys, and its acknowledgements are checked again after the sync. The checkers
(:mod:`tests.election.promises`) look on after every event.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from filegrid.election.bully import Bully
from filegrid.election.events import (
    Configure,
    Effect,
    Event,
    Follow,
    HandOver,
    Lead,
    Received,
    Send,
    StepDown,
    Store,
    Stored,
    Tick,
    Transfer,
    Unreachable,
)
from filegrid.election.lease import Timing
from filegrid.election.messages import Ballot, Election, LogPosition, Message
from filegrid.election.quorum import Member, Membership
from filegrid.election.table import State
from tests.election.promises import Promises

LEASE_SECONDS = 1.0
QUICK_SECONDS = Timing(lease_seconds=LEASE_SECONDS).reply_seconds / 4
"""What a message and a sync take at most when all is well."""


@dataclass(frozen=True, slots=True)
class Entry:
    epoch: int
    number: int
    membership: Membership | None = None


Log: TypeAlias = tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Append:
    """All of the leader's log: a small one, so that shipping needs no catching up."""

    epoch: int
    log: Log


@dataclass(frozen=True, slots=True)
class Acknowledged:
    epoch: int
    length: int


def position(log: Log) -> LogPosition:
    return LogPosition(log[-1].epoch, len(log)) if log else LogPosition()


def newest_membership(log: Log) -> Membership:
    configured = (entry.membership for entry in reversed(log) if entry.membership is not None)
    return next(configured, Membership(frozenset()))


@dataclass(slots=True)
class Weather:
    """How messages, disks and processes fare."""

    loss: float = 0.0
    repeat: float = 0.0
    late: float = 0.0
    late_seconds: float = 0.0
    usual_seconds: float = QUICK_SECONDS
    sync_seconds: float = QUICK_SECONDS
    busy: float = 1.0  # how many beats bring a change


CALM = Weather()


def stormy(random: random.Random) -> Weather:
    return Weather(
        loss=random.choice((0.0, 0.1)),
        repeat=0.05,
        late=random.choice((0.0, 0.15)),
        late_seconds=1.2 * LEASE_SECONDS,
        usual_seconds=random.choice((0.002, QUICK_SECONDS)),
        sync_seconds=random.choice((0.002, QUICK_SECONDS, 0.15)),
        busy=random.choice((0.0, 0.1, 1.0)),
    )


class Node:
    """One machine: what is on its disk, its clock, and the process that runs on it, if any."""

    def __init__(self, cluster: Cluster, name: str, log: Log) -> None:
        self.cluster = cluster
        self.member = Member(name, b"1")
        self.priority = cluster.random.choice((0, 0, 1))
        bound = cluster.timing.clock_rate_bound
        self.rate = cluster.random.choice((1.0, bound))
        self.offset = cluster.random.uniform(0, 100)
        self.stored_ballot = Ballot()
        self.stored_log = log
        self.log = log
        self.bully: Bully
        self.up = False
        self.run = 0
        self.paused_until = 0.0
        self.disk: deque[Callable[[], object]] = deque()
        self.synced_at = 0.0
        self.wake_number = 0
        self.acknowledged: dict[Member, int] = {}
        self.committed = 0

    @property
    def now(self) -> float:
        return self.offset + self.rate * self.cluster.now

    # The process

    def start(self) -> None:
        self.run += 1
        self.log = self.stored_log
        self.acknowledged, self.committed = {}, 0
        self.bully = self.cluster.make(
            self.member,
            priority=self.priority,
            membership=newest_membership(self.log),
            ballot=self.stored_ballot,
            log=position(self.log),
            timing=self.cluster.timing,
            random=self.cluster.random,
            now=self.now,
        )
        self.up = True
        self._wake()

    def crash(self) -> None:
        self.run += 1
        self.disk.clear()
        self.up = False

    def wipe(self) -> None:
        """A new disk: another incarnation, which knows nothing (S2)."""
        self.crash()
        self.member = Member(self.member.name, self.member.incarnation + b"1")
        self.stored_ballot, self.stored_log = Ballot(), ()

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        """Work of this run of the process: not while it is paused, and not after a crash."""
        run = self.run

        def wake() -> None:
            if self.run != run:
                return
            if self.cluster.now < self.paused_until:
                self.cluster.at(self.paused_until, wake)
            else:
                work()

        self.cluster.at(self.cluster.now + seconds, wake)

    def sync(self, work: Callable[[], object]) -> None:
        """The disk is slow, and serial; a crash before it is done loses what it was doing."""
        usual = self.cluster.weather.sync_seconds
        seconds = self.cluster.random.uniform(0, usual)
        self.synced_at = max(self.synced_at, self.cluster.now + seconds)
        self.disk.append(work)
        self.later(self.synced_at - self.cluster.now, lambda: self.disk.popleft()())

    # The machine

    def handle(self, event: Event) -> None:
        for effect in self.bully.handle(event, self.now):
            self._carry_out(effect)
        self._wake()

    def _wake(self) -> None:
        self.wake_number += 1
        number = self.wake_number
        if self.bully.wake_at < float("inf"):
            seconds = max(0.0, (self.bully.wake_at - self.now) / self.rate)
            lateness = self.cluster.random.uniform(1e-6, 0.002)
            self.later(seconds + lateness, lambda: self._tick(number))

    def _tick(self, number: int) -> None:
        if number == self.wake_number:
            self.handle(Tick())

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(to, message):
                self.cluster.promises.sends(self, message, to)
                self.cluster.send(self, to, message)
                if isinstance(message, Election) and not self.cluster.node(to.name).up:
                    self.later(0, lambda: self.handle(Unreachable(to)))
            case Store(ballot):
                self.sync(lambda: self._stored(ballot))
            case Lead(epoch):
                self.acknowledged, self.committed = {}, 0
                self.cluster.promises.elected(self, epoch)
                self.append(None)
            case Transfer(target):
                if self.acknowledged.get(target) == len(self.log):
                    self.later(0, lambda: self.hand_over(target))
            case StepDown() | Follow():
                pass

    def hand_over(self, target: Member) -> None:
        self.handle(HandOver(target))

    def _stored(self, ballot: Ballot) -> None:
        self.cluster.promises.stores(self, ballot)
        self.stored_ballot = ballot
        self.handle(Stored(ballot))

    # The log

    def append(self, membership: Membership | None) -> None:
        """As leader: take an entry, and ship all of the log."""
        epoch = self.bully.epoch
        self.cluster.entries += 1
        log = (*self.log, Entry(epoch, self.cluster.entries, membership))
        self._set_log(log)

        def synced() -> None:
            self._set_stored_log(log)
            if self.leads(epoch):
                self._acknowledged(self.member, len(log))

        self.sync(synced)
        self.ship()

    def ship(self) -> None:
        for member in newest_membership(self.log).besides(self.member):
            self.cluster.send(self, member, Append(self.bully.epoch, self.log))

    def leads(self, epoch: int) -> bool:
        return self.bully.state is State.LEADING and self.bully.epoch == epoch

    def receive(self, sender: Member, message: Message | Append | Acknowledged) -> None:
        match message:
            case Append(epoch, log):
                self._take(sender, epoch, log)
            case Acknowledged(epoch, length):
                if self.leads(epoch):
                    self._acknowledged(sender, length)
            case _:
                self.handle(Received(sender, message))

    def _take(self, sender: Member, epoch: int, log: Log) -> None:
        if not self.bully.obeys(sender, epoch):
            return
        if self.log[: len(log)] != log:
            self._set_log(log)
        snapshot = self.log

        def synced() -> None:
            self._set_stored_log(snapshot)
            if self.bully.obeys(sender, epoch):
                member = self.cluster.node(sender.name).member
                self.cluster.send(self, member, Acknowledged(epoch, len(log)))

        self.sync(synced)

    def _set_log(self, log: Log) -> None:
        before, self.log = newest_membership(self.log), log
        if newest_membership(log) != before:
            self.handle(Configure(newest_membership(log)))

    def _set_stored_log(self, log: Log) -> None:
        self.stored_log = log
        self.bully.log = position(log)

    def _acknowledged(self, member: Member, length: int) -> None:
        self.acknowledged[member] = max(length, self.acknowledged.get(member, 0))
        voters = newest_membership(self.log).voters
        lengths = sorted((self.acknowledged.get(voter, 0) for voter in voters), reverse=True)
        length = lengths[len(voters) // 2]
        if length > self.committed and self.log[length - 1].epoch == self.bully.epoch:
            self.committed = length
            self.cluster.promises.commits(self, self.bully.epoch, self.log[:length])

    def change_membership(self) -> None:
        """As leader: take wiped members out and in again, one committed change at a time (S7)."""
        membership = newest_membership(self.log)
        last = max(i for i, entry in enumerate(self.log) if entry.membership is not None)
        if last >= self.committed:
            return
        for node in self.cluster.nodes:
            old = {voter for voter in membership.voters if voter.name == node.member.name}
            if node.member in old:
                continue
            if node.member not in membership.learners:
                learners = membership.learners | {node.member}
                self.append(Membership(membership.voters - old, learners))
            elif self.acknowledged.get(node.member, 0) >= self.committed:
                learners = membership.learners - {node.member}
                self.append(Membership(membership.voters | {node.member}, learners))
            else:
                continue
            return


class Cluster:
    """:param make: the machine to try, or one with a fault planted."""

    def __init__(self, seed: int, size: int, make: type[Bully] = Bully) -> None:
        self.random = random.Random(seed)
        self.make = make
        self.now = 0.0
        bound = self.random.choice((1.1, 1.4))
        self.timing = Timing(lease_seconds=LEASE_SECONDS, clock_rate_bound=bound)
        self.weather = stormy(self.random)
        self.cut: set[tuple[str, str]] = set()
        self.slow: dict[tuple[str, str], float] = {}
        self.entries = 0
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._number = 0
        names = [f"m{number}" for number in range(1, size + 1)]
        voters = frozenset(Member(name, b"1") for name in names)
        self.nodes = [Node(self, name, (Entry(0, 0, Membership(voters)),)) for name in names]
        self._by_name = {node.member.name: node for node in self.nodes}
        self.promises = Promises(self)
        for node in self.nodes:
            node.start()
        self.at(0.1, self._beat)

    def node(self, name: str) -> Node:
        return self._by_name[name]

    @property
    def up(self) -> list[Node]:
        return [node for node in self.nodes if node.up]

    def serving(self) -> Node | None:
        """Whoever may serve now."""
        return next((n for n in self.up if n.bully.may_serve(n.now)), None)

    def at(self, when: float, work: Callable[[], object]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (when, self._number, work))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Returns whether `until` came true in that time."""
        end_at = self.now + seconds
        while not until():
            if self._queue[0][0] > end_at:
                self.now = end_at
                return until()
            self.now, _, work = heapq.heappop(self._queue)
            work()
            self.promises.look()
        return True

    def send(self, source: Node, to: Member, message: Message | Append | Acknowledged) -> None:
        target, sender = self.node(to.name), source.member
        way = (sender.name, to.name)

        def deliver() -> None:
            if target.up and target.member == to:
                target.later(0, lambda: target.receive(sender, message))

        for _ in range(2 if self.random.random() < self.weather.repeat else 1):
            if way in self.cut or self.random.random() < self.weather.loss:
                continue
            seconds = self.random.uniform(0.0005, self.weather.usual_seconds)
            seconds += self.slow.get(way, 0.0)
            if self.random.random() < self.weather.late:
                seconds += self.random.uniform(0, self.weather.late_seconds)
            self.at(self.now + seconds, deliver)

    def _beat(self) -> None:
        """Leaders take entries, also those that may not know yet that they lead no more."""
        for node in self.up:
            if node.bully.state is State.LEADING and self.now >= node.paused_until:
                node.change_membership()
                if self.random.random() < self.weather.busy:
                    node.append(None)
                else:
                    node.ship()
        self.at(self.now + 0.25 * LEASE_SECONDS, self._beat)
