"""The file of a chunk."""

from __future__ import annotations

from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from filegrid.chunk import format as chunk_format
from filegrid.chunk.format import (
    HEADER_BYTES,
    decode_header,
    digests_offset,
    encode_header,
    file_bytes,
)
from filegrid.errors import IntegrityError, InvalidRequest, UnsupportedVersion
from filegrid.model import BLOCK_BYTES, MOST_PATH_BYTES
from filegrid.protocol.wire import chunk_pb2, values_pb2

PAGE_OF_VERSION_1 = (
    "46476368756e6b0a000100000000008a43cf8085e30b3a363ef397b7dde5466e0a2467676767676767676767"
    "6767676767676767676767676767676767676767676767676767123f0a106969696969696969696969696969"
    "696910808080808080808080011a206464646464646464646464646464646464646464646464646464646464"
    "6464641a210a106363636363636363636363636363636312022f611880808080808080808001"
)


def header(path: str = "/a") -> chunk_pb2.ChunkHeader:
    return chunk_pb2.ChunkHeader(
        grid_id="g" * 36,
        chunk=values_pb2.ChunkRef(id=b"i" * 16, length=2**63, digest=b"d" * 32),
        origin=chunk_pb2.ChunkOrigin(content_id=b"c" * 16, path=path, index=2**63),
    )


class FormatTests(SynchronousTestCase):
    """Header pages and offsets."""

    def test_round_trip(self) -> None:
        """A header is read as it was written, with the longest path too."""
        for path in ("", "/a", "/" + "é" * ((MOST_PATH_BYTES - 1) // 2)):
            page = encode_header(header(path))
            self.assertEqual(len(page), HEADER_BYTES)
            self.assertEqual(decode_header(page, "chunk"), header(path))

    def test_too_long(self) -> None:
        """A header that does not fit is refused."""
        self.assertRaises(InvalidRequest, encode_header, header("/" * HEADER_BYTES))

    def test_every_flipped_bit(self) -> None:
        """A page with any byte changed, or of another length, is damaged."""
        page = encode_header(header())
        for offset in [*range(200), 4096, HEADER_BYTES - 1]:
            damaged = bytearray(page)
            damaged[offset] ^= 0x10
            self.assertRaises(IntegrityError, decode_header, bytes(damaged), "chunk")
        for damaged_page in (b"", page[:-1], page + b"\0", bytes(HEADER_BYTES)):
            self.assertRaises(IntegrityError, decode_header, damaged_page, "chunk")

    def test_newer_version(self) -> None:
        """A page of a newer release is refused by its version, not called damaged."""
        with mock.patch.object(chunk_format, "FORMAT_VERSION", 2):
            page = encode_header(header())
        refused = self.assertRaises(UnsupportedVersion, decode_header, page, "chunk")
        self.assertIn("format 2", str(refused))

    def test_first_version(self) -> None:
        """A page as the first release wrote it is still read."""
        page = bytes.fromhex(PAGE_OF_VERSION_1).ljust(HEADER_BYTES, b"\0")
        self.assertEqual(decode_header(page, "chunk"), header())

    def test_offsets(self) -> None:
        """The digests lie page-aligned behind the bytes, 32 bytes for each block."""
        self.assertEqual(digests_offset(0), HEADER_BYTES)
        self.assertEqual(digests_offset(1), HEADER_BYTES + 4096)
        self.assertEqual(digests_offset(4096), HEADER_BYTES + 4096)
        self.assertEqual(file_bytes(0), HEADER_BYTES)
        self.assertEqual(file_bytes(BLOCK_BYTES), HEADER_BYTES + BLOCK_BYTES + 32)
        self.assertEqual(file_bytes(BLOCK_BYTES + 1), HEADER_BYTES + BLOCK_BYTES + 4096 + 64)
