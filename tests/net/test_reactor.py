"""The real runtime's threads, clock and parts."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from filegrid.errors import Unavailable
from filegrid.net.reactor import BootClock, ReactorThreads, boot_seconds, make_runtime
from tests.net.papers import credentials

PATIENCE_SECONDS = 10.0
"""For a thread that answers in microseconds; only a failing test waits for it."""


class Inbox:
    """As much of a reactor as threads need: calls from them wait until they are taken."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], object]] = queue.Queue()

    def callFromThread(self, work: Callable[..., object], *args: object, **named: object) -> None:
        self._calls.put(lambda: work(*args, **named))

    def wait_for(self, *results: Deferred[Any]) -> None:
        while not all(result.called for result in results):
            self._calls.get(timeout=PATIENCE_SECONDS)()


class ThreadsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.inbox = Inbox()
        self.threads = ReactorThreads(self.inbox, 2)
        self.addCleanup(self.threads.stop)

    def test_result(self) -> None:
        """Work runs in another thread; its result and its error come back."""
        good = self.threads.run(threading.get_ident)
        bad = self.threads.run(int, "x")
        self.inbox.wait_for(good, bad)
        self.assertNotEqual(self.successResultOf(good), threading.get_ident())
        self.failureResultOf(bad, ValueError)

    def test_together(self) -> None:
        """The pool's threads work at the same time."""
        both = threading.Barrier(2, timeout=PATIENCE_SECONDS)
        results = [self.threads.run(both.wait) for _ in range(2)]
        self.inbox.wait_for(*results)
        self.assertEqual({self.successResultOf(result) for result in results}, {0, 1})

    def test_lane(self) -> None:
        """A lane does its work in order, in one thread, and its name always means that lane."""
        done: list[tuple[int, int]] = []

        def work(number: int) -> None:
            done.append((number, threading.get_ident()))

        lane = self.threads.lane("journal")
        self.assertIs(lane, self.threads.lane("journal"))
        self.assertIs(lane, self.threads.lane("other").lane("journal"))
        self.inbox.wait_for(*[lane.run(work, number) for number in range(100)])
        self.assertEqual([number for number, _ in done], list(range(100)))
        self.assertEqual(len({thread for _, thread in done}), 1)

    def test_stop(self) -> None:
        """Stopping waits for what was asked for, and refuses what comes after."""
        done: list[int] = []
        lane = self.threads.lane("journal")
        results = [lane.run(done.append, number) for number in range(100)]
        self.threads.stop()
        self.assertEqual(done, list(range(100)))
        self.inbox.wait_for(*results)
        self.failureResultOf(lane.run(done.append, 0), Unavailable)
        self.failureResultOf(self.threads.run(done.append, 0), Unavailable)


class Idle(ReactorBase):
    """A reactor that nobody has started."""

    def installWaker(self) -> None:
        pass


class RuntimeTests(SynchronousTestCase):
    def test_clock(self) -> None:
        """The clock shows time since boot; its timers are the reactor's."""
        inner = Clock()
        clock = BootClock(inner)
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.assertTrue(before <= clock.seconds() < before + 1)
        fired: list[str] = []
        call = clock.callLater(2.0, fired.append, "now")
        self.assertEqual(clock.getDelayedCalls(), [call])
        inner.advance(2.0)
        self.assertEqual(fired, ["now"])

    def test_whole(self) -> None:
        """A runtime's threads end with the reactor, whose own time is left alone while in use."""
        reactor = MemoryReactorClock()
        runtime = make_runtime(reactor, credentials("head-1"))
        self.assertEqual(reactor.seconds(), 0.0)
        self.assertTrue(abs(runtime.wall_seconds() - time.time()) < 1)
        for stop, args, named in reactor.triggers["during"]["shutdown"]:
            stop(*args, **named)
        self.failureResultOf(runtime.threads.run(int), Unavailable)

    def test_fresh_random(self) -> None:
        """No two runtimes draw the same numbers."""
        reactor = MemoryReactorClock()
        draws = {make_runtime(reactor, credentials("head-1")).random.random() for _ in range(3)}
        self.assertEqual(len(draws), 3)

    def test_idle_reactor(self) -> None:
        """The timers of a reactor that is not in use yet are put on boot time as well."""
        reactor = Idle()
        make_runtime(reactor, credentials("head-1"))
        self.assertIs(reactor.seconds, boot_seconds)

    def test_used_reactor(self) -> None:
        """A reactor that has timers already keeps its time: they would never fire."""
        reactor = Idle()
        reactor.callLater(1, int)
        make_runtime(reactor, credentials("head-1"))
        self.assertIsNot(reactor.seconds, boot_seconds)
