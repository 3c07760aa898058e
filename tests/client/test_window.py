"""A bounded number of coroutines at a time, and none of them left behind."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from filegrid.client.window import Window


class WindowTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.window = Window(2)
        self.gates: list[Deferred[None]] = []
        self.cancelled = 0

    async def work(self) -> None:
        gate: Deferred[None] = Deferred()
        self.gates.append(gate)
        try:
            await gate
        except CancelledError:
            self.cancelled += 1
            raise

    async def add_three(self) -> None:
        async with self.window as window:
            for _ in range(3):
                await window.add(self.work())

    def test_limit(self) -> None:
        """The next piece of work begins only when one before it has ended."""
        running = Deferred.fromCoroutine(self.add_three())
        self.assertEqual(len(self.gates), 2)
        self.gates[1].callback(None)
        self.assertEqual(len(self.gates), 3)
        self.gates[0].callback(None)
        self.assertNoResult(running)
        self.gates[2].callback(None)
        self.assertIsNone(self.successResultOf(running))

    def test_first_error(self) -> None:
        """The first error cancels the rest, is raised, and what waited is never begun."""
        running = Deferred.fromCoroutine(self.add_three())
        self.gates[0].errback(KeyError("first"))
        self.failureResultOf(running, KeyError)
        self.assertEqual((len(self.gates), self.cancelled), (2, 1))

    def test_error_of_the_body(self) -> None:
        """Where the body fails, what it began is cancelled before the error is seen."""

        async def body() -> None:
            async with self.window as window:
                await window.add(self.work())
                raise KeyError

        self.failureResultOf(Deferred.fromCoroutine(body()), KeyError)
        self.assertEqual(self.cancelled, 1)

    def test_cancelled_from_outside(self) -> None:
        """Whoever cancels the whole cancels all its parts, also while it waits for room."""
        running = Deferred.fromCoroutine(self.add_three())
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(self.cancelled, 2)

    def test_cancelled_while_joining(self) -> None:
        """Cancelling the wait for the last ones cancels them."""

        async def body() -> None:
            async with self.window as window:
                await window.add(self.work())

        running = Deferred.fromCoroutine(body())
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(self.cancelled, 1)

    def test_late_add(self) -> None:
        """After an error nothing more is begun."""

        async def add() -> None:
            await self.window.add(self.work())

        self.successResultOf(Deferred.fromCoroutine(add()))
        self.gates[0].errback(KeyError("first"))
        self.failureResultOf(Deferred.fromCoroutine(add()), KeyError)
        self.assertEqual(len(self.gates), 1)
