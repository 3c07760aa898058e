"""A real grid whose heads or health nodes die, more of them than it can do without."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable

from filegrid.cli.local_grid import LocalGrid
from tests.functional.case import RealGrid


class MajorityLost(RealGrid):
    def up(self) -> None:
        self.filegrid(
            *("up", "--home", str(self.home), "--health", "3", "--chunk-servers", "2"),
            *("--set", "grid.replication=2"),
        )

    def fails(self, *arguments: str) -> str:
        """Run what the grid cannot do now; the one line that says so."""
        process = self.begin("--timeout", "2", *arguments)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 5, err)
        self.assertEqual(err.count("\n"), 1, err)
        return err

    def until_another_leads(self, old: str) -> str:
        deadline_at = time.monotonic() + 20
        while True:
            process = self.begin("--timeout", "3", "status", "--json")
            out, _ = process.communicate(timeout=60)
            if process.returncode == 0 and f'"leader": "{old}"' not in out:
                return str(json.loads(out)["leader"])
            self.assertLess(time.monotonic(), deadline_at)

    def role(self, name: str) -> str:
        return next(str(one["role"]) for one in self.status()["heads"] if one["name"] == name)

    def until(self, is_so: Callable[[], bool]) -> None:
        deadline_at = time.monotonic() + 20
        while not is_so():
            self.assertLess(time.monotonic(), deadline_at)
            time.sleep(0.2)

    def test_heads_and_health_nodes(self) -> None:
        """A leader that was stopped past its lease goes on as a standby. Without health nodes the
        heads fail over all the same. With two of three heads dead every change is refused in time,
        with what to do; one comes back, and all is there and goes on."""
        self.up()
        file = self.make_file("file", 300_000)
        stopped = self.status()["leader"]
        grid = LocalGrid(self.home)
        pid = grid.pid(stopped)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            leader = self.until_another_leads(stopped)
            self.filegrid("put", str(file), "/before")
        finally:
            os.kill(pid, signal.SIGCONT)
        self.until(lambda: self.role(stopped) == "standby")
        for number in (1, 2, 3):
            grid.kill(f"health-{number}")
        grid.kill(leader)
        second = self.until_another_leads(leader)
        self.filegrid("put", str(file), "/without-health")

        grid.kill(second)
        begun = time.monotonic()
        for arguments in (("mkdir", "/never"), ("rm", "/before")):
            said = self.fails(*arguments)
            self.assertIn("no head leads", said)
            self.assertIn("a majority of the heads has to run", said)
            self.assertEqual(said.count("127.0.0.1:"), 2)  # those that are down
        self.assertLess(time.monotonic() - begun, 30)
        self.assertIn("no head leads", self.fails("status"))

        grid.start(leader)
        self.until_another_leads(second)
        for path in ("/before", "/without-health"):
            self.filegrid("get", path, "--force", str(self.files / "out"))
            self.assertSame(file, self.files / "out")
        self.filegrid("put", str(file), "/after")
        listed = self.filegrid("ls", "/").split()
        self.assertEqual(listed, ["after", "before", "without-health"])
