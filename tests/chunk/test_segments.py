"""Small chunks in segments: groups, crashes, faults, damage, and compaction."""

from __future__ import annotations

import contextlib  # trial takes a module's `suppress` for its own
import errno
import os
import random
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from filegrid.chunk import record
from filegrid.chunk.record import HEADER_BYTES
from filegrid.chunk.segments import SEGMENT_BYTES
from filegrid.chunk.store import Store
from filegrid.disk import RealDisk, RealFile
from filegrid.errors import (
    DiskFailed,
    GridError,
    IntegrityError,
    NoSpace,
    NoSuchChunk,
    UnsupportedVersion,
)
from filegrid.model import Chunk
from filegrid.runtime import Disk
from filegrid.simulation.disk import SimulatedDisk
from tests.chunk.contract import FOLDER, ORIGIN, StoreContract, chunk_id, content, put

FIRST = f"{FOLDER}/segments/0000000000000001"
ALL = 1 << 30


class SmallChunks(StoreContract):
    """What holds for every chunk holds for small ones."""

    small_bytes = 1 << 20
    chunk_file = "segments/0000000000000001"


class RealDiskSegmentTests(SmallChunks):
    """On the file system of the machine."""

    def setUp(self) -> None:
        self.disk = RealDisk()
        self.folder = str(Path(self.mktemp()).absolute())


class SimulatedDiskSegmentTests(SmallChunks):
    """On the twin in memory."""

    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.folder = FOLDER


del StoreContract, SmallChunks


def open_store(
    disk: Disk, folder: str = FOLDER, segment_bytes: int = SEGMENT_BYTES
) -> tuple[Store, dict[int, Chunk]]:
    """A store as at the start of a node, and what it found, by number."""
    rng = random.Random(1)
    store = Store(disk, folder, grid_id="g", reserve_bytes=0, segment_bytes=segment_bytes, rng=rng)
    return store, {int.from_bytes(chunk.id[8:]): chunk for chunk in store.load()}


class SegmentCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.store, _ = open_store(self.disk)

    def fill(self, numbers: Sequence[int], length: int = 3000) -> list[Chunk]:
        return [put(self.store, number, content(length)) for number in numbers]

    def place(self, chunk: Chunk) -> int:
        """Where its bytes lie in the first segment."""
        file, offset = self.store.locate(chunk.id)
        self.assertEqual(f"{FOLDER}/{file}", FIRST)
        return offset

    def small_segments(self, length: int) -> None:
        self.store, _ = open_store(self.disk, segment_bytes=length)

    def compact(self) -> list[Chunk]:
        """Until there is nothing more to do; what was found damaged."""
        damaged: list[Chunk] = []
        more, steps = True, 0
        while more:
            more, found = self.store.compact(4000)
            damaged += [chunk for chunk in found if chunk not in damaged]
            steps += 1
            self.assertLess(steps, 1000)
        return damaged

    def names(self) -> list[str]:
        return self.disk.names(f"{FOLDER}/segments")


class _SlowFile(RealFile):
    """Its first sync of a record takes until it is told to end."""

    def __init__(self, fd: int, disk: _SlowDisk) -> None:
        super().__init__(fd)
        self._disk = disk

    def datasync(self) -> None:
        self._disk.syncs += 1
        if self._disk.syncs == 2:  # after that of the header
            self._disk.syncing.set()
            self._disk.go_on.wait(10)
        super().datasync()


class _SlowDisk(RealDisk):
    def __init__(self) -> None:
        self.syncs = 0
        self.syncing = threading.Event()
        self.go_on = threading.Event()

    def create(self, path: str) -> RealFile:
        plain = super().create(path)
        return _SlowFile(os.dup(plain.fileno()), self)


class GroupTests(SynchronousTestCase):
    """One sync for all that arrived together."""

    def test_shared(self) -> None:
        """What comes while a group is synced makes up the next group, with one sync for all."""
        disk = _SlowDisk()
        store, _ = open_store(disk, str(Path(self.mktemp()).absolute()))
        threads = [
            threading.Thread(target=put, args=(store, number, content(100)))
            for number in range(1, 8)
        ]
        threads[0].start()
        self.assertTrue(disk.syncing.wait(10))
        for thread in threads[1:]:
            thread.start()
        small = store._small
        while len(small._waiting) < len(threads) - 1:
            threading.Event().wait(0.001)
        disk.go_on.set()
        for thread in threads:
            thread.join(10)
        self.assertEqual(disk.syncs, 3)  # header, the first, the six others
        for number in range(1, 8):
            self.assertIn(chunk_id(number), small)


