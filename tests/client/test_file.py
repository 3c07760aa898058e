"""Files of the blocking face behave as Python's raw files do."""

from __future__ import annotations

import gc
import io
import shutil
import warnings

from filegrid.errors import AlreadyExists, IsAFolder, NoSuchPath, Unavailable
from tests.client.blocking import BlockingCase
from tests.grid.case import CHUNK, content


class Reading(BlockingCase):
    def setUp(self) -> None:
        super().setUp()
        self.data = content(3 * CHUNK + 99)
        self.put("/f", self.data)

    def test_seek_and_read(self) -> None:
        """Reading goes on where it stopped or was sent, and ends with the file."""
        with self.blocking.open("/f", "rb") as file:
            self.assertEqual(file.seek(10), 10)
            self.assertEqual(file.read(4), self.data[10:14])
            self.assertEqual(file.tell(), 14)
            self.assertEqual(file.read(CHUNK), self.data[14 : CHUNK + 14])
            file.seek(-3, io.SEEK_END)
            self.assertEqual((file.read(100), file.read(100)), (self.data[-3:], b""))
            file.seek(5)
            file.seek(5, io.SEEK_CUR)
            self.assertEqual(file.read(1), self.data[10:11])
            file.seek(10 * CHUNK)
            self.assertEqual((file.read(), file.peek()), (b"", b""))
            with self.assertRaises(ValueError):
                file.seek(-1)
            with self.assertRaises(ValueError):
                file.seek(0, 9)

    def test_small_steps(self) -> None:
        """Small reads in a row give the whole file, with few requests."""
        runs = 0
        run = self.runner.run

        def counted(work):  # type: ignore[no-untyped-def]
            nonlocal runs
            runs += 1
            return run(work)

        self.patch(self.runner, "run", counted)
        with self.blocking.open("/f") as file:
            got = b"".join(iter(lambda: file.read(777), b""))
        self.assertEqual(got, self.data)
        self.assertLess(runs, 8)

    def test_other_ways(self) -> None:
        """readinto, lines, copying and buffering work as with any raw file."""
        with self.blocking.open("/f") as file:
            buffer = bytearray(1000)
            self.assertEqual(file.readinto(buffer), 1000)
            self.assertEqual(bytes(buffer), self.data[:1000])
            copy = io.BytesIO()
            file.seek(0)
            shutil.copyfileobj(file, copy)
            self.assertEqual(copy.getvalue(), self.data)
            file.seek(0)
            self.assertEqual(b"".join(file.readlines()), self.data)
        with io.BufferedReader(self.blocking.open("/f")) as buffered:
            self.assertEqual(buffered.read(), self.data)

    def test_one_way(self) -> None:
        """What a file was not opened for is refused as Python's own files do."""
        with self.blocking.open("/f") as reader, self.assertRaises(io.UnsupportedOperation):
            reader.write(b"x")
        with self.blocking.open("/g", "wb") as writer, self.assertRaises(io.UnsupportedOperation):
            writer.read(1)

    def test_closed(self) -> None:
        """A closed file is closed, however often that is said."""
        file = self.blocking.open("/f")
        self.assertTrue(file.readable() and file.seekable() and not file.writable())
        file.close()
        file.close()
        for use in (file.read, file.tell, lambda: file.seek(0)):
            self.assertRaises(ValueError, use)

    def test_missing(self) -> None:
        """What is no file cannot be opened, and a mode that is none is named."""
        self.run_(self.client.mkdir("/d"))
        self.assertRaises(FileNotFoundError, self.blocking.open, "/missing")
        self.assertRaises(IsAFolder, self.blocking.open, "/d")
        self.assertRaises(ValueError, self.blocking.open, "/f", "r+")


