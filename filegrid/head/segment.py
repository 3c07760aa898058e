"""One file of the journal: a header, then groups of entries.

A segment begins with a header of 32 bytes; numbers are big-endian::

    offset  length
         0       6  b"FGJRNL"
         6       2  version, 1
         8       8  index of the first entry
        16      16  checksum: BLAKE3 of bytes 0 to 15, cut to 16 bytes

After it come groups, each written and synced at once::

    offset  length
         0       4  b"FGgp"
         4       4  bytes of payload, at most MOST_GROUP_BYTES
         8       8  index of the first entry
        16       8  index of the last entry
        24       8  epoch of the last entry
        32      16  checksum: BLAKE3 of bytes 0 to 31 and the payload, cut to 16 bytes
        48          payload: for each entry 4 bytes of length and a journal_pb2.Entry
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blake3 import blake3

from filegrid.errors import IntegrityError, UnsupportedVersion
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.runtime import File

VERSION = 1
MOST_GROUP_BYTES = 128 * 1024 * 1024
"""Well above what the ledger gathers or one command may have; a length above it is damage."""

_HEADER = struct.Struct(">6sHQ")
_GROUP = struct.Struct(">4sIQQQ")
_LENGTH = struct.Struct(">I")
_MAGIC = b"FGJRNL"
_GROUP_MAGIC = b"FGgp"
_CHECKSUM_BYTES = 16
_HEADER_BYTES = _HEADER.size + _CHECKSUM_BYTES
_GROUP_BYTES = _GROUP.size + _CHECKSUM_BYTES


def _checksum(*pieces: bytes | memoryview) -> bytes:
    hasher = blake3()
    for piece in pieces:
        hasher.update(piece)
    return hasher.digest(_CHECKSUM_BYTES)


def encode_header(first_index: int) -> bytes:
    header = _HEADER.pack(_MAGIC, VERSION, first_index)
    return header + _checksum(header)


def encode_group(entries: Sequence[journal.Entry]) -> bytes:
    """One group of at least one entry."""
    pieces = []
    for entry in entries:
        data = entry.SerializeToString()
        pieces += [_LENGTH.pack(len(data)), data]
    payload = b"".join(pieces)
    assert len(payload) <= MOST_GROUP_BYTES, len(payload)
    first, last = entries[0], entries[-1]
    head = _GROUP.pack(_GROUP_MAGIC, len(payload), first.index, last.index, last.epoch)
    return b"".join([head, _checksum(head, payload), payload])


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What the head of a group says."""

    offset: int
    end: int
    first_index: int
    last_index: int
    last_epoch: int


class Segment:
    """What is known of a segment's groups; the bytes stay on disk."""

    def __init__(self, path: str, first_index: int) -> None:
        self.path = path
        self.first_index = first_index
        self.last_index = first_index - 1
        self.last_epoch = 0
        self.end = _HEADER_BYTES
        """Where the next group goes."""
        self._firsts = array("Q")
        self._offsets = array("Q")

    def add(self, group: Group) -> None:
        """Note a group that is on disk at :attr:`end`."""
        self._firsts.append(group.first_index)
        self._offsets.append(group.offset)
        self.last_index = group.last_index
        self.last_epoch = group.last_epoch
        self.end = group.end

    def read(self, file: File, from_index: int) -> Iterator[journal.Entry]:
        """The entries from `from_index` on.

        :raises IntegrityError: where they are not as they were written.
        """
        place = max(0, bisect_right(self._firsts, from_index) - 1)
        for offset in self._offsets[place:]:
            data = file.pread(_GROUP_BYTES, offset)
            if len(data) == _GROUP_BYTES:
                length = _GROUP.unpack_from(data)[1]
                data += file.pread(min(length, MOST_GROUP_BYTES), offset + _GROUP_BYTES)
            if decode_group(data, 0) is None:
                raise damaged(self.path, offset)
            for entry in _entries(data):
                if entry.index >= from_index:
                    yield entry


def _entries(group: bytes) -> Iterator[journal.Entry]:
    at = _GROUP_BYTES
    while at < len(group):
        (length,) = _LENGTH.unpack_from(group, at)
        at += _LENGTH.size
        yield journal.Entry.FromString(group[at : at + length])
        at += length


def decode_group(data: bytes, offset: int) -> Group | None:
    """The group at `offset`; None where there is no whole, undamaged one."""
    payload_at = offset + _GROUP_BYTES
    if payload_at > len(data):
        return None
    magic, length, first, last, epoch = _GROUP.unpack_from(data, offset)
    end = payload_at + length
    if magic != _GROUP_MAGIC or length > MOST_GROUP_BYTES or end > len(data):
        return None
    head_end = offset + _GROUP.size
    with memoryview(data) as view:
        checksum = _checksum(view[offset:head_end], view[payload_at:end])
    if checksum != data[head_end:payload_at]:
        return None
    return Group(offset=offset, end=end, first_index=first, last_index=last, last_epoch=epoch)


def written(group: bytes, offset: int) -> Group:
    """Of :func:`encode_group`'s bytes, at `offset`."""
    _, length, first, last, epoch = _GROUP.unpack_from(group)
    end = offset + _GROUP_BYTES + length
    return Group(offset=offset, end=end, first_index=first, last_index=last, last_epoch=epoch)


def scan(path: str, data: bytes, expected_index: int, *, is_last: bool) -> Segment | None:
    """What `data`, all of a segment's file, holds.

    :param expected_index: the index that its first entry must have; 0 where any will do.
    :param is_last: whether it is the last segment, whose last group may be torn (S3). What
        follows :attr:`Segment.end` is then to be cut; None where even the header is torn.
    :raises IntegrityError: for damage that is no torn end.
    :raises UnsupportedVersion: for a segment of a later release (S24).
    """
    header = data[:_HEADER_BYTES]
    if len(header) < _HEADER_BYTES or _checksum(header[: _HEADER.size]) != header[_HEADER.size :]:
        if is_last and not _has_group(data, 0, expected_index):
            return None
        raise damaged(path, 0)
    magic, version, first_index = _HEADER.unpack_from(header)
    if magic != _MAGIC or version != VERSION:
        raise UnsupportedVersion(
            f"the log has version {version}, and this release reads {VERSION}",
            path,
            advice="run the release that wrote it, or a later one",
        )
    if expected_index not in (0, first_index):
        raise damaged(path, 0)
    segment = Segment(path, first_index)
    while segment.end < len(data):
        group = decode_group(data, segment.end)
        if group is None:
            if is_last and not _has_group(data, segment.end, segment.last_index + 1):
                break
            raise damaged(path, segment.end)
        if group.first_index != segment.last_index + 1 or group.last_index < group.first_index:
            raise damaged(path, segment.end)
        segment.add(group)
    return segment


def _has_group(data: bytes, offset: int, index: int) -> bool:
    """Whether a whole group begins after `offset`: then what is broken there is not the last."""
    while (offset := data.find(_GROUP_MAGIC, offset + 1)) >= 0:
        group = decode_group(data, offset)
        if group is not None and group.first_index >= index:
            return True
    return False


def damaged(path: str, offset: int) -> IntegrityError:
    return IntegrityError(
        f"the log is damaged at byte {offset}",
        path,
        advice="take this head out of the grid and let a new one join in its place",
    )