class CrashTests(SegmentCase):
    """Crashes at every step."""

    def crash_after(self, operations: int, seed: int, *, settled: int) -> bool:
        """Lose the power so many operations into a write; whether it had returned."""
        disk = SimulatedDisk(random.Random(seed))
        store, _ = open_store(disk)
        for number in range(1, settled + 1):
            put(store, number, content(1000))
        disk.cut_power_after(operations)
        try:
            sealed = put(store, 9, content(3000))
        except DiskFailed:
            sealed = None
        disk.crash()
        store, found = open_store(disk)
        self.assertEqual(store.damaged, [])
        self.assertEqual([one for one in range(1, 9) if one in found], [*range(1, settled + 1)])
        if sealed is not None:
            self.assertIn(9, found)
        for chunk in found.values():
            store.verify(chunk)
        self.assertEqual(open_store(disk)[1], found)  # the same again, now by the index
        return sealed is not None

    def test_every_step(self) -> None:
        """A chunk is whole or absent after a crash, and there once its seal has returned; those
        before it are untouched (S16).
        """
        for settled in (0, 1, 3):
            operations = 0
            while True:
                sealed = [self.crash_after(operations, seed, settled=settled) for seed in range(25)]
                if all(sealed):
                    break
                self.assertFalse(any(sealed))
                operations += 1
            self.assertGreaterEqual(operations, 2)

    def test_recovery_is_cut_too(self) -> None:
        """A crash at every step of the start after a crash loses nothing either."""
        for operations in range(40):
            disk = SimulatedDisk(random.Random(operations))
            store, _ = open_store(disk)
            for number in (1, 2, 3):
                put(store, number, content(1000))
            disk.crash()
            disk.cut_power_after(operations)
            with contextlib.suppress(GridError):
                open_store(disk)
            disk.crash()
            store, found = open_store(disk)
            self.assertEqual(sorted(found), [1, 2, 3])
            for chunk in found.values():
                store.verify(chunk)

    def test_compaction(self) -> None:
        """A crash at every step of a compaction loses no chunk."""
        self.small_segments(9000)
        for operations in range(60):
            disk = SimulatedDisk(random.Random(operations))
            self.store, _ = open_store(disk, segment_bytes=9000)
            kept = self.fill([1, 2, 3, 4, 5, 6, 7])[::3]
            for number in (2, 3, 5, 6):
                self.store.remove(chunk_id(number))
            disk.cut_power_after(operations)
            with contextlib.suppress(DiskFailed):
                self.compact()
            disk.crash()
            store, found = open_store(disk, segment_bytes=9000)
            self.assertEqual(store.damaged, [])
            for chunk in kept:
                self.assertIn(chunk, found.values())
                store.verify(chunk)


class FaultTests(SegmentCase):
    """Disks that fill up and fail."""

    def test_failed_group(self) -> None:
        """What fails is dropped and never tried again; those before stay; the next is fresh."""
        (kept,) = self.fill([1])
        for operation, code, kind in (
            ("datasync", errno.EIO, DiskFailed),
            ("datasync", errno.ENOSPC, NoSpace),
            ("pwrite", errno.ENOSPC, NoSpace),
            ("pwrite", errno.EIO, DiskFailed),
            ("create", errno.EROFS, DiskFailed),
            ("sync_folder", errno.EIO, DiskFailed),
        ):
            if operation in ("create", "sync_folder"):  # where a new segment is begun
                self.disk.fail_next("pwrite", errno.EIO)
                self.assertRaises(DiskFailed, put, self.store, 2, b"abc")
            self.disk.fail_next(operation, code)
            self.assertRaises(kind, put, self.store, 2, b"abc")
            self.assertRaises(NoSuchChunk, self.store.header, chunk_id(2))
            if operation == "datasync":
                self.assertNotEqual(put(self.store, 3, b"abc").length, 0)
                self.assertNotEqual(self.store.locate(chunk_id(3))[0], FIRST[len(FOLDER) + 1 :])
                self.store.remove(chunk_id(3))
        self.store.verify(kept)
        put(self.store, 2, b"abc")
        self.disk.crash()
        store, found = open_store(self.disk)
        self.assertEqual({1, 2}, set(found) - {3})  # a removal is not synced
        store.verify(kept)

    def test_together(self) -> None:
        """A failed sync fails everybody of the group."""
        contents: list[record.Content] = []

        def gather(given: Sequence[record.Content]) -> list[GridError | None]:
            contents.extend(given)
            return [None]

        for number in (1, 2):
            writer = self.store.begin(chunk_id(number), ORIGIN, 10)
            writer.write([b"abc"])
            writer.hash(b"abc")
            with mock.patch.object(writer, "_commit", gather):
                writer.seal()
        self.fill([3])
        self.disk.fail_next("datasync", errno.EIO)
        errors = self.store._small.write(contents)
        self.assertEqual([type(error) for error in errors], [DiskFailed, DiskFailed])
        self.assertEqual(self.store._small.write(contents), [None, None])

    def test_reserve(self) -> None:
        """Space is promised to small writers too."""
        self.disk.capacity_bytes = 5000
        first = self.store.begin(chunk_id(1), ORIGIN, 4000)
        self.assertRaises(NoSpace, self.store.begin, chunk_id(2), ORIGIN, 4000)
        first.discard()
        self.store.begin(chunk_id(2), ORIGIN, 4000)

    def test_missing_disk(self) -> None:
        """A missing disk is a failing one, not a lost chunk (S20)."""
        (chunk,) = self.fill([1])
        self.disk.wipe()
        self.assertRaises(DiskFailed, self.store.read, chunk, 0, 1)
        self.assertRaises(DiskFailed, self.store.verify, chunk)


