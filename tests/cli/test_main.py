"""The command's face: exit codes, one line for an error, options in any place."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from filegrid.cli import local_grid, main, nodes
from filegrid.cli.local_home import Home, Shape, save_home
from filegrid.cli.main import run, with_shared_options
from filegrid.cli.output import Invocation, error_line, exit_code
from filegrid.errors import GridError, InvalidRequest, NoSpace, NoSuchPath, OutcomeUnknown


class RunTest(SynchronousTestCase):
    def command(self, function: Callable[[], object]) -> None:
        """Make `function` the only command."""
        made = click.Command("do", callback=function)
        self.patch(main.Commands, "_found", lambda _: iter([with_shared_options(made)]))

    def result(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = run(list(arguments))
        return code, out.getvalue(), err.getvalue()


class ErrorTests(RunTest):
    """How a command ends."""

    def fails(self, error: BaseException) -> tuple[int, str, str]:
        def function() -> None:
            raise error

        self.command(function)
        return self.result("do")

    def test_grid_errors(self) -> None:
        """An error of the grid is one line, with its own exit code."""
        self.assertEqual(
            self.fails(NoSuchPath("nothing has this path", "/a\nb", advice="look")),
            (3, "", "filegrid: /a b: nothing has this path; look\n"),
        )
        self.assertEqual(self.fails(OutcomeUnknown("who knows"))[0], 9)

    def test_local_errors(self) -> None:
        """Errors of local files have the exit codes of the like on the grid."""
        error = FileNotFoundError(2, "No such file or directory", "here.bin")
        expected = (3, "", "filegrid: here.bin: No such file or directory\n")
        self.assertEqual(self.fails(error), expected)
        self.assertEqual(self.fails(OSError(28, "No space left on device"))[0], 8)
        self.assertEqual(self.fails(PermissionError(13, "Permission denied"))[0], 7)

    def test_interrupted(self) -> None:
        """Ctrl-C is no news to whoever pressed it."""
        code, out, err = self.fails(KeyboardInterrupt())
        self.assertEqual((code, out, err.strip()), (130, "", ""))

    def test_bugs_are_loud(self) -> None:
        """What is no operating fault keeps its traceback."""
        self.assertRaises(ZeroDivisionError, self.fails, ZeroDivisionError())

    def test_usage(self) -> None:
        """Wrong usage is one line and exit code 2."""
        self.command(lambda: None)
        code, out, err = self.result("do", "--nonsense")
        self.assertEqual((code, out, err.count("\n")), (2, "", 1))
        self.assertIn("filegrid do: No such option", err)
        self.assertEqual(self.result("undo")[0], 2)
        self.assertEqual(self.result()[0], 2)

    def test_exit_codes(self) -> None:
        """Exit codes come from the error's class; anything else is 1."""
        self.assertEqual(exit_code(NoSpace("full")), 8)
        self.assertEqual(exit_code(GridError("?")), 1)
        self.assertEqual(exit_code(OSError(5, "Input/output error")), 1)
        self.assertEqual(error_line(GridError("broken")), "filegrid: broken")


class SharedOptionTests(RunTest):
    """--grid and --timeout."""

    def said(self, *arguments: str) -> Invocation:
        seen: list[Invocation] = []

        @click.pass_obj
        def function(invocation: Invocation) -> None:
            seen.append(invocation)

        self.command(function)
        self.assertEqual(self.result(*arguments), (0, "", ""))
        return seen[0]

    def test_before_and_behind(self) -> None:
        """They stand before the command or among its options."""
        expected = Invocation(grid="a.toml", timeout_seconds=2.0)
        self.assertEqual(self.said("--grid", "a.toml", "--timeout", "2", "do"), expected)
        self.assertEqual(self.said("do", "--timeout=2", "--grid=a.toml"), expected)
        self.assertEqual(self.said("--grid=a.toml", "do", "--timeout", "2"), expected)
        self.assertEqual(self.said("do"), Invocation())


class NodesTests(SynchronousTestCase):
    """The commands that run a grid, without one."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()

    def invoke(self, *arguments: str) -> tuple[int, str]:
        """Exit code and what was printed on either stream."""
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            code = run([*arguments, "--home", str(self.folder)])
        return code, out.getvalue()

    def test_settings(self) -> None:
        """--set takes section.key=value; the value may hold anything."""
        self.assertEqual(nodes.parse_settings(("a.b=c=d", "e.f=")), {"a.b": "c=d", "e.f": ""})
        for wrong in ("a.b", "ab=c", "=1"):
            self.assertRaises(InvalidRequest, nodes.parse_settings, (wrong,))

    def test_refused_before_anything_is_made(self) -> None:
        """What `up` cannot do it refuses with exit code 2, and makes nothing."""
        for flags in (
            ["--heads", "2"],
            ["--health", "2"],
            ["--set", "grid.replication=0"],
            ["--set", "grid.replicaton=3"],
            ["--set", "grid"],
        ):
            code, said = self.invoke("up", *flags)
            self.assertEqual((code, said.count("\n")), (2, 1), said)
            self.assertFalse(self.folder.exists())
        self.assertIn("--set: grid.replicaton", self.invoke("up", "--set", "grid.replicaton=3")[1])

    def test_no_home(self) -> None:
        """A folder that is no grid's home is named."""
        for arguments in (["down"], ["start", "chunk-1"], ["stop", "chunk-1"], ["kill", "chunk-1"]):
            code, said = self.invoke(*arguments)
            self.assertEqual(code, 3)
            self.assertIn(f"{self.folder}: is not the home of a grid", said)

    def test_nodes_that_do_not_run(self) -> None:
        """Stopping what does not run is done already; a node that is not there is an error."""
        (self.folder / "run").mkdir(parents=True)
        save_home(self.folder, Home(shape=Shape(), ports={"head-1": 1, "chunk-1": 2}))
        for verb in ("stop", "kill"):
            self.assertEqual(self.invoke(verb, "chunk-1"), (0, "chunk-1 does not run\n"))
            self.assertEqual(self.invoke(verb, "chunk-9")[0], 2)
        self.assertEqual(self.invoke("down"), (0, ""))

    def test_up(self) -> None:
        """`up` makes, starts, waits and reports; a second one starts without making."""
        started: list[tuple[str, ...]] = []
        self.patch(local_grid.LocalGrid, "start", lambda _, *names: started.append(names))
        self.patch(local_grid.LocalGrid, "wait_ready", lambda _, why: None)
        code, said = self.invoke("up", "--chunk-servers", "2", "--json")
        self.assertEqual(code, 0, said)
        document = json.loads(said)
        self.assertEqual(document["grid"], str(self.folder / "grid.toml"))
        counts = (("head", 3), ("health", 3), ("chunk", 2))
        names = [f"{role}-{n + 1}" for role, count in counts for n in range(count)]
        self.assertEqual([n["name"] for n in document["nodes"]], names)
        code, said = self.invoke("up")
        self.assertIn(f"export FILEGRID_GRID={self.folder}/grid.toml", said)
        self.assertEqual(started, [tuple(names)] * 2)
        self.assertEqual(self.invoke("up", "--chunk-servers", "3")[0], 2)


class LazyTests(SynchronousTestCase):
    """What the commands import before they are called."""

    def test_help_is_light(self) -> None:
        """The command line comes up without the reactor, which takes longer than all else."""
        program = "import sys, filegrid.cli.main as m; m.run(['up', '--help']); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        self.assertIn("Start a whole grid", done.stdout)
        for heavy in ("twisted.internet.reactor", "crochet", "psutil", "cryptography.x509"):
            self.assertNotIn(heavy, done.stdout.splitlines()[-1].split())
