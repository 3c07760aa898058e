"""The chunk server: its store, its data plane, and its links to the heads, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from google.protobuf.message import Message
from twisted.logger import Logger

from filegrid.chunk.copying import Copying
from filegrid.chunk.disks import Disks
from filegrid.chunk.fence import Fence
from filegrid.chunk.heads import HeadLinks
from filegrid.chunk.inventory import Inventory
from filegrid.chunk.load import Meter
from filegrid.chunk.pace import Pace
from filegrid.chunk.scrub import Scrub
from filegrid.chunk.segments import SEGMENT_BYTES
from filegrid.chunk.store import SMALL_BYTES, Store
from filegrid.chunk.transfers import Transfers
from filegrid.chunk.verified import open_verifications
from filegrid.chunk.volume import Volume
from filegrid.chunk.volumes import Volumes
from filegrid.config import Settings
from filegrid.datafolder import DataFolder
from filegrid.errors import GridError, StaleEpoch
from filegrid.model import Chunk, Epoch, Identity, Role
from filegrid.net.dial import DataPool, acceptor, hello_of
from filegrid.net.link import Caller, Handler, Link, Method
from filegrid.net.tasks import Tasks, shielded
from filegrid.protocol.frames import Plane
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire import frame_pb2
from filegrid.runtime import Listener, Runtime

MOST_PAGE = 4096
"""Chunks in one page of the inventory: some 250 KiB, a few milliseconds of a head's time."""

TIDY_SECONDS = 10.0
"""How often we look whether removed small chunks have left room that is worth taking back, and
try again to take away what a disk that failed did not let go."""

COMPACT_STEP_BYTES = 1024 * 1024
COMPACT_STEP_SECONDS = 0.05
"""Moved at once, and the pause after it: some 20 MiB a second, in the background."""

READERS = frozenset({Role.CLIENT, Role.OPERATOR, Role.CHUNK})
HEADS = frozenset({Role.HEAD})
WRITERS = READERS | HEADS
"""Heads keep backups of the metadata on the chunk servers."""

_log = Logger()


