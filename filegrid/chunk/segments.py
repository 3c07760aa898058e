"""Small chunks: appended to segments, all that arrive together with one sync (group commit).

In the data folder ``segments/N`` are the segments, N 16 hexadecimal digits. Where a chunk lies is
kept in memory, and is made anew at every start from the segments. They are filled one after the
other; what was removed leaves holes, and a segment that is mostly holes is compacted: what is left
in it moves to the one being filled.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress

from twisted.logger import Logger

from filegrid.chunk import record, segment
from filegrid.chunk.record import Content, Entry
from filegrid.chunk.segment import Segment
from filegrid.disk import grid_errors
from filegrid.errors import GridError, IntegrityError, InternalError, NoSuchChunk
from filegrid.model import Chunk, ChunkId
from filegrid.protocol.wire import chunk_pb2 as wire
from filegrid.runtime import Bytes, Disk, File

SEGMENT_BYTES = 64 * 1024 * 1024
"""What a start reads record by record, and what a compaction takes apart, stays short."""

MOST_GROUP_BYTES = 8 * 1024 * 1024
"""Of one sync; above this the first of a group waits noticeably for the last."""

LEAST_LIVE_FRACTION = 0.5
"""Of a segment's full length, under which it is compacted: each byte is moved once, on average,
for each byte that is freed."""

_NAME = re.compile("[0-9a-f]{16}")


class _Waiting:
    """A chunk that waits for its group; where it moves from, for one that is compacted."""

    __slots__ = ("content", "done", "error", "moved_from")

    def __init__(self, content: Content, moved_from: tuple[Segment, Entry] | None) -> None:
        self.content = content
        self.moved_from = moved_from
        self.done = False
        self.error: GridError | None = None


class Segments:
    """All segments of a data folder. Its methods block and may be called by any thread.

    :param folder: theirs.
    :param random: for the keys.
    :param segment_bytes: a segment is full at this length.
    """

    log = Logger()

    def __init__(
        self, disk: Disk, folder: str, random: random.Random, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._random = random
        self._segment_bytes = segment_bytes
        self._writing = threading.Lock()  # held while a group is written: guards the next three
        self._active: Segment | None = None
        self._file: File | None = None
        self._entries: list[Entry] = []  # of the active segment
        self._compacting = threading.Lock()  # guards the next
        self._left: tuple[Segment, list[Entry]] | None = None  # of what is being compacted
        self._marking = threading.Lock()  # held while removals are noted on disk
        self._lock = threading.Lock()  # guards all below, and is never held during I/O
        self._waiting: list[_Waiting] = []
        self._places: dict[ChunkId, tuple[Segment, Entry]] = {}
        self._segments: dict[str, Segment] = {}
        self._last_number = 0

    def __contains__(self, chunk_id: object) -> bool:
        return chunk_id in self._places

    def load(self) -> list[Chunk]:
        """Read what is there; before all else, and again where the disk was away.

        :raises UnsupportedVersion: where a newer release wrote a segment.
        :raises OSError: where the folder cannot be read.
        """
        with self._writing, self._compacting:
            if self._file is not None:
                self._let_go(self._file)
            self._left = None
            with self._lock:
                self._places.clear()
                self._segments.clear()
        self._disk.make_folders(self._folder)
        names = self._disk.names(self._folder)
        for name in names:
            number = name.removesuffix(".removed")
            if not _NAME.fullmatch(number):
                continue  # not ours
            self._last_number = max(self._last_number, int(number, 16))
            if name != number:
                if number not in names:
                    self._disk.remove(f"{self._folder}/{name}")
                continue
            found = segment.load(self._disk, f"{self._folder}/{name}")
            if found is not None:
                self._take_in(*found)
        # A process that was killed may have left a name that is not durable yet.
        self._disk.sync_folder(self._folder)
        return [entry.chunk for _, entry in self._places.values()]

    def ids(self) -> list[ChunkId]:
        with self._lock:
            return list(self._places)

    def write(self, contents: Sequence[Content]) -> list[GridError | None]:
        """Store chunks; those whose place in the answer is None survive every crash (S16).

        What other threads store at the same time is synced together with them.
        """
        return self._write([_Waiting(content, None) for content in contents])

    def place(self, chunk_id: ChunkId) -> tuple[Segment, Entry]:
        """The segment that has a chunk, and where in it.

        :raises NoSuchChunk: where it is not here.
        """
        with self._lock:
            place = self._places.get(chunk_id)
        if place is None:
            raise NoSuchChunk("the chunk is not on this server", chunk_id.hex())
        return place

    def open(self, chunk_id: ChunkId) -> tuple[File, Segment, Entry]:
        """As :meth:`place`, and its open file, which stays readable when the segment goes."""
        while True:
            where, entry = self.place(chunk_id)
            try:
                return self._disk.open(where.path), where, entry
            except FileNotFoundError:
                if self.place(chunk_id) == (where, entry):  # it was not compacted meanwhile
                    raise

    def header(self, chunk_id: ChunkId) -> wire.ChunkHeader:
        """What a chunk says of itself.

        :raises IntegrityError: where its record is damaged.
        """
        file, where, entry = self.open(chunk_id)
        with closing(file):
            found = record.decode(where.key, file, entry.record_at, file.size())
        if found is None or found.entry != entry:
            raise IntegrityError("the record of the chunk is damaged", chunk_id.hex())
        return found.header

    def remove(self, chunk_ids: Iterable[ChunkId]) -> None:
        """Remove chunks; those that are not here are left out. It is not synced."""
        for where, entries in self._drop(chunk_ids):
            self._mark_removed(where, entries)

    def quarantine(self, chunk_id: ChunkId, target: str) -> bool:
        """Put a chunk's record aside into the file `target`, durably; False where it is not here.

        What the disk does not give of it is left out.
        """
        with self._lock:
            place = self._places.get(chunk_id)
        if place is None:
            return False
        where, entry = place
        data = b""
        with suppress(OSError), closing(self._disk.open(where.path)) as file:
            data = file.pread(entry.end - entry.record_at, entry.record_at)
        try:
            with closing(self._disk.create(target)) as aside:
                aside.pwrite([data], 0)
                aside.datasync()
            self._disk.sync_folder(target.rpartition("/")[0])
        except OSError:
            with suppress(OSError):
                self._disk.remove(target)  # it is tried again
            raise
        for where, entries in self._drop([chunk_id]):
            self._mark_removed(where, entries, durable=True)
        return True

    def compact(self, most_bytes: int) -> tuple[bool, list[Chunk]]:
        """Move up to `most_bytes` out of the segment that has the most holes, if one has many.

        :returns: whether there may be more to do at once; and chunks that were found damaged,
            which stay where they are until they are quarantined.
        """
        with self._compacting:
            where, left = self._left or self._emptiest()
            if where is None:
                return False, []
            moving: list[Entry] = []
            size = 0
            while left and (not moving or size + left[-1].chunk.length <= most_bytes):
                moving.append(left.pop())
                size += moving[-1].chunk.length
            self._left = (where, left) if left else None
            damaged = self._move(where, moving)
            if not left:
                with self._lock:
                    empty = not where.live_bytes
                    if empty:
                        self._segments.pop(where.path, None)
                if empty:
                    segment.remove(self._disk, where)
            return bool(left or not damaged), damaged

    # Reading back.

    def _take_in(self, where: Segment, entries: list[Entry]) -> None:
        if not entries:
            segment.remove(self._disk, where)
            return
        self._segments[where.path] = where
        for entry in entries:
            # Twice, where a crash ended a compaction: the later copy counts.
            twin = self._places.get(entry.chunk.id)
            if twin is not None:
                _size(*twin, -1)
            self._places[entry.chunk.id] = (where, entry)
            _size(where, entry, 1)

    # Writing.

    def _write(self, waiting: list[_Waiting]) -> list[GridError | None]:
        with self._lock:
            self._waiting += waiting
        # Whoever gets the lock writes for all who wait; the others find it done.
        while not all(one.done for one in waiting):
            with self._writing:
                if not waiting[-1].done:
                    self._write_group(self._next_group())
        return [one.error for one in waiting]

    def _next_group(self) -> list[_Waiting]:
        with self._lock:
            count = size = 0
            for one in self._waiting:
                size += one.content.chunk.length
                if count and size > MOST_GROUP_BYTES:
                    break
                count += 1
            group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    def _write_group(self, group: list[_Waiting]) -> None:
        try:
            with grid_errors(group[0].content.chunk.id.hex()):
                where, entries = self._append([one.content for one in group])
        except GridError as error:
            _fail(group, error)
            return
        except BaseException:
            _fail(group, InternalError("the segment could not be written"))
            raise
        gone = []
        with self._lock:
            for one, entry in zip(group, entries, strict=True):
                chunk_id = entry.chunk.id
                if one.moved_from is not None and self._places.get(chunk_id) != one.moved_from:
                    gone.append(entry)  # removed while it was moved
                    continue
                before = self._places.get(chunk_id)
                if before is not None:
                    _size(*before, -1)
                self._places[chunk_id] = (where, entry)
                _size(where, entry, 1)
        if gone:
            self._mark_removed(where, gone)
        for one in group:
            one.done = True

    def _append(self, contents: list[Content]) -> tuple[Segment, list[Entry]]:
        where, file = self._room()
        at, group = where.end, where.groups + 1
        entries: list[Entry] = []
        pieces: list[Bytes] = []
        for content in contents:
            entry, parts = record.encode(where.key, content, at, group)
            entries.append(entry)
            pieces += parts
            at = entry.end
        try:
            file.pwrite(pieces, where.end)
            file.datasync()
        except OSError:
            self._abandon(where, file)
            raise
        where.end, where.groups = at, group
        self._entries += entries
        return where, entries

    def _room(self) -> tuple[Segment, File]:
        """The segment that takes the next group."""
        if self._active is not None and self._file is not None:
            if self._active.end < self._segment_bytes:
                return self._active, self._file
            self._end_active()
        with self._lock:
            self._last_number += 1
            path = f"{self._folder}/{self._last_number:016x}"
        self._active, self._file = segment.create(
            self._disk, path, self._random.randbytes(record.KEY_BYTES)
        )
        with self._lock:
            self._segments[path] = self._active
        return self._active, self._file

    def _end_active(self) -> None:
        assert self._active is not None and self._file is not None
        with suppress(OSError):  # then the next start reads it record by record
            segment.end(self._active, self._file, self._entries)
        self._let_go(self._file)

    def _abandon(self, where: Segment, file: File) -> None:
        """A group failed: nothing is tried again, and the segment takes no more (S16)."""
        with suppress(OSError):
            file.truncate(where.end)
        self._let_go(file)
        with self._lock:
            empty = not where.groups
            if empty:
                del self._segments[where.path]
        if empty:
            with suppress(OSError):
                segment.remove(self._disk, where)

    def _let_go(self, file: File) -> None:
        file.close()
        self._active = self._file = None
        self._entries = []

    # Removing.

    def _drop(self, chunk_ids: Iterable[ChunkId]) -> Iterable[tuple[Segment, list[Entry]]]:
        dropped: dict[str, tuple[Segment, list[Entry]]] = {}
        with self._lock:
            for chunk_id in chunk_ids:
                place = self._places.pop(chunk_id, None)
                if place is not None:
                    _size(*place, -1)
                    where, entry = place
                    dropped.setdefault(where.path, (where, []))[1].append(entry)
        return dropped.values()

    def _mark_removed(self, where: Segment, entries: list[Entry], *, durable: bool = False) -> None:
        with self._marking:
            segment.mark_removed(self._disk, where, entries, durable=durable)

    def _move(self, where: Segment, moving: list[Entry]) -> list[Chunk]:
        moved, waiting, damaged = [], [], []
        with closing(self._disk.open(where.path)) as file:
            size = file.size()
            for entry in moving:
                content = _read_back(where, entry, file, size)
                if content is None:
                    damaged.append(entry.chunk)
                else:
                    moved.append(entry)
                    waiting.append(_Waiting(content, (where, entry)))
        if waiting:
            for error in self._write(waiting):
                if error is not None:
                    raise error
            # Otherwise a chunk that is removed from its new place would be back in its old one.
            self._mark_removed(where, moved)
        return damaged

    def _emptiest(self) -> tuple[Segment | None, list[Entry]]:
        """The segment that is the most worth compacting, and what counts in it."""
        with self._lock:
            candidates = [one for one in self._segments.values() if one is not self._active]
            least = min(candidates, key=lambda one: one.live_bytes, default=None)
            if least is None or least.live_bytes >= LEAST_LIVE_FRACTION * self._segment_bytes:
                return None, []
            places = list(self._places.values())
        return least, [entry for where, entry in places if where is least]


def _fail(group: list[_Waiting], error: GridError) -> None:
    for one in group:
        one.error, one.done = error, True


def _size(where: Segment, entry: Entry, sign: int) -> None:
    where.live_bytes += sign * (entry.end - entry.record_at)


def _read_back(where: Segment, entry: Entry, file: File, size: int) -> Content | None:
    """A record as it is to be written elsewhere; None where it is damaged."""
    found = record.decode(where.key, file, entry.record_at, size)
    content = segment.read_back(entry, file)
    if found is None or found.entry != entry or content is None:
        return None
    data, block_digests = content
    return Content(
        description=record.describe(found.header),
        chunk=entry.chunk,
        pieces=[data],
        block_digests=block_digests,
    )
