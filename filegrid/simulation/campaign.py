"""One simulated run: a grid, its clients, a storm of misfortune, a calm, and the promises.

All of it follows from the scenario and the seed. In the storm anything may be refused, and nothing
that was promised may be broken; in the calm everything must heal within a stated time.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from filegrid.chunk.segments import SEGMENT_BYTES
from filegrid.chunk.service import ChunkServer
from filegrid.chunk.volume import Condition
from filegrid.config import Balance
from filegrid.errors import GridError
from filegrid.head.journal import USUAL_SIZES, LogSizes
from filegrid.head.service import Head
from filegrid.model import Role
from filegrid.protocol.wire import head_pb2
from filegrid.simulation.actor import Actor
from filegrid.simulation.checkers import CHECKERS
from filegrid.simulation.checkers.checker import Checker
from filegrid.simulation.grid import Machine, SimulatedGrid, Stuck
from filegrid.simulation.misfortune import LATENCY_SECONDS, Misfortune
from filegrid.simulation.operators import Operators
from filegrid.simulation.promises import Broken
from filegrid.simulation.scenario import Scenario, draw_strikes
from filegrid.simulation.steward import Steward
from filegrid.simulation.trace import Trace
from filegrid.simulation.workload import Shared, User

CALM_SECONDS = 180.0
"""Within this after the storm everything is whole again, or it never will be."""

PROBE_SECONDS = 5.0

TOLD_LINES = 60

LARGE_BYTES = 1 << 34
SMALL_BYTES = 300 * 1024 * 1024
"""Of the chunk servers' disks; of the small ones most is held in reserve, so that a few files
make a difference."""

LOG_SIZES = (
    USUAL_SIZES,
    LogSizes(segment_bytes=20_000, recent_entries=100, checkpoint_entries=300),
    LogSizes(segment_bytes=2000, recent_entries=8, checkpoint_entries=20),
)
SEGMENT_SIZES_BYTES = (SEGMENT_BYTES, 300_000, 60_000)
"""With the small ones logs are cut and segments compacted all the time, and heads that were away
need the whole state."""

HEALING = "the grid heals once its troubles are over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run ended.

    :ivar promise: the first that was broken, or empty; :ivar detail: how.
    :ivar told: what happened last before.
    """

    seed: int
    promise: str
    detail: str
    told: list[str]
    operations: int
    unknown: int
    refused: int
    strikes: dict[str, int]
    longest_pause_seconds: float
    simulated_seconds: float
    digest: str

    @property
    def ok(self) -> bool:
        return not self.promise


