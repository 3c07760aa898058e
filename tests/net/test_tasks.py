"""Tests for :mod:`filegrid.net.tasks`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial import unittest

from filegrid.errors import Unavailable
from filegrid.net.tasks import Loop, begun, claimed, shielded


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
        """What fails when nobody waits any more is logged: a bug as one, the rest in a line."""
        for error, bugs in ((KeyError("bug"), 1), (Unavailable("away"), 0)):
            step: Deferred[int] = Deferred()
            waiting = shielded(self.work(step))
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            with capturedLogs() as events:
                step.errback(error)
            self.assertEqual(len(events), 1)
            self.assertEqual(len(self.flushLoggedErrors(KeyError)), bugs)


class Claimed(unittest.SynchronousTestCase):
    def test_too_late(self) -> None:
        """What comes when nobody waits any more is released, and only then."""
        released: list[str] = []
        opening: Deferred[str] = Deferred()
        waiting = claimed(opening, released.append)
        opening.callback("a file")
        self.assertEqual((self.successResultOf(waiting), released), ("a file", []))
        late: Deferred[str] = Deferred()
        waiting = claimed(late, released.append)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(released, [])
        late.callback("another file")
        self.assertEqual(released, ["another file"])


class Loops(unittest.SynchronousTestCase):
    def test_fails_once(self) -> None:
        """A turn that fails is told of, and others come after it."""
        clock, turns = Clock(), []

        def turn() -> None:
            turns.append(clock.seconds())
            if len(turns) == 2:
                raise KeyError("a bug")

        loop = Loop(clock, turn, seconds=0.5, what="the turn")
        with capturedLogs() as events:
            loop.start()
            clock.pump([0.5] * 3)
        self.assertEqual(turns, [0.0, 0.5, 1.0, 1.5])
        self.assertEqual([event["what"] for event in events], ["the turn"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        loop.stop()
        loop.stop()
        self.assertEqual(clock.getDelayedCalls(), [])


class Begun(unittest.SynchronousTestCase):
    def test_at_once(self) -> None:
        """What never waits has ended when this returns, and leaves nothing."""
        done: list[int] = []

        async def work() -> None:
            done.append(1)

        self.assertIs(begun(work()), None)
        self.assertEqual(done, [1])

    def test_goes_on(self) -> None:
        """What waits goes on from there, however often, with results and with errors."""
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()

        async def work() -> list[object]:
            found: list[object] = [await first]
            try:
                await second
            except Unavailable as error:
                found.append(error.what)
            return found

        going = begun(work())
        assert going is not None
        first.callback(1)
        self.assertNoResult(going)
        second.errback(Unavailable("away"))
        self.assertEqual(self.successResultOf(going), [1, "away"])

    def test_error(self) -> None:
        """An error after the waiting is that of the whole; one before it is raised at once."""

        async def work(step: Deferred[int] | None) -> None:
            if step is not None:
                await step
            raise Unavailable("away")

        step: Deferred[int] = Deferred()
        going = begun(work(step))
        assert going is not None
        step.callback(1)
        self.failureResultOf(going, Unavailable)
        self.assertRaises(Unavailable, begun, work(None))

    def test_cancelled(self) -> None:
        """Cancelling cancels what is waited for, and the work learns of it."""
        step: Deferred[int] = Deferred()
        found: list[str] = []

        async def work() -> None:
            try:
                await step
            except CancelledError:
                found.append("cancelled")

        going = begun(work())
        assert going is not None
        going.cancel()
        self.assertEqual(found, ["cancelled"])
        self.successResultOf(going)
