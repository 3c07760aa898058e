"""Deliveries: when a parcel has been stored well enough, and who is not waited for."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from filegrid.client.delivery import LATE_FACTOR, LEAST_LATE_SECONDS, Delivery
from filegrid.errors import DiskFailed, GridError, Unavailable
from filegrid.model import ChunkId
from tests.chunk.contract import chunk_id
from tests.grid.case import GridCase, content

Answer = Deferred[Mapping[ChunkId, GridError]]


class Deliveries(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.answers: dict[str, Answer] = {name: Deferred() for name in ("a", "b", "c")}
        self.delivery = Delivery(self.clock, self.answers, 2)

    def test_all(self) -> None:
        """It is over once all have answered; what each answered is there."""
        failed = {chunk_id(1): DiskFailed("it broke")}
        self.answers["b"].callback({})
        self.answers["a"].callback(failed)
        self.assertNoResult(self.delivery.over)
        gone = Unavailable("gone")
        self.answers["c"].errback(Failure(gone))
        self.successResultOf(self.delivery.over)
        self.assertEqual(self.delivery.outcomes, {"a": failed, "b": {}, "c": gone})
        self.assertEqual((self.delivery.left, self.clock.getDelayedCalls()), ({}, []))

    def test_late(self) -> None:
        """Once enough have stored it, the last one is waited for a while, and no longer."""
        self.answers["a"].callback({})
        self.answers["b"].callback({})
        self.clock.advance(LEAST_LATE_SECONDS * 0.9)
        self.assertNoResult(self.delivery.over)
        self.clock.advance(LEAST_LATE_SECONDS * 0.1)
        self.successResultOf(self.delivery.over)
        self.assertIsInstance(self.delivery.outcomes["c"], Unavailable)
        self.assertEqual([*self.delivery.left], ["c"])

    def test_all_slow(self) -> None:
        """Where the others took long, the last one may take longer."""
        self.clock.advance(2)
        self.answers["a"].callback({})
        self.answers["b"].callback({})
        self.clock.advance(2 * LATE_FACTOR * 0.9)
        self.assertNoResult(self.delivery.over)
        self.answers["c"].callback({})
        self.successResultOf(self.delivery.over)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_enough(self) -> None:
        """One that could not store all does not count: the last one may be needed."""
        self.answers["a"].callback({})
        self.answers["b"].callback({chunk_id(1): DiskFailed("it broke")})
        self.clock.advance(100)
        self.assertNoResult(self.delivery.over)

    def test_answers_late(self) -> None:
        """What a late one answers is for whoever waits for it."""
        self.answers["a"].callback({})
        self.answers["b"].callback({})
        self.clock.advance(LEAST_LATE_SECONDS)
        self.answers["c"].errback(Failure(Unavailable("gone")))
        self.failureResultOf(self.delivery.left["c"], Unavailable)

    def test_given_up(self) -> None:
        """Cancelling it, or a bug, ends what is under way."""
        self.answers["a"].callback({})
        self.delivery.over.cancel()
        self.failureResultOf(self.delivery.over, CancelledError)
        self.assertTrue(self.answers["b"].called and self.answers["c"].called)
        answers: dict[str, Answer] = {name: Deferred() for name in ("a", "b")}
        delivery = Delivery(self.clock, answers, 1)
        answers["a"].errback(Failure(KeyError("a bug")))
        self.failureResultOf(delivery.over, KeyError)
        self.assertTrue(answers["b"].called)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Stalls(GridCase):
    chunk_servers = 5

    def test_stalled_server(self) -> None:
        """Small files wait for a server that says nothing for a second, once; then all heals."""
        self.stall(3)

    def test_every_replica_needed(self) -> None:
        """Where no server can be done without, another one is tried after that second."""
        self.stall(2)

    def stall(self, replication: int) -> None:
        self.put("/first", b"1", replication=replication)
        self.grid.network.isolate("chunk-2")
        waited = []
        for number in range(30):
            begun = self.grid.clock.seconds()
            self.put(f"/f{number}", content(1000, number), replication=replication)
            waited.append(self.grid.clock.seconds() - begun)
        self.assertLess(max(waited), 1.5 * LEAST_LATE_SECONDS)
        self.assertLess(sum(waited), 3 * LEAST_LATE_SECONDS)
        self.grid.network.rejoin("chunk-2")
        self.grid.advance(3)  # a chunk that was just published is not short of replicas yet
        self.until_healthy()
        for number in range(30):
            self.assertEqual(self.read(f"/f{number}"), content(1000, number))
            self.assertEqual(len(self.holders(f"/f{number}")), replication)