class DamageTests(SegmentCase):
    """Rot in one record, and its neighbours."""

    def test_flipped_bits(self) -> None:
        """One flipped bit anywhere in a record is found, and found in that record alone."""
        before, chunk, after = self.fill([1, 2, 3])
        at, start = self.place(chunk), self.place(before) + 3000 + 32
        start += -start % record.ALIGN_BYTES
        for offset in (start, start + 5, start + 17, start + 30, at - 1, at, at + 2999, at + 3031):
            self.disk.flip_bits(FIRST, offset)
            self.assertRaises(IntegrityError, self.store.verify, chunk)
            self.store.verify(before)
            self.store.verify(after)
            self.disk.flip_bits(FIRST, offset)
        self.store.verify(chunk)

    def test_quarantine(self) -> None:
        """A damaged record goes aside durably, with its bytes; its neighbours stay."""
        before, chunk, after = self.fill([1, 2, 3])
        self.disk.flip_bits(FIRST, self.place(chunk) + 7)
        self.store.quarantine(chunk.id, "it rots")
        self.disk.crash()
        store, found = open_store(self.disk)
        self.assertEqual(found, {1: before, 3: after})
        store.verify(before)
        store.verify(after)
        with closing(self.disk.open(f"{FOLDER}/quarantine/{chunk.id.hex()}")) as aside:
            self.assertIn(content(3000)[8:], aside.pread(aside.size(), 0))

    def test_unreadable(self) -> None:
        """What the disk does not give can be put aside all the same, and made anew."""
        (chunk,) = self.fill([1])
        self.disk.fail_reads(FIRST)
        self.assertRaises(IntegrityError, self.store.verify, chunk)
        for operation in ("create", "pwrite"):
            self.disk.fail_next(operation, errno.EIO)
            self.store.quarantine(chunk.id, "it cannot be read")
        self.store.tidy()
        self.assertEqual(self.disk.names(f"{FOLDER}/quarantine"), [chunk.id.hex()])
        put(self.store, 1, content(3000))

    def test_damage_before_the_last_group(self) -> None:
        """A header that rots in a segment without an index costs its own chunk alone."""
        chunks = self.fill([1, 2, 3, 4])
        self.disk.flip_bits(FIRST, self.place(chunks[1]) - 3)
        self.assertEqual(sorted(open_store(self.disk)[1]), [1, 3, 4])

    def test_header_rots(self) -> None:
        """The segment's header is there twice; without both the segment is left alone."""
        chunks = self.fill([1, 2])
        self.disk.flip_bits(FIRST, 20)
        store, found = open_store(self.disk)
        self.assertEqual(sorted(found), [1, 2])
        store.verify(chunks[0])
        self.disk.flip_bits(FIRST, HEADER_BYTES // 2 + 20)
        self.assertEqual(open_store(self.disk)[1], {})
        self.assertTrue(self.disk.exists(FIRST))

    def test_index_rots(self) -> None:
        """A segment whose index is damaged is read record by record."""
        self.small_segments(9000)
        self.fill([1, 2, 3])
        open_store(self.disk, segment_bytes=9000)
        with closing(self.disk.open(FIRST)) as file:
            size = file.size()
        for offset in (size - 1, size - 20, size - 40, size - 300):
            self.disk.flip_bits(FIRST, offset)
            self.assertEqual(sorted(open_store(self.disk, segment_bytes=9000)[1]), [1, 2, 3])
            with closing(self.disk.open(FIRST)) as file:
                self.assertEqual(file.size(), size)  # it was written anew

    def test_record_within_a_record(self) -> None:
        """Bytes that look like a record, because they were one, are never taken for one."""
        (first,) = self.fill([1], 1000)
        with closing(self.disk.open(FIRST)) as file:
            copied = file.pread(file.size() - HEADER_BYTES, HEADER_BYTES)
        put(self.store, 2, bytes(64 - self.align()) + copied)
        self.fill([3])
        self.disk.flip_bits(FIRST, self.place(first) + 1000 + 32 + 32)
        self.disk.flip_bits(FIRST, HEADER_BYTES + 1)
        self.assertEqual(sorted(open_store(self.disk)[1])[-1:], [3])
        self.assertNotIn(1, open_store(self.disk)[1])

    def align(self) -> int:
        """How far beyond a place where records may begin the next chunk's bytes will lie."""
        (probe,) = self.fill([8], 0)
        place = self.place(probe) % record.ALIGN_BYTES
        self.store.remove(probe.id)
        return place

    def test_newer_version(self) -> None:
        """A segment of a newer release is refused by name (S24)."""
        with mock.patch.object(record, "VERSION", record.VERSION + 1):
            self.fill([1])
        refused = self.assertRaises(UnsupportedVersion, open_store, self.disk)
        self.assertIn(FIRST, str(refused))


class CompactionTests(SegmentCase):
    """Space comes back."""

    def test_space(self) -> None:
        """Segments that are mostly holes go; what is left in them is where the store says."""
        self.small_segments(30_000)
        chunks = self.fill(range(1, 41))
        self.assertGreater(len(self.names()), 3)
        kept = chunks[::5]
        for chunk in chunks:
            if chunk not in kept:
                self.store.remove(chunk.id)
        used = self.disk.space("/")[1]
        with closing(self.store.open_reader(kept[0])) as reader:
            self.assertEqual(self.compact(), [])
            self.assertEqual(reader.pread(3000, 0), content(3000))  # of a file that is gone
        self.assertLessEqual(len([name for name in self.names() if "." not in name]), 2)
        self.assertGreater(self.disk.space("/")[1], used + 60_000)
        for store in (self.store, open_store(self.disk, segment_bytes=30_000)[0]):
            for chunk in kept:
                store.verify(chunk)
        self.assertEqual(len(open_store(self.disk, segment_bytes=30_000)[1]), len(kept))

    def test_removals_survive(self) -> None:
        """A removed chunk stays removed when its id is stored anew, or the node is killed."""
        self.fill([1, 2])
        self.store.remove(chunk_id(1))
        put(self.store, 1, b"abc")
        self.store.remove(chunk_id(2))
        self.disk.kill()
        store, found = open_store(self.disk)
        self.assertEqual([(number, one.length) for number, one in found.items()], [(1, 3)])
        store.verify(found[1])

    def test_removed_while_it_moves(self) -> None:
        """A chunk that is removed during its move does not come back."""
        chunks = self.fill([1, 2])
        self.store, _ = open_store(self.disk)
        write = self.store._small._write

        def remove_first(waiting: object) -> list[GridError | None]:
            self.store.remove(chunks[0].id)
            return write(waiting)  # type: ignore[arg-type]  # passed on as it came

        with mock.patch.object(self.store._small, "_write", remove_first):
            self.store.compact(ALL)
        self.assertRaises(NoSuchChunk, self.store.header, chunks[0].id)
        self.compact()
        self.assertEqual(sorted(open_store(self.disk)[1]), [2])

    def test_damage_is_not_moved(self) -> None:
        """A record that rotted is named and stays; once it is put aside, its segment goes."""
        chunks = self.fill([1, 2, 3])
        self.store, _ = open_store(self.disk)
        self.disk.flip_bits(FIRST, self.place(chunks[1]) + 7)
        self.assertEqual(self.compact(), [chunks[1]])
        self.assertGreater(self.place(chunks[1]), 0)
        self.store.quarantine(chunks[1].id, "it rots")
        self.assertEqual(self.compact(), [])
        self.assertFalse(self.disk.exists(FIRST))
        self.store.verify(chunks[0])
        self.store.verify(chunks[2])

    def test_as_a_dictionary(self) -> None:
        """Whatever is done in whatever order, the store holds what a dictionary would."""
        self.small_segments(20_000)
        for seed in range(8):
            rng = random.Random(seed)
            self.disk = SimulatedDisk(random.Random(seed))
            self.store, _ = open_store(self.disk, segment_bytes=20_000)
            model: dict[int, Chunk] = {}
            for _ in range(150):
                number = rng.randrange(1, 30)
                action = rng.random()
                if action < 0.5 and number not in model:
                    model[number] = put(self.store, number, rng.randbytes(rng.randrange(4000)))
                elif action < 0.8 and number in model:
                    del model[number]
                    if action < 0.75:
                        self.store.remove(chunk_id(number))
                    else:
                        self.store.quarantine(chunk_id(number), "by chance")
                elif action < 0.95:
                    self.store.compact(rng.randrange(10_000))
                else:
                    self.disk.kill()
                    self.store, found = open_store(self.disk, segment_bytes=20_000)
                    self.assertEqual(found, model)
            for chunk in model.values():
                self.store.verify(chunk)
