"""The demo, without its grid: what it leaves behind, and how its acts run side by side."""

from __future__ import annotations

import io
import tempfile
import threading
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from filegrid.cli import local_grid
from filegrid.cli.demo import _Demo
from filegrid.cli.local_grid import LocalGrid
from filegrid.cli.main import run
from filegrid.errors import NoSpace, Unavailable


class CleanUpTests(SynchronousTestCase):
    """However it ends, nothing stays."""

    def ends(self, error: BaseException) -> tuple[int, str]:
        """Exit code and words of a demo that meets `error` as its nodes start."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.patch(tempfile, "tempdir", str(folder))

        def start(_: LocalGrid, *names: str) -> None:
            self.assertEqual(names[:2], ("head-1", "head-2"))
            raise error

        self.patch(local_grid.LocalGrid, "start", start)
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            code = run(["demo"])
        self.assertEqual(list(folder.iterdir()), [])
        return code, out.getvalue()

    def test_failure(self) -> None:
        """A demo that fails says why in a line, and removes its folder."""
        code, said = self.ends(Unavailable("did not start: port taken", "chunk-1"))
        self.assertEqual(code, 5)
        self.assertIn("filegrid: chunk-1: did not start: port taken", said)
        self.assertNotIn("Done", said)

    def test_interrupted(self) -> None:
        """So does one that meets Ctrl-C."""
        self.assertEqual(self.ends(KeyboardInterrupt())[0], 130)


class MeanwhileTests(SynchronousTestCase):
    """A transfer, and what befalls it."""

    def demo(self) -> _Demo:
        return _Demo(Console(file=io.StringIO()), LocalGrid("nowhere"), Path("nowhere"))

    def test_at_the_same_time(self) -> None:
        """The disaster strikes while the transfer is on its way."""
        struck = threading.Event()
        seen: list[bool] = []
        self.demo()._meanwhile(lambda: seen.append(struck.wait(5)), struck.set)
        self.assertEqual(seen, [True])

    def test_transfer_fails(self) -> None:
        """An error of the transfer is the demo's."""

        def transfer() -> None:
            raise NoSpace("full")

        self.assertRaises(NoSpace, self.demo()._meanwhile, transfer, lambda: None)
