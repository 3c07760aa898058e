"""The head: its metadata, its chunk servers and its clients, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from filegrid.config import Settings
from filegrid.datafolder import DataFolder
from filegrid.errors import GridError, InvalidRequest
from filegrid.head.collector import Collector
from filegrid.head.epoch import EpochFile
from filegrid.head.journal import Journal
from filegrid.head.ledger import Ledger
from filegrid.head.liveness import Liveness
from filegrid.head.locations import Locations
from filegrid.head.namespace import Namespace
from filegrid.head.redundancy import Redundancy
from filegrid.head.repair import Repair
from filegrid.head.roster import Roster, Server
from filegrid.head.status import StatusReport
from filegrid.head.verbs import Verbs
from filegrid.model import ChunkId, Epoch, Identity, Role
from filegrid.net.dial import acceptor, hello_of
from filegrid.net.link import Link, Method
from filegrid.net.tasks import Tasks
from filegrid.protocol.frames import Plane
from filegrid.protocol.wire import frame_pb2, head_pb2
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.runtime import Listener, Runtime

FIRST_LINEAGE = 1
"""Of a grid that was created; a restored or rebuilt one has a higher one (S12)."""

TURN_SECONDS = 0.1
"""Between two looks at the servers; a dead one is noticed so much later at most."""

HOUSEKEEPING_SECONDS = 1.0
"""Between two looks for what has expired."""

LOOKS_PER_TURN = 8
"""Steps of the redundancy check in a row, before everybody else has a turn."""

PURGED_AT_ONCE = 256
"""Nodes and chunks taken out of the trash by one entry of the log."""

WRITTEN_OFF_AT_ONCE = 1024

CHUNK_SERVERS = frozenset({Role.CHUNK})

_log = Logger()


class Head:
    """One head server, leading. All is open and loaded when it is made; :meth:`start` serves.

    :param identity: by its certificate, which expires at `certificate_expires_ms`.
    :param epoch: one that nobody has led in.
    :param locations: an empty database for what chunk servers report.
    :param create: whether this head may make the grid, where its log is empty (S1).
    :param on_fatal: called once where the log cannot be written any more: the process must end.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        identity: Identity,
        *,
        folder: DataFolder,
        journal: Journal,
        namespace: Namespace,
        locations: Locations,
        epoch: Epoch,
        create: bool,
        on_fatal: Callable[[GridError], None],
        certificate_expires_ms: int = 0,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._identity = identity
        self._folder = folder
        self._namespace = namespace
        self._create = create
        self._ledger = Ledger(
            runtime,
            journal,
            namespace,
            epoch=epoch,
            node=identity.name,
            on_fatal=on_fatal,
            on_applied=self._applied,
        )
        self._listener: Listener | None = None
        self._links: set[Link] = set()
        self._tasks = Tasks("housekeeping")
        self._liveness = Liveness(
            suspect_seconds=settings.chunk.suspect_seconds,
            dead_seconds=settings.chunk.dead_seconds,
            most_gap_seconds=10 * TURN_SECONDS,
        )
        self._redundancy = Redundancy(namespace, locations, self._liveness, runtime.clock.seconds)
        self._roster = Roster(
            runtime,
            liveness=self._liveness,
            locations=locations,
            redundancy=self._redundancy,
            register=lambda server: self._tasks.begin(self._register(server)),
            epoch=epoch,
            heartbeat_seconds=settings.chunk.heartbeat_seconds,
            suspect_seconds=settings.chunk.suspect_seconds,
        )
        self._repair = Repair(
            runtime,
            self._roster,
            self._redundancy,
            namespace,
            mib_per_second=settings.repair.mib_per_second,
        )
        self._collector = Collector(
            runtime,
            self._roster,
            self._redundancy,
            locations,
            namespace,
            grace_seconds=settings.grid.collection_grace_seconds,
            forget=self._write_off,
        )
        self._report = StatusReport(
            runtime,
            name=identity.name,
            epoch=epoch,
            min_replicas=settings.grid.min_replicas,
            certificate_expires_ms=certificate_expires_ms,
            namespace=namespace,
            roster=self._roster,
            redundancy=self._redundancy,
            repair=self._repair,
            collector=self._collector,
        )
        verbs = Verbs(
            runtime,
            settings.grid,
            namespace=namespace,
            roster=self._roster,
            locations=locations,
            redundancy=self._redundancy,
            propose=self._ledger.propose,
            status=self._get_status,
        )
        self.methods: Mapping[str, Method] = {
            **verbs.methods,
            "join": Method(CHUNK_SERVERS, self._roster.join),
            "changes": Method(CHUNK_SERVERS, self._roster.changes),
        }
        self._loops = [
            (LoopingCall(self._turn), TURN_SECONDS),
            (LoopingCall(self._housekeep), HOUSEKEEPING_SECONDS),
        ]

    async def start(self) -> None:
        """Commit this epoch's barrier (S4), then listen.

        :raises InvalidRequest: where there is no grid yet and this head may not create one (S1).
        :raises Unavailable: where the port is taken.
        """
        await self._ledger.start()
        await self._need_grid()
        self._roster.lineage = self._namespace.registers().lineage
        for known in self._namespace.servers():
            self._roster.expect(
                Server(
                    name=known.name,
                    incarnation=known.incarnation,
                    rack=known.rack,
                    address=known.address,
                )
            )
        build = acceptor(Plane.CONTROL, self._runtime, self._hello, self)
        self._listener = await self._runtime.network.listen(self._settings.node.listen, build)
        for loop, seconds in self._loops:
            loop.clock = self._runtime.clock
            loop.start(seconds).addErrback(
                lambda failure: _log.failure("a loop of the head failed", failure=failure)
            )
        _log.info(
            "{name} leads epoch {epoch} at {address}",
            name=self._identity.name,
            epoch=self._ledger.epoch,
            address=self._listener.address,
        )

    async def _need_grid(self) -> None:
        """Create the grid where this head was told to, once (S1); else an empty head may not lead."""
        if self._namespace.registers().grid_id:
            return
        if not self._create:
            raise InvalidRequest(
                "there is no grid in this head's data",
                self._folder.path,
                advice="bring its data back, or create a new grid with --create",
            )
        created = journal.CreateGrid(grid_id=self._identity.grid_id, lineage=FIRST_LINEAGE)
        await self._ledger.propose(journal.Command(create_grid=created))

    async def stop(self) -> None:
        """Take no more, finish what was accepted, and end."""
        if self._listener is not None:
            await self._listener.close()
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()
        await self._repair.stop()
        await self._collector.stop()
        await self._roster.stop()
        await self._tasks.stop()
        await self._ledger.stop()
        for link in list(self._links):
            link.close()
        self._folder.close()

    def link_up(self, link: Link) -> None:
        self._links.add(link)

    def link_down(self, link: Link, error: GridError) -> None:
        self._links.discard(link)
        self._roster.link_down(link)

    def _hello(self) -> frame_pb2.Hello:
        hello = hello_of(
            self._identity,
            incarnation=self._folder.incarnation,
            boot_count=self._folder.boot_count,
        )
        hello.epoch = self._ledger.epoch
        return hello

    def _get_status(self) -> head_pb2.Status:
        return self._report.make(self._settings.address)

    # By itself.

    def _turn(self) -> None:
        self._roster.judge()
        for _ in range(LOOKS_PER_TURN):
            if not self._redundancy.step():
                break
        self._repair.turn()

    def _housekeep(self) -> None:
        self._collector.turn()
        if not len(self._tasks):
            self._tasks.begin(self._expire())

    def _applied(
        self, entries: Sequence[journal.Entry], outcomes: Sequence[journal.Outcome]
    ) -> None:
        for outcome in outcomes:
            self._redundancy.touch(outcome.released)
            self._redundancy.touch(outcome.published)

    async def _expire(self) -> None:
        """Log what the passing of time has ended (S9: log time, not a clock's)."""
        now_ms = self._ledger.log_time_ms
        due = self._namespace.sessions_due(now_ms)
        try:
            if due:
                expired = journal.ExpireSessions(sessions=due)
                await self._ledger.propose(journal.Command(expire_sessions=expired))
            while self._namespace.purge_due(now_ms):
                purge = journal.PurgeTrash(limit=PURGED_AT_ONCE)
                await self._ledger.propose(journal.Command(purge_trash=purge))
        except GridError as error:
            _log.warn("what has expired stays for now: {error}", error=error)

    async def _register(self, server: Server) -> None:
        known = journal.RegisterServer(
            name=server.name,
            incarnation=server.incarnation,
            rack=server.rack,
            address=server.address,
        )
        try:
            await self._ledger.propose(journal.Command(register_server=known))
        except GridError as error:
            # Known to this head all the same; it is logged when it joins the next time.
            _log.error("{name} is not registered: {error}", name=server.name, error=error)

    async def _write_off(self, chunk_ids: Sequence[ChunkId]) -> None:
        for start in range(0, len(chunk_ids), WRITTEN_OFF_AT_ONCE):
            gone = journal.ForgetReleased(chunk_ids=chunk_ids[start : start + WRITTEN_OFF_AT_ONCE])
            await self._ledger.propose(journal.Command(forget_released=gone))


def open_head(
    runtime: Runtime,
    settings: Settings,
    identity: Identity,
    *,
    create: bool,
    on_fatal: Callable[[GridError], None],
    certificate_expires_ms: int = 0,
) -> Head:
    """Open a head's data folder and all that is in it. Blocks.

    The epoch is raised above any that this head led in before: it never resumes one (S5).

    :raises GridError: one line: what is wrong with the folder, and what mends it.
    """
    folder = DataFolder.open(
        runtime.disk,
        str(settings.node.data),
        grid_id=identity.grid_id,
        role=identity.role,
        name=identity.name,
        create=create,
        rng=runtime.random,
    )
    log = Journal.open(runtime.disk, folder.within("log"))
    state = folder.within("namespace.sqlite")
    namespace = Namespace(runtime.disk.database(state), runtime.disk.database(state))
    epochs = EpochFile(runtime.disk, folder.within("epoch"))
    return Head(
        runtime,
        settings,
        identity,
        folder=folder,
        journal=log,
        namespace=namespace,
        locations=Locations(runtime.disk.database(folder.within("locations.sqlite"))),
        epoch=epochs.raise_above(log.last_epoch),
        create=create,
        on_fatal=on_fatal,
        certificate_expires_ms=certificate_expires_ms,
    )
