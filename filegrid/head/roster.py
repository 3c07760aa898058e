"""The chunk servers as this head sees them: who joined, how they are, what they hold.

Every head is told what comes and goes, so that a new leader knows where replicas are. Only the
leader asks for heartbeats, judges and gives orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from google.protobuf.message import Message
from twisted.logger import Logger

from filegrid.errors import DuplicateName, GridError, NotLeader, Unavailable
from filegrid.head.liveness import Liveness, State
from filegrid.head.locations import Locations
from filegrid.head.placement import Candidate, has_room
from filegrid.head.redundancy import Redundancy
from filegrid.head.registry import Registry
from filegrid.head.restraint import Restraint
from filegrid.head.suspicion import Suspicion
from filegrid.head.view import Server as Registered
from filegrid.head.view import Standing
from filegrid.model import Chunk
from filegrid.net.link import Caller, Link
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire import frame_pb2
from filegrid.protocol.wire.health_pb2 import Event
from filegrid.runtime import Runtime

INVENTORY_PAGE = 2048
"""Chunks asked for at once: some 130 KiB, and ten milliseconds of the head's time."""

INVENTORY_SECONDS = 30.0

MOST_ROT_TOLD = 20
"""Damaged chunks of one message that are told one by one."""

Tell: TypeAlias = Callable[[Event.Kind.ValueType, str, str], None]
"""Notes an event: its kind, the server, and what there is to say."""

_log = Logger()


def _nobody(kind: Event.Kind.ValueType, name: str, text: str) -> None:
    """Only a leader tells."""


@dataclass(slots=True, kw_only=True)
class Server:
    """One chunk server.

    :ivar reported: whether its whole inventory is known to this head, in its own epoch.
    :ivar link: the link over which it joined, while it is up.
    """

    name: str
    incarnation: bytes
    rack: str
    address: str
    run: int = 0
    boot_count: int = 0
    link: Link | None = None
    reported: bool = False
    load: wire.Load = field(default_factory=wire.Load)

    def grow(self, more_bytes: int) -> None:
        """It told of chunks that came, or went: until its next heartbeat that is so much."""
        self.load.held_bytes = max(0, self.load.held_bytes + more_bytes)
        self.load.free_bytes = max(0, self.load.free_bytes - more_bytes)


@dataclass(slots=True, kw_only=True)
class _Reign:
    """What this head needs to give orders."""

    lineage: int
    epoch: int
    register: Callable[[Server], None]
    was_accounted: bool = False


