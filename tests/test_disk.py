"""The real disk and the simulated one keep the same contract."""

from __future__ import annotations

import errno
import os
import random
from contextlib import closing
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from filegrid.disk import RealDisk, grid_errors, read_file, replace_file
from filegrid.errors import DiskFailed, NoSpace, NoSuchChunk
from filegrid.runtime import Disk
from filegrid.simulation.disk import SimulatedDisk


class DiskContract(SynchronousTestCase):
    """What every disk does, in the folder `root`."""

    disk: Disk
    root: str

    def write(self, name: str, content: bytes) -> str:
        path = f"{self.root}/{name}"
        with closing(self.disk.create(path)) as file:
            file.pwrite([content], 0)
            file.datasync()
        return path

    def test_write_and_read(self) -> None:
        """Pieces lie one after the other, and a read ends at the end of the file."""
        with closing(self.disk.create(f"{self.root}/a")) as file:
            file.pwrite([b"one", b"", bytearray(b"two"), memoryview(b"three")], 2)
            self.assertEqual(file.pread(100, 0), b"\0\0onetwothree")
            self.assertEqual(file.pread(3, 5), b"two")
            self.assertEqual(file.pread(5, 100), b"")
            self.assertEqual(file.size(), 13)

    def test_many_pieces(self) -> None:
        """More pieces than one system call takes are all written."""
        pieces = [bytes([number % 251]) * 3 for number in range(3000)]
        with closing(self.disk.create(f"{self.root}/a")) as file:
            file.pwrite(pieces, 0)
            file.start_writeback(0, 9000)
            self.assertEqual(file.pread(9000, 0), b"".join(pieces))

    def test_truncate(self) -> None:
        """A file is cut, and grows by zeros."""
        with closing(self.disk.create(f"{self.root}/a")) as file:
            file.pwrite([b"abcdef"], 0)
            file.truncate(2)
            file.truncate(4)
            self.assertEqual(file.pread(10, 0), b"ab\0\0")

    def test_create_refuses_existing(self) -> None:
        """A file is created once."""
        path = self.write("a", b"")
        self.assertRaises(FileExistsError, self.disk.create, path)

    def test_missing(self) -> None:
        """What is missing is a FileNotFoundError for every method."""
        path = f"{self.root}/missing"
        self.assertRaises(FileNotFoundError, self.disk.open, path)
        self.assertRaises(FileNotFoundError, self.disk.remove, path)
        self.assertRaises(FileNotFoundError, self.disk.rename, path, f"{self.root}/b")
        self.assertRaises(FileNotFoundError, self.disk.names, path)
        self.assertRaises(FileNotFoundError, self.disk.create, f"{path}/below")
        self.assertRaises(FileNotFoundError, self.disk.sync_folder, path)
        self.assertFalse(self.disk.exists(path))

    def test_copy_database(self) -> None:
        """A copy of a database is a plain file of one moment, and a database again."""
        with closing(self.disk.database(f"{self.root}/a")) as database:
            database.execute("CREATE TABLE t (x)")
            database.execute("INSERT INTO t VALUES (1)")
            self.disk.copy_database(database, f"{self.root}/b")
            database.execute("INSERT INTO t VALUES (2)")
            self.assertRaises(FileExistsError, self.disk.copy_database, database, f"{self.root}/b")
        content = read_file(self.disk, f"{self.root}/b")
        self.assertTrue(content.startswith(b"SQLite format 3"))
        self.assertEqual([one for one in self.disk.names(self.root) if one[0] == "b"], ["b"])
        self.write("c", content)
        with closing(self.disk.database(f"{self.root}/c")) as database:
            self.assertEqual(database.execute("SELECT x FROM t").fetchall(), [(1,)])

    def test_read_only(self) -> None:
        """A file opened to read is not written."""
        path = self.write("a", b"kept")
        with closing(self.disk.open(path)) as file:
            self.assertRaises(OSError, file.pwrite, [b"lost"], 0)
            self.assertEqual(file.pread(10, 0), b"kept")
        with closing(self.disk.open(path, writable=True)) as file:
            file.pwrite([b"K"], 0)
            self.assertEqual(file.pread(10, 0), b"Kept")

    def test_closed(self) -> None:
        """A closed file refuses everything but to be closed again."""
        file = self.disk.create(f"{self.root}/a")
        file.close()
        file.close()
        self.assertRaises(OSError, file.pread, 1, 0)
        self.assertRaises(OSError, file.pwrite, [b"x"], 0)
        self.assertRaises(OSError, file.datasync)

    def test_rename_replaces(self) -> None:
        """A rename takes the place of what has the name, in another folder too."""
        self.disk.make_folders(f"{self.root}/deep/er")
        source, target = self.write("a", b"new"), self.write("deep/er/b", b"old")
        self.disk.rename(source, target)
        self.assertEqual(read_file(self.disk, target), b"new")
        self.assertEqual(self.disk.names(self.root), ["deep"])

    def test_removed_file_stays_open(self) -> None:
        """Who has a removed file open still reads it."""
        path = self.write("a", b"still here")
        with closing(self.disk.open(path)) as file:
            self.disk.remove(path)
            self.assertFalse(self.disk.exists(path))
            self.assertEqual(file.pread(100, 0), b"still here")

    def test_names(self) -> None:
        """A folder lists files and folders, sorted."""
        self.write("b", b"")
        self.write("a", b"")
        self.disk.make_folders(f"{self.root}/c")
        self.disk.make_folders(f"{self.root}/c")
        self.disk.sync_folder(self.root)
        self.assertEqual(self.disk.names(self.root), ["a", "b", "c"])

    def test_folder_over_file(self) -> None:
        """No folder is made where a file is."""
        path = self.write("a", b"")
        self.assertRaises(FileExistsError, self.disk.make_folders, path)
        self.assertRaises(NotADirectoryError, self.disk.names, path)

    def test_space(self) -> None:
        """There is no more free than there is."""
        capacity, free = self.disk.space(self.root)
        self.assertTrue(0 < free <= capacity)

    def test_lock(self) -> None:
        """A lock is held once, until it is closed."""
        path = f"{self.root}/lock"
        held = self.disk.lock(path)
        self.assertRaises(BlockingIOError, self.disk.lock, path)
        held.close()
        self.disk.lock(path).close()

    def test_database(self) -> None:
        """A database outlives its connection, with what was committed."""
        with closing(self.disk.database(f"{self.root}/db")) as first:
            first.execute("CREATE TABLE t (x)")
            first.execute("INSERT INTO t VALUES (1)")
            first.execute("BEGIN")
            first.execute("INSERT INTO t VALUES (2)")
        with closing(self.disk.database(f"{self.root}/db")) as second:
            self.assertEqual(second.execute("SELECT x FROM t").fetchall(), [(1,)])
        self.assertTrue(self.disk.exists(f"{self.root}/db"))

    def test_replace_file(self) -> None:
        """A small file is replaced, also where an earlier try was cut short."""
        path = f"{self.root}/a"
        self.write("a.tmp", b"garbage of a crash, and long")
        replace_file(self.disk, path, b"one")
        replace_file(self.disk, path, b"two")
        self.assertEqual(read_file(self.disk, path), b"two")
        self.assertEqual(self.disk.names(self.root), ["a"])


