"""Digests of chunks and files."""

from __future__ import annotations

import io
from itertools import pairwise

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.errors import IntegrityError
from filegrid.hashing import BlockVerifier, ChunkHasher, file_digest
from filegrid.model import BLOCK_BYTES, Chunk, ChunkId, Digest

LENGTHS = (0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, 200_001)


def content(length: int) -> bytes:
    return blake3(b"content").digest(length)


def block_digests(data: bytes) -> list[bytes]:
    starts = range(0, len(data), BLOCK_BYTES)
    return [blake3(data[start : start + BLOCK_BYTES]).digest() for start in starts]


def chunk_of(data: bytes) -> Chunk:
    digest = Digest(blake3(b"".join(block_digests(data))).digest())
    return Chunk(id=ChunkId(bytes(16)), length=len(data), digest=digest)


class ChunkHasherTests(SynchronousTestCase):
    """Digests of a chunk as it streams by."""

    @given(
        length=st.sampled_from(LENGTHS),
        cuts=st.lists(st.integers(0, max(LENGTHS)), max_size=12),
    )
    @settings(max_examples=50, deadline=None, database=None)
    def test_any_split(self, length: int, cuts: list[int]) -> None:
        """However the bytes are cut, the digests are those of the 64 KiB blocks."""
        data = content(length)
        edges = [0, *sorted(min(cut, length) for cut in cuts), length]
        hasher = ChunkHasher()
        for start, end in pairwise(edges):
            hasher.update(memoryview(data)[start:end])
            self.assertEqual(hasher.digests, b"".join(block_digests(data[:end])))
        self.assertEqual(hasher.length, length)
        self.assertEqual(hasher.digest(), chunk_of(data).digest)


class FileDigestTests(SynchronousTestCase):
    """The digest of a file."""

    def test_by_its_definition(self) -> None:
        """It is BLAKE3 over the digests of the chunks, and over nothing for an empty file."""
        chunk_bytes = 100_000
        for length in (0, 1, chunk_bytes - 1, chunk_bytes, chunk_bytes + 1, 3 * chunk_bytes):
            data = content(length)
            chunks = [data[at : at + chunk_bytes] for at in range(0, length, chunk_bytes)]
            wanted = blake3(b"".join(chunk_of(chunk).digest for chunk in chunks)).digest()
            self.assertEqual(file_digest(io.BytesIO(data), chunk_bytes), (length, wanted))


class BlockVerifierTests(SynchronousTestCase):
    """Checks of blocks against a chunk's digest."""

    def setUp(self) -> None:
        self.data = content(200_001)
        self.chunk = chunk_of(self.data)
        self.digests = b"".join(block_digests(self.data))

    def test_good_blocks(self) -> None:
        """Whole blocks pass, from wherever and however many, with the short last one."""
        verifier = BlockVerifier(self.chunk, self.digests)
        for first in range(4):
            for last in range(first, 5):
                view = memoryview(self.data)[first * BLOCK_BYTES : last * BLOCK_BYTES]
                verifier.check(first, view)

    def test_bad_blocks(self) -> None:
        """A changed, shortened, lengthened or displaced block is refused by its number."""
        verifier = BlockVerifier(self.chunk, self.digests)
        changed = bytearray(self.data)
        changed[2 * BLOCK_BYTES] ^= 1
        for first, data, named in (
            (0, changed, "block 2"),
            (0, self.data[:-1], "block 3"),
            (0, self.data + b"x", "block 3"),
            (1, self.data[:BLOCK_BYTES], "block 1"),
            (4, b"behind the end", "block 4"),
        ):
            refused = self.assertRaises(IntegrityError, verifier.check, first, data)
            self.assertIn(named, str(refused))

    def test_bad_digests(self) -> None:
        """Block digests that do not make the chunk's digest are refused."""
        for digests in (self.digests[:-1], self.digests + bytes(32), bytes(len(self.digests)), b""):
            self.assertRaises(IntegrityError, BlockVerifier, self.chunk, digests)
