"""Tests for :mod:`filegrid.head.journal`."""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Sequence
from contextlib import closing

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from filegrid.disk import read_file
from filegrid.errors import DiskFailed, IntegrityError, NoSpace, UnsupportedVersion
from filegrid.head.journal import Journal, LogSizes
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.simulation.disk import SimulatedDisk

FOLDER = "/node/log"
FIRST = f"{FOLDER}/{1:020}.journal"


def entries(first: int, last: int, epoch: int = 1) -> list[journal.Entry]:
    command = journal.Command(barrier=journal.Barrier(leader="head-1"))
    return [
        journal.Entry(epoch=epoch, index=index, command=command) for index in range(first, last + 1)
    ]


def write(disk: SimulatedDisk, path: str, data: bytes) -> None:
    """Make the whole file so, durably."""
    with closing(disk.open(path, writable=True)) as file:
        file.truncate(0)
        file.pwrite([data], 0)
        file.datasync()


class JournalTestCase(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.sizes = LogSizes()

    def filled(self, *groups: Sequence[journal.Entry]) -> Journal:
        log = Journal.open(self.disk, FOLDER, self.sizes)
        for group in groups:
            log.append(group)
        return log

    def small_segments(self) -> None:
        """One group fills a segment."""
        self.sizes = LogSizes(segment_bytes=64)

    def assertHolds(self, log: Journal, first: int, last: int) -> None:
        self.assertEqual((log.first_index, log.last_index), (first, last))
        self.assertEqual([one.index for one in log.read(first, 1000)], [*range(first, last + 1)])


class Appending(JournalTestCase):
    def test_empty(self) -> None:
        """A new log has nothing in it."""
        log = Journal.open(self.disk, FOLDER)
        self.assertHolds(log, 1, 0)
        self.assertEqual((log.last_epoch, log.epoch_at(1)), (0, None))

    def test_append(self) -> None:
        """What was appended survives a loss of power, and is read from any index on."""
        self.filled(entries(1, 3), entries(4, 4), entries(5, 9, epoch=2))
        self.disk.crash()
        log = Journal.open(self.disk, FOLDER)
        self.assertHolds(log, 1, 9)
        self.assertEqual([one.index for one in log.read(2, 4)], [2, 3, 4, 5])
        self.assertEqual(log.read(10, 5), [])
        self.assertEqual(log.last_epoch, 2)
        self.assertEqual([log.epoch_at(index) for index in (4, 5, 10)], [1, 2, None])
        log.append(entries(10, 10, epoch=2))
        self.assertHolds(log, 1, 10)

    def test_segments(self) -> None:
        """A full segment is followed by another, and all are read as one log."""
        self.small_segments()
        self.filled(entries(1, 3), entries(4, 4), entries(5, 6))
        self.disk.crash()
        self.assertEqual(len(self.disk.names(FOLDER)), 3)
        self.assertHolds(Journal.open(self.disk, FOLDER), 1, 6)

    def test_gap(self) -> None:
        """Indexes follow each other without gaps; anything else is a broken invariant."""
        self.assertRaises(AssertionError, self.filled(entries(1, 3)).append, entries(5, 5))

    def test_failed_sync(self) -> None:
        """After a sync that failed nothing is taken any more (S16)."""
        log = self.filled(entries(1, 3))
        self.disk.fail_next("datasync", errno.EIO)
        self.assertRaises(DiskFailed, log.append, entries(4, 4))
        self.assertEqual(log.last_index, 3)
        self.assertRaises(DiskFailed, log.append, entries(4, 4))
        self.disk.crash()
        self.assertHolds(Journal.open(self.disk, FOLDER), 1, 3)

    def test_full_disk(self) -> None:
        """A write that failed is as final: part of it may be there."""
        log = self.filled(entries(1, 3))
        self.disk.fail_next("pwrite", errno.ENOSPC)
        self.assertRaises(NoSpace, log.append, entries(4, 4))
        self.assertRaises(DiskFailed, log.append, entries(4, 4))

    @settings(max_examples=50, deadline=None, database=None)
    @given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([64, 300, 1 << 20]))
    def test_power_loss(self, seed: int, operations: int, segment_bytes: int) -> None:
        """Whenever the power fails, what was acknowledged is there, and at most one group more."""
        sizes = LogSizes(segment_bytes=segment_bytes)
        rng = random.Random(seed)
        disk = SimulatedDisk(rng)
        disk.make_folders(FOLDER)
        disk.cut_power_after(operations)
        acknowledged = attempted = 0
        try:
            log = Journal.open(disk, FOLDER, sizes)
            while True:
                attempted = acknowledged + rng.randint(1, 4)
                log.append(entries(acknowledged + 1, attempted))
                acknowledged = attempted
                if rng.random() < 0.2:
                    log.compact_below(rng.randint(1, acknowledged + 1))
        except DiskFailed:
            disk.crash()
        log = Journal.open(disk, FOLDER)
        self.assertIn(log.last_index, (acknowledged, attempted))
        self.assertHolds(log, log.first_index, log.last_index)
        log.append(entries(log.last_index + 1, log.last_index + 1))