class ChunkServer:
    """One chunk server. Everything is open and loaded when it is made; :meth:`start` serves.

    :param identity: by its certificate, which expires at `certificate_expires_ms`.
    :param cpu_percent: how busy the machine is, for the load report.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        identity: Identity,
        *,
        folder: DataFolder,
        store: Volumes,
        inventory: Inventory,
        fence: Fence,
        cpu_percent: Callable[[], float],
        certificate_expires_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._identity = identity
        self._certificate_expires_ms = certificate_expires_ms
        self._folder = folder
        self._store = store
        self._inventory = inventory
        self._fence = fence
        self._run = runtime.random.getrandbits(64)
        self._meter = Meter(runtime.clock, cpu_percent)
        self._pool = DataPool(runtime, self._hello)
        self._transfers = Transfers(
            runtime, store, inventory, self._pool, self._meter, name=identity.name
        )
        self._scrub = self._transfers.scrub = Scrub(
            runtime,
            inventory,
            self._meter,
            days=settings.scrub.days,
            rot_found=len(store.damaged),
            verify=self._transfers.verify,
            open=lambda: open_verifications(runtime.disk, folder.within("verified.sqlite")),
        )
        pace = Pace(runtime, self._meter, settings.repair.mib_per_second)
        self._copying = Copying(
            runtime, store, inventory, self._pool, self._meter, self._scrub, pace
        )
        self._disks = Disks(runtime, store, inventory)
        self._tasks = Tasks("tidying")
        self._links: dict[Link, None] = {}  # in order: every run is alike
        self._listener: Listener | None = None
        self._heads = HeadLinks(
            runtime,
            settings.node.heads,
            inventory,
            hello=self._hello,
            methods=self._orders(),
            join=self._join,
            run=self._run,
        )
        self.methods: Mapping[str, Method] = {
            "write_chunk": self._method(WRITERS, self._transfers.write),
            "store_chunks": self._method(READERS, self._transfers.store),
            "fetch_chunks": self._method(READERS, self._transfers.fetch),
            "read_chunk": self._method(READERS, self._transfers.read),
            "lend_chunk": self._method(READERS, self._transfers.lend),
            "inspect_chunks": Method(READERS, self._transfers.inspect),
        }

    async def start(self) -> None:
        """Listen on the data plane and dial the heads.

        :raises Unavailable: where the port is taken.
        """
        build = acceptor(Plane.DATA, self._runtime, self._hello, self)
        self._listener = await self._runtime.network.listen(self._settings.node.listen, build)
        self._disks.start()
        self._heads.start()
        self._tasks.begin(self._tidy())
        self._scrub.start()
        _log.info(
            "{name} serves {chunks} chunks at {address}",
            name=self._identity.name,
            chunks=len(self._inventory),
            address=self._listener.address,
        )

    async def stop(self) -> None:
        """Take leave of the heads, then end what is under way."""
        await self._heads.stop()
        await self._tasks.stop()
        await self._scrub.stop()
        await self._disks.stop()
        if self._listener is not None:
            await self._listener.close()
        for link in list(self._links):
            link.close()
        self._pool.close()
        self._transfers.close()
        self._folder.close()

    def _method(self, roles: frozenset[Role], handle: Handler) -> Method:
        """One for clients, whom copies give way to; peers read in order to copy."""

        async def serve(caller: Caller, request: Message) -> Message:
            if caller.peer.role is Role.CHUNK and not isinstance(request, wire.WriteChunk):
                return await handle(caller, request)
            with self._meter.client():
                return await handle(caller, request)

        return Method(roles, serve)

    # Links of the data plane.

    def link_up(self, link: Link) -> None:
        self._links[link] = None

    def link_down(self, link: Link, error: GridError) -> None:
        self._links.pop(link, None)

    # What heads may ask. Each order is obeyed only after the fence has let it pass (S13).

    def _orders(self) -> dict[str, Method]:
        return {
            "heartbeat": Method(HEADS, self._heartbeat),
            "inventory": Method(HEADS, self._page),
            "copy_chunks": Method(HEADS, self._copy),
            "discard_chunks": Method(HEADS, self._discard),
            "inspect_chunks": Method(HEADS, self._transfers.inspect),
        }

    async def _obey(self, order: wire.Order) -> None:
        """:raises StaleEpoch: for an order of an older head, or for another run of this server."""
        if order.run != self._run:
            raise StaleEpoch("an order for another run of this server", self._identity.name)
        while self._fence.admit(order.lineage, Epoch(order.epoch)):
            # Stored before it is obeyed; a newer order may have come meanwhile, so judge again.
            await self._runtime.threads.lane("fence").run(self._fence.store)

    async def _heartbeat(self, caller: Caller, request: Message) -> wire.Load:
        assert isinstance(request, wire.Heartbeat)
        await self._obey(request.order)
        self._heads.leads(caller.link)
        self._heads.learn(request.heads)
        await self._disks.look()
        return self._load()

    async def _page(self, caller: Caller, request: Message) -> wire.InventoryPage:
        assert isinstance(request, wire.Inventory)
        if request.HasField("order"):  # a head that only follows asks too, and orders nothing
            await self._obey(request.order)
        chunks, more = self._inventory.page(request.after, min(request.limit, MOST_PAGE))
        return wire.InventoryPage(chunks=[chunk.to_wire() for chunk in chunks], more=more)

    async def _copy(self, caller: Caller, request: Message) -> wire.Copied:
        assert isinstance(request, wire.CopyChunks)
        await self._obey(request.order)
        return await self._copying.copy(request.copies)

    async def _discard(self, caller: Caller, request: Message) -> frame_pb2.Done:
        assert isinstance(request, wire.DiscardChunks)
        await self._obey(request.order)
        # From the fence to here nothing else ran: accepting a removal, and what the next report
        # says, are one step (S17). The files go afterwards; one left over is reported again.
        leaving = [self._inventory.remove(chunk_id) for chunk_id in request.chunk_ids]
        # To the end, also where the head is gone meanwhile: nobody would order it again.
        await shielded(self._remove([chunk for chunk in leaving if chunk is not None]))
        return frame_pb2.Done()

    async def _remove(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            await self._runtime.threads.run(self._store.remove, chunk.id)

    # Its own work.

    async def _tidy(self) -> None:
        while True:
            await self._runtime.sleep(TIDY_SECONDS)
            await self._runtime.threads.run(self._store.tidy)
            more = True
            while more:
                try:
                    more = await self._compact_step()
                except GridError as error:
                    _log.warn("small chunks are not compacted: {error}", error=error)
                    break
                await self._runtime.sleep(COMPACT_STEP_SECONDS)

    async def _compact_step(self) -> bool:
        more, damaged = await self._runtime.threads.run(self._store.compact, COMPACT_STEP_BYTES)
        for chunk in damaged:
            await self._transfers.condemn(chunk, "it was found damaged while it was moved")
        return more

    # What this server says of itself.

    def _hello(self) -> frame_pb2.Hello:
        return hello_of(
            self._identity,
            incarnation=self._folder.incarnation,
            boot_count=self._folder.boot_count,
        )

    def _join(self) -> wire.Join:
        return wire.Join(
            rack=self._settings.node.rack,
            address=str(self._settings.address),
            incarnation=self._folder.incarnation,
            run=self._run,
            load=self._load(),
        )

    def _load(self) -> wire.Load:
        self._meter.read()
        capacity_bytes, free_bytes = self._disks.space
        return wire.Load(
            capacity_bytes=capacity_bytes,
            free_bytes=free_bytes,
            chunks=len(self._inventory),
            cpu_percent=self._meter.cpu_percent,
            network_bytes_per_second=self._meter.network_bytes_per_second,
            disk_bytes_per_second=self._meter.disk_bytes_per_second,
            transfers=self._meter.transfers,
            writable=not self._disks.trouble,
            trouble=self._disks.trouble,
            disks=self._disks.report,
            held_bytes=self._inventory.bytes,
            writers=self._store.writers,
            scrubbed=self._scrub.report,
            certificate_expires_ms=self._certificate_expires_ms(),
        )


def open_chunk_server(
    runtime: Runtime,
    settings: Settings,
    identity: Identity,
    *,
    create: bool,
    cpu_percent: Callable[[], float],
    certificate_expires_ms: Callable[[], int] = lambda: 0,
    small_bytes: int = SMALL_BYTES,
    segment_bytes: int = SEGMENT_BYTES,
) -> ChunkServer:
    """Open a chunk server's data folder and read what is in it. Blocks.

    :param create: make the folder where it is missing: the server is new.
    :param small_bytes: up to this length chunks share files, of `segment_bytes` about.
    :raises GridError: one line: what is wrong with the folder, and what mends it.
    """

    def open_folder(path: str, create: bool) -> DataFolder:
        return DataFolder.open(
            runtime.disk,
            path,
            identity=identity,
            create=create,
            rng=runtime.random,
        )

    def volume(path: str, open: Callable[[bool], DataFolder] | None) -> Volume:
        store = Store(
            runtime.disk,
            path,
            grid_id=identity.grid_id,
            reserve_bytes=settings.node.reserve_bytes,
            small_bytes=small_bytes,
            segment_bytes=segment_bytes,
            rng=runtime.random,
        )
        return Volume(runtime.disk, path, store, open, create=create)

    folder = open_folder(str(settings.node.data), create)
    fence = Fence(runtime.disk, folder.within("fence"))
    fence.load()
    further = [str(path) for path in settings.node.disks]
    store = Volumes(
        [
            volume(folder.path, None),
            *(volume(path, partial(open_folder, path)) for path in further),
        ],
        runtime.random,
    )
    return ChunkServer(
        runtime,
        settings,
        identity,
        folder=folder,
        store=store,
        inventory=Inventory(store.load()),
        fence=fence,
        cpu_percent=cpu_percent,
        certificate_expires_ms=certificate_expires_ms,
    )
