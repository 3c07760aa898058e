"""A node's data folder opens for its own node alone."""

from __future__ import annotations

import errno
import json
import random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filegrid.datafolder import DataFolder
from filegrid.disk import read_file, replace_file
from filegrid.errors import (
    DiskFailed,
    DuplicateName,
    GridError,
    IntegrityError,
    InvalidRequest,
    NoSpace,
    UnsupportedVersion,
    WrongGrid,
)
from filegrid.model import Identity, Role
from filegrid.simulation.disk import SimulatedDisk

PATH = "/data/chunk-1"


class DataFolderTests(SynchronousTestCase):
    """Opening it, again, and where that must fail."""

    def setUp(self) -> None:
        self.disk = SimulatedDisk(random.Random(1))
        self.random = random.Random(2)

    def open(self, **changes: Any) -> DataFolder:
        who: dict[str, Any] = {"grid_id": "g", "role": Role.CHUNK, "name": "chunk-1"}
        who |= {name: changes.pop(name) for name in who if name in changes}
        arguments: dict[str, Any] = {"create": False, "rng": self.random, **changes}
        return DataFolder.open(self.disk, PATH, identity=Identity(**who), **arguments)

    def refused(self, kind: type[GridError], *words: str, **changes: Any) -> None:
        error = self.assertRaises(kind, self.open, **changes)
        self.assertNotIn("\n", str(error))
        for word in (PATH, *words):
            self.assertIn(word, str(error))

    def edit(self, **changes: object) -> None:
        record = json.loads(read_file(self.disk, f"{PATH}/node"))
        replace_file(self.disk, f"{PATH}/node", json.dumps({**record, **changes}).encode())

    def test_create_and_open(self) -> None:
        """Each start keeps the incarnation and raises the boot count, also after a crash."""
        first = self.open(create=True)
        self.assertEqual((first.boot_count, len(first.incarnation)), (1, 16))
        self.assertEqual(first.within("fence"), f"{PATH}/fence")
        for boot_count in range(2, 6):
            self.disk.crash()
            again = self.open(create=boot_count == 3)
            self.assertEqual((again.incarnation, again.boot_count), (first.incarnation, boot_count))

    def test_new_folder_new_incarnation(self) -> None:
        """A node that lost its folder comes back as another incarnation."""
        first = self.open(create=True)
        self.disk.wipe()
        self.assertNotEqual(self.open(create=True).incarnation, first.incarnation)

    def test_missing(self) -> None:
        """Without leave to create, a missing or empty folder is a disk that is not mounted."""
        self.refused(DiskFailed, "mount")
        self.disk.make_folders(PATH)
        self.refused(DiskFailed, "mount")
        self.assertEqual(self.disk.names(PATH), [])

    def test_foreign(self) -> None:
        """A folder of another grid, role or name is refused, and then still free to open."""
        self.open(create=True).close()
        self.refused(WrongGrid, "grid g", "other", grid_id="other")
        self.refused(InvalidRequest, "chunk chunk-1", "chunk-2", name="chunk-2")
        self.refused(InvalidRequest, "chunk chunk-1", "head chunk-1", role=Role.HEAD)
        self.assertEqual(self.open().boot_count, 2)

    def test_one_process(self) -> None:
        """Two processes do not share a folder; after the first has closed it, the second opens."""
        first = self.open(create=True)
        self.refused(DuplicateName, "process")
        first.close()
        self.open()

    def test_newer_format(self) -> None:
        """A folder of a newer release is refused by its version."""
        self.open(create=True).close()
        self.edit(format=2)
        self.refused(UnsupportedVersion, "format 2")

    def test_unreadable(self) -> None:
        """What cannot be understood or read is refused, and nothing is changed."""
        self.open(create=True).close()
        self.edit(incarnation="short")
        self.refused(IntegrityError, "node")
        for content in (b"", b"\xff\0garbage", b"[]", b"{}"):
            replace_file(self.disk, f"{PATH}/node", content)
            self.refused(IntegrityError, "node")
            self.assertEqual(read_file(self.disk, f"{PATH}/node"), content)
        self.disk.fail_reads(f"{PATH}/node")
        self.refused(DiskFailed)

    def test_failing_disk(self) -> None:
        """A disk that cannot store the boot count lets no node start."""
        self.open(create=True).close()
        for operation, code, kind in (
            ("datasync", errno.EIO, DiskFailed),
            ("create", errno.ENOSPC, NoSpace),
            ("lock", errno.EROFS, DiskFailed),
        ):
            self.disk.fail_next(operation, code)
            self.refused(kind)
        self.assertEqual(self.open().boot_count, 2)
