"""Chunk servers that die, leave, return, drain and fill by chance, and what must hold meanwhile."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from filegrid.client.grid import GridClient
from filegrid.config import Balance
from filegrid.errors import GridError
from filegrid.head.service import Head
from filegrid.model import Role
from filegrid.simulation.grid import Machine, SimulatedGrid
from tests.grid.case import CHUNK, content, stored_chunks

SERVERS = 6
MOST_DOWN = 2
MIB = 1024 * 1024
CALM_SECONDS = 150.0


class Broken(AssertionError):
    """Something that must hold did not."""


class Upheaval:
    """One grid and one seed.

    :ivar history: what happened, for whoever has to understand it.
    """

    def __init__(self, seed: int) -> None:
        self.history: list[str] = []
        self._random = random.Random(seed)
        self.grid = SimulatedGrid(
            seed=seed,
            heads=3,
            chunk_servers=SERVERS,
            racks=3,
            sections={"balance": Balance(band_percent=2)},
            trash_seconds=0,
            collection_grace_seconds=5,
        )
        for machine in self.grid.chunk_servers:
            machine.disk.capacity_bytes = (256 + 60) * MIB
        self.grid.start()
        self._client = self._new_client("client-1", Role.CLIENT)
        self._operator = self._new_client("operator", Role.OPERATOR)
        self._files: dict[str, int] = {}
        self._whole: set[str] = set()  # chunks that once had all their replicas
        self._count = 0
        self._draining: set[str] = set()

    def _new_client(self, name: str, role: Role) -> GridClient:
        runtime, identity = self.grid.client_runtime(name, role)
        return GridClient(runtime, identity, [*self.grid.head_addresses])

    def note(self, text: str) -> None:
        self.history.append(f"{self.grid.clock.seconds():9.3f} {text}")

    # What happens.

    def rage(self, steps: int) -> None:
        strikes = [
            *(self._kill, self._kill, self._stop, self._start, self._start, self._isolate),
            *(self._drain, self._undrain, self._balance, self._now, self._lose_leader),
        ]
        for _ in range(steps):
            self._random.choice(strikes)()
            for _ in range(self._random.randrange(3)):
                self._put()
            if self._random.random() < 0.2:
                self._remove()
            for _ in range(self._random.choice((1, 2, 4, 12))):
                self.grid.advance(0.5)
                self._look()

    def _servers(self, up: bool) -> list[Machine]:
        return [one for one in self.grid.chunk_servers if (one.node is not None) is up]

    def _may_fall(self) -> list[Machine]:
        return self._servers(True) if len(self._servers(False)) < MOST_DOWN else []

    def _kill(self) -> None:
        if up := self._may_fall():
            machine = self._random.choice(up)
            self.note(f"kill {machine.name}")
            self._random.choice((machine.kill, machine.crash))()

    def _stop(self) -> None:
        if up := self._may_fall():
            machine = self._random.choice(up)
            self.note(f"stop {machine.name}")
            self.grid.wait(machine.stop())

    def _start(self) -> None:
        if down := self._servers(False):
            machine = self._random.choice(down)
            self.note(f"start {machine.name}")
            self.grid.wait(machine.start())

    def _isolate(self) -> None:
        machine = self._random.choice(self.grid.chunk_servers)
        self.note(f"isolate {machine.name}")
        self.grid.network.isolate(machine.name)
        self.grid.advance(self._random.choice((0.5, 3, 8)))
        self.grid.network.rejoin(machine.name)

    def _lose_leader(self) -> None:
        machine = self.grid.leader()
        if machine is not None and all(one.node is not None for one in self.grid.heads):
            self.note(f"kill {machine.name}")
            machine.kill()
            self.grid.advance(self._random.choice((0.5, 4)))
            self.grid.wait(machine.start())

    def _ask(self, what: str, work: Coroutine[Deferred[Any], Any, Any]) -> bool:
        """Whether it was done; where the grid cannot just now, it was not."""
        outcome: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(outcome.append)
        for _ in range(400):
            if outcome:
                break
            self.grid.advance(0.1)
        if not outcome:
            raise Broken(f"{what}: no answer")
        if isinstance(outcome[0], Failure):
            outcome[0].trap(GridError)
            self.note(f"{what}: {outcome[0].value}")
            return False
        self.note(what)
        return True

    def _drain(self) -> None:
        if len(self._draining) < 2:
            name = self._random.choice(self.grid.chunk_servers).name
            self._draining.add(name)
            self._ask(f"drain {name}", self._operator.drain(name))

    def _undrain(self) -> None:
        if self._draining:
            name = self._random.choice(sorted(self._draining))
            if self._ask(f"undrain {name}", self._operator.drain(name, undo=True)):
                self._draining.discard(name)

    def _balance(self) -> None:
        self._ask("balance", self._operator.balance())

    def _now(self) -> None:
        self._ask("repair --now", self._operator.repair_now())

    def _put(self) -> None:
        self._count += 1
        path, seed = f"/f{self._count}", self._count
        data = content(CHUNK // 4 * self._random.randrange(1, 9), seed)
        if self._ask(f"put {path}", self._client.write_bytes(path, data)):
            self._files[path] = len(data)

    def _remove(self) -> None:
        if self._files:
            path = self._random.choice(sorted(self._files))
            del self._files[path]
            self._ask(f"remove {path}", self._client.remove(path))

    # What must hold.

    def _on_disks(self) -> Counter[str]:
        """How many replicas of each chunk lie on all disks together."""
        return Counter(name for one in self.grid.chunk_servers for name in stored_chunks(one))

    def _named(self) -> set[str]:
        """Chunks that files name, as the leader has it; empty while nobody leads."""
        leader = self.grid.leader()
        if leader is None or not isinstance(leader.node, Head):
            return set()
        records = leader.node._namespace.chunks_after(b"", 10_000)
        return {record.chunk.id.hex() for record in records}

    def _look(self) -> None:
        """A chunk that had all its replicas on disks has them for good, whoever is down."""
        named, there = self._named(), self._on_disks()
        for chunk_id in self._whole & named:
            if there[chunk_id] < 3:
                raise Broken(f"{chunk_id} has {there[chunk_id]} replicas left on all disks")
        self._whole |= {chunk_id for chunk_id in named if there[chunk_id] >= 3}

    def finish(self) -> None:
        """With all servers back everything becomes whole, and what is too much goes."""
        self.note("calm")
        for machine in self._servers(False):
            self.grid.wait(machine.start())
        while self._draining:
            self._undrain()
        until = self.grid.clock.seconds() + CALM_SECONDS
        while not self._is_settled():
            self.grid.advance(1)
            self._look()
            if self.grid.clock.seconds() > until:
                there = self._on_disks()
                odd = {name: there[name] for name in self._named() if there[name] != 3}
                raise Broken(f"not settled: {odd}")
        for path, length in sorted(self._files.items()):
            if not self._ask(f"read {path}", self._check(path, length)):
                raise Broken(f"{path} cannot be read")
        for client in (self._client, self._operator):
            self._ask("close", client.close())

    async def _check(self, path: str, length: int) -> None:
        data = await self._client.read_bytes(path)
        if data != content(length, int(path.removeprefix("/f"))):
            raise Broken(f"{path} is not what was written")

    def _is_settled(self) -> bool:
        named, there = self._named(), self._on_disks()
        return bool(named) and all(there[name] == 3 for name in named)


def endure(seed: int, steps: int = 25) -> None:
    """:raises Broken: with what happened before."""
    upheaval = Upheaval(seed)
    try:
        upheaval._put()
        upheaval.rage(steps)
        upheaval.finish()
    except AssertionError as error:
        told = "\n".join(upheaval.history[-60:])
        raise Broken(f"seed {seed}: {error}\n{told}") from error
