"""Whole runs: the same seed does the same, and no seed breaks a promise."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from filegrid.simulation.campaign import Campaign
from filegrid.simulation.scenario import FAULTS, Scenario, Strike, draw_strikes, strike_numbers

SHORT = Scenario(seconds=8.0, seconds_per_strike=2.0)
"""With as many strikes in a short time as they have in a long one."""

SEEDS = 200
VARIED_FROM = 101
"""From this seed on each draws the sizes of its grid."""

SEEDS_PER_TEST = 10
"""Together in one test, so that trial's jobs share them."""

_DIGESTS = """
from filegrid.simulation.campaign import Campaign
from filegrid.simulation.scenario import Scenario
print(*[Campaign(Scenario(seconds=15.0), seed).run().digest for seed in {seeds}])
"""


class Alike(SynchronousTestCase):
    def test_across_processes(self) -> None:
        """Two runs of a seed are alike, event by event, whatever the process did before and
        however it hashes strings."""
        found = []
        for hash_seed, seeds in (("1", (6, 4)), ("2", (4, 6))):
            done = subprocess.run(
                [sys.executable, "-c", _DIGESTS.format(seeds=seeds)],
                env={**os.environ, "PYTHONHASHSEED": hash_seed},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            found.append(sorted(done.stdout.split()))
        self.assertEqual(len(found[0]), 2)
        self.assertEqual(found[0], found[1])

    def test_other_seed(self) -> None:
        """Another seed is another run."""
        short = Scenario(seconds=1.0)
        self.assertNotEqual(Campaign(short, 1).run().digest, Campaign(short, 2).run().digest)


class Strikes(SynchronousTestCase):
    def test_left_out(self) -> None:
        """Without some strikes the others are what they were."""
        scenario = Scenario(seconds=600)
        every = draw_strikes(scenario, 3)
        self.assertGreater(len(every), 20)
        self.assertEqual({one.kind for one in every} - set(FAULTS), set())
        some = frozenset(strike_numbers(scenario, 3)[::3])
        few = draw_strikes(Scenario(seconds=600, strikes=some), 3)
        self.assertEqual(few, [one for one in every if one.number in some])

    def test_kinds(self) -> None:
        """Each kind of strike can happen, and the grid heals from all of them together."""
        campaign = Campaign(Scenario(faults=()), 9)
        campaign.begin()
        self.addCleanup(campaign.close)
        campaign.pass_time(10)
        for number, kind in enumerate(FAULTS):
            for turn in range(8):
                if not campaign.misfortune.applied[kind]:
                    whom = (number + turn) % 5 / 5
                    campaign.misfortune.strike(
                        Strike(number=number, at=0, kind=kind, whom=whom, seconds=0.5, amount=0.4)
                    )
                    campaign.pass_time(1 + turn * turn)
        self.assertEqual(set(FAULTS) - set(campaign.misfortune.applied), set())
        campaign.finish()


class Seeds(SynchronousTestCase):
    """Whatever befalls a grid, its promises are kept, and it heals."""


def _seeds(first: int) -> Callable[[Seeds], None]:
    def test(self: Seeds) -> None:
        scenario = replace(SHORT, varied=first >= VARIED_FROM)
        for seed in range(first, first + SEEDS_PER_TEST):
            result = Campaign(scenario, seed).run()
            told = "\n".join([f"seed {seed}", *result.told, result.promise, result.detail])
            self.assertTrue(result.ok, told)

    return test


class Found(SynchronousTestCase):
    """Longer runs that broke a promise once; what has changed since may have changed them too."""

    scenario = Scenario(
        seconds=15.0,
        seconds_per_strike=2.0,
        faults=FAULTS[: FAULTS.index("old-head")],  # the others came later: the same strikes
    )

    def run_seed(self, seed: int, **different: Any) -> None:
        result = Campaign(replace(self.scenario, **different), seed).run()
        self.assertTrue(result.ok, "\n".join([*result.told, result.promise, result.detail]))

    def test_leader_removed_as_it_was_elected(self) -> None:
        """It handed over to one that still left it the way, and led again, without end."""
        self.run_seed(20083)
        self.run_seed(30445)

    def test_leader_that_chunk_servers_do_not_know(self) -> None:
        """Chunk servers that restarted did not find a leader that was added after them."""
        self.run_seed(20208)

    def test_vote_not_heard_of(self) -> None:
        """A head that had not heard that it has a vote gave none, and it was needed."""
        self.run_seed(30527)

    def test_removed_and_needed(self) -> None:
        """A head that restarted did not dial one that was to be removed and whose vote was needed
        until it was."""
        self.run_seed(92407)

    def test_damaged_replica_on_a_failing_disk(self) -> None:
        """A damaged replica that could not be put aside lay there until the server restarted."""
        self.run_seed(92788)

    def test_given_up_on_a_hanging_disk(self) -> None:
        """A chunk that nobody waited for once the disk answered was "being written" for good."""
        self.run_seed(95127)

    def test_leader_that_outlived_a_verdict(self) -> None:
        """A head that had refused a leader once did so as long as it led; and a client asked that
        head alone, as the one before it in its list was gone."""
        self.run_seed(97946)

    def test_address_known_to_the_log_alone(self) -> None:
        """A head whose state lost its last commits did not dial one that was added in them, and
        whose vote was needed to apply them again."""
        self.run_seed(5002, varied=True)

    def test_fence_under_the_mount_point(self) -> None:
        """A chunk server wrote down whom it obeyed in the empty folder that a lost disk left."""
        self.run_seed(30143, varied=True, faults=FAULTS)

    def test_source_lost_as_a_copy_began(self) -> None:
        """A copy for which the disk took so long that its source had gone was "being written" for
        good."""
        faults = ("unmount-disk", "wear", "rot", "slow-head-disk", "slow-chunk-disk", "old-chunk")
        self.run_seed(33, varied=True, faults=(*faults, "kill-chunk"))


for _first in range(1, SEEDS + 1, SEEDS_PER_TEST):
    setattr(Seeds, f"test_{_first:04}", _seeds(_first))
