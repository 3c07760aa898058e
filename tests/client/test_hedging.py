"""Hedging: who is asked, when, how often, and whose answer is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from filegrid.client.hedging import (
    LATE_FACTOR,
    LEAST_LATE_SECONDS,
    MOST_SAVED,
    UNKNOWN_LATE_SECONDS,
    Hedges,
)
from filegrid.client.latencies import Latencies
from filegrid.client.source import Source
from filegrid.errors import GridError, Unavailable
from tests.grid.case import CHUNK, GridCase, content

BLOCKS = [memoryview(b"blocks")]


class StandIn:
    """A source that answers when the test says."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.failure: GridError | None = None
        self.received_bytes = 0
        self.asked = 0
        self.dropped = False
        self.answer: Deferred[list[memoryview]] = Deferred()

    async def next(self) -> list[memoryview]:
        self.asked += 1
        return await self.answer

    def drop(self) -> None:
        self.dropped = True

    def give(self) -> None:
        self.answer.callback(BLOCKS)

    def fail(self) -> None:
        self.failure = Unavailable(f"{self.server} is ill")
        self.answer.errback(Failure(self.failure))


class Hedging(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.latencies = Latencies()
        self.hedges = Hedges(self.clock, self.latencies)
        for server in ("a", "b", "c"):
            self.latencies.note(server, 0.01)
        self.first, self.second = StandIn("a"), StandIn("b")

    def ask(self, others: Sequence[StandIn] | None = None) -> Deferred[tuple[Source, object]]:
        left = [self.second] if others is None else list(others)

        def another() -> Source | None:
            return cast(Source, left.pop()) if left else None

        first = cast(Source, self.first)
        return Deferred.fromCoroutine(self.hedges.next(first, another))

    def late(self, seconds: float = LEAST_LATE_SECONDS) -> None:
        self.clock.advance(seconds)

    def test_in_time(self) -> None:
        """A source that answers in time is the only one that is asked."""
        asking = self.ask()
        self.clock.advance(LEAST_LATE_SECONDS * 0.9)
        self.first.give()
        self.assertEqual(self.successResultOf(asking), (self.first, BLOCKS))
        self.assertEqual((self.second.asked, self.clock.getDelayedCalls()), (0, []))

    def test_late(self) -> None:
        """Where it is late another one is asked, and taken; the first is waited for beside it."""
        asking = self.ask()
        self.late()
        self.second.give()
        self.assertEqual(self.successResultOf(asking), (self.second, BLOCKS))
        self.assertEqual((self.hedges.owing(), self.first.dropped), ({"a"}, False))
        self.first.give()
        self.assertEqual((self.hedges.owing(), self.first.dropped), (set(), True))

    def test_first_wins(self) -> None:
        """The first may answer before the second after all."""
        asking = self.ask()
        self.late()
        self.first.give()
        self.assertEqual(self.successResultOf(asking), (self.first, BLOCKS))
        self.assertEqual(self.hedges.owing(), {"b"})
        self.second.fail()
        self.assertEqual(self.hedges.owing(), set())

    def test_one_fails(self) -> None:
        """The failure of one is not that of the other."""
        for first_fails in (True, False):
            self.first, self.second = first, second = StandIn("a"), StandIn("b")
            loser, winner = (first, second) if first_fails else (second, first)
            asking = self.ask()
            self.late()
            loser.fail()
            self.assertNoResult(asking)
            winner.give()
            self.assertEqual(self.successResultOf(asking), (winner, BLOCKS))

    def test_both_fail(self) -> None:
        """What the last one failed with is told; nothing is left behind."""
        asking = self.ask()
        self.late()
        self.first.fail()
        self.second.fail()
        failure = self.failureResultOf(asking, Unavailable)
        self.assertEqual(str(failure.value), "b is ill")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_fails_before_it_is_late(self) -> None:
        """Who asked hears of it at once, and chooses the next one."""
        asking = self.ask()
        self.first.fail()
        self.failureResultOf(asking, Unavailable)
        self.assertEqual((self.second.asked, self.clock.getDelayedCalls()), (0, []))

    def test_nobody_else(self) -> None:
        """Where nobody else can be asked, the first is waited for."""
        asking = self.ask([])
        self.late()
        self.assertNoResult(asking)
        self.first.give()
        self.assertEqual(self.successResultOf(asking), (self.first, BLOCKS))

    def test_how_late(self) -> None:
        """Late is measured by what others take; where they are not known, it is a second."""
        for _ in range(20):
            self.latencies.note("b", 2.0)
            self.latencies.note("c", 2.0)
        self.ask()
        self.late(LATE_FACTOR * 2.0 * 0.9)
        self.assertEqual(self.second.asked, 0)
        self.late(LATE_FACTOR * 2.0 * 0.1)
        self.assertEqual(self.second.asked, 1)
        self.hedges = Hedges(self.clock, Latencies())
        self.first, self.second = StandIn("a"), StandIn("b")
        self.ask()
        self.late(UNKNOWN_LATE_SECONDS * 0.9)
        self.assertEqual(self.second.asked, 0)
        self.late(UNKNOWN_LATE_SECONDS * 0.1)
        self.assertEqual(self.second.asked, 1)

    def test_slow_link(self) -> None:
        """While bytes come, however slowly, nobody else is asked; once none come, somebody is."""
        self.ask()
        for _ in range(20):
            self.late(LEAST_LATE_SECONDS * 0.8)
            self.first.received_bytes += 1000
        self.assertEqual(self.second.asked, 0)
        self.late(2 * LEAST_LATE_SECONDS)
        self.late(LEAST_LATE_SECONDS)
        self.assertEqual(self.second.asked, 1)

    def test_few(self) -> None:
        """Where every request is late, one in ten gets a second one, after the first few."""
        asked = 0
        for _ in range(100):
            self.first, self.second = StandIn("a"), StandIn("b")
            self.ask()
            self.late()
            asked += self.second.asked
            self.first.give()
        self.assertGreaterEqual(asked, MOST_SAVED + 8)
        self.assertLessEqual(asked, MOST_SAVED + 11)

    def test_cancelled(self) -> None:
        """Who asks no more stops both."""
        asking = self.ask()
        self.late()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertTrue(self.first.dropped and self.second.dropped)
        self.assertEqual((self.clock.getDelayedCalls(), self.hedges.owing()), ([], set()))

    def test_bug(self) -> None:
        """What is no error of the grid is told at once, and nobody is waited for behind it."""
        asking = self.ask()
        self.late()
        self.first.answer.errback(Failure(KeyError("a bug")))
        self.failureResultOf(asking, KeyError)
        self.assertTrue(self.second.answer.called and self.second.dropped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed(self) -> None:
        """A client that is closed waits for nobody."""
        self.ask()
        self.late()
        self.second.give()
        self.successResultOf(Deferred.fromCoroutine(self.hedges.close()))
        self.assertTrue(self.first.answer.called)


class Stalls(GridCase):
    """A whole grid with a server that says nothing any more, or with links that are slow."""

    chunk_servers = 5

    def test_slow_links(self) -> None:
        """Over links that take seconds for a MiB no byte is asked for twice."""
        data = content(6 * CHUNK)
        self.put("/f", data)
        for machine in self.grid.chunk_servers:
            self.grid.network.weather(machine.name, "client-1").bytes_per_second = 100_000
        self.assertGreater(self.seconds_of("/f", data), 3)
        self.assertEqual(self.client.access.hedges._saved, MOST_SAVED)

    def seconds_of(self, path: str, data: bytes) -> float:
        begun = self.grid.clock.seconds()
        self.assertEqual(self.read(path), data)
        return self.grid.clock.seconds() - begun

    def test_stalled_replica(self) -> None:
        """Readers wait for a fraction of a second, then no more, and the head is told."""
        data = content(6 * CHUNK)
        self.put("/f", data)
        for _ in range(5):
            self.read("/f")  # what the servers take is known now
        self.grid.network.cut(self.holders("/f")[0], "client-1")
        waited = [self.seconds_of("/f", data) for _ in range(20)]
        self.assertLess(max(waited), 2 * LEAST_LATE_SECONDS)
        self.assertGreater(max(waited), LEAST_LATE_SECONDS)
        self.assertLess(sum(waited), 3 * LEAST_LATE_SECONDS)
        self.grid.advance(6)
        self.assertEqual(len(self.client.access.reported), 1)
