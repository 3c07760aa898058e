"""Uploads: nothing half, nothing twice, nothing from a source that changed."""

from __future__ import annotations

import io
import os
from pathlib import Path

from filegrid.client import upload
from filegrid.client.ingest import LARGE_BYTES
from filegrid.errors import (
    AlreadyExists,
    DiskFailed,
    InvalidRequest,
    IsAFolder,
    NoSuchPath,
    SourceChanged,
    VersionConflict,
)
from filegrid.simulation.grid import Machine
from tests.grid.case import CHUNK, GridCase, content


class Sources(GridCase):
    def local(self, data: bytes) -> Path:
        path = Path(self.mktemp())
        path.write_bytes(data)
        return path

    def test_local_files(self) -> None:
        """Local files of every size come back, and are told of as they go."""
        for size in (0, 100, CHUNK, 4 * CHUNK + 1):
            moved: list[int] = []
            data = content(size, seed=size)
            path = f"/f{size}"
            stat = self.run_(self.client.put(self.local(data), path, moved=moved.append))
            self.assertEqual((stat.size, sum(moved)), (size, size))
            self.assertEqual(self.read(path), data)

    def test_changed_meanwhile(self) -> None:
        """A local file that changes while it is uploaded is not published."""
        local = self.local(content(12 * CHUNK))
        putting = self.begin(self.client.put(local, "/f"))
        self.grid.advance(0.01)
        with open(local, "r+b") as file:
            file.write(b"changed")
        os.utime(local, ns=(1, 1))
        with self.assertRaises(SourceChanged) as raised:
            self.grid.wait(putting)
        self.assertIn(str(local), str(raised.exception))
        with self.assertRaises(NoSuchPath):
            self.read("/f")

    def test_stream_that_fails(self) -> None:
        """Where a stream cannot be read to its end, nothing is published."""

        class Failing(io.RawIOBase):
            def __init__(self) -> None:
                self.left = 3

            def read(self, size: int | None = -1) -> bytes:
                self.left -= 1
                if not self.left:
                    raise OSError(5, "Input/output error")
                return bytes(CHUNK)

        with self.assertRaises(DiskFailed):
            self.run_(self.client.put(Failing(), "/f"))  # type: ignore[arg-type]
        with self.assertRaises(NoSuchPath):
            self.read("/f")

    def test_text_is_refused(self) -> None:
        """A text file object is a mistake of the program, and named as one."""
        with self.assertRaises(TypeError):
            self.run_(self.client.put(io.StringIO("text"), "/f"))  # type: ignore[arg-type]

    def test_bytes_of_other_shapes(self) -> None:
        """Whatever has a buffer can be written."""
        self.run_(self.client.write_bytes("/a", bytearray(b"abc")))
        self.run_(self.client.write_bytes("/b", memoryview(b"abcdef")[::1].cast("H")))
        self.assertEqual((self.read("/a"), self.read("/b")), (b"abc", b"abcdef"))


class Refusals(GridCase):
    def test_early(self) -> None:
        """What would be refused at the end is refused before a large file's bytes are sent."""
        self.put("/f", b"old")
        self.run_(self.client.mkdir("/d"))
        large = bytes(LARGE_BYTES + 1)
        for path, overwrite, error in (
            ("/f", False, AlreadyExists),
            ("/d", True, IsAFolder),
            ("/missing/f", True, NoSuchPath),
        ):
            with self.assertRaises(error):
                self.put(path, large, overwrite=overwrite)
        self.assertEqual(len(self.all_stored()), 1)

    def test_replication(self) -> None:
        """Less than one replica is no file, and more than 16 are refused before bytes are sent."""
        for replication in (0, -1, 17):
            with self.assertRaises(InvalidRequest):
                self.put("/f", b"x", replication=replication)

    def test_appended_by_somebody_else(self) -> None:
        """An append to a version that is not the last any more is refused; nothing is lost."""
        self.put("/f", b"one")
        writer = self.run_(self.client.open_append("/f"))
        self.run_(writer.write(b" and three"))
        self.run_(self.client.append("/f", b" and two"))
        with self.assertRaises(VersionConflict):
            self.run_(writer.publish())
        self.run_(writer.abort())
        self.assertEqual(self.read("/f"), b"one and two")


class Manifests(GridCase):
    def test_staged(self) -> None:
        """A manifest of several pages is published as one; so is what is appended to it."""
        self.patch(upload, "MANIFEST_PAGE", 3)
        data = content(10 * CHUNK + 5)
        self.put("/f", data)
        self.assertEqual(self.read("/f"), data)
        self.run_(self.client.append("/f", data))
        self.assertEqual(self.read("/f"), data + data)

    def test_new_id_for_every_try(self) -> None:
        """Chunks of tries that failed are no part of the file, and no id is used twice (S15)."""
        self.grid.machine("chunk-1").disk.fail_next("datasync", 5, times=100)
        self.grid.machine("chunk-2").disk.fail_next("datasync", 5, times=100)
        self.grid.machine("chunk-3").disk.fail_next("datasync", 5, times=100)
        data = content(5 * CHUNK)
        self.put("/f", data)
        self.assertEqual(self.read("/f"), data)
        ids = [placed.chunk.id for placed in self.manifest("/f").chunks]
        self.assertEqual(len(set(ids)), 5)

    def test_min_replicas(self) -> None:
        """A chunk counts as stored only where min_replicas servers have it (S16)."""
        failing: list[Machine] = self.grid.chunk_servers[:3]
        for machine in failing:
            machine.disk.fail_next("datasync", 5, times=100)
        self.put("/f", content(3 * CHUNK))
        good = {machine.name for machine in self.grid.chunk_servers[3:]}
        for index in range(3):
            self.assertEqual(set(self.holders("/f", index)), good)
