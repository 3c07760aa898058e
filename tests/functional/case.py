"""A test case with a grid of real processes, sockets and disks."""

from __future__ import annotations

import filecmp
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from twisted.trial.unittest import SynchronousTestCase

CHUNK_BYTES = 1024 * 1024
MIB = 1024 * 1024

FILEGRID = [sys.executable, "-c", "from filegrid.cli.main import main; main()"]


class RealGrid(SynchronousTestCase):
    """Each test is one story, told in order: each step needs the one before it."""

    timeout = 240

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).resolve()
        self.files = Path(self.mktemp()).resolve()
        self.files.mkdir()
        self.environment = {**os.environ, "FILEGRID_GRID": str(self.home / "grid.toml")}

    def tearDown(self) -> None:
        if self.home.exists():
            self.filegrid("down", "--home", str(self.home))

    def begin(
        self, *arguments: str, stdin: int | IO[bytes] = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*FILEGRID, *arguments],
            env=self.environment,
            text=True,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def filegrid(self, *arguments: str, code: int = 0) -> str:
        """Run the command; what it printed. Another exit code than `code` fails the test."""
        process = self.begin(*arguments)
        out, err = process.communicate(timeout=120)
        self.assertEqual(process.returncode, code, f"{arguments}: {out}{err}")
        return out

    def up(self) -> None:
        self.filegrid(
            *("up", "--home", str(self.home), "--chunk-servers", "4"),
            *("--set", f"grid.chunk_bytes={CHUNK_BYTES}"),
            *("--set", "chunk.heartbeat_seconds=0.2", "--set", "chunk.suspect_seconds=0.6"),
            *("--set", "chunk.dead_seconds=1.5"),
        )

    def node(self, verb: str, name: str) -> None:
        self.filegrid(verb, name, "--home", str(self.home))

    def status(self) -> Any:
        return json.loads(self.filegrid("status", "--json"))

    def make_file(self, name: str, size: int) -> Path:
        path = self.files / name
        path.write_bytes(random.Random(size).randbytes(size))
        return path

    def assertSame(self, path: Path, other: Path) -> None:
        self.assertTrue(filecmp.cmp(path, other, shallow=False), f"{path} is not {other}")

    def until_clean(self, seconds: float) -> None:
        deadline_at = time.monotonic() + seconds
        while True:
            process = self.begin("fsck", "--verify", "--json")
            out, err = process.communicate(timeout=120)
            if process.returncode == 0:
                return
            self.assertLess(time.monotonic(), deadline_at, f"not clean: {out}{err}")
