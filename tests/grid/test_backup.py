"""Backups of a running grid."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from filegrid.backup import HEADER_BYTES, verify
from filegrid.client.backup import BackedUp
from filegrid.errors import NoSpace, NoSuchPath, NotPermitted
from filegrid.head.backups import IDLE_SECONDS, MOST_LENT
from filegrid.model import Role
from filegrid.protocol.wire import backup_pb2
from tests.grid.case import CHUNK, content
from tests.grid.heads import HeadsCase


class BackingUp(HeadsCase):
    def setUp(self) -> None:
        super().setUp()
        self.operator = self.new_client("ann", role=Role.OPERATOR)
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def tearDown(self) -> None:
        self.run_(self.operator.close())
        super().tearDown()

    def back_up(self, name: str = "backup") -> BackedUp:
        return self.run_(self.operator.backup(self.folder / name))

    def check(self, path: Path) -> set[str]:
        """The names in a backup that is whole."""
        with open(path, "rb") as file:

            def read(length: int, offset: int) -> bytes:
                file.seek(offset)
                return file.read(length)

            verify(read, str(path))
        image = self.folder / "image"
        image.write_bytes(path.read_bytes()[HEADER_BYTES:])
        with closing(sqlite3.connect(image)) as database:
            rows = database.execute("SELECT name FROM nodes WHERE parent = 1")
            return {name.decode() for (name,) in rows}

    def copies(self) -> list[str]:
        """What heads keep on their disks for operators."""
        return [
            name
            for machine in self.grid.heads
            for name in machine.disk.names("/data")
            if name.startswith("outgoing")
        ]

    def test_whole(self) -> None:
        """A backup has every change that was acknowledged before it, and nothing stays behind."""
        for number in range(5):
            self.put(f"/f{number}", content(2 * CHUNK, number))
        made = self.back_up()
        self.assertEqual((made.files, made.bytes, made.chunks), (5, 10 * CHUNK, 10))
        self.assertEqual(made.lineage, 1)
        path = self.folder / "backup"
        self.assertEqual(made.size, path.stat().st_size)
        self.assertEqual(self.check(path), {f"f{number}" for number in range(5)})
        self.assertEqual(self.copies(), [])
        self.assertEqual({one.name for one in self.folder.iterdir()}, {"backup", "image"})

    def test_while_changing(self) -> None:
        """It is of one moment, however much is changed meanwhile."""
        making = [self.begin(self.client.mkdir(f"/{number}")) for number in range(200)]
        self.back_up()
        for one in making:
            self.grid.wait(one)
        found = self.check(self.folder / "backup")
        self.assertEqual(found, {str(number) for number in range(len(found))})

    def test_leader_dies(self) -> None:
        """Where the head that makes it dies, another one makes one."""
        self.put("/f", b"x")
        self.grid.work_seconds = 0.05
        making = self.begin(self.operator.backup(self.folder / "backup"))
        self.until(lambda: bool(self.copies()))
        self.leader().kill()
        self.grid.wait(making)
        self.assertEqual(self.check(self.folder / "backup"), {"f"})

    def test_not_by_a_client(self) -> None:
        """Backups are for operators, and nothing is left of the try."""
        with self.assertRaises(NotPermitted):
            self.run_(self.client.backup(self.folder / "backup"))
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_cannot_be_written(self) -> None:
        """Where there is no folder the grid is not even asked."""
        with self.assertRaises(NoSuchPath):
            self.run_(self.operator.backup(self.folder / "missing" / "backup"))
        self.assertEqual(self.copies(), [])

    def test_no_space_for_the_log(self) -> None:
        """A copy that would take what the log may need is not made; the old file stays (S22)."""
        (self.folder / "backup").write_bytes(b"old")
        self.leader().disk.capacity_bytes = 100 * 1024 * 1024
        with self.assertRaises(NoSpace):
            self.back_up()
        self.assertEqual((self.folder / "backup").read_bytes(), b"old")

    def test_nobody_reads(self) -> None:
        """What an operator asked for and did not read is dropped after a while."""
        session = self.operator.access.session
        for _ in range(MOST_LENT):
            self.run_(session.call(backup_pb2.BeginBackup(), backup_pb2.BackupBegun))
        self.grid.advance(1)
        self.assertEqual(len(self.copies()), MOST_LENT)
        self.grid.advance(IDLE_SECONDS + 1)
        self.assertEqual(self.copies(), [])
        self.back_up()
