"""Real grids that lose all their heads, with kill -9 and rm -r, and come back."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from filegrid.cli.local_grid import LocalGrid
from tests.functional.case import MIB, RealGrid

CHUNK = 2 * MIB
"""Each has a file of its own, which can be taken away."""


class LostHeads(RealGrid):
    def setUp(self) -> None:
        super().setUp()
        self.new = Path(self.mktemp()).resolve()
        self.operator = ("--grid", str(self.home / "operator.toml"))

    def tearDown(self) -> None:
        if self.new.exists():
            self.filegrid("down", "--home", str(self.new))
        super().tearDown()

    def up(self, *more: str) -> None:
        self.filegrid(
            *("up", "--home", str(self.home), "--health", "0", "--chunk-servers", "3"),
            *("--set", f"grid.chunk_bytes={CHUNK}", *more),
        )

    def lose_heads(self) -> None:
        grid = LocalGrid(self.home)
        for number in (1, 2, 3):
            grid.kill(f"head-{number}")
            shutil.rmtree(self.home / "nodes" / f"head-{number}")

    def snapshot(self) -> dict[str, int]:
        """Every file of the old home, and how long it is."""
        return {
            str(Path(folder) / name): (Path(folder) / name).stat().st_size
            for folder, _, names in os.walk(self.home)
            for name in names
        }

    def test_restore(self) -> None:
        """From a backup all is there that was there then; the old home stays as it was."""
        self.up()
        big = self.make_file("big", 5 * CHUNK + 123)
        self.filegrid("put", str(big), "/big")
        backup = self.files / "backup"
        made = json.loads(self.filegrid("backup", str(backup), "--json", *self.operator))
        self.assertEqual((made["files"], made["bytes"]), (1, 5 * CHUNK + 123))
        self.filegrid("backup", str(self.files / "no" / "b"), *self.operator, code=3)
        self.filegrid("backup", str(self.files / "b"), code=7)
        self.filegrid("put", str(big), "/young")
        into_new = ("--home", str(self.new), "--chunk-data", str(self.home))
        self.filegrid("restore", str(backup), *into_new, code=2)  # it runs

        self.lose_heads()
        self.filegrid("down", "--home", str(self.home))
        before = self.snapshot()
        self.filegrid("restore", str(big), *into_new, code=6)
        self.filegrid("restore", str(backup), *into_new)
        self.assertEqual(self.snapshot(), before)

        self.environment["FILEGRID_GRID"] = str(self.new / "grid.toml")
        self.filegrid("up", "--home", str(self.new))
        self.until_clean(30)
        self.filegrid("get", "/big", str(self.files / "out"))
        self.assertSame(big, self.files / "out")
        self.filegrid("stat", "/young", code=3)
        self.filegrid("put", str(big), "/new")
        self.assertEqual(self.status()["grid_id"], made["grid_id"])
        said = self.filegrid("discard-unknown", "--grid", str(self.new / "operator.toml"))
        self.assertEqual(said, "6 chunks are let go\n")
        self.assertEqual(self.snapshot(), before)

    def test_rebuild(self) -> None:
        """Without any head or backup the chunks alone tell the files; parts go to /lost+found."""
        self.up()
        big = self.make_file("big", 5 * CHUNK + 123)
        exact = self.make_file("exact", 2 * CHUNK)
        self.filegrid("mkdir", "/d")
        self.filegrid("put", str(big), "/d/big")
        with exact.open("rb") as stream:  # nobody knows its length before its end
            piped = self.begin("put", "-", "/exact", stdin=stream)
            _, err = piped.communicate(timeout=120)
        self.assertEqual(piped.returncode, 0, err)
        self.filegrid("put", str(big), "/torn")
        torn = json.loads(self.filegrid("stat", "/torn", "--json"))["chunks"]
        self.lose_heads()
        self.filegrid("down", "--home", str(self.home))
        for replica in torn[2]["replicas"]:
            (self.home / "nodes" / replica["server"] / replica["file"]).unlink()

        into_new = ("--home", str(self.new), "--chunk-data", str(self.home))
        made = json.loads(self.filegrid("rebuild", *into_new, "--json"))
        self.assertEqual((made["found"], made["backup"], made["lineage"]), (2, None, 2))
        self.environment["FILEGRID_GRID"] = str(self.new / "grid.toml")
        self.filegrid("up", "--home", str(self.new))
        self.until_clean(30)
        for path, original in (("/d/big", big), ("/exact", exact)):
            self.filegrid("get", path, "--force", str(self.files / "out"))
            self.assertSame(original, self.files / "out")
        (lost,) = made["lost"]
        self.filegrid("get", f"{lost}from-chunk-00000003", str(self.files / "part"))
        self.assertEqual((self.files / "part").read_bytes(), big.read_bytes()[3 * CHUNK :])
        self.filegrid("put", str(big), "/new")

    def test_kept_in_the_grid(self) -> None:
        """The chunk servers alone give the names back as the last backup in the grid has them."""
        self.up("--set", "backup.interval_seconds=2")
        big = self.make_file("big", CHUNK + 123)
        self.filegrid("put", str(big), "/big")
        self.filegrid("mv", "/big", "/renamed")  # which no chunk knows
        self.filegrid("mkdir", "/empty")
        known = self.status()["backups"]["kept"]
        deadline_at = time.monotonic() + 30
        while self.status()["backups"]["kept"] < known + 2:
            self.assertLess(time.monotonic(), deadline_at)
        self.lose_heads()
        self.filegrid("down", "--home", str(self.home))
        before = self.snapshot()
        second = self.new.with_name("rebuilt")
        self.filegrid("restore", "--home", str(self.new), "--chunk-data", str(self.home))
        rebuilt = json.loads(
            self.filegrid(
                "rebuild", "--home", str(second), "--chunk-data", str(self.home), "--json"
            )
        )
        self.assertEqual(self.snapshot(), before)
        self.assertEqual((rebuilt["backup"]["files"], rebuilt["lost"]), (1, []))
        self.environment["FILEGRID_GRID"] = str(self.new / "grid.toml")
        self.filegrid("up", "--home", str(self.new))
        self.until_clean(30)
        self.filegrid("get", "/renamed", str(self.files / "out"))
        self.assertSame(big, self.files / "out")
        self.assertEqual(self.filegrid("ls", "/"), "empty\nrenamed\n")
