"""The simulated disk loses, tears and fails as disks do."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from filegrid.disk import read_file, replace_file
from filegrid.simulation.disk import SimulatedDisk


class CrashTests(SynchronousTestCase):
    """What a crash takes and what it leaves, over many seeds."""

    def outcomes(self, prepare: Callable[[SimulatedDisk], object]) -> set[bytes | None]:
        """What ``/d/a`` holds after a crash; None where it is gone."""
        found: set[bytes | None] = set()
        for seed in range(200):
            disk = SimulatedDisk(random.Random(seed))
            disk.make_folders("/d")
            prepare(disk)
            disk.crash()
            found.add(read_file(disk, "/d/a") if disk.exists("/d/a") else None)
        return found

    def test_synced(self) -> None:
        """Synced contents under a synced name are always there."""
        self.assertEqual(self.outcomes(lambda disk: replace_file(disk, "/d/a", b"x")), {b"x"})

    def test_name_not_synced(self) -> None:
        """A file whose folder was not synced is there or not."""

        def prepare(disk: SimulatedDisk) -> None:
            file = disk.create("/d/a")
            file.pwrite([b"x"], 0)
            file.datasync()

        self.assertEqual(self.outcomes(prepare), {b"x", None})

    def test_contents_not_synced(self) -> None:
        """Writes after the last sync are kept, lost, or kept up to a sector."""

        def prepare(disk: SimulatedDisk) -> None:
            replace_file(disk, "/d/a", b"a" * 600)
            disk.open("/d/a", writable=True).pwrite([b"b" * 1500], 100)

        new = b"a" * 100 + b"b" * 1500
        self.assertEqual(
            self.outcomes(prepare), {b"a" * 600, new[:512] + b"a" * 88, new[:1024], new[:1536], new}
        )

    def test_truncation_not_synced(self) -> None:
        """A truncation after the last sync is taken back or not."""

        def prepare(disk: SimulatedDisk) -> None:
            replace_file(disk, "/d/a", b"abcdef")
            disk.open("/d/a", writable=True).truncate(2)

        self.assertEqual(self.outcomes(prepare), {b"abcdef", b"ab"})

    def test_replacement(self) -> None:
        """A replacement that was cut anywhere leaves the old contents or the new ones."""
        found = set()
        for seed in range(20):
            for operations in range(8):
                disk = SimulatedDisk(random.Random(seed))
                disk.make_folders("/d")
                replace_file(disk, "/d/a", b"old")
                disk.cut_power_after(operations)
                try:
                    replace_file(disk, "/d/a", b"new")
                except OSError:
                    done = False
                else:
                    done = True
                disk.crash()
                found.add((done, read_file(disk, "/d/a")))
        self.assertEqual(found, {(False, b"old"), (False, b"new"), (True, b"new")})

    def test_names_in_order(self) -> None:
        """Of the changes in a folder a crash keeps the first, without gaps."""
        found = set()
        for seed in range(300):
            disk = SimulatedDisk(random.Random(seed))
            for name in "abc":
                disk.create(f"/{name}")
            disk.crash()
            found.add("".join(disk.names("/")))
        self.assertEqual(found, {"", "a", "ab", "abc"})

    def test_rename_across_folders(self) -> None:
        """A file renamed into another folder is in one of them, never in both or none."""
        found = set()
        for seed in range(100):
            disk = SimulatedDisk(random.Random(seed))
            disk.make_folders("/d")
            replace_file(disk, "/a", b"x")
            disk.rename("/a", "/d/a")
            disk.crash()
            found.add((disk.exists("/a"), disk.exists("/d/a")))
        self.assertEqual(found, {(True, False), (False, True)})

    def test_old_run_is_over(self) -> None:
        """Files, locks and transactions end with a crash and with a kill."""
        for end in (SimulatedDisk.crash, SimulatedDisk.kill):
            disk = SimulatedDisk(random.Random(1))
            file = disk.create("/a")
            disk.lock("/lock")
            database = disk.database("/db")
            database.execute("CREATE TABLE t (x)")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute("BEGIN")
            database.execute("INSERT INTO t VALUES (1)")
            end(disk)
            self.assertRaises(OSError, file.pwrite, [b"x"], 0)
            disk.lock("/lock").close()
            self.assertEqual(disk.database("/db").execute("SELECT * FROM t").fetchall(), [])

    def test_database(self) -> None:
        """A crash takes whole commits of a database, the last first, and none that was synced."""
        found = set()
        for seed in range(100):
            disk = SimulatedDisk(random.Random(seed))
            database = disk.database("/db")
            database.execute("CREATE TABLE t (x)")
            for number in range(100):
                database.execute("BEGIN")
                database.execute("INSERT INTO t VALUES (?), (?)", (number, number))
                database.execute("COMMIT")
                if number == 9:
                    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            disk.crash()
            (count,) = disk.database("/db").execute("SELECT count(*) FROM t").fetchone()
            self.assertEqual(count % 2, 0)
            found.add(count // 2)
        self.assertEqual((min(found), max(found)), (10, 100))
        self.assertGreater(len(found), 10)

    def test_database_synced(self) -> None:
        """Whoever asks for each commit to be synced loses none."""
        for seed in range(10):
            disk = SimulatedDisk(random.Random(seed))
            database = disk.database("/db")
            database.execute("CREATE TABLE t (x)")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN")
            database.execute("INSERT INTO t VALUES (1)")
            database.execute("COMMIT")
            disk.crash()
            self.assertEqual(len(disk.database("/db").execute("SELECT * FROM t").fetchall()), 1)

    def test_kill_loses_nothing(self) -> None:
        """What a killed process wrote is there for the next one, synced or not."""
        disk = SimulatedDisk(random.Random(1))
        disk.create("/a").pwrite([b"x"], 0)
        disk.kill()
        self.assertEqual(read_file(disk, "/a"), b"x")

    def test_same_seed(self) -> None:
        """The same seed gives the same crash."""

        def run(seed: int) -> list[tuple[str, bytes]]:
            disk = SimulatedDisk(random.Random(seed))
            for name in "abcdef":
                disk.create(f"/{name}").pwrite([name.encode() * 5000], 0)
            disk.crash()
            return [(name, read_file(disk, f"/{name}")) for name in disk.names("/")]

        self.assertEqual([run(seed) for seed in range(20)], [run(seed) for seed in range(20)])


class FaultTests(SynchronousTestCase):
    """Faults that are switched on."""

    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1), capacity_bytes=1000)

    def test_full(self) -> None:
        """A full disk refuses bytes, and takes them again once something was removed."""
        first, second = self.disk.create("/a"), self.disk.create("/b")
        first.pwrite([bytes(900)], 0)
        self.assertEqual(self.disk.space("/"), (1000, 100))
        refused = self.assertRaises(OSError, second.pwrite, [bytes(101)], 0)
        self.assertEqual(refused.errno, errno.ENOSPC)
        first.pwrite([b"over"], 0)
        self.disk.remove("/a")
        second.pwrite([bytes(1000)], 0)
        self.assertEqual(self.disk.space("/"), (1000, 0))

    def test_fail_next(self) -> None:
        """A failure that was ordered comes once."""
        self.disk.fail_next("create", errno.EROFS)
        refused = self.assertRaises(OSError, self.disk.create, "/a")
        self.assertEqual(refused.errno, errno.EROFS)
        self.disk.create("/a")

    def test_failed_sync_loses_contents(self) -> None:
        """A datasync that failed lost what it was to save, and the next one does not say so."""
        file = self.disk.create("/a")
        file.pwrite([b"kept"], 0)
        file.datasync()
        file.pwrite([b"lost"], 0)
        self.disk.fail_next("datasync", errno.EIO)
        self.assertRaises(OSError, file.datasync)
        file.datasync()
        self.assertEqual(file.pread(10, 0), b"kept")

    def test_bad_reads_and_bits(self) -> None:
        """A byte changes unnoticed; a worn-out file does not read."""
        replace_file(self.disk, "/a", b"abc")
        self.disk.flip_bits("/a", 1)
        self.assertEqual(read_file(self.disk, "/a"), b"acc")
        self.disk.fail_reads("/a")
        self.assertRaises(OSError, read_file, self.disk, "/a")

    def test_wipe(self) -> None:
        """Nothing is left on a wiped disk."""
        replace_file(self.disk, "/a", b"abc")
        self.disk.wipe()
        self.assertEqual(self.disk.names("/"), [])
        self.assertEqual(self.disk.space("/"), (1000, 1000))
