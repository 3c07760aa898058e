"""Everything that may go wrong, by chance from the seed, and the calm after it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from filegrid.election.bully import Bully
from filegrid.election.events import Claim, Suspect
from filegrid.election.messages import Rank
from filegrid.election.quorum import Member
from tests.election.cluster import CALM, LEASE_SECONDS, Cluster, Node, newest_membership
from tests.election.promises import Broken

STORM_SECONDS = 12 * LEASE_SECONDS
ELECTED_WITHIN_SECONDS = 6 * LEASE_SECONDS
"""The bound that the documentation states: all that can hold an election up has passed by then."""


class Storm:
    """Breaks what it can of a cluster, but wipes no majority of it (S3)."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.random = cluster.random
        self._wiped: set[str] = set()
        self._over_at = cluster.now + STORM_SECONDS
        self._strikes_per_second = self.random.choice((0.7, 2.5)) / LEASE_SECONDS
        self._next()

    def _next(self) -> None:
        seconds = self.random.expovariate(self._strikes_per_second)
        self.cluster.at(self.cluster.now + seconds, self._strike)

    def _strike(self) -> None:
        if self.cluster.now >= self._over_at:
            return
        strikes = (self._cut, self._slow, self._pause, self._crash, self._suspect, self._claim)
        against_leader = (self._isolate, self._eclipse, self._coup, self._lose_sight)
        self.random.choice(self.random.choice((strikes, against_leader)))()
        self._next()

    def _seconds(self) -> float:
        return self.random.choice((0.1, 0.5, 1, 2)) * self.random.uniform(0.5, 1.5) * LEASE_SECONDS

    def _node(self) -> Node:
        """Any node, the leader more often."""
        serving = self.cluster.serving()
        if serving is not None and self.random.random() < 0.4:
            return serving
        return self.random.choice(self.cluster.nodes)

    def _cut(self) -> None:
        """One way, or both, to one other or to all."""
        node = self._node()
        others = [other for other in self.cluster.nodes if other is not node]
        if self.random.random() < 0.5:
            others = [self.random.choice(others)]
        ways = self.random.choice(((True, False), (False, True), (True, True)))
        cut = set()
        for other in others:
            here, there = node.member.name, other.member.name
            cut |= {way for way, on in zip(((here, there), (there, here)), ways, strict=True) if on}
        self.cluster.cut |= cut
        self.cluster.at(self.cluster.now + self._seconds(), lambda: self._mend(cut))

    def _slow(self) -> None:
        """Everything on its way to one node takes long, for a while."""
        self._delay(self._node(), self._seconds())

    def _delay(self, node: Node, during_seconds: float) -> None:
        seconds = self.random.uniform(0.2, 0.9) * LEASE_SECONDS
        ways = [(other.member.name, node.member.name) for other in self.cluster.nodes]
        self.cluster.slow |= dict.fromkeys(ways, seconds)
        until = self.cluster.now + during_seconds
        self.cluster.at(until, lambda: [self.cluster.slow.pop(way, None) for way in ways])

    def _eclipse(self) -> None:
        """What the leader hears is old, and soon it is not heard itself."""
        leader = self.cluster.serving()
        if leader is not None:
            self._delay(leader, 3 * LEASE_SECONDS)
            name = leader.member.name
            cut = {(name, other.member.name) for other in self.cluster.nodes}
            cut_at = self.cluster.now + self.random.uniform(0, 1.5) * LEASE_SECONDS
            self.cluster.at(cut_at, lambda: self.cluster.cut.update(cut))
            self.cluster.at(cut_at + 2 * LEASE_SECONDS, lambda: self._mend(cut))

    def _isolate(self) -> None:
        """The leader hears nobody and is not heard, until another may well have been elected."""
        leader = self.cluster.serving()
        if leader is not None:
            here, there = leader.member.name, [n.member.name for n in self.cluster.nodes]
            cut = {way for name in there for way in ((here, name), (name, here))}
            self.cluster.cut |= cut
            self.cluster.at(self.cluster.now + 2 * LEASE_SECONDS, lambda: self._mend(cut))

    def _lose_sight(self) -> None:
        """One hears the leader no more, and everybody else does."""
        leader = self.cluster.serving()
        if leader is not None:
            other = self.random.choice(self.cluster.nodes)
            cut = {(leader.member.name, other.member.name)}
            self.cluster.cut |= cut
            self.cluster.at(self.cluster.now + 2 * LEASE_SECONDS, lambda: self._mend(cut))

    def _coup(self) -> None:
        """All but the leader are started anew, which it does not learn."""
        leader = self.cluster.serving()
        if leader is not None:
            others = [node for node in self.cluster.nodes if node is not leader]
            here = leader.member.name
            cut = {(here, other.member.name) for other in others}
            self.cluster.cut |= cut
            self.cluster.at(self.cluster.now + self._seconds(), lambda: self._mend(cut))
            for other in others:
                other.crash()
                other.start()

    def _mend(self, cut: set[tuple[str, str]]) -> None:
        self.cluster.cut -= cut

    def _pause(self) -> None:
        node = self._node()
        node.paused_until = max(node.paused_until, self.cluster.now + self._seconds())

    def _crash(self) -> None:
        """Sometimes with the loss of the disk; often started again at once."""
        node = self._node()
        wiped = self._wiped | {node.member.name}
        if self.random.random() < 0.1 and len(wiped) <= (len(self.cluster.nodes) - 1) // 2:
            self._wiped = wiped
            node.wipe()
        else:
            node.crash()
        seconds = self.random.choice((0.001, self._seconds()))
        self.cluster.at(self.cluster.now + seconds, lambda: self._start(node))

    def _start(self, node: Node) -> None:
        if not node.up:
            node.start()

    def _leader(self) -> tuple[Member, int] | None:
        leading = [node.bully for node in self.cluster.up if node.bully.leader]
        bully = self.random.choice(leading) if leading else None
        return (bully.leader, bully.epoch) if bully and bully.leader else None

    def _suspect(self) -> None:
        """A verdict, which some hear."""
        found = self._leader()
        for node in self.cluster.up:
            if found is not None and self.random.random() < 0.7:
                node.later(0.01, partial(node.handle, Suspect(*found)))

    def _claim(self) -> None:
        for node in self.cluster.up:
            node.later(0, partial(node.handle, Claim()))