class Writing(BlockingCase):
    def test_published_on_close(self) -> None:
        """What is written appears when the file is closed, whole, and not before."""
        data = content(3 * CHUNK)
        with self.blocking.open("/f", "wb") as file:
            for start in range(0, len(data), 10_000):
                self.assertEqual(
                    file.write(data[start : start + 10_000]), len(data[start:][:10_000])
                )
            self.assertEqual(file.tell(), len(data))
            self.assertRaises(NoSuchPath, self.blocking.stat, "/f")
        self.assertEqual(self.read("/f"), data)
        assert file.published is not None
        self.assertEqual(file.published.size, len(data))
        file.close()

    def test_modes(self) -> None:
        """wb replaces, xb refuses, ab goes on at the end or begins."""
        for mode, expected in (("wb", b"1"), ("wb", b"2"), ("ab", b"23")):
            with self.blocking.open("/f", mode) as file:  # type: ignore[call-overload]
                file.write(expected[-1:])
            self.assertEqual(self.read("/f"), expected)
        self.assertRaises(AlreadyExists, self.blocking.open, "/f", "xb")
        with self.blocking.open("/new", "ab") as file:
            file.write(b"begun")
        with self.blocking.open("/new", "ab") as file:
            self.assertEqual(file.tell(), 5)
        with self.blocking.open("/x", "xb", replication=2) as file:
            pass
        self.assertEqual((self.read("/new"), self.read("/x")), (b"begun", b""))

    def test_exception(self) -> None:
        """Where the with block fails, the old file stays."""
        self.put("/f", b"old")
        with self.assertRaises(KeyError), self.blocking.open("/f", "wb") as file:
            file.write(content(2 * CHUNK))
            raise KeyError
        self.assertEqual(self.read("/f"), b"old")
        self.assertRaises(ValueError, file.write, b"more")

    def test_forgotten(self) -> None:
        """A file that is forgotten without being closed is not published, and told of."""
        file = self.blocking.open("/f", "wb")
        file.write(content(2 * CHUNK))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del file
            gc.collect()
        # The collector may come upon what earlier tests left, too.
        told = [one for one in caught if "/f" in str(one.message)]
        self.assertEqual([one.category for one in told], [ResourceWarning])
        self.grid.advance(1)
        self.assertRaises(NoSuchPath, self.blocking.stat, "/f")

    def test_failed_write(self) -> None:
        """After a write that failed the file cannot be published any more, and close says why."""
        client = self.new_client("client-2", timeout_seconds=3)
        self.blocking.client = client
        file = self.blocking.open("/f", "wb")
        for machine in self.grid.chunk_servers:
            machine.kill()
        with self.assertRaises(Unavailable):
            for seed in range(20):
                file.write(content(4 * CHUNK, seed))
        self.assertRaises(Unavailable, file.close)
        self.assertTrue(file.closed)
        self.run_(client.close())


class Verbs(BlockingCase):
    def test_all(self) -> None:
        """The verbs of the blocking face do what those of the asynchronous client do."""
        grid = self.blocking
        grid.put(io.BytesIO(b"stream"), "/s")
        self.assertRaises(AlreadyExists, grid.put, io.BytesIO(b"again"), "/s")
        self.assertEqual(grid.put(io.BytesIO(b"again"), "/s", overwrite=True).size, 5)
        target = io.BytesIO()
        self.assertEqual(grid.get("/s", target).size, 5)
        self.assertEqual(target.getvalue(), b"again")
        grid.write_bytes("/k", b"value", overwrite=True)
        self.assertEqual(grid.read_bytes("/k", offset=1, length=3), b"alu")
        self.assertEqual(grid.append("/k", b"!").size, 6)
        self.assertEqual(b"".join(grid.stream("/k", 4)), b"e!")
        grid.mkdir("/d/e", parents=True)
        grid.rename("/k", "/d/k")
        self.assertEqual([one.path for one in grid.listdir("/")], ["/d", "/s"])
        self.assertEqual([one.path for one in grid.walk("/")], ["/d", "/s", "/d/e", "/d/k"])
        grid.remove("/d", recursive=True)
        local = self.mktemp()
        grid.get("/s", local)
        self.assertEqual(grid.put(local, "/t").digest, grid.stat("/s").digest)
        self.assertEqual(grid.status()["files"], 2)
