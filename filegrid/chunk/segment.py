"""One segment on disk: made, read back at a start, ended, and taken apart.

All functions block, and raise OSError where the disk fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass

from twisted.logger import Logger

from filegrid.chunk import record
from filegrid.chunk.record import Entry, Record
from filegrid.disk import read_file
from filegrid.errors import IntegrityError
from filegrid.hashing import BlockVerifier
from filegrid.runtime import Disk, File

_log = Logger()


@dataclass(slots=True, kw_only=True, eq=False)
class Segment:
    """What is known of a segment; its records' bytes stay on disk.

    :ivar end: where the next record goes.
    :ivar live_bytes: of records that count.
    :ivar groups: how many were written.
    """

    path: str
    key: bytes
    end: int = record.HEADER_BYTES
    live_bytes: int = 0
    groups: int = 0


def create(disk: Disk, path: str, key: bytes) -> tuple[Segment, File]:
    """A new segment, durable before it takes anything: a header that cannot be read is damage."""
    file = disk.create(path)
    try:
        file.pwrite([record.encode_header(key)], 0)
        file.datasync()
        disk.sync_folder(path.rpartition("/")[0])
    except OSError:
        file.close()
        with suppress(OSError):
            disk.remove(path)
        raise
    return Segment(path=path, key=key), file


def load(disk: Disk, path: str) -> tuple[Segment, list[Entry]] | None:
    """A segment of an earlier run, and its records that count; None where it cannot be read.

    A torn end is cut. Nothing is ever added to a segment of an earlier run.

    :raises UnsupportedVersion: where a newer release wrote it.
    """
    with closing(disk.open(path)) as file:
        size = file.size()
        key = record.decode_header(record.read(file, record.HEADER_BYTES, 0), path)
        if key is None:
            if size <= record.HEADER_BYTES:  # torn: it never took anything
                return Segment(path=path, key=b""), []
            _log.error("{path} cannot be read and is left alone", path=path)
            return None
        entries = record.decode_index(key, file, size)
        segment = Segment(path=path, key=key, end=size)
        ended = entries is not None
        if entries is None:
            entries = _scan(segment, file, size)
    gone = _removed(disk, path)
    if not ended:
        _end(disk, segment, entries, size)
    return segment, [one for one in entries if (one.chunk.id, one.record_at) not in gone]


def _end(disk: Disk, segment: Segment, entries: list[Entry], size: int) -> None:
    """Cut what is torn and write the index, so that the next start is quick."""
    try:
        with closing(disk.open(segment.path, writable=True)) as file:
            if segment.end < size:
                file.truncate(segment.end)
            end(segment, file, entries)
    except OSError as error:  # as of a full disk; it is read record by record again next time
        _log.warn("no index for {path}: {error}", path=segment.path, error=error)


def end(segment: Segment, file: File, entries: Iterable[Entry]) -> None:
    """Write the index: the segment takes no more records."""
    index = record.encode_index(segment.key, entries, segment.end)
    file.pwrite([index], segment.end)
    file.datasync()
    segment.end += len(index)


def mark_removed(
    disk: Disk, segment: Segment, entries: Iterable[Entry], *, durable: bool = False
) -> None:
    """Note that these records count no more."""
    path = _removed_path(segment.path)
    data = b"".join(map(record.encode_removed, entries))
    try:
        file = disk.open(path, writable=True)
    except FileNotFoundError:
        file = disk.create(path)
    with closing(file):
        size = file.size()
        file.pwrite([data], size - size % record.REMOVED_BYTES)
        if durable:
            file.datasync()
    if durable:
        disk.sync_folder(path.rpartition("/")[0])


def remove(disk: Disk, segment: Segment) -> None:
    """Take it apart. What is left of it after a crash is found at the next start."""
    for path in (segment.path, _removed_path(segment.path)):
        with suppress(FileNotFoundError):
            disk.remove(path)


def _scan(segment: Segment, file: File, size: int) -> list[Entry]:
    """Its records, one by one; sets :attr:`Segment.end` behind the last one that is whole.

    A group was written only after the one before it was synced. So what is broken in the last one
    is torn: it was never acknowledged. Before that it is damage of these records alone; their
    headers tell no more whose they were, and the heads miss them.
    """
    found: list[Record] = []
    at = record.HEADER_BYTES
    while at < size:
        one = record.decode(segment.key, file, at, size)
        if one is None:
            one = record.next_record(segment.key, file, at + record.ALIGN_BYTES, size)
            if one is None:
                break
            _log.error(
                "{path} is damaged from byte {start} to {end}",
                path=segment.path,
                start=at,
                end=one.entry.record_at,
            )
        found.append(one)
        at = one.entry.end
    last = found[-1].group if found else 0
    whole = [one.entry for one in found if one.group != last or read_back(one.entry, file)]
    segment.end = whole[-1].end if whole else record.HEADER_BYTES
    return whole


def read_back(entry: Entry, file: File) -> tuple[bytes, bytes] | None:
    """A record's bytes and its block digests; None where they are not what was written."""
    data = record.read(file, entry.digests_end - entry.bytes_at, entry.bytes_at)
    length = entry.chunk.length
    content, digests = data[:length], data[length:]
    try:
        BlockVerifier(entry.chunk, digests).check(0, content)
    except IntegrityError:
        return None
    return content, digests


def _removed(disk: Disk, path: str) -> set[tuple[bytes, int]]:
    try:
        return set(record.decode_removed(read_file(disk, _removed_path(path))))
    except FileNotFoundError:
        return set()


def _removed_path(path: str) -> str:
    return f"{path}.removed"
