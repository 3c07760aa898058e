"""A small chunk on its way into a segment: gathered in memory, checked, committed with others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from filegrid.chunk.record import Content, describe, record_bytes
from filegrid.chunk.sealing import ChunkWriter
from filegrid.errors import GridError, IntegrityError, InvalidRequest
from filegrid.hashing import ChunkHasher
from filegrid.model import Chunk, ChunkId, Digest, digest_over
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.runtime import Bytes


class SmallWriter:
    """As :class:`~filegrid.chunk.sealing.ChunkWriter`, of a chunk that fits in memory.

    :param commit: makes it durable.
    :param ended: called once when the writer ends in either way.
    """

    def __init__(
        self,
        chunk_id: ChunkId,
        *,
        grid_id: str,
        origin: wire.ChunkOrigin,
        most_bytes: int,
        commit: Callable[[Sequence[Content]], list[GridError | None]],
        ended: Callable[[], None],
    ) -> None:
        self._id = chunk_id
        self._subject = chunk_id.hex()
        self._grid_id = grid_id
        self._origin = origin
        self._most_bytes = most_bytes
        self._commit = commit
        self._ended: Callable[[], None] | None = ended
        self._pieces: list[bytes] = []
        self._hasher = ChunkHasher()
        self.length = 0
        """How many bytes came so far."""

    @property
    def outstanding_bytes(self) -> int:
        """How much space it may take yet."""
        return record_bytes(self._origin.ByteSize() + 128, self._most_bytes)

    def open(self) -> None:
        """:raises InvalidRequest: where the origin is too long."""
        try:
            self._describe(self._hasher.digest())
        except BaseException:
            self.discard()
            raise

    def write(self, pieces: Sequence[Bytes]) -> None:
        """Append the pieces.

        :raises InvalidRequest: where the chunk would be longer than was announced.
        """
        self._require_open()
        if self.length + sum(len(piece) for piece in pieces) > self._most_bytes:
            self.discard()
            raise InvalidRequest(
                f"the chunk is longer than the {self._most_bytes} bytes that were announced",
                self._subject,
            )
        for piece in pieces:
            self._pieces.append(bytes(piece))  # a view would keep a whole buffer of the network
            self.length += len(piece)

    def hash(self, piece: Bytes) -> None:
        """Add the piece to the digest; this does not block."""
        self._hasher.update(piece)

    def seal(self, expected: Digest | None = None) -> Chunk:
        """End the chunk; when this returns, it survives every crash (S16).

        :param expected: the digest that the sender computed, where there is one.
        :raises IntegrityError: where the bytes do not match it.
        :raises NoSpace: where the disk is full.
        :raises DiskFailed: where the disk failed; nothing is tried again, the chunk is gone.
        """
        self._require_open()
        try:
            assert self._hasher.length == self.length, "each piece is hashed and written"
            digest = self._hasher.digest()
            if expected is not None and expected != digest:
                raise _other_bytes(self._id)
            chunk = Chunk(id=self._id, length=self.length, digest=digest)
            content = Content(
                description=self._describe(digest),
                chunk=chunk,
                pieces=self._pieces,
                block_digests=self._hasher.digests,
            )
            (error,) = self._commit([content])
            if error is not None:
                raise error
        finally:
            self.discard()
        return chunk

    def discard(self) -> None:
        """Drop it; nothing where the writer has ended."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def _describe(self, digest: Digest) -> bytes:
        chunk = Chunk(id=self._id, length=self.length, digest=digest)
        return describe(
            wire.ChunkHeader(grid_id=self._grid_id, chunk=chunk.to_wire(), origin=self._origin)
        )

    def _require_open(self) -> None:
        if self._ended is None:
            raise InvalidRequest("the chunk is not being written any more", self._subject)


Writer: TypeAlias = ChunkWriter | SmallWriter


def whole_content(grid_id: str, chunk: Chunk, origin: wire.ChunkOrigin, data: Bytes) -> Content:
    """A small chunk of which all bytes are here.

    :raises IntegrityError: where they are not what its sender hashed.
    :raises InvalidRequest: where the origin is too long.
    """
    hasher = ChunkHasher()
    hasher.update(data)
    block_digests = hasher.digests
    if hasher.length != chunk.length or digest_over([block_digests]) != chunk.digest:
        raise _other_bytes(chunk.id)
    header = wire.ChunkHeader(grid_id=grid_id, chunk=chunk.to_wire(), origin=origin)
    return Content(
        description=describe(header), chunk=chunk, pieces=[data], block_digests=block_digests
    )


def _other_bytes(chunk_id: ChunkId) -> IntegrityError:
    return IntegrityError(
        "the bytes do not match the digest of their sender",
        chunk_id.hex(),
        advice="write them again as a new chunk",
    )
