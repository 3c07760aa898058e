"""Reading a chunk from one replica: verified block by block, the sender held to our pace."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from filegrid.client.access import Access
from filegrid.errors import GridError, MalformedFrame
from filegrid.hashing import BlockVerifier
from filegrid.model import BLOCK_BYTES, DIGEST_BYTES, Address, Chunk, blocks_in
from filegrid.net.flow import Brake
from filegrid.net.link import Link
from filegrid.protocol.connection import DataReceived
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.protocol.wire.frame_pb2 import Data
from filegrid.protocol.wire.head_pb2 import Replica
from filegrid.runtime import Transport

BATCH_BYTES = 1024 * 1024
"""Verified and handed on at once; less, and what Python does for each costs more than the bytes."""

MOST_WAITING_BYTES = 2 * BATCH_BYTES
"""Bytes of one transfer that nobody has taken yet, above which the sender is held."""

SILENCE_SECONDS = 5.0
"""A replica that sends nothing for so long is left for the next one."""


class ReplicaRead:
    """One transfer.

    :param offset: a multiple of 64 KiB.
    :param end: likewise, or the chunk's length.
    """

    def __init__(
        self, access: Access, replica: Replica, chunk: Chunk, offset: int, end: int
    ) -> None:
        self.replica = replica
        self.chunk = chunk
        self._access = access
        self._address = Address.parse(replica.address)
        self._offset = offset
        self._end = end
        self._complete = False  # the server has said that it sent all
        self._verifier = access.digests.get(chunk.id)
        self._link: Link | None = None
        self._sink: _BlockSink | None = None

    async def _open(self) -> _BlockSink:
        """Ask for the blocks."""
        link = self._link = await self._access.pool.acquire(self._address)
        assert link.transport is not None
        digest_bytes = 0 if self._verifier else blocks_in(self.chunk.length) * DIGEST_BYTES
        sink = self._sink = _BlockSink(link.transport, digest_bytes, self._end - self._offset)
        request = wire.ReadChunk(
            chunk_id=self.chunk.id,
            offset=self._offset,
            length=self._end - self._offset,
            without_digests=self._verifier is not None,
        )
        exchange = link.open(request, timeout_seconds=SILENCE_SECONDS, sink=sink)
        exchange.answer.addCallbacks(self._answered, self._failed)
        return sink

    async def next(self) -> list[memoryview]:
        """The next whole blocks, verified; the first time they are asked for first.

        After the last ones the link is given back by itself.

        They are as they came: their pieces begin and end anywhere.

        :raises IntegrityError: where they are not what was written.
        :raises GridError: where the transfer fails.
        """
        sink = self._sink or await self._open()
        verifier = await self._verify_digests(sink)
        batch = await sink.take(self._end - self._offset)
        block = self._offset // BLOCK_BYTES
        length = sum(len(piece) for piece in batch)
        verifier.check(block, *batch)  # in a thread, Python's lock would change hands at each block
        self._offset += length
        self._settle()
        return batch

    @property
    def received_bytes(self) -> int:
        """What has come so far, taken or not."""
        return self._sink.received_bytes if self._sink is not None else 0

    def drop(self) -> None:
        """End it where it is; nothing where all has come."""
        if self._offset < self._end:
            self._drop()

    def _answered(self, _: object) -> None:
        self._complete = True
        assert self._sink is not None
        self._sink.end()
        self._settle()

    def _failed(self, _: object) -> None:
        """Whoever reads hears of it from the sink; nobody does any more after the last blocks."""
        if self._offset == self._end:
            self._drop()

    def _settle(self) -> None:
        if self._complete and self._offset == self._end and self._link is not None:
            self._access.pool.release(self._address, self._link)
            self._link = None

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._access.pool.drop(link)

    async def _verify_digests(self, sink: _BlockSink) -> BlockVerifier:
        if self._verifier is None:
            self._verifier = BlockVerifier(self.chunk, await sink.take_digests())
            self._access.digests.put(self.chunk.id, self._verifier)
        return self._verifier


class _BlockSink:
    """What came of one transfer and was not taken yet."""

    def __init__(self, source: Transport, digest_bytes: int, content_bytes: int) -> None:
        self._brake = Brake(source)
        self._digests = bytearray()
        self._digest_bytes = digest_bytes
        self._pieces: list[memoryview] = []
        self.received_bytes = 0
        self._waiting_bytes = 0
        self._coming_bytes = content_bytes
        self._error: GridError | None = None
        self._waiter: Deferred[None] | None = None

    # What the link calls.

    def data_received(self, data: DataReceived) -> None:
        size = len(data.piece)
        self.received_bytes += size
        if data.section == Data.SECTION_BLOCK_DIGESTS and size <= self._missing_digest_bytes:
            self._digests += data.piece
        elif data.section == Data.SECTION_CONTENT and size <= self._coming_bytes:
            self._pieces.append(data.piece)
            self._waiting_bytes += size
            self._coming_bytes -= size
            if self._waiting_bytes > MOST_WAITING_BYTES:
                self._brake.hold(self)
        else:
            self.data_lost(MalformedFrame("the chunk server sent more than was asked for"))
        self._wake()

    def data_lost(self, error: GridError) -> None:
        self._error = self._error or error
        self._wake()

    def end(self) -> None:
        """The peer says that this was all."""
        if self._coming_bytes or self._missing_digest_bytes:
            self.data_lost(MalformedFrame("the chunk server sent less than was asked for"))
        self._wake()

    @property
    def _missing_digest_bytes(self) -> int:
        return self._digest_bytes - len(self._digests)

    # What the reader calls.

    async def take_digests(self) -> bytes:
        while self._missing_digest_bytes:
            await self._more()
        return bytes(self._digests)

    async def take(self, left_bytes: int) -> list[memoryview]:
        """Whole blocks: a batch of them, or all that are left, or what came before a failure."""
        wanted = min(BATCH_BYTES, left_bytes)
        while self._waiting_bytes < wanted:
            if self._error is not None and self._waiting_bytes >= BLOCK_BYTES:
                break
            await self._more()
        over = 0 if self._waiting_bytes == left_bytes else self._waiting_bytes % BLOCK_BYTES
        taken, self._pieces = self._pieces, []
        self._waiting_bytes = over
        while over and over >= len(taken[-1]):
            over -= len(taken[-1])
            self._pieces.insert(0, taken.pop())
        if over:
            self._pieces.insert(0, taken[-1][-over:])
            taken[-1] = taken[-1][:-over]
        self._brake.release(self)
        return taken

    async def _more(self) -> None:
        """Return when something has come.

        :raises GridError: when nothing more will.
        """
        if self._error is not None:
            raise self._error
        self._waiter = Deferred(lambda _: None)
        await self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.called:
            waiter.callback(None)
