"""The file that a chunk is on disk: a header page, the bytes, the digests of their blocks.

====================  ==================  ====================================================
offset                bytes               what
====================  ==================  ====================================================
0                     8                   ``FGchunk`` and a line feed
8                     2                   format version, big-endian
10                    2                   zero
12                    4                   length of the header, big-endian
16                    16                  checksum: BLAKE3 over the page without these 16 bytes
32                    length of header    ``filegrid.wire.ChunkHeader``
32 + that             up to 8192          zeros
8192                  length of chunk     the chunk's bytes
after them, aligned   32 for each block   the digests of its 64 KiB blocks
====================  ==================  ====================================================

The digests begin at the next multiple of 4096. Every version of the format keeps the first 32
bytes and the checksum, so that a newer version and damage are told apart (S24).
"""

from __future__ import annotations

import struct

from blake3 import blake3

from filegrid.errors import IntegrityError, InvalidRequest, UnsupportedVersion
from filegrid.model import CHUNK_ID_BYTES, DIGEST_BYTES, blocks_in
from filegrid.protocol.wire import chunk_pb2 as wire

FORMAT_VERSION = 1

HEADER_BYTES = 8192
"""Two pages, since a header names a path, and paths have up to 4096 bytes."""

_PAGE_BYTES = 4096
_MAGIC = b"FGchunk\n"
_PREFIX = struct.Struct(">8sHHI")
_CHECKSUM_BYTES = 16
_HEADER_OFFSET = _PREFIX.size + _CHECKSUM_BYTES


def encode_header(header: wire.ChunkHeader) -> bytes:
    """The header page.

    :raises InvalidRequest: where the header does not fit in it.
    """
    body = header.SerializeToString(deterministic=True)
    if len(body) > HEADER_BYTES - _HEADER_OFFSET:
        raise InvalidRequest("the chunk's description is too long", header.chunk.id.hex())
    prefix = _PREFIX.pack(_MAGIC, FORMAT_VERSION, 0, len(body))
    rest = body.ljust(HEADER_BYTES - _HEADER_OFFSET, b"\0")
    return prefix + _checksum(prefix, rest) + rest


def decode_header(page: bytes, subject: str) -> wire.ChunkHeader:
    """What a header page says.

    :param subject: the chunk or file that errors name.
    :raises IntegrityError: where the page is damaged.
    :raises UnsupportedVersion: where a newer release wrote it.
    """
    prefix, rest = page[: _PREFIX.size], page[_HEADER_OFFSET:]
    if len(page) != HEADER_BYTES or page[_PREFIX.size : _HEADER_OFFSET] != _checksum(prefix, rest):
        raise IntegrityError("the header of the chunk is damaged", subject)
    magic, version, _, length = _PREFIX.unpack(prefix)
    if magic != _MAGIC:
        raise IntegrityError("this is not a chunk", subject)
    if version > FORMAT_VERSION:
        raise UnsupportedVersion(
            f"the chunk has format {version}, and this release reads up to {FORMAT_VERSION}",
            subject,
            advice="start the release that wrote it",
        )
    header = wire.ChunkHeader.FromString(rest[:length])
    if len(header.chunk.id) != CHUNK_ID_BYTES or len(header.chunk.digest) != DIGEST_BYTES:
        raise IntegrityError("the header of the chunk is incomplete", subject)
    return header


def digests_offset(length: int) -> int:
    """Where the block digests of a chunk of `length` bytes begin."""
    return HEADER_BYTES + -(-length // _PAGE_BYTES) * _PAGE_BYTES


def file_bytes(length: int) -> int:
    """How long the file of a chunk of `length` bytes is."""
    return digests_offset(length) + blocks_in(length) * DIGEST_BYTES


def _checksum(prefix: bytes, rest: bytes) -> bytes:
    return blake3(prefix + rest).digest(_CHECKSUM_BYTES)
