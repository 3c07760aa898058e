"""A grid whose heads are killed, cut off and paused by chance, and what its users may never see."""

from __future__ import annotations

import errno
import gc
import random
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from filegrid.client.grid import GridClient
from filegrid.errors import (
    DeadlineExceeded,
    GridError,
    NoSuchPath,
    OutcomeUnknown,
    Unavailable,
)
from filegrid.head.service import Head
from filegrid.protocol.wire import head_pb2
from filegrid.simulation.grid import Machine, SimulatedGrid

STORM_SECONDS = 12.0
CALM_SECONDS = 60.0
"""Within this after the storm everything is whole again, or it never will be."""

TIMEOUT_SECONDS = 10.0
_CALM_LATENCY_SECONDS = 0.0002
_SURE = (Unavailable, DeadlineExceeded)
"""What says of a change that it was not applied."""


class Broken(AssertionError):
    """A promise was not kept."""


class Storm:
    """Some clients and much misfortune; raises :class:`Broken` where users see what they may not."""

    def __init__(self, seed: int, *, heads: int = 3, clients: int = 3) -> None:
        self.random = random.Random(seed)
        self.grid = SimulatedGrid(seed=seed, heads=heads, chunk_servers=4, racks=2)
        self.history: list[str] = []
        self._working: list[Deferred[None]] = []
        self._failures: list[Any] = []
        self.operations = 0
        self.striking = False
        self._strikes_per_second = self.random.choice((0.7, 0.7, 2.0))
        self._latency_seconds = self.random.choice((_CALM_LATENCY_SECONDS, 0.002, 0.01))
        self._work_seconds = self.random.choice((0.0001, 0.001, 0.005, 0.02))
        self._wiped = False
        self.grid.start()
        self.grid.advance(1)  # until everybody knows that everybody has a vote
        self.clients = [Client(self, number) for number in range(clients)]

    # The world

    def begin(self) -> None:
        """From now on the clients are at work."""
        self._working = [Deferred.fromCoroutine(client.work()) for client in self.clients]
        for one in self._working:
            one.addErrback(self._failures.append)

    def rage(self, seconds: float) -> None:
        """Break things by chance, for so long."""
        self.striking = True
        self.grid.work_seconds = self._work_seconds
        for machine in self.grid.machines:
            self._delay(machine, self._latency_seconds)
        self._next()
        self.pass_time(seconds)
        self.striking = False

    def finish(self) -> None:
        """Mend everything; then all promises must have been kept.

        :raises Broken: where one was not.
        """
        self.heal()
        for client in self.clients:
            client.stopping = True
        self.pass_time(CALM_SECONDS, lambda: all(one.called for one in self._working))
        if not all(one.called for one in self._working):
            raise Broken("clients are still waiting long after the storm")
        self._check_end()

    @property
    def longest_pause(self) -> float:
        """That a client saw in one operation, in seconds."""
        return max(client.longest_pause for client in self.clients)

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

    def note(self, text: str) -> None:
        self.history.append(f"{self.grid.clock.seconds():9.4f} {text}")

    # Misfortune

    def _next(self) -> None:
        self.later(self.random.expovariate(self._strikes_per_second), self._strike)

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        self.grid.clock.callLater(seconds, work)

    def _strike(self) -> None:
        if not self.striking:
            return
        if self.random.random() < 0.85:
            strikes = [
                self._kill,
                self._crash,
                self._isolate,
                self._part,
                self._deafen,
                self._mute,
                self._pause,
                self._slow,
                self._break_disk,
                self._hand_over,
            ]
            machine = self._head()
            if machine.node is not None and self._may_lose(machine):
                self.random.choice(strikes)(machine)
        else:
            self.random.choice([self._kill_chunk_server, self._splits, self._wipe])()
        self._next()

    def _head(self) -> Machine:
        """Any, the leader more often."""
        leader = self.grid.leader()
        if leader is not None and self.random.random() < 0.6:
            return leader
        return self.random.choice(self.grid.heads)

    def _may_lose(self, machine: Machine) -> bool:
        down = {one.name for one in self.grid.heads if one.node is None} | {machine.name}
        return len(down) <= (len(self.grid.heads) - 1) // 2

    def _seconds(self) -> float:
        return self.random.choice((0.05, 0.5, 1, 2, 3)) * self.random.uniform(0.5, 1.5)

    def _restart_later(self, machine: Machine) -> None:
        self.later(self._seconds(), lambda: self.restart(machine))

    def restart(self, machine: Machine) -> None:
        if machine.node is None:
            self.note(f"start {machine.name}")
            machine.disk.heal()
            machine.start()

    def _kill(self, machine: Machine) -> None:
        self.note(f"kill {machine.name}")
        machine.kill()
        self._restart_later(machine)

    def _crash(self, machine: Machine) -> None:
        self.note(f"crash {machine.name}")
        machine.crash()
        self._restart_later(machine)

    def _wipe(self) -> None:
        machine = self._head()
        if machine.node is None or self._wiped or not self._may_lose(machine):
            return
        self._wiped = True
        self.note(f"wipe {machine.name}")
        machine.crash()
        machine.disk.wipe()
        self._restart_later(machine)

    def _break_disk(self, machine: Machine) -> None:
        self.note(f"break the disk of {machine.name}")
        machine.disk.fail_next("datasync", errno.EIO)
        node = machine.node

        def mend() -> None:
            machine.disk.heal()
            if machine.node is node:
                return
            self.restart(machine)

        self.later(self._seconds(), mend)

    def _isolate(self, machine: Machine) -> None:
        self.note(f"isolate {machine.name}")
        self._cut([(machine.name, other) for other in self._others(machine)], both=True)

    def _part(self, machine: Machine) -> None:
        self.note(f"part {machine.name} from the other heads")
        others = [one.name for one in self.grid.heads if one is not machine]
        self._cut([(machine.name, other) for other in others], both=True)

    def _deafen(self, machine: Machine) -> None:
        self.note(f"deafen {machine.name}")
        self._cut([(other, machine.name) for other in self._some_others(machine)], both=False)

    def _mute(self, machine: Machine) -> None:
        self.note(f"mute {machine.name}")
        self._cut([(machine.name, other) for other in self._some_others(machine)], both=False)

    def _others(self, machine: Machine) -> list[str]:
        names = [one.name for one in self.grid.machines if one is not machine]
        return [*names, *(client.name for client in self.clients)]

    def _some_others(self, machine: Machine) -> list[str]:
        if self.random.random() < 0.5:
            return [one.name for one in self.grid.heads if one is not machine]
        return self._others(machine)

    def _cut(self, ways: list[tuple[str, str]], *, both: bool) -> None:
        for here, there in ways:
            self.grid.network.cut(here, there, both_ways=both)

        def mend() -> None:
            self.note("mend")
            for here, there in ways:
                self.grid.network.mend(here, there, both_ways=both)

        self.later(self._seconds(), mend)

    def _pause(self, machine: Machine) -> None:
        self.note(f"pause {machine.name}")
        machine.pause()
        node = machine.node
        self.later(self._seconds(), lambda: machine.node is node and self._resume(machine))

    def _resume(self, machine: Machine) -> None:
        self.note(f"resume {machine.name}")
        machine.resume(data_first=self.random.random() < 0.5)

    def _slow(self, machine: Machine) -> None:
        self.note(f"slow {machine.name}")
        self._delay(machine, self.random.choice((0.02, 0.2, 0.6)))
        self.later(self._seconds(), lambda: self._delay(machine, self._latency_seconds))

    def _delay(self, machine: Machine, seconds: float) -> None:
        for other in self._others(machine):
            self.grid.network.weather(machine.name, other).latency_seconds = seconds
            self.grid.network.weather(other, machine.name).latency_seconds = seconds

    def _splits(self) -> None:
        for machine in self.grid.heads:
            for other in self._others(machine):
                weather = self.grid.network.weather(machine.name, other)
                weather.splits = True
                weather.jitter_seconds = 0.01

    def _hand_over(self, machine: Machine) -> None:
        leader = self.grid.leader()
        if leader is None or machine is leader or not isinstance(leader.node, Head):
            return
        self.note(f"hand over from {leader.name} to {machine.name}")
        leader.node._reign and leader.node._tasks.begin(  # type: ignore[func-returns-value]
            self._ask_hand_over(leader.node, machine)
        )

    async def _ask_hand_over(self, head: Head, target: Machine) -> None:
        for member, _ in head._council.linked():
            if member.name == target.name and head._reign is not None:
                try:
                    await head._reign.hand_over(member)
                except GridError:
                    return

    def _kill_chunk_server(self) -> None:
        machine = self.random.choice(self.grid.chunk_servers)
        if all(one.node is not None for one in self.grid.chunk_servers):
            self.note(f"kill {machine.name}")
            machine.kill()
            self._restart_later(machine)

    def heal(self) -> None:
        self.note("heal")
        self.grid.work_seconds = 0.0001
        self._latency_seconds = _CALM_LATENCY_SECONDS
        for here in self.grid.network._hosts:
            for there in self.grid.network._hosts:
                if here != there:
                    self.grid.network.mend(here, there, both_ways=False)
                    self.grid.network.weather(here, there).latency_seconds = _CALM_LATENCY_SECONDS
                    self.grid.network.weather(here, there).jitter_seconds = 0.0
        for machine in self.grid.machines:
            machine.disk.heal()
            if machine.node is not None:
                machine.resume()
            else:
                self.restart(machine)

    # What must be true in the end

    def _check_end(self) -> None:
        self._await("nobody leads", lambda: self.grid.leader() is not None)
        self._await("not all heads have a vote", self._all_vote)
        for client in self.clients:
            self.ask(client.check())
        self._await("the heads are not alike", self._alike)
        dumps = [self._dump(machine) for machine in self.grid.heads]
        for machine, dump in zip(self.grid.heads, dumps, strict=True):
            if dump != dumps[0]:
                raise Broken(f"the namespace of {machine.name} differs")
        self._await("not every chunk has its replicas", self._whole)
        for client in self.clients:
            self.ask(client.grid_client.close())
        gc.collect()

    def _await(self, trouble: str, condition: Callable[[], bool]) -> None:
        end = self.grid.clock.seconds() + CALM_SECONDS
        while not condition():
            if self.grid.clock.seconds() > end:
                raise Broken(f"long after the storm: {trouble}")
            self.pass_time(0.25)

    def ask(self, work: Coroutine[Deferred[Any], Any, Any]) -> Any:
        outcome: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(outcome.append)
        self.pass_time(CALM_SECONDS, lambda: bool(outcome))
        if not outcome:
            raise Broken("no answer long after the storm")
        if hasattr(outcome[0], "raiseException"):
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
        session = self.clients[0].grid_client.access.session
        counts = self.ask(session.call(head_pb2.GetStatus(), head_pb2.Status)).chunks
        return bool(counts.healthy == counts.total and not counts.repairing)