class Damage(JournalTestCase):
    def test_torn_anywhere(self) -> None:
        """The last group may end anywhere: it is cut, and what is before it stays (S3)."""
        self.filled(entries(1, 2), entries(3, 4))
        end = len(read_file(self.disk, FIRST))
        self.filled(entries(5, 6))
        whole = read_file(self.disk, FIRST)
        for cut in range(end, len(whole)):
            for tail in (b"", bytes(len(whole) - cut)):
                write(self.disk, FIRST, whole[:cut] + tail)
                log = Journal.open(self.disk, FOLDER)
                self.assertHolds(log, 1, 4)
        log.append(entries(5, 5, epoch=2))
        self.disk.crash()
        self.assertHolds(Journal.open(self.disk, FOLDER), 1, 5)

    def test_last_group_damaged_anywhere(self) -> None:
        """A last group that was written in part, in whatever order, is cut as well."""
        self.filled(entries(1, 2))
        end = len(read_file(self.disk, FIRST))
        self.filled(entries(3, 4))
        whole = read_file(self.disk, FIRST)
        for place in range(end, len(whole)):
            write(self.disk, FIRST, whole)
            self.disk.flip_bits(FIRST, place, 0x55)
            self.assertHolds(Journal.open(self.disk, FOLDER), 1, 2)

    def test_damaged_before(self) -> None:
        """Damage anywhere before the last group is told, and nothing is cut (S3)."""
        self.filled(entries(1, 2), entries(3, 4))
        end = len(read_file(self.disk, FIRST))
        self.filled(entries(5, 6))
        whole = read_file(self.disk, FIRST)
        for place in range(end):
            write(self.disk, FIRST, whole)
            self.disk.flip_bits(FIRST, place, 0x55)
            error = self.assertRaises(IntegrityError, Journal.open, self.disk, FOLDER)
            self.assertIn("the log is damaged at byte", str(error))
        self.assertEqual(len(read_file(self.disk, FIRST)), len(whole))

    def test_damaged_segment(self) -> None:
        """Only the last segment may end early; one before it, or missing, is damage."""
        self.small_segments()
        self.filled(entries(1, 2), entries(3, 4), entries(5, 6))
        second = f"{FOLDER}/{3:020}.journal"
        whole = read_file(self.disk, second)
        write(self.disk, second, whole[:-1])
        self.assertRaises(IntegrityError, Journal.open, self.disk, FOLDER)
        self.disk.remove(second)
        self.assertRaises(IntegrityError, Journal.open, self.disk, FOLDER)

    def test_renamed_segment(self) -> None:
        """A segment under another's name is damage."""
        self.filled(entries(1, 2))
        self.disk.rename(FIRST, f"{FOLDER}/{9:020}.journal")
        self.assertRaises(IntegrityError, Journal.open, self.disk, FOLDER)

    def test_torn_header(self) -> None:
        """A segment whose very first write was torn never was."""
        self.small_segments()
        self.filled(entries(1, 2), entries(3, 4))
        second = f"{FOLDER}/{3:020}.journal"
        whole = read_file(self.disk, second)
        for cut in range(len(whole)):
            if not self.disk.exists(second):
                self.disk.create(second).close()
            write(self.disk, second, whole[:cut])
            self.assertHolds(Journal.open(self.disk, FOLDER), 1, 2)

    def test_read_damage(self) -> None:
        """Damage that came after opening is found by whoever reads."""
        log = self.filled(entries(1, 2))
        self.disk.flip_bits(FIRST, 100)
        self.assertRaises(IntegrityError, log.read, 1, 9)

    def test_newer(self) -> None:
        """A log of a later release is refused by name (S24)."""
        self.filled(entries(1, 2))
        header = struct.pack(">6sHQ", b"FGJRNL", 2, 1)
        write(self.disk, FIRST, header + blake3(header).digest(16))
        error = self.assertRaises(UnsupportedVersion, Journal.open, self.disk, FOLDER)
        self.assertIn("version 2", str(error))


class Cutting(JournalTestCase):
    def test_compact(self) -> None:
        """Compaction removes whole segments, never one that is still needed nor the last."""
        self.small_segments()
        log = self.filled(entries(1, 2), entries(3, 4), entries(5, 6))
        log.compact_below(2)
        self.assertHolds(log, 1, 6)
        log.compact_below(4)
        self.assertHolds(log, 3, 6)
        self.assertRaises(IntegrityError, log.read, 2, 1)
        log.compact_below(100)
        self.assertHolds(log, 5, 6)
        self.disk.crash()
        log = Journal.open(self.disk, FOLDER)
        self.assertHolds(log, 5, 6)
        log.append(entries(7, 7))
        self.assertHolds(log, 5, 7)

    def test_truncate(self) -> None:
        """The end of the log is taken back up to any index, also within a group."""
        for segment_bytes in (64, 1 << 20):
            self.sizes = LogSizes(segment_bytes=segment_bytes)
            for index in range(1, 9):
                self.disk = SimulatedDisk(random.Random(1))
                log = self.filled(entries(1, 3), entries(4, 4), entries(5, 7))
                log.truncate_from(index)
                kept = min(index - 1, 7)
                self.assertHolds(log, 1, kept)
                log.append(entries(kept + 1, kept + 2, epoch=2))
                self.disk.crash()
                again = Journal.open(self.disk, FOLDER)
                self.assertHolds(again, 1, kept + 2)
                self.assertEqual(again.epoch_at(kept + 1), 2)

    def test_truncate_after_compaction(self) -> None:
        """A log whose beginning is gone keeps its place when all the rest is taken back."""
        self.small_segments()
        log = self.filled(entries(1, 2), entries(3, 4))
        log.compact_below(3)
        log.truncate_from(3)
        self.disk.crash()
        log = Journal.open(self.disk, FOLDER)
        self.assertHolds(log, 3, 2)
        log.append(entries(3, 3))
        self.assertHolds(log, 3, 3)
