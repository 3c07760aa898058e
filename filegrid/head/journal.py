"""The log of a head: segment files, synced group by group (S8).

A segment is named by the index of its first entry, in 20 decimal digits;
:mod:`filegrid.head.segment` draws what is in it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice

from filegrid.disk import grid_errors, read_file, replace_file
from filegrid.errors import DiskFailed, IntegrityError
from filegrid.head.segment import Segment, damaged, encode_group, encode_header, scan, written
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.runtime import Disk, File

_SUFFIX = ".journal"
_MOST_READ_BYTES = 16 * 1024 * 1024
"""After so many a read ends, so that what it gives fits in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSizes:
    """How much of a log is kept, and where.

    :ivar segment_bytes: a segment that has so many gets no further group; compaction frees whole
        segments.
    :ivar recent_entries: kept in memory at least, and twice as many at most, for heads that follow
        closely; older ones are read from the log.
    :ivar checkpoint_entries: how many are applied again after a crash, about: some seconds of work.
    """

    segment_bytes: int = 64 * 1024 * 1024
    recent_entries: int = 8192
    checkpoint_entries: int = 50_000


USUAL_SIZES = LogSizes()


class Journal:
    """The entries, in order of their indexes, without gaps.

    Methods block; one thread at a time calls them. The properties may be read by any thread.
    """

    def __init__(self, disk: Disk, folder: str, segments: list[Segment], sizes: LogSizes) -> None:
        """Use :meth:`open`."""
        self.sizes = sizes
        self._disk = disk
        self._folder = folder
        self._segments = segments
        self._file: File | None = None
        self._failed = False

    @classmethod
    def open(cls, disk: Disk, folder: str, sizes: LogSizes = USUAL_SIZES) -> Journal:
        """Read and check all of the log; a torn last group, which nobody was told of, is cut.

        :raises IntegrityError: for any other damage (S3).
        :raises UnsupportedVersion: for a log of a later release (S24).
        :raises DiskFailed: where the disk does not read or write.
        """
        with grid_errors(folder):
            disk.make_folders(folder)
            names = [name for name in disk.names(folder) if name.endswith(_SUFFIX)]
            paths = [f"{folder}/{name}" for name in names]
            segments: list[Segment] = []
            for path in paths:
                expected = segments[-1].last_index + 1 if segments else 0
                data = read_file(disk, path)
                segment = scan(path, data, expected, is_last=path == paths[-1])
                if segment is None:
                    disk.remove(path)
                    disk.sync_folder(folder)
                    continue
                if path != _path(folder, segment.first_index):
                    raise damaged(path, 0)
                if segment.end < len(data):
                    with closing(disk.open(path, writable=True)) as file:
                        file.truncate(segment.end)
                        file.datasync()
                segments.append(segment)
        return cls(disk, folder, segments, sizes)

    # Where it stands

    @property
    def first_index(self) -> int:
        """Of the oldest entry that is still here; the next one's where there is none."""
        return self._segments[0].first_index if self._segments else 1

    @property
    def last_index(self) -> int:
        """0 where there was never an entry."""
        return self._segments[-1].last_index if self._segments else 0

    @property
    def last_epoch(self) -> int:
        """Of the last entry; 0 where there is none."""
        return next((s.last_epoch for s in reversed(self._segments) if s.last_epoch), 0)

    def epoch_at(self, index: int) -> int | None:
        """The epoch of an entry; None for one that is not here."""
        entries = self.read(index, 1)
        return entries[0].epoch if entries and entries[0].index == index else None

    # Reading and writing

    def read(self, from_index: int, limit: int) -> list[journal.Entry]:
        """Entries from `from_index` on, as many as there are, up to `limit` and to some MiB.

        :raises IntegrityError: where they are not as they were written, or were compacted away.
        """
        if from_index > self.last_index:
            return []
        if from_index < self.first_index:
            raise IntegrityError(f"the log begins only at {self.first_index}", self._folder)
        found: list[journal.Entry] = []
        size = 0
        with grid_errors(self._folder), closing(self._entries(from_index)) as entries:
            for entry in islice(entries, limit):
                found.append(entry)
                size += entry.ByteSize()
                if size >= _MOST_READ_BYTES:
                    break
        return found

    def append(self, entries: Sequence[journal.Entry]) -> None:
        """Add one group of at least one entry; when this returns it is on stable storage (S16).

        After a failure the journal takes nothing any more: what is on disk is not known then.

        :raises DiskFailed: where it could not be written and synced.
        """
        assert entries[0].index == self.last_index + 1, (entries[0].index, self.last_index)
        group = encode_group(entries)
        with self._or_refuse():
            segment = self._segments[-1] if self._segments else None
            if segment is None or segment.end >= self.sizes.segment_bytes:
                self._begin_segment(entries[0].index, group)
            else:
                if self._file is None:
                    self._file = self._disk.open(segment.path, writable=True)
                self._file.pwrite([group], segment.end)
                self._file.datasync()
                segment.add(written(group, segment.end))

    def truncate_from(self, index: int) -> None:
        """Take back the entries from `index` on, which were never committed.

        At every moment the log on disk is whole: first go the later segments, the last first,
        then the one that is cut is replaced by a shorter copy.

        :raises DiskFailed: as :meth:`append` does.
        """
        if index > self.last_index:
            return
        assert index >= self.first_index, (index, self.first_index)
        with self._or_refuse():
            self._close_file()
            while self._segments[-1].first_index > index:
                self._remove(self._segments.pop())
            old = self._segments[-1]
            with closing(self._disk.open(old.path)) as file:
                entries = old.read(file, old.first_index)
                kept = [entry for entry in entries if entry.index < index]
            group = encode_group(kept) if kept else b""
            replace_file(self._disk, old.path, encode_header(old.first_index) + group)
            shorter = Segment(old.path, old.first_index)
            if kept:
                shorter.add(written(group, shorter.end))
            self._segments[-1] = shorter

    def compact_below(self, index: int) -> None:
        """Remove the segments that hold only entries below `index`; never the last one.

        The caller knows that the state up to there is on stable storage (S8).

        :raises DiskFailed: as :meth:`append` does.
        """
        with self._or_refuse():
            while len(self._segments) > 1 and self._segments[0].last_index < index:
                self._remove(self._segments.pop(0))

    def begin_at(self, index: int) -> None:
        """Drop all entries; the next one is `index`. The state has all that was before it.

        :raises DiskFailed: as :meth:`append` does.
        """
        with self._or_refuse():
            self._close_file()
            while self._segments:
                self._remove(self._segments.pop())
            path = _path(self._folder, index)
            with closing(self._disk.create(path)) as file:
                file.pwrite([encode_header(index)], 0)
                file.datasync()
            self._disk.sync_folder(self._folder)
            self._segments.append(Segment(path, index))

    def close(self) -> None:
        with grid_errors(self._folder):
            self._close_file()

    def _begin_segment(self, first_index: int, group: bytes) -> None:
        self._close_file()
        path = _path(self._folder, first_index)
        self._file = self._disk.create(path)
        self._file.pwrite([encode_header(first_index), group], 0)
        self._file.datasync()
        self._disk.sync_folder(self._folder)
        segment = Segment(path, first_index)
        segment.add(written(group, segment.end))
        self._segments.append(segment)

    def _remove(self, segment: Segment) -> None:
        self._disk.remove(segment.path)
        self._disk.sync_folder(self._folder)  # each by itself: a crash must leave no gap

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _entries(self, from_index: int) -> Generator[journal.Entry, None, None]:
        for segment in self._segments:
            if segment.last_index >= from_index:
                with closing(self._disk.open(segment.path)) as file:
                    yield from segment.read(file, from_index)

    @contextmanager
    def _or_refuse(self) -> Iterator[None]:
        """A failure is for good: what a failed write left on disk is not known (S16)."""
        if self._failed:
            raise DiskFailed(
                "the log could not be written before", self._folder, advice="start the head again"
            )
        self._failed = True
        with grid_errors(self._folder):
            yield
        self._failed = False


def _path(folder: str, first_index: int) -> str:
    return f"{folder}/{first_index:020}{_SUFFIX}"
