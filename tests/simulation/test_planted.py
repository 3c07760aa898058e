"""The checkers can fail: each planted bug is found, under the promise that it breaks."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from filegrid.simulation.campaign import Campaign
from tests.simulation.planted import PLANTED, Planted


class Found(SynchronousTestCase):
    """With the first of the seeds from 1 on that finds it."""


def _found(bug: Planted) -> Callable[[Found], None]:
    def test(self: Found) -> None:
        bug.plant(self.patch)
        result = Campaign(bug.scenario, bug.seed).run()
        self.flushLoggedErrors()  # what broken nodes say of themselves
        self.assertEqual(result.promise, bug.promise, result.detail)

    return test


for _name, _bug in PLANTED.items():
    setattr(Found, f"test_{_name}", _found(_bug))