class Client:
    """One user: what it was told, it believes, and looks for in the end."""

    def __init__(self, storm: Storm, number: int) -> None:
        self.name = f"client-{number + 1}"
        self.stopping = False
        self._storm = storm
        self._number = number
        self._count = 0
        runtime, identity = storm.grid.client_runtime(self.name)
        self._runtime = runtime
        self.grid_client = GridClient(
            runtime, identity, [*storm.grid.head_addresses], timeout_seconds=TIMEOUT_SECONDS
        )
        self.there: dict[str, bytes | None] = {}  # None: a folder
        self.absent: set[str] = set()
        self.maybe: set[str] = set()
        self.register = f"/register-{number}.0"
        self.acknowledged = -1
        self.attempted = -1
        self.doubts: dict[str, set[int]] = {}
        self.longest_pause = 0.0

    async def work(self) -> None:
        rng = self._storm.random
        while not self.stopping:
            act = rng.choice((self._make, self._create, self._rename, self._write, self._read))
            begun = self._runtime.clock.seconds()
            await act()
            self._storm.operations += 1
            pause = self._runtime.clock.seconds() - begun
            self.longest_pause = max(self.longest_pause, pause)
            await self._runtime.sleep(rng.choice((0.0, 0.01, 0.1)))

    def _new_path(self) -> str:
        self._count += 1
        return f"/{self.name}-{self._count}"

    async def _change(
        self, what: str, change: Coroutine[Deferred[Any], Any, object]
    ) -> bool | None:
        """Whether it was done; None where nobody knows.

        Whatever else comes of it is not what the caller deserves: these all have to succeed.
        """
        try:
            await change
        except OutcomeUnknown:
            self._storm.note(f"{what}: unknown")
            return None
        except _SURE as error:
            self._storm.note(f"{what}: {error}")
            return False
        except GridError as error:
            raise Broken(f"{self.name}: {what}: {type(error).__name__}: {error}") from error
        return True

    def _note(self, path: str, done: bool | None, content: bytes | None) -> None:
        if done:
            self.there[path] = content
        else:
            (self.maybe if done is None else self.absent).add(path)

    async def _make(self) -> None:
        path = self._new_path()
        self._note(path, await self._change(path, self.grid_client.mkdir(path)), None)

    async def _create(self) -> None:
        path = self._new_path()
        content = self._storm.random.randbytes(self._storm.random.choice((0, 50, 3000)))
        done = await self._change(path, self.grid_client.write_bytes(path, content))
        self._note(path, done, content)

    async def _rename(self) -> None:
        """One that was applied twice would find nothing to rename."""
        if not self.there:
            return
        source = self._storm.random.choice(sorted(self.there))
        target = self._new_path()
        what = f"{source} -> {target}"
        done = await self._change(what, self.grid_client.rename(source, target))
        if done is False:
            self.absent.add(target)
            return
        content = self.there.pop(source)
        if done:
            self.absent.add(source)
            self.there[target] = content
        else:
            self.maybe |= {source, target}

    async def _write(self) -> None:
        """A register of which every version is newer than the one before."""
        number = self.attempted = self.attempted + 1
        path = self.register
        change = self.grid_client.write_bytes(path, b"%d" % number, overwrite=True)
        done = await self._change(f"{path} = {number}", change)
        if done:
            self.acknowledged = number
        elif done is None:
            # It may come late, and over whatever is written next: that is what unknown means.
            before = {self.acknowledged} if self.acknowledged >= 0 else set()
            self.doubts[path] = {number} | before
            self.register = f"/register-{self._number}.{self.attempted + 1}"
            self.acknowledged = -1

    async def _read(self) -> None:
        """Somebody's register: never older than what was acknowledged before the question."""
        other = self._storm.random.choice(self._storm.clients)
        path, least = other.register, other.acknowledged
        try:
            value = int(await self.grid_client.read_bytes(path))
        except NoSuchPath:
            if least >= 0:
                raise Broken(f"{self.name}: {path} is gone, which was {least}") from None
            return
        except (Unavailable, DeadlineExceeded) as error:
            self._storm.note(f"{path}?: {error}")
            return
        if value < least or value > other.attempted:
            raise Broken(f"{self.name}: {path} is {value}, and {least} was acknowledged before")

    async def check(self) -> None:
        """What was acknowledged is there, what surely failed is not."""
        listing = {stat.path: stat async for stat in self.grid_client.listdir("/")}
        for path, content in self.there.items():
            if path not in listing:
                raise Broken(f"{path} was acknowledged and is not there")
            if content is not None and await self.grid_client.read_bytes(path) != content:
                raise Broken(f"{path} has other contents than were acknowledged")
        for path in self.absent - self.maybe:
            if path in listing:
                raise Broken(f"{path} surely failed, or was renamed, and is there")
        ours = {path for path in listing if path.startswith(f"/{self.name}-")}
        if strange := ours - set(self.there) - self.maybe:
            raise Broken(f"nobody made {strange}")
        if self.acknowledged >= 0:
            await self._check_register(self.register, {self.acknowledged})
        for path, allowed in self.doubts.items():
            await self._check_register(path, allowed)

    async def _check_register(self, path: str, allowed: set[int]) -> None:
        try:
            value = int(await self.grid_client.read_bytes(path))
        except NoSuchPath:
            if min(allowed) == max(allowed) and path != self.register:
                return  # a first write that nobody knows of
            raise Broken(f"{path} is gone, which was one of {allowed}") from None
        if value not in allowed:
            raise Broken(f"{path} is {value} in the end, and not one of {allowed}")


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
        raise Broken(f"seed {seed}: {error}\n" + "\n".join(storm.history[-40:])) from error
    return storm
