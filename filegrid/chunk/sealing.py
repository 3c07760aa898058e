"""How a chunk comes onto the disk: written beside, sealed, and only then given its name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from filegrid.chunk.format import HEADER_BYTES, digests_offset, encode_header, file_bytes
from filegrid.disk import grid_errors
from filegrid.errors import IntegrityError, InvalidRequest
from filegrid.hashing import ChunkHasher
from filegrid.model import Chunk, ChunkId, Digest
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.runtime import Bytes, Disk, File

_WRITEBACK_BYTES = 8 * 1024 * 1024
"""How much is written before the disk is told to begin; much more, and the last sync waits long."""


class ChunkWriter:
    """One chunk being written. Every piece is given to :meth:`hash` and to :meth:`write`, in order.

    It ends with :meth:`seal` or :meth:`discard`; after an error it is discarded already. The
    methods that block wait for each other: a caller who was cancelled may have left one running.

    :param temporary: the path of its file until it is sealed.
    :param sealed: the path of its file from then on.
    :param make_folder: makes the folder of `sealed`.
    :param remove: removes `sealed`, later where that fails now.
    :param ended: called once when the writer ends in either way.
    """

    def __init__(
        self,
        disk: Disk,
        chunk_id: ChunkId,
        *,
        grid_id: str,
        origin: wire.ChunkOrigin,
        most_bytes: int,
        temporary: str,
        sealed: str,
        make_folder: Callable[[], None],
        remove: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        self._disk = disk
        self._id = chunk_id
        self._subject = chunk_id.hex()
        self._grid_id = grid_id
        self._origin = origin
        self._most_bytes = most_bytes
        self._temporary = temporary
        self._sealed = sealed
        self._make_folder = make_folder
        self._remove = remove
        self._ended: Callable[[], None] | None = ended
        self._file: File | None = None
        self._hasher = ChunkHasher()
        self._lock = threading.RLock()
        self.length = 0
        """How many bytes were written so far."""
        self._started_bytes = 0  # whose writeback has begun

    @property
    def outstanding_bytes(self) -> int:
        """How much space it may take yet."""
        return file_bytes(self._most_bytes) - self.length

    def open(self) -> None:
        """Make its file.

        :raises InvalidRequest: where the origin is too long for the header.
        :raises DiskFailed: where the disk cannot be written.
        """
        try:
            self._header_page(self._hasher.digest())
            with grid_errors(self._subject):
                with suppress(FileNotFoundError):
                    self._disk.remove(self._temporary)  # one that could not be removed before
                self._file = self._disk.create_bulk(self._temporary)
        except BaseException:
            self.discard()
            raise

    def hash(self, piece: Bytes) -> None:
        """Add the piece to the digest; this does not block.

        Where it is called as the bytes come, they are still in the processor's cache; in a thread
        of its own it would hand Python's lock back and forth at every block.
        """
        self._hasher.update(piece)

    def write(self, pieces: Sequence[Bytes]) -> None:
        """Append the pieces.

        :raises InvalidRequest: where the chunk would be longer than was announced.
        :raises NoSpace: where the disk is full.
        :raises DiskFailed: where the disk failed.
        """
        with self._lock:
            self._write(self._require_open(), pieces)

    def _write(self, file: File, pieces: Sequence[Bytes]) -> None:
        try:
            start = self.length
            end = start + sum(len(piece) for piece in pieces)
            if end > self._most_bytes:
                raise InvalidRequest(
                    f"the chunk is longer than the {self._most_bytes} bytes that were announced",
                    self._subject,
                )
            with grid_errors(self._subject):
                file.pwrite(pieces, HEADER_BYTES + start)
                self.length = end
                behind = self.length - self._started_bytes
                if behind >= _WRITEBACK_BYTES:
                    file.start_writeback(HEADER_BYTES + self._started_bytes, behind)
                    self._started_bytes = self.length
        except BaseException:
            self.discard()
            raise

    def seal(self, expected: Digest | None = None) -> Chunk:
        """End the chunk; when this returns, it survives every crash (S16).

        :param expected: the digest that the sender computed, where there is one.
        :raises IntegrityError: where the bytes do not match it.
        :raises NoSpace: where the disk is full.
        :raises DiskFailed: where the disk failed; nothing is tried again, the chunk is gone.
        """
        with self._lock:
            return self._seal(self._require_open(), expected)

    def _seal(self, file: File, expected: Digest | None) -> Chunk:
        try:
            assert self._hasher.length == self.length, "each piece is hashed and written"
            digest = self._hasher.digest()
            if expected is not None and expected != digest:
                raise IntegrityError(
                    "the bytes do not match the digest of their sender",
                    self._subject,
                    advice="write them again as a new chunk",
                )
            with grid_errors(self._subject):
                file.pwrite([self._hasher.digests], digests_offset(self.length))
                file.pwrite([self._header_page(digest)], 0)
                file.datasync()
                file.close()
                self._publish()
        except BaseException:
            self.discard()
            raise
        self._end()
        return self._chunk(digest)

    def discard(self) -> None:
        """Drop what was written; nothing where the writer has ended."""
        with self._lock:
            self._discard()

    def _discard(self) -> None:
        if self._ended is None:
            return
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        with suppress(OSError):  # what stays is swept up later
            self._disk.remove(self._temporary)
        self._end()

    def _publish(self) -> None:
        self._make_folder()
        self._disk.rename(self._temporary, self._sealed)
        try:
            self._disk.sync_folder(self._sealed.rpartition("/")[0])
        except OSError:
            self._remove()
            raise

    def _header_page(self, digest: Digest) -> bytes:
        return encode_header(
            wire.ChunkHeader(
                grid_id=self._grid_id, chunk=self._chunk(digest).to_wire(), origin=self._origin
            )
        )

    def _chunk(self, digest: Digest) -> Chunk:
        return Chunk(id=self._id, length=self.length, digest=digest)

    def _require_open(self) -> File:
        if self._ended is None or self._file is None:
            raise InvalidRequest("the chunk is not being written any more", self._subject)
        return self._file

    def _end(self) -> None:
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended()
