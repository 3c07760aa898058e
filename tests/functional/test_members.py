"""A real grid that grows from one head to three, and loses the first."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from filegrid.cli.local_grid import TWISTD
from tests.functional.case import RealGrid


class Growing(RealGrid):
    def setUp(self) -> None:
        super().setUp()
        self.operator = ("--grid", str(self.home / "operator.toml"))
        self.started: list[Path] = []

    def tearDown(self) -> None:
        for pidfile in self.started:
            if pidfile.exists():
                os.kill(int(pidfile.read_text()), signal.SIGTERM)
        super().tearDown()

    def start_head(self, name: str) -> str:
        """A head as on another machine, configured after the first; returns its address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.filegrid("ca", "issue", "head", name, "--home", str(self.home))
        lines = (self.home / "etc" / "head-1.toml").read_text().splitlines()
        for place, line in enumerate(lines):
            if line.startswith("listen = "):
                lines[place] = f'listen = "{address}"'
            elif line.startswith("heads = "):
                lines[place] = line.replace("]", f', "{address}"]')
            else:
                lines[place] = line.replace("head-1", name)
        config = self.home / "etc" / f"{name}.toml"
        config.write_text("\n".join(lines))
        pidfile = self.home / "run" / f"{name}.pid"
        self.started.append(pidfile)
        log = self.home / "log" / f"{name}.log"
        subprocess.run(
            [
                *(*TWISTD, "--pidfile", str(pidfile), "--logfile", str(log)),
                *("filegrid-head", "--config", str(config)),
            ],
            check=True,
            timeout=60,
        )
        return address

    def test_one_to_three(self) -> None:
        """Two heads are added, the first is removed and killed, and the grid has all its files."""
        self.filegrid(
            *("up", "--home", str(self.home), "--heads", "1", "--health", "1"),
            *("--chunk-servers", "2"),
        )
        file = self.make_file("file", 100_000)
        self.filegrid("put", str(file), "/file")
        for name in ("head-2", "head-3"):
            address = self.start_head(name)
            self.assertIn(
                "has a vote", self.filegrid("heads", "add", name, address, *self.operator)
            )
        self.assertEqual([one["role"] for one in self.status()["heads"]].count("standby"), 2)
        self.filegrid("heads", "add", "head-2", "nowhere", *self.operator, code=2)
        self.filegrid("heads", "remove", "head-1", code=7)
        self.filegrid("heads", "remove", "head-1", *self.operator)
        grid_file = self.home / "grid.toml"
        lines = grid_file.read_text().splitlines()
        heads = ", ".join(f'"{one["address"]}"' for one in self.status()["heads"])
        grid_file.write_text(
            "\n".join(f"heads = [{heads}]" if one.startswith("heads = ") else one for one in lines)
        )
        self.node("kill", "head-1")
        time.sleep(1)
        self.assertEqual(
            sorted(one["name"] for one in self.status()["heads"]), ["head-2", "head-3"]
        )
        self.filegrid("put", str(file), "/again")
        self.filegrid("get", "/file", str(self.files / "out"))
        self.assertSame(file, self.files / "out")
