"""Services under a real twistd: how a start that fails is told, and a grid of stand-ins."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filegrid.cli.local_grid import LocalGrid
from filegrid.cli.local_home import Shape
from filegrid.errors import Unavailable
from filegrid.model import Address
from filegrid.start import check_port

TWISTD = """
import sys, types
import filegrid.head, filegrid.chunk
from twisted.application.service import Service
from filegrid.errors import WrongGrid, Unavailable
from filegrid.options import ServiceOptions
from filegrid.start import fail_start

class Dummy(Service):
    def __init__(self, options): self.data = options.settings().node.data
    def startService(self):
        from twisted.internet import reactor
        fault = self.data.name.partition(".")[2]
        if fault == "bug": raise KeyError("oops")
        if fault == "foreign": raise WrongGrid("is of another grid", str(self.data))
        if fault == "late":
            reactor.callLater(0, fail_start, reactor, "filegrid-head", Unavailable("hangs", "disk"))

class Head(ServiceOptions):
    role = "head"
    optFlags = [["create", None, ""]]

class Chunk(ServiceOptions):
    role = "chunk"
    optFlags = [["create", None, ""]]

for package, options in ((filegrid.head, Head), (filegrid.chunk, Chunk)):
    plugin = types.ModuleType(package.__name__ + ".plugin")
    plugin.Options, plugin.make_service = options, Dummy
    package.plugin = sys.modules[plugin.__name__] = plugin
from twisted.scripts.twistd import run
run()
"""
"""A twistd whose services do nothing but fail as the name of their data folder says."""

HEAD = """
[node]
name = "head-1"
data = "data.{fault}"
listen = "127.0.0.1:7000"
heads = ["127.0.0.1:7000"]
[tls]
certificate = "head-1.pem"
authority = "ca.pem"
"""


class TwistdTests(SynchronousTestCase):
    """One line, and an exit code that is not zero."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir(parents=True)

    def twistd(self, *options: str, fault: str, flags: tuple[str, ...] = ()) -> tuple[int, str]:
        (self.folder / "head.toml").write_text(HEAD.format(fault=fault))
        command = [sys.executable, "-c", TWISTD, *options, "filegrid-head", "--config", "head.toml"]
        done = subprocess.run(
            [*command, *flags], cwd=self.folder, capture_output=True, text=True, timeout=30
        )
        return done.returncode, done.stderr

    def test_settings(self) -> None:
        """Settings that cannot be are told before twistd goes to the background."""
        code, said = self.twistd(fault="", flags=("--grid-replication", "0"))
        self.assertEqual(code, 1)
        self.assertEqual(said.count("\n"), 1, said)
        self.assertTrue(said.startswith("filegrid-head: command line: grid.replication: 0"), said)

    def test_start_fails(self) -> None:
        """A service that raises in startService is one line, in the log as well."""
        code, said = self.twistd("-n", "--logfile", "log", fault="foreign")
        line = f"filegrid-head: {self.folder}/data.foreign: is of another grid\n"
        self.assertEqual((code, said), (1, line))
        self.assertIn(line, (self.folder / "log").read_text())
        self.assertFalse((self.folder / "twistd.pid").exists())

    def test_start_fails_in_the_background(self) -> None:
        """The line reaches the terminal also from a twistd that is in the background already."""
        code, said = self.twistd(fault="foreign")
        self.assertEqual(code, 1)
        self.assertTrue(said.startswith(f"filegrid-head: {self.folder}/data.foreign: is of"), said)

    def test_late(self) -> None:
        """A start that fails once the reactor runs ends twistd in good order, with exit code 1."""
        code, said = self.twistd("-n", "--logfile", "log", fault="late")
        self.assertEqual((code, said), (1, "filegrid-head: disk: hangs\n"))
        self.assertIn("Server Shut Down", (self.folder / "log").read_text())

    def test_bug(self) -> None:
        """A bug is one line too; its traceback is in the log."""
        code, said = self.twistd("-n", "--logfile", "log", fault="bug")
        self.assertEqual((code, said.count("\n")), (1, 1), said)
        self.assertIn("Traceback", (self.folder / "log").read_text())


class PortTests(SynchronousTestCase):
    """check_port"""

    def test_taken(self) -> None:
        """A port that is listened on is refused with its address; a free one is not."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            taken = Address("127.0.0.1", server.getsockname()[1])
            error = self.assertRaises(Unavailable, check_port, taken)
            self.assertIn(f"{taken}: cannot listen here: Address already in use", str(error))
        check_port(taken)


class LocalGridTests(SynchronousTestCase):
    """A grid of processes."""

    def test_life(self) -> None:
        """A grid is made, started, loses a node, gets it back, and is stopped."""
        grid = LocalGrid(self.mktemp(), [sys.executable, "-c", TWISTD])
        grid.make(Shape(heads=1, health=0, chunk_servers=1))
        for name in grid.nodes:
            self.addCleanup(grid.kill, name)
        grid.start(*grid.nodes)
        self.assertEqual(grid.running(), ["head-1", "chunk-1"])
        first = grid.pid("chunk-1")
        grid.kill("chunk-1")
        self.assertIsNone(grid.pid("chunk-1"))
        grid.start("chunk-1")
        self.assertNotEqual(grid.pid("chunk-1"), first)
        grid.down()
        self.assertEqual(grid.running(), [])
        self.assertEqual(list((grid.folder / "run").iterdir()), [])
        began_at = time.monotonic()
        grid.down()
        self.assertLess(time.monotonic() - began_at, 1)
