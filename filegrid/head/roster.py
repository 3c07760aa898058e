"""The chunk servers as the leading head sees them: who joined, how they are, what they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from google.protobuf.message import Message
from twisted.logger import Logger

from filegrid.errors import DuplicateName, GridError, Unavailable
from filegrid.head.liveness import Liveness, State
from filegrid.head.locations import Locations
from filegrid.head.placement import Candidate
from filegrid.head.redundancy import Redundancy
from filegrid.model import Chunk
from filegrid.net.link import Caller, Link
from filegrid.net.tasks import Tasks
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire import frame_pb2
from filegrid.runtime import Runtime

INVENTORY_PAGE = 2048
"""Chunks asked for at once: some 130 KiB, and ten milliseconds of the head's time."""

INVENTORY_SECONDS = 30.0

_log = Logger()


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
    certificate_expires_ms: int = 0


class Roster:
    """All chunk servers that ever joined this grid.

    :param register: makes a server known to the log; called when it joins for the first time, or
        with another rack, address or incarnation.
    :param epoch: of the reign in which orders are given; :ivar lineage: to be set before the first.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        liveness: Liveness,
        locations: Locations,
        redundancy: Redundancy,
        register: Callable[[Server], None],
        epoch: int,
        heartbeat_seconds: float,
        suspect_seconds: float,
    ) -> None:
        self._runtime = runtime
        self._liveness = liveness
        self._locations = locations
        self._redundancy = redundancy
        self._register = register
        self.lineage = 0
        self._epoch = epoch
        self._heartbeat_seconds = heartbeat_seconds
        self._suspect_seconds = suspect_seconds
        self._servers: dict[str, Server] = {}
        self._tasks = Tasks("watching a chunk server")
        self._was_complete = False

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers.values())

    def __getitem__(self, name: str) -> Server:
        return self._servers[name]

    @property
    def complete(self) -> bool:
        """Whether every server has reported to this head, or is dead (S18: else "unknown")."""
        return all(
            server.reported or self._liveness.state(server.name) is State.DEAD for server in self
        )

    def state(self, name: str) -> State:
        return self._liveness.state(name)

    def expect(self, server: Server) -> None:
        """A server that the log knows; it has its time to join."""
        self._servers[server.name] = server
        self._liveness.expect(server.name, self._runtime.clock.seconds())

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
            certificate_expires_ms=request.certificate_expires_ms,
        )
        if old is not None and old.link is not None:
            old.link.close(DuplicateName("a later run of this server has joined", name))
        self._servers[name] = server
        if old is None or _identity(old) != _identity(server):
            self._register(server)
        before = self._liveness.joined(name, self._runtime.clock.seconds())
        if before is State.DEAD:
            self._redundancy.scan_server(name)
        _log.info("{name} joined from {address}", name=name, address=server.address)
        self._tasks.begin(self._read_inventory(server))
        self._tasks.begin(self._beat(server))
        return wire.Joined(epoch=self._epoch)

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

    async def _beat(self, server: Server) -> None:
        """Ask for heartbeats as long as the link is up."""
        while server.link is not None:
            request = wire.Heartbeat(order=self.order(server))
            try:
                server.load = await server.link.call(
                    request, wire.Load, timeout_seconds=self._suspect_seconds
                )
                self._liveness.heard(server.name, self._runtime.clock.seconds())
            except GridError as error:
                _log.warn("{name} missed a heartbeat: {error}", name=server.name, error=error)
            await self._runtime.sleep(self._heartbeat_seconds)

    def judge(self) -> None:
        """Bring everybody's state up to now; what dead servers held is looked at again."""
        for name in self._liveness.judge(self._runtime.clock.seconds()):
            _log.error("{name} is dead", name=name)
            server = self._servers[name]
            server.reported = False
            if server.link is not None:
                server.link.close(Unavailable("it missed its heartbeats", name))
            self._redundancy.scan_server(name)
        if self.complete and not self._was_complete:
            # From here on a replica that is not known is missing, not merely unknown (S18).
            self._was_complete = True
            self._redundancy.scan_all()

    async def _read_inventory(self, server: Server) -> None:
        """Learn all that a server holds; its changes come over the same link meanwhile."""
        self._locations.begin_report(server.name)
        after, more = b"", True
        while more:
            if server.link is None:
                return  # it will join again
            request = wire.Inventory(order=self.order(server), after=after, limit=INVENTORY_PAGE)
            try:
                page = await server.link.call(
                    request, wire.InventoryPage, timeout_seconds=INVENTORY_SECONDS
                )
            except GridError as error:
                _log.warn("no inventory of {name}: {error}", name=server.name, error=error)
                if server.link is not None:
                    server.link.close(error)
                return
            if self._servers.get(server.name) is not server:
                return
            self._locations.add(server.name, map(Chunk.from_wire, page.chunks))
            self._redundancy.touch(ref.id for ref in page.chunks)
            more = page.more
            if more:
                after = page.chunks[-1].id
        self._redundancy.touch(self._locations.end_report(server.name))
        server.reported = True
        _log.info("{name} reported all its chunks", name=server.name)

    async def changes(self, caller: Caller, request: Message) -> frame_pb2.Done:
        """Replicas came and went on a server that has joined over this link."""
        assert isinstance(request, wire.Changes)
        server = self._servers.get(caller.peer.name)
        if server is None or server.link is not caller.link or server.run != request.run:
            raise Unavailable("join before telling changes", caller.peer.name)
        self._locations.add(server.name, map(Chunk.from_wire, request.added))
        self._locations.remove(server.name, [*request.removed, *request.damaged])
        self._redundancy.condemn(server.name, request.damaged)
        self._redundancy.touch(ref.id for ref in request.added)
        self._redundancy.touch(request.removed)
        self._redundancy.touch(request.damaged)
        return frame_pb2.Done()

    # What others ask.

    def order(self, server: Server) -> wire.Order:
        """What every order to this server carries."""
        return wire.Order(lineage=self.lineage, epoch=self._epoch, run=server.run)

    def candidates(self) -> list[Candidate]:
        """The servers that may get new chunks."""
        return [
            Candidate(
                name=server.name,
                rack=server.rack,
                capacity_bytes=server.load.capacity_bytes,
                free_bytes=server.load.free_bytes,
                transfers=server.load.transfers,
            )
            for server in self
            if self._liveness.state(server.name) is State.LIVE and server.load.writable
        ]


def _identity(server: Server) -> tuple[bytes, str, str]:
    return server.incarnation, server.rack, server.address
