"""The data plane of a chunk server: chunks come in and go out, and are looked at."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from filegrid.chunk import parcel
from filegrid.chunk.intake import Forward, begin, intake_from
from filegrid.chunk.inventory import Inventory
from filegrid.chunk.load import Meter
from filegrid.chunk.open_files import OpenFiles
from filegrid.chunk.scrub import Scrub
from filegrid.chunk.store import ChunkReader
from filegrid.chunk.volumes import Volumes
from filegrid.errors import (
    GridError,
    IntegrityError,
    InvalidRequest,
    NoSuchChunk,
    Unavailable,
    to_fault,
)
from filegrid.model import BLOCK_BYTES, Address, Chunk, ChunkId, Role
from filegrid.net.dial import DataPool
from filegrid.net.link import Caller, Exchange, Link, expect
from filegrid.net.tasks import claimed, shielded
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire import frame_pb2, head_pb2
from filegrid.runtime import Bytes, Runtime

PIECE_BYTES = 256 * 1024
"""Sent as one frame."""

SHORT_BYTES = 256 * 1024
"""Up to this much goes out in one piece; from memory it is read where we are, as a change of
threads takes longer."""

MOST_BATCH_BYTES = 512 * 1024
"""Read by one call of a thread; less, and handing over costs more than the work. A transfer holds
two."""

HOP_SECONDS = 8.0
"""Silence of the last server of a pipeline after which the one before it goes on without it."""

HOP_STEP_SECONDS = 4.0
"""Added for each server behind: the server nearest to a silent one must be the first to act."""

MOST_INSPECTED = 256
"""Replicas in one question: the answer fits in a frame's header."""

VERIFIED_TOGETHER = 16
"""Replicas read by one call of a thread: for small ones, handing over costs more than the work."""

_log = Logger()


