"""Tests for :mod:`filegrid.net.tasks`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial import unittest

from filegrid.errors import Unavailable
from filegrid.net.tasks import shielded


class Shielded(unittest.SynchronousTestCase):
    async def work(self, step: Deferred[int]) -> int:
        self.found = await step
        return self.found

    def test_waited_for(self) -> None:
        """Whoever waits gets the result, or the error."""
        step: Deferred[int] = Deferred()
        waiting = shielded(self.work(step))
        step.callback(3)
        self.assertEqual(self.successResultOf(waiting), 3)
        failing: Deferred[int] = Deferred()
        waiting = shielded(self.work(failing))
        failing.errback(Unavailable("away"))
        self.failureResultOf(waiting, Unavailable)

    def test_cancelled(self) -> None:
        """Cancelling ends the waiting, and not the work."""
        step: Deferred[int] = Deferred()
        waiting = shielded(self.work(step))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        step.callback(3)
        self.assertEqual(self.found, 3)

    def test_fails_alone(self) -> None:
        """What fails when nobody waits any more is logged."""
        step: Deferred[int] = Deferred()
        waiting = shielded(self.work(step))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        step.errback(Unavailable("away"))
        self.assertEqual(len(self.flushLoggedErrors(Unavailable)), 1)