def heal(cluster: Cluster) -> None:
    cluster.weather = replace(CALM)
    cluster.cut.clear()
    cluster.slow.clear()
    for node in cluster.nodes:
        node.paused_until = 0.0
        if not node.up:
            node.start()


def endure(seed: int, size: int, make: type[Bully] = Bully) -> Cluster:
    """A storm, the calm after it, and the loss of the leader in that calm.

    :raises Broken: where a promise was not kept, or nobody was elected in time.
    """
    cluster = Cluster(seed, size, make)
    Storm(cluster)
    cluster.run(STORM_SECONDS)
    heal(cluster)
    if not cluster.run(ELECTED_WITHIN_SECONDS, lambda: cluster.serving() is not None):
        raise Broken("nobody was elected after the storm")
    cluster.run(4 * LEASE_SECONDS)
    cluster.weather.busy = 0.0
    cluster.run(2 * LEASE_SECONDS)
    _lose_leader(cluster)
    return cluster


def _lose_leader(cluster: Cluster) -> None:
    """The highest of those that are left follows it."""
    leader = cluster.serving()
    if leader is None:
        raise Broken("the leader was lost in the calm")
    leader.crash()
    voters = newest_membership(leader.log).voters
    left = [n for n in cluster.up if n.member in voters]
    assert len(left) >= len(voters) // 2 + 1
    highest = max(left, key=lambda n: Rank(n.bully.log, n.priority, n.member.name))
    if not cluster.run(ELECTED_WITHIN_SECONDS, lambda: cluster.serving() is not None):
        raise Broken("nobody followed the lost leader")
    found = cluster.serving()
    assert found is not None
    if found is not highest:
        raise Broken(f"{found.member} was elected, and {highest.member} is above it")