class Campaign:
    """A run of one scenario from one seed.

    :ivar operators: the people who tend the grid; :ivar misfortune: all that befalls it.
    :ivar actors: the clients at work; :ivar shared: the files that most of them change.
    :ivar calm: the storm is over: nothing befalls the grid any more, and nothing new is begun.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario = scenario.of(seed)
        self.seed = seed
        rng, kept = self.rng("settings"), self.rng("kept")
        self.grid = SimulatedGrid(
            seed=seed,
            heads=scenario.heads,
            health=scenario.health,
            chunk_servers=scenario.chunk_servers,
            racks=scenario.racks,
            disks=scenario.disks,
            log_sizes=kept.choice(LOG_SIZES),
            segment_bytes=kept.choice(SEGMENT_SIZES_BYTES),
            sections={"balance": Balance(band_percent=2), **scenario.sections},
            replication=scenario.replication,
            min_replicas=scenario.min_replicas,
            trash_seconds=0,
            collection_grace_seconds=rng.choice((1, 5)),
        )
        for machine in self.grid.machines:
            machine.rate = rng.uniform(0.96, 1.04)
        self.trace = Trace(self.grid.clock.seconds)
        self.calm = False
        self.shared = Shared()
        self.actors: list[Actor] = []
        self.operators = Operators(self)
        self.misfortune = Misfortune(self)
        self._capacity_bytes = self.rng("disks").choice((LARGE_BYTES, SMALL_BYTES))
        self._latency_seconds = rng.choice((LATENCY_SECONDS, LATENCY_SECONDS, 0.002, 0.01))
        self._work_seconds = rng.choice((0.0001, 0.0001, 0.001, 0.005))
        self._strikes = draw_strikes(scenario, seed)
        self._working: list[Deferred[None]] = []
        self._failures: list[Failure] = []
        self._next_probe = 0.0
        self._checkers: list[Checker] = []

    def rng(self, what: str) -> random.Random:
        """A source of chance of its own for each purpose: less of one thing changes no other."""
        return random.Random(f"{self.seed} {what}")

    @property
    def seconds(self) -> float:
        """Simulated, since the beginning."""
        return self.grid.clock.seconds()

    def run(self) -> Result:
        """From the beginning to the end, or to the first broken promise."""
        promise = detail = ""
        try:
            self.begin()
            self.pass_time(self.scenario.seconds)
            self.finish()
        except Broken as broken:
            promise, detail = broken.promise, broken.detail
        except Stuck as stuck:
            promise, detail = HEALING, str(stuck)
        finally:
            self.close()
        result = Result(
            seed=self.seed,
            promise=promise,
            detail=detail,
            told=self.trace.tail(TOLD_LINES) if promise else [],
            operations=sum(one.operations for one in self.actors),
            unknown=sum(one.unknown for one in self.actors),
            refused=sum(one.refused for one in self.actors),
            strikes=dict(self.misfortune.applied),
            longest_pause_seconds=max([0.0, *(one.longest_pause_seconds for one in self.actors)]),
            simulated_seconds=self.seconds,
            digest=self.trace.digest(),
        )
        # What killed processes waited for is kept (see process.py), and would be gone through again
        # and again by the collections of all later runs.
        gc.collect()
        gc.freeze()
        return result

    def begin(self) -> None:
        """Start the grid, put the clients to work, and let the strikes come when they will."""
        self.grid.start()
        for machine in self.grid.chunk_servers:
            self.furnish(machine)
        self.grid.advance(1)  # until everybody knows that everybody has a vote
        names = [f"client-{number + 1}" for number in range(self.scenario.clients)]
        self.actors = [User(self, name, self.rng(name)) for name in names]
        self.actors.append(Steward(self, "steward", self.rng("steward")))
        self._checkers = [make(self) for make in CHECKERS]
        self._set_pace()
        self._working = [Deferred.fromCoroutine(one.work()) for one in self.actors]
        for one in self._working:
            one.addErrback(self.failed)
        for strike in self._strikes:
            self.grid.clock.callLater(strike.at, self.misfortune.strike, strike)

    def finish(self) -> None:
        """Mend everything; then all must heal, and all promises must have been kept."""
        self.calm = True
        self.misfortune.heal()
        for actor in self.actors:
            actor.stopping = True
        self.ask(self._calm_down(self._working))
        for checker in self._checkers:
            self.ask(checker.finish())
        self.ask(self.operators.client.close())

    async def _calm_down(self, working: Sequence[Deferred[None]]) -> None:
        waiting = "the clients are still waiting"
        await self.becomes(waiting, lambda: all(one.called for one in working))
        await self.becomes("nobody leads", lambda: self.grid.leader() is not None)
        await self.operators.settle()
        await self.becomes("not all heads have a vote", self.all_heads_vote)
        await self.becomes("a disk is lost", self._all_disks_are_here)

    def close(self) -> None:
        """The run is over, in whatever way."""
        for checker in self._checkers:
            checker.close()

    def _set_pace(self) -> None:
        self.grid.work_seconds = self._work_seconds
        network = self.grid.network
        for here in network.host_names:
            for there in network.host_names:
                network.weather(here, there).latency_seconds = self._latency_seconds

    def furnish(self, machine: Machine) -> None:
        """Give a machine the disk that it is to have."""
        machine.disk.capacity_bytes = (
            self._capacity_bytes if machine.identity.role is Role.CHUNK else LARGE_BYTES
        )

    def failed(self, failure: Failure) -> None:
        """Something that nobody awaits has failed; a node that is struck may fail as it likes."""
        if not failure.check(GridError):
            self._failures.append(failure)

    def note(self, text: str) -> bool:
        """Something befalls the grid; returns true, as whoever does it has something to do."""
        self.trace.note(f"-- {text}")
        return True

    # Time.

    def pass_time(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Event by event, with a look at the promises after each.

        :raises Broken: where one of them does not hold.
        """
        clock, event = self.grid.clock, self.trace.event
        looks = [one.look for one in self._checkers if type(one).look is not Checker.look]
        end = clock.seconds() + seconds
        while (at := clock.next_at) <= end and not until():
            clock.advance_to(at)
            event(at)
            for look in looks:
                look()
            if self._failures:
                self._failures[0].raiseException()
            if at >= self._next_probe:
                self._next_probe = at + PROBE_SECONDS
                for checker in self._checkers:
                    checker.probe()
        if not until():
            clock.advance_to(end)

    def sleep(self, seconds: float) -> Deferred[None]:
        """On the grid's own clock."""
        return deferLater(self.grid.clock, seconds)

    async def becomes(self, trouble: str, condition: Callable[[], bool | Awaitable[bool]]) -> None:
        """Return once something is so; it must be before the calm is over."""
        end = self.seconds + CALM_SECONDS
        while not (found := condition()) or not (found is True or await found):
            if self.seconds > end:
                raise Broken(HEALING, f"{CALM_SECONDS:g} s after the storm {trouble}")
            await self.sleep(0.25)

    def ask(self, work: Coroutine[Deferred[Any], Any, Any]) -> Any:
        """Let time pass until the coroutine ends; its result or its error."""
        outcome: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(outcome.append)
        self.pass_time(2 * CALM_SECONDS, lambda: bool(outcome))
        if not outcome:
            raise Broken(HEALING, f"no answer in {2 * CALM_SECONDS:g} s")
        if isinstance(outcome[0], Failure):
            if outcome[0].check(GridError):
                raise Broken(HEALING, f"after the storm: {outcome[0].value}")
            outcome[0].raiseException()
        return outcome[0]

    def _all_disks_are_here(self) -> bool:
        return all(
            isinstance(one.node, ChunkServer)
            and all(disk.last.condition is not Condition.LOST for disk in one.node._store)
            for one in self.grid.chunk_servers
        )

    # What the grid knows of itself.

    async def status(self) -> head_pb2.Status:
        """As an operator is told."""
        session = self.operators.client.access.session
        return await session.call(head_pb2.GetStatus(), head_pb2.Status)

    def running_heads(self) -> list[Head]:
        return [one.node for one in self.grid.heads if isinstance(one.node, Head)]

    def all_heads_vote(self) -> bool:
        """Whether all run, lead or follow, and have a vote, which is committed, as who they are
        now."""
        leader = self.grid.leader()
        if leader is None or not isinstance(leader.node, Head):
            return False
        voters = {(member.name, member.incarnation) for member in leader.node._log.voters}
        here = {
            (one.name, one.node._council.me.incarnation)
            for one in self.grid.heads
            if isinstance(one.node, Head)
        }
        log = leader.node._log
        is_committed = log.configuration_index <= log.commit_index
        return is_committed and len(here) == len(self.grid.heads) and voters == here
