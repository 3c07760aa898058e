"""The file of a backup: what is not as it was written is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from filegrid.backup import FORMAT_VERSION, HEADER_BYTES, Verifier, encode_header, verify
from filegrid.errors import IntegrityError, UnsupportedVersion
from filegrid.protocol.wire.backup_pb2 import BackupHeader

IMAGE = bytes(range(256)) * 20


def made(image: bytes = IMAGE) -> bytes:
    header = BackupHeader(
        grid_id="g", lineage=3, index=9, length=len(image), digest=blake3(image).digest()
    )
    return encode_header(header) + image


def reading(content: bytes) -> Callable[[int, int], bytes]:
    return lambda length, offset: content[offset : offset + length]


class Format(SynchronousTestCase):
    def test_whole(self) -> None:
        """A backup says of itself what it is."""
        header = verify(reading(made()), "b")
        self.assertEqual((header.grid_id, header.lineage, header.index), ("g", 3, 9))

    def test_any_pieces(self) -> None:
        """However its bytes are cut, it is the same."""
        for size in (1, 7, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, 1 << 20):
            verifier = Verifier("b")
            for start in range(0, len(made()), size):
                verifier.update(made()[start : start + size])
            self.assertEqual(verifier.end().index, 9)

    def test_damage(self) -> None:
        """A flipped bit, anywhere, is found; so is an end that is missing or too much."""
        content = made()
        for offset in (0, 9, 20, 40, HEADER_BYTES - 1, HEADER_BYTES, len(content) - 1):
            damaged = bytearray(content)
            damaged[offset] ^= 4
            self.assertRaises(IntegrityError, verify, reading(bytes(damaged)), "b")
        for other in (content[:-1], content + b"x", content[: HEADER_BYTES - 1], b""):
            self.assertRaises(IntegrityError, verify, reading(other), "b")

    def test_other_file(self) -> None:
        """A file that is none is named so."""
        error = self.assertRaises(IntegrityError, verify, reading(b"x" * 10_000), "notes.txt")
        self.assertIn("notes.txt: this is not a backup", str(error))

    def test_newer(self) -> None:
        """One of a later release is refused by its version (S24)."""
        page = bytearray(made())
        struct.pack_into(">H", page, 8, FORMAT_VERSION + 1)
        page[16:32] = blake3(bytes(page[:16] + page[32:HEADER_BYTES])).digest(16)
        error = self.assertRaises(UnsupportedVersion, verify, reading(bytes(page)), "b")
        self.assertIn(f"format {FORMAT_VERSION + 1}", str(error))
