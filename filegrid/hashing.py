"""Digests of chunks and files, and checks against them.

A chunk's digest is BLAKE3 over the BLAKE3 digests of its 64 KiB blocks, the last of which may be
short; a file's is BLAKE3 over the digests of its chunks. So one pass makes them while the bytes
stream by, and a read in the middle is checked block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from blake3 import blake3

from filegrid.errors import IntegrityError
from filegrid.model import BLOCK_BYTES, DIGEST_BYTES, Chunk, Digest, blocks_in, digest_over
from filegrid.runtime import Bytes

_READ_BYTES = 1 << 20


class ChunkHasher:
    """Digests of a chunk whose bytes come in pieces of any size."""

    def __init__(self) -> None:
        self.length = 0
        self._whole: list[bytes] = []  # digests of the blocks that are complete
        self._block = blake3()
        self._block_bytes = 0

    def update(self, piece: Bytes) -> None:
        view = memoryview(piece)
        start = 0
        if self._block_bytes:
            start = min(BLOCK_BYTES - self._block_bytes, len(view))
            self._add(view[:start])
        while len(view) - start >= BLOCK_BYTES:
            self._whole.append(blake3(view[start : start + BLOCK_BYTES]).digest())
            start += BLOCK_BYTES
        if start < len(view):
            self._add(view[start:])
        self.length += len(view)

    @property
    def digests(self) -> bytes:
        """The block digests of what came so far, one after the other."""
        last = [self._block.digest()] if self._block_bytes else []
        return b"".join(self._whole + last)

    def digest(self) -> Digest:
        """The chunk's digest, if it ended here."""
        return digest_over([self.digests])

    def _add(self, part: memoryview) -> None:
        self._block.update(part)
        self._block_bytes += len(part)
        if self._block_bytes == BLOCK_BYTES:
            self._whole.append(self._block.digest())
            self._block = blake3()
            self._block_bytes = 0


class BlockVerifier:
    """Checks blocks of a chunk as they come.

    :param block_digests: the digests of the chunk's blocks, one after the other.
    :raises IntegrityError: where those are not what the chunk's digest was made from.
    """

    def __init__(self, chunk: Chunk, block_digests: bytes) -> None:
        if (
            len(block_digests) != blocks_in(chunk.length) * DIGEST_BYTES
            or digest_over([block_digests]) != chunk.digest
        ):
            raise IntegrityError("the block digests do not match the digest", chunk.id.hex())
        self._chunk = chunk
        self._digests = block_digests

    def check(self, first_block: int, *pieces: Bytes) -> None:
        """Check whole blocks, of which only the chunk's last may be short.

        :param pieces: their bytes, cut anywhere.
        :raises IntegrityError: naming the first block that does not match.
        """
        hasher = ChunkHasher()
        for piece in pieces:
            hasher.update(piece)
        found = hasher.digests
        wanted = self._digests[first_block * DIGEST_BYTES :][: len(found)]
        if found == wanted:
            return
        for start in range(0, len(found), DIGEST_BYTES):
            end = start + DIGEST_BYTES
            if found[start:end] != wanted[start:end]:
                raise IntegrityError(
                    f"block {first_block + start // DIGEST_BYTES} does not match its digest",
                    self._chunk.id.hex(),
                )


def file_digest(stream: BinaryIO, chunk_bytes: int) -> tuple[int, Digest]:
    """The size and digest that a file with the rest of this stream has in the grid.

    :param chunk_bytes: into chunks of how many bytes the grid cuts it.
    """
    size = 0
    digests = []
    for hasher in _chunks(stream, chunk_bytes):
        digests.append(hasher.digest())
        size += hasher.length
    return size, digest_over(digests)


def _chunks(stream: BinaryIO, chunk_bytes: int) -> Iterator[ChunkHasher]:
    hasher = ChunkHasher()
    while piece := stream.read(min(_READ_BYTES, chunk_bytes - hasher.length)):
        hasher.update(piece)
        if hasher.length == chunk_bytes:
            yield hasher
            hasher = ChunkHasher()
    if hasher.length:
        yield hasher
