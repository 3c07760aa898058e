"""A whole grid in one process: real nodes and clients on simulated machines.

Each node is a host of its own, with its own disk, on one clock and one network, all from one seed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from filegrid.chunk.segments import SEGMENT_BYTES
from filegrid.chunk.service import ChunkServer, open_chunk_server
from filegrid.config import Chunk as ChunkSettings
from filegrid.config import Grid as GridSettings
from filegrid.config import Node, Settings, Tls
from filegrid.errors import GridError
from filegrid.head.journal import USUAL_SIZES, LogSizes
from filegrid.head.opening import open_head
from filegrid.head.service import Head
from filegrid.health.service import HealthNode, open_health_node
from filegrid.model import Address, Chunk, Identity, Peer, Role
from filegrid.runtime import Runtime
from filegrid.simulation.clock import SimulatedClock
from filegrid.simulation.disk import SimulatedDisk
from filegrid.simulation.network import SimulatedNetwork
from filegrid.simulation.process import WORK_SECONDS, ProcessClock, SimulatedThreads

T = TypeVar("T")

PORT = 7000

START_SECONDS = 30.0
"""Within this a grid takes writes, or something is wrong."""

_LAST_WORDS_SECONDS = 0.01

_LATE_TIMERS_SECONDS = 0.002
"""Within this what waited for a process that was stopped has come to it."""

SMALL_CHUNK_BYTES = 256 * 1024
"""Files of some chunks are small then, and a run is quick. Chunks of half this length share files,
so that there are some of both kinds."""


class Stuck(AssertionError):
    """Something did not end within the simulated time that it was given."""


class Machine:
    """A host: what survives a crash of the node on it, and the node while it runs.

    :ivar rate: of its clock, as fast as the grid's with 1; from its next start on.
    :ivar work_seconds: what a piece of its blocking work takes at least.
    :ivar wall_offset_seconds: of what it believes the date to be.
    """

    def __init__(self, grid: SimulatedGrid, identity: Identity, settings: Settings) -> None:
        self.identity = identity
        self.settings = settings
        self.disk = SimulatedDisk(random.Random(grid.random.getrandbits(64)), 1 << 34)
        self.node: Head | ChunkServer | HealthNode | None = None
        self.fatal: GridError | None = None
        self.rate = 1.0
        self.work_seconds = 0.0
        self.wall_offset_seconds = 0.0
        self._grid = grid
        self._clock: ProcessClock | None = None
        self._threads: SimulatedThreads | None = None
        self._born = False

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def folders(self) -> list[str]:
        """The data folder, and those of a chunk server on its further disks."""
        return [str(self.settings.node.data), *map(str, self.settings.node.disks)]

    @property
    def paused(self) -> bool:
        return self._clock is not None and self._clock.paused

    def start(self) -> Deferred[None]:
        """Start the node; fires when it serves."""
        runtime = self._grid.runtime(
            self.identity,
            self.disk,
            rate=self.rate,
            work_seconds=lambda: self.work_seconds,
            wall_offset=lambda: self.wall_offset_seconds,
        )
        assert isinstance(runtime.clock, ProcessClock)
        assert isinstance(runtime.threads, SimulatedThreads)
        self._clock, self._threads = runtime.clock, runtime.threads
        create, self._born = not self._born, True
        node: Head | ChunkServer | HealthNode
        if self.identity.role is Role.HEAD:
            create = create and self.name == "head-1"  # the others learn the grid from it (S1)
            node = open_head(
                runtime,
                self.settings,
                self.identity,
                create=create,
                on_fatal=self._die,
                sizes=self._grid.log_sizes,
            )
        elif self.identity.role is Role.HEALTH:
            node = open_health_node(runtime, self.settings, self.identity, on_fatal=self._die)
        else:
            node = open_chunk_server(
                runtime,
                self.settings,
                self.identity,
                create=create,
                cpu_percent=lambda: 0.0,
                small_bytes=SMALL_CHUNK_BYTES // 2,
                segment_bytes=self._grid.segment_bytes,
            )
        self.node = node
        return Deferred.fromCoroutine(node.start())

    def stop(self) -> Deferred[None]:
        """End the node in good order."""
        node, self.node = self.node, None
        assert node is not None
        clock = self._clock
        stopped = Deferred.fromCoroutine(node.stop())
        # What it said last is on its way, and arrives though its process has ended.
        stopped.addCallback(lambda _: deferLater(self._grid.clock, _LAST_WORDS_SECONDS))
        return stopped.addCallback(lambda _: self._end() if self._clock is clock else None)

    def kill(self) -> None:
        """As kill -9: what was written stays written."""
        self.disk.kill()
        self._end()

    def crash(self) -> None:
        """As a loss of power: what was not synced may be gone."""
        self.disk.crash()
        self._end()

    def pause(self) -> None:
        """As SIGSTOP, or a machine that sleeps."""
        assert self._clock is not None
        self._clock.pause()
        self._grid.network.pause(self.name)

    def resume(self, *, data_first: bool = False) -> None:
        """Go on: all that came due meanwhile runs at once, before anything that came, or after.

        Both happen: a process may be stopped while it waits for data, or anywhere else.
        """
        clock = self._clock
        assert clock is not None
        if data_first:
            self._grid.clock.callLater(_LATE_TIMERS_SECONDS, clock.resume)
        else:
            clock.resume()
        self._grid.network.resume(self.name)

    def hang_disk(self) -> None:
        """Nothing that the node does on its disk ends, until :meth:`mend_disk`."""
        assert self._threads is not None
        self._threads.hang()

    def mend_disk(self) -> None:
        assert self._threads is not None
        self._threads.go_on()

    def forget(self) -> None:
        """Its disk is empty: a chunk server is begun anew at its next start."""
        self._born = False

    def rot(self, chunk: Chunk, offset: int) -> bool:
        """Change a byte of a replica unnoticed; False where it cannot be found."""
        path, start = self._find(chunk)
        if path:
            self.disk.flip_bits(path, start + offset)
        return bool(path)

    def wear_out(self, chunk: Chunk) -> bool:
        """Let reading a replica fail; False where it has no file of its own that can be found."""
        path, _ = self._find(chunk)
        if not path.endswith(chunk.id.hex()):
            return False
        self.disk.fail_reads(path)
        return True

    def _find(self, chunk: Chunk) -> tuple[str, int]:
        """The file that has a replica, and from where on; empty where the node does not run, or
        its disk is away."""
        if not isinstance(self.node, ChunkServer):
            return "", 0
        (place,) = self.node._store.locate([chunk])
        if isinstance(place, GridError):
            return "", 0
        file, start = place
        path = str(Path("/data") / file)
        return (path, start) if self.disk.exists(path) else ("", 0)

    def _die(self, error: GridError) -> None:
        self.fatal = error
        node = self.node
        self._grid.clock.callLater(0, self._exit, node)

    def _exit(self, node: object) -> None:
        if self.node is node and node is not None:
            self.kill()

    def _end(self) -> None:
        self.node = None
        if self._clock is not None:
            self._clock.end()
        self._grid.network.crash(self.name)


class SimulatedGrid:
    """Some heads, health nodes and chunk servers, and as many clients as are asked for.

    :param log_sizes: of heads; :param segment_bytes: of chunk servers.
    :param sections: of the settings, by name, where they differ from the defaults.
    :param settings: of :class:`filegrid.config.Grid`, by name.
    :ivar work_seconds: what a piece of blocking work takes; change it at any time.
    :ivar made: how many machines of each role there ever were.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        heads: int = 1,
        health: int = 0,
        chunk_servers: int = 5,
        racks: int = 3,
        disks: int = 1,
        log_sizes: LogSizes = USUAL_SIZES,
        segment_bytes: int = SEGMENT_BYTES,
        sections: Mapping[str, Any] = MappingProxyType({}),
        **settings: int,
    ) -> None:
        self.random = random.Random(seed)
        self.clock = SimulatedClock()
        self.work_seconds = WORK_SECONDS
        self.log_sizes = log_sizes
        self.segment_bytes = segment_bytes
        self.network = SimulatedNetwork(self.clock, random.Random(self.random.getrandbits(64)))
        self._further_disks = tuple(Path(f"/disk-{number}") for number in range(2, disks + 1))
        self.grid_settings = GridSettings(**{"chunk_bytes": SMALL_CHUNK_BYTES, **settings})
        self._sections = {"chunk": ChunkSettings(), **sections}
        names = [f"head-{number + 1}" for number in range(heads)]
        self.head_addresses = tuple(Address(name, PORT) for name in names)
        health_names = [f"health-{number + 1}" for number in range(health)]
        self.health_peers = tuple(Peer(name, Address(name, PORT)) for name in health_names)
        self.heads = [self._machine(Role.HEAD, name, "") for name in names]
        self.chunk_servers = [
            self._machine(Role.CHUNK, f"chunk-{number + 1}", f"dc1/r{number % racks + 1}")
            for number in range(chunk_servers)
        ]
        self.health_nodes = [self._machine(Role.HEALTH, name, "") for name in health_names]
        self.made = Counter({Role.HEAD: heads, Role.CHUNK: chunk_servers})

    def _machine(self, role: Role, name: str, rack: str) -> Machine:
        settings = Settings(
            grid=self.grid_settings,
            **self._sections,
            node=Node(
                name=name,
                data=Path("/data"),
                listen=Address(name, PORT),
                heads=self.head_addresses,
                health=self.health_peers,
                rack=rack or "default/r1",
                disks=self._further_disks if role is Role.CHUNK else (),
            ),
            tls=Tls(certificate=Path("/node.pem"), authority=Path("/ca.pem")),
        )
        return Machine(self, Identity("simulated", role, name), settings)

    def machine(self, name: str) -> Machine:
        return next(one for one in self.machines if one.name == name)

    @property
    def machines(self) -> list[Machine]:
        return [*self.heads, *self.chunk_servers, *self.health_nodes]

    @property
    def head(self) -> Machine:
        """The first head; of a grid with one, the head."""
        return self.heads[0]

    def leader(self) -> Machine | None:
        """The head that serves now."""
        for machine in self.heads:
            if isinstance(machine.node, Head) and machine.node.leads:
                return machine
        return None

    def coordinator(self) -> Machine | None:
        """The health node that gives the verdicts now."""
        for machine in self.health_nodes:
            if isinstance(machine.node, HealthNode) and machine.node.coordinates:
                return machine
        return None

    def add_head(self) -> Machine:
        """One more machine, of which no other is told; it is to be started."""
        self.made[Role.HEAD] += 1
        machine = self._machine(Role.HEAD, f"head-{self.made[Role.HEAD]}", "")
        self.heads.append(machine)
        return machine

    def add_chunk_server(self, rack: str) -> Machine:
        """One more machine; it is to be started."""
        self.made[Role.CHUNK] += 1
        machine = self._machine(Role.CHUNK, f"chunk-{self.made[Role.CHUNK]}", rack)
        self.chunk_servers.append(machine)
        return machine

    def retire(self, machine: Machine) -> None:
        """It belongs to the grid no more; it is to be killed."""
        for machines in (self.heads, self.chunk_servers):
            if machine in machines:
                machines.remove(machine)

    def runtime(
        self,
        identity: Identity,
        disk: SimulatedDisk,
        *,
        rate: float = 1.0,
        work_seconds: Callable[[], float] = lambda: 0.0,
        wall_offset: Callable[[], float] = lambda: 0.0,
    ) -> Runtime:
        """A process of this identity on the host of its name."""
        clock = ProcessClock(self.clock, rate)
        return Runtime(
            clock=clock,
            network=self.network.host(identity.name, identity),
            disk=disk,
            threads=SimulatedThreads(clock, lambda: max(self.work_seconds, work_seconds())),
            random=random.Random(self.random.getrandbits(64)),
            wall_seconds=lambda: 1_700_000_000 + self.clock.seconds() + wall_offset(),
        )

    def client_runtime(
        self, name: str = "client-1", role: Role = Role.CLIENT
    ) -> tuple[Runtime, Identity]:
        """What a client, or an operator, needs to join in."""
        identity = Identity("simulated", role, name)
        disk = SimulatedDisk(random.Random(self.random.getrandbits(64)))
        return self.runtime(identity, disk), identity

    # Time.

    def start(self) -> None:
        """Start all machines; returns once the grid takes writes."""
        for machine in self.machines:
            self.wait(machine.start())
        end = self.clock.seconds() + START_SECONDS
        while not self._takes_writes():
            if self.clock.seconds() > end:
                raise Stuck(f"no writes are taken after {START_SECONDS} simulated seconds")
            self.advance(0.1)

    def _takes_writes(self) -> bool:
        """Whether all heads have a vote and all chunk servers have joined, and there are a leader
        and a coordinator."""
        leader = self.leader()
        if leader is None or not isinstance(leader.node, Head):
            return False
        if self.health_nodes and self.coordinator() is None:
            return False
        return leader.node.voters == len(self.heads) and leader.node.live_chunk_servers == len(
            self.chunk_servers
        )

    def stop(self) -> None:
        """End what still runs."""
        for machine in reversed(self.machines):
            if machine.node is not None:
                self.wait(machine.stop())

    def advance(self, seconds: float) -> None:
        """Let so much simulated time pass, event by event."""
        end = self.clock.seconds() + seconds
        while (at := self.clock.next_at) <= end:
            self.clock.advance_to(at)
        self.clock.advance_to(end)

    def run(self, work: Coroutine[Deferred[Any], Any, T], *, seconds: float = 120.0) -> T:
        """Let time pass until the coroutine ends; its result or its error.

        :raises Stuck: where it does not end within so many simulated seconds.
        """
        return self.wait(Deferred.fromCoroutine(work), seconds=seconds)

    def wait(self, work: Deferred[T], *, seconds: float = 120.0) -> T:
        """As :meth:`run`, for a Deferred."""
        outcome: list[T | Failure] = []
        work.addBoth(outcome.append)
        end = self.clock.seconds() + seconds
        while not outcome:
            if (at := self.clock.next_at) > end:
                raise Stuck(f"nothing came of it in {seconds} simulated seconds")
            self.clock.advance_to(at)
        result = outcome[0]
        if isinstance(result, Failure):
            result.raiseException()
        return result
