"""Whole folders, up and down."""

from __future__ import annotations

import os
from pathlib import Path

from filegrid.client.tree import Report, download_folder, upload_folder, usage
from filegrid.errors import (
    AlreadyExists,
    GridError,
    IntegrityError,
    NoSpace,
    NotAFolder,
    OutcomeUnknown,
    Unavailable,
)
from tests.grid.case import CHUNK, GridCase, content


class TreeCase(GridCase):
    def setUp(self) -> None:
        super().setUp()
        self.local = Path(self.mktemp())
        self.local.mkdir()
        self.expected = self.moved = 0
        self.failed: list[GridError] = []
        self.report = Report(expected=self.expect, moved=self.move, failed=self.failed.append)

    def expect(self, size: int) -> None:
        self.expected += size

    def move(self, size: int) -> None:
        self.moved += size

    def upload(self, path: str, *, overwrite: bool = False) -> None:
        self.run_(
            upload_folder(
                self.client,
                self.local,
                path,
                replication=None,
                overwrite=overwrite,
                report=self.report,
            )
        )

    def download(self, path: str, target: Path, *, overwrite: bool = False) -> None:
        self.run_(
            download_folder(self.client, path, target, overwrite=overwrite, report=self.report)
        )


def files_below(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


class Trees(TreeCase):
    def fill(self) -> None:
        (self.local / "a" / "b").mkdir(parents=True)
        (self.local / "empty").mkdir()
        for number in range(40):
            (self.local / "a" / f"f{number}").write_bytes(content(number * 100, number))
        (self.local / "a" / "b" / "large").write_bytes(content(2 * CHUNK))
        (self.local / "\u00e9 \n").write_bytes(b"odd name")

    def test_there_and_back(self) -> None:
        """A folder that is uploaded and downloaded is the same, and all of it was told of."""
        self.fill()
        self.upload("/copy")
        self.assertEqual(self.expected, self.moved)
        self.assertEqual(
            self.moved, sum(len(one or b"") for one in files_below(self.local).values())
        )
        back = Path(self.mktemp())
        self.download("/copy", back)
        self.assertEqual(files_below(back), files_below(self.local))
        self.assertEqual(self.failed, [])
        total = self.run_(usage(self.client, "/copy"))
        self.assertEqual((total.files, total.folders), (42, 3))
        self.assertEqual(self.run_(usage(self.client, "/copy/a/f3")).bytes, 300)

    def test_far_away(self) -> None:
        """Folders do not wait for each other: 60 of a single file take fewer round trips."""
        for number in range(60):
            (self.local / f"d{number}").mkdir()
            (self.local / f"d{number}" / "f").write_bytes(content(100, number))
        for machine in self.grid.machines:
            for way in (("client-1", machine.name), (machine.name, "client-1")):
                self.grid.network.weather(*way).latency_seconds = 0.01
        begun = self.grid.clock.seconds()
        self.upload("/copy")
        self.assertLess(self.grid.clock.seconds() - begun, 40 * 0.02)
        begun = self.grid.clock.seconds()
        self.download("/copy", Path(self.mktemp()))
        self.assertLess(self.grid.clock.seconds() - begun, 40 * 0.02)

    def test_into_the_root(self) -> None:
        """The root can hold what a local folder holds, and give it back."""
        self.fill()
        self.upload("/")
        back = Path(self.mktemp())
        self.download("/", back)
        self.assertEqual(files_below(back), files_below(self.local))

    def test_again(self) -> None:
        """Folders that exist are gone on with; files are replaced only where that was asked for."""
        self.fill()
        self.upload("/copy")
        (self.local / "new").write_bytes(b"new")
        self.upload("/copy")
        self.assertEqual(len(self.failed), 42)
        self.assertIsInstance(self.failed[0], AlreadyExists)
        self.assertEqual(self.read("/copy/new"), b"new")
        self.failed.clear()
        self.upload("/copy", overwrite=True)
        self.assertEqual(self.failed, [])

    def test_left_out(self) -> None:
        """Links to files are followed; links to folders, broken ones and pipes are named."""
        (self.local / "real").write_bytes(b"real")
        (self.local / "link").symlink_to("real")
        (self.local / "broken").symlink_to("nowhere")
        (self.local / "loop").symlink_to(".")
        os.mkfifo(self.local / "pipe")
        self.upload("/copy")
        self.assertEqual(self.read("/copy/link"), b"real")
        self.assertEqual(
            sorted(Path(error.subject).name for error in self.failed), ["broken", "loop", "pipe"]
        )

    def test_over_a_file(self) -> None:
        """A folder does not replace a file, on neither side."""
        self.put("/f", b"x")
        with self.assertRaises(NotAFolder):
            self.upload("/f")
        (self.local / "sub").mkdir()
        self.upload("/copy")
        target = Path(self.mktemp())
        target.mkdir()
        (target / "sub").write_bytes(b"a file")
        self.download("/copy", target)
        self.assertIn("sub", str(self.failed[0]))

    def test_one_damaged_file(self) -> None:
        """One file that cannot be downloaded is told of, and the others come."""
        self.put("/good", b"good")
        self.put("/bad", b"bad")
        for server in self.holders("/bad"):
            self.flip("/bad", server, offset=0)
        target = Path(self.mktemp())
        self.download("/", target)
        self.assertEqual(files_below(target), {"good": b"good"})
        self.assertEqual([type(error) for error in self.failed], [IntegrityError])

    def test_full(self) -> None:
        """Whatever could not be stored is named, also where one answer refused many."""
        for machine in self.grid.chunk_servers:
            machine.disk.capacity_bytes = 2000
        for number in range(3):
            (self.local / f"small{number}").write_bytes(b"small")
        (self.local / "large").write_bytes(content(2 * CHUNK))
        self.client = self.new_client("client-2", timeout_seconds=2)
        self.upload("/copy")
        names = ["large", "small0", "small1", "small2"]
        self.assertEqual(
            sorted(error.subject for error in self.failed), [f"/copy/{n}" for n in names]
        )
        self.assertEqual({type(error) for error in self.failed}, {NoSpace})

    def test_grid_goes_away(self) -> None:
        """Where the grid is gone, the rest of the files is not tried one by one."""
        self.fill()
        self.client = self.new_client("client-2", timeout_seconds=2)
        self.upload("/copy")
        self.grid.head.kill()
        begun = self.grid.clock.seconds()
        with self.assertRaises((Unavailable, OutcomeUnknown)):
            self.upload("/copy", overwrite=True)
        self.assertLess(self.grid.clock.seconds() - begun, 10)
