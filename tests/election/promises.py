"""What must be true of every run of a cluster, whatever befell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from filegrid.election.messages import Ballot, Message, Vote
from filegrid.election.quorum import Member
from filegrid.election.table import State

if TYPE_CHECKING:
    from tests.election.cluster import Cluster, Log, Node


class Broken(Exception):
    """A promise was not kept."""


class Promises:
    """Looks on, and raises :class:`Broken`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._votes: dict[tuple[Member, int], Member] = {}
        self._elected: dict[int, tuple[Member, Log]] = {}
        self._committed: dict[int, Log] = {}
        self._served_epoch = 0

    @property
    def elections(self) -> int:
        return len(self._elected)

    @property
    def commits_longest(self) -> int:
        return max(map(len, self._committed.values()), default=0)

    def _check(self, kept: bool, promise: str) -> None:
        if not kept:
            raise Broken(f"at {self._cluster.now:.3f}: {promise}")

    def look(self) -> None:
        """At any instant one serves at most, in an epoch that never falls."""
        leading = [node for node in self._cluster.up if node.bully.state is State.LEADING]
        if len(leading) == 1 and leading[0].bully.epoch == self._served_epoch:
            return
        serving = [node.bully for node in leading if node.bully.may_serve(node.now)]
        self._check(len(serving) <= 1, f"two serve at once: {[bully.me.name for bully in serving]}")
        for bully in serving:
            self._check(bully.epoch >= self._served_epoch, "an older epoch is served again")
            self._served_epoch = bully.epoch

    def stores(self, node: Node, ballot: Ballot) -> None:
        before = node.stored_ballot.epoch
        self._check(ballot.epoch > before, f"{node.member} stores {ballot} after epoch {before}")
        if ballot.candidate == node.member:
            self._votes_for(node, ballot.epoch, node.member)

    def sends(self, node: Node, message: Message, to: Member) -> None:
        if isinstance(message, Vote):
            kept = node.stored_ballot == Ballot(message.epoch, to)
            self._check(kept, f"the vote of {node.member} is said before it is stored")
            self._votes_for(node, message.epoch, to)

    def _votes_for(self, node: Node, epoch: int, candidate: Member) -> None:
        before = self._votes.setdefault((node.member, epoch), candidate)
        self._check(before == candidate, f"{node.member} votes twice in epoch {epoch}")

    def elected(self, node: Node, epoch: int) -> None:
        """One to an epoch, and it has all that was committed in earlier ones."""
        self._check(epoch not in self._elected, f"two are elected in epoch {epoch}")
        self._check(epoch > node.log[-1].epoch, f"{node.member} resumes its epoch {epoch}")
        self._elected[epoch] = (node.member, node.stored_log)
        for other, log in self._committed.items():
            self._check_complete(other, log, epoch)

    def commits(self, node: Node, epoch: int, log: Log) -> None:
        """Whatever is acknowledged stays, in every later reign, also in one that has begun."""
        self._committed[epoch] = log
        for later in self._elected:
            self._check_complete(epoch, log, later)

    def _check_complete(self, epoch: int, log: Log, later: int) -> None:
        leader, leader_log = self._elected[later]
        if later > epoch:
            kept = leader_log[: len(log)] == log
            self._check(kept, f"{leader} of epoch {later} lacks what epoch {epoch} committed")
