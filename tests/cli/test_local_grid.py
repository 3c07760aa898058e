"""The nodes of a grid on one machine as processes; small scripts stand in for twistd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filegrid.cli.local_grid import LocalGrid
from filegrid.cli.local_home import Home, Shape, save_home
from filegrid.errors import DeadlineExceeded, InvalidRequest, Unavailable

SHAPE = Shape(heads=1, health=0, chunk_servers=2)

FAILS = """
import sys
print("filegrid-chunk: 127.0.0.1:7: cannot listen here; change node.listen", file=sys.stderr)
print("An error has occurred: b'filegrid.start.StartFailed: filegrid-chunk: 127.0'")
sys.exit(1)
"""

LOGS = """
import sys
log = sys.argv[sys.argv.index("--logfile") + 1]
with open(log, "a") as file:
    file.write("2026-01-01 [filegrid.start#critical] filegrid-chunk: disk: no space\\n")
sys.exit(1)
"""

RECORDS = """
import sys
with open("arguments", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
"""


class GridTest(SynchronousTestCase):
    """A home without certificates: no process here is a node."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        for name in ("run", "log", "nodes", "etc"):
            (self.folder / name).mkdir(parents=True)
        nodes = SHAPE.nodes()
        save_home(self.folder, Home(shape=SHAPE, ports=dict.fromkeys(nodes, 1)))

    def grid(self, script: str = "") -> LocalGrid:
        return LocalGrid(self.folder, [sys.executable, "-S", "-c", script])

    def process(self, *arguments: str, script: str = "") -> subprocess.Popen[bytes]:
        """A process that prints a line once it is set up, and then waits."""
        command = f"{script}\nprint(flush=True)\nimport time\ntime.sleep(60)"
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", command, *arguments], stdout=subprocess.PIPE
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def node(self, name: str, script: str = "") -> subprocess.Popen[bytes]:
        """A process that looks as if it ran the node `name`."""
        file = self.folder / "run" / f"{name}.pid"
        process = self.process("--pidfile", str(file), script=script)
        file.write_text(str(process.pid))
        return process


class ProcessTests(GridTest):
    """Which process is a node's."""

    def test_running(self) -> None:
        """A node whose process is there runs."""
        process = self.node("chunk-1")
        self.assertEqual(self.grid().pid("chunk-1"), process.pid)
        self.assertEqual(self.grid().running(), ["chunk-1"])

    def test_same_home_by_another_path(self) -> None:
        """A home that is reached through a link is the same home."""
        process = self.node("chunk-1")
        link = self.folder.with_name(self.folder.name + "-link")
        link.symlink_to(self.folder)
        self.assertEqual(LocalGrid(link).pid("chunk-1"), process.pid)

    def test_number_given_to_another(self) -> None:
        """A process that has a node's old number is never touched."""
        stranger = self.process("--pidfile", "/elsewhere/run/chunk-1.pid")
        (self.folder / "run" / "chunk-1.pid").write_text(str(stranger.pid))
        grid = self.grid()
        self.assertIsNone(grid.pid("chunk-1"))
        grid.stop("chunk-1")
        grid.kill("chunk-1")
        grid.down()
        self.assertIsNone(stranger.poll())

    def test_damaged_pid_file(self) -> None:
        """A pid file without a number, or with that of nobody, means that the node is down."""
        for text in ("", "many", "999999999"):
            (self.folder / "run" / "chunk-1.pid").write_text(text)
            self.assertIsNone(self.grid().pid("chunk-1"))

    def test_unknown_node(self) -> None:
        """A node that the grid does not have is answered with the one that was meant."""
        error = self.assertRaises(InvalidRequest, self.grid().kill, "chunk1")
        self.assertIn("did you mean chunk-1?", str(error))


class StopTests(GridTest):
    """Ending processes."""

    def test_stop(self) -> None:
        """SIGTERM ends a node, also one that was paused; its pid file goes with it."""
        process = self.node("chunk-1")
        os.kill(process.pid, signal.SIGSTOP)
        self.grid().stop("chunk-1")
        self.assertEqual(process.wait(), -signal.SIGTERM)
        self.assertFalse((self.folder / "run" / "chunk-1.pid").exists())
        self.grid().stop("chunk-1")

    def test_stubborn(self) -> None:
        """A node that does not end in time is an error, and `kill` ends it."""
        process = self.node("chunk-1", "import signal; signal.signal(signal.SIGTERM, lambda *_: 0)")
        stop = self.grid().stop
        error = self.assertRaises(DeadlineExceeded, stop, "chunk-1", timeout_seconds=0.1)
        self.assertIn("filegrid kill chunk-1", str(error))
        self.grid().kill("chunk-1")
        self.assertEqual(process.wait(), -signal.SIGKILL)

    def test_down(self) -> None:
        """`down` ends every node, and a second one finds nothing to do."""
        processes = [self.node(name) for name in SHAPE.nodes()]
        self.grid().down()
        self.assertEqual([p.wait() for p in processes], [-signal.SIGTERM] * 3)
        self.grid().down()


class StartTests(GridTest):
    """Starting, and what is said where it fails."""

    def arguments(self) -> list[str]:
        return (self.folder / "run" / "arguments").read_text().splitlines()

    def test_printed_reason(self) -> None:
        """What the service printed is the reason, not what twistd says about it."""
        error = self.assertRaises(Unavailable, self.grid(FAILS).start, "chunk-1")
        self.assertEqual(
            str(error),
            "chunk-1: did not start: 127.0.0.1:7: cannot listen here; change node.listen",
        )

    def test_logged_reason(self) -> None:
        """Where nothing was printed, the reason is in the log of this start."""
        (self.folder / "log" / "chunk-1.log").write_text("filegrid-chunk: an old story\n")
        error = self.assertRaises(Unavailable, self.grid(LOGS).start, "chunk-1")
        self.assertIn("did not start: disk: no space", str(error))

    def test_silent(self) -> None:
        """A start that fails without a word names the log."""
        error = self.assertRaises(Unavailable, self.grid("raise SystemExit(1)").start, "chunk-1")
        self.assertIn(f"it said nothing; see {self.folder}/log/chunk-1.log", str(error))

    def test_arguments(self) -> None:
        """A node gets its pid file, log and settings; one that runs is left alone."""
        self.node("chunk-2")
        self.grid(RECORDS).start("chunk-1", "chunk-2")
        home = self.folder
        self.assertEqual(
            self.arguments(),
            [
                f"--pidfile {home}/run/chunk-1.pid --logfile {home}/log/chunk-1.log --umask 077"
                f" filegrid-chunk --config {home}/etc/chunk-1.toml --create"
            ],
        )

    def creates(self) -> list[bool]:
        return [line.endswith(" --create") for line in self.arguments()]

    def test_creates_once(self) -> None:
        """The first head makes the namespace until the grid was once ready, then never (S1)."""
        grid = self.grid(RECORDS)
        grid.start("head-1")
        grid.wait_ready(lambda: None)
        grid.start("head-1")
        self.assertEqual(self.creates(), [True, False])
        self.assertTrue(grid.home.created)

    def test_creates_after_failure(self) -> None:
        """A first start that failed is repeated as the first, whatever it left behind."""
        self.assertRaises(Unavailable, self.grid("raise SystemExit(1)").start, "head-1")
        (self.folder / "nodes" / "head-1" / "log").mkdir(parents=True)
        self.grid(RECORDS).start("head-1")
        self.assertEqual(self.creates(), [True])

    def test_chunk_server_without_folder(self) -> None:
        """A chunk server makes its data folder where it is gone, and only there."""
        grid = self.grid(RECORDS)
        grid.start("chunk-1")
        (self.folder / "nodes" / "chunk-1" / "chunks").mkdir(parents=True)
        grid.start("chunk-1")
        self.assertEqual(self.creates(), [True, False])


class ReadyTests(GridTest):
    """Waiting until the grid takes writes."""

    def test_ready(self) -> None:
        """It waits for as long as there is a reason to."""
        for name in SHAPE.nodes():
            self.node(name)
        answers = ["no head", None]
        self.grid().wait_ready(lambda: answers.pop(0))
        self.assertEqual(answers, [])

    def test_died(self) -> None:
        """A node that ended meanwhile is an error with its last words."""
        log = self.folder / "log" / "head-1.log"
        log.write_text("[filegrid.start#critical] filegrid-head: the folder is of another grid\n")
        error = self.assertRaises(Unavailable, self.grid().wait_ready, lambda: "no head")
        self.assertEqual(str(error), "head-1: did not start: the folder is of another grid")

    def test_patience_ends(self) -> None:
        """After the time that was given, the last reason is the error."""
        for name in SHAPE.nodes():
            self.node(name)
        wait = self.grid().wait_ready
        error = self.assertRaises(DeadlineExceeded, wait, lambda: "no head", timeout_seconds=0.05)
        self.assertIn("no head", str(error))
