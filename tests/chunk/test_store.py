"""The chunk store, over both disks, and through crashes and faults."""

from __future__ import annotations

import errno
import random
from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from filegrid.chunk.format import HEADER_BYTES, digests_offset, file_bytes
from filegrid.chunk.store import Store
from filegrid.disk import RealDisk
from filegrid.errors import (
    DiskFailed,
    GridError,
    IntegrityError,
    InvalidRequest,
    NoSpace,
)
from filegrid.simulation.disk import SimulatedDisk
from tests.chunk.contract import FOLDER, NONE_SMALL, ORIGIN, StoreContract, chunk_id, content, put


class LargeChunks(StoreContract):
    """Chunks that have files of their own."""

    small_bytes = NONE_SMALL
    chunk_file = "chunks/ab/000100000000000700000000000000ab"

    def test_temporaries_go(self) -> None:
        """What was being written when the last run ended is gone after the next start."""
        store, _ = self.load()
        store.begin(chunk_id(1), ORIGIN, 10).write([b"abc"])
        self.assertEqual(len(self.disk.names(f"{self.folder}/tmp")), 1)
        self.assertEqual(self.load()[1], [])
        self.assertEqual(self.disk.names(f"{self.folder}/tmp"), [])

    def test_foreign_files_stay(self) -> None:
        """Files that are not chunks are left alone."""
        store, _ = self.load()
        put(store, 0xAB, b"abc")
        names = [f"{self.folder}/chunks/{name}" for name in ("notes", "ab/notes", f"ab/{'0' * 32}")]
        for name in names:
            self.disk.create(name).close()
        self.assertEqual(len(self.load()[1]), 1)
        self.assertTrue(all(self.disk.exists(name) for name in names))


class RealDiskStoreTests(LargeChunks):
    """On the file system of the machine."""

    def setUp(self) -> None:
        self.disk = RealDisk()
        self.folder = str(Path(self.mktemp()).absolute())


class SimulatedDiskStoreTests(LargeChunks):
    """On the twin in memory."""

    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.folder = FOLDER


del StoreContract, LargeChunks  # so that trial runs it only where there is a disk


class CrashTests(SynchronousTestCase):
    """A crash at every step of a write."""

    def crash_after(self, operations: int, seed: int) -> bool:
        """Lose the power so many operations into a write; whether the seal had returned."""
        disk = SimulatedDisk(random.Random(seed))
        store = Store(disk, FOLDER, grid_id="g", reserve_bytes=0, small_bytes=NONE_SMALL)
        store.load()
        data = content(3000)
        disk.cut_power_after(operations)
        try:
            sealed = put(store, 1, data)
        except DiskFailed:
            sealed = None
        disk.crash()
        store = Store(disk, FOLDER, grid_id="g", reserve_bytes=0, small_bytes=NONE_SMALL)
        found = store.load()
        self.assertEqual(store.damaged, [])
        if sealed is not None:
            self.assertEqual(found, [sealed])
        for chunk in found:
            store.verify(chunk)
            self.assertEqual(store.read(chunk, 0, 3000), data)
        self.assertEqual(disk.names(f"{FOLDER}/tmp"), [])
        return sealed is not None

    def test_every_step(self) -> None:
        """A chunk is whole or absent after a crash, and there once its seal has returned (S16)."""
        operations = 0
        while True:
            sealed = [self.crash_after(operations, seed) for seed in range(25)]
            if all(sealed):
                break
            self.assertFalse(any(sealed))
            operations += 1
        self.assertGreater(operations, 8)


