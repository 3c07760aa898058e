"""One chunk into the grid: through a pipeline of chunk servers, again until it is acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.message import Message
from twisted.internet.defer import CancelledError, Deferred

from filegrid.client.access import Access
from filegrid.client.allocation import Allocator
from filegrid.client.payload import Payload
from filegrid.errors import (
    Cancelled,
    GridError,
    IntegrityError,
    NoSpace,
    SourceChanged,
    Unavailable,
)
from filegrid.hashing import ChunkHasher
from filegrid.model import Address, Chunk, ChunkId, Digest
from filegrid.net.link import Exchange, expect
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire import head_pb2
from filegrid.runtime import Bytes

PIECE_BYTES = 256 * 1024
"""Of one frame: it stays in the processor's cache between the digest and the cipher."""

READ_BYTES = 1024 * 1024
"""Read and hashed by one call of a thread; less, and handing over costs more than the work."""

INLINE_BYTES = 256 * 1024
"""Bytes in memory up to this many are hashed where they are: a thread would take longer."""

SILENCE_SECONDS = 15.0
"""Of the first server of a pipeline. Those behind it cut a silent one out earlier than that."""

_OURS = (SourceChanged, Cancelled)
"""Failures that no other chunk server mends."""


class ChunkWriter:
    """Stores the chunks of one upload.

    :param moved: told how many more bytes the grid has acknowledged.
    """

    def __init__(
        self, access: Access, allocator: Allocator, origin: wire.ChunkOrigin,
        moved: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._access = access
        self._allocator = allocator
        self._origin = origin
        self._moved = moved
        self._session = allocator.session

    async def store(self, index: int, payload: Payload) -> Chunk:
        """Write chunk `index` of the content; return once it is durable on enough servers (S16).

        :raises Unavailable: when no try succeeded while the patience lasted.
        :raises NoSpace: when the grid has no room for it.
        :raises SourceChanged: where the local file did.
        """
        attempt = _Attempts(self._access)
        failed: set[str] = set()
        while True:
            targets = await self._targets(payload, failed)
            if targets is None:
                failed.clear()  # better one that failed before than none
                await attempt.pause(Unavailable("too few chunk servers are left"))
                continue
            try:
                chunk = await self._write(index, payload, targets, attempt)
            except _OURS:
                raise
            except _PipelineFailed as failure:
                failed |= failure.servers
                await attempt.pause(failure.error)
                continue
            self._moved(payload.length)
            return chunk

    async def _targets(
        self, payload: Payload, failed: set[str]
    ) -> Sequence[head_pb2.Target] | None:
        try:
            return await self._allocator.targets(payload.length, failed)
        except (NoSpace, Unavailable):
            if not failed:
                raise
            return None

    async def _write(
        self,
        index: int,
        payload: Payload,
        targets: Sequence[head_pb2.Target],
        attempt: _Attempts,
    ) -> Chunk:
        """One try, under a new id (S15)."""
        chunk_id = ChunkId(self._session.unique_id())
        origin = wire.ChunkOrigin()
        origin.CopyFrom(self._origin)
        origin.index = index
        request = wire.WriteChunk(
            chunk_id=chunk_id,
            origin=origin,
            next=[wire.Hop(server=target.server, address=target.address) for target in targets[1:]],
            most_bytes=payload.length,
        )
        try:
            written, digest = await self._transfer(request, payload, targets[0].address, attempt)
        except _OURS:
            raise
        except GridError as error:
            raise _PipelineFailed({targets[0].server}, error) from error
        if written.digest != digest or written.length != payload.length:
            error = IntegrityError("a chunk server stored other bytes", targets[0].server)
            raise _PipelineFailed({targets[0].server}, error)
        stored = set(written.stored)
        if len(stored) < self._allocator.least_replicas:
            servers = {failure.server for failure in written.failures}
            what = "; ".join(
                f"{failure.server}: {failure.fault.what}" for failure in written.failures
            )
            error = Unavailable(f"only {len(stored)} chunk servers stored the chunk ({what})")
            raise _PipelineFailed(servers, error)
        return Chunk(id=chunk_id, length=payload.length, digest=digest)

    async def _transfer(
        self, request: wire.WriteChunk, payload: Payload, address: str, attempt: _Attempts
    ) -> tuple[wire.Written, Digest]:
        where = Address.parse(address)
        link = await self._access.pool.acquire(where)
        try:
            exchange = link.open(request, timeout_seconds=SILENCE_SECONDS)
            digest = await self._send(exchange, payload, attempt)
            written = expect(wire.Written, await exchange.answer, link.peer)
        except BaseException:
            self._access.pool.drop(link)
            raise
        self._access.pool.release(where, link)
        return written, digest

    async def _send(self, exchange: Exchange, payload: Payload, attempt: _Attempts) -> Digest:
        """Send the bytes and their digest, unless an answer comes before they are all sent."""
        hasher = ChunkHasher()
        sending = Deferred.fromCoroutine(self._send_pieces(exchange, payload, hasher, attempt))

        def stop(result: Message) -> Message:
            # Not from within the answer: the sender itself may be the one that met the failure.
            if not sending.called:
                self._access.runtime.clock.callLater(0, sending.cancel)
            return result

        exchange.answer.addBoth(stop)
        try:
            await sending
        except BaseException as error:
            if not exchange.answer.called or not isinstance(error, (GridError, CancelledError)):
                exchange.answer.addErrback(lambda _: None)
                raise
            await exchange.answer  # the better reason
            raise
        return hasher.digest()

    async def _send_pieces(
        self, exchange: Exchange, payload: Payload, hasher: ChunkHasher, attempt: _Attempts
    ) -> None:
        offset = 0
        while offset < payload.length:
            length = min(READ_BYTES, payload.length - offset)
            view = memoryview(await self._read(payload, offset, length, hasher))
            for start in range(0, length, PIECE_BYTES):
                piece = view[start : start + PIECE_BYTES]
                offset += len(piece)
                last = offset == payload.length
                await exchange.send(piece, last=last, digest=hasher.digest() if last else b"")
                attempt.reached(offset)

    async def _read(
        self, payload: Payload, offset: int, length: int, hasher: ChunkHasher
    ) -> Bytes:
        if payload.in_memory and payload.length <= INLINE_BYTES:
            return _read_and_hash(payload, offset, length, hasher)
        return await self._access.runtime.threads.run(
            _read_and_hash, payload, offset, length, hasher
        )


class _PipelineFailed(Exception):
    """A try came to nothing because of these servers."""

    def __init__(self, servers: set[str], error: GridError) -> None:
        super().__init__(str(error))
        self.servers = servers
        self.error = error


class _Attempts:
    """The tries at one chunk: they go on while each gets further than the ones before."""

    def __init__(self, access: Access) -> None:
        self._patience = access.session.patience()
        self._furthest = 0

    def reached(self, offset: int) -> None:
        if offset > self._furthest:
            self._furthest = offset
            self._patience.renew()

    async def pause(self, error: GridError) -> None:
        """Wait before the next try.

        :raises GridError: `error`, when nothing moved for too long.
        """
        if not await self._patience.pause(error.retry_after_seconds):
            raise error


def _read_and_hash(payload: Payload, offset: int, length: int, hasher: ChunkHasher) -> Bytes:
    data = payload.read(offset, length)
    hasher.update(data)
    return data
