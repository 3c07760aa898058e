"""What befalls the machines of a grid, by chance."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred

from filegrid.errors import GridError
from filegrid.head.service import Head
from filegrid.simulation.grid import Machine, SimulatedGrid

_CALM_LATENCY_SECONDS = 0.0002


class Misfortune:
    """Strikes heads, the leader most often, but never more than a minority dead at once.

    :param clients: names of the other hosts.
    :ivar history: what happened, for whoever has to understand it.
    """

    def __init__(self, seed: int, grid: SimulatedGrid, clients: Sequence[str]) -> None:
        self.random = random.Random(seed)
        self.grid = grid
        self.history: list[str] = []
        self._clients = clients
        self._striking = False
        self._strikes_per_second = self.random.choice((0.7, 0.7, 2.0))
        self._latency_seconds = self.random.choice((_CALM_LATENCY_SECONDS, 0.002, 0.01))
        self._work_seconds = self.random.choice((0.0001, 0.001, 0.005, 0.02))
        self._wiped = False

    def note(self, text: str) -> None:
        self.history.append(f"{self.grid.clock.seconds():9.4f} {text}")

    def begin(self) -> None:
        self._striking = True
        self.grid.work_seconds = self._work_seconds
        for machine in self.grid.machines:
            self._delay(machine, self._latency_seconds)
        self._next()

    def end(self) -> None:
        """What was broken is mended when its time comes, or by :meth:`heal`."""
        self._striking = False

    def _next(self) -> None:
        self.later(self.random.expovariate(self._strikes_per_second), self._strike)

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        self.grid.clock.callLater(seconds, work)

    def _strike(self) -> None:
        if not self._striking:
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
        return [*names, *self._clients]

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

        def resume() -> None:
            if machine.node is node:
                self.note(f"resume {machine.name}")
                machine.resume(data_first=self.random.random() < 0.5)

        self.later(self._seconds(), resume)

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
        Deferred.fromCoroutine(self._ask_hand_over(leader.node, machine))

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
