"""`filegrid simulate`, as a user runs it."""

from __future__ import annotations

import json
import multiprocessing
import shlex

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from filegrid.chunk.inventory import Inventory
from filegrid.cli import simulate
from filegrid.cli.main import cli
from filegrid.cli.simulate import run
from filegrid.simulation import campaign as simulation
from filegrid.simulation.scenario import Scenario, strike_numbers


def run_elsewhere(scenario: Scenario, seed: int) -> simulation.Result:
    """As the command runs it; only in another process."""
    if multiprocessing.parent_process() is None:
        raise AssertionError("this is the process of the tests")
    return run(scenario, seed)


class Simulate(SynchronousTestCase):
    def simulate(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["simulate", *arguments])

    def test_well(self) -> None:
        """A line for each seed, and 0."""
        done = self.simulate("--seeds", "1-2", "--minutes", "0.05", "--jobs", "1")
        self.assertEqual(done.exit_code, 0, done.output)
        self.assertIn("seed 1: ok", done.output)
        self.assertIn("seed 2: ok", done.output)

    def test_broken(self) -> None:
        """The first broken promise, its seed, what happened, and the line that repeats it."""

        def forgetful(inventory: Inventory, *chunks: object) -> None:
            """A chunk server that never tells what it has."""

        self.patch(Inventory, "add", forgetful)
        arguments = ("--seed", "3", "--minutes", "0.05", "--jobs", "1", "--faults", "kill-chunk")
        few = ("--faults", "kill-chunk", "--only", "")  # it fails without any
        done = self.simulate(*arguments)
        self.assertEqual(done.exit_code, 1, done.output)
        self.assertIn("broken: ", done.output)
        again = done.output.splitlines()[-1].removeprefix("repeat it with: ")
        self.assertEqual(shlex.split(again), ["filegrid", "simulate", *arguments[:4], *few])
        document = json.loads(self.simulate(*arguments, "--no-shrink", "--json").output)
        self.assertFalse(document["ok"])
        self.assertEqual(document["runs"][0]["seed"], 3)
        self.assertTrue(document["runs"][0]["promise"])

    def test_varied(self) -> None:
        """Each seed draws its own sizes, which are told, and repeated with --vary."""
        self.patch(Inventory, "add", lambda inventory, *chunks: None)
        arguments = ("--seed", "3", "--minutes", "0.05", "--vary", "--no-shrink")
        done = self.simulate(*arguments, "--jobs", "1")
        self.assertEqual(done.exit_code, 1, done.output)
        self.assertRegex(done.output, r"seed 3 of \d\+\d heads, \d servers")
        again = done.output.splitlines()[-1].removeprefix("repeat it with: ")
        self.assertEqual(shlex.split(again), ["filegrid", "simulate", *arguments[:-1]])

    def test_shrinks_in_processes(self) -> None:
        """Tries that would make this process grow too large are made in others."""
        scenario = Scenario(seconds=3, seconds_per_strike=1.0, faults=("reset",))
        self.assertGreater(len(strike_numbers(scenario, 1)), 0)
        broken = run(scenario, 1)  # breaks nothing, and so does every part of it
        self.patch(simulate, "MINUTES_PER_PROCESS", 0.2)
        self.patch(simulate, "run", run_elsewhere)
        self.assertEqual(simulate.shrunk(scenario, broken), [])

    def test_usage(self) -> None:
        """Seeds and faults that there are not are refused, and it is said what there is."""
        for arguments, told in (
            (("--seeds", "9-3"), "9-3 is empty"),
            (("--seeds", "x"), "neither a number nor a range"),
            (("--faults", "earthquake"), "kill-head"),
            (("--only", "1,b"), "no list of numbers"),
            (("--vary", "--chunk-servers", "4"), "--vary draws what --chunk-servers says"),
        ):
            done = self.simulate(*arguments)
            self.assertEqual(done.exit_code, 2)
            self.assertIn(told, done.output)
