"""The checkers can fail: each planted bug breaks a promise, and a campaign sees it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from filegrid.simulation.campaign import Campaign
from tests.simulation.planted import PLANTED, Planted

MOST_SEEDS = 200
"""Most are found by the first; where chance has to help, by one of the first ten or so."""


class Found(SynchronousTestCase):
    """That without the bugs all promises are kept is what `test_campaign` shows."""


def _found(bug: Planted) -> Callable[[Found], None]:
    def test(self: Found) -> None:
        bug.plant(self.patch)
        found = (
            seed for seed in range(1, MOST_SEEDS + 1) if not Campaign(bug.scenario, seed).run().ok
        )
        self.assertIsNotNone(next(found, None), f"not found with {MOST_SEEDS} seeds")
        self.flushLoggedErrors()  # what broken nodes say of themselves

    return test


for _name, _bug in PLANTED.items():
    setattr(Found, f"test_{_name}", _found(_bug))