class RealDiskTests(DiskContract):
    """The file system of the machine."""

    def setUp(self) -> None:
        self.disk = RealDisk()
        self.root = str(Path(self.mktemp()).absolute())
        self.disk.make_folders(self.root)

    def test_nobody_waited(self) -> None:
        """A file that nobody has any more is closed."""
        self.write("a", b"1")
        file = self.disk.open(f"{self.root}/a")
        fd = file.fileno()  # type: ignore[attr-defined]  # the real one's
        os.fstat(fd)
        del file
        self.assertRaises(OSError, os.fstat, fd)

    def test_short_writes(self) -> None:
        """What the system wrote only in part is gone on with."""
        real = os.pwritev

        def short(fd: int, views: list[memoryview], offset: int) -> int:
            return real(fd, [b"".join(views)[:5]], offset)

        with closing(self.disk.create(f"{self.root}/a")) as file:
            with mock.patch.object(os, "pwritev", short):
                file.pwrite([b"abc", b"defghijklm", b"n"], 1)
            self.assertEqual(file.pread(100, 0), b"\0abcdefghijklmn")

    def test_short_reads(self) -> None:
        """What the system read only in part is gone on with."""
        real = os.pread
        path = self.write("a", b"abcdefgh")
        with (
            closing(self.disk.open(path)) as file,
            mock.patch.object(
                os, "pread", lambda fd, length, offset: real(fd, min(3, length), offset)
            ),
        ):
            self.assertEqual(file.pread(7, 0), b"abcdefg")
            self.assertEqual(file.pread(100, 1), b"bcdefgh")


class SimulatedDiskTests(DiskContract):
    """The twin in memory."""

    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.root = "/data"
        self.disk.make_folders(self.root)


del DiskContract  # so that trial runs it only where there is a disk


class GridErrorsTests(SynchronousTestCase):
    """What an OSError becomes."""

    def test_mapping(self) -> None:
        """A full disk is NoSpace, every other failure DiskFailed; each names its subject."""
        for code, kind, words in (
            (errno.ENOSPC, NoSpace, "full"),
            (errno.EDQUOT, NoSpace, "full"),
            (errno.EROFS, DiskFailed, "Read-only"),
            (errno.EIO, DiskFailed, "replace the disk"),
            (errno.ENODEV, DiskFailed, "No such device"),
        ):
            with self.assertRaises(kind) as caught, grid_errors("/the/path"):
                raise OSError(code, "")
            self.assertIn(words, str(caught.exception))
            self.assertIn("/the/path", str(caught.exception))

    def test_ours_pass(self) -> None:
        """Errors of the grid pass as they are."""
        for error in (NoSpace("x"), NoSuchChunk("x")):
            with self.assertRaises(type(error)) as caught, grid_errors("/the/path"):
                raise error
            self.assertIs(caught.exception, error)