class Transfers:
    """Moves chunks between the store and those who ask, clients and peers.

    :ivar scrub: keeps when each replica was verified last.
    """

    scrub: Scrub

    def __init__(
        self,
        runtime: Runtime,
        store: Volumes,
        inventory: Inventory,
        pool: DataPool,
        meter: Meter,
        *,
        name: str,
    ) -> None:
        self._runtime = runtime
        self._store = store
        self._inventory = inventory
        self._pool = pool
        self._meter = meter
        self._name = name
        self._open_files = OpenFiles(runtime.clock, inventory)

    def close(self) -> None:
        """The files that are open in case somebody reads on."""
        self._open_files.close()

    # Coming in.

    async def write(self, caller: Caller, request: Message) -> wire.Written:
        """Store a chunk and pass it on (S16: answered once it is durable here and behind us)."""
        assert isinstance(request, wire.WriteChunk)
        intake = intake_from(caller.link, self._runtime.clock, self._meter)
        caller.receive_into(intake)
        onward = _Onward(list(request.next))
        try:
            with self._meter.transfer():
                await self._open_next(onward, request)
                writer = await begin(
                    self._runtime.threads,
                    self._store,
                    ChunkId(request.chunk_id),
                    request.origin,
                    request.most_bytes,
                )
                forward = Forward(onward.link, onward.exchange) if onward.exchange else None
                chunk = await intake.run(writer, self._runtime.threads, forward, self._admit)
        except Exception as error:
            self._store.blame(ChunkId(request.chunk_id), error)
            intake.close()
            onward.drop(self._pool)
            raise
        copies = 2 if onward.exchange else 1
        self._meter.moved(network_bytes=copies * chunk.length, disk_bytes=chunk.length)
        written = await onward.outcome(self._pool)
        written.stored.insert(0, self._name)
        written.length, written.digest = chunk.length, chunk.digest
        return written

    async def _admit(self, chunk: Chunk) -> None:
        self._inventory.add(chunk)

    async def store(self, caller: Caller, request: Message) -> wire.Stored:
        """Store small chunks that come together (S16: answered once they are durable here)."""
        assert isinstance(request, wire.StoreChunks)
        chunks = [Chunk.from_wire(one.chunk) for one in request.chunks]
        size = sum(chunk.length for chunk in chunks)
        if size > parcel.MOST_BYTES or len(chunks) > parcel.MOST_CHUNKS:
            raise InvalidRequest(f"{len(chunks)} chunks of {size} bytes at once", self._name)
        coming = parcel.Parcel(self._runtime.clock, size)
        caller.receive_into(coming)
        with self._meter.transfer():
            data, at = await coming.whole(), 0
            parts = []
            for chunk, one in zip(chunks, request.chunks, strict=True):
                parts.append((chunk, one.origin, data[at : at + chunk.length]))
                at += chunk.length
            errors = await shielded(self._keep(parts))
        self._meter.moved(network_bytes=size, disk_bytes=size)
        return wire.Stored(
            failures=[
                wire.CopyFailure(chunk_id=chunk.id, fault=to_fault(error))
                for chunk, error in zip(chunks, errors, strict=True)
                if error is not None
            ]
        )

    async def _keep(
        self, parts: Sequence[tuple[Chunk, wire.ChunkOrigin, memoryview]]
    ) -> list[GridError | None]:
        """To the end, also where the client is gone: what is on disk must be known here."""
        errors = await self._runtime.threads.run(self._store.store, parts)
        stored = [part[0] for part, error in zip(parts, errors, strict=True) if error is None]
        if stored:
            self._inventory.add(*stored)
        return errors

    async def _open_next(self, onward: _Onward, request: wire.WriteChunk) -> None:
        """Begin the same write at the next server; where that fails, go on without those behind."""
        if not request.next:
            return
        hop, *rest = request.next
        try:
            onward.address = Address.parse(hop.address)
            onward.link = await self._pool.acquire(onward.address)
            same = wire.WriteChunk(
                chunk_id=request.chunk_id,
                origin=request.origin,
                next=rest,
                most_bytes=request.most_bytes,
            )
            timeout_seconds = HOP_SECONDS + HOP_STEP_SECONDS * len(rest)
            onward.began(onward.link.open(same, timeout_seconds=timeout_seconds))
        except GridError as error:
            onward.error = error

    # Going out.

    async def read(self, caller: Caller, request: Message) -> frame_pb2.Done:
        """Send block digests and blocks as they are on disk: the reader verifies (S21)."""
        assert isinstance(request, wire.ReadChunk)
        chunk = self._find(request.chunk_id)
        if request.offset % BLOCK_BYTES or request.offset + request.length > chunk.length:
            raise InvalidRequest(
                f"bytes {request.offset}+{request.length} of a chunk of {chunk.length}",
                chunk.id.hex(),
                advice="begin at a multiple of 64 KiB and end within the chunk",
            )
        with self._meter.transfer():
            try:
                await self._send(caller, request, chunk)
            except IntegrityError:
                await self.condemn(chunk, "its block digests are damaged")
                raise
        self._meter.moved(network_bytes=request.length, disk_bytes=request.length)
        return frame_pb2.Done()

    async def fetch(self, caller: Caller, request: Message) -> wire.Fetched:
        """Send whole small chunks as they are on disk: the reader verifies (S21)."""
        assert isinstance(request, wire.FetchChunks)
        known = [self._inventory.get(chunk_id) for chunk_id in request.chunk_ids]
        chunks = [chunk for chunk in known if chunk is not None]
        size = sum(chunk.length for chunk in chunks)
        if size > parcel.MOST_BYTES or len(known) > parcel.MOST_CHUNKS:
            raise InvalidRequest(f"{len(known)} chunks of {size} bytes at once", self._name)
        answer = wire.Fetched()
        with self._meter.transfer():
            found = await self._runtime.threads.run(self._store.read_many, chunks)
        pieces = []
        for chunk, data in zip(chunks, found, strict=True):
            if isinstance(data, bytes):
                pieces.append(memoryview(data))
                continue
            answer.failures.add(chunk_id=chunk.id, fault=to_fault(data))
            if isinstance(data, IntegrityError):
                await self.condemn(chunk, str(data))
        for chunk_id, one in zip(request.chunk_ids, known, strict=True):
            if one is None:
                gone = NoSuchChunk("this server does not hold the chunk", chunk_id.hex())
                answer.failures.add(chunk_id=chunk_id, fault=to_fault(gone))
        caller.attach(pieces)
        self._meter.moved(network_bytes=size, disk_bytes=size)
        return answer

    async def _send(self, caller: Caller, request: wire.ReadChunk, chunk: Chunk) -> None:
        if request.length <= SHORT_BYTES:
            await self._send_short(caller, request, chunk)
            return
        run = self._runtime.threads.run
        if not request.without_digests:
            digests = await run(self._store.block_digests, chunk)
            await caller.send(digests, frame_pb2.Data.SECTION_BLOCK_DIGESTS)
        await self._send_content(caller, chunk, request.offset, request.offset + request.length)

    async def _send_short(self, caller: Caller, request: wire.ReadChunk, chunk: Chunk) -> None:
        """All at once with the answer; what is in memory of an open file comes without a thread."""
        data: Bytes | None = None
        reader = self._open_files.get(chunk.id) if request.without_digests else None
        if reader is not None:
            data = reader.pread_cached(request.length, request.offset)
        if data is None:
            digests, data = await shielded(self._read_short(request, chunk))
            if digests:
                await caller.send(digests, frame_pb2.Data.SECTION_BLOCK_DIGESTS)
        assert data is not None
        caller.attach([memoryview(data)])

    async def _read_short(self, request: wire.ReadChunk, chunk: Chunk) -> tuple[bytes, bytes]:
        """To the end, also where nobody waits for it any more: the file is kept, or closed."""
        run = self._runtime.threads.run
        reader, digests, data = await run(self._open_and_read, request, chunk)
        self._open_files.keep(reader)
        return digests, data

    def _open_and_read(
        self, request: wire.ReadChunk, chunk: Chunk
    ) -> tuple[ChunkReader, bytes, bytes]:
        reader = self._store.open_reader(chunk)
        try:
            digests = b"" if request.without_digests else reader.block_digests()
            return reader, digests, reader.pread(request.length, request.offset)
        except BaseException:
            reader.close()
            raise

    async def _send_content(self, caller: Caller, chunk: Chunk, offset: int, end: int) -> None:
        """While one batch goes out, the next is read."""
        if offset == end:
            return
        run = self._runtime.threads.run
        most = self._meter.share_bytes(MOST_BATCH_BYTES)
        for_repair = caller.peer.role is Role.CHUNK
        reader = await claimed(run(self._open, chunk, for_repair), ChunkReader.close)
        batch = run(reader.pread, min(most, end - offset), offset)
        try:
            while offset < end:
                view = memoryview(await batch)
                offset += len(view)
                if offset < end:
                    batch = run(reader.pread, min(most, end - offset), offset)
                for start in range(0, len(view), PIECE_BYTES):
                    await caller.send(view[start : start + PIECE_BYTES])
        finally:
            batch.addBoth(lambda _: reader.close())

    def _open(self, chunk: Chunk, for_repair: bool) -> ChunkReader:
        reader = self._store.open_reader(chunk)
        if for_repair:
            try:
                reader.give_way()
            except BaseException:
                reader.close()
                raise
        return reader

    async def lend(self, caller: Caller, request: Message) -> wire.Lent:
        """Let a reader on this machine read a chunk's file itself; it verifies as ever (S21)."""
        assert isinstance(request, wire.LendChunk)
        lending = self._runtime.lending
        if lending is None:
            raise InvalidRequest("this server lends no files", self._name)
        chunk = self._find(request.chunk_id)
        opening = self._runtime.threads.run(self._store.open_reader, chunk)
        reader = await claimed(opening, ChunkReader.close)
        self._meter.lent()
        return reader.lend(lending)

    async def inspect(self, caller: Caller, request: Message) -> wire.Inspection:
        """Where replicas lie and, where asked, whether all of each is as it should be."""
        assert isinstance(request, wire.InspectChunks)
        if len(request.chunk_ids) > MOST_INSPECTED:
            raise InvalidRequest(f"at most {MOST_INSPECTED} chunks can be inspected at once")
        asked = [self._inventory.get(chunk_id) for chunk_id in request.chunk_ids]
        here = [chunk for chunk in asked if chunk is not None]
        errors = await self.verify(here) if request.verify else [None] * len(here)
        found = {
            chunk: wire.Inspected(state=_state(error))
            for chunk, error in zip(here, errors, strict=True)
        }
        good = [chunk for chunk, error in zip(here, errors, strict=True) if error is None]
        places = await self._runtime.threads.run(self._store.locate, good)
        times = await self.scrub.last_verified_ms(good)
        for chunk, place, verified_ms in zip(good, places, times, strict=True):
            if isinstance(place, GridError):  # it went meanwhile
                found[chunk].state = _state(place)
                continue
            found[chunk].file, found[chunk].offset = place
            found[chunk].chunk.CopyFrom(chunk.to_wire())
            found[chunk].verified_ms = verified_ms
        missing = wire.Inspected(state=head_pb2.REPLICA_STATE_MISSING)
        return wire.Inspection(
            replicas=[missing if chunk is None else found[chunk] for chunk in asked]
        )

    async def verify(self, chunks: Sequence[Chunk]) -> list[GridError | None]:
        """Read all of these replicas and compare; damaged ones are condemned.

        :returns: for each None where it is good, an :class:`IntegrityError` or
            :class:`NoSuchChunk` where it is not, or another error where the disk failed, which
            says nothing about the replica.
        """
        outcomes: list[GridError | None] = []
        for start in range(0, len(chunks), VERIFIED_TOGETHER):
            some = chunks[start : start + VERIFIED_TOGETHER]
            errors = await self._runtime.threads.run(self._store.verify_many, some)
            good = []
            for chunk, error in zip(some, errors, strict=True):
                if error is None:
                    good.append(chunk)
                    self._meter.moved(disk_bytes=chunk.length)
                elif isinstance(error, (IntegrityError, NoSuchChunk)):
                    await self.condemn(chunk, str(error))
                else:
                    _log.warn("{id} was not verified: {error}", id=chunk.id.hex(), error=error)
            await self.scrub.verified(good)
            outcomes += errors
        return outcomes

    async def condemn(self, chunk: Chunk, reason: str) -> None:
        """Serve it no more, tell the heads, and set its file aside."""
        if self._inventory.condemn(chunk.id) is None:
            return  # somebody else found it at the same time, or it was removed
        _log.error("{chunk} is damaged: {reason}", chunk=chunk.id.hex(), reason=reason)
        await self._runtime.threads.run(self._store.quarantine, chunk.id, reason)

    def _find(self, chunk_id: bytes) -> Chunk:
        chunk = self._inventory.get(chunk_id)
        if chunk is None:
            raise NoSuchChunk("this server does not hold the chunk", chunk_id.hex())
        return chunk


