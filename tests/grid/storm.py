"""A grid whose heads are killed, cut off and paused by chance, and what its users may never see."""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from filegrid.head.service import Head
from filegrid.protocol.wire import head_pb2
from filegrid.simulation.grid import Machine, SimulatedGrid
from tests.grid.misfortune import Misfortune
from tests.grid.user import Broken, User

STORM_SECONDS = 12.0

CALM_SECONDS = 60.0
"""Within this after the storm everything is whole again, or it never will be."""


class Storm:
    """Some users and much misfortune: :class:`Broken` where users see what they may not."""

    def __init__(self, seed: int, *, heads: int = 3, users: int = 3) -> None:
        names = [f"client-{number + 1}" for number in range(users)]
        self.grid = SimulatedGrid(seed=seed, heads=heads, chunk_servers=4, racks=2)
        self.misfortune = Misfortune(seed, self.grid, names)
        self.grid.start()
        self.grid.advance(1)  # until everybody knows that everybody has a vote
        self.users: list[User] = []
        self.users += [User(self, name) for name in names]
        self._working: list[Deferred[None]] = []
        self._failures: list[Failure] = []

    # From the beginning to the end

    def begin(self) -> None:
        """From now on the users are at work."""
        self._working = [Deferred.fromCoroutine(user.work()) for user in self.users]
        for one in self._working:
            one.addErrback(self._failures.append)

    def rage(self, seconds: float) -> None:
        """Break things by chance, for so long."""
        self.misfortune.begin()
        self.pass_time(seconds)
        self.misfortune.end()

    def finish(self) -> None:
        """Mend everything; then all promises must have been kept.

        :raises Broken: where one was not.
        """
        self.misfortune.heal()
        for user in self.users:
            user.stopping = True
        self.pass_time(CALM_SECONDS, lambda: all(one.called for one in self._working))
        if not all(one.called for one in self._working):
            raise Broken("users are still waiting long after the storm")
        self._check_end()

    @property
    def longest_pause(self) -> float:
        """That a user saw in one operation, in seconds."""
        return max(user.longest_pause for user in self.users)

    def pass_time(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Event by event, looking each time whether two heads lead."""
        clock = self.grid.clock
        end = clock.seconds() + seconds
        while clock.calls and clock.calls[0].getTime() <= end and not until():
            clock.advance(max(0.0, clock.calls[0].getTime() - clock.seconds()))
            self._look()
            if self._failures:
                self._failures[0].raiseException()
        if not until():
            clock.advance(max(0.0, end - clock.seconds()))

    def _look(self) -> None:
        leading = [
            machine
            for machine in self.grid.heads
            if isinstance(machine.node, Head) and machine.node.leads
        ]
        if len(leading) > 1:
            raise Broken(f"two heads lead: {[machine.name for machine in leading]}")

    # What must be true in the end

    def _check_end(self) -> None:
        self._await("nobody leads", lambda: self.grid.leader() is not None)
        self._await("not all heads have a vote", self._all_vote)
        for user in self.users:
            self.ask(user.check())
        self._await("the heads are not alike", self._alike)
        dumps = [self._dump(machine) for machine in self.grid.heads]
        for machine, dump in zip(self.grid.heads, dumps, strict=True):
            if dump != dumps[0]:
                raise Broken(f"the namespace of {machine.name} differs")
        self._await("not every chunk has its replicas", self._whole)
        for user in self.users:
            self.ask(user.client.close())
        gc.collect()

    def _await(self, trouble: str, condition: Callable[[], bool]) -> None:
        end = self.grid.clock.seconds() + CALM_SECONDS
        while not condition():
            if self.grid.clock.seconds() > end:
                raise Broken(f"long after the storm: {trouble}")
            self.pass_time(0.25)

    def ask(self, work: Coroutine[Deferred[Any], Any, Any]) -> Any:
        outcome: list[Any] = []  # of anything, or a Failure
        Deferred.fromCoroutine(work).addBoth(outcome.append)
        self.pass_time(CALM_SECONDS, lambda: bool(outcome))
        if not outcome:
            raise Broken("no answer long after the storm")
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]

    def _all_vote(self) -> bool:
        leader = self.grid.leader()
        if leader is None or not isinstance(leader.node, Head):
            return False
        voters = {(member.name, member.incarnation): member for member in leader.node._log.voters}
        here = {
            (one.name, one.node._council.me.incarnation)
            for one in self.grid.heads
            if isinstance(one.node, Head)
        }
        return set(voters) == here

    def _alike(self) -> bool:
        logs = [one.node._log for one in self.grid.heads if isinstance(one.node, Head)]
        ends = {(log.last_index, log.applied_index) for log in logs}
        return len(logs) == len(self.grid.heads) and len(ends) == 1

    def _dump(self, machine: Machine) -> list[str]:
        assert isinstance(machine.node, Head)
        return list(machine.node._namespace._database.iterdump())

    def _whole(self) -> bool:
        session = self.users[0].client.access.session
        counts = self.ask(session.call(head_pb2.GetStatus(), head_pb2.Status)).chunks
        return bool(counts.healthy == counts.total and not counts.repairing)


def endure(seed: int, *, heads: int = 3) -> Storm:
    """A whole storm, and the calm after it.

    :raises Broken: with what happened before, where a promise was not kept.
    """
    storm = Storm(seed, heads=heads)
    try:
        storm.begin()
        storm.rage(STORM_SECONDS)
        storm.finish()
    except Broken as error:
        raise Broken(
            f"seed {seed}: {error}\n" + "\n".join(storm.misfortune.history[-40:])
        ) from error
    return storm