class Roster:
    """All chunk servers that ever joined this grid."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        liveness: Liveness,
        locations: Locations,
        redundancy: Redundancy,
        registry: Registry,
        restraint: Restraint,
        heartbeat_seconds: float,
        suspect_seconds: float,
        maintenance_seconds: float,
    ) -> None:
        self._runtime = runtime
        self._liveness = liveness
        self._locations = locations
        self._redundancy = redundancy
        self._registry = registry
        self._heartbeat_seconds = heartbeat_seconds
        self._suspect_seconds = suspect_seconds
        self._maintenance_seconds = maintenance_seconds
        self._restraint = restraint
        self.heads: list[str] = []
        """Addresses of heads that were added since the grid was configured: servers join them."""
        self._servers: dict[str, Server] = {}
        self._suspicion = Suspicion()
        self._tasks = Tasks("watching a chunk server")
        self._reign: _Reign | None = None
        self._tell: Tell = _nobody

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers.values())

    def __getitem__(self, name: str) -> Server:
        return self._servers[name]

    @property
    def accounted(self) -> bool:
        """As :attr:`complete`, but for those that left in good order: they need not be waited for
        where replicas are only made, not taken away."""
        now = self._runtime.clock.seconds()
        return all(
            server.reported
            or self._liveness.state(server.name) is State.DEAD
            or self._liveness.away_seconds(server.name, now)
            for server in self
        )

    @property
    def complete(self) -> bool:
        """Whether every server has reported to this head, or is dead (S18: else "unknown")."""
        return all(
            server.reported or self._liveness.state(server.name) is State.DEAD for server in self
        )

    def state(self, name: str) -> State:
        return self._liveness.state(name)

    def learn_heads(self, addresses: list[str]) -> None:
        """These heads were added since the grid was configured: servers are told as they join.

        Those that are linked hear of them from the leader. A server that cannot reach that one, or
        does not know it yet, has only us: where we do not lead, all are to join anew.
        """
        if addresses == self.heads:
            return
        self.heads = addresses
        for server in self:
            if self._reign is None and server.link is not None:
                server.link.close()

    def is_gone(self, name: str) -> bool:
        """Whether it was drained and then switched off: nothing of it is expected back."""
        drained = self._registry.standing(name) is Standing.DRAINED
        return drained and self._liveness.state(name) is not State.LIVE

    def silent_seconds(self, name: str) -> float:
        """For how long nothing was heard of it."""
        return self._liveness.silent_seconds(name, self._runtime.clock.seconds())

    def suspicion(self, name: str) -> str:
        """Why a live server gets work last; empty where it is trusted."""
        return self._suspicion.reason(name)

    def complain(self, name: str, reporter: str, reason: str) -> None:
        """Somebody was not served by a server that answers our heartbeats."""
        if name in self._servers and self._liveness.state(name) is State.LIVE:
            self._suspicion.report(name, reporter, reason, self._runtime.clock.seconds())

    def away_seconds(self, name: str) -> float:
        """How long a server that left in good order is waited for yet; 0 of others."""
        return self._liveness.away_seconds(name, self._runtime.clock.seconds())

    def wait_for_nobody(self) -> None:
        """A person says that those who are gone stay gone."""
        self._liveness.give_up(self._runtime.clock.seconds())
        self._restraint.go()

    # The part of this head.

    def lead(
        self,
        lineage: int,
        epoch: int,
        known: Iterable[Registered],
        register: Callable[[Server], None],
        tell: Tell,
    ) -> None:
        """From now on watch the servers and give orders, in this epoch.

        What was told before is a good guess of where replicas are. What is missing, or too much,
        is judged only once each server has reported anew, in this epoch (S17), or is dead.

        :param known: the servers of which the log knows; they have their time to join.
        :param register: makes a server known to the log.
        :param tell: notes what comes to pass.
        """
        now = self._runtime.clock.seconds()
        self._reign = _Reign(lineage=lineage, epoch=epoch, register=register)
        for one in known:
            if one.name not in self._servers:
                self._servers[one.name] = Server(
                    name=one.name,
                    incarnation=one.incarnation,
                    rack=one.rack,
                    address=one.address,
                )
        self._liveness.begin(now, [server.name for server in self])
        self._suspicion = Suspicion()
        self._tell = tell
        for server in self:
            server.reported = False
            if server.link is not None:
                self._liveness.joined(server.name, now)
                self._watch(server, self._reign)

    def follow(self) -> None:
        """Another head leads: give no orders any more."""
        self._reign = None
        self._tell = _nobody

    def _watch(self, server: Server, reign: _Reign) -> None:
        reign.register(server)
        self._tell(Event.KIND_JOINED, server.name, f"from {server.address}, rack {server.rack}")
        self._tasks.begin(self._read_inventory(server))
        self._tasks.begin(self._beat(server, reign))

    async def stop(self) -> None:
        await self._tasks.stop()

    # Joining.

    async def join(self, caller: Caller, request: Message) -> wire.Joined:
        """Take a chunk server in; heartbeats and its inventory follow over the same link.

        :raises DuplicateName: where another body with this name or data folder is here (S20).
        """
        assert isinstance(request, wire.Join) and caller.link.peer_hello is not None
        name, boot_count = caller.peer.name, caller.link.peer_hello.boot_count
        self._refuse_second_body(name, request, boot_count)
        old = self._servers.get(name)
        server = Server(
            name=name,
            incarnation=request.incarnation,
            rack=request.rack,
            address=request.address,
            run=request.run,
            boot_count=boot_count,
            link=caller.link,
            load=request.load,
        )
        if old is not None and old.link is not None:
            old.link.close(DuplicateName("a later run of this server has joined", name))
        self._servers[name] = server
        before = self._liveness.joined(name, self._runtime.clock.seconds())
        self._suspicion.joined(name)
        self._restraint.returned(name)
        if before is State.DEAD:
            self._redundancy.scan_server(name)
        elif old is not None and old.run not in (0, request.run):
            self._tell(Event.KIND_RETURNED, name, "it was started anew")
        _log.info("{name} joined from {address}", name=name, address=server.address)
        if self._reign is None:
            self._tasks.begin(self._read_inventory(server))
            return wire.Joined(heads=self.heads)
        self._watch(server, self._reign)
        return wire.Joined(epoch=self._reign.epoch, heads=self.heads)

    async def leave(self, caller: Caller, request: Message) -> frame_pb2.Done:
        """A chunk server is being stopped, and may come back: it is not dead for a while."""
        assert isinstance(request, wire.Leave)
        server = self._servers.get(caller.peer.name)
        if server is not None and server.link is caller.link and server.run == request.run:
            now = self._runtime.clock.seconds()
            self._liveness.left(server.name, now + self._maintenance_seconds)
            _log.info("{name} was stopped in good order", name=server.name)
            self._tell(Event.KIND_LEFT, server.name, "")
        return frame_pb2.Done()

    def _refuse_second_body(self, name: str, request: wire.Join, boot_count: int) -> None:
        for other in self:
            if other.link is None or other.run == request.run:
                continue
            same_folder = other.incarnation == request.incarnation
            if other.name != name and same_folder:
                raise DuplicateName(f"its data folder is in use by {other.name}", name)
            # A later boot of the same folder is a restart whose old connection still looks alive.
            if other.name == name and not (same_folder and boot_count > other.boot_count):
                raise DuplicateName(
                    "another server of this name is here",
                    name,
                    advice="stop the other one, or give this one a name of its own",
                )

    def link_down(self, link: Link) -> None:
        for server in self:
            if server.link is link:
                server.link = None
                self._liveness.link_lost(server.name)

    # Watching.

    async def _beat(self, server: Server, reign: _Reign) -> None:
        """Ask for heartbeats as long as the link is up, and the reign lasts."""
        while server.link is not None and self._reign is reign:
            request = wire.Heartbeat(order=self.order(server), heads=self.heads)
            try:
                load = await server.link.call(
                    request, wire.Load, timeout_seconds=self._suspect_seconds
                )
                self._tell_disks(server, load)
                server.load = load
                self._liveness.heard(server.name, self._runtime.clock.seconds())
            except GridError as error:
                _log.warn("{name} missed a heartbeat: {error}", name=server.name, error=error)
            await self._runtime.sleep(self._heartbeat_seconds)

    def _tell_disks(self, server: Server, load: wire.Load) -> None:
        before = {disk.path: disk.state for disk in server.load.disks}
        for disk in load.disks:
            if before.get(disk.path, "good") != disk.state:
                why = f": {disk.trouble}" if disk.trouble else ""
                self._tell(Event.KIND_DISK, server.name, f"{disk.path} is {disk.state}{why}")

    def judge(self) -> None:
        """Bring everybody's state up to now; what dead servers held is looked at again."""
        now = self._runtime.clock.seconds()
        died = self._liveness.judge(now)
        if died:
            # Those whose connection was lost with them have vanished as well; they are found dead
            # a moment later, because heartbeats are not in step.
            vanished = {*died, *(one.name for one in self if self._is_cut_off(one))}
            here = [one for one in self if self.state(one.name) is not State.DEAD]
            racks = {one.name: one.rack for one in (*here, *map(self._servers.__getitem__, died))}
            self._restraint.died(vanished, racks, now)
        for name in died:
            _log.error("{name} is dead", name=name)
            self._tell(Event.KIND_DIED, name, f"silent for {self.silent_seconds(name):.1f} s")
            server = self._servers[name]
            server.reported = False
            if server.link is not None:
                server.link.close(Unavailable("it missed its heartbeats", name))
            self._redundancy.scan_server(name)
        suspect, trusted = self._suspicion.judge(now, list(self._servers))
        for name in suspect:
            _log.warn("{name} is suspect: {reason}", name=name, reason=self.suspicion(name))
            self._tell(Event.KIND_SUSPECT, name, self.suspicion(name))
        for name in trusted:
            _log.info("{name} is trusted again", name=name)
            self._tell(Event.KIND_TRUSTED, name, "")
        if self._reign is not None and not self._reign.was_accounted and self.accounted:
            # From here on a replica that is not known is missing, not merely unknown (S18).
            self._reign.was_accounted = True
            self._redundancy.scan_all()

    def _is_cut_off(self, server: Server) -> bool:
        return (
            server.link is None
            and self._liveness.state(server.name) is State.SUSPECT
            and not self.away_seconds(server.name)
        )

    async def _read_inventory(self, server: Server) -> None:
        """Learn all that a server holds; its changes come over the same link meanwhile."""
        reign = self._reign
        self._locations.begin_report(server.name)
        after, more = b"", True
        while more:
            if server.link is None:
                return  # it will join again
            request = wire.Inventory(after=after, limit=INVENTORY_PAGE)
            if reign is not None:
                request.order.CopyFrom(self.order(server))
            try:
                page = await server.link.call(
                    request, wire.InventoryPage, timeout_seconds=INVENTORY_SECONDS
                )
            except GridError as error:
                _log.warn("no inventory of {name}: {error}", name=server.name, error=error)
                if server.link is not None:
                    server.link.close(error)
                return
            if self._servers.get(server.name) is not server or self._reign is not reign:
                return
            chunks = [Chunk.from_wire(ref) for ref in page.chunks]
            self._locations.add_page(server.name, chunks)
            named = {chunk.id for chunk in chunks}
            self._redundancy.touch(chunk.id for chunk in chunks)
            more = page.more
            last = chunks[-1].id if more else None
            stale_after: bytes | None = after
            while stale_after is not None:
                stale, stale_after = self._locations.forget_stale(
                    server.name, stale_after, last, named
                )
                self._redundancy.touch(stale)
                await self._runtime.sleep(0)  # a server may hold millions; others have their turn
                if self._servers.get(server.name) is not server or self._reign is not reign:
                    return
            after = last or b""
        self._locations.end_report(server.name)
        server.reported = True
        _log.info("{name} reported all its chunks", name=server.name)

    async def changes(self, caller: Caller, request: Message) -> frame_pb2.Done:
        """Replicas came and went on a server that has joined over this link."""
        assert isinstance(request, wire.Changes)
        server = self._servers.get(caller.peer.name)
        if server is None or server.link is not caller.link or server.run != request.run:
            raise Unavailable("join before telling changes", caller.peer.name)
        gone = [*request.removed, *request.damaged]
        server.grow(sum(ref.length for ref in request.added))
        server.grow(-self._redundancy.held_bytes(server.name, gone))
        self._locations.add(server.name, [Chunk.from_wire(ref) for ref in request.added])
        self._locations.remove(server.name, gone)
        self._redundancy.condemn(server.name, request.damaged)
        for chunk_id in request.damaged[:MOST_ROT_TOLD]:
            self._tell(Event.KIND_ROT_FOUND, server.name, f"chunk {chunk_id.hex()}")
        if len(request.damaged) > MOST_ROT_TOLD:
            text = f"and {len(request.damaged) - MOST_ROT_TOLD} chunks more"
            self._tell(Event.KIND_ROT_FOUND, server.name, text)
        self._suspicion.damaged(server.name, len(request.damaged), self._runtime.clock.seconds())
        self._redundancy.touch(ref.id for ref in request.added)
        self._redundancy.touch(request.removed)
        self._redundancy.touch(request.damaged)
        return frame_pb2.Done()

    # What others ask.

    def racks(self) -> dict[str, str]:
        """The rack of every server."""
        return {server.name: server.rack for server in self}

    def use(self) -> dict[str, float]:
        """How full every server is with chunks, as a fraction of what it has room for."""
        return {
            server.name: server.load.held_bytes
            / max(1, server.load.held_bytes + server.load.free_bytes)
            for server in self
        }

    def order(self, server: Server) -> wire.Order:
        """What every order to this server carries.

        :raises NotLeader: where this head leads no more.
        """
        if self._reign is None:
            raise NotLeader("this head gives no orders any more")
        return wire.Order(lineage=self._reign.lineage, epoch=self._reign.epoch, run=server.run)

    def is_full(
        self, chunk_bytes: int, count: int, coming: Mapping[str, int] = MappingProxyType({})
    ) -> bool:
        """Whether fewer than `count` servers have room for a chunk, of those that are to stay.

        Whoever is away, or slow, or has not reported to this head, is not full for that: it has
        what it said last, and room where it said nothing.

        :param coming: bytes that each of them is about to get back.
        """
        staying = [server for server in self if server.name not in self._registry.leaving]
        roomy = sum(
            not server.load.capacity_bytes
            or has_room(
                server.load.free_bytes + coming.get(server.name, 0) - chunk_bytes,
                server.load.capacity_bytes,
            )
            for server in staying
        )
        return roomy < min(count, len(staying))

    def candidates(self, *, suspect: bool = False) -> list[Candidate]:
        """The servers that may get new chunks.

        :param suspect: instead of them those that may where there are too few of them.
        """
        return [
            Candidate(
                name=server.name,
                rack=server.rack,
                capacity_bytes=server.load.capacity_bytes,
                free_bytes=server.load.free_bytes,
                transfers=server.load.transfers,
            )
            for server in self
            if self._liveness.state(server.name) is State.LIVE
            and server.load.writable
            and server.name not in self._registry.leaving
            and bool(self.suspicion(server.name)) is suspect
        ]