class _Onward:
    """The write at the rest of the pipeline: under way, failed, or none."""

    link: Link
    address: Address

    def __init__(self, hops: Sequence[wire.Hop]) -> None:
        self._hops = hops
        self.exchange: Exchange | None = None
        self.error: GridError | None = None
        self._written: wire.Written | None = None
        self._ended: Deferred[None] | None = None

    def began(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._ended = exchange.answer.addCallbacks(self._answered, self._failed)

    def _answered(self, answer: Message) -> None:
        self._written = expect(wire.Written, answer, self.link.peer)

    def _failed(self, failure: Failure) -> None:
        failure.trap(GridError)
        assert isinstance(failure.value, GridError)
        self.error = failure.value

    async def outcome(self, pool: DataPool) -> wire.Written:
        """What those behind us stored, and who did not."""
        if self._ended is not None:
            await self._ended
            if self._written is not None:
                pool.release(self.address, self.link)
                return self._written
            pool.drop(self.link)
        return wire.Written(failures=self._failures())

    def _failures(self) -> list[wire.HopFailure]:
        if self.error is None:
            return []
        behind = Unavailable("the server before it in the pipeline failed")
        return [
            wire.HopFailure(server=hop.server, fault=to_fault(behind if place else self.error))
            for place, hop in enumerate(self._hops)
        ]

    def drop(self, pool: DataPool) -> None:
        """We failed: those behind us must not keep what they have."""
        if self.exchange is not None:
            pool.drop(self.link)


def _state(error: GridError | None) -> head_pb2.ReplicaState.ValueType:
    """What reading a replica says of it."""
    if error is None:
        return head_pb2.REPLICA_STATE_GOOD
    if isinstance(error, IntegrityError):
        return head_pb2.REPLICA_STATE_CORRUPT
    if isinstance(error, NoSuchChunk):
        return head_pb2.REPLICA_STATE_MISSING
    return head_pb2.REPLICA_STATE_SUSPECT
