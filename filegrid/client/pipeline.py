"""One chunk into the grid: through a pipeline of chunk servers, again until it is acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.python.failure import Failure

from filegrid.client.access import Access
from filegrid.client.allocation import Allocator
from filegrid.client.payload import Payload
from filegrid.errors import (
    Cancelled,
    GridError,
    IntegrityError,
    Unavailable,
    from_fault,
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
"""Read by one call of a thread; less, and handing over costs more than the work."""

SILENCE_SECONDS = 15.0
"""Of the first server of a pipeline. Those behind it cut a silent one out earlier than that."""


class ChunkWriter:
    """Stores the chunks of one upload.

    :param origin: what each chunk says of itself on disk, but for its own place.
    :param moved: told how many more bytes the grid has acknowledged.
    """

    def __init__(
        self,
        access: Access,
        allocator: Allocator,
        origin: wire.ChunkOrigin,
        moved: Callable[[int], None],
    ) -> None:
        self._access = access
        self._allocator = allocator
        self._origin = origin
        self._moved = moved

    async def store(self, index: int, payload: Payload, chunk_count: int) -> Chunk:
        """Write chunk `index` of the content; return once it is durable on enough servers (S16).

        :param chunk_count: of the whole content; 0 where that is not known yet.
        :raises Unavailable: when no try succeeded while the patience lasted.
        :raises NoSpace: when the grid has no room for it.
        :raises SourceChanged: where the local file did.
        """
        attempts = _Attempts(self._access)
        origin = wire.ChunkOrigin(index=index, chunk_count=chunk_count)
        origin.MergeFrom(self._origin)
        while True:
            targets = await self._allocator.targets(payload.length)
            try:
                chunk = await self._write(origin, payload, targets, attempts)
            except _SourceFailed as failure:
                raise failure.error from None
            except _PipelineFailed as failure:
                self._allocator.avoid(failure.servers)
                await attempts.pause(failure.error)
                continue
            self._moved(payload.length)
            return chunk

    async def _write(
        self,
        origin: wire.ChunkOrigin,
        payload: Payload,
        targets: Sequence[head_pb2.Target],
        attempts: _Attempts,
    ) -> Chunk:
        """One try, under a new id (S15)."""
        chunk_id = ChunkId(self._allocator.session.unique_id())
        request = wire.WriteChunk(
            chunk_id=chunk_id,
            origin=origin,
            next=[wire.Hop(server=target.server, address=target.address) for target in targets[1:]],
            most_bytes=payload.length,
        )
        try:
            written, digest = await self._transfer(request, payload, targets[0].address, attempts)
        except Cancelled:
            raise
        except GridError as error:
            self._access.report(targets[0].server, error)
            raise _PipelineFailed({targets[0].server}, error) from error
        if written.digest != digest or written.length != payload.length:
            other = IntegrityError("a chunk server stored other bytes", targets[0].server)
            raise _PipelineFailed({targets[0].server}, other)
        if written.failures:  # those behind the first that failed are only out of reach
            first = written.failures[0]
            self._access.report(first.server, from_fault(first.fault))
        stored = set(written.stored)
        if len(stored) < self._allocator.least_replicas:
            servers = {failure.server for failure in written.failures}
            what = "; ".join(
                f"{failure.server}: {failure.fault.what}" for failure in written.failures
            )
            few = Unavailable(f"only {len(stored)} chunk servers stored the chunk ({what})")
            raise _PipelineFailed(servers, few)
        return Chunk(id=chunk_id, length=payload.length, digest=digest)

    async def _transfer(
        self, request: wire.WriteChunk, payload: Payload, address: str, attempts: _Attempts
    ) -> tuple[wire.Written, Digest]:
        where = Address.parse(address)
        pool = self._access.pool
        link = await pool.acquire(where)

        failed: list[BaseException] = []

        def give_up(failure: Failure) -> Failure:
            assert failure.value is not None
            failed.append(failure.value)
            pool.drop(link)  # which wakes a sender that waits for the transport to take more
            return failure

        hasher = ChunkHasher()
        exchange = link.open(request, timeout_seconds=SILENCE_SECONDS)
        exchange.answer.addErrback(give_up)
        try:
            await self._send(exchange, payload, hasher, attempts)
            written = expect(wire.Written, await exchange.answer, link.peer)
        except Exception as error:
            pool.drop(link)
            exchange.answer.addErrback(lambda _: None)
            if failed and isinstance(error, GridError) and not isinstance(error, Cancelled):
                raise failed[0] from error  # the sender was only woken by it
            raise
        pool.release(where, link)
        return written, hasher.digest()

    async def _send(
        self, exchange: Exchange, payload: Payload, hasher: ChunkHasher, attempts: _Attempts
    ) -> None:
        """Send the bytes and their digest, unless an answer comes before that."""
        offset = 0
        while offset < payload.length and not exchange.answer.called:
            length = min(READ_BYTES, payload.length - offset)
            view = memoryview(await self._read(payload, offset, length))
            for start in range(0, length, PIECE_BYTES):
                piece = view[start : start + PIECE_BYTES]
                offset += len(piece)
                last = offset == payload.length
                hasher.update(piece)  # here it is in the processor's cache for the cipher
                await exchange.send(piece, last=last, digest=hasher.digest() if last else b"")
                attempts.reached(offset)

    async def _read(self, payload: Payload, offset: int, length: int) -> Bytes:
        if payload.in_memory:
            return payload.read(offset, length)
        try:
            return await self._access.runtime.threads.run(payload.read, offset, length)
        except GridError as error:
            raise _SourceFailed(error) from error


class _PipelineFailed(Exception):
    """A try came to nothing because of these servers."""

    def __init__(self, servers: set[str], error: GridError) -> None:
        super().__init__(str(error))
        self.servers = servers
        self.error = error


class _SourceFailed(Exception):
    """The bytes cannot be had, which no other chunk server mends."""

    def __init__(self, error: GridError) -> None:
        super().__init__(str(error))
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