class FaultTests(SynchronousTestCase):
    """Disks that fill up, fail and rot."""

    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.store = Store(
            self.disk, FOLDER, grid_id="g", reserve_bytes=1000, small_bytes=NONE_SMALL
        )
        self.store.load()
        self.path = f"{FOLDER}/{self.store.locate(chunk_id(1))[0]}"

    def test_reserve(self) -> None:
        """Space is promised to writers once, and never the reserve."""
        self.disk.capacity_bytes = 2 * file_bytes(5000) + HEADER_BYTES + 1000
        first = self.store.begin(chunk_id(1), ORIGIN, 5000)
        free = file_bytes(5000) + HEADER_BYTES
        self.assertEqual(self.store.space(), (self.disk.capacity_bytes, free))
        first.write([bytes(2000)])
        self.store.begin(chunk_id(2), ORIGIN, 5000)
        self.assertRaises(NoSpace, self.store.begin, chunk_id(3), ORIGIN, 1)
        first.discard()
        self.store.begin(chunk_id(3), ORIGIN, 5000)

    def test_full(self) -> None:
        """A chunk for which the disk has no room after all is dropped with all its bytes."""
        writer = self.store.begin(chunk_id(1), ORIGIN, 5000)
        self.disk.capacity_bytes = 4000
        self.assertRaises(NoSpace, writer.write, [bytes(5000)])
        self.assertEqual(self.disk.names(f"{FOLDER}/tmp"), [])
        self.assertEqual(self.disk.space("/")[1], 4000)

    def test_failing_operations(self) -> None:
        """Whatever fails on the way, the chunk is dropped, and a new try is free (S16)."""
        for operation, code, kind, words in (
            ("create", errno.EROFS, DiskFailed, "Read-only"),
            ("pwrite", errno.ENOSPC, NoSpace, "full"),
            ("pwrite", errno.EIO, DiskFailed, "failed"),
            ("datasync", errno.EIO, DiskFailed, "failed"),
            ("datasync", errno.ENOSPC, NoSpace, "full"),
            ("make_folders", errno.EIO, DiskFailed, "failed"),
            ("rename", errno.EROFS, DiskFailed, "Read-only"),
            ("sync_folder", errno.EIO, DiskFailed, "failed"),
        ):
            self.disk.fail_next(operation, code)
            refused: GridError = self.assertRaises(kind, put, self.store, 1, b"abc")
            self.assertIn(words, str(refused))
            self.assertIn(chunk_id(1).hex(), str(refused))
            self.assertEqual(self.disk.names(f"{FOLDER}/tmp"), [])
            self.assertFalse(self.disk.exists(self.path))
        put(self.store, 1, b"abc")

    def test_removing_fails(self) -> None:
        """What a failing disk does not let go is in the way until it does, and then no more."""
        removed, damaged = put(self.store, 1, b"abc"), put(self.store, 2, b"abc")
        for operation in ("remove", "rename"):
            self.disk.fail_next(operation, errno.EROFS, times=2)
        self.store.remove(removed.id)
        self.store.quarantine(damaged.id, "it rots")
        self.store.tidy()
        for number in (1, 2):
            self.assertRaises(InvalidRequest, put, self.store, number, b"abcd")
        self.store.tidy()
        for number in (1, 2):
            put(self.store, number, b"abcd")
        self.store.tidy()
        self.assertEqual(len(self.store.ids()), 2)
        self.assertEqual(self.disk.names(f"{FOLDER}/quarantine"), [damaged.id.hex()])

    def test_gone_after_all(self) -> None:
        """What was reported as failed and was done all the same does not harm what follows it."""
        damaged = put(self.store, 1, b"abc")
        self.disk.fail_next("sync_folder", errno.EIO)
        self.store.quarantine(damaged.id, "it rots")
        put(self.store, 1, b"abcd")
        self.store.tidy()
        self.assertEqual(self.store.ids(), [damaged.id])

    def test_swept(self) -> None:
        """A file that a writer could not remove goes later; those being written stay."""
        going = self.store.begin(chunk_id(1), ORIGIN, 3)
        staying = self.store.begin(chunk_id(2), ORIGIN, 3)
        self.disk.fail_next("remove", errno.EROFS)
        going.discard()
        self.assertEqual(len(self.disk.names(f"{FOLDER}/tmp")), 2)
        self.store.tidy()
        self.assertEqual(self.disk.names(f"{FOLDER}/tmp"), [chunk_id(2).hex()])
        staying.write([b"abc"])
        staying.hash(b"abc")
        staying.seal()

    def test_flipped_bits(self) -> None:
        """One flipped bit in the header, the bytes or the digests is found."""
        chunk = put(self.store, 1, content(150_000))
        for offset in (
            0,
            20,
            100,
            HEADER_BYTES - 1,
            HEADER_BYTES,
            HEADER_BYTES + 149_999,
            digests_offset(150_000),
            file_bytes(150_000) - 1,
        ):
            self.disk.flip_bits(self.path, offset)
            self.assertRaises(IntegrityError, self.store.verify, chunk)
            self.disk.flip_bits(self.path, offset)
        self.store.verify(chunk)

    def test_damaged_at_start(self) -> None:
        """A chunk with a damaged header or another length is quarantined at the next start."""
        for number in range(1, 7):
            put(self.store, number, b"abc")
        paths = [f"{FOLDER}/{self.store.locate(chunk_id(number))[0]}" for number in range(7)]
        self.disk.flip_bits(paths[1], 40)
        self.disk.open(paths[2], writable=True).truncate(HEADER_BYTES + 3)
        self.disk.open(paths[3], writable=True).truncate(0)
        self.disk.fail_reads(paths[4])
        self.disk.rename(paths[6], paths[5])
        with capturedLogs() as events:
            self.assertEqual(self.store.load(), [])
        self.assertEqual(self.store.damaged, [chunk_id(number) for number in range(1, 6)])
        kept = [chunk_id(number).hex() for number in range(1, 6)]
        self.assertEqual(self.disk.names(f"{FOLDER}/quarantine"), kept)
        self.assertEqual([event["chunk"] for event in events if "chunk" in event], kept)

    def test_chunk_of_another_grid(self) -> None:
        """A chunk of another grid is not taken for one of ours."""
        put(self.store, 1, b"abc")
        other = Store(self.disk, FOLDER, grid_id="other", small_bytes=NONE_SMALL)
        self.assertEqual(other.load(), [])
        self.assertEqual(other.damaged, [chunk_id(1)])

    def test_reading_fails(self) -> None:
        """A read that fails says so; a worn-out sector is damage, a missing disk is not."""
        chunk = put(self.store, 1, content(3000))
        reader = self.store.open_reader(chunk)
        self.disk.fail_next("pread", errno.ESTALE)
        self.assertRaises(DiskFailed, reader.pread, 100, 0)
        self.disk.fail_reads(self.path)
        self.assertRaises(IntegrityError, reader.pread, 100, 0)
        self.assertRaises(IntegrityError, self.store.verify, chunk)
        self.disk.wipe()
        refused = self.assertRaises(DiskFailed, self.store.read, chunk, 0, 1)
        self.assertIn("mounted", str(refused))  # a missing disk, not a lost chunk (S20)

    def test_truncated(self) -> None:
        """Bytes that are missing at the end are damage, not a short answer."""
        chunk = put(self.store, 1, content(3000))
        self.disk.open(self.path, writable=True).truncate(HEADER_BYTES + 2000)
        self.assertRaises(IntegrityError, self.store.read, chunk, 1500, 1000)
        self.assertRaises(IntegrityError, self.store.block_digests, chunk)
        self.assertRaises(IntegrityError, self.store.verify, chunk)
