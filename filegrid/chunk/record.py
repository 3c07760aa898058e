"""The file that small chunks share: a header, records one after the other, an index at its end.

A segment begins with a header of 8192 bytes, which says twice, at 0 and at 4096, with zeros
behind it (numbers are big-endian)::

    offset  length
         0       8  b"FGsegmt" and a line feed
         8       2  version, 1
        10       6  zero
        16      16  key: random, made with the segment
        32      16  checksum: BLAKE3 of bytes 0 to 31, cut to 16 bytes

Each record begins at a multiple of 64::

    offset  length
         0       4  b"FGrc"
         4       4  length D of the description
         8       8  length C of the chunk
        16       8  group: records with the same number were synced together
        24      16  checksum: BLAKE3 of key, offset of the record, bytes 0 to 23 and the
                    description, cut to 16 bytes
        40       D  description: ``filegrid.wire.ChunkHeader``
    40 + D       C  the chunk's bytes
    after it        the digests of its 64 KiB blocks, 32 bytes each; zeros up to a multiple of 64

Key and offset are part of the checksum, so that bytes of a file that look like a record, as of a
segment that somebody stored in the grid, are never taken for one.

A segment that is full ends with an index: a record with b"FGix" whose description is one entry of
80 bytes for each record (chunk id, digest, length, offset of the record, offset of the bytes) and
whose length C is 0; and, as the last 32 bytes of the file::

    offset  length
         0       8  b"FGsegend"
         8       8  offset of the index
        16      16  checksum: BLAKE3 of key and bytes 0 to 15, cut to 16 bytes

A segment without a whole index is read record by record instead. Beside a segment N lies
``N.removed``, the records that count no more: the chunk's id and the offset of the record, 24 bytes
each.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from blake3 import blake3
from google.protobuf.message import DecodeError

from filegrid.errors import InvalidRequest, UnsupportedVersion
from filegrid.model import (
    CHUNK_ID_BYTES,
    DIGEST_BYTES,
    Chunk,
    ChunkId,
    Digest,
    blocks_in,
)
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.runtime import Bytes, File

VERSION = 1
HEADER_BYTES = 8192
"""Without its key nothing of a segment can be read: one page may rot."""

KEY_BYTES = 16
TRAILER_BYTES = 32
ALIGN_BYTES = 64
REMOVED_BYTES = 24

_MOST_DESCRIPTION_BYTES = 8192
"""As of the header page of a chunk's own file: a description names a path."""

_FIRST_READ_BYTES = 512
"""Holds a record's prefix and, unless its path is long, its description."""

_SEARCH_BYTES = 64 * 1024
"""Read at once in the search for a record; it is skipped where the disk cannot read it."""

_MAGIC = b"FGsegmt\n"
_RECORD_MAGIC = b"FGrc"
_INDEX_MAGIC = b"FGix"
_TRAILER_MAGIC = b"FGsegend"
_HEADER = struct.Struct(">8sH6x16s")
_PREFIX = struct.Struct(">4sIQQ")
_TRAILER = struct.Struct(">8sQ")
_ENTRY = struct.Struct(">16s32sQQQ8x")
_REMOVED = struct.Struct(">16sQ")
_OFFSET = struct.Struct(">Q")
_CHECKSUM_BYTES = 16
_FRONT_BYTES = _PREFIX.size + _CHECKSUM_BYTES
_ZEROS = bytes(ALIGN_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A small chunk that is to be written: what it says of itself, its bytes, its digests."""

    description: bytes
    chunk: Chunk
    pieces: Sequence[Bytes]
    block_digests: bytes

    @property
    def size(self) -> int:
        """How much space its record takes."""
        return record_bytes(len(self.description), self.chunk.length)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a record and its bytes lie in their segment."""

    chunk: Chunk
    record_at: int
    bytes_at: int

    @property
    def digests_at(self) -> int:
        return self.bytes_at + self.chunk.length

    @property
    def digests_end(self) -> int:
        return self.digests_at + blocks_in(self.chunk.length) * DIGEST_BYTES

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return _aligned(self.digests_end)


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was found, its bytes unchecked."""

    entry: Entry
    header: wire.ChunkHeader
    group: int


def describe(header: wire.ChunkHeader) -> bytes:
    """The description.

    :raises InvalidRequest: where it is too long.
    """
    description = header.SerializeToString(deterministic=True)
    if len(description) > _MOST_DESCRIPTION_BYTES:
        raise InvalidRequest("the chunk's description is too long", header.chunk.id.hex())
    return description


def record_bytes(description_bytes: int, length: int) -> int:
    """How much space a record takes."""
    return _aligned(_FRONT_BYTES + description_bytes + length + blocks_in(length) * DIGEST_BYTES)


def encode_header(key: bytes) -> bytes:
    head = _HEADER.pack(_MAGIC, VERSION, key)
    return (head + _checksum(head)).ljust(HEADER_BYTES // 2, b"\0") * 2


def decode_header(data: bytes, subject: str) -> bytes | None:
    """The segment's key; None where the header is damaged or torn.

    :raises UnsupportedVersion: where a newer release wrote it (S24).
    """
    for place in (0, HEADER_BYTES // 2):
        end = place + _HEADER.size
        if data[end : end + _CHECKSUM_BYTES] != _checksum(data[place:end]):
            continue
        magic, version, key = _HEADER.unpack_from(data, place)
        if magic == _MAGIC and version > VERSION:
            raise UnsupportedVersion(
                f"the segment has format {version}, and this release reads up to {VERSION}",
                subject,
                advice="start the release that wrote it",
            )
        if magic == _MAGIC:
            return bytes(key)
    return None


def encode(key: bytes, content: Content, offset: int, group: int) -> tuple[Entry, list[Bytes]]:
    """A record for the place `offset`, and the pieces to write there."""
    description, length = content.description, content.chunk.length
    prefix = _PREFIX.pack(_RECORD_MAGIC, len(description), length, group)
    front = prefix + _checksum(key, _OFFSET.pack(offset), prefix, description) + description
    entry = Entry(content.chunk, offset, offset + len(front))
    padding = entry.end - entry.digests_end
    return entry, [front, *content.pieces, content.block_digests + _ZEROS[:padding]]


def decode(key: bytes, file: File, offset: int, size: int) -> Record | None:
    """The record at `offset`; None where there is no whole one before `size`, the file's end.

    :raises OSError: where the disk failed, which says nothing about the record.
    """
    found = _described(key, _RECORD_MAGIC, file, offset, _MOST_DESCRIPTION_BYTES)
    if found is None:
        return None
    description, length, group = found
    try:
        header = wire.ChunkHeader.FromString(description)
    except DecodeError:
        return None
    chunk = header.chunk
    if len(chunk.id) != CHUNK_ID_BYTES or len(chunk.digest) != DIGEST_BYTES:
        return None
    if chunk.length != length:
        return None
    entry = Entry(Chunk.from_wire(chunk), offset, offset + _FRONT_BYTES + len(description))
    return Record(entry, header, group) if entry.end <= size else None


def next_record(key: bytes, file: File, offset: int, size: int) -> Record | None:
    """The first whole record from `offset` on, whatever is in between."""
    at = _aligned(offset)
    while at < size:
        data = read(file, _SEARCH_BYTES, at)
        for place in range(0, len(data), ALIGN_BYTES):
            if data.startswith(_RECORD_MAGIC, place):
                record = decode(key, file, at + place, size)
                if record is not None:
                    return record
        at += _SEARCH_BYTES
    return None


def encode_index(key: bytes, entries: Iterable[Entry], offset: int) -> bytes:
    """The index for the place `offset`, and the end of the file after it."""
    body = b"".join(
        _ENTRY.pack(one.chunk.id, one.chunk.digest, one.chunk.length, one.record_at, one.bytes_at)
        for one in entries
    )
    prefix = _PREFIX.pack(_INDEX_MAGIC, len(body), 0, 0)
    trailer = _TRAILER.pack(_TRAILER_MAGIC, offset)
    where = _OFFSET.pack(offset)
    return b"".join(
        (prefix, _checksum(key, where, prefix, body), body, trailer, _checksum(key, trailer))
    )


def decode_index(key: bytes, file: File, size: int) -> list[Entry] | None:
    """All records of a segment that is full; None where it has no whole index."""
    trailer = read(file, TRAILER_BYTES, max(HEADER_BYTES, size - TRAILER_BYTES))
    if len(trailer) != TRAILER_BYTES:
        return None
    if trailer[_TRAILER.size :] != _checksum(key, trailer[: _TRAILER.size]):
        return None
    magic, offset = _TRAILER.unpack_from(trailer)
    found = _described(key, _INDEX_MAGIC, file, offset, size)
    if magic != _TRAILER_MAGIC or found is None:
        return None
    return [
        Entry(Chunk(id=ChunkId(id_), length=length, digest=Digest(digest)), record_at, bytes_at)
        for id_, digest, length, record_at, bytes_at in _ENTRY.iter_unpack(found[0])
    ]


def read(file: File, length: int, offset: int) -> bytes:
    """What is there, or nothing where the disk cannot read it: that is damage of this place."""
    try:
        return file.pread(length, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def encode_removed(entry: Entry) -> bytes:
    return _REMOVED.pack(entry.chunk.id, entry.record_at)


def decode_removed(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The ids and offsets of removed records; what a crash tore off at the end is left out."""
    return _REMOVED.iter_unpack(data[: len(data) - len(data) % REMOVED_BYTES])


def _described(
    key: bytes, wanted: bytes, file: File, offset: int, most_bytes: int
) -> tuple[bytes, int, int] | None:
    """Description, length and group of what begins at `offset`; None where it is damaged."""
    data = read(file, _FIRST_READ_BYTES, offset)
    if len(data) < _FRONT_BYTES:
        return None
    magic, description_bytes, length, group = _PREFIX.unpack_from(data)
    if magic != wanted or description_bytes > most_bytes:
        return None
    end = _FRONT_BYTES + description_bytes
    if end > len(data):
        data += read(file, end - len(data), offset + len(data))
    prefix, description = data[: _PREFIX.size], data[_FRONT_BYTES:end]
    if data[_PREFIX.size : _FRONT_BYTES] != _checksum(
        key, _OFFSET.pack(offset), prefix, description
    ):
        return None
    return description, length, group


def _aligned(offset: int) -> int:
    return -(-offset // ALIGN_BYTES) * ALIGN_BYTES


def _checksum(*pieces: bytes) -> bytes:
    return blake3(b"".join(pieces)).digest(_CHECKSUM_BYTES)
